//! Any bytes are a report or refused, and a report's sums are those of its cases. The first byte chooses the format.
#![no_main]

use host::build::report::{Found, History, add, coverage_percent, empty, pass_rate_percent, read};
use host::logs::Mask;
use libfuzzer_sys::fuzz_target;
use model::spec::build::ReportFormat;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let (_, format) = ReportFormat::ALL[usize::from(*first) % ReportFormat::ALL.len()];
    let mut report = empty("unit");
    let Ok(found) = read(format, bytes, &Mask::default()) else {
        return;
    };
    add(&mut report, &found);
    assert_eq!(report.total, report.passed + report.failed + report.skipped);
    assert!(report.failures.len() <= 50);
    let reports = [report];
    assert!((0.0..=100.0).contains(&pass_rate_percent(&reports)));
    match found {
        Found::Coverage(_) => {
            let percent = coverage_percent(&reports).expect("a report of coverage has lines");
            assert!((0.0..=100.0).contains(&percent));
        }
        Found::Cases(cases) => {
            let mut history = History::default();
            assert_eq!(history.add("unit", &cases, None), None);
            let changes = history
                .add("unit", &cases, None)
                .expect("a second run is compared");
            assert!(changes.new_failures.is_empty() && changes.fixed.is_empty() && changes.flaky.is_empty());
        }
    }
});
