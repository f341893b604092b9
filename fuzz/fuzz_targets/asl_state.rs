//! Any state, with any input and any mocked answer, is tested or refused.
#![no_main]

use asl::{Level, Mock, TestRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: (&str, &str, &str)| {
    let (definition, input, result) = parts;
    let request = TestRequest {
        definition: definition.to_owned(),
        input: Some(input.to_owned()),
        mock: Some(Mock {
            result: Some(result.to_owned()),
            ..Mock::default()
        }),
        inspection_level: Level::Trace,
        ..TestRequest::default()
    };
    if let Err(refusal) = asl::test(&request, jiff::Timestamp::UNIX_EPOCH, [7, 7]) {
        assert!(!refusal.message.is_empty());
    }
});
