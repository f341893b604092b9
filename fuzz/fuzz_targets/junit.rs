//! Any bytes are a report or refused, and a report's sums are those of its cases.
#![no_main]

use host::build::junit::{add, empty, pass_rate_percent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut report = empty("unit");
    let before = report.clone();
    match add(&mut report, bytes) {
        Ok(()) => {
            assert_eq!(report.total, report.passed + report.failed + report.skipped);
            assert!(report.failures.len() <= 50);
        }
        Err(_) => assert_eq!(report, before, "a file that cannot be read adds something"),
    }
    assert!((0.0..=100.0).contains(&pass_rate_percent(&[report])));
});
