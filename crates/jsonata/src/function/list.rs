//! Functions on arrays.

use std::collections::HashSet;

use super::{Entry, arg};
use crate::{
    error::{Result, fault},
    run::Run,
    text,
    value::{Array, Value},
};

pub const TABLE: &[Entry] = &[
    ("sum", "<a<n>:n>", sum),
    ("count", "<a:n>", count),
    ("max", "<a<n>:n>", |run, args| extreme(run, args, f64::max)),
    ("min", "<a<n>:n>", |run, args| extreme(run, args, f64::min)),
    ("average", "<a<n>:n>", average),
    ("zip", "<a+>", zip),
    ("append", "<xx:a>", append),
    ("exists", "<x:b>", |_, args| {
        Ok(Value::Bool(!arg(args, 0).is_undefined()))
    }),
    ("reverse", "<a:a>", reverse),
    ("sort", "<af?:a>", sort),
    ("shuffle", "<a:a>", shuffle),
    ("distinct", "<x:x>", distinct),
];

fn numbers<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Option<Vec<f64>>> {
    let Value::Array(items) = arg(args, 0) else {
        return Ok(None);
    };
    run.charge(items.len() * size_of::<f64>())?;
    run.tick(items.len() as u64 / 8)?;
    let number = |value| match value {
        Value::Number(number, _) => number,
        _ => f64::NAN,
    };
    Ok(Some(items.iter().map(number).collect()))
}

fn sum<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    // Not `sum`: that one starts from -0.
    Ok(numbers(run, args)?.map_or(Value::Undefined, |numbers| {
        Value::from(numbers.iter().fold(0.0, |total, number| total + number))
    }))
}

fn count<'a>(_: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(match arg(args, 0) {
        Value::Array(items) => Value::from(items.len() as f64),
        _ => Value::from(0.0),
    })
}

fn extreme<'a>(run: &Run<'a>, args: &[Value<'a>], choose: fn(f64, f64) -> f64) -> Result<Value<'a>> {
    let numbers = numbers(run, args)?.unwrap_or_default();
    Ok(numbers
        .into_iter()
        .reduce(choose)
        .map_or(Value::Undefined, Value::from))
}

fn average<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let numbers = numbers(run, args)?.unwrap_or_default();
    if numbers.is_empty() {
        return Ok(Value::Undefined);
    }
    let total = numbers.iter().fold(0.0, |total, number| total + number);
    Ok(Value::from(total / numbers.len() as f64))
}

fn zip<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let length = |value: &Value<'a>| match value {
        Value::Array(items) => items.len(),
        _ => 0,
    };
    let shortest = args.iter().map(length).min().unwrap_or(0);
    let mut rows = Vec::new();
    for index in 0..shortest {
        run.tick(args.len() as u64)?;
        let item = |value: &Value<'a>| match value {
            Value::Array(items) => items.get(index),
            _ => Value::Undefined,
        };
        let row: Vec<Value> = args.iter().map(item).collect();
        rows.push(run.array(&row)?);
    }
    run.array(&rows)
}

fn append<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    run.concat(&[arg(args, 0), arg(args, 1)])
}

fn held<'a>(run: &Run<'a>, items: Array<'a>) -> Result<Vec<Value<'a>>> {
    let mut held = Vec::new();
    run.spread_into(&mut held, items)?;
    Ok(held)
}

fn reverse<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    match arg(args, 0) {
        Value::Array(items) if items.len() > 1 => {
            let mut items = held(run, items)?;
            items.reverse();
            run.array(&items)
        }
        other => Ok(other),
    }
}

fn sort<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let items = match arg(args, 0) {
        Value::Array(items) if items.len() > 1 => held(run, items)?,
        other => return Ok(other),
    };
    let comparator = arg(args, 1);
    let sorted = if comparator.is_undefined() {
        let numbers = items.iter().all(|item| matches!(item, Value::Number(..)));
        if !numbers && !items.iter().all(|item| matches!(item, Value::String(_))) {
            return Err(fault("D3070"));
        }
        run.merge_sort(items, &mut |left, right| {
            run.read_both(*left, *right)?;
            Ok(match (left, right) {
                (Value::Number(left, _), Value::Number(right, _)) => left > right,
                (Value::String(left), Value::String(right)) => text::compare(left, right).is_gt(),
                _ => false,
            })
        })?
    } else {
        run.merge_sort(items, &mut |left, right| {
            let after = run.apply_to(comparator, &[*left, *right])?;
            Ok(match after {
                Value::Array(_) | Value::Object(_) | Value::Function(_) => true,
                scalar => run.truth(scalar)?,
            })
        })?
    };
    run.array(&sorted)
}

fn shuffle<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    match arg(args, 0) {
        Value::Array(items) if items.len() > 1 => {
            let mut items = held(run, items)?;
            for index in (1..items.len()).rev() {
                items.swap(index, (run.random() % (index as u64 + 1)) as usize);
            }
            run.array(&items)
        }
        other => Ok(other),
    }
}

fn distinct<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let items = match arg(args, 0) {
        Value::Array(items) if items.len() > 1 => items,
        other => return Ok(other),
    };
    let mut kept: Vec<Value> = Vec::new();
    let mut texts = HashSet::new();
    let mut numbers = HashSet::new();
    let mut others: Vec<Value> = Vec::new();
    for item in items.iter() {
        run.tick(1)?;
        let is_new = match item {
            Value::String(text) => {
                run.read(text)?;
                texts.insert(text)
            }
            // 0 and -0 are one number.
            Value::Number(number, _) if !number.is_nan() => numbers.insert((number + 0.0).to_bits()),
            item => {
                let mut is_new = true;
                for other in &others {
                    if run.equal(item, *other, 0)? {
                        is_new = false;
                        break;
                    }
                }
                if is_new {
                    others.push(item);
                }
                is_new
            }
        };
        if is_new {
            kept.push(item);
        }
    }
    let array = Array::new(run.slice(&kept)?);
    Ok(Value::Array(if items.marks.sequence {
        Array::sequence(run.slice(&kept)?)
    } else {
        array
    }))
}
