//! Templates as YAML that people read: comments, short intrinsic functions, plain text where it is safe.
//!
//! The writer is our own because the short forms (`!Ref`, `!Sub`) are tags, which writers of data do not make. What it
//! writes is read back by cfn-lint's and checkov's readers in the tests.

use std::{fmt::Write as _, iter::repeat_n};

use serde_json::Value;

use super::template::Template;

/// Wider than this, a list stands in lines of its own.
const WIDTH: usize = 100;

/// The short form of an intrinsic function.
fn tag(name: &str) -> Option<&'static str> {
    Some(match name {
        "Ref" => "!Ref",
        "Fn::GetAtt" => "!GetAtt",
        "Fn::Sub" => "!Sub",
        "Fn::ImportValue" => "!ImportValue",
        "Fn::Join" => "!Join",
        "Fn::Select" => "!Select",
        "Fn::Split" => "!Split",
        "Fn::GetAZs" => "!GetAZs",
        "Fn::Base64" => "!Base64",
        "Fn::If" => "!If",
        "Fn::Equals" => "!Equals",
        "Fn::And" => "!And",
        "Fn::Or" => "!Or",
        "Fn::Not" => "!Not",
        _ => return None,
    })
}

pub(super) fn template(template: &Template) -> String {
    let mut out = String::with_capacity(4096 + template.resources.len() * 700);
    out.push_str("AWSTemplateFormatVersion: \"2010-09-09\"\n");
    entry(&mut out, "Description", &Value::from(template.about.as_str()), 0);
    if !template.metadata().is_empty() {
        entry(
            &mut out,
            "Metadata",
            &Value::Object(template.metadata().clone()),
            0,
        );
    }
    for (name, part) in [
        ("Parameters", &template.parameters),
        ("Conditions", &template.conditions),
    ] {
        section(&mut out, name, part);
    }
    out.push_str("\nResources:\n");
    for resource in &template.resources {
        comment(&mut out, &resource.about);
        key(&mut out, &resource.id, 2);
        out.push('\n');
        for (name, value) in resource.fields() {
            entry(&mut out, name, &value, 4);
        }
    }
    section(&mut out, "Outputs", &template.outputs);
    out
}

fn section(out: &mut String, name: &str, part: &[(String, Value)]) {
    if part.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{name}:");
    for (id, value) in part {
        entry(out, id, value, 2);
    }
}

fn comment(out: &mut String, about: &str) {
    out.push('\n');
    for line in about.lines() {
        let _ = writeln!(out, "  # {line}");
    }
}

/// `key: value`, whatever the value is, with its end of line.
fn entry(out: &mut String, name: &str, value: &Value, depth: usize) {
    key(out, name, depth);
    below(out, value, depth);
}

fn key(out: &mut String, name: &str, depth: usize) {
    indent(out, depth);
    scalar(out, name);
    out.push(':');
}

fn indent(out: &mut String, depth: usize) {
    out.extend(repeat_n(' ', depth));
}

/// What stands after a `key:` or a `-`, whose column is `depth`.
fn below(out: &mut String, value: &Value, depth: usize) {
    if let Some((name, tag, operand)) = tagged(value) {
        return match tagged(operand) {
            // Two tags cannot stand on one value.
            Some(_) => {
                out.push('\n');
                entry(out, name, operand, depth + 2);
            }
            None => {
                out.push(' ');
                out.push_str(tag);
                below(out, operand, depth);
            }
        };
    }
    match value {
        Value::Object(fields) if fields.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(fields) => {
            out.push('\n');
            for (key, value) in fields {
                entry(out, key, value, depth + 2);
            }
        }
        Value::Array(items) => match flow(items) {
            Some(line) => {
                let _ = writeln!(out, " {line}");
            }
            None => {
                out.push('\n');
                items.iter().for_each(|value| item(out, value, depth + 2));
            }
        },
        Value::String(text) if is_block(text) => block(out, text, depth + 2),
        simple => {
            out.push(' ');
            leaf(out, simple);
            out.push('\n');
        }
    }
}

/// A line of a list. A mapping begins on the line of its dash.
fn item(out: &mut String, value: &Value, depth: usize) {
    indent(out, depth);
    out.push('-');
    match value {
        Value::Object(fields) if !fields.is_empty() && tagged(value).is_none() => {
            for (index, (name, value)) in fields.iter().enumerate() {
                if index == 0 {
                    key(out, name, 1);
                    below(out, value, depth + 2);
                } else {
                    entry(out, name, value, depth + 2);
                }
            }
        }
        other => below(out, other, depth),
    }
}

