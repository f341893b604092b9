//! Hostile expressions end, with an error that says why, whatever the stack of the thread.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jiff::Timestamp;
use jsonata::{Expression, Limits, Scope};
use proptest::prelude::*;
use serde_json::{Value, json};

fn outcome(text: &str, limits: Limits) -> Result<Option<Value>, &'static str> {
    let data = json!({ "a": [1, [2, 3], { "v": 7 }], "s": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!" });
    let mut scope = Scope::new(Timestamp::UNIX_EPOCH);
    scope.input = Some(&data);
    scope.states = true;
    scope.eval = true;
    scope.limits = limits;
    let expression = Expression::parse(text).map_err(|error| error.code)?;
    expression.evaluate(&scope).map_err(|error| error.code)
}

const SMALL: Limits = Limits {
    steps: 100_000,
    depth: 300,
    bytes: 32 << 20,
};

#[test]
fn every_limit_has_its_error() {
    let nested = |open: &str, close: &str, count: usize| open.repeat(count) + "1" + &close.repeat(count);
    let doubling = "($f := function($s, $n) { $n = 0 ? $s : $f(VALUE, $n - 1) }; USE($f(SEED, 40)))";
    let doubled = |value: &str, seed: &str, used: &str| {
        doubling
            .replace("VALUE", value)
            .replace("SEED", seed)
            .replace("USE", used)
    };
    let mut wrong = Vec::new();
    for (text, code) in [
        (nested("(", ")", 100_000), "U1004"),
        (nested("[", "]", 100_000), "U1004"),
        (nested("{\"a\":", "}", 100_000), "U1004"),
        (nested("-", "", 100_000), "U1004"),
        ("1".to_owned() + &"+1".repeat(100_000), "U1004"),
        ("a".to_owned() + &".a".repeat(100_000), "U1004"),
        ("a".to_owned() + &"[0]".repeat(100_000), "U1004"),
        ("a".to_owned() + &" ?? a".repeat(100_000), "U1004"),
        (
            "($f := function($n) { 1 + $f($n + 1) }; $f(0))".to_owned(),
            "U1001",
        ),
        ("($f := function($n) { $f($n + 1) }; $f(0))".to_owned(), "U1002"),
        (
            "($f := function($g) { $f(function() { $g() }) }; $f(1))".to_owned(),
            "U1002",
        ),
        (doubled("$s & $s", "\"aaaa\"", "$length"), "U1003"),
        (doubled("$append($s, $s)", "[1, 2]", "$count"), "U1003"),
        (doubled("[[$s], [$s]]", "1", "$string"), "U1002"),
        (doubled("[[$s], [$s]]", "1", ""), "U1002"),
        (doubled("[[$s], [$s]]", "1", "$count"), "ok"),
        (
            "($f := function($s, $n) { $n = 0 ? $s : $f([[$s]], $n - 1) }; $string($f(1, 1000)))".to_owned(),
            "U1004",
        ),
        (
            "($f := function($s, $n) { $n = 0 ? $s : $f({ 'a': $s }, $n - 1) }; $f(1, 1000))".to_owned(),
            "U1004",
        ),
        ("{ 'a': 1 } ~> |$|{ 'self': $ }|".to_owned(), "U1004"),
        ("$pad('a', 1e12)".to_owned(), "U1003"),
        ("$pad('a', -1e300)".to_owned(), "U1003"),
        ("$formatInteger(1e300, 'I')".to_owned(), "U1003"),
        ("[1..10000000].($ + 1)".to_owned(), "U1002"),
        ("$sum([1..10000000])".to_owned(), "U1002"),
        ("[[1..10000000], [1..10000000]].$".to_owned(), "U1003"),
        ("$count([1..10000000])".to_owned(), "ok"),
        ("$range(0, 1e300, 1)".to_owned(), "U1002"),
        ("$range(0, 1e-300, 5e-324)".to_owned(), "U1002"),
        (
            "$replace($pad('', 4000, 'a'), /a/, $pad('', 36000, 'xy'))".to_owned(),
            "U1003",
        ),
        (
            "$eval('($f := function($n) { $f($n + 1) }; $f(0))')".to_owned(),
            "U1002",
        ),
        ("($e := \"$eval($e)\"; $eval($e))".to_owned(), "U1001"),
        ("$contains(s, /^(a+)+$/)".to_owned(), "ok"),
        ("[1".to_owned() + &",/(a{90}){50}/".repeat(1_000) + "]", "S0303"),
        ("($s := $pad('', 1000000, 'a'); $f := function($n) { $s & 'b' = $s & 'c' ? 1 : $f($n) }; $f(0))".to_owned(), "U1002"),
        ("($s := $pad('', 1000000, 'a'); $t := $s & ''; $f := function($n) { $s = $t ? $f($n) : 1 }; $f(0))".to_owned(), "U1002"),
        ("($f := function($n) { $toMillis('2020-01-01', '[Y]-[M]-[D]') > 0 ? $f($n) : 1 }; $f(0))".to_owned(), "U1002"),
        ("($f := function($n) { $eval('/(a{90}){50}/') ? 1 : $f($n) }; $f(0))".to_owned(), "U1002"),
        ("$contains(s, /^(a|a|aa)+\\1$/)".to_owned(), "U1002"),
        (
            "$sort([1..100000], function($a, $b) { $a < $b })".to_owned(),
            "U1002",
        ),
    ] {
        let short: String = text.chars().take(60).collect();
        let got = outcome(&text, SMALL).map_or_else(|code| code, |_| "ok");
        if got != code {
            wrong.push(format!("{short}: {got}, not {code}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_usual_limits_are_not_in_the_way() {
    let limits = Limits::default();
    let factorial = "($f := function($n) { $n = 0 ? 1 : $n * $f($n - 1) }; $f(170))";
    assert!(outcome(factorial, limits).unwrap().unwrap().as_f64().unwrap() > 7e306);
    let loops = "($f := function($n, $s) { $n = 0 ? $s : $f($n - 1, $s + $n) }; $f(20000, 0))";
    assert_eq!(outcome(loops, limits).unwrap(), Some(json!(200_010_000)));
    assert_eq!(
        outcome("$count([1..100000].($string($) & 'x'))", limits).unwrap(),
        Some(json!(100_000))
    );
}

fn tokens() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a",
        "s",
        "$",
        "$$",
        "$x",
        "%",
        "*",
        "**",
        ".",
        "..",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ":",
        ":=",
        ";",
        ",",
        "?",
        "?:",
        "??",
        "~>",
        "+",
        "-",
        "/",
        "=",
        "!=",
        "<",
        ">",
        "&",
        "^(",
        "^(>",
        "@$i",
        "#$j",
        "|",
        "and",
        "or",
        "in",
        "1",
        "-1",
        "0.5",
        "1e300",
        "\"t\"",
        "'[Y]'",
        "null",
        "true",
        "/a+/",
        "/(b)?/i",
        "[]",
        "[0]",
        "[-1]",
        "[$>1]",
        "function($x){",
        "λ($x,$y)<n-n:n>{",
        "$map(",
        "$filter(",
        "$reduce(",
        "$sort(",
        "$each(",
        "$sift(",
        "$string(",
        "$replace(",
        "$split(",
        "$match(",
        "$formatNumber(1,",
        "$fromMillis(1,",
        "$toMillis(",
        "$eval(",
        "$formatInteger(",
        "$parseInteger(",
        "$spread(",
        "$merge(",
        "$zip(",
        "$pad(",
        "$substring(",
        "$f:=",
        "$f(",
        "$partition(",
        "$range(",
        "$hash(",
        "$parse(",
        "$uuid()",
        "$random()",
        "é",
        "😀",
        " ",
        "\n",
        "/*",
        "*/",
        "`",
    ]);
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_panics(text in tokens()) {
        let _ = outcome(&text, SMALL);
    }

    #[test]
    fn no_characters_panic(text in "\\PC{0,40}") {
        let _ = outcome(&text, SMALL);
    }

    #[test]
    fn the_same_scope_gives_the_same_value(text in tokens()) {
        prop_assert_eq!(outcome(&text, SMALL), outcome(&text, SMALL));
    }

    #[test]
    fn no_picture_panics(picture in "[\\[\\]#0-9,.;:a-zA-Z%‰٠ -]{0,16}", number in any::<f64>()) {
        let picture = Value::from(picture);
        for function in ["$formatNumber($n, $p)", "$formatInteger($n, $p)", "$fromMillis($n, $p)", "$now($p, $p)",
            "$parseInteger($p, $p)", "$toMillis($p, $p)", "$toMillis($p)", "$number($p)"] {
            let number = Value::from(if number.is_finite() { number } else { 0.0 });
            let mut scope = Scope::new(Timestamp::UNIX_EPOCH).bind("p", &picture).bind("n", &number);
            scope.limits = SMALL;
            let _ = Expression::parse(function).unwrap().evaluate(&scope);
        }
    }
}
