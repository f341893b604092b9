//! Walks through whole values. Each counts what it visits and refuses to go too deep: a transform can tie a value to
//! itself, and a small program can nest one value in another without end.

use serde_json::{Map, Number, Value as Json};

use crate::{
    error::{Result, fault, quote},
    number,
    run::{NESTING, Run},
    value::{Object, Value},
};

impl<'a> Run<'a> {
    fn enter(&self, depth: usize) -> Result<()> {
        self.tick(1)?;
        if depth > NESTING {
            return Err(fault("U1004").insert("value", NESTING.to_string()));
        }
        Ok(())
    }

    /// The value as JSON; none if it is undefined or a function.
    pub fn json(&self, value: Value<'a>, depth: usize) -> Result<Option<Json>> {
        self.enter(depth)?;
        Ok(Some(match value {
            Value::Undefined | Value::Function(_) => return Ok(None),
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Number(_, Some(literal)) => {
                self.charge(literal.len())?;
                Json::Number(Number::from_string_unchecked(literal.to_owned()))
            }
            Value::Number(value, None) => json_number(value)?,
            Value::String(text) => {
                self.charge(text.len())?;
                Json::String(text.to_owned())
            }
            Value::Array(items) => {
                self.charge(items.len() * size_of::<Json>())?;
                let items = items.iter().map(|item| self.json(item, depth + 1));
                let items = items.map(|item| Ok(item?.unwrap_or_default()));
                Json::Array(items.collect::<Result<_>>()?)
            }
            Value::Tuples(tuples) => {
                let items = tuples.iter().map(|tuple| self.json(tuple.at, depth + 1));
                let items = items.map(|item| Ok(item?.unwrap_or_default()));
                Json::Array(items.collect::<Result<_>>()?)
            }
            Value::Object(object) => {
                let mut map = Map::new();
                for (key, value) in object.iter() {
                    self.charge(key.len() + size_of::<Json>())?;
                    if let Some(value) = self.json(value, depth + 1)? {
                        map.insert(key.to_owned(), value);
                    }
                }
                Json::Object(map)
            }
        }))
    }

    /// The value as text, as `$string` and `&` make it. `pretty`: indented by two.
    pub fn text(&self, value: Value<'a>, pretty: bool) -> Result<String> {
        match value {
            Value::String(text) => return Ok(text.to_owned()),
            Value::Function(_) | Value::Undefined => return Ok(String::new()),
            Value::Number(number, _) if !number.is_finite() => return Err(fault("D3001").value(value)),
            _ => {}
        }
        let value = match value {
            Value::Array(items) if items.marks.wrapper => items.get(0),
            value => value,
        };
        let mut out = String::new();
        self.write(value, pretty, 0, &mut out)?;
        Ok(out)
    }

    fn write(&self, value: Value<'a>, pretty: bool, depth: usize, out: &mut String) -> Result<()> {
        self.enter(depth)?;
        let before = out.len();
        match value {
            Value::Undefined | Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Value::Number(number, _) if number.is_nan() => out.push_str("null"),
            Value::Number(number, _) => {
                out.push_str(&number::text(number::significant(self.finite(number)?)))
            }
            Value::String(text) => {
                self.charge(text.len())?;
                out.push_str(&quote(text));
            }
            Value::Function(_) | Value::Tuples(_) => out.push_str("\"\""),
            Value::Array(items) => {
                let mut list = List::open('[', pretty, depth, out);
                for item in items.iter() {
                    list.next(out);
                    self.write(item, pretty, depth + 1, out)?;
                }
                list.close(']', out);
            }
            Value::Object(object) => {
                let mut list = List::open('{', pretty, depth, out);
                for (key, value) in object.iter().filter(|(_, value)| !value.is_undefined()) {
                    list.next(out);
                    out.push_str(&quote(key));
                    out.push_str(if pretty { ": " } else { ":" });
                    self.write(value, pretty, depth + 1, out)?;
                }
                list.close('}', out);
            }
        }
        if depth < 2 {
            self.charge(out.len() - before)?;
        }
        Ok(())
    }

