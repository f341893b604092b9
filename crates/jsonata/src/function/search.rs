//! Functions that look for texts and patterns in strings. A matcher is a regular expression or any function that gives
//! objects with `match`, `start`, `end`, `groups` and `next`.

use super::{Entry, Function, arg, number_arg, text_arg};
use crate::{
    error::{Result, fault},
    number,
    pattern::{Found, Pattern},
    run::Run,
    text,
    value::Value,
};

pub const TABLE: &[Entry] = &[
    ("match", "<s-f<s:o>n?:a<o>>", find_all),
    ("contains", "<s-(sf):b>", contains),
    ("replace", "<s-(sf)(sf)n?:s>", replace),
    ("split", "<s-(sf)n?:a<s>>", split),
];

/// Bytes of text that a search passes in a step, and those that it may look at beyond its match.
const READ: u64 = 16;
const READ_AHEAD: u64 = 128;

/// Where a regular expression goes on in a text.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    pattern: &'a Pattern,
    position: usize,
    text: &'a str,
    /// In bytes.
    from: usize,
}

/// One match, in bytes of the text.
struct Match<'a> {
    text: Value<'a>,
    start: usize,
    end: usize,
    /// How many bytes of the text `replace` passes over.
    length: usize,
    groups: Vec<Value<'a>>,
    /// The index as the matcher tells it.
    index: Value<'a>,
}

/// What gives the next match.
enum Source<'a> {
    Cursor(Cursor<'a>),
    Function(Value<'a>),
    End,
}

struct Matches<'a> {
    text: &'a str,
    source: Source<'a>,
    first: bool,
    /// A byte, and the UTF-16 units before it: the last that was asked for.
    mark: (usize, usize),
}

impl<'a> Matches<'a> {
    fn new(matcher: Value<'a>, text: &'a str) -> Matches<'a> {
        let source = match matcher {
            Value::Function(Function::Regex(pattern, position)) => Source::Cursor(Cursor {
                pattern,
                position: *position,
                text,
                from: 0,
            }),
            matcher => Source::Function(matcher),
        };
        Matches {
            text,
            source,
            first: true,
            mark: (0, 0),
        }
    }

    fn next(&mut self, run: &Run<'a>) -> Result<Option<Match<'a>>> {
        let first = std::mem::replace(&mut self.first, false);
        match self.source {
            Source::End => Ok(None),
            Source::Cursor(cursor) => {
                if !first && cursor.from >= cursor.text.len() {
                    return Ok(None);
                }
                let Some(found) = run.search(cursor, first)? else {
                    return Ok(None);
                };
                self.source = Source::Cursor(Cursor {
                    from: found.end,
                    ..cursor
                });
                self.of_pattern(run, found).map(Some)
            }
            Source::Function(matcher) => {
                let args = [Value::String(self.text)];
                let result = run.apply_to(matcher, if first { &args } else { &[] })?;
                self.of_value(run, result)
            }
        }
    }

    fn of_pattern(&mut self, run: &Run<'a>, found: Found) -> Result<Match<'a>> {
        let (byte, units) = self.mark;
        if found.start >= byte {
            self.mark = (found.start, units + text::units(&self.text[byte..found.start]));
        }
        run.charge(found.groups.len() * size_of::<Value>())?;
        let groups = found.groups.iter().map(|span| match span {
            Some((start, end)) => Value::String(&self.text[*start..*end]),
            None => Value::Undefined,
        });
        Ok(Match {
            text: Value::String(&self.text[found.start..found.end]),
            start: found.start,
            end: found.end,
            length: found.end - found.start,
            groups: groups.collect(),
            index: Value::from(self.mark.1 as f64),
        })
    }

    fn of_value(&mut self, run: &Run<'a>, value: Value<'a>) -> Result<Option<Match<'a>>> {
        let object = match value {
            Value::Undefined => return Ok(None),
            Value::Object(object) => object,
            _ => return Err(fault("T1010")),
        };
        let [start, end, groups, next] = ["start", "end", "groups", "next"].map(|key| object.get(key));
        let is_number = |value| matches!(value, Value::Number(..));
        if !(is_number(start) || is_number(end) || matches!(groups, Value::Array(_)) || next.is_function()) {
            return Err(fault("T1010"));
        }
        self.source = if next.is_function() {
            Source::Function(next)
        } else {
            Source::End
        };
        run.tick(self.text.len() as u64 / 64)?;
        let byte = |value| match value {
            Value::Number(unit, _) => text::byte_of_unit(self.text, unit.max(0.0) as usize),
            _ => 0,
        };
        let found = object.get("match");
        let length = match found {
            Value::String(found) => text::units(found),
            _ => 0,
        };
        let index = match start {
            Value::Number(unit, _) => unit,
            _ => 0.0,
        };
        let passed = text::byte_of_unit(self.text, index.max(0.0) as usize + length);
        Ok(Some(Match {
            text: found,
            start: byte(start),
            end: byte(end),
            length: passed.saturating_sub(byte(start)),
            groups: run
                .listed(groups)?
                .iter()
                .filter(|group| !group.is_undefined())
                .collect(),
            index: start,
        }))
    }
}

