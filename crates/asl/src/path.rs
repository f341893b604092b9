//! JSONPath as AWS speaks it: Jayway's dialect, where a path that can only name one node yields that node or fails, and
//! any other path yields the list of what it found, empty if nothing.

pub mod filter;
mod function;
mod parse;

use crate::scope::{Budget, Spent};
use filter::Filter;
use function::Function;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A parsed path and the text that it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    root: Root,
    steps: Vec<Hop>,
    /// Applied to what the steps find.
    function: Option<Function>,
    text: String,
}

/// Where a path starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// `$`: the data at hand.
    Data,
    /// `$$`: the context object.
    Context,
    /// `$name`: a variable.
    Variable(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Hop {
    Key(String),
    Index(i64),
    Wildcard,
    Keys(Vec<String>),
    Indices(Vec<i64>),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        by: i64,
    },
    Filter(Box<Filter>),
    /// `..`: the node and everything below it.
    Descend,
}

/// Why a path yielded nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    Variable(String),
    /// The last step found nothing; the text is the path as Jayway normalises it.
    Leaf(String),
    /// A step before the last found nothing.
    Middle(String),
    Spent,
}

impl Path {
    /// Reads a path that must be the whole of `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::whole(text)
    }

    /// Reads a path at the start of `text`, where an argument of an intrinsic function ends at a comma, a bracket or a
    /// blank; the rest of the text is returned too.
    pub fn prefix(text: &str) -> Result<(Self, &str), String> {
        parse::prefix(text)
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the path names exactly one node: a Reference Path.
    pub fn is_reference(&self) -> bool {
        self.function.is_none() && self.is_single()
    }

    fn is_single(&self) -> bool {
        self.steps
            .iter()
            .all(|step| matches!(step, Hop::Key(_) | Hop::Index(_)))
    }

    /// A copy of what the path selects below `root`.
    pub fn read(&self, root: &Value, budget: &Budget) -> Result<Value, Missing> {
        match self.look(root, budget)? {
            Cow::Borrowed(found) => Ok(budget.copy(found)?),
            Cow::Owned(found) => Ok(found),
        }
    }

    /// What the path selects below `root`, copied only when it is a list that is nowhere in the data.
    pub fn look<'a>(&self, root: &'a Value, budget: &Budget) -> Result<Cow<'a, Value>, Missing> {
        let found = if self.is_single() {
            Cow::Borrowed(self.find(root)?)
        } else {
            let mut found = Vec::new();
            for node in self.select(root, budget)? {
                found.push(budget.copy(node)?);
            }
            Cow::Owned(Value::Array(found))
        };
        let Some(function) = self.function else {
            return Ok(found);
        };
        if let Value::Array(items) = &*found {
            budget.visit(items.len())?;
        }
        let answer = function
            .apply(&found)
            .ok_or_else(|| Missing::Leaf(format!("{}.{}()", normal(&self.steps), function.name())))?;
        Ok(Cow::Owned(answer))
    }

    /// Whether the path selects anything.
    pub fn exists(&self, root: &Value, budget: &Budget) -> Result<bool, Spent> {
        if self.function.is_some() {
            match self.look(root, budget) {
                Err(Missing::Spent) => Err(Spent),
                found => Ok(found.is_ok()),
            }
        } else if self.is_single() {
            Ok(self.find(root).is_ok())
        } else {
            Ok(!self.select(root, budget)?.is_empty())
        }
    }

    /// The one node of a reference path.
    fn find<'a>(&self, root: &'a Value) -> Result<&'a Value, Missing> {
        let mut node = root;
        for (at, step) in self.steps.iter().enumerate() {
            node = child(node, step).ok_or_else(|| {
                let text = normal(&self.steps[..=at]);
                if at + 1 == self.steps.len() {
                    Missing::Leaf(text)
                } else {
                    Missing::Middle(text)
                }
            })?;
        }
        Ok(node)
    }

    fn select<'a>(&self, root: &'a Value, budget: &Budget) -> Result<Vec<&'a Value>, Spent> {
        let mut nodes = vec![root];
        for step in &self.steps {
            let mut next = Vec::new();
            for node in nodes {
                step.apply(node, root, &mut next, budget)?;
            }
            nodes = next;
        }
        Ok(nodes)
    }

    /// Puts `value` where a reference path points, creating the objects on the way; `None` when something that is not an
    /// object or has no such element is in the way.
    pub fn write(&self, root: Value, value: Value) -> Option<Value> {
        let Some((last, way)) = self.steps.split_last() else {
            return Some(value);
        };
        let mut root = root;
        let mut node = &mut root;
        for step in way {
            node = open(node, step)?;
        }
        *open(node, last)? = value;
        Some(root)
    }
}

