//! Which variables each state of a definition reads: the `variableReferences` of DescribeStateMachine.

use crate::path::{Path, Root};
use crate::query::Query;
use crate::template::Expression;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Fields that hold payload templates, in which only keys that end in `.$` are read.
const TEMPLATES: [&str; 6] = [
    "Assign",
    "BatchInput",
    "Credentials",
    "ItemSelector",
    "Parameters",
    "ResultSelector",
];
/// Fields whose states are listed by themselves.
const INSIDE: [&str; 3] = ["Branches", "ItemProcessor", "Iterator"];

/// By the name of the state, wherever it is; states that read none are left out.
pub fn references(definition: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    program(definition, definition["QueryLanguage"] == "JSONata", &mut found);
    found
}

fn program(value: &Value, jsonata: bool, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for (name, state) in value["States"].as_object().into_iter().flatten() {
        let Some(members) = state.as_object() else {
            continue;
        };
        let own = members
            .get("QueryLanguage")
            .map_or(jsonata, |language| language != "JSONPath");
        let mut names = BTreeSet::new();
        for (field, value) in members {
            if INSIDE.contains(&field.as_str()) {
                let branches = value
                    .as_array()
                    .map_or(std::slice::from_ref(value), Vec::as_slice);
                branches.iter().for_each(|branch| program(branch, jsonata, found));
            } else if own {
                queries(value, &mut names);
            } else {
                paths(field, value, &mut names);
            }
        }
        if !names.is_empty() {
            found.entry(name.clone()).or_default().extend(names);
        }
    }
}

/// All queries in a field.
fn queries(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => names.extend(Query::body(text).map(variables).into_iter().flatten()),
        Value::Array(items) => items.iter().for_each(|item| queries(item, names)),
        Value::Object(members) => members.values().for_each(|value| queries(value, names)),
        _ => {}
    }
}

/// A field outside of templates: paths stand in `Variable` and in what ends in `Path`.
fn paths(field: &str, value: &Value, names: &mut BTreeSet<String>) {
    match value {
        // What it holds is text, whatever it looks like.
        _ if field == "Result" => {}
        _ if TEMPLATES.contains(&field) => template(value, names),
        Value::String(text) if field == "Variable" || field.ends_with("Path") => read(text, names),
        Value::Object(members) => inside(members, names),
        Value::Array(items) => items
            .iter()
            .filter_map(Value::as_object)
            .for_each(|item| inside(item, names)),
        _ => {}
    }
}

fn inside(members: &Map<String, Value>, names: &mut BTreeSet<String>) {
    members
        .iter()
        .for_each(|(field, value)| paths(field, value, names));
}

fn template(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(text) if key.ends_with(".$") => read(text, names),
                    value => template(value, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| template(item, names)),
        _ => {}
    }
}

fn read(text: &str, names: &mut BTreeSet<String>) {
    let mut see = |path: &Path| {
        if let Root::Variable(name) = path.root() {
            names.insert(name.clone());
        }
    };
    match Expression::parse(text) {
        Ok(Expression::Path(path)) => see(&path),
        Ok(Expression::Call(call)) => call.paths(&mut see),
        Ok(Expression::Query(_)) | Err(_) => {}
    }
}

/// The variables that an expression reads; none when it cannot be read itself.
fn variables(body: &str) -> BTreeSet<String> {
    let Ok(expression) = jsonata::Expression::parse(body) else {
        return BTreeSet::new();
    };
    let names = expression.variables().filter(|name| *name != "states");
    names.map(str::to_owned).collect()
}
