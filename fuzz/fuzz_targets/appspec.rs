//! Any bytes are an appspec or problems, and an agent's configuration or problems.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::spec::{Appspec, decode, deploy::AgentConfiguration};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = decode("codedeployagent.yml", bytes) {
        let _ = AgentConfiguration::parse(text, "codedeployagent.yml");
    }
    let read = decode("appspec.yml", bytes).map_err(|problem| vec![problem]);
    match read.and_then(|text| Appspec::parse(text, "appspec.yml")) {
        Ok((_, warnings)) => assert!(warnings.len() <= 101),
        Err(problems) => {
            assert!((1..=101).contains(&problems.len()));
            for problem in problems {
                assert!(problem.to_string().len() < 4_000, "too long for a person");
            }
        }
    }
});
