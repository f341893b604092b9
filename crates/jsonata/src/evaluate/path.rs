//! Paths: each step maps the items of the sequence before it, flattens, and filters.

use super::tuple::Stream;
use crate::{
    error::Result,
    run::{Frame, Key, Run},
    tree::{Kind, Node, Path, Stage},
    value::{Array, Marks, Value},
};

impl<'a> Run<'a> {
    pub(super) fn path(
        &self,
        node: &'a Node,
        path: &'a Path,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        if !path.keep_singleton
            && node.group.is_none()
            && let Some(value) = self.plain_path(&path.steps, input, frame)?
        {
            return Ok(value);
        }
        let mut result = self.steps(node, path, input, frame)?;
        if path.keep_singleton
            && let Value::Array(kept) = result
        {
            result = Value::Array(self.keep(kept)?);
        }
        match &node.group {
            Some(group) => self.group(group, result, frame),
            None => Ok(result),
        }
    }

    /// The items, or the tuples, that come out of the last step.
    fn steps(
        &self,
        node: &'a Node,
        path: &'a Path,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let mut items = match input {
            Value::Array(items) if !matches!(path.steps[0].kind, Kind::Variable(_)) => items,
            _ => Array::sequence(self.slice(&[input])?),
        };
        let mut stream: Option<Stream> = None;
        let mut carries = false;
        for (index, step) in path.steps.iter().enumerate() {
            carries |= step.tuple;
            if index == 0 && step.constructed {
                let result = self.indexed(self.eval(step, Value::Array(items), frame)?)?;
                if step.focus.is_none() {
                    items = result;
                }
            } else if carries {
                stream = Some(self.tuple_step(step, items, stream, frame)?);
            } else {
                items = self.step(step, items, frame, index + 1 == path.steps.len())?;
            }
            if !carries && items.len() == 0 {
                break;
            }
        }
        match stream {
            None => Ok(Value::Array(items)),
            Some(stream) if node.tuple || node.group.is_some() => self.stream_value(stream),
            Some(stream) => {
                let values: Vec<Value> = stream.tuples.iter().map(|tuple| tuple.at).collect();
                self.sequence(&values)
            }
        }
    }

    /// What a loop over indexes finds in a value, as the reference runs it over an array constructor with a filter:
    /// the characters of a string, nothing in an object.
    fn indexed(&self, value: Value<'a>) -> Result<Array<'a>> {
        let items = match value {
            Value::Array(items) => return Ok(items),
            Value::String(text) => {
                self.charge(text.len().saturating_mul(size_of::<Value>()))?;
                text.split("")
                    .filter(|c| !c.is_empty())
                    .map(Value::String)
                    .collect()
            }
            _ => Vec::new(),
        };
        Ok(Array::sequence(self.slice(&items)?))
    }

    fn keep(&self, items: Array<'a>) -> Result<Array<'a>> {
        let wrap = items.marks.constructed && !items.marks.sequence;
        let items = if wrap {
            Array::sequence(self.slice(&[Value::Array(items)])?)
        } else {
            items
        };
        Ok(items.marked(Marks {
            keep: true,
            ..items.marks
        }))
    }

    /// The common path, names through objects, without making sequences. None: the path is not so simple.
    fn plain_path(
        &self,
        steps: &'a [Node],
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Option<Value<'a>>> {
        let mut value = input;
        for (index, step) in steps.iter().enumerate() {
            let bare = step.stages.is_empty() && step.predicates.is_empty() && step.group.is_none();
            if !bare || step.tuple || step.keep_array {
                return Ok(None);
            }
            value = match (&step.kind, value) {
                (Kind::Name(name), Value::Object(object)) => object.get(name),
                (Kind::Variable(name), _) if index == 0 && !name.is_empty() => {
                    self.lookup(frame, Key::Name(name))?
                }
                _ => return Ok(None),
            };
            match value {
                Value::Undefined => return Ok(Some(value)),
                Value::Array(_)
                    if index + 1 < steps.len() || index == 0 && matches!(step.kind, Kind::Variable(_)) =>
                {
                    return Ok(None);
                }
                _ => {}
            }
        }
        self.tick(steps.len() as u64)?;
        // The path's own sequence knows nothing of what `[]` asked of the one that was stored.
        Ok(Some(match value {
            Value::Array(items) if items.marks.sequence => Value::Array(items.marked(Marks {
                sequence: true,
                ..Marks::default()
            })),
            value => value,
        }))
    }

    /// One step over all items.
    fn step(&self, step: &'a Node, items: Array<'a>, frame: &'a Frame<'a>, last: bool) -> Result<Array<'a>> {
        if matches!(step.kind, Kind::Sort(_)) {
            let sorted = self.sort_items(step, items, frame)?;
            return self.sorted_stages(step, sorted, frame);
        }
        let mut results = Vec::new();
        for item in items.iter() {
            let mut value = self.eval(step, item, frame)?;
            for stage in &step.stages {
                if let Stage::Filter(predicate) = stage {
                    value = self.filter(predicate, value, frame)?;
                }
            }
            if !value.is_undefined() {
                results.push(value);
            }
        }
        if let [Value::Array(only)] = results[..]
            && last
            && !only.marks.sequence
        {
            return Ok(only);
        }
        let mut flat = Vec::with_capacity(results.len());
        for value in results {
            match value {
                Value::Array(inner) if !inner.marks.constructed => self.spread_into(&mut flat, inner)?,
                value => flat.push(value),
            }
        }
        Ok(Array::sequence(self.slice(&flat)?))
    }

    fn sorted_stages(&self, step: &'a Node, sorted: Array<'a>, frame: &'a Frame<'a>) -> Result<Array<'a>> {
        let mut value = Value::Array(sorted);
        for stage in &step.stages {
            if let Stage::Filter(predicate) = stage {
                value = self.filter(predicate, value, frame)?;
            }
        }
        match value {
            Value::Array(items) => Ok(items),
            other => Ok(Array::sequence(self.slice(&[other])?)),
        }
    }

    /// `input[predicate]`: a position counts from either end, anything else is a condition.
    pub(super) fn filter(
        &self,
        predicate: &'a Node,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let items = match input {
            Value::Tuples(tuples) => {
                return self
                    .filter_tuples(predicate, Stream::new(tuples), frame)
                    .map(|stream| Value::Tuples(stream.tuples));
            }
            Value::Array(items) => items,
            // Undefined is one item, too: a condition that holds without it keeps it.
            other => Array::sequence(self.slice(&[other])?),
        };
        if let Kind::Number(number) = predicate.kind {
            return match place(number, items.len()).map(|index| items.get(index)) {
                None | Some(Value::Undefined) => self.sequence(&[]),
                Some(item @ Value::Array(_)) => Ok(item),
                Some(item) => self.sequence(&[item]),
            };
        }
        let mut results = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let chosen = self.eval(predicate, item, frame)?;
            for _ in 0..self.choices(chosen, index, items.len())? {
                results.push(item);
            }
        }
        self.sequence(&results)
    }

    /// How often the predicate's value chooses the item at `index` of `length`.
    pub(super) fn choices(&self, chosen: Value<'a>, index: usize, length: usize) -> Result<usize> {
        let is_here = |number: f64| place(number, length) == Some(index);
        match chosen {
            Value::Number(number, _) if !number.is_nan() => Ok(usize::from(is_here(self.finite(number)?))),
            Value::Array(numbers) => {
                self.tick(numbers.len() as u64)?;
                let mut count = 0;
                for number in numbers.iter() {
                    match number {
                        Value::Number(number, _) if !number.is_nan() => {
                            count += usize::from(is_here(self.finite(number)?));
                        }
                        _ => return self.truth(chosen).map(usize::from),
                    }
                }
                Ok(count)
            }
            _ => self.truth(chosen).map(usize::from),
        }
    }
}

/// The index that a number means: rounded down, negative ones from the end.
fn place(number: f64, length: usize) -> Option<usize> {
    let number = number.floor();
    let number = if number < 0.0 {
        number + length as f64
    } else {
        number
    };
    (number >= 0.0 && number < length as f64).then_some(number as usize)
}
