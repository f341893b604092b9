//! Any bytes are a buildspec or problems.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::spec::{Buildspec, decode};

fuzz_target!(|bytes: &[u8]| {
    let read = decode("buildspec.yml", bytes).map_err(|problem| vec![problem]);
    match read.and_then(|text| Buildspec::parse(text, "buildspec.yml")) {
        Ok((_, warnings)) => assert!(warnings.len() <= 101),
        Err(problems) => {
            assert!((1..=101).contains(&problems.len()));
            for problem in problems {
                assert!(problem.to_string().len() < 4_000, "too long for a person");
            }
        }
    }
});
