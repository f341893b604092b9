//! What AWS Step Functions adds to JSONata
//! (<https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html>): registered on request.

use super::{Entry, arg, digest, math::unit, number_arg, text_arg};
use crate::{
    error::{Fault, Result, fault},
    json,
    run::{Run, mix},
    value::Value,
};

pub const TABLE: &[Entry] = &[
    ("partition", "<an:a<a>>", partition),
    ("range", "<nnn:a<n>>", range),
    ("hash", "<ss:s>", hash),
    ("random", "<n?:n>", random),
    ("uuid", "<:s>", uuid),
    ("parse", "<s-:x>", parse),
];

fn wrong(message: &str) -> Box<Fault> {
    fault("D3137").insert("text", message.to_owned())
}

/// Parts of an array, each of the given length but the last.
fn partition<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::Array(items) = arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let size = number_arg(args, 1).unwrap_or(0.0).round();
    if size < 1.0 {
        return Err(wrong("The chunk size of $partition must be a positive number"));
    }
    let mut held = Vec::new();
    run.spread_into(&mut held, items)?;
    let parts = held.chunks(size as usize).map(|part| run.array(part));
    run.array(&parts.collect::<Result<Vec<_>>>()?)
}

/// Numbers from the first to the last, both included, in steps. What it yields is a sequence: AWS answers
/// `$range(1, 9, 9)` with 1.
fn range<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let [Some(first), Some(last), Some(step)] = [0, 1, 2].map(|index| number_arg(args, index)) else {
        return Ok(Value::Undefined);
    };
    if step == 0.0 || !step.is_finite() {
        return Err(wrong("The step of $range must not be 0"));
    }
    let mut numbers = Vec::new();
    loop {
        let number = first + numbers.len() as f64 * step;
        if !number.is_finite() || (step > 0.0 && number > last) || (step < 0.0 && number < last) {
            return run.sequence(&numbers);
        }
        run.tick(1)?;
        numbers.push(Value::from(number));
    }
}

fn hash<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let (Some(text), Some(algorithm)) = (text_arg(args, 0), text_arg(args, 1)) else {
        return Ok(Value::Undefined);
    };
    run.tick(text.len() as u64 / 16)?;
    match digest::hex(text.as_bytes(), algorithm) {
        Some(digest) => run.string(&digest),
        None => Err(wrong(
            "The algorithm of $hash must be MD5, SHA-1, SHA-256, SHA-384 or SHA-512",
        )),
    }
}

/// A number from 0 to below 1; with a seed, always the same.
fn random<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let bits = number_arg(args, 0).map_or_else(
        || run.random(),
        |seed| mix(seed.to_bits() ^ 0x9e37_79b9_7f4a_7c15),
    );
    Ok(Value::from(unit(bits)))
}

/// A random identifier (RFC 9562, version 4).
fn uuid<'a>(run: &Run<'a>, _: &[Value<'a>]) -> Result<Value<'a>> {
    let (high, low) = (run.random(), run.random());
    let (high, low) = (high & !0xf000 | 0x4000, low & !(3 << 62) | 1 << 63);
    run.string(&format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    ))
}

fn parse<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    // Parsed JSON takes up to some thirty times its text.
    run.charge(text.len().saturating_mul(32))?;
    let json = json::read(text).map_err(|error| wrong(&format!("Unable to parse JSON: {error}")))?;
    run.adopt(&json, 0)
}
