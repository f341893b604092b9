//! Functions on strings.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{Entry, arg, number_arg, text_arg};
use crate::{error::Result, run::Run, text, value::Value};

pub const TABLE: &[Entry] = &[
    ("string", "<x-b?:s>", string),
    ("substring", "<s-nn?:s>", substring),
    ("substringBefore", "<s-s:s>", before),
    ("substringAfter", "<s-s:s>", after),
    ("lowercase", "<s-:s>", lowercase),
    ("uppercase", "<s-:s>", uppercase),
    ("length", "<s-:n>", length),
    ("trim", "<s-:s>", trim),
    ("pad", "<s-ns?:s>", pad),
    ("join", "<a<s>s?:s>", join),
    ("base64encode", "<s-:s>", encode),
    ("base64decode", "<s-:s>", decode),
];

fn string<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    match arg(args, 0) {
        text @ (Value::Undefined | Value::String(_)) => Ok(text),
        value => run.string(&run.text(value, matches!(arg(args, 1), Value::Bool(true)))?),
    }
}

fn substring<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(whole) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.tick(whole.len() as u64 / 64)?;
    let count = whole.chars().count() as f64;
    // Array.prototype.slice: whole numbers, negative ones from the end.
    let place = |number: f64| {
        let number = if number.is_nan() { 0.0 } else { number.trunc() };
        if number < 0.0 {
            (count + number).max(0.0)
        } else {
            number.min(count)
        }
    };
    let mut start = number_arg(args, 1).unwrap_or(f64::NAN);
    if count + start < 0.0 {
        start = 0.0;
    }
    let end = match number_arg(args, 2) {
        None => count,
        Some(length) if length <= 0.0 => return Ok(Value::String("")),
        Some(length) if start >= 0.0 => place(start + length),
        Some(length) => place(count + start + length),
    };
    let (start, end) = (place(start) as usize, end as usize);
    let from = text::byte_of_char(whole, start);
    let to = text::byte_of_char(whole, end);
    Ok(Value::String(whole.get(from..to).unwrap_or("")))
}

fn before<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(whole) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.tick(whole.len() as u64 / 64)?;
    let found = text_arg(args, 1).unwrap_or("undefined");
    Ok(Value::String(
        whole.split_once(found).map_or(whole, |(before, _)| before),
    ))
}

fn after<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(whole) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.tick(whole.len() as u64 / 64)?;
    let found = text_arg(args, 1).unwrap_or("undefined");
    Ok(Value::String(
        whole.split_once(found).map_or(whole, |(_, after)| after),
    ))
}

fn lowercase<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    text_arg(args, 0).map_or(Ok(Value::Undefined), |text| run.string(&text.to_lowercase()))
}

fn uppercase<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    text_arg(args, 0).map_or(Ok(Value::Undefined), |text| run.string(&text.to_uppercase()))
}

fn length<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.tick(text.len() as u64 / 64)?;
    Ok(Value::from(text.chars().count() as f64))
}

fn trim<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.charge(text.len())?;
    let words = text
        .split([' ', '\t', '\n', '\r'])
        .filter(|word| !word.is_empty());
    run.string(&words.collect::<Vec<_>>().join(" "))
}

fn pad<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let width = number_arg(args, 1).unwrap_or(0.0).trunc();
    let with = text_arg(args, 2).filter(|with| !with.is_empty()).unwrap_or(" ");
    let missing = width.abs() - text.chars().count() as f64;
    if missing.is_nan() || missing <= 0.0 {
        return Ok(Value::String(text));
    }
    let missing = missing as usize;
    run.charge(missing.saturating_mul(4))?;
    let padding: String = with.chars().cycle().take(missing).collect();
    run.string(&if width > 0.0 {
        format!("{text}{padding}")
    } else {
        format!("{padding}{text}")
    })
}

fn join<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::Array(items) = arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let separator = text_arg(args, 1).unwrap_or("");
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        run.tick(1)?;
        if index > 0 {
            run.charge(separator.len())?;
            joined.push_str(separator);
        }
        if let Value::String(text) = item {
            run.charge(text.len())?;
            joined.push_str(text);
        }
    }
    run.string(&joined)
}

/// Each UTF-16 unit's low byte, in Base64.
fn encode<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.charge(2 * text.len())?;
    let bytes: Vec<u8> = text.encode_utf16().map(|unit| unit as u8).collect();
    run.string(&base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Base64 in either alphabet, with blanks or without padding; each byte is a character.
fn decode<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.charge(2 * text.len())?;
    let text = text.split('=').next().unwrap_or_default();
    let mut digits: String = text
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/'))
        .collect();
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    let bytes = GeneralPurpose::new(&STANDARD, LENIENT)
        .decode(digits)
        .unwrap_or_default();
    run.string(&bytes.into_iter().map(char::from).collect::<String>())
}
