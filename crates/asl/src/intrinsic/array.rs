//! The array functions.

use super::{Answer, Failure};
use crate::path::filter::equal;
use crate::scope::Budget;
use serde_json::Value;

/// Elements that `States.ArrayRange` may make.
const RANGE: i64 = 1_000;

pub fn contains(array: &Value, wanted: &Value) -> Answer {
    Ok(Value::Bool(items(array)?.iter().any(|item| equal(item, wanted))))
}

pub fn item(array: Value, index: &Value) -> Answer {
    let Value::Array(mut items) = array else {
        return Err(not_array());
    };
    let at = usize::try_from(super::number::whole(index)?)
        .ok()
        .filter(|at| *at < items.len());
    Ok(items.swap_remove(at.ok_or("the index is outside of the array")?))
}

pub fn length(array: &Value) -> Answer {
    Ok(items(array)?.len().into())
}

pub fn partition(array: Value, size: &Value) -> Answer {
    let size = usize::try_from(super::number::whole(size)?).unwrap_or(0);
    if size == 0 {
        return Err("the chunk size must be a positive integer".into());
    }
    Ok(items(&array)?
        .chunks(size)
        .map(|chunk| Value::Array(chunk.to_vec()))
        .collect())
}

pub fn range(first: &Value, last: &Value, step: &Value) -> Answer {
    let (first, last, step) = (
        super::number::whole(first)?,
        super::number::whole(last)?,
        super::number::whole(step)?,
    );
    if step == 0 {
        return Err("the increment must not be zero".into());
    }
    let mut numbers = Vec::new();
    let mut next = Some(first);
    while let Some(number) = next.filter(|number| {
        if step > 0 {
            *number <= last
        } else {
            *number >= last
        }
    }) {
        if numbers.len() as i64 == RANGE {
            return Err(format!("the range has more than {RANGE} elements").into());
        }
        numbers.push(Value::from(number));
        next = number.checked_add(step);
    }
    Ok(Value::Array(numbers))
}

pub fn unique(array: Value, budget: &Budget) -> Answer {
    let mut kept: Vec<Value> = Vec::new();
    let Value::Array(items) = array else {
        return Err(not_array());
    };
    for item in items {
        budget.visit(kept.len())?;
        if !kept.iter().any(|known| equal(known, &item)) {
            kept.push(item);
        }
    }
    Ok(Value::Array(kept))
}

fn items(array: &Value) -> Result<&[Value], Failure> {
    array.as_array().map(Vec::as_slice).ok_or_else(not_array)
}

fn not_array() -> Failure {
    "the first argument must be an array".into()
}
