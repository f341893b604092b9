use super::*;
use crate::random::Random;
use crate::scope::Budget;
use serde_json::json;

fn call(text: &str, data: Value) -> Result<Value, String> {
    let call = Call::parse(text)?;
    let random = Random::new([1, 2], 0);
    let budget = Budget::default();
    let context = json!({"State": {"Name": "S"}});
    let scope = Scope {
        data: &data,
        context: &context,
        input: &data,
        result: None,
        error: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        variables: &[],
        random: &random,
        budget: &budget,
        states: std::cell::OnceCell::new(),
    };
    call.evaluate(&scope)
        .map_err(|fault| fault.error.unwrap_or_default())
}

#[test]
fn answers() {
    let data = json!({"a": [1, 2, 2, 3], "o": {"x": 1, "y": [true, null]}, "s": "a,b;c", "n": -1.5});
    for (text, want) in [
        ("States.Array()", json!([])),
        (
            "States.Array(1, 'two', null, $.n, true)",
            json!([1, "two", null, -1.5, true]),
        ),
        ("States.ArrayPartition($.a, 3)", json!([[1, 2, 2], [3]])),
        ("States.ArrayContains($.a, 3.0)", json!(true)),
        ("States.ArrayRange(1, 9, 2)", json!([1, 3, 5, 7, 9])),
        ("States.ArrayRange(3, 1, -1)", json!([3, 2, 1])),
        ("States.ArrayGetItem($.a, 3)", json!(3)),
        ("States.ArrayLength($.a)", json!(4)),
        ("States.ArrayUnique($.a)", json!([1, 2, 3])),
        (
            "States.Base64Encode('Data to encode')",
            json!("RGF0YSB0byBlbmNvZGU="),
        ),
        (
            "States.Base64Decode('RGF0YSB0byBlbmNvZGU=')",
            json!("Data to encode"),
        ),
        (
            "States.Hash('abc', 'MD5')",
            json!("900150983cd24fb0d6963f7d28e17f72"),
        ),
        (
            "States.Hash('abc', 'SHA-1')",
            json!("a9993e364706816aba3e25717850c26c9cd0d89d"),
        ),
        (
            "States.JsonMerge($.o, States.StringToJson('{\"x\":2}'), false)",
            json!({"x": 2, "y": [true, null]}),
        ),
        ("States.JsonToString($.o)", json!("{\"x\":1,\"y\":[true,null]}")),
        ("States.MathAdd($.n, 0)", json!(-1)),
        ("States.MathAdd(2.5, -0.5)", json!(3)),
        ("States.StringSplit($.s, ',;')", json!(["a", "b", "c"])),
        (
            "States.Format('{} is \\{{}\\} \\'{}\\' in {}', 1.1, $.o, 'x', $$.State.Name)",
            json!("1.1 is {{x=1, y=[true, null]}} 'x' in S"),
        ),
    ] {
        assert_eq!(call(text, data.clone()), Ok(want), "{text}");
    }
}

#[test]
fn misuse_is_an_intrinsic_failure() {
    for text in [
        "States.Format('{}')",
        "States.Format('x', 1)",
        "States.Format('{')",
        "States.ArrayGetItem($, 9)",
        "States.ArrayPartition($, 0)",
        "States.ArrayRange(1, 10000, 1)",
        "States.ArrayRange(1, 2, 0)",
        "States.Hash('x', 'CRC')",
        "States.JsonMerge($, $, true)",
        "States.MathAdd('1', 2)",
        "States.MathAdd(9223372036854775807, 1)",
        "States.MathRandom(5, 5)",
        "States.StringToJson('{')",
        "States.Base64Decode('!')",
    ] {
        assert_eq!(call(text, json!([1])), Err(fault::INTRINSIC.into()), "{text}");
    }
    assert_eq!(
        call("States.ArrayLength($.x)", json!({})),
        Err(fault::RUNTIME.into())
    );
}

#[test]
fn grammar_is_checked_without_data() {
    for text in [
        "",
        "States.Nope()",
        "States.UUID(1)",
        "States.Format",
        "States.Format('a",
        "States.Array(1",
        "States.Array(1,)",
        "States.Array(a)",
        "States.UUID() x",
    ] {
        assert!(Call::parse(text).is_err(), "{text}");
    }
    let nested = |depth: usize| format!("{}1{}", "States.Array(".repeat(depth), ")".repeat(depth));
    assert!(Call::parse(&nested(10)).is_ok());
    assert!(Call::parse(&nested(11)).is_err());
}

#[test]
fn random_numbers_repeat_with_their_seed() {
    let draw = |text| call(text, json!(null)).unwrap().as_i64().unwrap();
    assert_eq!(
        draw("States.MathRandom(1, 1000, 7)"),
        draw("States.MathRandom(1, 1000, 7)")
    );
    assert!((1..1000).contains(&draw("States.MathRandom(1, 1000)")));
    assert_eq!(draw("States.MathRandom(3, 4)"), 3);
    let uuid = call("States.UUID()", json!(null)).unwrap();
    assert_eq!(uuid.as_str().map(str::len), Some(36));
}

#[test]
fn results_are_bounded() {
    let long = "x".repeat(200_000);
    let text = format!(
        "States.Format('{}', {})",
        "{}".repeat(40),
        vec!["$"; 40].join(", ")
    );
    assert_eq!(call(&text, json!(long)), Err(fault::DATA_LIMIT.into()));
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_call_or_not(
        function in proptest::sample::select(FUNCTIONS.map(|known| known.0).to_vec()),
        arguments in "([$]([.][a-c]|[$])?|'[a{}\\\\]{0,4}'|-?[0-9]{1,19}|true|States.UUID[(][)])(, ?([$][.]a|'x'|[0-9.]{1,4}|false)){0,2}",
    ) {
        drop(call(&format!("{function}({arguments})"), json!({"a": [1, "x", {}], "b": -7.5, "c": "{}"})));
    }

    #[test]
    fn any_text_at_all(text in "[A-Za-z.$'(), {}\\\\]{0,30}") {
        drop(Call::parse(&format!("States.{text}")));
    }
}
