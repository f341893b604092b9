//! Values: everything is a `Copy` reference, into the caller's JSON or into the arena of one evaluation, so that nothing
//! is cloned on the way and nothing is dropped one by one.

use std::cell::Cell;

use serde_json::{Map, Value as Json};

use crate::{error::quote, function::Function, number, run::Tuple};

#[derive(Clone, Copy)]
pub enum Value<'a> {
    Undefined,
    Null,
    Bool(bool),
    /// With the literal that it has in JSON, as long as it is only handed on: nothing but [`Run::json`](crate::run::Run)
    /// and copies look at that. What is computed has none.
    Number(f64, Option<&'a str>),
    String(&'a str),
    Array(Array<'a>),
    Object(Object<'a>),
    Function(&'a Function<'a>),
    /// A stream of tuples, between the steps of a path that binds variables.
    Tuples(&'a [Tuple<'a>]),
}

/// Marks of an array. A sequence is the result of a query: one of length 1 stands for its item, an empty one for nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    pub sequence: bool,
    /// A sequence that stays an array even with one item (`[]` was written).
    pub keep: bool,
    /// Made by an array constructor in a path: not flattened.
    pub constructed: bool,
    /// Wraps the whole input, which is itself an array.
    pub wrapper: bool,
}

#[derive(Clone, Copy)]
pub struct Array<'a> {
    items: Items<'a>,
    pub marks: Marks,
}

#[derive(Clone, Copy)]
enum Items<'a> {
    Json(&'a [Json]),
    Values(&'a [Value<'a>]),
    /// Consecutive integers, not stored.
    Range {
        first: f64,
        count: usize,
    },
}

impl<'a> Array<'a> {
    pub fn new(values: &'a [Value<'a>]) -> Array<'a> {
        Array {
            items: Items::Values(values),
            marks: Marks::default(),
        }
    }

    pub fn sequence(values: &'a [Value<'a>]) -> Array<'a> {
        Array::new(values).marked(Marks {
            sequence: true,
            ..Marks::default()
        })
    }

    pub fn range(first: f64, count: usize) -> Array<'a> {
        Array {
            items: Items::Range { first, count },
            marks: Marks {
                sequence: true,
                ..Marks::default()
            },
        }
    }

    pub fn marked(mut self, marks: Marks) -> Array<'a> {
        self.marks = marks;
        self
    }

    /// The same items, as an array that is not a sequence.
    pub fn plain(self) -> Array<'a> {
        self.marked(Marks::default())
    }

    pub fn len(&self) -> usize {
        match self.items {
            Items::Json(items) => items.len(),
            Items::Values(items) => items.len(),
            Items::Range { count, .. } => count,
        }
    }

    /// The item at `index`, undefined beyond the end.
    pub fn get(&self, index: usize) -> Value<'a> {
        match self.items {
            Items::Json(items) => items.get(index).map_or(Value::Undefined, Value::from),
            Items::Values(items) => items.get(index).copied().unwrap_or(Value::Undefined),
            Items::Range { first, count } if index < count => Value::from(first + index as f64),
            Items::Range { .. } => Value::Undefined,
        }
    }

    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).map(move |index| self.get(index))
    }

    fn same(&self, other: &Array<'a>) -> bool {
        match (self.items, other.items) {
            (Items::Json(left), Items::Json(right)) => std::ptr::eq(left, right),
            (Items::Values(left), Items::Values(right)) => std::ptr::eq(left, right),
            _ => false,
        }
    }
}

#[derive(Clone, Copy)]
pub enum Object<'a> {
    Json(&'a Map<String, Json>),
    Built(&'a Built<'a>),
}

/// An object that this evaluation made. Only a transform replaces its entries, and only in its own copy.
pub struct Built<'a>(pub Cell<Entries<'a>>);

#[derive(Clone, Copy)]
pub struct Entries<'a> {
    /// In order of insertion, keys unique.
    list: &'a [(&'a str, Value<'a>)],
    /// Indexes into the list in order of the keys; empty for short lists.
    order: &'a [u32],
}

/// Up to here a linear search is faster.
pub const SHORT: usize = 12;

impl<'a> Entries<'a> {
    pub fn new(list: &'a [(&'a str, Value<'a>)], order: &'a [u32]) -> Entries<'a> {
        Entries { list, order }
    }

    fn get(&self, key: &str) -> Value<'a> {
        if self.list.len() <= SHORT {
            let found = self.list.iter().find(|(name, _)| *name == key);
            return found.map_or(Value::Undefined, |(_, value)| *value);
        }
        let found = self
            .order
            .binary_search_by(|index| self.list[*index as usize].0.cmp(key));
        found.map_or(Value::Undefined, |at| self.list[self.order[at] as usize].1)
    }
}

