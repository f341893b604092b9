//! Tests in XML: JUnit, NUnit 2 and 3, TestNG, Visual Studio.
//!
//! They differ in what a test's element is called, in how it tells its name, its time and its outcome, and in where a
//! failure's message is. Everything else is one walk.

use model::spec::build::ReportFormat;

use super::{
    CASES, Case, Error, Outcome, Telling, milliseconds,
    xml::{Element, Listener, walk},
};

pub(super) fn read(format: ReportFormat, bytes: &[u8], telling: Telling<'_>) -> Result<Vec<Case>, Error> {
    let dialect = match format {
        ReportFormat::NunitXml => Dialect::Nunit,
        ReportFormat::Nunit3Xml => Dialect::Nunit3,
        ReportFormat::TestNgXml => Dialect::TestNg,
        ReportFormat::VisualStudioTrx => Dialect::Trx,
        _ => Dialect::Junit,
    };
    let mut tests = Tests {
        dialect,
        telling,
        cases: Vec::new(),
        open: None,
        class: String::new(),
    };
    walk(bytes, dialect.roots(), &mut tests, telling)?;
    Ok(tests.cases)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Junit,
    Nunit,
    Nunit3,
    TestNg,
    Trx,
}

impl Dialect {
    fn roots(self) -> &'static [&'static str] {
        match self {
            Self::Junit => &["testsuites", "testsuite"],
            Self::Nunit => &["test-results"],
            Self::Nunit3 => &["test-run"],
            Self::TestNg => &["testng-results"],
            Self::Trx => &["TestRun"],
        }
    }

    fn is_case(self, name: &str, element: &Element<'_>) -> bool {
        match self {
            Self::Junit => name == "testcase",
            Self::Nunit | Self::Nunit3 => name == "test-case",
            Self::TestNg => name == "test-method" && element.get("is-config").as_deref() != Some("true"),
            Self::Trx => name.ends_with("TestResult") || name == "TestResult",
        }
    }

    /// The name without its class, and the attribute that its time is in.
    fn name(self, element: &Element<'_>) -> Option<String> {
        match self {
            Self::Nunit3 => element.get("fullname").or_else(|| element.get("name")),
            Self::Trx => element.get("testName"),
            _ => element.get("name"),
        }
    }

    fn duration_ms(self, element: &Element<'_>) -> u64 {
        match self {
            Self::Junit | Self::Nunit => element.get("time").map_or(0, |time| milliseconds(&time)),
            Self::Nunit3 => element.get("duration").map_or(0, |time| milliseconds(&time)),
            Self::TestNg => element.number("duration-ms"),
            Self::Trx => element.get("duration").map_or(0, |time| clock(&time)),
        }
    }

    /// Where it is an attribute.
    fn outcome(self, element: &Element<'_>) -> Outcome {
        let attribute = match self {
            Self::Junit => return Outcome::Passed,
            Self::Nunit | Self::Nunit3 => element.get("result").or_else(|| {
                // The oldest NUnit tells it in two attributes.
                let executed = element.get("executed")?.eq_ignore_ascii_case("true");
                let success = element
                    .get("success")
                    .is_some_and(|text| text.eq_ignore_ascii_case("true"));
                Some(
                    if !executed {
                        "ignored"
                    } else if success {
                        "passed"
                    } else {
                        "failed"
                    }
                    .to_owned(),
                )
            }),
            Self::TestNg => element.get("status"),
            Self::Trx => element.get("outcome"),
        };
        match attribute.unwrap_or_default().to_ascii_lowercase().as_str() {
            "passed" | "pass" | "success" | "warning" | "completed" | "passedbutrunaborted" => {
                Outcome::Passed
            }
            "failed" | "fail" | "failure" | "error" | "timeout" | "aborted" | "disconnected" => {
                Outcome::Failed(String::new())
            }
            "cancelled" | "notrunnable" => Outcome::Failed(String::new()),
            _ => Outcome::Skipped,
        }
    }

    /// Is the text at this place below the test, from the test's child on, what it says about its failure?
    fn is_message(self, inner: &[String]) -> bool {
        let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
        match self {
            Self::Junit => matches!(inner[..], ["failure" | "error", ..]),
            Self::Nunit | Self::Nunit3 => inner == ["failure", "message"],
            Self::TestNg => inner == ["exception", "message"],
            Self::Trx => inner == ["Output", "ErrorInfo", "Message"],
        }
    }
}

/// `00:01:02.5000000`
fn clock(text: &str) -> u64 {
    let mut parts = text.rsplit(':');
    let mut total = parts.next().map_or(0, milliseconds);
    for (part, unit) in parts.zip([60_000, 3_600_000]) {
        total = total.saturating_add(part.parse::<u64>().unwrap_or(0).saturating_mul(unit));
    }
    total
}

struct Tests<'a> {
    dialect: Dialect,
    telling: Telling<'a>,
    cases: Vec<Case>,
    /// How deep the open test is.
    open: Option<usize>,
    /// The class around TestNG's tests, whole.
    class: String,
}

impl Tests<'_> {
    fn begin(&mut self, depth: usize, element: &Element<'_>) -> Result<(), Error> {
        if self.cases.len() >= CASES {
            return Err(Error::TooMany);
        }
        let name = self
            .dialect
            .name(element)
            .unwrap_or_else(|| "(no name)".to_owned());
        let class = match self.dialect {
            Dialect::Junit => element.get("classname").unwrap_or_default(),
            Dialect::TestNg => self.class.clone(),
            _ => String::new(),
        };
        let name = if class.is_empty() {
            name
        } else {
            format!("{class}.{name}")
        };
        self.open = Some(depth);
        self.cases.push(Case {
            name: self.telling.short(&name),
            duration_ms: self.dialect.duration_ms(element),
            outcome: self.dialect.outcome(element),
        });
        Ok(())
    }

    /// JUnit tells the outcome by a child.
    fn child(&mut self, name: &str, element: &Element<'_>) {
        let case = self.cases.last_mut().expect("an open case is in the list");
        // A case that failed and whose tear-down failed too is one failure.
        if self.dialect != Dialect::Junit || matches!(case.outcome, Outcome::Failed(_)) {
            return;
        }
        match name {
            "skipped" | "ignored" => case.outcome = Outcome::Skipped,
            "failure" | "error" => {
                let message = element.get("message").or_else(|| element.get("type"));
                case.outcome = Outcome::Failed(self.telling.short(&message.unwrap_or_default()));
            }
            _ => {}
        }
    }
}

impl Listener for Tests<'_> {
    fn open(&mut self, path: &[String], element: &Element<'_>) -> Result<(), Error> {
        let name = path.last().map_or("", String::as_str);
        match self.open {
            None if self.dialect == Dialect::TestNg && name == "class" => {
                self.class = element.get("name").unwrap_or_default();
            }
            None if self.dialect.is_case(name, element) => return self.begin(path.len(), element),
            Some(depth) if path.len() == depth + 1 => self.child(name, element),
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, path: &[String], text: &str) {
        let Some(depth) = self.open else {
            return;
        };
        if let Some(Case {
            outcome: Outcome::Failed(message),
            ..
        }) = self.cases.last_mut()
            && message.is_empty()
            && self.dialect.is_message(path.get(depth..).unwrap_or_default())
        {
            *message = self.telling.short(text);
        }
    }

    fn close(&mut self, path: &[String]) {
        if self.open == Some(path.len()) {
            self.open = None;
        }
    }
}
