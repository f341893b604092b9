//! Parallel and inline Map: strands inside a strand.

use super::Run;
use super::data::{About, Item, invalid};
use crate::execution::{Parent, Position, Strand};
use crate::fault::{self, Fault};
use crate::limit;
use crate::machine::{self, Items, Language, Map, Program, State, Work};
use crate::payload::Payload;
use crate::query::Kind;
use crate::template::{Expression, Template};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

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
                Some(parameters) => self
                    .template(&strand, state, parameters, About::data(&input))
                    .map(Payload::new),
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
            let input = input.clone();
            self.spawn(Strand::new(parent, &branch.start, input, last, self.at));
        }
    }

    pub(super) fn map(&mut self, id: u64, mut strand: Strand, state: &'m State, map: &'m Map) {
        let (items, open) = match self.list(&strand, state, map) {
            Ok(found) => found,
            Err(fault) => return self.fail(id, strand, fault),
        };
        let open = open.filter(|open| *open > 0).unwrap_or(limit::CONCURRENCY);
        let open = usize::try_from(open.min(limit::CONCURRENCY)).unwrap_or(1);
        let waiting: VecDeque<Payload> = match items.into_value() {
            Value::Array(items) => items.into_iter().map(Payload::new).collect(),
            _ => VecDeque::new(),
        };
        let length = waiting.len();
        strand.last = self.emit("MapStateStarted", strand.last, json!({ "length": length }));
        let last = strand.last;
        // An inline Map endures no failures, but what it says about them must be right.
        if let Err(fault) = self.tolerance(&strand, state, map) {
            return self.fail(id, strand, fault);
        }
        strand.position = Position::Map {
            waiting,
            length,
            results: BTreeMap::new(),
            open,
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

    /// `MaxConcurrency` and the items: an array, or an object where that may be.
    pub(crate) fn list(
        &self,
        strand: &Strand,
        state: &State,
        map: &Map,
    ) -> Result<(Payload, Option<u64>), Fault> {
        let at = |fault: Fault| fault.at(&strand.state, strand.entered);
        let input = self.input(strand, state)?;
        let about = About::data(&input);
        let open = self.number(
            strand,
            state,
            map.concurrency.as_ref(),
            about,
            "MaxConcurrencyPath",
        )?;
        if map.run.as_ref().is_some_and(|run| run.reader.is_some()) {
            return Ok((Payload::default(), open));
        }
        let items = self.listed(strand, state, map, &input).map_err(at)?;
        if items.is_array() || (items.is_object() && map.run.is_some()) {
            Ok((items, open))
        } else {
            Err(at(no_array(state, map, &items)))
        }
    }

    /// What should be the items.
    pub(super) fn listed(
        &self,
        strand: &Strand,
        state: &State,
        map: &Map,
        input: &Payload,
    ) -> Result<Payload, Fault> {
        self.read(strand, state, About::data(input), |scope| match &map.items {
            Items::Input => Ok(input.clone()),
            Items::Template(Template::Dynamic(_, Expression::Query(query))) => {
                let items = query.evaluate(scope)?;
                if items.is_object() && map.run.is_some() {
                    return Ok(Payload::new(items));
                }
                query.wanted(items, Kind::Array).map(Payload::new)
            }
            Items::Template(template) => template.evaluate(scope).map(Payload::new),
            Items::Path(path) => match scope.read(path) {
                Ok(items) => Ok(Payload::new(items)),
                Err(missing) => Err(invalid(path, &missing)),
            },
        })
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
        let mut child = Strand::new(parent, &map.processor.start, Payload::default(), started, self.at);
        match input {
            Ok(input) => {
                child.input = input;
                self.spawn(child);
                Some(strand)
            }
            Err(fault) => {
                // A redrive selects its input again.
                if let (Position::Map { waiting, .. }, Parent::Item { value, .. }) =
                    (&mut strand.position, &child.parent)
                {
                    waiting.push_front(value.clone());
                }
                self.x.strands.insert(id, strand);
                if let Some(strand) = self.abandon(id, child) {
                    self.fail(id, strand, fault);
                }
                None
            }
        }
    }

    /// The input of an iteration.
    pub(super) fn selected(
        &self,
        strand: &Strand,
        state: &State,
        map: &Map,
        index: usize,
        value: &Payload,
    ) -> Result<Payload, Fault> {
        let Some(selector) = &map.work.parameters else {
            return Ok(value.clone());
        };
        let input = self.input(strand, state)?;
        let item = Item {
            index,
            value,
            key: None,
        };
        let about = About {
            item: Some(item),
            ..About::data(&input)
        };
        let selected = self.template(strand, state, selector, about)?;
        fitting(strand, Payload::new(selected))
    }

    /// A branch or an iteration came to its end.
    pub(super) fn child_succeeded(&mut self, child: Strand, output: Payload) {
        let Some(id) = child.parent.strand() else { return };
        let Some(mut strand) = self.x.strands.remove(&id) else {
            return;
        };
        let Some(state) = self.state(&strand) else {
            return self.resume(id, strand);
        };
        strand.last = child.last;
        match (&state.kind, child.parent) {
            (machine::Kind::Parallel { .. }, Parent::Branch { index, .. }) => {
                self.branch_done(id, strand, state, index, output)
            }
            (machine::Kind::Map(map), Parent::Item { index, .. }) => {
                self.iteration_done(id, strand, state, map, index, output)
            }
            _ => self.resume(id, strand),
        }
    }

    fn branch_done(&mut self, id: u64, mut strand: Strand, state: &'m State, index: usize, output: Payload) {
        let Position::Parallel { branches, results } = &mut strand.position else {
            return self.resume(id, strand);
        };
        results.insert(index, output);
        if results.len() < *branches {
            self.x.strands.insert(id, strand);
            return;
        }
        let results = joined(std::mem::take(results));
        strand.position = Position::Attempt;
        self.emit("ParallelStateSucceeded", strand.last, json!({}));
        self.complete(id, strand, state, Some(Payload::new(Value::Array(results))));
    }

    fn iteration_done(
        &mut self,
        id: u64,
        mut strand: Strand,
        state: &'m State,
        map: &'m Map,
        index: usize,
        output: Payload,
    ) {
        let previous = strand.last;
        let details = json!({ "name": strand.state, "index": index });
        let succeeded = self.emit("MapIterationSucceeded", previous, details);
        let Position::Map { length, results, .. } = &mut strand.position else {
            return self.resume(id, strand);
        };
        results.insert(index, output);
        if results.len() == *length {
            let results = joined(std::mem::take(results));
            strand.last = succeeded;
            self.map_succeeded(id, strand, state, results);
        } else if let Some(strand) = self.iterate(id, strand, state, map, previous) {
            self.x.strands.insert(id, strand);
        }
    }

    fn map_succeeded(&mut self, id: u64, mut strand: Strand, state: &'m State, results: Vec<Value>) {
        strand.position = Position::Attempt;
        self.emit("MapStateSucceeded", strand.last, json!({}));
        self.complete(id, strand, state, Some(Payload::new(Value::Array(results))));
    }
}

fn no_array(state: &State, map: &Map, items: &Payload) -> Fault {
    match (&map.items, state.language) {
        (Items::Path(path), _) => {
            Fault::runtime(format!("Reference path \"{}\" must point to array.", path.text()))
        }
        (_, Language::JsonPath) => Fault::runtime("Reference path \"$\" must point to array."),
        (_, Language::JsonAta) => {
            let cause = format!("Map state input must be an array but was: {}", items.text());
            Fault {
                place: Some(String::new()),
                ..Fault::named(fault::QUERY, cause)
            }
        }
    }
}

fn joined(results: BTreeMap<usize, Payload>) -> Vec<Value> {
    results.into_values().map(Payload::into_value).collect()
}

fn fitting(strand: &Strand, input: Payload) -> Result<Payload, Fault> {
    if input.fits() {
        Ok(input)
    } else {
        Err(Fault::too_large(&strand.state))
    }
}
