//! What is JSON for serde_json is JSON here, and the other way round; a number that was read is written as it was.
#![no_main]

use jsonata::json;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// serde_json reads an object with this key as a number.
const OWN: &str = "$serde_json::private::Number";

fuzz_target!(|text: &[u8]| {
    let ours = json::read(text);
    if !String::from_utf8_lossy(text).contains("private") {
        let theirs = serde_json::from_slice::<Value>(text);
        assert_eq!(ours.is_ok(), theirs.is_ok());
    }
    let Ok(value) = ours else { return };
    let written = value.to_string();
    assert_eq!(json::read(&written).expect("what was written can be read"), value);
    if let Value::Number(number) = &value {
        assert_eq!(number.as_str().as_bytes(), text.trim_ascii());
    }
    let wrapped = format!("{{\"{OWN}\":[{written}]}}");
    // One level more may be one too many.
    if let Ok(value) = json::read(&wrapped) {
        assert_eq!(value.to_string(), wrapped);
    }
});
