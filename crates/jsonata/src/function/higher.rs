//! Functions that take functions.

use super::{Entry, arg};
use crate::{
    error::{Result, fault},
    run::Run,
    value::Value,
};

pub const TABLE: &[Entry] = &[
    ("map", "<af>", map),
    ("filter", "<af>", filter),
    ("single", "<af?>", single),
    ("reduce", "<afj?:j>", reduce),
    ("sift", "<o-f?:o>", sift),
    ("each", "<o-f:a>", each),
];

fn arity(function: Value<'_>) -> usize {
    match function {
        Value::Function(function) => function.arity(),
        _ => 1,
    }
}

/// Calls `function` with as many of value, position and whole as it takes.
fn call<'a>(run: &Run<'a>, function: Value<'a>, args: [Value<'a>; 3]) -> Result<Value<'a>> {
    run.apply_to(function, &args[..arity(function).clamp(1, 3)])
}

/// Calls the function of `args` for every item, and makes a sequence of what `keep` makes of item and result.
fn gather<'a>(
    run: &Run<'a>,
    args: &[Value<'a>],
    keep: impl Fn(Value<'a>, Value<'a>) -> Result<Option<Value<'a>>>,
) -> Result<Value<'a>> {
    let Value::Array(items) = arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let mut results = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let given = [item, Value::from(index as f64), Value::Array(items)];
        results.extend(keep(item, call(run, arg(args, 1), given)?)?);
    }
    run.sequence(&results)
}

fn map<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    gather(run, args, |_, result| {
        Ok((!result.is_undefined()).then_some(result))
    })
}

fn filter<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    gather(run, args, |item, result| Ok(run.truth(result)?.then_some(item)))
}

fn single<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::Array(items) = arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let function = arg(args, 1);
    let mut found = None;
    for (index, item) in items.iter().enumerate() {
        run.tick(1)?;
        let fits = function.is_undefined() || {
            let result = call(
                run,
                function,
                [item, Value::from(index as f64), Value::Array(items)],
            )?;
            run.truth(result)?
        };
        if fits && found.replace(item).is_some() {
            return Err(fault("D3138").insert("index", index.to_string()));
        }
    }
    found.ok_or_else(|| fault("D3139"))
}

fn reduce<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::Array(items) = arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let function = arg(args, 1);
    let arity = arity(function);
    if arity < 2 {
        return Err(fault("D3050"));
    }
    let (mut result, first) = match arg(args, 2) {
        Value::Undefined if items.len() > 0 => (items.get(0), 1),
        start => (start, 0),
    };
    for index in first..items.len() {
        let args = [
            result,
            items.get(index),
            Value::from(index as f64),
            Value::Array(items),
        ];
        result = run.apply_to(function, &args[..arity.min(4)])?;
    }
    Ok(result)
}

fn sift<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let value = arg(args, 0);
    let Value::Object(object) = value else {
        return Ok(Value::Undefined);
    };
    let mut kept = Vec::new();
    for (key, entry) in object.iter() {
        let result = call(run, arg(args, 1), [entry, Value::String(key), value])?;
        if run.truth(result)? {
            kept.push((key, entry));
        }
    }
    if kept.is_empty() {
        Ok(Value::Undefined)
    } else {
        run.object(&kept)
    }
}

fn each<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let value = arg(args, 0);
    let mut results = Vec::new();
    if let Value::Object(object) = value {
        for (key, entry) in object.iter() {
            let result = call(run, arg(args, 1), [entry, Value::String(key), value])?;
            if !result.is_undefined() {
                results.push(result);
            }
        }
    }
    run.sequence(&results)
}
