//! `ValidateStateMachineDefinition`: what is wrong with a definition, as an answer and not as an error.

use crate::check::{Diagnostic, Severity};
use crate::machine::Flavour;
use crate::parse;
use serde::Serialize;
use serde_json::{Value, json};

/// What AWS answers, and more for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Validation {
    pub result: Verdict,
    /// In the order of the text; those without a place come last.
    pub diagnostics: Vec<Diagnostic>,
    /// There are more than were asked for or are kept.
    pub truncated: bool,
}

/// Whether a state machine could be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Ok,
    Fail,
}

/// Examines a definition: problems of at least `severity`, `most` of them at most.
pub fn validate(text: &str, flavour: Flavour, severity: Severity, most: usize) -> Validation {
    let found = parse::examine(flavour, text, crate::check::Age::New);
    let mut diagnostics = found.problems;
    let result = match diagnostics
        .iter()
        .any(|problem| problem.severity == Severity::Error)
    {
        true => Verdict::Fail,
        false => Verdict::Ok,
    };
    diagnostics.retain(|problem| problem.severity >= severity);
    let truncated = found.truncated || diagnostics.len() > most;
    diagnostics.truncate(most);
    Validation {
        result,
        diagnostics,
        truncated,
    }
}

impl Validation {
    /// The answer with AWS's members only.
    pub fn answer(&self) -> Value {
        let diagnostics: Vec<_> = self.diagnostics.iter().map(Diagnostic::answer).collect();
        json!({ "result": self.result, "diagnostics": diagnostics, "truncated": self.truncated })
    }
}

impl Diagnostic {
    /// AWS's members only.
    pub fn answer(&self) -> Value {
        let mut answer = json!({ "severity": self.severity, "code": self.code, "message": self.message });
        if let Some(location) = &self.location {
            answer["location"] = location.as_str().into();
        }
        answer
    }
}

/// The message of the `InvalidDefinition` that CreateStateMachine and TestState answer.
pub fn refusal(problems: &[Diagnostic]) -> String {
    let each = |problem: &Diagnostic| {
        let place = problem.location.as_deref().unwrap_or("null");
        format!("{}: {} at {place}", problem.code, problem.message)
    };
    let all: Vec<_> = problems.iter().map(each).collect();
    format!("Invalid State Machine Definition: '{}'", all.join(", "))
}
