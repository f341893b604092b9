//! Functions on numbers and truth.

use super::{Entry, arg, figures, number_arg};
use crate::{
    date,
    error::{Result, fault},
    number,
    run::Run,
    value::Value,
};

pub const TABLE: &[Entry] = &[
    ("number", "<(nsb)-:n>", cast),
    ("floor", "<n-:n>", |_, args| Ok(map(args, f64::floor))),
    ("ceil", "<n-:n>", |_, args| Ok(map(args, f64::ceil))),
    ("round", "<n-n?:n>", |_, args| {
        Ok(map(args, |value| {
            number::round(value, number_arg(args, 1).unwrap_or(0.0))
        }))
    }),
    ("abs", "<n-:n>", |_, args| Ok(map(args, f64::abs))),
    ("sqrt", "<n-:n>", sqrt),
    ("power", "<n-n:n>", power),
    ("random", "<:n>", |run, _| Ok(Value::from(unit(run.random())))),
    ("boolean", "<x-:b>", |run, args| truth(run, args, true)),
    ("not", "<x-:b>", |run, args| truth(run, args, false)),
    ("formatNumber", "<n-so?:s>", figures::format_number),
    ("formatBase", "<n-n?:s>", base),
    ("formatInteger", "<n-s:s>", date::format_integer),
    ("parseInteger", "<s-s:n>", date::parse_integer),
];

fn map<'a>(args: &[Value<'a>], function: impl Fn(f64) -> f64) -> Value<'a> {
    number_arg(args, 0).map_or(Value::Undefined, |value| Value::from(function(value)))
}

/// A number from 0 to below 1.
pub fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

fn truth<'a>(run: &Run<'a>, args: &[Value<'a>], wanted: bool) -> Result<Value<'a>> {
    match arg(args, 0) {
        Value::Undefined => Ok(Value::Undefined),
        value => Ok(Value::Bool(run.truth(value)? == wanted)),
    }
}

fn sqrt<'a>(_: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    match number_arg(args, 0) {
        Some(value) if value < 0.0 => Err(fault("D3060").value(Value::from(value))),
        _ => Ok(map(args, f64::sqrt)),
    }
}

fn power<'a>(_: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(base) = number_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let exponent = number_arg(args, 1).unwrap_or(f64::NAN);
    // In JavaScript 1 to an infinite power is not a number either.
    let result = if exponent.is_nan() {
        f64::NAN
    } else {
        base.powf(exponent)
    };
    if result.is_finite() {
        return Ok(Value::from(result));
    }
    let fault = fault("D3061").value(Value::from(base));
    Err(fault.insert("exp", arg(args, 1).brief()))
}

fn base<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(value) = number_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let radix = number::round(number_arg(args, 1).unwrap_or(10.0), 0.0);
    if !(2.0..=36.0).contains(&radix) {
        return Err(fault("D3100").value(Value::from(radix)));
    }
    run.string(&number::radix(number::round(value, 0.0), radix as u32))
}

fn cast<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let value = arg(args, 0);
    match value {
        Value::Undefined | Value::Number(..) => Ok(value),
        Value::Bool(value) => Ok(Value::from(f64::from(u8::from(value)))),
        Value::String(text) => {
            run.read(text)?;
            match parse(text) {
                Some(number) => Ok(Value::from(number)),
                None => Err(fault("D3030").value(value)),
            }
        }
        _ => Err(fault("D3030").value(value)),
    }
}

/// A decimal number of JSON, leading zeros allowed, or a whole one with the prefix of its base.
fn parse(text: &str) -> Option<f64> {
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let mut value = (!digits.is_empty()).then_some(0.0)?;
            for digit in digits.chars() {
                value = value * f64::from(radix) + f64::from(digit.to_digit(radix)?);
            }
            return Some(value);
        }
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let exponent_fits = exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    if !digits(whole) || !fraction.is_none_or(digits) || !exponent_fits {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}
