//! The number functions. AWS rounds as Java's `Math.round` does: half up, towards positive infinity.

use super::{Answer, Failure};
use crate::random::{self, Random};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub fn add(left: &Value, right: &Value) -> Answer {
    let sum = whole(left)?
        .checked_add(whole(right)?)
        .ok_or("the sum is too large")?;
    Ok(sum.into())
}

/// A number from `start` up to, but not with, `end`; the same one each time when a seed is given.
pub fn random(start: &Value, end: &Value, seed: Option<&Value>, random: &Random) -> Answer {
    let (start, end) = (whole(start)?, whole(end)?);
    let span = end
        .checked_sub(start)
        .filter(|span| *span > 0)
        .ok_or("the end must be greater than the start")?;
    let fraction = match seed {
        None => random.fraction(),
        Some(seed) => random::fraction(&Sha256::digest(whole(seed)?.to_be_bytes()).into()),
    };
    let offset = (fraction * span as f64) as i64;
    Ok(start.saturating_add(offset.min(span - 1)).into())
}

/// The nearest integer.
pub fn whole(value: &Value) -> Result<i64, Failure> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let number = value.as_f64().ok_or("an argument must be a number")?;
    let rounded = (number + 0.5).floor();
    if rounded.abs() < 9e18 {
        Ok(rounded as i64)
    } else {
        Err("a number is too large".into())
    }
}
