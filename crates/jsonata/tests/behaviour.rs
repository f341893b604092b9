//! What expressions mean, in tables.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jiff::Timestamp;
use jsonata::{Expression, Scope};
use serde_json::{Value, json};

/// The value of an expression as JSON text, `undefined`, or the error's code and message.
fn show(text: &str, prepare: impl FnOnce(&mut Scope<'_>)) -> String {
    let data = json!({
        "order": { "id": 7, "lines": [
            { "sku": "a", "price": 1.5, "n": 2, "tags": ["x", "y"] },
            { "sku": "b", "price": 10, "n": 1, "tags": "z" },
        ] },
        "one": [{ "v": 1 }], "nested": [[1, 2], [3]], "empty": [], "none": null, "big": 12_345_678_901_234_567_890_u64,
    });
    let states =
        json!({ "input": { "x": 1.0, "list": [3, 1, 2] }, "context": { "Execution": { "Id": "e" } } });
    let mut scope =
        Scope::new("2026-11-21T03:04:05.678Z".parse::<Timestamp>().unwrap()).bind("states", &states);
    scope.input = Some(&data);
    prepare(&mut scope);
    match Expression::parse(text).and_then(|expression| expression.evaluate(&scope)) {
        Ok(Some(value)) => value.to_string(),
        Ok(None) => "undefined".to_owned(),
        Err(error) => format!("{}: {error}", error.code),
    }
}

fn check(prepare: fn(&mut Scope<'_>), table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(show(text, prepare), *expected, "{text}");
    }
}

#[test]
fn sequences_and_singletons() {
    check(
        |_| {},
        &[
            ("order.lines.sku", r#"["a","b"]"#),
            ("order.lines[0].sku", r#""a""#),
            ("order.lines[0].sku[]", r#"["a"]"#),
            ("order.lines[].id", "undefined"),
            ("order.lines[n > 5]", "undefined"),
            (
                "order.lines[n > 1][]",
                r#"[{"sku":"a","price":1.5,"n":2,"tags":["x","y"]}]"#,
            ),
            ("order.lines.tags", r#"["x","y","z"]"#),
            ("order.lines.[tags]", r#"[["x","y"],["z"]]"#),
            ("nested", "[[1,2],[3]]"),
            ("nested.$", "[1,2,3]"),
            ("nested[0]", "[1,2]"),
            ("nested[[0, -1]]", "[[1,2],[3]]"),
            ("one", r#"[{"v":1}]"#),
            ("one.v", "1"),
            ("[one.v]", "[1]"),
            ("empty", "[]"),
            ("empty.x", "undefined"),
            ("none", "null"),
            ("none.x", "undefined"),
            ("order.lines.(price * n) ~> $sum()", "13"),
            ("order.lines{sku: price}", r#"{"a":1.5,"b":10}"#),
            ("order.lines^(>price).sku", r#"["b","a"]"#),
            ("order.lines#$i[$i = 1].sku", r#""b""#),
            (
                "order.lines.tags.{ 'tag': $, 'sku': %.sku }",
                r#"[{"tag":"x","sku":"a"},{"tag":"y","sku":"a"},{"tag":"z","sku":"b"}]"#,
            ),
            ("order.lines@$l.$l.tags[$ = 'z'].{ 's': $l.sku }", r#"{"s":"b"}"#),
            (
                "order.lines ~> |$|{ 'n': n + 1 }, 'tags'|",
                r#"[{"sku":"a","price":1.5,"n":3},{"sku":"b","price":10,"n":2}]"#,
            ),
            ("missing ?? 'd'", r#""d""#),
            ("none ?? 'd'", "null"),
            ("none ?: 'd'", r#""d""#),
        ],
    );
}

#[test]
fn numbers_are_printed_as_javascript_prints_them() {
    check(
        |_| {},
        &[
            ("$states.input.x + 0", "1"),
            ("1.0", "1"),
            ("6 / 2", "3"),
            ("1 / 3", "0.3333333333333333"),
            ("$string(1 / 3)", r#""0.333333333333333""#),
            ("0.1 + 0.2", "0.30000000000000004"),
            ("$string(0.1 + 0.2)", r#""0.3""#),
            ("'' & 1e21", r#""1e+21""#),
            ("-0", "0"),
            ("$round(2.5)", "2"),
            ("big + 0", "12345678901234567000"),
            ("1 / 0", "D1001: Number out of range: null"),
            ("$formatBase(-255, 16)", r#""-ff""#),
        ],
    );
}

/// A number that an expression only hands on, in arrays, objects and through functions too, is written as it was.
#[test]
fn numbers_that_nobody_computes_with_keep_their_literals() {
    let kept = [
        ("n", "1.50E+02"),
        ("[n, 1, {'n': n}]", r#"[1.50E+02,1,{"n":1.50E+02}]"#),
        ("($x := n; $x)", "1.50E+02"),
        ("true ? n : 0", "1.50E+02"),
        ("list[1]", "-0.0e-0"),
        ("list[$ = 150]", "1.50E+02"),
        ("list^(>$)", "[1E2000,1.50E+02,100,-0.0e-0]"),
        ("$sort(list)", "[-0.0e-0,100,1.50E+02,1E2000]"),
        ("$reverse(list)", "[100,1E2000,-0.0e-0,1.50E+02]"),
        ("$append(list[0], [7.0])", "[1.50E+02,7]"),
        ("$map(list, function($v) { $v })", "[1.50E+02,-0.0e-0,1E2000,100]"),
        ("$filter(list, function($v) { $v = 150 })", "1.50E+02"),
        ("$distinct([n, 150, n])", "[1.50E+02]"),
        ("$merge([{'n': n}])", r#"{"n":1.50E+02}"#),
        ("$lookup({'n': n}, 'n')", "1.50E+02"),
        ("$clone({'n': n})", r#"{"n":1.50E+02}"#),
        ("$parse('[1e05]')", "[1e05]"),
        ("n + 0", "150"),
        ("-n", "-150"),
        ("$sum([n])", "150"),
        ("$string(n)", r#""150""#),
        ("'' & n", r#""150""#),
        ("n = 150", "true"),
        ("n in [150]", "true"),
        ("1.50", "1.5"),
        ("long", "9007199254740993"),
        ("long = 9007199254740992", "true"),
    ];
    let data =
        jsonata::json::read(r#"{"n":1.50E+02,"list":[1.50E+02,-0.0e-0,1E2000,100],"long":9007199254740993}"#)
            .unwrap();
    for (text, expected) in kept {
        let mut scope = Scope::new(Timestamp::UNIX_EPOCH);
        scope.input = Some(&data);
        scope.states = true;
        let value = Expression::parse(text).unwrap().evaluate(&scope);
        assert_eq!(value.unwrap().unwrap().to_string(), expected, "{text}");
    }
}

#[test]
fn errors_speak_the_words_of_the_reference() {
    check(
        |_| {},
        &[
            ("$nothing(1)", "T1006: Attempted to invoke a non-function"),
            (
                "sum(1)",
                "T1005: Attempted to invoke a non-function. Did you mean $sum?",
            ),
            (
                "'a' + 1",
                r#"T2001: The left side of the "+" operator must evaluate to a number"#,
            ),
            (
                "1 < 'a'",
                r#"T2009: The values 1 and "a" either side of operator "<" must be of the same data type"#,
            ),
            (
                "$length(1)",
                r#"T0410: Argument 1 of function "length" does not match function signature"#,
            ),
            (
                "$sum(['a'])",
                r#"T0412: Argument 1 of function "sum" must be an array of "numbers""#,
            ),
            ("$error('no')", "D3137: no"),
            ("$number('x')", r#"D3030: Unable to cast value to a number: "x""#),
            ("1 +", "S0207: Unexpected end of expression"),
            ("[1, 2", r#"S0203: Expected "]" before end of expression"#),
            ("(1]", r#"S0202: Expected ")", got "]""#),
            (
                "%",
                "S0217: The object representing the 'parent' cannot be derived from this expression",
            ),
            (
                "{ 1: 2 }",
                "T1003: Key in object structure must evaluate to a string; got: 1",
            ),
        ],
    );
    let error = Expression::parse("$states.input.x +").unwrap_err();
    assert_eq!((error.code, error.position), ("S0207", 17));
}

#[test]
fn time_and_chance_come_from_the_scope() {
    check(
        |scope| scope.seed = 5,
        &[
            ("$now()", r#""2026-11-21T03:04:05.678Z""#),
            ("$millis()", "1795230245678"),
            (
                "$now('[FNn] [D1o] [MNn], [H01]:[m01] [Z]', '+0100')",
                r#""Saturday 21st November, 04:04 +01:00""#,
            ),
            ("$toMillis('2026-11-21T03:04:05.678Z') = $millis()", "true"),
            ("$random() >= 0 and $random() < 1", "true"),
            ("$random() = $random()", "false"),
            ("$shuffle([1..20]) = [1..20]", "false"),
            ("$sort($shuffle([1..20])) = [1..20]", "true"),
        ],
    );
    let seeded = |seed| show("$random()", |scope| scope.seed = seed);
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
}

#[test]
fn step_functions_adds_functions_on_request() {
    check(
        |scope| {
            scope.states = true;
            scope.input = None;
        },
        &[
            ("$partition([1, 2, 3, 4, 5], 2)", "[[1,2],[3,4],[5]]"),
            ("$partition([], 2)", "[]"),
            (
                "$partition([1], 0)",
                "D3137: The chunk size of $partition must be a positive number",
            ),
            ("$range(0, 10, 4)", "[0,4,8]"),
            ("$range(5, 1, -2)", "[5,3,1]"),
            ("$range(1, 2, 0)", "D3137: The step of $range must not be 0"),
            ("$hash('a', 'MD5')", r#""0cc175b9c0f1b6a831c399e269772661""#),
            (
                "$hash('', 'SHA-1')",
                r#""da39a3ee5e6b4b0d3255bfef95601890afd80709""#,
            ),
            ("$length($hash('', 'SHA-512'))", "128"),
            ("$random(1) = $random(1)", "true"),
            ("$random(1) = $random(2)", "false"),
            (
                "$match($uuid(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/).index",
                "0",
            ),
            ("$uuid() = $uuid()", "false"),
            (
                "$parse('{\"b\": [1, null], \"a\": 1.0}')",
                r#"{"b":[1,null],"a":1.0}"#,
            ),
            ("$eval('1')", "T1006: Attempted to invoke a non-function"),
            ("$", "undefined"),
            ("$states.input.list^($)", "[1,2,3]"),
        ],
    );
    assert_eq!(
        show("$uuid()", |_| {}),
        "T1006: Attempted to invoke a non-function"
    );
    assert_eq!(show("$eval('order.id')", |scope| scope.eval = true), "7");
}

#[test]
fn free_variables_are_those_of_the_scope() {
    for (text, expected) in [
        ("$states.input.x + $y & $states.context", vec!["states", "y"]),
        ("($x := 1; $x + $y)", vec!["y"]),
        ("($x := 1; $x) + $x", vec!["x"]),
        ("function($a, $b) { $a + $c }", vec!["c"]),
        (
            "$map($list, function($i) { $i * $factor })",
            vec!["list", "factor"],
        ),
        ("a@$l.b#$i[$i = $n].($l)", vec!["n"]),
        ("($f := function($n) { $f($n) }; $f(1))", vec![]),
        ("$sum($) + $$.a", vec![]),
        ("|$p|{ 'a': $u }, $d|", vec!["p", "u", "d"]),
        ("x{ $k: $v }", vec!["k", "v"]),
        ("x^(>$k)[$f(?, $g)]", vec!["k", "f", "g"]),
    ] {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(expression.variables().collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn keys_stay_in_the_order_of_their_insertion() {
    let value = show(
        "$merge([{ 'z': 1, 'a': 2 }, { '10': 3, '9': 4, 'z': 5 }])",
        |_| {},
    );
    assert_eq!(value, r#"{"z":5,"a":2,"10":3,"9":4}"#);
    let many = "$merge([1..30].{ 'k' & (31 - $): $ })";
    let value: Value = serde_json::from_str(&show(many, |_| {})).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    assert_eq!((keys[0].as_str(), keys[29].as_str()), ("k30", "k1"));
    assert_eq!(show(&format!("{many}.k7"), |_| {}), "24");
}

#[test]
fn expressions_are_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Expression>();
}
