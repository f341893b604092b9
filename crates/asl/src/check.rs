//! What is wrong with a definition, in AWS's words where they are known, and the checks that need the whole graph.

use crate::limit;
use crate::locate::locate;
use crate::machine::{Kind, Program, State};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// One problem of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// JSON pointer to the field or, when a field is missing, to the object that lacks it; `/` is the whole definition.
    pub pointer: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    pub code: Code,
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {} at {}",
            self.line, self.column, self.code, self.message, self.pointer
        )
    }
}

/// AWS's code of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The text is not JSON, or too long.
    InvalidJsonDescription,
    SchemaValidationFailed,
    /// A state that is named does not exist, or one that exists is never named.
    MissingTransitionTarget,
    DuplicateStateName,
    /// Ours: the language has it, this crate does not yet.
    NotAvailableYet,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJsonDescription => "INVALID_JSON_DESCRIPTION",
            Self::SchemaValidationFailed => "SCHEMA_VALIDATION_FAILED",
            Self::MissingTransitionTarget => "MISSING_TRANSITION_TARGET",
            Self::DuplicateStateName => "DUPLICATE_STATE_NAME",
            Self::NotAvailableYet => "NOT_AVAILABLE_YET",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Report {
    problems: Vec<(String, Code, String)>,
}

impl Report {
    pub fn add(&mut self, pointer: &str, code: Code, message: impl Into<String>) {
        if self.problems.len() < limit::DIAGNOSTICS {
            self.problems.push((pointer.to_owned(), code, message.into()));
        }
    }

    pub fn schema(&mut self, pointer: &str, message: impl Into<String>) {
        self.add(pointer, Code::SchemaValidationFailed, message);
    }

    pub fn unavailable(&mut self, pointer: &str, what: &str) {
        self.add(
            pointer,
            Code::NotAvailableYet,
            format!("{what} is not available yet"),
        );
    }

    /// The problems with their places in `text`, in its order; `None` when there are none.
    pub fn finish(self, text: &str) -> Option<Vec<Diagnostic>> {
        let mut diagnostics: Vec<_> = self
            .problems
            .into_iter()
            .map(|(pointer, code, message)| {
                let pointer = if pointer.is_empty() {
                    "/".to_owned()
                } else {
                    pointer
                };
                let (line, column) = locate(text, &pointer);
                Diagnostic {
                    pointer,
                    line,
                    column,
                    code,
                    message,
                }
            })
            .collect();
        diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        if diagnostics.is_empty() {
            None
        } else {
            Some(diagnostics)
        }
    }
}

/// Appends a token to a pointer.
pub fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

/// Checks that every transition has a target and every state is reached.
pub fn transitions(program: &Program, pointer: &str, report: &mut Report) {
    let mut reached = BTreeSet::new();
    let mut queue = vec![program.start.as_str()];
    let started = program.states.contains_key(&program.start);
    if !started && !program.start.is_empty() {
        let message = format!("Missing 'StartAt' target: {}", program.start);
        report.add(&join(pointer, "StartAt"), Code::MissingTransitionTarget, message);
    }
    while let Some(name) = queue.pop() {
        if reached.insert(name)
            && let Some(state) = program.states.get(name)
        {
            queue.extend(targets(state).into_iter().map(|(_, target)| target));
        }
    }
    for (name, state) in &program.states {
        let place = join(&join(pointer, "States"), name);
        for (field, target) in targets(state) {
            if !program.states.contains_key(target) {
                let message = format!(
                    "Missing '{}' target: {target}",
                    field.rsplit('/').next().unwrap_or_default()
                );
                report.add(
                    &format!("{place}/{field}"),
                    Code::MissingTransitionTarget,
                    message,
                );
            }
        }
        if started && !reached.contains(name.as_str()) {
            report.add(
                &place,
                Code::MissingTransitionTarget,
                format!("State \"{name}\" is not reachable."),
            );
        }
    }
}

/// The transitions of a state: where they are written, and where they lead.
fn targets(state: &State) -> Vec<(String, &str)> {
    let mut targets = Vec::new();
    if let Some(next) = &state.next {
        targets.push(("Next".to_owned(), next.as_str()));
    }
    if let Kind::Choice(choice) = &state.kind {
        for (at, rule) in choice.rules.iter().enumerate() {
            targets.push((format!("Choices/{at}/Next"), rule.next.as_str()));
        }
        targets.extend(
            choice
                .default
                .as_ref()
                .map(|default| ("Default".to_owned(), default.as_str())),
        );
    }
    if let Some(work) = state.kind.work() {
        for (at, catcher) in work.catch.iter().enumerate() {
            targets.push((format!("Catch/{at}/Next"), catcher.next.as_str()));
        }
    }
    targets
}
