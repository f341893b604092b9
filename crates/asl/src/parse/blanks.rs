//! Warnings about texts of JSONata states that look like expressions and are none, because of the blanks around them.

use super::walk;
use crate::check::{Code, Report, join};
use serde_json::Value;

/// Programs inside, whose states are seen by themselves.
const INNER: [&str; 4] = ["Branches", "Comment", "ItemProcessor", "Iterator"];

pub fn advise(definition: &Value, report: &mut Report) {
    walk::states(definition, &mut |place| {
        if place.is_jsonata {
            for (name, value) in place.state.as_object().into_iter().flatten() {
                if !INNER.contains(&name.as_str()) {
                    texts(value, &join(place.pointer, name), report);
                }
            }
        }
    });
}

fn texts(value: &Value, pointer: &str, report: &mut Report) {
    match value {
        Value::String(text) => {
            let bare = text.trim();
            if bare.len() < text.len() && bare.starts_with("{%") && bare.ends_with("%}") {
                let message =
                    "A text with blanks around {% … %} is a text; an expression has nothing around it.";
                report.add(pointer, Code::NoExpression, message);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                texts(item, &join(pointer, &at.to_string()), report);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                texts(member, &join(pointer, name), report);
            }
        }
        _ => {}
    }
}
