//! Dates and whole numbers by pictures, after XPath's `format-dateTime` and `format-integer` (XPath and XQuery Functions
//! 3.1, sections 9.8 and 4.6), in the reference's reading of them.

mod calendar;
mod format;
mod integer;
mod parse;
mod picture;
mod words;

use crate::{
    error::{Result, fault},
    function::{Body, number_arg, text_arg},
    run::Run,
    value::Value,
};

pub const TABLE: &[(&str, &str, Body)] = &[
    ("now", "<s?s?:s>", now),
    ("millis", "<:n>", |run, _| Ok(Value::from(run.now))),
    ("toMillis", "<s-s?:n>", to_millis),
    ("fromMillis", "<n-s?s?:s>", from_millis),
];

/// The longest picture: each of its parts costs work.
const PICTURE: usize = 4_096;

/// A picture as an argument.
fn picture<'a>(run: &Run<'a>, args: &[Value<'a>], index: usize) -> Result<Option<&'a str>> {
    let Some(picture) = text_arg(args, index) else {
        return Ok(None);
    };
    run.tick(picture.len() as u64 + 10)?;
    if picture.len() > PICTURE {
        return Err(fault("U1004").insert("value", PICTURE.to_string()));
    }
    Ok(Some(picture))
}

fn now<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let picture = picture(run, args, 0)?;
    run.string(&format::format(run, run.now, picture, text_arg(args, 1))?)
}

fn from_millis<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(millis) = number_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let picture = picture(run, args, 1)?;
    run.string(&format::format(run, millis, picture, text_arg(args, 2))?)
}

fn to_millis<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    match picture(run, args, 1)? {
        Some(picture) => Ok(parse::parse(run, text, picture)?.map_or(Value::Undefined, Value::from)),
        None => match parse::iso(text) {
            Some(millis) => Ok(Value::from(millis)),
            None => Err(fault("D3110").text(text)),
        },
    }
}

pub fn format_integer<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(value) = number_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let picture = picture(run, args, 1)?.unwrap_or_default();
    let value = run.finite(value)?.floor();
    run.string(&integer::Picture::parse(picture)?.write(run, value)?)
}

pub fn parse_integer<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let picture = picture(run, args, 1)?.unwrap_or_default();
    run.tick(text.len() as u64)?;
    Ok(Value::from(integer::Picture::parse(picture)?.read(text)?))
}
