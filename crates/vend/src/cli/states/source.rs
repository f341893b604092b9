//! What people hand over: files, standard input, or JSON right on the command line.

use std::{
    fs::File,
    io::{Read as _, stdin},
    path::Path,
};

use serde_json::{Value, json};

use super::super::Failure;

/// Bytes that are read of one file.
const MOST: u64 = 16 * 1024 * 1024;

/// The text of a file; `-` is standard input.
pub fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        stdin().lock().take(MOST + 1).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MOST + 1).read_to_string(&mut text))
    };
    // What was asked for was not done: not to be taken for an execution that failed.
    let unusable = |error: std::io::Error| {
        Failure::usage(format!("{} cannot be used", path.display())).cause(error.to_string())
    };
    read.map_err(unusable)?;
    if text.len() as u64 > MOST {
        return Err(unusable(std::io::Error::other(format!(
            "it is longer than {MOST} bytes"
        ))));
    }
    Ok(text)
}

/// The text of a file, or `given` itself when it starts like JSON.
pub fn text_or_json(given: &str) -> Result<String, Failure> {
    let path = Path::new(given);
    let looks_like_json = given.trim_start().starts_with(['{', '[', '"']) || asl::json::read(given).is_ok();
    match looks_like_json && !path.is_file() {
        true => Ok(given.to_owned()),
        false => text(path),
    }
}

/// A value from a file or from the command line; `{}` when there is none, as for AWS.
pub fn value(what: &str, given: Option<&str>) -> Result<Value, Failure> {
    match given {
        None => Ok(json!({})),
        Some(given) => parsed(what, &text_or_json(given)?),
    }
}

pub fn parsed(what: &str, text: &str) -> Result<Value, Failure> {
    asl::json::read(text).map_err(|error| {
        Failure::usage(format!("the {what} is not JSON"))
            .cause(error.to_string())
            .next(format!(
                "give a file, or JSON in quotes: --{what} '{{\"key\": 1}}'"
            ))
    })
}

/// A definition of a template as CloudFormation would hand it on: something stands in the place of each `${Name}`,
/// `${Name.Attribute}` and `${AWS::Name}`, which only a stack knows. No character moves, so places stay what they are.
pub fn filled(text: &str) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        filled.push_str(before);
        let length = after.find('}').map_or(0, |end| end + 1);
        if !is_substitution(&after[..length]) {
            filled.push_str("${");
            rest = &after[2..];
            continue;
        }
        // Alone in a text it may be a whole ARN: no word would do for that.
        let is_whole = before.ends_with('"') && after[length..].starts_with('"');
        filled.push_str(if is_whole { "x:" } else { "xx" });
        filled.extend(std::iter::repeat_n('x', length - 2));
        rest = &after[length..];
    }
    filled + rest
}

/// `${Name}`; JSONata's `${name: value}` is none.
fn is_substitution(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_plain)
    };
    name.is_some_and(|name| is_name(name.strip_prefix("AWS::").unwrap_or(name)))
}

/// The name of a file without its endings: `orders` of `machines/orders.asl.json`.
pub fn stem(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_fills_in_is_stood_for_and_nothing_moves() {
        for (text, wanted) in [
            (
                "\"arn:${AWS::Partition}:states:::x\"",
                "\"arn:xxxxxxxxxxxxxxxxx:states:::x\"",
            ),
            ("\"${Function.Arn}\"", "\"x:xxxxxxxxxxxxx\""),
            ("a ${A} ü ${B", "a xxxx ü ${B"),
            (
                "{% ${name: 1} %} ${} ${a b} ${1}",
                "{% ${name: 1} %} ${} ${a b} ${1}",
            ),
            ("${${A}", "${xxxx"),
        ] {
            assert_eq!(filled(text), wanted);
            assert_eq!(wanted.len(), text.len());
        }
    }
}
