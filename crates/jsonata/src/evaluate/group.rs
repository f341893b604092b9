//! Objects: `{…}` on its own, and behind a path, where it groups.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    error::{Result, fault},
    run::{Frame, Run, Tuple},
    tree::Group,
    value::{Array, Value},
};

/// What was gathered under one key.
struct Gathered<'a> {
    key: &'a str,
    pair: usize,
    values: Vec<Value<'a>>,
    tuples: Vec<Tuple<'a>>,
}

impl<'a> Run<'a> {
    pub(super) fn group(
        &self,
        group: &'a Group,
        input: Value<'a>,
        frame: &'a Frame<'a>,
    ) -> Result<Value<'a>> {
        let mut groups: Vec<Gathered> = Vec::new();
        let mut places = HashMap::new();
        match input {
            Value::Tuples(tuples) => {
                for tuple in tuples {
                    let scope = self.tuple_frame(frame, tuple)?;
                    self.gather(group, tuple.at, Some(tuple), scope, (&mut groups, &mut places))?;
                }
            }
            Value::Array(items) if items.len() > 0 => {
                for item in items.iter() {
                    self.gather(group, item, None, frame, (&mut groups, &mut places))?;
                }
            }
            Value::Array(_) => {
                self.gather(group, Value::Undefined, None, frame, (&mut groups, &mut places))?
            }
            other => self.gather(group, other, None, frame, (&mut groups, &mut places))?,
        }
        let mut entries = Vec::with_capacity(groups.len());
        for gathered in groups {
            let (context, scope) = if gathered.tuples.is_empty() {
                (self.concat_group(&gathered.values)?, frame)
            } else {
                let tuple = self.reduce(&gathered.tuples)?;
                (tuple.at, self.tuple_frame(frame, &tuple)?)
            };
            let value = self.eval(&group.pairs[gathered.pair].1, context, scope)?;
            if !value.is_undefined() {
                entries.push((gathered.key, value));
            }
        }
        self.object(&entries)
    }

    /// Like `concat`, but the first item counts even if it is undefined.
    fn concat_group(&self, values: &[Value<'a>]) -> Result<Value<'a>> {
        match values {
            [one] => Ok(*one),
            _ => self.concat(values),
        }
    }

    fn gather(
        &self,
        group: &'a Group,
        item: Value<'a>,
        tuple: Option<&Tuple<'a>>,
        frame: &'a Frame<'a>,
        (groups, places): (&mut Vec<Gathered<'a>>, &mut HashMap<&'a str, usize>),
    ) -> Result<()> {
        for (pair, (key, _)) in group.pairs.iter().enumerate() {
            let key = match self.eval(key, item, frame)? {
                Value::Undefined => continue,
                Value::String(key) => key,
                other => return Err(fault("T1003").at(group.position).value(other)),
            };
            if matches!(key, "_jsonata_lambda" | "_jsonata_function") {
                return Err(fault("D1013").at(group.position).text(key));
            }
            self.read(key)?;
            let place = match places.entry(key) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(place) => {
                    groups.push(Gathered {
                        key,
                        pair,
                        values: Vec::new(),
                        tuples: Vec::new(),
                    });
                    *place.insert(groups.len() - 1)
                }
            };
            let gathered = &mut groups[place];
            if gathered.pair != pair {
                return Err(fault("D1009").at(group.position).text(key));
            }
            match tuple {
                Some(tuple) => gathered.tuples.push(*tuple),
                None => gathered.values.push(item),
            }
        }
        Ok(())
    }

    /// One value as an array.
    pub fn listed(&self, value: Value<'a>) -> Result<Array<'a>> {
        match value {
            Value::Array(items) => Ok(items),
            other => Ok(Array::new(self.slice(&[other])?)),
        }
    }
}
