//! Any bytes are a `vend.yaml` or problems.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::spec::{App, decode};

fuzz_target!(|bytes: &[u8]| {
    let read = decode("vend.yaml", bytes).map_err(|problem| vec![problem]);
    match read.and_then(|text| App::parse(text, "vend.yaml", &|_| true)) {
        Ok((_, warnings)) => assert!(warnings.len() <= 101),
        Err(problems) => {
            assert!((1..=101).contains(&problems.len()));
            for problem in problems {
                assert!(problem.to_string().len() < 4_000, "too long for a person");
            }
        }
    }
});
