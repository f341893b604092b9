//! The functions on strings and JSON text.

use super::{Answer, Failure};
use crate::scope::Budget;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonata::json;
use serde_json::Value;
use sha2::Digest;
use std::fmt::Write;

/// Characters that Base64 and Hash accept.
const CHARACTERS: usize = 10_000;

/// Replaces each `{}` by the next value.
pub fn format(pattern: &str, values: &[Value], budget: &Budget) -> Answer {
    let mut text = String::new();
    let mut values = values.iter();
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => text.push_str(&escape(rest.next())),
            '{' => {
                if rest.next() != Some('}') {
                    return Err("a '{' in the template is not followed by '}'".into());
                }
                let before = text.len();
                display(
                    values.next().ok_or("there are more '{}' than arguments")?,
                    &mut text,
                );
                budget.bytes(text.len() - before)?;
            }
            '}' => return Err("a '}' in the template does not follow '{'".into()),
            other => text.push(other),
        }
    }
    if values.next().is_some() {
        return Err("there are more arguments than '{}'".into());
    }
    Ok(Value::String(text))
}

/// A value as Java prints it: `{a=1, b=[x, y]}`.
fn display(value: &Value, text: &mut String) {
    match value {
        Value::String(value) => text.push_str(value),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                display(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            text.push('{');
            for (at, (key, item)) in members.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                text.push_str(key);
                text.push('=');
                display(item, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

pub fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(next) = rest.next() {
        if next == '\\' {
            text.push_str(&escape(rest.next()))
        } else {
            text.push(next)
        }
    }
    text
}

fn escape(next: Option<char>) -> String {
    match next {
        Some(next @ ('\'' | '{' | '}' | '\\')) => next.to_string(),
        Some(other) => format!("\\{other}"),
        None => "\\".into(),
    }
}

pub fn encode(value: &Value) -> Answer {
    Ok(STANDARD.encode(short(value)?).into())
}

pub fn decode(value: &Value) -> Answer {
    let bytes = STANDARD
        .decode(short(value)?)
        .map_err(|_| "the argument is not Base64")?;
    String::from_utf8(bytes)
        .map(Value::String)
        .map_err(|_| "the decoded bytes are not UTF-8".into())
}

pub fn hash(value: &Value, algorithm: &Value) -> Answer {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() > CHARACTERS {
        return Err(format!("the data has more than {CHARACTERS} characters").into());
    }
    let bytes = text.as_bytes();
    let digest = match string(algorithm)? {
        "MD5" => md5::Md5::digest(bytes).to_vec(),
        "SHA-1" => sha1::Sha1::digest(bytes).to_vec(),
        "SHA-256" => sha2::Sha256::digest(bytes).to_vec(),
        "SHA-384" => sha2::Sha384::digest(bytes).to_vec(),
        "SHA-512" => sha2::Sha512::digest(bytes).to_vec(),
        other => return Err(format!("there is no hash algorithm '{other}'").into()),
    };
    Ok(Value::String(hex(&digest)))
}

pub fn merge(left: Value, right: Value, deep: &Value) -> Answer {
    match deep {
        Value::Bool(false) => {}
        Value::Bool(true) => return Err("deep merging is not supported".into()),
        _ => return Err("the third argument must be a boolean".into()),
    }
    let (Value::Object(mut left), Value::Object(right)) = (left, right) else {
        return Err("the first two arguments must be objects".into());
    };
    left.extend(right);
    Ok(Value::Object(left))
}

/// Splits at each character of `delimiters`; empty pieces are left out.
pub fn split(value: &Value, delimiters: &Value) -> Answer {
    let delimiters: Vec<char> = string(delimiters)?.chars().collect();
    let text = string(value)?;
    Ok(text
        .split(&delimiters[..])
        .filter(|piece| !piece.is_empty())
        .map(Value::from)
        .collect())
}

pub fn parse(value: &Value) -> Answer {
    json::read(string(value)?).map_err(|error| format!("the argument is not JSON: {error}").into())
}

/// A version 4 UUID of random bytes.
pub fn uuid(mut bytes: [u8; 32]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes[..16]);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn string(value: &Value) -> Result<&str, Failure> {
    value
        .as_str()
        .ok_or_else(|| "an argument must be a string".into())
}

fn short(value: &Value) -> Result<&str, Failure> {
    let text = string(value)?;
    if text.chars().count() > CHARACTERS {
        return Err(format!("the argument has more than {CHARACTERS} characters").into());
    }
    Ok(text)
}
