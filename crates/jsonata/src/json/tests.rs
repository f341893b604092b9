use super::*;
use proptest::prelude::*;

/// serde_json's name for a number inside of it.
const OWN: &str = "$serde_json::private::Number";

fn numbers() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,5})?"
}

fn strings() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => Just(format!("\"{OWN}\"")),
    ]
}

/// A compact JSON text, and the same with blanks.
fn texts() -> impl Strategy<Value = (String, String)> {
    let same = |text: String| (text.clone(), text);
    let leaf = prop_oneof![
        4 => numbers().prop_map(same),
        2 => strings().prop_map(same),
        1 => prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(move |word| same(word.to_owned())),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let blank = "[ \t\r\n]{0,2}";
        let item = (inner.clone(), blank, blank)
            .prop_map(|((plain, airy), before, after)| (plain, format!("{before}{airy}{after}")));
        let member = (strings(), inner, blank, blank).prop_map(|(key, (plain, airy), before, after)| {
            (
                key.clone(),
                format!("{key}:{plain}"),
                format!("{before}{key}{after}:{before}{airy}{after}"),
            )
        });
        let list = |(plain, airy): (Vec<String>, Vec<String>)| (plain.join(","), airy.join(","));
        prop_oneof![
            proptest::collection::vec(item, 0..6).prop_map(move |items| {
                let (plain, airy) = list(items.into_iter().unzip());
                (format!("[{plain}]"), format!("[{airy}]"))
            }),
            proptest::collection::vec(member, 0..6).prop_map(move |mut members| {
                let mut seen = std::collections::HashSet::new();
                members.retain(|(key, ..)| seen.insert(key.clone()));
                let (plain, airy) = list(members.into_iter().map(|(_, plain, airy)| (plain, airy)).unzip());
                (format!("{{{plain}}}"), format!("{{{airy}}}"))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_what_was_read((plain, airy) in texts()) {
        let value = read(&airy).unwrap();
        prop_assert_eq!(value.to_string(), &*plain);
        prop_assert_eq!(read(&plain).unwrap(), value);
    }

    #[test]
    fn the_same_texts_are_json_as_for_serde((_, mut airy) in texts(), at in any::<prop::sample::Index>(), with in "[-+0-9eE.\\\\\"{}\\[\\],:tfnu \u{7}]{0,3}") {
        prop_assume!(!airy.contains(OWN));
        let from = airy.floor_char_boundary(at.index(airy.len() + 1));
        let to = airy.ceil_char_boundary((from + 1).min(airy.len()));
        airy.replace_range(from..to, &with);
        let theirs = serde_json::from_str::<Value>(&airy);
        let ours = read(&airy);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", airy);
        if let (Err(ours), Err(theirs)) = (ours, theirs) {
            prop_assert_eq!(ours.to_string(), theirs.to_string());
        }
    }
}

#[test]
fn literals_are_kept() {
    for literal in [
        "1E5",
        "1e5",
        "1e+05",
        "1e-05",
        "-0.0e-0",
        "-0",
        "0.10",
        "1.50",
        "1e400",
        "123456789012345678901234567890.10",
    ] {
        let text = format!(r#"{{"a":[{literal},{{"b":{literal}}}]}}"#);
        assert_eq!(read(&text).unwrap().to_string(), text);
        assert_eq!(read(literal.as_bytes()).unwrap().to_string(), literal);
    }
}

#[test]
fn an_object_is_no_number_whatever_its_key() {
    let text = format!(r#"{{"{OWN}":"1"}}"#);
    assert!(read(&text).unwrap().is_object());
    assert_eq!(read(&text).unwrap().to_string(), text);
}

#[test]
fn strings_are_unescaped_and_last_members_count() {
    let value = read(r#" {"a":1,"b\n":"\u00e9\ud83d\ude00\\","a":2.0} "#).unwrap();
    assert_eq!(value.to_string(), r#"{"a":2.0,"b\n":"é😀\\"}"#);
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (text, place) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{\n\"a\": 01}", "invalid number at line 2 column 7"),
        ("[1,]", "trailing comma at line 1 column 4"),
        ("1 2", "trailing characters at line 1 column 3"),
        ("\"\\ud800\"", "unexpected end of hex escape at line 1 column 8"),
        ("\"\\", "EOF while parsing a string at line 1 column 2"),
        ("+1", "expected value at line 1 column 1"),
        ("tru", "EOF while parsing a value at line 1 column 3"),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), place, "{text}");
    }
    assert!(read(&b"\"\xff\""[..]).is_err());
}

#[test]
fn depth_ends_where_serde_ends_it() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(read(&nested(DEPTH)).is_ok());
    assert!(serde_json::from_str::<Value>(&nested(DEPTH)).is_ok());
    let error = read(&nested(DEPTH + 1)).unwrap_err();
    assert!(error.to_string().contains("recursion limit"), "{error}");
    assert!(read(&"[".repeat(1_000_000)).is_err());
}
