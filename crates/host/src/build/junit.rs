//! Reads JUnit XML reports: pure, total, bounded. Knows nothing of builds.
//!
//! There is no standard; what pytest, Maven Surefire, Gradle, Jest and go-junit-report write is read: `testcase` elements,
//! at any depth of `testsuite`, each with an optional `failure`, `error` or `skipped` child. The sums that suites claim
//! about themselves are not believed: the cases are counted.

use model::port::TestReport;
use quick_xml::{Reader, events::BytesStart, events::Event};

/// Larger files are refused.
pub const FILE_BYTES: usize = 32 << 20;
const DEPTH: usize = 64;
const CASES: u32 = 200_000;
const FAILURES: usize = 50;
const MESSAGE_CHARS: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it has {0} bytes, the most is {FILE_BYTES}")]
    TooLarge(usize),
    #[error("it is not well-formed XML at byte {at}: {reason}")]
    Xml { at: u64, reason: String },
    #[error("its elements are nested deeper than {DEPTH}")]
    TooDeep,
    #[error("it has more than {CASES} test cases")]
    TooMany,
    #[error("it declares a document type, which no JUnit report needs")]
    Doctype,
    #[error("its outermost element is `{0}`: `testsuites` or `testsuite` was expected")]
    NotJunit(String),
}

/// A report group that has no tests yet.
pub fn empty(group: &str) -> TestReport {
    TestReport {
        group: group.to_owned(),
        total: 0,
        passed: 0,
        failed: 0,
        skipped: 0,
        duration_ms: 0,
        failures: Vec::new(),
    }
}

/// Adds the tests of one file to a group. A file that cannot be read adds nothing.
pub fn add(report: &mut TestReport, xml: &[u8]) -> Result<(), Error> {
    if xml.len() > FILE_BYTES {
        return Err(Error::TooLarge(xml.len()));
    }
    let found = read(xml)?;
    for case in found {
        report.total += 1;
        report.duration_ms = report.duration_ms.saturating_add(case.duration_ms);
        match case.outcome {
            Outcome::Passed => report.passed += 1,
            Outcome::Skipped => report.skipped += 1,
            Outcome::Failed(message) => {
                report.failed += 1;
                if report.failures.len() < FAILURES {
                    report.failures.push((case.name, message));
                }
            }
        }
    }
    Ok(())
}

/// The share of tests that passed among those that were not skipped, 0 to 100. No test at all is no failure: 100.
pub fn pass_rate_percent(reports: &[TestReport]) -> f64 {
    let ran: u32 = reports.iter().map(|report| report.passed + report.failed).sum();
    let passed: u32 = reports.iter().map(|report| report.passed).sum();
    match ran {
        0 => 100.0,
        ran => 100.0 * f64::from(passed) / f64::from(ran),
    }
}

struct Case {
    name: String,
    duration_ms: u64,
    outcome: Outcome,
}

enum Outcome {
    Passed,
    Skipped,
    Failed(String),
}

