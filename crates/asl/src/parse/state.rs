//! One state of each type.

use super::Reader;
use super::fields::Fields;
use crate::check::{Report, join};
use crate::instant;
use crate::limit;
use crate::machine::{Filter, Kind, Language, Pass, ResultPath, State, Text, Wait};
use crate::path::Path;
use crate::payload::Payload;
use crate::template::{Expression, Template};
use serde_json::Value;

const TYPES: [&str; 8] = [
    "Task", "Wait", "Pass", "Succeed", "Fail", "Choice", "Parallel", "Map",
];

/// What states of all types may have.
struct Parts {
    language: Language,
    input: Filter,
    output: Filter,
    answer: Option<Template>,
    assign: Option<Template>,
}

impl Reader {
    pub(super) fn state(&mut self, value: &Value, place: &str) -> Option<State> {
        let fields = Fields::of(value, place, &mut self.report)?;
        fields.text("Comment", &mut self.report);
        let language = self.query_language(&fields);
        let fields = fields.speaking(if self.jsonata || language == Some("JSONata") {
            Language::JsonAta
        } else {
            Language::JsonPath
        });
        fields.required(&["Type"], &mut self.report);
        let name = fields.word("Type", &TYPES, &mut self.report)?;
        let fields = fields.resulting(["Task", "Parallel", "Map"].contains(&name));
        let kind = match name {
            "Pass" => Some(Kind::Pass(self.pass(&fields))),
            "Task" => self.task(&fields).map(|task| Kind::Task(Box::new(task))),
            "Choice" => self.choice(&fields).map(Kind::Choice),
            "Wait" => self.wait(&fields).map(Kind::Wait),
            "Succeed" => Some(Kind::Succeed),
            "Fail" => Some(self.fail(&fields)),
            "Parallel" => self.parallel(&fields),
            _ => self.map(&fields).map(|map| Kind::Map(Box::new(map))),
        };
        let next = self.next(name, &fields);
        let fails = name == "Fail";
        let plain = fails || fields.is_jsonata();
        let state = Parts {
            language: fields.language(),
            answer: if fails {
                None
            } else {
                answer(&fields, &mut self.report)
            },
            input: if plain {
                Filter::All
            } else {
                filter(&fields, "InputPath", &mut self.report)
            },
            output: if plain {
                Filter::All
            } else {
                filter(&fields, "OutputPath", &mut self.report)
            },
            assign: if fails || name == "Succeed" {
                None
            } else {
                fields.template("Assign", &mut self.report)
            },
        };
        fields.finish(&mut self.report);
        Some(State {
            kind: kind?,
            language: state.language,
            input: state.input,
            output: state.output,
            answer: state.answer,
            next: next?,
            assign: state.assign,
            context: mentions_context(value),
        })
    }

    /// `Next` or `End`, one of which every state has but Choice, Succeed and Fail.
    fn next(&mut self, name: &str, fields: &Fields) -> Option<Option<String>> {
        if ["Choice", "Succeed", "Fail"].contains(&name) {
            return Some(None);
        }
        fields.exclusive(&["Next", "End"], true, &mut self.report);
        let end = fields.flag("End", &mut self.report);
        if end == Some(false) {
            self.report.schema(&fields.at("End"), "Value must be true");
        }
        let next = fields.text("Next", &mut self.report);
        if next.is_none() && end.is_none() {
            None
        } else {
            Some(next.map(str::to_owned))
        }
    }

    fn pass(&mut self, fields: &Fields) -> Pass {
        if fields.is_jsonata() {
            return Pass {
                result: None,
                parameters: None,
                result_path: ResultPath::Replace,
            };
        }
        Pass {
            result: fields.get("Result").cloned().map(Payload::new),
            parameters: fields.template("Parameters", &mut self.report),
            result_path: super::work::result_path(fields, &mut self.report),
        }
    }

    fn wait(&mut self, fields: &Fields) -> Option<Wait> {
        let report = &mut self.report;
        if fields.is_jsonata() {
            fields.exclusive(&["Seconds", "Timestamp"], true, report);
            fields.known(&["Seconds", "Timestamp"]);
            if fields.is_query("Seconds") {
                return fields.query("Seconds", report).map(Wait::SecondsQuery);
            }
            if fields.is_query("Timestamp") {
                return fields.query("Timestamp", report).map(Wait::TimestampQuery);
            }
        }
        if !fields.is_jsonata() {
            let names = ["Seconds", "SecondsPath", "Timestamp", "TimestampPath"];
            fields.exclusive(&names, true, report);
        }
        let seconds = fields
            .count("Seconds", 0, limit::SECONDS, report)
            .map(Wait::Seconds);
        let seconds_path = path_of(fields, "SecondsPath", report).map(Wait::SecondsPath);
        let timestamp = fields.text("Timestamp", report);
        if timestamp.is_some_and(|text| instant::parse(text).is_none()) {
            report.schema(
                &fields.at("Timestamp"),
                "Value is not a valid ISO-8601 extended offset date-time",
            );
        }
        let timestamp = timestamp.map(|text| Wait::Timestamp(text.to_owned()));
        let timestamp_path = path_of(fields, "TimestampPath", report).map(Wait::TimestampPath);
        seconds.or(seconds_path).or(timestamp).or(timestamp_path)
    }

    fn fail(&mut self, fields: &Fields) -> Kind {
        let mut text = |name: &'static str, path: &'static str| {
            if fields.is_query(name) {
                let query = fields.query(name, &mut self.report);
                return query.map(|query| Text::Computed(Expression::Query(query)));
            }
            if fields.is_jsonata() {
                return fields
                    .text(name, &mut self.report)
                    .map(|text| Text::Fixed(text.to_owned()));
            }
            fields.exclusive(&[name, path], false, &mut self.report);
            let fixed = fields
                .text(name, &mut self.report)
                .map(|text| Text::Fixed(text.to_owned()));
            fixed.or(fields.expression(path, &mut self.report).map(Text::Computed))
        };
        Kind::Fail {
            error: text("Error", "ErrorPath"),
            cause: text("Cause", "CausePath"),
        }
    }
}

/// A `…Path` field, which JSONata does not have.
fn path_of(fields: &Fields, name: &'static str, report: &mut Report) -> Option<Path> {
    if fields.is_jsonata() {
        return None;
    }
    fields.reference(name, report)
}

/// `Output`, which only JSONata has.
pub(super) fn answer(fields: &Fields, report: &mut Report) -> Option<Template> {
    if fields.is_jsonata() {
        fields.template("Output", report)
    } else {
        None
    }
}

fn filter(fields: &Fields, name: &'static str, report: &mut Report) -> Filter {
    match fields.get(name) {
        None => Filter::All,
        Some(Value::Null) => Filter::Nothing,
        Some(Value::String(text)) if text == "$" => Filter::All,
        Some(_) => fields.path(name, report).map_or(Filter::All, Filter::Path),
    }
}

/// Whether any text of a state may read the context object; states inside it do not count, but do no harm.
fn mentions_context(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("$$") || queries_context(text),
        Value::Array(items) => items.iter().any(mentions_context),
        Value::Object(members) => members.values().any(mentions_context),
        _ => false,
    }
}

/// Whether a query may read `$states.context`: only the other members of `$states` are known not to.
fn queries_context(text: &str) -> bool {
    let others = [".input", ".result", ".errorOutput"];
    text.split("$states")
        .skip(1)
        .any(|rest| !others.iter().any(|other| rest.starts_with(other)))
}

/// The place of an element of an array field.
pub(super) fn element(fields: &Fields, name: &str, at: usize) -> String {
    join(&fields.at(name), &at.to_string())
}