impl<'a> Run<'a> {
    fn search(&self, cursor: Cursor<'a>, first: bool) -> Result<Option<Found>> {
        let rest = (cursor.text.len() - cursor.from) as u64;
        self.tick(cursor.pattern.cost + rest / READ_AHEAD)?;
        let found = cursor.pattern.find(cursor.text, cursor.from)?;
        let passed = found
            .as_ref()
            .map_or(rest, |found| (found.end - cursor.from) as u64);
        self.tick(passed / READ)?;
        match found {
            Some(found) if !first && found.start == found.end => Err(fault("D1004").at(cursor.position)),
            found => Ok(found),
        }
    }

    /// A regular expression called as a function, with a text and where to start.
    pub fn match_first(
        &self,
        pattern: &'a Pattern,
        position: usize,
        args: &[Value<'a>],
    ) -> Result<Value<'a>> {
        let text = match arg(args, 0) {
            Value::String(text) => text,
            Value::Undefined => return Ok(Value::Undefined),
            other => match self.string(&self.text(other, false)?)? {
                Value::String(text) => text,
                _ => return Ok(Value::Undefined),
            },
        };
        let from = number_arg(args, 1).unwrap_or(0.0).max(0.0) as usize;
        if from > text::units(text) {
            return Ok(Value::Undefined);
        }
        let from = text::byte_of_unit(text, from);
        self.match_object(
            Cursor {
                pattern,
                position,
                text,
                from,
            },
            true,
        )
    }

    pub fn match_next(&self, cursor: &Cursor<'a>) -> Result<Value<'a>> {
        if cursor.from >= cursor.text.len() {
            return Ok(Value::Undefined);
        }
        self.match_object(*cursor, false)
    }

    fn match_object(&self, cursor: Cursor<'a>, first: bool) -> Result<Value<'a>> {
        let Some(found) = self.search(cursor, first)? else {
            return Ok(Value::Undefined);
        };
        let units = |byte| Value::from(text::units(&cursor.text[..byte]) as f64);
        let span = |(start, end): (usize, usize)| Value::String(&cursor.text[start..end]);
        let groups: Vec<Value> = found
            .groups
            .iter()
            .map(|group| group.map_or(Value::Undefined, span))
            .collect();
        let next = self.function(Function::Next(Cursor {
            from: found.end,
            ..cursor
        }))?;
        self.object(&[
            ("match", span((found.start, found.end))),
            ("start", units(found.start)),
            ("end", units(found.end)),
            ("groups", self.array(&groups)?),
            ("next", next),
        ])
    }
}

/// A limit as an argument: none is no limit.
fn limit(args: &[Value<'_>], index: usize, code: &'static str) -> Result<f64> {
    match number_arg(args, index) {
        Some(limit) if limit < 0.0 => Err(fault(code).value(Value::from(limit))),
        limit => Ok(limit.unwrap_or(f64::INFINITY)),
    }
}

fn find_all<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let limit = limit(args, 2, "D3040")?;
    let mut found = Vec::new();
    if limit == 0.0 {
        return run.sequence(&found);
    }
    let mut matches = Matches::new(arg(args, 1), text);
    let mut next = matches.next(run)?;
    while let Some(one) = next.filter(|_| (found.len() as f64) < limit) {
        let groups = run.array(&one.groups)?;
        found.push(run.object(&[("match", one.text), ("index", one.index), ("groups", groups)])?);
        // The reference looks one match ahead of the limit.
        next = matches.next(run)?;
    }
    run.sequence(&found)
}

fn contains<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    run.tick(text.len() as u64 / 64)?;
    match arg(args, 1) {
        Value::Undefined => Ok(Value::Undefined),
        Value::String(token) => Ok(Value::Bool(text.contains(token))),
        matcher => Ok(Value::Bool(Matches::new(matcher, text).next(run)?.is_some())),
    }
}

fn replace<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let (pattern, replacement) = (arg(args, 1), arg(args, 2));
    if matches!(pattern, Value::String("")) {
        return Err(fault("D3010").value(pattern));
    }
    let limit = limit(args, 3, "D3011")?;
    if limit == 0.0 {
        return Ok(Value::String(text));
    }
    run.tick(text.len() as u64 / 64)?;
    match pattern {
        Value::String(pattern) => replace_text(run, text, pattern, replacement, limit),
        Value::Undefined => Ok(Value::String(text)),
        matcher => replace_matches(run, text, matcher, replacement, limit),
    }
}

fn replace_text<'a>(
    run: &Run<'a>,
    text: &'a str,
    pattern: &str,
    replacement: Value<'a>,
    limit: f64,
) -> Result<Value<'a>> {
    let replacement = match replacement {
        Value::String(text) => text.to_owned(),
        // What JavaScript appends.
        Value::Undefined => "undefined".to_owned(),
        other => run.text(other, false)?,
    };
    let mut result = String::new();
    let mut rest = text;
    let mut count = 0.0;
    while count < limit
        && let Some((before, after)) = rest.split_once(pattern)
    {
        run.charge(before.len() + replacement.len())?;
        run.tick(1)?;
        result.push_str(before);
        result.push_str(&replacement);
        rest = after;
        count += 1.0;
    }
    result.push_str(rest);
    run.string(&result)
}