fn read(xml: &[u8]) -> Result<Vec<Case>, Error> {
    let text = String::from_utf8_lossy(xml);
    let mut reader = Reader::from_str(&text);
    reader.config_mut().check_end_names = true;
    let mut parser = Parser::default();
    loop {
        let event = reader.read_event().map_err(|error| Error::Xml {
            at: reader.error_position(),
            reason: short(&error.to_string()),
        })?;
        match event {
            Event::Eof if parser.depth > 0 => {
                return Err(Error::Xml {
                    at: reader.buffer_position(),
                    reason: "it ends too early".to_owned(),
                });
            }
            Event::Eof if !parser.begun => return Err(Error::NotJunit(String::new())),
            Event::Eof => return Ok(parser.cases),
            Event::DocType(_) => return Err(Error::Doctype),
            Event::Start(element) => parser.open(&element)?,
            Event::Empty(element) => {
                parser.open(&element)?;
                parser.close();
            }
            Event::End(_) => parser.close(),
            Event::Text(text) => parser.text(&text),
            Event::CData(text) => parser.text(&text),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Parser {
    begun: bool,
    depth: usize,
    cases: Vec<Case>,
    /// The depth of the open `testcase`, and of its open `failure` or `error`.
    case: Option<usize>,
    failure: Option<usize>,
}

impl Parser {
    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), Error> {
        let name = element.local_name();
        let name = name.as_ref();
        if !self.begun && name != "testsuites" && name != "testsuite" {
            return Err(Error::NotJunit(short(name)));
        }
        self.begun = true;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Error::TooDeep);
        }
        match (name, self.case) {
            ("testcase", None) => self.begin_case(element),
            ("skipped" | "ignored", Some(case)) if self.depth == case + 1 => {
                self.outcome(Outcome::Skipped);
                Ok(())
            }
            ("failure" | "error", Some(case)) if self.depth == case + 1 => {
                self.failure = Some(self.depth);
                let message = attribute(element, "message").or_else(|| attribute(element, "type"));
                self.outcome(Outcome::Failed(short(&message.unwrap_or_default())));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin_case(&mut self, element: &BytesStart<'_>) -> Result<(), Error> {
        if self.cases.len() >= CASES as usize {
            return Err(Error::TooMany);
        }
        let name = attribute(element, "name").unwrap_or_else(|| "(no name)".to_owned());
        let class = attribute(element, "classname").filter(|class| !class.is_empty());
        let seconds = attribute(element, "time").and_then(|time| time.replace(',', "").parse::<f64>().ok());
        self.case = Some(self.depth);
        self.cases.push(Case {
            name: short(&class.map_or(name.clone(), |class| format!("{class}.{name}"))),
            duration_ms: seconds.map_or(0, |seconds| (seconds.clamp(0.0, 1e9) * 1000.0) as u64),
            outcome: Outcome::Passed,
        });
        Ok(())
    }

    fn outcome(&mut self, outcome: Outcome) {
        let case = self.cases.last_mut().expect("an open case is in the list");
        // A case that failed and whose tear-down failed too is one failure.
        if !matches!(case.outcome, Outcome::Failed(_)) {
            case.outcome = outcome;
        }
    }

    /// The text of a failure is its message when it has no other.
    fn text(&mut self, text: &str) {
        if self.failure.is_some()
            && let Some(Case {
                outcome: Outcome::Failed(message),
                ..
            }) = self.cases.last_mut()
            && message.is_empty()
        {
            *message = short(text.trim());
        }
    }

    fn close(&mut self) {
        if self.failure == Some(self.depth) {
            self.failure = None;
        }
        if self.case == Some(self.depth) {
            self.case = None;
        }
        self.depth = self.depth.saturating_sub(1);
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    // A malformed attribute is as good as none: what counts is which cases there are.
    let attribute = element
        .attributes()
        .flatten()
        .find(|attribute| attribute.key.as_ref() == name)?;
    let text = attribute.value.into_owned();
    let plain = quick_xml::escape::unescape(&text).map(|text| text.into_owned());
    Some(plain.unwrap_or(text))
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(xml: &str, sums: (u32, u32, u32, u32), failures: &[(&str, &str)]) {
        let mut report = empty("unit");
        add(&mut report, xml.as_bytes()).unwrap();
        assert_eq!(
            (report.total, report.passed, report.failed, report.skipped),
            sums,
            "{xml}"
        );
        let found: Vec<_> = report
            .failures
            .iter()
            .map(|(name, why)| (name.as_str(), why.as_str()))
            .collect();
        assert_eq!(found, failures);
    }

    #[track_caller]
    fn refused(xml: &[u8], fragment: &str) {
        let mut report = empty("unit");
        let error = add(&mut report, xml).unwrap_err().to_string();
        assert!(error.contains(fragment), "{error}");
        assert_eq!(report, empty("unit"));
    }

    #[test]
    fn what_the_usual_tools_write_is_read() {
        check(
            r#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="0" failures="1" tests="3">
               <testcase classname="tests.test_app" name="test_ok" time="0.010" />
               <testcase classname="tests.test_app" name="test_bad" time="1.5"><failure message="assert 1 == &quot;2&quot;">trace</failure></testcase>
               <testcase classname="tests.test_app" name="test_later"><skipped type="pytest.skip" message="later"/></testcase>
               </testsuite></testsuites>"#,
            (3, 1, 1, 1),
            &[("tests.test_app.test_bad", "assert 1 == \"2\"")],
        );
        check(
            r#"<testsuite><properties><property name="x" value="y"/></properties><testcase name="a"><error>  boom </error>
               <system-out><![CDATA[<failure/>]]></system-out></testcase><testsuite><testcase name="b"/></testsuite></testsuite>"#,
            (2, 1, 1, 0),
            &[("a", "boom")],
        );
        check(
            r#"<testsuite><testcase name="a"><failure type="T"/><error message="tear-down"/></testcase></testsuite>"#,
            (1, 0, 1, 0),
            &[("a", "T")],
        );
        check("<testsuites/>", (0, 0, 0, 0), &[]);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        refused(b"", "expected");
        refused(b"<html><testcase name='x'/></html>", "`html`");
        refused(b"<testsuite><testcase></testsuite>", "well-formed");
        refused(b"<testsuite><testcase>", "ends too early");
        refused(
            br#"<!DOCTYPE x [<!ENTITY a "aaaa">]><testsuite/>"#,
            "document type",
        );
        refused("<testsuite>".repeat(100).as_bytes(), "nested");
    }

    #[test]
    fn the_pass_rate_leaves_skipped_tests_out() {
        let mut report = empty("unit");
        assert_eq!(pass_rate_percent(&[report.clone()]), 100.0);
        (report.total, report.passed, report.failed, report.skipped) = (8, 3, 1, 4);
        assert_eq!(pass_rate_percent(&[report]), 75.0);
    }

    #[test]
    fn any_bytes_give_a_value_or_an_error() {
        use proptest::prelude::*;
        proptest!(|(tail in proptest::collection::vec(any::<u8>(), 0..200), parts in "(<testcase name=\"|/>|<failure>|</failure>|&#x;|\"|<testsuite>|</testsuite>|<!\\[CDATA\\[){0,20}")| {
            let mut xml = format!("<testsuite>{parts}").into_bytes();
            xml.extend(tail);
            let _ = add(&mut empty("x"), &xml);
        });
    }
}