impl<'a> Object<'a> {
    pub fn len(&self) -> usize {
        match self {
            Object::Json(map) => map.len(),
            Object::Built(built) => built.0.get().list.len(),
        }
    }

    pub fn get(&self, key: &str) -> Value<'a> {
        match self {
            Object::Json(map) => map.get(key).map_or(Value::Undefined, Value::from),
            Object::Built(built) => built.0.get().get(key),
        }
    }

    pub fn iter(self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let (map, list) = match self {
            Object::Json(map) => (Some(map), &[][..]),
            Object::Built(built) => (None, built.0.get().list),
        };
        let entries = map
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), Value::from(value)));
        entries.chain(list.iter().copied())
    }

    fn same(&self, other: &Object<'a>) -> bool {
        match (self, other) {
            (Object::Json(left), Object::Json(right)) => std::ptr::eq(*left, *right),
            (Object::Built(left), Object::Built(right)) => std::ptr::eq(*left, *right),
            _ => false,
        }
    }
}

impl<'a> From<&'a Json> for Value<'a> {
    fn from(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(value) => Value::literal(value.as_str()),
            Json::String(value) => Value::String(value),
            Json::Array(items) => Value::Array(Array {
                items: Items::Json(items),
                marks: Marks::default(),
            }),
            Json::Object(map) => Value::Object(Object::Json(map)),
        }
    }
}

impl<'a> From<bool> for Value<'a> {
    fn from(value: bool) -> Value<'a> {
        Value::Bool(value)
    }
}

impl<'a> From<f64> for Value<'a> {
    fn from(value: f64) -> Value<'a> {
        Value::Number(value, None)
    }
}

impl<'a> Value<'a> {
    /// A number of JSON.
    pub fn literal(text: &'a str) -> Value<'a> {
        Value::Number(number::double(text), Some(text))
    }

    pub fn is_undefined(self) -> bool {
        matches!(self, Value::Undefined)
    }

    pub fn is_function(self) -> bool {
        matches!(self, Value::Function(_))
    }

    /// Identity (`===`): scalars by value, the rest by reference.
    pub fn same(self, other: Value<'a>) -> bool {
        match (self, other) {
            (Value::Undefined, Value::Undefined) | (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Number(left, _), Value::Number(right, _)) => left == right,
            (Value::String(left), Value::String(right)) => left == right,
            (Value::Array(left), Value::Array(right)) => left.same(&right),
            (Value::Object(left), Value::Object(right)) => left.same(&right),
            (Value::Function(left), Value::Function(right)) => std::ptr::eq(left, right),
            _ => false,
        }
    }

    /// The value as JSON in a message: short, and never deeper than a few levels.
    pub fn brief(self) -> String {
        let mut text = String::new();
        if matches!(self, Value::Undefined) {
            return "undefined".to_owned();
        }
        self.write_brief(&mut text, 0);
        text
    }

    fn write_brief(self, text: &mut String, depth: usize) {
        if text.len() > BRIEF_BYTES || depth > BRIEF_DEPTH {
            return text.push('…');
        }
        match self {
            Value::Undefined | Value::Null => text.push_str("null"),
            Value::Bool(value) => text.push_str(if value { "true" } else { "false" }),
            Value::Number(value, _) if value.is_finite() => text.push_str(&number::text(value)),
            Value::Number(..) => text.push_str("null"),
            Value::String(value) => {
                let end = value.floor_char_boundary(BRIEF_BYTES);
                text.push_str(&quote(&value[..end]));
            }
            Value::Function(_) | Value::Tuples(_) => text.push_str("\"\""),
            Value::Array(items) => {
                text.push('[');
                for (index, item) in items.iter().take(BRIEF_BYTES).enumerate() {
                    text.push_str(if index > 0 { "," } else { "" });
                    item.write_brief(text, depth + 1);
                    if text.len() > BRIEF_BYTES {
                        break;
                    }
                }
                text.push(']');
            }
            Value::Object(object) => {
                text.push('{');
                let mut comma = "";
                for (key, value) in object.iter().filter(|(_, value)| !value.is_undefined()) {
                    text.push_str(comma);
                    text.push_str(&quote(key));
                    text.push(':');
                    value.write_brief(text, depth + 1);
                    comma = ",";
                    if text.len() > BRIEF_BYTES {
                        break;
                    }
                }
                text.push('}');
            }
        }
    }
}

/// What a message quotes of a value.
const BRIEF_BYTES: usize = 32 * 1024;
const BRIEF_DEPTH: usize = 100;
