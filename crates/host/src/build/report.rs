//! Reads the reports that test tools write: pure, total, bounded. Knows nothing of builds.
//!
//! Of the formats only a few have a standard; what the usual tools write is read. The sums that reports claim about
//! themselves are believed only where nothing can be counted: Clover's and JaCoCo's.

mod cases;
mod coverage;
mod cucumber;
mod history;
mod simplecov;
mod xml;

pub use history::{History, PAST_BYTES};

use model::{
    port::{Coverage, TestReport},
    spec::build::ReportFormat,
};
use serde::{Deserialize, Serialize};

use crate::logs::Mask;

/// Larger files are refused.
pub const FILE_BYTES: usize = 32 << 20;
/// So many tests one file may have.
pub const CASES: usize = 200_000;
const FAILURES: usize = 50;
/// Characters of a test's name, or of its message.
pub const TEXT_CHARS: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it has {0} bytes, the most is {FILE_BYTES}")]
    TooLarge(usize),
    #[error("it is not well-formed XML at byte {at}: {reason}")]
    Xml { at: u64, reason: String },
    #[error("it is not JSON of this format: {0}")]
    Json(String),
    #[error("its elements are nested deeper than {}", xml::DEPTH)]
    TooDeep,
    #[error("it has more than {CASES} test cases")]
    TooMany,
    #[error("it declares entities, which no report needs")]
    Entities,
    #[error("its outermost element is `{found}`: {wanted} was expected")]
    Root { found: String, wanted: String },
    #[error("it tells of no lines")]
    NoLines,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// With the class or feature that it is in. At most 500 characters.
    pub name: String,
    pub duration_ms: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Passed,
    Skipped,
    /// With its message, of at most 500 characters.
    Failed(String),
}

/// What one file tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    Cases(Vec<Case>),
    Coverage(Coverage),
}

/// Reads one file. Of what it says, and of what is wrong with it, no more is told than the mask shows.
pub fn read(format: ReportFormat, bytes: &[u8], mask: &Mask) -> Result<Found, Error> {
    let telling = Telling(mask);
    if bytes.len() > FILE_BYTES {
        return Err(Error::TooLarge(bytes.len()));
    }
    match format {
        ReportFormat::CucumberJson => cucumber::read(bytes, telling).map(Found::Cases),
        ReportFormat::SimpleCov => simplecov::read(bytes, telling).map(Found::Coverage),
        format if format.is_coverage() => coverage::read(format, bytes, telling).map(Found::Coverage),
        format => cases::read(format, bytes, telling).map(Found::Cases),
    }
}

/// A report group that has nothing yet.
pub fn empty(group: &str) -> TestReport {
    TestReport {
        group: group.to_owned(),
        total: 0,
        passed: 0,
        failed: 0,
        skipped: 0,
        duration_ms: 0,
        failures: Vec::new(),
        coverage: None,
        changes: None,
    }
}

/// Adds what one file tells to a group.
pub fn add(report: &mut TestReport, found: &Found) {
    let cases = match found {
        Found::Cases(cases) => cases,
        Found::Coverage(coverage) => {
            report.coverage.get_or_insert_default().add(coverage);
            return;
        }
    };
    for case in cases {
        report.total += 1;
        report.duration_ms = report.duration_ms.saturating_add(case.duration_ms);
        match &case.outcome {
            Outcome::Passed => report.passed += 1,
            Outcome::Skipped => report.skipped += 1,
            Outcome::Failed(message) => {
                report.failed += 1;
                if report.failures.len() < FAILURES {
                    report.failures.push((case.name.clone(), message.clone()));
                }
            }
        }
    }
}

/// The reports of a fan-out's builds as one for each group, as CodeBuild merges them: sums, of lines and branches too, and
/// the longest time.
pub fn merge(reports: impl IntoIterator<Item = TestReport>) -> Vec<TestReport> {
    let mut merged: Vec<TestReport> = Vec::new();
    for mut report in reports {
        if let Some(changes) = &mut report.changes {
            // What one part reached before is nothing to compare the sum with.
            changes.coverage_before_percent = None;
        }
        let Some(own) = merged.iter_mut().find(|own| own.group == report.group) else {
            merged.push(report);
            continue;
        };
        own.total = own.total.saturating_add(report.total);
        own.passed = own.passed.saturating_add(report.passed);
        own.failed = own.failed.saturating_add(report.failed);
        own.skipped = own.skipped.saturating_add(report.skipped);
        own.duration_ms = own.duration_ms.max(report.duration_ms);
        own.failures.extend(report.failures);
        own.failures.truncate(FAILURES);
        if let Some(coverage) = &report.coverage {
            own.coverage.get_or_insert_default().add(coverage);
        }
        if let Some(changes) = report.changes {
            let all = own.changes.get_or_insert_default();
            for (names, more) in [
                (&mut all.new_failures, changes.new_failures),
                (&mut all.broke, changes.broke),
                (&mut all.fixed, changes.fixed),
                (&mut all.flaky, changes.flaky),
            ] {
                names.extend(more);
                names.truncate(FAILURES);
            }
            all.slower.extend(changes.slower);
            all.slower.truncate(FAILURES);
        }
    }
    merged
}

/// The share of tests that passed among those that were not skipped, 0 to 100. No test at all is no failure: 100.
pub fn pass_rate_percent(reports: &[TestReport]) -> f64 {
    let sum =
        |count: fn(&TestReport) -> u32| reports.iter().map(|report| u64::from(count(report))).sum::<u64>();
    let (passed, failed) = (sum(|report| report.passed), sum(|report| report.failed));
    match passed + failed {
        0 => 100.0,
        ran => 100.0 * passed as f64 / ran as f64,
    }
}

/// The share of lines that tests reach over all groups, 0 to 100; `None` when no group tells of lines.
pub fn coverage_percent(reports: &[TestReport]) -> Option<f64> {
    let mut all = Coverage::default();
    reports
        .iter()
        .filter_map(|report| report.coverage.as_ref())
        .for_each(|own| all.add(own));
    all.lines_percent()
}

/// How texts of a report are told.
#[derive(Debug, Clone, Copy)]
struct Telling<'a>(&'a Mask);

impl Telling<'_> {
    /// The beginning of a text. Secrets are taken out before it is cut: half a secret is not known as one.
    fn short(self, text: &str) -> String {
        self.0.conceal(text).trim().chars().take(TEXT_CHARS).collect()
    }
}

/// A time in seconds as a report writes it: `1,234.5`.
fn milliseconds(seconds: &str) -> u64 {
    let seconds: f64 = seconds.replace(',', "").trim().parse().unwrap_or(0.0);
    (seconds.clamp(0.0, 1e9) * 1000.0).round() as u64
}

#[cfg(test)]
mod tests;
