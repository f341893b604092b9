use super::*;
use serde_json::json;

fn read(path: &str, data: &Value) -> Result<Value, Missing> {
    Path::parse(path).unwrap().read(data, &Budget::default())
}

#[test]
fn selects() {
    let data = json!({
        "a": {"b-c": [1, 2, 3, 4], "x y": true},
        "books": [{"price": 5, "kind": "a"}, {"price": 20, "kind": "b"}, {"kind": "a"}],
        "n": null,
    });
    for (path, want) in [
        ("$", data.clone()),
        ("$.a.b-c", json!([1, 2, 3, 4])),
        ("$['a'][\"x y\"]", json!(true)),
        ("$.a.b-c[0]", json!(1)),
        ("$.a.b-c[-1]", json!(4)),
        ("$.a.b-c[1:3]", json!([2, 3])),
        ("$.a.b-c[:1]", json!([1])),
        ("$.a.b-c[-2:]", json!([3, 4])),
        ("$.a.b-c[0:4:2]", json!([1, 3])),
        ("$.a.b-c[0,2]", json!([1, 3])),
        ("$.a.b-c[*]", json!([1, 2, 3, 4])),
        ("$.n", json!(null)),
        ("$.books[*].price", json!([5, 20])),
        ("$..price", json!([5, 20])),
        ("$.books[?(@.price)].kind", json!(["a", "b"])),
        ("$.books[?(@.price < 10)].kind", json!(["a"])),
        ("$.books[?(@.price >= 5 && @.kind == 'b')].price", json!([20])),
        (
            "$.books[?(!(@.price) || @.price == 20.0)].kind",
            json!(["b", "a"]),
        ),
        ("$.nothing[*].x", json!([])),
        ("$.nothing[1:]", json!([])),
    ] {
        assert_eq!(read(path, &data), Ok(want), "{path}");
    }
}

#[test]
fn functions_end_a_path() {
    let data = json!({ "list": [1, 2.5, "x", 4], "o": { "a": 1, "b": { "n": 3 } }, "s": "äb", "deep": [{ "n": 1 }, { "n": 2 }], "none": [] });
    for (path, want) in [
        ("$.list.length()", json!(4)),
        ("$.o.length()", json!(2)),
        ("$.s.length()", json!(2)),
        ("$.o.keys()", json!(["a", "b"])),
        ("$.list.sum()", json!(7.5)),
        ("$.list.min()", json!(1.0)),
        ("$.list.max()", json!(4.0)),
        ("$.list.avg()", json!(2.5)),
        ("$.list.first()", json!(1)),
        ("$.list.last()", json!(4)),
        ("$..n.sum()", json!(6.0)),
        ("$.deep[*].n.stddev()", json!(0.5)),
        ("$.deep[?(@.n == 7)].length()", json!(0)),
        ("$.list.length( )", json!(4)),
    ] {
        assert_eq!(read(path, &data), Ok(want), "{path}");
    }
    assert_eq!(
        read("$.o.sum()", &data).unwrap_err().reason(),
        "No results for path: $['o'].sum()"
    );
    assert!(read("$.none.avg()", &data).is_err());
    assert!(read("$.x.length()", &data).is_err());
    for path in [
        "$.list.length().x",
        "$.list.shuffle()",
        "$.list.sum(",
        "$.list.sum(1)",
    ] {
        assert!(Path::parse(path).is_err(), "{path}");
    }
    assert!(!Path::parse("$.list.length()").unwrap().is_reference());
}

