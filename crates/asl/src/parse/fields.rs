//! The members of one JSON object of a definition, and which of them somebody asked for.

use crate::check::{Report, join};
use crate::machine::Language;
use crate::path::Path;
use crate::query::Query;
use crate::template::{Expression, Template};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

pub struct Fields<'a> {
    members: &'a Map<String, Value>,
    pointer: String,
    /// What the texts inside are written in.
    language: Language,
    /// Where this object is in its state, as AWS names the place of a query: `Catch[0]`. Empty for the state.
    place: String,
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
            members,
            pointer: pointer.to_owned(),
            language: Language::default(),
            place: String::new(),
            known: RefCell::default(),
        })
    }

    /// A state's members, in its language.
    pub fn speaking(self, language: Language) -> Self {
        Self { language, ..self }
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
                    "Only one of the following fields may be set: [{}]",
                    names.join(", ")
                ),
            );
        } else if one && count == 0 {
            report.schema(
                &self.pointer,
                format!("One of the following fields is required: [{}]", names.join(", ")),
            );
        }
    }

    /// Reports every member that was never asked for.
    pub fn finish(&self, report: &mut Report) {
        for name in self
            .members
            .keys()
            .filter(|name| !self.known.borrow().contains(name.as_str()))
        {
            report.schema(&self.at(name), format!("Field '{name}' is not supported"));
        }
    }

    pub fn text(&self, name: &'static str, report: &mut Report) -> Option<&'a str> {
        let value = self.get(name)?;
        if value.as_str().is_none() {
            report.schema(&self.at(name), "Expected value of type String");
        }
        value.as_str()
    }

    pub fn flag(&self, name: &'static str, report: &mut Report) -> Option<bool> {
        let value = self.get(name)?;
        if value.as_bool().is_none() {
            report.schema(&self.at(name), "Expected value of type Boolean");
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
                report.schema(
                    &self.at(name),
                    format!("Expected value of type Integer between {least} and {most}"),
                );
                None
            }
        }
    }

    pub fn object(&self, name: &'static str, report: &mut Report) -> Option<Fields<'a>> {
        self.inside(self.field(name), self.get(name)?, &self.at(name), report)
    }

    /// The objects of an array, each with its own place.
    pub fn objects(&self, name: &'static str, report: &mut Report) -> Option<Vec<Fields<'a>>> {
        let value = self.get(name)?;
        let place = self.at(name);
        let Value::Array(items) = value else {
            report.schema(&place, "Expected value of type Array");
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
            report.schema(
                &self.at(name),
                "Value is not a Reference Path: it must select a single node",
            );
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
            .map_err(|why| report.schema(&self.at(name), format!("Value is not a valid JSONPath: {why}")))
            .ok()
    }

    pub fn template(&self, name: &'static str, report: &mut Report) -> Option<Template> {
        let value = self.get(name)?;
        let place = self.at(name);
        let mut problem = |trail: &[String], message: String| {
            let place = trail
                .iter()
                .fold(place.clone(), |place, token| join(&place, token));
            report.schema(&place, message);
        };
        Some(match self.language {
            Language::JsonPath => Template::parse(value, &mut Vec::new(), &mut problem),
            Language::JsonAta => Template::queries(value, &self.field(name), &mut Vec::new(), &mut problem),
        })
    }

    /// The query that the field is, if it is one.
    pub fn query(&self, name: &'static str, report: &mut Report) -> Option<Query> {
        let body = Query::body(self.get(name)?.as_str().filter(|_| self.is_jsonata())?)?;
        Query::parse(body, &self.field(name))
            .map_err(|why| report.schema(&self.at(name), why))
            .ok()
    }

    /// Whether the field is a query, sound or not.
    pub fn is_query(&self, name: &str) -> bool {
        let text = self.members.get(name).and_then(Value::as_str);
        self.is_jsonata() && text.and_then(Query::body).is_some()
    }
}
