//! Binary operators.

use crate::{
    error::{Fault, Result, fault},
    run::{Frame, Run},
    text,
    tree::Node,
    value::{Array, Value},
};

/// The longest range that may be made.
const RANGE: f64 = 1e7;

impl<'a> Run<'a> {
    pub(super) fn binary(
        &self,
        operator: &'static str,
        position: usize,
        [left, right]: [&'a Node; 2],
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let about = |fault: Box<Fault>| fault.at(position).token(operator);
        let left = self.eval(left, input, frame)?;
        if let "and" | "or" = operator {
            let stop = operator == "or";
            let truth = self.truth(left).map_err(about)?;
            let both = |right| Ok(Value::Bool(self.truth(right)?));
            return match truth == stop {
                true => Ok(Value::Bool(stop)),
                false => self.eval(right, input, frame).and_then(both).map_err(about),
            };
        }
        let right = self.eval(right, input, frame)?;
        let result = match operator {
            "+" | "-" | "*" | "/" | "%" => self.arithmetic(operator, left, right),
            "=" => self.equality(left, right, true),
            "!=" => self.equality(left, right, false),
            "<" | "<=" | ">" | ">=" => self
                .read_both(left, right)
                .and_then(|()| comparison(operator, left, right)),
            "&" => self.join(left, right),
            ".." => range(left, right),
            "in" => self.includes(left, right),
            _ => Err(fault("S0204")),
        };
        result.map_err(about)
    }

    fn arithmetic(&self, operator: &str, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
        let number = |value, code| match value {
            Value::Undefined => Ok(None),
            Value::Number(number, _) if !number.is_nan() => self.finite(number).map(Some),
            _ => Err(fault(code).value(value)),
        };
        let (left, right) = (number(left, "T2001")?, number(right, "T2002")?);
        let (Some(left), Some(right)) = (left, right) else {
            return Ok(Value::Undefined);
        };
        Ok(Value::from(match operator {
            "+" => left + right,
            "-" => left - right,
            "*" => left * right,
            "/" => left / right,
            _ => left % right,
        }))
    }

    fn equality(&self, left: Value<'a>, right: Value<'a>, wanted: bool) -> Result<Value<'a>> {
        if left.is_undefined() || right.is_undefined() {
            return Ok(Value::Bool(false));
        }
        Ok(Value::Bool(self.equal(left, right, 0)? == wanted))
    }

    fn join(&self, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
        let mut joined = String::new();
        for side in [left, right] {
            match side {
                Value::Undefined => {}
                Value::String(text) => {
                    self.charge(text.len())?;
                    joined.push_str(text);
                }
                other => joined.push_str(&self.text(other, false)?),
            }
        }
        self.string(&joined)
    }

    /// Counts the comparison of two texts.
    pub fn read_both(&self, left: Value<'a>, right: Value<'a>) -> Result<()> {
        match (left, right) {
            (Value::String(left), Value::String(right)) if left.len() < right.len() => self.read(left),
            (Value::String(_), Value::String(right)) => self.read(right),
            _ => Ok(()),
        }
    }

    fn includes(&self, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
        if left.is_undefined() || right.is_undefined() {
            return Ok(Value::Bool(false));
        }
        let Value::Array(items) = right else {
            return Ok(Value::Bool(left.same(right)));
        };
        for item in items.iter() {
            self.tick(1)?;
            self.read_both(item, left)?;
            if item.same(left) {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }
}

fn comparison<'a>(operator: &str, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
    let comparable = |value| matches!(value, Value::Undefined | Value::String(_) | Value::Number(..));
    if !comparable(left) || !comparable(right) {
        let left_fits = matches!(left, Value::String(_) | Value::Number(..));
        return Err(fault("T2010").value(if left_fits { right } else { left }));
    }
    let order = match (left, right) {
        (Value::Undefined, _) | (_, Value::Undefined) => return Ok(Value::Undefined),
        (Value::Number(left, _), Value::Number(right, _)) => left.partial_cmp(&right),
        (Value::String(left), Value::String(right)) => Some(text::compare(left, right)),
        _ => return Err(fault("T2009").value(left).other(right)),
    };
    Ok(Value::Bool(order.is_some_and(|order| match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })))
}

fn range<'a>(left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
    let integer = |value, code| match value {
        Value::Undefined => Ok(None),
        Value::Number(number, _) if number.fract() == 0.0 => Ok(Some(number)),
        _ => Err(fault(code).value(value)),
    };
    let (first, last) = (integer(left, "T2003")?, integer(right, "T2004")?);
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Value::Undefined);
    };
    if first > last {
        return Ok(Value::Undefined);
    }
    let count = last - first + 1.0;
    if count > RANGE {
        return Err(fault("D2014").value(Value::from(count)));
    }
    Ok(Value::Array(Array::range(first, count as usize)))
}
