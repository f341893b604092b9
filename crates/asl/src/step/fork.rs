//! Parallel and inline Map: strands inside a strand.

use super::Run;
use super::data::invalid;
use super::wait::plain;
use crate::execution::{Parent, Position, Strand};
use crate::fault::Fault;
use crate::limit;
use crate::machine::{Items, Kind, Map, Program, State, Work};
use crate::size;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl<'m> Run<'m> {
    pub(super) fn parallel(
        &mut self,
        id: u64,
        mut strand: Strand,
        state: &'m State,
        branches: &'m [Program],
        work: &Work,
    ) {
        let input = self
            .input(&strand, state)
            .and_then(|input| match &work.parameters {
                Some(parameters) => self.template(&strand, state, parameters, &input),
                None => Ok(input),
            });
        let input = input.and_then(|input| fitting(&strand, input));
        let input = match input {
            Ok(input) => input,
            Err(fault) => return self.fail(id, strand, fault),
        };
        strand.last = self.emit("ParallelStateStarted", strand.last, json!({}));
        strand.position = Position::Parallel {
            branches: branches.len(),
            results: BTreeMap::new(),
        };
        let last = strand.last;
        self.x.strands.insert(id, strand);
        for (index, branch) in branches.iter().enumerate() {
            let parent = Parent::Branch { of: id, index };
            self.spawn(Strand::new(parent, &branch.start, input.clone(), last, self.at));
        }
    }

    pub(super) fn map(&mut self, id: u64, mut strand: Strand, state: &'m State, map: &'m Map) {
        let (items, open) = match self.items(&strand, state, map) {
            Ok(items) => items,
            Err(fault) => return self.fail(id, strand, fault),
        };
        let length = items.len();
        strand.last = self.emit("MapStateStarted", strand.last, json!({ "length": length }));
        let last = strand.last;
        strand.position = Position::Map {
            waiting: items.into(),
            length,
            results: BTreeMap::new(),
        };
        if length == 0 {
            return self.map_succeeded(id, strand, state, Vec::new());
        }
        for _ in 0..open.min(length) {
            match self.iterate(id, strand, state, map, last) {
                Some(around) => strand = around,
                None => return,
            }
        }
        self.x.strands.insert(id, strand);
    }

    /// The items, and how many of them may be worked on at the same time.
    fn items(&self, strand: &Strand, state: &State, map: &Map) -> Result<(Vec<Value>, usize), Fault> {
        let at = |fault: Fault| fault.at(&strand.state, strand.entered);
        let input = self.input(strand, state)?;
        let concurrency = self.number(
            strand,
            state,
            map.concurrency.as_ref(),
            &input,
            "MaxConcurrencyPath",
        )?;
        let items = match &map.items {
            Items::Input => input,
            Items::Template(template) => self.template(strand, state, template, &input)?,
            Items::Path(path) => {
                let found = self.read(strand, state, &input, |scope| {
                    scope.read(path).map_err(|missing| invalid(path, &missing))
                });
                found.map_err(at)?
            }
        };
        let Value::Array(items) = items else {
            let cause = match &map.items {
                Items::Path(path) => format!("Reference path \"{}\" must point to array.", path.text()),
                _ => format!("Map state input must be an array but was: {}", plain(&items)),
            };
            return Err(at(Fault::runtime(cause)));
        };
        let open = concurrency
            .filter(|open| *open > 0)
            .unwrap_or(limit::CONCURRENCY)
            .min(limit::CONCURRENCY);
        Ok((items, usize::try_from(open).unwrap_or(1)))
    }

    /// Starts the next iteration, caused by `previous`; gives the strand back unless that failed.
    fn iterate(
        &mut self,
        id: u64,
        mut strand: Strand,
        state: &'m State,
        map: &'m Map,
        previous: u64,
    ) -> Option<Strand> {
        let Position::Map { waiting, length, .. } = &mut strand.position else {
            return Some(strand);
        };
        let index = length.saturating_sub(waiting.len());
        let Some(value) = waiting.pop_front() else {
            return Some(strand);
        };
        let started = self.emit(
            "MapIterationStarted",
            previous,
            json!({ "name": strand.state, "index": index }),
        );
        let input = self.selected(&strand, state, map, index, &value);
        let parent = Parent::Item { of: id, index, value };
        let mut child = Strand::new(parent, &map.processor.start, Value::Null, started, self.at);
        match input {
            Ok(input) => {
                child.input = input;
                self.spawn(child);
                Some(strand)
            }
            Err(fault) => {
                self.x.strands.insert(id, strand);
                if let Some(strand) = self.abandon(id, child) {
                    self.fail(id, strand, fault);
                }
                None
            }
        }
    }

    /// The input of an iteration.
    fn selected(
        &self,
        strand: &Strand,
        state: &State,
        map: &Map,
        index: usize,
        value: &Value,
    ) -> Result<Value, Fault> {
        let Some(selector) = &map.work.parameters else {
            return Ok(value.clone());
        };
        let input = self.input(strand, state)?;
        let selected = self.read_item(strand, state, &input, Some((index, value)), |scope| {
            selector.evaluate(scope)
        });
        fitting(
            strand,
            selected.map_err(|fault| fault.at(&strand.state, strand.entered))?,
        )
    }

    /// A branch or an iteration came to its end.
    pub(super) fn child_succeeded(&mut self, child: Strand, output: Value) {
        let Some(id) = child.parent.strand() else { return };
        let Some(mut strand) = self.x.strands.remove(&id) else {
            return;
        };
        let Some(state) = self.state(&strand) else {
            return self.resume(id, strand);
        };
        strand.last = child.last;
        match (&state.kind, child.parent) {
            (Kind::Parallel { .. }, Parent::Branch { index, .. }) => {
                self.branch_done(id, strand, state, index, output)
            }
            (Kind::Map(map), Parent::Item { index, .. }) => {
                self.iteration_done(id, strand, state, map, index, output)
            }
            _ => self.resume(id, strand),
        }
    }

    fn branch_done(&mut self, id: u64, mut strand: Strand, state: &'m State, index: usize, output: Value) {
        let Position::Parallel { branches, results } = &mut strand.position else {
            return self.resume(id, strand);
        };
        results.insert(index, output);
        if results.len() < *branches {
            self.x.strands.insert(id, strand);
            return;
        }
        let results = std::mem::take(results).into_values().collect();
        strand.position = Position::Attempt;
        self.emit("ParallelStateSucceeded", strand.last, json!({}));
        self.complete(id, strand, state, Some(results));
    }

    fn iteration_done(
        &mut self,
        id: u64,
        mut strand: Strand,
        state: &'m State,
        map: &'m Map,
        index: usize,
        output: Value,
    ) {
        let previous = strand.last;
        let details = json!({ "name": strand.state, "index": index });
        let succeeded = self.emit("MapIterationSucceeded", previous, details);
        let Position::Map { length, results, .. } = &mut strand.position else {
            return self.resume(id, strand);
        };
        results.insert(index, output);
        if results.len() == *length {
            let results = std::mem::take(results).into_values().collect();
            strand.last = succeeded;
            self.map_succeeded(id, strand, state, results);
        } else if let Some(strand) = self.iterate(id, strand, state, map, previous) {
            self.x.strands.insert(id, strand);
        }
    }

    fn map_succeeded(&mut self, id: u64, mut strand: Strand, state: &'m State, results: Vec<Value>) {
        strand.position = Position::Attempt;
        self.emit("MapStateSucceeded", strand.last, json!({}));
        self.complete(id, strand, state, Some(Value::Array(results)));
    }
}

fn fitting(strand: &Strand, input: Value) -> Result<Value, Fault> {
    match size::within(&input, limit::PAYLOAD, limit::DEPTH) {
        Some(_) => Ok(input),
        None => Err(Fault::too_large(&strand.state)),
    }
}
