//! How large a JSON value is, without writing it.

use crate::limit;
use serde_json::Value;

/// Bytes of the compact JSON text of `value`, or `None` when it is deeper than `depth` or longer than `bytes`, or a number
/// of it longer than [`limit::NUMBER`].
pub fn within(value: &Value, bytes: usize, depth: usize) -> Option<usize> {
    let mut left = bytes;
    charge(value, &mut left, depth)?;
    Some(bytes - left)
}

/// Whether `value` is nested at most `depth` deep, with no number that takes long to read.
pub fn modest(value: &Value, depth: usize) -> bool {
    let below = depth.checked_sub(1);
    let inside = |item: &Value| below.is_some_and(|below| modest(item, below));
    match value {
        Value::Array(items) => below.is_some() && items.iter().all(inside),
        Value::Object(members) => below.is_some() && members.values().all(inside),
        Value::Number(number) => number.as_str().len() <= limit::NUMBER,
        _ => true,
    }
}

fn charge(value: &Value, left: &mut usize, depth: usize) -> Option<()> {
    match value {
        Value::Null => take(left, 4),
        Value::Bool(flag) => take(left, if *flag { 4 } else { 5 }),
        Value::Number(number) if number.as_str().len() > limit::NUMBER => None,
        Value::Number(number) => take(left, number.as_str().len()),
        Value::String(text) => take(left, quoted(text)),
        Value::Array(items) => {
            let depth = depth.checked_sub(1)?;
            take(left, 2 + items.len().saturating_sub(1))?;
            items.iter().try_for_each(|item| charge(item, left, depth))
        }
        Value::Object(members) => {
            let depth = depth.checked_sub(1)?;
            take(left, 2 + members.len().saturating_sub(1))?;
            members.iter().try_for_each(|(key, item)| {
                take(left, quoted(key) + 1)?;
                charge(item, left, depth)
            })
        }
    }
}

fn take(left: &mut usize, bytes: usize) -> Option<()> {
    *left = left.checked_sub(bytes)?;
    Some(())
}

fn quoted(text: &str) -> usize {
    let escapes: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
            0..=0x1f => 5,
            _ => 0,
        })
        .sum();
    text.len() + escapes + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts_what_serde_writes() {
        for value in [
            json!(null),
            json!([true, false, 1.0, -3, 1e300, "a\"\\\n\u{1}é"]),
            json!({"a": {"b": [], "c": {}}, "d\t": "x"}),
        ] {
            assert_eq!(
                within(&value, 1_000, 10),
                Some(value.to_string().len()),
                "{value}"
            );
        }
    }

    #[test]
    fn stops_at_the_limits() {
        assert_eq!(within(&json!("abc"), 4, 10), None);
        assert_eq!(within(&json!([[[]]]), 100, 2), None);
        assert_eq!(within(&json!([[[]]]), 100, 3), Some(6));
    }
}
