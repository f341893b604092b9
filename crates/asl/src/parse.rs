//! Text to [`Machine`](crate::Machine). Reading and checking are one pass: every field is asked for by the state that
//! knows it, and what nobody asked for is a problem.

mod advice;
mod blanks;
mod choice;
mod fields;
mod map;
mod resource;
mod state;
mod twice;
mod walk;
mod work;

use crate::check::{self, Age, Code, Diagnostic, Report, Severity, join};
use crate::limit;
use crate::machine::{Flavour, Program};
use fields::Fields;
use jsonata::json;
use serde_json::{Value, json};
use std::collections::BTreeSet;

type Definition = (Value, Program, Option<u64>);

/// What was found in a text: the machine, if it can be run, and what is wrong or doubtful about it.
pub struct Found {
    pub definition: Option<Definition>,
    /// Warnings too.
    pub problems: Vec<Diagnostic>,
    /// There were more problems than are kept.
    pub truncated: bool,
}

pub fn definition(flavour: Flavour, text: &str, age: Age) -> Result<Definition, Vec<Diagnostic>> {
    let found = examine(flavour, text, age);
    found.definition.ok_or_else(|| {
        let mut problems = found.problems;
        problems.retain(|problem| problem.severity == Severity::Error);
        problems
    })
}

pub fn examine(flavour: Flavour, text: &str, age: Age) -> Found {
    let value = match read(text) {
        Ok(value) => value,
        Err(problem) => {
            return Found {
                definition: None,
                problems: vec![problem],
                truncated: false,
            };
        }
    };
    let mut reader = Reader {
        report: Report::of(age),
        flavour,
        ..Reader::default()
    };
    let twice = twice::find(text, limit::DIAGNOSTICS);
    let (program, timeout) = reader.machine(&value);
    if age == Age::New {
        resource::check(&value, &mut reader.report);
        twice::report(&twice, true, &mut reader.report);
    }
    let failed = !reader.report.is_empty();
    resource::advise(&value, &mut reader.report);
    blanks::advise(&value, &mut reader.report);
    twice::report(&twice, false, &mut reader.report);
    advice::give(&value, &mut reader.report);
    let truncated = reader.report.is_truncated();
    let problems = reader.report.finish(text, &value);
    Found {
        definition: (!failed).then_some((value, program, timeout)),
        problems,
        truncated,
    }
}

/// Reads a state by itself: where it leads to is not asked.
pub fn single(name: &str, state: &Value, jsonata: bool) -> Result<Definition, Vec<Diagnostic>> {
    let definition = json!({ "StartAt": name, "States": { name: state } });
    let mut reader = Reader {
        jsonata,
        ..Reader::default()
    };
    let found = reader.state(state, &join("/States", name));
    resource::check(&definition, &mut reader.report);
    let problems = reader.report.finish(&definition.to_string(), &definition);
    let program = Program {
        start: name.to_owned(),
        states: found.into_iter().map(|state| (name.to_owned(), state)).collect(),
    };
    if problems.is_empty() {
        Ok((definition, program, None))
    } else {
        Err(problems)
    }
}

fn read(text: &str) -> Result<Value, Diagnostic> {
    if text.trim().is_empty() {
        let message = "the definition is empty".to_owned();
        return Err(Diagnostic {
            code: Code::MissingDescription,
            ..unreadable(message, 1, 1)
        });
    }
    if text.len() > limit::DEFINITION {
        let message = format!(
            "the definition has {} bytes, {} are allowed",
            text.len(),
            limit::DEFINITION
        );
        return Err(unreadable(message, 1, 1));
    }
    json::read(text).map_err(|error| {
        let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
        let column = u32::try_from(error.column()).unwrap_or(u32::MAX).max(1);
        unreadable(error.to_string(), line, column)
    })
}

fn unreadable(message: String, line: u32, column: u32) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: Code::InvalidJsonDescription,
        message,
        detail: None,
        location: None,
        pointer: "/".into(),
        line,
        column,
    }
}

#[derive(Default)]
struct Reader {
    report: Report,
    /// Names of all states so far: they are unique in the whole machine.
    names: BTreeSet<String>,
    jsonata: bool,
    /// The type of the machine or, inside a distributed Map, of its child executions.
    flavour: Flavour,
}

impl Reader {
    fn machine(&mut self, value: &Value) -> (Program, Option<u64>) {
        let Some(fields) = Fields::of(value, "", &mut self.report) else {
            return Default::default();
        };
        fields.text("Comment", &mut self.report);
        if let Some(version) = fields.text("Version", &mut self.report)
            && version != "1.0"
        {
            self.report.schema("/Version", "The version must be '1.0'");
        }
        self.jsonata = self.query_language(&fields) == Some("JSONata");
        let timeout = fields.count("TimeoutSeconds", 1, limit::SECONDS, &mut self.report);
        let program = self.program(&fields);
        fields.finish(&mut self.report);
        (program, timeout)
    }

    /// `StartAt` and `States`, of the machine, a branch or an item processor.
    fn program(&mut self, fields: &Fields) -> Program {
        fields.required(&["StartAt", "States"], &mut self.report);
        let start = fields
            .text("StartAt", &mut self.report)
            .unwrap_or_default()
            .to_owned();
        let mut program = Program {
            start,
            ..Program::default()
        };
        let Some(states) = fields.object("States", &mut self.report) else {
            return program;
        };
        if states.members().is_empty() {
            self.report
                .schema(states.pointer(), "There must be at least one state");
        }
        for (name, value) in states.members() {
            let place = join(states.pointer(), name);
            self.name(name, &place);
            check::variables(value, &place, &mut self.report);
            if let Some(state) = self.state(value, &place) {
                program.states.insert(name.clone(), state);
            }
        }
        check::transitions(fields.value(), fields.pointer(), &mut self.report);
        program
    }

    fn name(&mut self, name: &str, place: &str) {
        if name.is_empty() || name.chars().count() > limit::NAME {
            self.report.schema(
                place,
                format!("The name of a state has 1 to {} characters", limit::NAME),
            );
        }
        if !self.names.insert(name.to_owned()) {
            self.report.add(
                place,
                Code::DuplicateStateName,
                format!("Duplicate State name: {name}"),
            );
            self.report.detail(format!(
                "State \"{name}\" is also defined elsewhere in the machine"
            ));
        }
    }

    /// The query language that `fields` asks for; what cannot be had is reported.
    fn query_language<'a>(&mut self, fields: &Fields<'a>) -> Option<&'a str> {
        let language = fields.text("QueryLanguage", &mut self.report)?;
        match language {
            "JSONPath" if self.jsonata => {
                let message =
                    "'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine";
                self.report.schema(fields.pointer(), message);
            }
            "JSONPath" | "JSONata" => {}
            _ => {
                let place = join(fields.pointer(), "QueryLanguage");
                fields::one_of(
                    &place,
                    "QueryLanguage",
                    &["JSONPath", "JSONata"],
                    language,
                    &mut self.report,
                );
            }
        }
        Some(language)
    }
}

#[cfg(test)]
mod tests;