/// The slot that `step` names in `node`, made if it is missing in an object.
fn open<'a>(node: &'a mut Value, step: &Hop) -> Option<&'a mut Value> {
    match step {
        Hop::Key(key) => {
            if node.is_null() {
                *node = Value::Object(Map::new());
            }
            Some(node.as_object_mut()?.entry(key.as_str()).or_insert(Value::Null))
        }
        Hop::Index(index) => {
            let items = node.as_array_mut()?;
            let at = position(*index, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    }
}

fn child<'a>(node: &'a Value, step: &Hop) -> Option<&'a Value> {
    match step {
        Hop::Key(key) => node.as_object()?.get(key),
        Hop::Index(index) => {
            let items = node.as_array()?;
            items.get(position(*index, items.len())?)
        }
        _ => None,
    }
}

/// Counts from the end when negative.
fn position(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        usize::try_from(index).ok()
    } else {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    }
}

impl Hop {
    fn apply<'a>(
        &self,
        node: &'a Value,
        root: &'a Value,
        found: &mut Vec<&'a Value>,
        budget: &Budget,
    ) -> Result<(), Spent> {
        budget.visit(1)?;
        match self {
            Self::Key(_) | Self::Index(_) => found.extend(child(node, self)),
            Self::Keys(keys) => found.extend(keys.iter().filter_map(|key| node.get(key))),
            Self::Indices(indices) => {
                if let Value::Array(items) = node {
                    let nodes = indices
                        .iter()
                        .filter_map(|index| items.get(position(*index, items.len())?));
                    found.extend(nodes);
                }
            }
            Self::Wildcard => {
                let nodes = children(node);
                budget.visit(nodes.len())?;
                found.extend(nodes);
            }
            Self::Slice { from, to, by } => {
                if let Value::Array(items) = node {
                    budget.visit(items.len())?;
                    found.extend(slice(items, *from, *to, *by));
                }
            }
            Self::Filter(filter) => {
                let nodes = if node.is_array() {
                    children(node)
                } else {
                    vec![node]
                };
                for node in nodes {
                    if filter.keeps(node, root, budget)? {
                        found.push(node);
                    }
                }
            }
            Self::Descend => {
                let mut queue = vec![node];
                while let Some(node) = queue.pop() {
                    budget.visit(1)?;
                    found.push(node);
                    queue.extend(children(node).into_iter().rev());
                }
            }
        }
        Ok(())
    }
}

fn children(node: &Value) -> Vec<&Value> {
    match node {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

fn slice(items: &[Value], from: Option<i64>, to: Option<i64>, by: i64) -> impl Iterator<Item = &Value> {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let bound = |at: i64| (if at < 0 { length.saturating_add(at) } else { at }).clamp(0, length);
    let (from, to) = (bound(from.unwrap_or(0)), bound(to.unwrap_or(length)));
    let by = usize::try_from(by.max(1)).unwrap_or(usize::MAX);
    let range = if from < to {
        from as usize..to as usize
    } else {
        0..0
    };
    items[range].iter().step_by(by)
}

/// `$['a'][0]`, the form in Jayway's messages.
fn normal(steps: &[Hop]) -> String {
    let mut text = String::from("$");
    for step in steps {
        match step {
            Hop::Key(key) => text.push_str(&format!("['{key}']")),
            Hop::Index(index) => text.push_str(&format!("[{index}]")),
            _ => text.push_str("[*]"),
        }
    }
    text
}

impl From<Spent> for Missing {
    fn from(Spent: Spent) -> Self {
        Self::Spent
    }
}

impl Missing {
    /// Jayway's sentence.
    pub fn reason(&self) -> String {
        match self {
            Self::Variable(name) => format!("The variable '{name}' is not defined"),
            Self::Leaf(path) => format!("No results for path: {path}"),
            Self::Middle(path) => format!("Missing property in path {path}"),
            Self::Spent => "The path selects too much".into(),
        }
    }
}

#[cfg(test)]
mod tests;
