//! Warnings: what can be run, and is probably not what was meant. Only for states that speak JSONPath.

use crate::check::{Code, Report, join};
use serde_json::{Map, Value};

/// Fields that hold payload templates.
const TEMPLATES: [&str; 5] = [
    "Assign",
    "ItemSelector",
    "Parameters",
    "ResultSelector",
    "BatchInput",
];
/// Fields whose text is what it is, whatever it looks like.
const PLAIN: [&str; 4] = ["Comment", "Variable", "Result", "Next"];

pub fn give(definition: &Value, report: &mut Report) {
    if definition["QueryLanguage"] != "JSONata" {
        program(definition, "", report);
    }
}

fn program(value: &Value, pointer: &str, report: &mut Report) {
    for (name, state) in value["States"].as_object().into_iter().flatten() {
        let place = join(&join(pointer, "States"), name);
        let Some(members) = state.as_object() else {
            continue;
        };
        for name in ["ItemProcessor", "Iterator"] {
            program(&state[name], &join(&place, name), report);
        }
        for (at, branch) in state["Branches"].as_array().into_iter().flatten().enumerate() {
            program(branch, &join(&join(&place, "Branches"), &at.to_string()), report);
        }
        if members
            .get("QueryLanguage")
            .is_none_or(|language| language == "JSONPath")
        {
            fields(members, &place, report);
            result(state, &place, report);
        }
    }
}

/// The fields of a state, a rule, a catcher or a part of a Map.
fn fields(members: &Map<String, Value>, pointer: &str, report: &mut Report) {
    for (name, value) in members {
        let place = join(pointer, name);
        match value {
            _ if TEMPLATES.contains(&name.as_str()) => template(value, &place, report),
            _ if ["Branches", "ItemProcessor", "Iterator"].contains(&name.as_str()) => {}
            Value::String(text)
                if is_path(text) && !name.ends_with("Path") && !PLAIN.contains(&name.as_str()) =>
            {
                let message = "Field value looks like a path, but field name does not end with 'Path'.";
                report.add(&place, Code::NoPath, message);
            }
            Value::Object(inner) if name != "Result" => fields(inner, &place, report),
            Value::Array(items) if name != "Result" => {
                for (at, item) in items.iter().enumerate() {
                    if let Value::Object(inner) = item {
                        fields(inner, &join(&place, &at.to_string()), report);
                    }
                }
            }
            _ => {}
        }
    }
}

fn template(value: &Value, pointer: &str, report: &mut Report) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let place = join(pointer, key);
                match value {
                    Value::String(text) if !key.ends_with(".$") && (is_path(text) || is_call(text)) => {
                        let message = "No .$ on a field that appears to be a JSONPath or Intrinsic Function.";
                        report.add(&place, Code::NoDollar, message);
                    }
                    value => template(value, &place, report),
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                template(item, &join(pointer, &at.to_string()), report);
            }
        }
        _ => {}
    }
}

fn result(state: &Value, pointer: &str, report: &mut Report) {
    if state["Type"] == "Pass" && state.get("Result").is_some_and(is_dynamic) {
        let message = "Attempt to use a path in the result of a pass state.";
        report.add(&join(pointer, "Result"), Code::PassResultIsStatic, message);
    }
}

fn is_dynamic(value: &Value) -> bool {
    match value {
        Value::String(text) => is_path(text) || is_call(text),
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| key.ends_with(".$") || is_dynamic(value)),
        Value::Array(items) => items.iter().any(is_dynamic),
        _ => false,
    }
}

fn is_path(text: &str) -> bool {
    text == "$" || text == "$$" || ["$.", "$$.", "$["].iter().any(|start| text.starts_with(start))
}

fn is_call(text: &str) -> bool {
    text.starts_with("States.") && text.ends_with(')')
}
