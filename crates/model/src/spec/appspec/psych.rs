//! What Ruby makes of a YAML node: the agent reads appspecs with Psych, which follows YAML 1.1.

use serde_json::{Value as Json, json};

use crate::spec::yaml::{Node, Style, Value};

/// A scalar as Psych reads it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    /// A class that safe loading refuses: `Date`, `Time`, `Symbol`.
    Refused(&'static str),
}

/// `None` for lists and mappings.
pub(super) fn scalar(node: &Node) -> Option<Scalar> {
    let Value::Scalar { text, style } = &node.value else {
        return None;
    };
    let read = match (style, node.tag.as_deref()) {
        (Style::Plain, None) => plain(text),
        (_, None) => Scalar::Text(text.clone()),
        (_, Some(tag)) if tag.ends_with("!str") || tag == "!" => Scalar::Text(text.clone()),
        (_, Some(_)) => plain(text),
    };
    Some(read)
}

/// The first class in the tree that safe loading refuses, with its node.
pub(super) fn refused(node: &Node) -> Option<(&Node, &'static str)> {
    match &node.value {
        Value::Scalar { .. } => match scalar(node) {
            Some(Scalar::Refused(class)) => Some((node, class)),
            _ => None,
        },
        Value::Sequence(items) => items.iter().find_map(refused),
        Value::Mapping(entries) => entries
            .iter()
            .find_map(|(key, value)| refused(key).or_else(|| refused(value))),
    }
}

/// Ruby's `to_s`.
pub(super) fn to_s(node: &Node) -> String {
    match scalar(node) {
        Some(Scalar::Nil) => String::new(),
        Some(Scalar::Bool(value)) => value.to_string(),
        Some(Scalar::Int(value)) => value.to_string(),
        Some(Scalar::Float(value)) => float(value),
        Some(Scalar::Text(text)) => text,
        Some(Scalar::Refused(_)) => node.text().unwrap_or_default().to_owned(),
        None => inspect(node),
    }
}

