//! Any text is a machine or a list of problems, the same for all who ask; a machine's definition makes the same machine
//! again.
#![no_main]

use asl::{Flavour, Machine, Severity, Verdict, limit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let judged = asl::validate(text, Flavour::Standard, Severity::Warning, limit::DIAGNOSTICS);
    assert_eq!(judged.result == Verdict::Ok, Machine::parse(text).is_ok());
    match Machine::parse(text) {
        Ok(machine) => {
            asl::references(machine.definition());
            let again = machine.definition().to_string();
            assert!(
                Machine::parse(&again).is_ok(),
                "its own definition is refused: {again}"
            );
        }
        Err(problems) => assert!((1..=limit::DIAGNOSTICS).contains(&problems.len())),
    }
});
