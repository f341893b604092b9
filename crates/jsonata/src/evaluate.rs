//! What each kind of node means.

mod call;
mod group;
mod operator;
mod path;
mod sort;
mod transform;
mod tuple;
mod walk;

use crate::{
    error::{Result, fault},
    function::Function,
    run::{Frame, Key, Run},
    tree::{Kind, Node},
    value::{Array, Marks, Value},
};

impl<'a> Run<'a> {
    /// The value of a node, with `input` as `$`.
    pub fn eval(&self, node: &'a Node, input: Value<'a>, frame: &'a Frame<'a>) -> Result<Value<'a>> {
        self.deeper(|| {
            let mut result = self.kind(node, input, frame)?;
            for predicate in &node.predicates {
                result = self.filter(predicate, result, frame)?;
            }
            if let Some(group) = &node.group
                && !node.is_path()
            {
                result = self.group(group, result, frame)?;
            }
            Ok(settle(result, node.keep_array))
        })
    }

    fn kind(&self, node: &'a Node, input: Value<'a>, frame: &'a Frame<'a>) -> Result<Value<'a>> {
        match &node.kind {
            Kind::Path(path) => self.path(node, path, input, frame),
            Kind::Name(name) => self.member(input, name),
            Kind::Variable(name) => self.variable(name, input, frame),
            Kind::String(text) => Ok(Value::String(text)),
            Kind::Number(value) => Ok(Value::from(*value)),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Null => Ok(Value::Null),
            Kind::Regex(pattern) => self.function(Function::Regex(pattern, node.position)),
            Kind::Wildcard => self.wildcard(input),
            Kind::Descendant => self.descendants(input),
            Kind::Parent(slot) => self.lookup(frame, Key::Label(slot.label())),
            Kind::Placeholder | Kind::Sort(_) => Ok(Value::Undefined),
            Kind::Binary(operator, left, right) => {
                self.binary(operator, node.position, [left, right], input, frame)
            }
            Kind::Apply(left, right) => self.chain(node, [left, right], input, frame),
            Kind::Bind(name, right) => {
                let value = self.eval(right, input, frame)?;
                self.bind(frame, name, value)?;
                Ok(value)
            }
            Kind::Negate(part) => self.negate(self.eval(part, input, frame)?, node.position),
            Kind::Array(items) => self.construct(items, node.constructed, input, frame),
            Kind::Object(group) => self.group(group, input, frame),
            Kind::Function(call) if node.tail => self.function(Function::Tail { call, input, frame }),
            Kind::Function(call) => self.call(call, node.position, None, input, frame),
            Kind::Partial(call) => self.partial(call, node.position, input, frame),
            Kind::Lambda(lambda) => self.function(Function::Lambda { lambda, input, frame }),
            Kind::Block(parts) => self.block(parts, input, frame),
            Kind::Condition(condition, then, other) => {
                if self.truth(self.eval(condition, input, frame)?)? {
                    return self.eval(then, input, frame);
                }
                other
                    .as_ref()
                    .map_or(Ok(Value::Undefined), |other| self.eval(other, input, frame))
            }
            Kind::Default(left, right) => {
                let value = self.eval(left, input, frame)?;
                if self.truth(value)? {
                    Ok(value)
                } else {
                    self.eval(right, input, frame)
                }
            }
            Kind::Coalesce(left, right) => match self.eval(left, input, frame)? {
                Value::Undefined => self.eval(right, input, frame),
                value => Ok(value),
            },
            Kind::Transform(transform) => self.function(Function::Transform {
                transform,
                frame,
                position: node.position,
            }),
        }
    }

    fn variable(&self, name: &'a str, input: Value<'a>, frame: &'a Frame<'a>) -> Result<Value<'a>> {
        match input {
            Value::Array(items) if name.is_empty() && items.marks.wrapper => Ok(items.get(0)),
            _ if name.is_empty() => Ok(input),
            _ => self.lookup(frame, Key::Name(name)),
        }
    }

    fn block(&self, parts: &'a [Node], input: Value<'a>, frame: &'a Frame<'a>) -> Result<Value<'a>> {
        let frame = self.frame(Some(frame))?;
        let mut result = Value::Undefined;
        for part in parts {
            result = self.eval(part, input, frame)?;
        }
        Ok(result)
    }

    fn negate(&self, value: Value<'a>, position: usize) -> Result<Value<'a>> {
        match value {
            Value::Undefined => Ok(value),
            Value::Number(number, _) => {
                self.finite(number)?;
                Ok(Value::from(-number))
            }
            _ => Err(fault("D1002").at(position).token("-").value(value)),
        }
    }

    /// An array constructor. Arrays written in it stay as they are, others are spread.
    fn construct(
        &self,
        items: &'a [Node],
        constructed: bool,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let mut result: Vec<Value> = Vec::new();
        let mut whole = None;
        for item in items {
            match self.eval(item, input, frame)? {
                Value::Undefined => {}
                Value::Array(array) if !matches!(item.kind, Kind::Array(_)) => {
                    if items.len() == 1 {
                        whole = Some(array.plain());
                    } else {
                        self.spread_into(&mut result, array)?;
                    }
                }
                value => result.push(value),
            }
        }
        let array = match whole {
            Some(array) => array,
            None => Array::new(self.slice(&result)?),
        };
        Ok(Value::Array(array.marked(Marks {
            constructed,
            ..Marks::default()
        })))
    }

    /// Adds the items of an array, counted before they are held.
    pub fn spread_into(&self, result: &mut Vec<Value<'a>>, array: Array<'a>) -> Result<()> {
        self.charge(array.len() * size_of::<Value>())?;
        self.tick(array.len() as u64 / ITEMS_A_STEP)?;
        result.extend(array.iter());
        Ok(())
    }

    /// The field `name` of an object, or of all objects in an array.
    pub fn member(&self, input: Value<'a>, name: &str) -> Result<Value<'a>> {
        match input {
            Value::Object(object) => Ok(object.get(name)),
            Value::Array(items) => {
                let mut found = Vec::new();
                self.tick(items.len() as u64)?;
                for item in items.iter() {
                    match item {
                        Value::Object(object) => match object.get(name) {
                            Value::Undefined => {}
                            Value::Array(array) => self.spread_into(&mut found, array)?,
                            value => found.push(value),
                        },
                        Value::Array(_) => {
                            if let Value::Array(array) = self.deeper(|| self.member(item, name))? {
                                self.spread_into(&mut found, array)?;
                            }
                        }
                        _ => {}
                    }
                }
                self.sequence(&found)
            }
            _ => Ok(Value::Undefined),
        }
    }

    fn wildcard(&self, input: Value<'a>) -> Result<Value<'a>> {
        let input = match input {
            Value::Array(items) if items.marks.wrapper && items.len() > 0 => items.get(0),
            _ => input,
        };
        let values: Vec<Value> = match input {
            Value::Object(object) => object.iter().map(|(_, value)| value).collect(),
            Value::Array(items) => {
                let mut values = Vec::new();
                self.spread_into(&mut values, items)?;
                values
            }
            _ => return self.sequence(&[]),
        };
        let mut result = Vec::new();
        let mut plain = false;
        for value in values {
            plain |= matches!(value, Value::Array(_));
            self.flatten(value, &mut result, 0)?;
        }
        if plain {
            self.array(&result)
        } else {
            self.sequence(&result)
        }
    }

    fn descendants(&self, input: Value<'a>) -> Result<Value<'a>> {
        if input.is_undefined() {
            return Ok(input);
        }
        let mut result = Vec::new();
        self.descend(input, &mut result, 0)?;
        match result[..] {
            [one] => Ok(one),
            _ => self.sequence(&result),
        }
    }

    /// A number that JSON can hold.
    pub fn finite(&self, number: f64) -> Result<f64> {
        if number.is_infinite() {
            return Err(fault("D1001").value(Value::from(number)));
        }
        Ok(number)
    }

    /// The effective boolean value (`$boolean`); undefined is false.
    pub fn truth(&self, value: Value<'a>) -> Result<bool> {
        Ok(match value {
            Value::Undefined | Value::Null | Value::Function(_) => false,
            Value::Bool(value) => value,
            Value::Number(number, _) => !number.is_nan() && self.finite(number)? != 0.0,
            Value::String(text) => !text.is_empty(),
            Value::Object(object) => object.len() > 0,
            Value::Tuples(tuples) => !tuples.is_empty(),
            Value::Array(items) => {
                for item in items.iter() {
                    if self.deeper(|| self.truth(item))? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }
}

/// A sequence of one is its item, unless it is to be kept; an empty one is nothing.
pub fn settle(value: Value<'_>, keep: bool) -> Value<'_> {
    let Value::Array(mut items) = value else {
        return value;
    };
    if !items.marks.sequence {
        return value;
    }
    items.marks.keep |= keep;
    match items.len() {
        0 => Value::Undefined,
        1 if !items.marks.keep => items.get(0),
        _ => Value::Array(items),
    }
}

/// Moving so many items counts as one step.
pub const ITEMS_A_STEP: u64 = 8;
