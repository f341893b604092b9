//! Text to [`Machine`](crate::Machine). Reading and checking are one pass: every field is asked for by the state that
//! knows it, and what nobody asked for is a problem.

mod choice;
mod fields;
mod map;
mod state;
mod work;

use crate::check::{self, Code, Diagnostic, Report, join};
use crate::limit;
use crate::machine::Program;
use fields::Fields;
use serde_json::Value;
use std::collections::BTreeSet;

type Definition = (Value, Program, Option<u64>);

pub fn definition(text: &str) -> Result<Definition, Vec<Diagnostic>> {
    if text.len() > limit::DEFINITION {
        let message = format!(
            "the definition has {} bytes, {} are allowed",
            text.len(),
            limit::DEFINITION
        );
        return Err(vec![unreadable(message, 1, 1)]);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
        vec![unreadable(
            error.to_string(),
            line,
            u32::try_from(error.column()).unwrap_or(u32::MAX).max(1),
        )]
    })?;
    let mut reader = Reader::default();
    let (program, timeout) = reader.machine(&value);
    match reader.report.finish(text) {
        Some(problems) => Err(problems),
        None => Ok((value, program, timeout)),
    }
}

fn unreadable(message: String, line: u32, column: u32) -> Diagnostic {
    Diagnostic {
        pointer: "/".into(),
        line,
        column,
        code: Code::InvalidJsonDescription,
        message,
    }
}

#[derive(Default)]
struct Reader {
    report: Report,
    /// Names of all states so far: they are unique in the whole machine.
    names: BTreeSet<String>,
    jsonata: bool,
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
        let mut complete = true;
        for (name, value) in states.members() {
            let place = join(states.pointer(), name);
            self.name(name, &place);
            match self.state(value, &place) {
                Some(state) => {
                    program.states.insert(name.clone(), state);
                }
                None => complete = false,
            }
        }
        if complete {
            check::transitions(&program, fields.pointer(), &mut self.report);
        }
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
                self.report
                    .schema(&place, "Value is not valid, allowed values: [JSONPath, JSONata]");
            }
        }
        Some(language)
    }
}

#[cfg(test)]
mod tests;
