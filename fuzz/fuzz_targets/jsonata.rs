//! An expression on the first line, its input after it. Whatever they say, the evaluation ends, twice the same, and what
//! it gives can be written and read.
#![no_main]

use jiff::Timestamp;
use jsonata::{Expression, Limits, Scope};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let (text, input) = text.split_once('\n').unwrap_or((text, "{}"));
    let input: Value = serde_json::from_str(input).unwrap_or_default();
    let Ok(expression) = Expression::parse(text) else { return };
    let mut scope = Scope::new(Timestamp::UNIX_EPOCH).bind("states", &input);
    scope.input = Some(&input);
    scope.states = true;
    scope.eval = true;
    scope.limits = Limits {
        steps: 20_000,
        depth: 200,
        bytes: 4 << 20,
    };
    let outcome = expression.evaluate(&scope);
    assert_eq!(outcome, expression.evaluate(&scope), "the same again is the same");
    match outcome {
        Ok(Some(value)) => {
            let written = serde_json::to_string(&value).expect("a value can be written");
            let read: Value = serde_json::from_str(&written).expect("what was written can be read");
            assert_eq!(read, value);
        }
        Ok(None) => {}
        Err(error) => assert!(!error.message.is_empty(), "{} says nothing", error.code),
    }
});
