//! `|pattern|update, delete|`: a copy of an object in which what the pattern finds is changed.

use crate::{
    error::{Result, fault},
    run::{Frame, Key, Run},
    tree::{Node, Transform},
    value::{Object, Value},
};

impl<'a> Run<'a> {
    pub(super) fn transform(
        &self,
        transform: &'a Transform,
        given: Value<'a>,
        frame: &'a Frame<'a>,
        position: usize,
    ) -> Result<Value<'a>> {
        let clone = self.lookup(frame, Key::Name("clone"))?;
        match given {
            Value::Undefined => return Ok(given),
            _ if !clone.is_function() => return Err(fault("T2013").at(position)),
            Value::Object(_) | Value::Array(_) => {}
            _ => {
                let fault = fault("T0410").value(given);
                return Err(fault.insert("index", "1".to_owned()));
            }
        }
        let result = self.apply_to(clone, &[given])?;
        let matches = match self.eval(&transform.pattern, result, frame)? {
            Value::Undefined => return Ok(result),
            matches => self.listed(matches)?,
        };
        for found in matches.iter() {
            let update = self.eval(&transform.update, found, frame)?;
            self.update(found, update, transform.update.position)?;
            if let Some(delete) = &transform.delete {
                self.delete(found, delete, frame)?;
            }
        }
        Ok(result)
    }

    fn update(&self, found: Value<'a>, update: Value<'a>, position: usize) -> Result<()> {
        let added = match update {
            Value::Undefined => return Ok(()),
            Value::Object(added) => added,
            _ => return Err(fault("T2011").at(position).value(update)),
        };
        let Value::Object(object) = found else {
            return Ok(());
        };
        self.tick((object.len() + added.len()) as u64)?;
        let entries: Vec<_> = object.iter().chain(added.iter()).collect();
        self.replace(object, &entries)
    }

    fn delete(&self, found: Value<'a>, delete: &'a Node, frame: &'a Frame<'a>) -> Result<()> {
        let names = match self.eval(delete, found, frame)? {
            Value::Undefined => return Ok(()),
            names => names,
        };
        let mut keys = Vec::new();
        for name in self.listed(names)?.iter() {
            match name {
                Value::String(key) => keys.push(key),
                _ => return Err(fault("T2012").at(delete.position).value(names)),
            }
        }
        match found {
            Value::Object(object) => self.remove(object, &keys),
            _ => Ok(()),
        }
    }

    fn remove(&self, object: Object<'a>, keys: &[&str]) -> Result<()> {
        self.tick((object.len() * keys.len()) as u64)?;
        let entries: Vec<_> = object.iter().filter(|(key, _)| !keys.contains(key)).collect();
        self.replace(object, &entries)
    }
}
