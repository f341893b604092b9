//! Functions on objects and on values of any kind.

use super::{Entry, arg, text_arg};
use crate::{
    error::{Result, fault},
    run::Run,
    value::Value,
};

pub const TABLE: &[Entry] = &[
    ("keys", "<x-:a<s>>", keys),
    ("lookup", "<x-s:x>", lookup),
    ("spread", "<x-:a<o>>", spread),
    ("merge", "<a<o>:o>", merge),
    ("type", "<x:s>", kind),
    ("clone", "<(oa)-:o>", clone),
    ("error", "<s?:x>", error),
    ("assert", "<bs?:x>", assert),
    // Done where the scope is known: see `Run::call`.
    ("eval", "<sx?:x>", |_, _| Ok(Value::Undefined)),
];

fn keys<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let mut found = Vec::new();
    let mut seen = std::collections::HashSet::new();
    collect_keys(run, arg(args, 0), &mut |key| {
        if seen.insert(key) {
            found.push(Value::String(key));
        }
    })?;
    run.sequence(&found)
}

fn collect_keys<'a>(run: &Run<'a>, value: Value<'a>, add: &mut dyn FnMut(&'a str)) -> Result<()> {
    match value {
        Value::Array(items) => {
            for item in items.iter() {
                run.deeper(|| collect_keys(run, item, add))?;
            }
        }
        Value::Object(object) => {
            run.tick(object.len() as u64)?;
            object.iter().for_each(|(key, _)| add(key));
        }
        _ => {}
    }
    Ok(())
}

fn lookup<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let key = text_arg(args, 1).unwrap_or("undefined");
    run.read(key)?;
    run.member(arg(args, 0), key)
}

fn spread<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    match arg(args, 0) {
        Value::Object(object) => {
            let mut parts = Vec::with_capacity(object.len());
            for entry in object.iter() {
                run.tick(1)?;
                parts.push(run.object(&[entry])?);
            }
            run.sequence(&parts)
        }
        Value::Array(items) => {
            let mut parts = Vec::new();
            for item in items.iter() {
                match run.deeper(|| spread(run, &[item]))? {
                    Value::Array(inner) => run.spread_into(&mut parts, inner)?,
                    Value::Undefined => {}
                    other => parts.push(other),
                }
            }
            if parts.is_empty() {
                run.sequence(&[])
            } else {
                run.array(&parts)
            }
        }
        other => Ok(other),
    }
}

fn merge<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Value::Array(items) = arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let mut entries = Vec::new();
    for item in items.iter() {
        if let Value::Object(object) = item {
            run.charge(object.len() * size_of::<(&str, Value)>())?;
            run.tick(object.len() as u64)?;
            entries.extend(object.iter());
        }
    }
    run.object(&entries)
}

fn kind<'a>(_: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::String(match arg(args, 0) {
        Value::Undefined => return Ok(Value::Undefined),
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(..) => "number",
        Value::String(_) => "string",
        Value::Array(_) | Value::Tuples(_) => "array",
        Value::Object(_) => "object",
        Value::Function(_) => "function",
    }))
}

fn clone<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    match arg(args, 0) {
        Value::Array(items) if items.marks.wrapper => run.copy(items.get(0), 0),
        value => run.copy(value, 0),
    }
}

fn message(args: &[Value<'_>], index: usize, otherwise: &str) -> String {
    text_arg(args, index)
        .filter(|text| !text.is_empty())
        .unwrap_or(otherwise)
        .to_owned()
}

fn error<'a>(_: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    Err(fault("D3137").insert("text", message(args, 0, "$error() function evaluated")))
}

fn assert<'a>(_: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    if matches!(arg(args, 0), Value::Bool(true)) {
        return Ok(Value::Undefined);
    }
    Err(fault("D3141").insert("text", message(args, 1, "$assert() statement failed")))
}
