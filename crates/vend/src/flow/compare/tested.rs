//! What the tests of two releases said.

use model::{
    plan::{Change, Subject},
    port::{Coverage, TestReport},
};

/// What the tests of both releases said, one line for each report group.
pub fn changes(before: &[TestReport], after: &[TestReport]) -> Vec<Change> {
    let old = |group: &str| before.iter().find(|report| report.group == group).map(said);
    let line = |report: &TestReport| {
        let mut text = said(report);
        if let Some(changes) = report.changes.as_ref().filter(|changes| !changes.is_empty()) {
            text = format!("{text} ({})", changes.summary());
        }
        Change::new(
            Subject::Tests,
            report.group.clone(),
            old(&report.group),
            Some(text),
        )
    };
    after.iter().map(line).collect()
}

fn said(report: &TestReport) -> String {
    let mut parts = Vec::new();
    if report.total > 0 || report.coverage.is_none() {
        parts.push(format!(
            "{} of {} passed",
            report.passed,
            report.passed + report.failed
        ));
    }
    if report.skipped > 0 {
        parts.push(format!("{} skipped", report.skipped));
    }
    if let Some(percent) = report.coverage.as_ref().and_then(Coverage::lines_percent) {
        parts.push(format!("{percent:.1} % of lines"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use model::port::{Slower, TestChanges};

    use super::*;

    #[test]
    fn tests_are_a_line_for_each_group() {
        let report = |group: &str, passed, failed| TestReport {
            group: group.to_owned(),
            total: passed + failed,
            passed,
            failed,
            skipped: 0,
            duration_ms: 0,
            failures: Vec::new(),
            coverage: None,
            changes: None,
        };
        let mut covered = report("cover", 0, 0);
        let mut coverage = Coverage::default();
        [true, false, true, true]
            .into_iter()
            .for_each(|reached| coverage.lines.count(reached));
        covered.coverage = Some(coverage);
        let mut broken = report("unit", 7, 1);
        broken.changes = Some(TestChanges {
            new_failures: vec!["a".to_owned()],
            fixed: vec!["b".to_owned()],
            flaky: vec!["b".to_owned(), "c".to_owned()],
            slower: vec![Slower {
                name: "d".to_owned(),
                before_ms: 100,
                after_ms: 900,
            }],
            ..TestChanges::default()
        });
        let told: Vec<(String, Option<String>, Option<String>)> =
            changes(&[report("unit", 8, 0)], &[broken, covered])
                .into_iter()
                .map(|change| (change.name, change.before, change.after))
                .collect();
        let line = |name: &str, before: Option<&str>, after: &str| {
            (name.to_owned(), before.map(str::to_owned), Some(after.to_owned()))
        };
        assert_eq!(
            told,
            [
                line(
                    "unit",
                    Some("8 of 8 passed"),
                    "7 of 8 passed (1 new failure, 1 fixed, 2 flaky, 1 slower)"
                ),
                line("cover", None, "75.0 % of lines"),
            ]
        );
    }
}