    /// Deep equality; objects are equal with their keys in any order.
    pub fn equal(&self, left: Value<'a>, right: Value<'a>, depth: usize) -> Result<bool> {
        self.enter(depth)?;
        self.read_both(left, right)?;
        Ok(match (left, right) {
            _ if left.same(right) => true,
            (Value::Array(left), Value::Array(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right.iter()) {
                    if !self.equal(left, right, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Object(left), Value::Object(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (key, value) in left.iter() {
                    let other = right.get(key);
                    if other.is_undefined() || !self.equal(value, other, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// A copy that shares no object with the original, as writing it to text and reading it again gives.
    pub fn copy(&self, value: Value<'a>, depth: usize) -> Result<Value<'a>> {
        self.enter(depth)?;
        Ok(match value {
            Value::Number(number, _) if number.is_nan() => Value::Null,
            Value::Number(number, literal) => {
                let written = number::significant(self.finite(number)?);
                Value::Number(written, literal.filter(|_| written == number))
            }
            Value::Function(_) => Value::String(""),
            Value::Array(items) => {
                self.charge(items.len() * size_of::<Value>())?;
                let copies = items.iter().map(|item| match item {
                    Value::Undefined => Ok(Value::Null),
                    item => self.copy(item, depth + 1),
                });
                self.array(&copies.collect::<Result<Vec<_>>>()?)?
            }
            Value::Object(object) => {
                let mut entries = Vec::with_capacity(object.len());
                for (key, value) in object.iter().filter(|(_, value)| !value.is_undefined()) {
                    entries.push((key, self.copy(value, depth + 1)?));
                }
                self.object(&entries)?
            }
            other => other,
        })
    }

    /// All that is in arrays in arrays.
    pub fn flatten(&self, value: Value<'a>, result: &mut Vec<Value<'a>>, depth: usize) -> Result<()> {
        self.enter(depth)?;
        match value {
            Value::Array(items) => {
                self.charge(items.len() * size_of::<Value>())?;
                for item in items.iter() {
                    self.flatten(item, result, depth + 1)?;
                }
            }
            value => result.push(value),
        }
        Ok(())
    }

    /// The value and all that it holds, but for arrays themselves.
    pub fn descend(&self, value: Value<'a>, result: &mut Vec<Value<'a>>, depth: usize) -> Result<()> {
        self.enter(depth)?;
        self.charge(size_of::<Value>())?;
        if !matches!(value, Value::Array(_)) {
            result.push(value);
        }
        match value {
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| self.descend(item, result, depth + 1)),
            Value::Object(object) => object
                .iter()
                .try_for_each(|(_, value)| self.descend(value, result, depth + 1)),
            _ => Ok(()),
        }
    }

    /// The value of JSON that was made during the evaluation, copied into the arena.
    pub fn adopt(&self, json: &Json, depth: usize) -> Result<Value<'a>> {
        self.enter(depth)?;
        match json {
            Json::String(text) => self.string(text),
            Json::Array(items) => {
                let items = items.iter().map(|item| self.adopt(item, depth + 1));
                self.array(&items.collect::<Result<Vec<_>>>()?)
            }
            Json::Object(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for (key, value) in map {
                    self.charge(key.len())?;
                    entries.push((&*self.arena.alloc_str(key), self.adopt(value, depth + 1)?));
                }
                self.object(&entries)
            }
            Json::Null => Ok(Value::Null),
            Json::Bool(value) => Ok(Value::Bool(*value)),
            Json::Number(value) => {
                self.charge(value.as_str().len())?;
                Ok(Value::literal(self.arena.alloc_str(value.as_str())))
            }
        }
    }

    /// Changes an object of this evaluation; others are left alone.
    pub fn replace(&self, object: Object<'a>, entries: &[(&'a str, Value<'a>)]) -> Result<()> {
        if let Object::Built(built) = object {
            built.0.set(self.entries(entries)?);
        }
        Ok(())
    }
}

/// Brackets and commas of JSON text.
struct List {
    indent: Option<usize>,
    empty: bool,
}

impl List {
    fn open(bracket: char, pretty: bool, depth: usize, out: &mut String) -> List {
        out.push(bracket);
        List {
            indent: pretty.then_some(depth),
            empty: true,
        }
    }

    fn next(&mut self, out: &mut String) {
        if !self.empty {
            out.push(',');
        }
        self.empty = false;
        self.line(1, out);
    }

    fn close(&self, bracket: char, out: &mut String) {
        if !self.empty {
            self.line(0, out);
        }
        out.push(bracket);
    }

    fn line(&self, more: usize, out: &mut String) {
        if let Some(depth) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth + more));
        }
    }
}

/// Whole numbers are written without a point and with the digits that JavaScript writes.
fn json_number(value: f64) -> Result<Json> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = if value.fract() == 0.0 && value.abs() < EXACT {
        Some(Number::from(value as i64))
    } else if value.fract() == 0.0 {
        let text = number::text(value);
        let signed = text.parse::<i64>().map(Number::from);
        let whole = signed.or_else(|_| text.parse::<u64>().map(Number::from));
        whole.ok().or_else(|| Number::from_f64(value))
    } else {
        Number::from_f64(value)
    };
    number
        .map(Json::Number)
        .ok_or_else(|| fault("D1001").value(Value::from(value)))
}