/// Ruby's `inspect`, as Ruby 3.1 writes it.
pub(super) fn inspect(node: &Node) -> String {
    match (&node.value, scalar(node)) {
        (_, Some(Scalar::Nil)) => "nil".to_owned(),
        (_, Some(Scalar::Text(text))) => format!("{text:?}"),
        (Value::Sequence(items), _) => {
            format!("[{}]", items.iter().map(inspect).collect::<Vec<_>>().join(", "))
        }
        (Value::Mapping(entries), _) => {
            let entries = entries
                .iter()
                .map(|(key, value)| format!("{}=>{}", inspect(key), inspect(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        _ => to_s(node),
    }
}

/// Everything but `nil` and `false` is true.
pub(super) fn truthy(node: &Node) -> bool {
    !matches!(scalar(node), Some(Scalar::Nil | Scalar::Bool(false)))
}

pub(super) fn json(node: &Node) -> Json {
    match scalar(node) {
        Some(Scalar::Nil) => Json::Null,
        Some(Scalar::Bool(value)) => json!(value),
        Some(Scalar::Int(value)) => {
            i64::try_from(value).map_or_else(|_| json!(value.to_string()), Json::from)
        }
        Some(Scalar::Float(value)) => json!(value),
        Some(Scalar::Text(_) | Scalar::Refused(_)) => json!(to_s(node)),
        None => match &node.value {
            Value::Sequence(items) => items.iter().map(json).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|(key, value)| (to_s(key), json(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Scalar { .. } => Json::Null,
        },
    }
}

/// Ruby's `to_i` of a text: leading digits, else 0.
pub(super) fn to_i(text: &str) -> i128 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits: String = digits
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '_')
        .filter(|c| *c != '_')
        .take(30)
        .collect();
    sign * digits.parse::<i128>().unwrap_or(0)
}

fn float(value: f64) -> String {
    let size = value.abs();
    match () {
        () if value.is_nan() => "NaN".to_owned(),
        () if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        () if size != 0.0 && !(1e-4..1e16).contains(&size) => {
            let text = format!("{value:e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            let point = if digits.contains('.') { "" } else { ".0" };
            let power: i32 = power.parse().unwrap_or(0);
            format!(
                "{digits}{point}e{}{:02}",
                if power < 0 { '-' } else { '+' },
                power.abs()
            )
        }
        () if value.fract() == 0.0 => format!("{value:.1}"),
        () => value.to_string(),
    }
}

/// Psych's `ScalarScanner#tokenize`, in its order.
fn plain(text: &str) -> Scalar {
    let owned = || Scalar::Text(text.to_owned());
    if text.is_empty() {
        return Scalar::Nil;
    }
    if wordy(text) || text.contains('\n') {
        return match text.to_ascii_lowercase().as_str() {
            "~" | "null" => Scalar::Nil,
            "yes" | "true" | "on" => Scalar::Bool(true),
            "no" | "false" | "off" => Scalar::Bool(false),
            _ => owned(),
        };
    }
    match text.to_ascii_lowercase().as_str() {
        ".inf" | "+.inf" => return Scalar::Float(f64::INFINITY),
        "-.inf" => return Scalar::Float(f64::NEG_INFINITY),
        ".nan" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    match () {
        () if text.len() > 10 && date(&text[..text.floor_char_boundary(10)]) && clock(text) => {
            Scalar::Refused("Time")
        }
        () if date(text) => Scalar::Refused("Date"),
        () if text.starts_with(':') && text.len() > 1 => Scalar::Refused("Symbol"),
        () => sexagesimal(text)
            .or_else(|| decimal(text))
            .or_else(|| integer(text))
            .unwrap_or_else(owned),
    }
}

/// Starts like a word: at most one character that is no digit, dot, colon or minus, then a letter or one of some signs.
fn wordy(text: &str) -> bool {
    let inside = |c: char| c.is_alphabetic() || c.is_whitespace() || "_!@#$%^&*(){}<>|/\\~;=".contains(c);
    let mut chars = text.chars();
    let first = chars.next();
    first.is_some_and(inside)
        || (first.is_some_and(|c| !c.is_ascii_digit() && !".:-".contains(c))
            && chars.next().is_some_and(inside))
}

fn date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    year.len() == 4
        && [year, month, day].into_iter().all(|part| digits(part))
        && month.len() <= 2
        && matches!(month.parse(), Ok(1..=12))
        && day.len() == 2
        && matches!(day.parse(), Ok(1..=31))
}

fn clock(text: &str) -> bool {
    let rest = text[text.floor_char_boundary(10)..].trim_start_matches(['T', 't', ' ', '\t']);
    let digits = |text: &str| !text.is_empty() && text.bytes().take(2).all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = rest.splitn(3, ':').collect();
    parts.len() == 3 && parts.iter().all(|part| digits(part))
}

/// `1:30` is 90 to YAML 1.1: Psych's arithmetic takes the first part for minutes and the second for seconds.
fn sexagesimal(text: &str) -> Option<Scalar> {
    let parts: Vec<&str> = text.split(':').collect();
    let head = parts[0].strip_prefix(['-', '+']).unwrap_or(parts[0]);
    let shape = matches!(parts.len(), 2 | 3)
        && head.starts_with(|c: char| c.is_ascii_digit())
        && head.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        && parts[1..]
            .iter()
            .all(|part| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']));
    shape.then(|| {
        let sum = parts
            .iter()
            .zip([2i32, 1, 0])
            .map(|(part, power)| to_i(part).saturating_mul(60i128.pow(power.unsigned_abs())))
            .fold(0i128, i128::saturating_add);
        Scalar::Int(sum)
    })
}

fn decimal(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = unsigned.split_once('.')?;
    let whole_shape = whole.is_empty()
        || (whole.starts_with(|c: char| c.is_ascii_digit())
            && whole
                .bytes()
                .all(|b| b.is_ascii_digit() || b == b'_' || b == b','));
    let fraction = rest.bytes().take_while(u8::is_ascii_digit).count();
    let power = &rest.as_bytes()[fraction..];
    let power_shape = match power {
        [] => true,
        [b'e' | b'E', b'+' | b'-', digits @ ..] => {
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    if !whole_shape || !power_shape || unsigned == "." || text.len() > 400 {
        return None;
    }
    let clean: String = text.chars().filter(|c| !matches!(c, ',' | '_')).collect();
    clean.parse().ok().map(Scalar::Float)
}

fn integer(text: &str) -> Option<Scalar> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let clean: String = unsigned.chars().filter(|c| !matches!(c, ',' | '_')).collect();
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    let (digits, radix) = match clean.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&clean[2..], 16),
        [b'0', b'b', ..] => (&clean[2..], 2),
        [b'0', _, ..] => (&clean[1..], 8),
        _ => (clean.as_str(), 10),
    };
    let shape = unsigned.starts_with(|c: char| c.is_ascii_digit()) && all(digits, radix);
    let value = i128::from_str_radix(digits, radix).ok().filter(|_| shape)?;
    Some(Scalar::Int(sign * value))
}
