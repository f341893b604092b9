//! YAML as plain data, for files whose shape serde knows. Scalars mean what YAML 1.2's core schema says: `yes` is text,
//! `0755` a number.

use super::{
    read::Reader,
    yaml::{Node, Value},
};
use crate::Problem;

/// The first document of a file as JSON; an empty one is an empty mapping.
pub fn plain(file: &str, text: &str) -> Result<serde_json::Value, Vec<Problem>> {
    let mut reader = Reader::new(file);
    let root = reader.document(text);
    match reader.problems.is_empty() {
        true => Ok(root.map_or_else(|| serde_json::json!({}), |node| value(&node))),
        false => Err(reader.problems),
    }
}

/// Line and column, from 1, of the value that these keys and positions in lists lead to, or of the last on the way that
/// is there.
pub fn place(text: &str, steps: &[String]) -> Option<(u32, u32)> {
    let root = super::yaml::parse_with_aliases("", text).ok()?.root?;
    let mut node = &root;
    for step in steps {
        let next = match &node.value {
            Value::Sequence(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
            _ => node.get(step),
        };
        let Some(next) = next else { break };
        node = next;
    }
    Some((node.line, node.column))
}

fn value(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Sequence(items) => items.iter().map(value).collect(),
        Value::Mapping(entries) => {
            let key = |key: &Node| key.text().unwrap_or_default().to_owned();
            let entries = entries.iter().map(|(k, v)| (key(k), value(v)));
            serde_json::Value::Object(entries.collect())
        }
        Value::Scalar { text, .. } => scalar(node, text),
    }
}

fn scalar(node: &Node, text: &str) -> serde_json::Value {
    let Some(plain) = node.plain() else {
        return text.into();
    };
    let number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    match plain {
        _ if node.is_null() => serde_json::Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ if !plain.chars().all(number) => plain.into(),
        _ => match (plain.parse::<i64>(), plain.parse::<f64>()) {
            (Ok(whole), _) => whole.into(),
            (Err(_), Ok(number)) if number.is_finite() => number.into(),
            _ => plain.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        let text = "a: 1\nb: '1'\nc: [yes, true, ~, 1.5, -3, 5s, 10.0.0.1, 0.0.0.0:80, e]\nd: {}\n";
        let expected = serde_json::json!({
            "a": 1, "b": "1", "d": {},
            "c": ["yes", true, null, 1.5, -3, "5s", "10.0.0.1", "0.0.0.0:80", "e"],
        });
        assert_eq!(plain("x", text).unwrap(), expected);
        assert_eq!(plain("x", "").unwrap(), serde_json::json!({}));
        assert!(plain("x", "a: 1\na: 2\n").is_err());
        assert!(plain("x", "a: [").is_err());
    }
}
