//! Filters: `[?(@.price < 10 && @.kind == 'book')]`.

use super::Path;
use crate::decimal;
use crate::scope::{Budget, Spent};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    Exists(Path),
    Compare {
        left: Operand,
        comparison: Comparison,
        right: Operand,
    },
    Not(Box<Filter>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// `@…`
    Node(Path),
    /// `$…`
    Root(Path),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    SubsetOf,
    AnyOf,
    NoneOf,
    Contains,
    Size,
    Empty,
}

/// The comparisons that are words.
pub const WORDS: [(&str, Comparison); 8] = [
    ("in", Comparison::In),
    ("nin", Comparison::NotIn),
    ("subsetof", Comparison::SubsetOf),
    ("anyof", Comparison::AnyOf),
    ("noneof", Comparison::NoneOf),
    ("contains", Comparison::Contains),
    ("size", Comparison::Size),
    ("empty", Comparison::Empty),
];

impl Filter {
    pub fn keeps(&self, node: &Value, root: &Value, budget: &Budget) -> Result<bool, Spent> {
        budget.visit(1)?;
        Ok(match self {
            Self::Exists(path) => path.exists(node, budget)?,
            Self::Not(filter) => !filter.keeps(node, root, budget)?,
            Self::All(filters) => {
                for filter in filters {
                    if !filter.keeps(node, root, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Any(filters) => {
                for filter in filters {
                    if filter.keeps(node, root, budget)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::Compare {
                left,
                comparison,
                right,
            } => {
                let left = left.value(node, root, budget)?;
                let right = right.value(node, root, budget)?;
                // Lists are compared with each other, each item with each.
                let lists =
                    [&left, &right].map(|side| side.as_deref().and_then(items).map_or(1, <[Value]>::len));
                budget.visit(lists[0].saturating_mul(lists[1]))?;
                comparison.holds(left.as_deref(), right.as_deref())
            }
        })
    }
}

impl Operand {
    fn value<'a>(
        &'a self,
        node: &'a Value,
        root: &'a Value,
        budget: &Budget,
    ) -> Result<Option<Cow<'a, Value>>, Spent> {
        let (path, from) = match self {
            Self::Literal(value) => return Ok(Some(Cow::Borrowed(value))),
            Self::Node(path) => (path, node),
            Self::Root(path) => (path, root),
        };
        match path.look(from, budget) {
            Ok(value) => Ok(Some(value)),
            Err(super::Missing::Spent) => Err(Spent),
            Err(_) => Ok(None),
        }
    }
}

impl Comparison {
    fn holds(self, left: Option<&Value>, right: Option<&Value>) -> bool {
        let (Some(left), Some(right)) = (left, right) else {
            return self == Self::Unequal && left.is_some() != right.is_some();
        };
        match self {
            Self::Equal => equal(left, right),
            Self::Unequal => !equal(left, right),
            Self::Less => order(left, right) == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order(left, right), Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order(left, right) == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order(left, right), Some(Ordering::Greater | Ordering::Equal)),
            Self::In => has(right, left),
            Self::NotIn => !has(right, left),
            Self::SubsetOf => items(left).is_some_and(|items| items.iter().all(|item| has(right, item))),
            Self::AnyOf => items(left).is_some_and(|items| items.iter().any(|item| has(right, item))),
            Self::NoneOf => items(left).is_some_and(|items| !items.iter().any(|item| has(right, item))),
            Self::Contains => match (left, right) {
                (Value::String(left), Value::String(right)) => left.contains(right.as_str()),
                _ => has(left, right),
            },
            Self::Size => length(left).is_some_and(|length| right.as_u64() == Some(length as u64)),
            Self::Empty => length(left).is_some_and(|length| right.as_bool() == Some(length == 0)),
        }
    }
}

fn items(value: &Value) -> Option<&[Value]> {
    value.as_array().map(Vec::as_slice)
}

fn has(list: &Value, wanted: &Value) -> bool {
    items(list).is_some_and(|items| items.iter().any(|item| equal(item, wanted)))
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::Array(items) => Some(items.len()),
        Value::String(text) => Some(text.chars().count()),
        _ => None,
    }
}

/// Equality where 1 and 1.0 are the same number.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => decimal::order(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| equal(left, right)))
        }
        _ => left == right,
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Some(decimal::order(left, right)),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}
