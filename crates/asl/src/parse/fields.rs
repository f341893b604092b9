//! The members of one JSON object of a definition, and which of them somebody asked for.

use crate::check::{Code, Report, join};
use crate::machine::Language;
use crate::path::Path;
use crate::query::Query;
use crate::template::{Expression, Template};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

pub struct Fields<'a> {
    value: &'a Value,
    members: &'a Map<String, Value>,
    pointer: String,
    /// What the texts inside are written in.
    language: Language,
    /// Where this object is in its state, as AWS names the place of a query: `Catch[0]`. Empty for the state.
    place: String,
    /// It is the state itself, of a type that has a result.
    results: bool,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Fields<'a> {
    /// The members of `value`; reported if it is not an object.
    pub fn of(value: &'a Value, pointer: &str, report: &mut Report) -> Option<Self> {
        let Value::Object(members) = value else {
            report.schema(pointer, "Expected value of type Object");
            return None;
        };
        Some(Self {
            value,
            members,
            pointer: pointer.to_owned(),
            language: Language::default(),
            place: String::new(),
            results: false,
            known: RefCell::default(),
        })
    }

    /// A state's members, in its language.
    pub fn speaking(self, language: Language) -> Self {
        Self { language, ..self }
    }

    /// A state's members, of a type that has a result.
    pub fn resulting(self, results: bool) -> Self {
        Self { results, ..self }
    }

    /// The members of `$states` that are not there when the field is evaluated.
    fn absent(&self, name: &str, report: &Report) -> &'static [&'static str] {
        let result = self.results && ["Assign", "Output"].contains(&name);
        match (result, self.place.starts_with("Catch[")) {
            // Then they have no value.
            _ if !report.is_of_new() => &[],
            (true, true) => &[],
            (true, false) => &["errorOutput"],
            (false, true) => &["result"],
            (false, false) => &["result", "errorOutput"],
        }
    }

    pub fn language(&self) -> Language {
        self.language
    }

    pub fn is_jsonata(&self) -> bool {
        self.language == Language::JsonAta
    }

    /// The name of a field as it stands in the causes of failed queries: `Catch[0]/Output`.
    fn field(&self, name: &str) -> String {
        if self.place.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.place)
        }
    }

    fn inside(&self, place: String, value: &'a Value, pointer: &str, report: &mut Report) -> Option<Self> {
        let fields = Self::of(value, pointer, report)?;
        Some(Self {
            place,
            language: self.language,
            ..fields
        })
    }

    /// The object itself.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    pub fn members(&self) -> &'a Map<String, Value> {
        self.members
    }

    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    pub fn at(&self, name: &str) -> String {
        join(&self.pointer, name)
    }

    pub fn get(&self, name: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().insert(name);
        self.members.get(name)
    }

    /// Fields that belong here, though nobody reads them now.
    pub fn known(&self, names: &[&'static str]) {
        self.known.borrow_mut().extend(names);
    }

    /// Reports the names that are missing, in one problem as AWS does.
    pub fn required(&self, names: &[&str], report: &mut Report) {
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !self.members.contains_key(**name))
            .copied()
            .collect();
        if !missing.is_empty() {
            report.schema(
                &self.pointer,
                format!("These fields are required: [{}]", missing.join(", ")),
            );
            let quoted: Vec<_> = missing.iter().map(|name| format!("\"{name}\"")).collect();
            report.detail(format!("does not have required field {}", quoted.join(", ")));
        }
    }

    /// Reports when more than one of `names` is there; with `one`, when none is.
    pub fn exclusive(&self, names: &[&str], one: bool, report: &mut Report) {
        let count = names
            .iter()
            .filter(|name| self.members.contains_key(**name))
            .count();
        if count > 1 {
            report.schema(
                &self.pointer,
                format!(
                    "There should only be one of the following fields: [{}]",
                    names.join(", ")
                ),
            );
            report.detail(format!("may have only one of {names:?}"));
        } else if one && count == 0 {
            report.schema(
                &self.pointer,
                format!("One of the following fields is required: [{}]", names.join(", ")),
            );
            report.detail(format!("does not have required field from {names:?}"));
        }
    }

    /// Reports every member that was never asked for.
    pub fn finish(&self, report: &mut Report) {
        for name in self
            .members
            .keys()
            .filter(|name| !self.known.borrow().contains(name.as_str()))
        {
            let message = match (self.is_jsonata(), name.as_str()) {
                (false, name) if JSONATA.contains(&name) => foreign("JSONPath", name, "JSONata"),
                (true, name) if is_jsonpath(name) => foreign("JSONata", name, "JSONPath"),
                _ => format!("Field '{name}' is not supported"),
            };
            report.schema(&self.pointer, message);
            report.detail(format!("Field \"{name}\" not allowed"));
            report.spot(&self.at(name));
        }
    }

    /// Reports a value of the wrong type.
    fn wrong(&self, name: &str, value: &Value, wanted: &str, report: &mut Report) {
        report.schema(&self.at(name), format!("Expected value of type {wanted}"));
        match value {
            Value::Null => report.detail(format!("Field \"{name}\" should be non-null")),
            value => report.detail(format!("is {} but should be {wanted}", shown(value))),
        }
    }

    pub fn text(&self, name: &'static str, report: &mut Report) -> Option<&'a str> {
        let value = self.get(name)?;
        if value.as_str().is_none() {
            self.wrong(name, value, "String", report);
        }
        value.as_str()
    }

    pub fn flag(&self, name: &'static str, report: &mut Report) -> Option<bool> {
        let value = self.get(name)?;
        if value.as_bool().is_none() {
            self.wrong(name, value, "Boolean", report);
        }
        value.as_bool()
    }

    /// A whole number from `least` to `most`.
    pub fn count(&self, name: &'static str, least: u64, most: u64, report: &mut Report) -> Option<u64> {
        let value = self.get(name)?;
        let whole = value.as_u64().or_else(|| {
            let number = value
                .as_f64()
                .filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number))?;
            Some(number as u64)
        });
        match whole {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.outside(name, value, (least, most), report);
                None
            }
        }
    }

    fn outside(&self, name: &str, value: &Value, (least, most): (u64, u64), report: &mut Report) {
        let Some(number) = value.as_f64().filter(|number| number.fract() == 0.0) else {
            return self.wrong(name, value, "Integer", report);
        };
        if number < least as f64 {
            report.schema(&self.at(name), format!("Minimum value is {least}"));
            report.detail(match least {
                0 => format!("is {value} but allowed minimum is 0"),
                least => format!("is {value} but allowed floor is {}", least - 1),
            });
        } else {
            report.schema(&self.at(name), format!("Maximum value is {most}"));
            report.detail(format!("is {value} but allowed maximum is {most}"));
        }
    }

    /// A text that must be one of `words`.
    pub fn word(&self, name: &'static str, words: &[&str], report: &mut Report) -> Option<&'a str> {
        let text = self.text(name, report)?;
        if words.contains(&text) {
            return Some(text);
        }
        one_of(&self.at(name), name, words, text, report);
        None
    }

    pub fn object(&self, name: &'static str, report: &mut Report) -> Option<Fields<'a>> {
        self.inside(self.field(name), self.get(name)?, &self.at(name), report)
    }

    /// The objects of an array, each with its own place.
    pub fn objects(&self, name: &'static str, report: &mut Report) -> Option<Vec<Fields<'a>>> {
        let value = self.get(name)?;
        let place = self.at(name);
        let Value::Array(items) = value else {
            self.wrong(name, value, "Array", report);
            return None;
        };
        let fields = items.iter().enumerate();
        Some(
            fields
                .filter_map(|(at, item)| {
                    let field = format!("{}[{at}]", self.field(name));
                    self.inside(field, item, &join(&place, &at.to_string()), report)
                })
                .collect(),
        )
    }

    pub fn path(&self, name: &'static str, report: &mut Report) -> Option<Path> {
        let text = self.text(name, report)?;
        self.parsed(name, Path::parse(text), report)
    }

    /// A path that names one node: in `Choice`, `Wait`, and the `…Path` fields of numbers.
    pub fn reference(&self, name: &'static str, report: &mut Report) -> Option<Path> {
        let path = self.path(name, report)?;
        if !path.is_reference() {
            report.schema(&self.at(name), "Value is not a Reference Path");
            report.detail(format!("Field \"{name}\" must select a single node"));
            return None;
        }
        Some(path)
    }

    pub fn expression(&self, name: &'static str, report: &mut Report) -> Option<Expression> {
        let text = self.text(name, report)?;
        self.parsed(name, Expression::parse(text), report)
    }

    fn parsed<T>(&self, name: &str, result: Result<T, String>, report: &mut Report) -> Option<T> {
        result
            .map_err(|why| {
                report.schema(&self.at(name), "Value is not a valid JSONPath");
                report.detail(format!("Field \"{name}\" is not a JSONPath: {why}"));
            })
            .ok()
    }

    pub fn template(&self, name: &'static str, report: &mut Report) -> Option<Template> {
        let value = self.get(name)?;
        let (place, absent) = (self.at(name), self.absent(name, report));
        let mut problem = |trail: &[String], message: String| {
            let place = trail
                .iter()
                .fold(place.clone(), |place, token| join(&place, token));
            if self.is_jsonata() {
                return expression(&place, &message, report);
            }
            let (key, way) = trail
                .split_last()
                .map_or(("", trail), |(key, way)| (key.as_str(), way));
            let object = way.iter().fold(self.at(name), |place, token| join(&place, token));
            let wanted = "must be a valid JSONPath or a valid intrinsic function call";
            report.schema(&object, format!("The value for the field '{key}' {wanted}"));
            report.spot(&place);
            let why = message
                .split_once("call: ")
                .map_or(message.as_str(), |(_, why)| why);
            report.detail(format!(
                "Field \"{key}\" of {name} is not a JSONPath or intrinsic function expression: {why}"
            ));
        };
        Some(match self.language {
            Language::JsonPath => Template::parse(value, &mut Vec::new(), &mut problem),
            Language::JsonAta => {
                Template::queries(value, &self.field(name), absent, &mut Vec::new(), &mut problem)
            }
        })
    }

    /// The query that the field is, if it is one.
    pub fn query(&self, name: &'static str, report: &mut Report) -> Option<Query> {
        let body = Query::body(self.get(name)?.as_str().filter(|_| self.is_jsonata())?)?;
        Query::parse(body, &self.field(name), self.absent(name, report))
            .map_err(|why| expression(&self.at(name), &why, report))
            .ok()
    }

    /// Whether the field is a query, sound or not.
    pub fn is_query(&self, name: &str) -> bool {
        let text = self.members.get(name).and_then(Value::as_str);
        self.is_jsonata() && text.and_then(Query::body).is_some()
    }
}

/// Fields that only JSONata has.
const JSONATA: [&str; 4] = ["Arguments", "Condition", "Items", "Output"];

/// Fields that only JSONPath has.
fn is_jsonpath(name: &str) -> bool {
    name.ends_with("Path")
        || [
            "And",
            "Not",
            "Or",
            "Parameters",
            "Result",
            "ResultSelector",
            "Variable",
        ]
        .contains(&name)
}

fn foreign(language: &str, name: &str, other: &str) -> String {
    format!(
        "The QueryLanguage is set to '{language}', but field '{name}' is only supported for the '{other}' QueryLanguage"
    )
}

/// A value in a sentence, cut when it is long.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

/// Reports a text that is none of `words`.
pub fn one_of(place: &str, name: &str, words: &[&str], text: &str, report: &mut Report) {
    let message = format!(
        "The field '{name}' should have one of these values: [{}]",
        words.join(", ")
    );
    report.schema(place, message);
    let text: String = text.chars().take(80).collect();
    report.detail(format!("is \"{text}\", not one of the allowed values {words:?}"));
}

/// Reports an expression that JSONata refuses. AWS gives the sentence without the code in front.
fn expression(place: &str, why: &str, report: &mut Report) {
    let sentence = match why.split_once(": ") {
        Some((code, rest)) if code.len() == 5 && code[1..].bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => why,
    };
    let unsupported = ["Reference to '", "Field '$states."];
    let code = if unsupported.iter().any(|start| sentence.starts_with(start)) {
        Code::UnsupportedJsonataExpression
    } else {
        Code::InvalidJsonataExpression
    };
    report.add(place, code, sentence);
}