fn replace_matches<'a>(
    run: &Run<'a>,
    text: &'a str,
    matcher: Value<'a>,
    replacement: Value<'a>,
    limit: f64,
) -> Result<Value<'a>> {
    let mut matches = Matches::new(matcher, text);
    let mut result = String::new();
    let mut position = 0;
    let mut count = 0.0;
    let mut next = matches.next(run)?;
    while let Some(one) = next.filter(|_| count < limit) {
        // `substring` swaps its ends when they are in the wrong order.
        let between = &text[position.min(one.start)..position.max(one.start)];
        run.charge(between.len())?;
        result.push_str(between);
        match replacement {
            Value::String(template) => expand(run, template, &one, &mut result)?,
            function => match run.apply_to(function, &[object_of(run, &one)?])? {
                Value::String(text) => {
                    run.charge(text.len())?;
                    result.push_str(text);
                }
                other => return Err(fault("D3012").value(other)),
            },
        }
        position = one.start + one.length;
        count += 1.0;
        next = matches.next(run)?;
    }
    result.push_str(&text[position..]);
    run.string(&result)
}

fn object_of<'a>(run: &Run<'a>, one: &Match<'a>) -> Result<Value<'a>> {
    let length = match one.text {
        Value::String(text) => text::units(text) as f64,
        _ => 0.0,
    };
    let end = match one.index {
        Value::Number(start, _) => Value::from(start + length),
        other => other,
    };
    let groups = run.array(&one.groups)?;
    run.object(&[
        ("match", one.text),
        ("start", one.index),
        ("end", end),
        ("groups", groups),
    ])
}

/// Writes a replacement: `$0` is the match, `$1` a group, `$$` a dollar.
fn expand<'a>(run: &Run<'a>, template: &str, one: &Match<'a>, out: &mut String) -> Result<()> {
    run.charge(template.len())?;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('0') {
            insert(run, one.text, out)?;
            rest = after;
        } else if let Some(index) = group_number(rest, one.groups.len()) {
            if index >= 1.0
                && let Some(group) = one.groups.get(index as usize - 1)
            {
                insert(run, *group, out)?;
            }
            rest = rest.get(number::text(index).len()..).unwrap_or("");
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(())
}

fn insert<'a>(run: &Run<'a>, value: Value<'a>, out: &mut String) -> Result<()> {
    run.tick(1)?;
    if !value.is_undefined() {
        let text = run.text(value, false)?;
        run.charge(text.len())?;
        out.push_str(&text);
    }
    Ok(())
}

/// The number of a group behind a dollar: as many digits as the count of groups has, one less if that is too much.
fn group_number(text: &str, count: usize) -> Option<f64> {
    let most = if count == 0 {
        1
    } else {
        count.ilog10() as usize + 1
    };
    let index = leading(text, most);
    if most > 1 && index.is_some_and(|index| index > count as f64) {
        return leading(text, most - 1);
    }
    index
}

fn leading(text: &str, most: usize) -> Option<f64> {
    let end = text.char_indices().nth(most).map_or(text.len(), |(byte, _)| byte);
    number::leading_integer(&text[..end])
}

fn split<'a>(run: &Run<'a>, args: &[Value<'a>]) -> Result<Value<'a>> {
    let Some(text) = text_arg(args, 0) else {
        return Ok(Value::Undefined);
    };
    let limit = limit(args, 2, "D3020")?;
    run.tick(text.len() as u64 / 64)?;
    let mut parts = Vec::new();
    match arg(args, 1) {
        Value::Undefined => parts.push(Value::String(text)),
        Value::String(separator) => {
            // `String.split` takes a whole number as its limit.
            let limit = limit.floor();
            let pieces: Box<dyn Iterator<Item = &'a str>> = if separator.is_empty() {
                Box::new(text.split("").filter(|piece| !piece.is_empty()))
            } else {
                Box::new(text.split(separator))
            };
            for piece in pieces {
                if parts.len() as f64 >= limit {
                    break;
                }
                run.tick(1)?;
                parts.push(Value::String(piece));
            }
        }
        matcher => {
            let mut matches = Matches::new(matcher, text);
            let mut start = 0;
            let mut next = if limit > 0.0 { matches.next(run)? } else { None };
            while let Some(one) = next.filter(|_| (parts.len() as f64) < limit) {
                let (low, high) = (start.min(one.start), start.max(one.start));
                parts.push(Value::String(&text[low..high]));
                start = one.end;
                next = matches.next(run)?;
            }
            if (parts.len() as f64) < limit {
                parts.push(Value::String(&text[start..]));
            }
        }
    }
    run.array(&parts)
}
