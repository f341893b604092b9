//! Templates as YAML that people read: comments, short intrinsic functions, plain text where it is safe.
//!
//! The writer is our own because the short forms (`!Ref`, `!Sub`) are tags, which writers of data do not make. What it
//! writes is read back by cfn-lint's and checkov's readers in the tests.

use std::fmt::Write as _;

use serde_json::Value;

use super::template::Template;

/// Wider than this, a list stands in lines of its own.
const WIDTH: usize = 100;

const TAGS: [(&str, &str); 14] = [
    ("Ref", "!Ref"),
    ("Fn::GetAtt", "!GetAtt"),
    ("Fn::Sub", "!Sub"),
    ("Fn::ImportValue", "!ImportValue"),
    ("Fn::Join", "!Join"),
    ("Fn::Select", "!Select"),
    ("Fn::Split", "!Split"),
    ("Fn::GetAZs", "!GetAZs"),
    ("Fn::Base64", "!Base64"),
    ("Fn::If", "!If"),
    ("Fn::Equals", "!Equals"),
    ("Fn::And", "!And"),
    ("Fn::Or", "!Or"),
    ("Fn::Not", "!Not"),
];

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
        entry(&mut out, &resource.id, &resource.body(), 2);
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
fn entry(out: &mut String, key: &str, value: &Value, depth: usize) {
    let _ = write!(out, "{:depth$}", "");
    scalar(out, key);
    out.push(':');
    below(out, value, depth);
}

/// What stands after a `key:` or a `-`, whose column is `depth`.
fn below(out: &mut String, value: &Value, depth: usize) {
    if let Some((tag, operand)) = tagged(value) {
        let _ = write!(out, " {tag}");
        return match tagged(operand) {
            // Two tags cannot stand on one value.
            Some(_) => {
                out.truncate(out.len() - tag.len() - 1);
                let (name, _) = TAGS
                    .iter()
                    .find(|(_, short)| *short == tag)
                    .expect("it was found there");
                let _ = write!(out, "\n{:1$}{name}:", "", depth + 2);
                below(out, operand, depth + 2);
            }
            None => below(out, operand, depth),
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
    let _ = write!(out, "{:depth$}-", "");
    match value {
        Value::Object(fields) if !fields.is_empty() && tagged(value).is_none() => {
            for (index, (key, value)) in fields.iter().enumerate() {
                if index == 0 {
                    out.push(' ');
                    scalar(out, key);
                    out.push(':');
                    below(out, value, depth + 2);
                } else {
                    entry(out, key, value, depth + 2);
                }
            }
        }
        other => below(out, other, depth),
    }
}

/// The short form of an intrinsic function, if the value is one.
fn tagged(value: &Value) -> Option<(&'static str, &Value)> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    let (key, operand) = fields.iter().next()?;
    let (_, tag) = TAGS.iter().find(|(name, _)| name == key)?;
    Some((tag, operand))
}

/// A short list of simple values, in one line.
fn flow(items: &[Value]) -> Option<String> {
    let mut line = String::from("[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            line.push_str(", ");
        }
        let simple = match tagged(item) {
            Some((tag, operand)) => {
                let _ = write!(line, "{tag} ");
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
    let _ = write!(out, "{}", Value::from(text));
}

/// Text that every reader of YAML 1.1 and 1.2 takes for just this text, without quotes.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan"];
    let Some(first) = text.bytes().next() else {
        return false;
    };
    let number = first.is_ascii_digit() || b"+-.".contains(&first);
    let colon = |(at, _): (usize, &str)| text[at + 1..].is_empty() || text[at + 1..].starts_with(' ');
    (first.is_ascii_alphanumeric() || first == b'/' || first == b'_')
        && !number
        && !text.ends_with(' ')
        && !text.contains(" #")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b" /_.:-+=()*?;<>".contains(&b))
        && !text.match_indices(':').any(colon)
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
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
            line => drop(writeln!(out, "{:depth$}{line}", "")),
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