/// An intrinsic function's name, its short form and what it is applied to, if the value is one.
fn tagged(value: &Value) -> Option<(&str, &'static str, &Value)> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    let (name, operand) = fields.iter().next()?;
    Some((name, tag(name)?, operand))
}

/// A short list of simple values, in one line.
fn flow(items: &[Value]) -> Option<String> {
    let mut line = String::from("[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            line.push_str(", ");
        }
        let simple = match tagged(item) {
            Some((_, tag, operand)) => {
                line.push_str(tag);
                line.push(' ');
                operand
            }
            None => item,
        };
        match simple {
            Value::Object(_) => return None,
            Value::Array(inner) => {
                tagged(item)?;
                line.push_str(&flow(inner)?);
            }
            Value::String(text) if text.contains(':') || is_block(text) => quoted(&mut line, text),
            simple => leaf(&mut line, simple),
        }
        if line.len() > WIDTH {
            return None;
        }
    }
    line.push(']');
    Some(line)
}

fn leaf(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => scalar(out, text),
        other => drop(write!(out, "{other}")),
    }
}

fn scalar(out: &mut String, text: &str) {
    match is_plain(text) {
        true => out.push_str(text),
        false => quoted(out, text),
    }
}

/// JSON's strings are YAML's, in double quotes.
fn quoted(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("text is a value"));
}

/// Text that every reader of YAML 1.1 and 1.2 takes for just this text, without quotes.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan"];
    let Some(first) = text.bytes().next() else {
        return false;
    };
    let mut following = text.bytes().skip(1);
    let mut safe = |byte: u8| {
        let next = following.next();
        match byte {
            b':' => !matches!(next, None | Some(b' ')),
            b' ' => next.is_some(),
            b'/' | b'_' | b'.' | b'-' | b'+' | b'=' | b'(' | b')' | b'*' | b'?' | b';' | b'<' | b'>' => true,
            other => other.is_ascii_alphanumeric(),
        }
    };
    (first.is_ascii_alphabetic() || first == b'/' || first == b'_')
        && text.bytes().all(&mut safe)
        && (text.len() > 5 || !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)))
}

/// Text of several lines that a block keeps byte by byte.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n'])
        && text.lines().all(|line| !line.ends_with([' ', '\t']))
        && text.chars().all(|c| c == '\n' || !c.is_control())
        && !text.ends_with("\n\n")
}

fn block(out: &mut String, text: &str, depth: usize) {
    out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in text.lines() {
        match line {
            "" => out.push('\n'),
            line => {
                indent(out, depth);
                out.push_str(line);
                out.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: Value, expected: &str) {
        let mut out = String::new();
        entry(&mut out, "k", &value, 0);
        assert_eq!(out, expected);
    }

    #[test]
    fn text_is_quoted_where_a_reader_could_take_it_for_something_else() {
        check(json!("plain text"), "k: plain text\n");
        check(json!("2012-10-17"), "k: \"2012-10-17\"\n");
        check(json!("yes"), "k: \"yes\"\n");
        check(json!("a: b"), "k: \"a: b\"\n");
        check(json!("AWS::EC2::VPC"), "k: AWS::EC2::VPC\n");
        check(json!(""), "k: \"\"\n");
        check(json!("a #b"), "k: \"a #b\"\n");
        check(json!("1.5"), "k: \"1.5\"\n");
        check(json!("a\"b\\c"), "k: \"a\\\"b\\\\c\"\n");
        check(json!(true), "k: true\n");
    }

    #[test]
    fn functions_are_short_and_never_two_on_one_value() {
        check(json!({ "Ref": "Vpc" }), "k: !Ref Vpc\n");
        check(
            json!({ "Fn::Select": [0, { "Fn::GetAZs": "" }] }),
            "k: !Select [0, !GetAZs \"\"]\n",
        );
        check(
            json!({ "Fn::Base64": { "Fn::Sub": "a\nb\n" } }),
            "k:\n  Fn::Base64: !Sub |\n    a\n    b\n",
        );
        check(
            json!([{ "Fn::Base64": { "Ref": "A" } }]),
            "k:\n  -\n    Fn::Base64: !Ref A\n",
        );
        check(
            json!({ "Fn::If": ["C", { "a": 1 }, { "Ref": "AWS::NoValue" }] }),
            "k: !If\n  - C\n  - a: 1\n  - !Ref AWS::NoValue\n",
        );
        check(json!([{ "Fn::Sub": "${A}" }]), "k: [!Sub \"${A}\"]\n");
    }

    #[test]
    fn blocks_keep_every_byte() {
        check(json!("a\n  b\n"), "k: |\n  a\n    b\n");
        check(json!("a\n\nb"), "k: |-\n  a\n\n  b\n");
        check(json!("a \nb"), "k: \"a \\nb\"\n");
    }
}
