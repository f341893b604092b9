//! Paths that bind variables on the way (`@`, `#`) or look back (`%`) carry tuples instead of values.

use crate::{
    error::Result,
    run::{Frame, Key, Run, Tuple},
    tree::{Kind, Node, Stage},
    value::{Array, Value},
};

type Tuples<'a> = &'a [Tuple<'a>];

/// The tuples between two steps.
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    pub tuples: Tuples<'a>,
    /// After tuples were sorted, the reference takes them for objects until the next step: filters and groups see them
    /// as `{"@": …, "name": …}` and not their variables.
    pub plain: bool,
}

impl<'a> Stream<'a> {
    pub fn new(tuples: Tuples<'a>) -> Stream<'a> {
        Stream { tuples, plain: false }
    }
}

impl<'a> Run<'a> {
    pub(super) fn tuple_step(
        &self,
        step: &'a Node,
        items: Array<'a>,
        stream: Option<Stream<'a>>,
        frame: &'a Frame<'a>,
    ) -> Result<Stream<'a>> {
        let result = match (&step.kind, stream) {
            (Kind::Sort(_), None) => Stream::new(self.index_sorted(step, items, frame)?),
            (Kind::Sort(_), Some(stream)) => self.sort_stream(step, stream, frame)?,
            _ => {
                let tuples = match stream {
                    Some(stream) => stream.tuples,
                    None => self.tuples_of(items)?,
                };
                let mut result = Vec::new();
                for tuple in tuples {
                    self.map_tuple(step, tuple, frame, &mut result)?;
                }
                Stream::new(self.slice(&result)?)
            }
        };
        self.tuple_stages(step, result, frame)
    }

