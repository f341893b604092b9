//! Any text is a machine or a list of problems; a machine's definition makes the same machine again.
#![no_main]

use asl::{Machine, limit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Machine::parse(text) {
        Ok(machine) => {
            let again = machine.definition().to_string();
            assert!(
                Machine::parse(&again).is_ok(),
                "its own definition is refused: {again}"
            );
        }
        Err(problems) => assert!((1..=limit::DIAGNOSTICS).contains(&problems.len())),
    }
});
