//! Whether a mocked result is what a service answers.
//!
//! AWS checks against the API models of all its services. Here are those of the calls that state machines make most;
//! results of other calls are not checked. A field that is not known is never wrong.

use super::Mode;
use serde_json::Value;
use std::sync::LazyLock;

/// By `service:action`: the shape of the answer. A text names a scalar; objects have `fields` and `required`, a `list`
/// or `map` of one shape, an `enum`, or a number's `min` and `max`.
static SHAPES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("schema.json")).expect("the shapes are part of the program and JSON")
});

/// Checks the result of a call of `resource`; the error is AWS's sentence.
pub fn check(resource: &str, result: &Value, mode: Mode) -> Result<(), String> {
    let call = resource
        .split_once(":states:::")
        .map(|(_, call)| call.strip_prefix("aws-sdk:").unwrap_or(call));
    match (mode, call.and_then(|call| SHAPES.get(call))) {
        (Mode::None, _) | (_, None) => Ok(()),
        (mode, Some(shape)) => fits("", shape, result, mode == Mode::Strict),
    }
}

fn fits(name: &str, shape: &Value, value: &Value, strict: bool) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let must = |fits: bool, what: &str| match fits {
        true => Ok(()),
        false => Err(format!("Field '{name}' must be {what}")),
    };
    match shape.as_str() {
        Some("number") => return must(value.is_number(), "a number"),
        Some("boolean") => return must(value.is_boolean(), "a boolean"),
        Some("string") => return must(value.is_string(), "a string"),
        Some(_) => return Ok(()),
        None => {}
    }
    if let Some(words) = shape["enum"].as_array() {
        must(value.is_string(), "a string")?;
        return match words.contains(value) {
            true => Ok(()),
            false => Err(format!("Field '{name}' is not an expected value")),
        };
    }
    if shape.get("min").or_else(|| shape.get("max")).is_some() {
        must(value.is_number(), "a number")?;
        let number = value.as_f64().unwrap_or_default();
        if shape["min"].as_f64().is_some_and(|min| number < min) {
            return Err(format!("Field '{name}' is less than the minimum value"));
        }
        if shape["max"].as_f64().is_some_and(|max| number > max) {
            return Err(format!("Field '{name}' exceeds the maximum value"));
        }
        return Ok(());
    }
    if let Some(inner) = shape.get("list") {
        must(value.is_array(), "an array")?;
        let mut items = value.as_array().into_iter().flatten();
        return items.try_for_each(|item| fits(name, inner, item, strict));
    }
    must(value.is_object(), "an object")?;
    if let Some(inner) = shape.get("map") {
        let mut members = value.as_object().into_iter().flatten();
        return members.try_for_each(|(key, member)| fits(key, inner, member, strict));
    }
    object(shape, value, strict)
}

fn object(shape: &Value, value: &Value, strict: bool) -> Result<(), String> {
    let required = shape["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    if let Some(name) = required.filter(|_| strict).find(|name| value.get(name).is_none()) {
        return Err(format!("Required field '{name}' is missing"));
    }
    let mut fields = shape["fields"].as_object().into_iter().flatten();
    fields.try_for_each(|(name, shape)| match value.get(name) {
        Some(value) => fits(name, shape, value, strict),
        None => Ok(()),
    })
}