    fn sort_stream(&self, step: &'a Node, stream: Stream<'a>, frame: &'a Frame<'a>) -> Result<Stream<'a>> {
        if stream.tuples.len() <= 1 {
            return Ok(stream);
        }
        let sorted = if stream.plain {
            let mut places = Vec::with_capacity(stream.tuples.len());
            for (index, tuple) in stream.tuples.iter().enumerate() {
                let names = self.slice(&[(Key::Label(u32::MAX), Value::from(index as f64))])?;
                let at = self.tuple_object(tuple)?;
                places.push(Tuple { at, names });
            }
            let place = |tuple: &Tuple<'a>| match tuple.names {
                [(_, Value::Number(index, _))] => stream.tuples[*index as usize],
                _ => *tuple,
            };
            let sorted = self.sort_tuples(step, &places, frame)?;
            self.slice(&sorted.iter().map(place).collect::<Vec<_>>())?
        } else {
            self.sort_tuples(step, stream.tuples, frame)?
        };
        Ok(Stream {
            tuples: sorted,
            plain: true,
        })
    }

    /// A tuple as the reference holds it.
    fn tuple_object(&self, tuple: &Tuple<'a>) -> Result<Value<'a>> {
        let mut entries = vec![("@", tuple.at)];
        for (key, value) in tuple.names {
            let key: &str = match key {
                Key::Name(name) => name,
                Key::Label(label) => self.arena.alloc_str(&format!("!{label}")),
            };
            entries.push((key, *value));
        }
        self.object(&entries)
    }

    /// A stream as a value, for a group or the path around.
    pub(super) fn stream_value(&self, stream: Stream<'a>) -> Result<Value<'a>> {
        if !stream.plain {
            return Ok(Value::Tuples(stream.tuples));
        }
        let objects = stream.tuples.iter().map(|tuple| self.tuple_object(tuple));
        self.array(&objects.collect::<Result<Vec<_>>>()?)
    }

    fn tuples_of(&self, items: Array<'a>) -> Result<Tuples<'a>> {
        self.tick(items.len() as u64)?;
        let tuples: Vec<Tuple> = items.iter().map(|at| Tuple { at, names: &[] }).collect();
        self.slice(&tuples)
    }

    fn index_sorted(&self, step: &'a Node, items: Array<'a>, frame: &'a Frame<'a>) -> Result<Tuples<'a>> {
        let sorted = self.sort_items(step, items, frame)?;
        let mut result = Vec::with_capacity(sorted.len());
        for (index, at) in sorted.iter().enumerate() {
            let bound = step
                .index
                .as_deref()
                .map(|name| (Key::Name(name), Value::from(index as f64)));
            let names = self.slice(bound.as_slice())?;
            result.push(Tuple { at, names });
        }
        self.slice(&result)
    }

    /// The tuples that a step makes of one tuple.
    fn map_tuple(
        &self,
        step: &'a Node,
        tuple: &Tuple<'a>,
        frame: &'a Frame<'a>,
        result: &mut Vec<Tuple<'a>>,
    ) -> Result<()> {
        let scope = self.tuple_frame(frame, tuple)?;
        let value = self.eval(step, tuple.at, scope)?;
        let values = match value {
            Value::Undefined => return Ok(()),
            Value::Tuples(inner) => {
                for other in inner {
                    self.tick(1)?;
                    let names = self.join_names(tuple.names, other.names)?;
                    result.push(Tuple { at: other.at, names });
                }
                return Ok(());
            }
            Value::Array(values) => values,
            other => Array::new(self.slice(&[other])?),
        };
        for (index, value) in values.iter().enumerate() {
            self.tick(1)?;
            let focus = step.focus.as_deref().map(|name| (Key::Name(name), value));
            let index = step
                .index
                .as_deref()
                .map(|name| (Key::Name(name), Value::from(index as f64)));
            let ancestor = step
                .ancestor
                .as_ref()
                .map(|slot| (Key::Label(slot.label()), tuple.at));
            let added: Vec<_> = [focus, index, ancestor].into_iter().flatten().collect();
            result.push(Tuple {
                at: if focus.is_some() { tuple.at } else { value },
                names: self.join_names(tuple.names, &added)?,
            });
        }
        Ok(())
    }

    /// Names of both; of those that are in both, the later value.
    fn join_names(
        &self,
        names: &'a [(Key<'a>, Value<'a>)],
        added: &[(Key<'a>, Value<'a>)],
    ) -> Result<&'a [(Key<'a>, Value<'a>)]> {
        if added.is_empty() {
            return Ok(names);
        }
        let mut joined = names.to_vec();
        for (key, value) in added {
            match joined.iter_mut().find(|(name, _)| name == key) {
                Some(entry) => entry.1 = *value,
                None => joined.push((*key, *value)),
            }
        }
        self.slice(&joined)
    }

    fn tuple_stages(&self, step: &'a Node, stream: Stream<'a>, frame: &'a Frame<'a>) -> Result<Stream<'a>> {
        let mut stream = stream;
        for stage in &step.stages {
            match stage {
                Stage::Filter(predicate) => stream = self.filter_tuples(predicate, stream, frame)?,
                Stage::Index(name) => {
                    let mut indexed = Vec::with_capacity(stream.tuples.len());
                    for (index, tuple) in stream.tuples.iter().enumerate() {
                        let added = [(Key::Name(name.as_str()), Value::from(index as f64))];
                        indexed.push(Tuple {
                            at: tuple.at,
                            names: self.join_names(tuple.names, &added)?,
                        });
                    }
                    stream.tuples = self.slice(&indexed)?;
                }
            }
        }
        Ok(stream)
    }

    pub(super) fn filter_tuples(
        &self,
        predicate: &'a Node,
        stream: Stream<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Stream<'a>> {
        let mut results = Vec::new();
        for (index, tuple) in stream.tuples.iter().enumerate() {
            let chosen = match predicate.kind {
                Kind::Number(number) => Value::from(number),
                _ if stream.plain => self.eval(predicate, self.tuple_object(tuple)?, frame)?,
                _ => self.eval(predicate, tuple.at, self.tuple_frame(frame, tuple)?)?,
            };
            for _ in 0..self.choices(chosen, index, stream.tuples.len())? {
                results.push(*tuple);
            }
        }
        Ok(Stream {
            tuples: self.slice(&results)?,
            plain: stream.plain,
        })
    }

    /// All tuples of a group as one: what a name stands for in them, appended.
    pub(super) fn reduce(&self, tuples: &[Tuple<'a>]) -> Result<Tuple<'a>> {
        let [first, rest @ ..] = tuples else {
            return Ok(Tuple {
                at: Value::Undefined,
                names: &[],
            });
        };
        if rest.is_empty() {
            return Ok(*first);
        }
        self.tick(rest.len() as u64)?;
        let values: Vec<Value> = tuples.iter().map(|tuple| tuple.at).collect();
        let at = self.concat(&values)?;
        let mut keys: Vec<Key> = Vec::new();
        for (key, _) in tuples.iter().flat_map(|tuple| tuple.names) {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
        let mut names = Vec::with_capacity(keys.len());
        for key in keys {
            let own = |tuple: &Tuple<'a>| {
                tuple
                    .names
                    .iter()
                    .find(|(name, _)| *name == key)
                    .map(|(_, value)| *value)
            };
            let values: Vec<Value> = tuples.iter().filter_map(own).collect();
            names.push((key, self.concat(&values)?));
        }
        Ok(Tuple {
            at,
            names: self.slice(&names)?,
        })
    }

    /// Values appended to each other, as `$append` does it; one alone stays as it is.
    pub fn concat(&self, values: &[Value<'a>]) -> Result<Value<'a>> {
        let mut defined = values.iter().copied().filter(|value| !value.is_undefined());
        let Some(first) = defined.next() else {
            return Ok(Value::Undefined);
        };
        let Some(second) = defined.next() else {
            return Ok(first);
        };
        let mut items = Vec::new();
        for value in [first, second].into_iter().chain(defined) {
            match value {
                Value::Array(array) => self.spread_into(&mut items, array)?,
                value => items.push(value),
            }
        }
        self.array(&items)
    }
}
