//! The JSON Schema of `vend.yaml`, for editors, made from the grammar.

use serde_json::{Map, Value, json};

use super::{
    Base,
    grammar::{ENVIRONMENT, Key, Kind, Section, TOP},
    ports::MOST,
};

/// JSON Schema, draft 2020-12, of the whole file.
pub fn schema() -> Value {
    let mut schema = section(&TOP);
    let top = schema.as_object_mut().expect("a section is an object");
    top.insert(
        "$schema".into(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    top.insert("title".into(), json!("vend.yaml"));
    top.insert("type".into(), json!("object"));
    top.insert("required".into(), json!(["app"]));
    schema
}

/// A section may be left empty, and an environment takes one away with `null`.
fn section(section: &Section) -> Value {
    let properties: Map<String, Value> = section
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), described(key)))
        .collect();
    json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties })
}

fn described(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    schema
        .as_object_mut()
        .expect("every kind is an object")
        .insert("description".into(), json!(key.about));
    schema
}

fn kind(kind: &Kind) -> Value {
    let text = json!({ "type": "string", "minLength": 1 });
    match kind {
        Kind::Text | Kind::Path => text,
        Kind::Branch => json!({ "type": ["string", "number", "boolean"] }),
        Kind::Paths | Kind::Texts => json!({ "anyOf": [text, { "type": "array", "items": text }] }),
        Kind::Number(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Duration => {
            json!({ "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2 })
        }
        Kind::Percent => json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 100 },
            { "type": "string", "pattern": "^[0-9]+([.][0-9]+)? ?%?$" },
        ] }),
        Kind::Slower => json!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 10_000 },
            { "type": "string", "pattern": "^[0-9]+ ?%?$" },
        ] }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::WordOr(words, inner) => json!({ "anyOf": [{ "enum": words }, section(inner)] }),
        Kind::Base => json!({ "anyOf": [
            { "enum": Base::NAMES },
            { "type": "string", "pattern": "^(oci|tar|layout):.+$" },
        ] }),
        Kind::Engine => json!({ "enum": ["embedded"] }),
        Kind::MinimumHealthy => json!({ "anyOf": [
            { "enum": ["one-at-a-time", "half-at-a-time", "all-at-once"] },
            { "type": "string", "pattern": "^[0-9]+ ?%$" },
            { "type": "integer", "minimum": 0 },
        ] }),
        Kind::Healthy => json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9]+ ?%$" },
            { "type": "integer", "minimum": 0 },
        ] }),
        Kind::Codes => {
            let codes = json!({ "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 599 },
                { "type": "string", "pattern": "^[0-9]{1,3}(-[0-9]{1,3})?( *, *[0-9]{1,3}(-[0-9]{1,3})?)*$" },
            ] });
            json!({ "anyOf": [codes, { "type": "array", "items": codes, "minItems": 1 }] })
        }
        Kind::Variables => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        }),
        Kind::Section(inner) => section(inner),
        Kind::List(inner) => {
            let mut item = section(inner);
            item["type"] = json!("object");
            json!({ "type": ["array", "null"], "items": item, "maxItems": MOST })
        }
        Kind::Environments => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "maxLength": 40 },
            "additionalProperties": section(&ENVIRONMENT),
        }),
        Kind::Later => json!({ "not": {} }),
    }
}