#[test]
fn filters_compare_with_words() {
    let data = json!([
        { "k": "a", "l": [1, 2], "t": "hay" }, { "k": "b", "l": [], "t": "" }, { "k": "c", "l": [3], "t": "needle" }
    ]);
    for (filter, want) in [
        ("@.k in ['a', 'c']", json!(["a", "c"])),
        ("@.k nin ['a']", json!(["b", "c"])),
        ("@.l subsetof [1, 2, 4]", json!(["a", "b"])),
        ("@.l anyof [2, 3]", json!(["a", "c"])),
        ("@.l noneof [2, 3]", json!(["b"])),
        ("@.l contains 3", json!(["c"])),
        ("@.t contains 'eed'", json!(["c"])),
        ("@.l size 1", json!(["c"])),
        ("@.t empty true", json!(["b"])),
        ("@.l.length() > 0 && @.k != 'a'", json!(["c"])),
        ("@.l EMPTY false", json!(["a", "c"])),
    ] {
        assert_eq!(read(&format!("$[?({filter})].k"), &data), Ok(want), "{filter}");
    }
    for path in [
        "$[?(@.k in ['a')]",
        "$[?(@.k in ['a' 'b'])]",
        "$[?(@.k in [@.l])]",
        "$[?(@.k near 1)]",
    ] {
        assert!(Path::parse(path).is_err(), "{path}");
    }
}

#[test]
fn a_definite_path_fails_with_jayways_words() {
    let data = json!({"a": {}});
    assert_eq!(
        read("$.a.b", &data).unwrap_err().reason(),
        "No results for path: $['a']['b']"
    );
    assert_eq!(
        read("$.x.b", &data).unwrap_err().reason(),
        "Missing property in path $['x']"
    );
    assert_eq!(
        read("$.a[0]", &data).unwrap_err().reason(),
        "No results for path: $['a'][0]"
    );
}

#[test]
fn refuses() {
    for text in [
        "",
        "a",
        "$.",
        "$a.",
        "$[",
        "$[]",
        "$['a",
        "$.a b",
        "$.a,",
        "$[0:1:0]",
        "$[?(@.a =~ 'x')]",
        "$[99999999999999999999]",
    ] {
        assert!(Path::parse(text).is_err(), "{text}");
    }
    assert!(Path::parse(&format!("${}", ".a".repeat(65))).is_err());
    assert!(Path::parse(&format!("$[?{}@.a{}]", "(".repeat(40), ")".repeat(40))).is_err());
}

#[test]
fn an_argument_ends_where_the_path_ends() {
    let (path, rest) = Path::prefix("$.a.b[0], 'x')").unwrap();
    assert_eq!((path.text(), rest), ("$.a.b[0]", ", 'x')"));
    let (path, rest) = Path::prefix("$name)").unwrap();
    assert_eq!((path.root(), rest), (&Root::Variable("name".into()), ")"));
}

#[test]
fn writes_through_objects_and_into_arrays() {
    let write = |path: &str, root| Path::parse(path).unwrap().write(root, json!(1));
    assert_eq!(write("$", json!({"a": 0})), Some(json!(1)));
    assert_eq!(write("$.a.b", json!({})), Some(json!({"a": {"b": 1}})));
    assert_eq!(write("$.a[1]", json!({"a": [0, 0]})), Some(json!({"a": [0, 1]})));
    assert_eq!(write("$.a[2]", json!({"a": [0, 0]})), None);
    assert_eq!(write("$.a.b", json!({"a": "text"})), None);
    assert_eq!(write("$.a", json!("text")), None);
}

#[test]
fn work_is_bounded() {
    let wide = json!(
        (0..100)
            .map(|_| json!((0..100).collect::<Vec<_>>()))
            .collect::<Vec<_>>()
    );
    assert_eq!(read("$..[*]..[*]..[*]..[*]", &wide), Ok(json!([])));
    let mut deep = json!(0);
    for _ in 0..90 {
        deep = json!([deep, deep_enough()]);
    }
    assert_eq!(read("$..[*]..[*]..[*]..[*]", &deep), Err(Missing::Spent));
}

fn deep_enough() -> Value {
    json!([[[[[]]]]])
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_path_or_not(text in "[$@.\\[\\]()?'\"*:,0-9a-c<=!&| -]{0,40}") {
        if let Ok(path) = Path::parse(&format!("${text}")) {
            let data = json!({"a": [{"b": 1}, [2, 3]], "b": "c"});
            let budget = Budget::default();
            drop(path.read(&data, &budget));
            drop(path.write(data, json!(0)));
        }
    }
}
