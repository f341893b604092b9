//! The items of a Map on their way to its iterations, as TestState shows them. They show, they do not run: more than can
//! be shown is left out.

use super::{Inspection, Run, Seen};
use crate::execution::{Execution, Strand};
use crate::fault::{self, Fault};
use crate::items::{Answer, Reading};
use crate::limit;
use crate::machine::{Format, Items, Map, State};
use crate::payload::Payload;
use crate::run::{Failure, MapRun};
use crate::scope::WHOLE;
use crate::size;
use jsonata::json;
use serde_json::Value;

/// Items that are selected for being shown.
const SHOWN: usize = 1_000;
/// Bytes of the items of a table, counted as for [`limit::TABLES`].
const TABLE: usize = 16 * 1024 * 1024;

impl<'m> Run<'m> {
    /// Notes the items, and what `ItemSelector` and `ItemBatcher` make of them.
    pub(super) fn itemized(
        &self,
        strand: &Strand,
        state: &'m State,
        map: &'m Map,
        inspection: &Inspection<'m>,
        seen: &mut Seen,
    ) -> Result<(), Fault> {
        let run = self.inspected(strand, state, map, inspection);
        let reader = map.run.as_ref().and_then(|run| run.reader.as_ref());
        let items = match (reader, inspection.read) {
            (Some(reader), Some(text)) => {
                let Some(run) = &run else { return Ok(()) };
                let reading = run.reading().map_err(faulty)?;
                let items = match reading {
                    Some(reading) => read(reading.within(SHOWN + 1, TABLE), text)?,
                    None => Some(Vec::new()),
                };
                let Some(items) = items.filter(|items| items.len() <= SHOWN) else {
                    return Ok(());
                };
                if matches!(&reader.format, Format::Json { pointer } if !pointer.is_empty()) {
                    seen.note("afterItemsPointer", &Payload::new(items.clone().into()));
                }
                items
            }
            // Without the data of the reader, the input is what it would have read.
            (reader, _) => {
                let input = self.input(strand, state)?;
                let items = match self.listed(strand, state, map, &input) {
                    Ok(items) => items,
                    Err(_) if reader.is_some() => return Ok(()),
                    Err(fault) => return Err(fault.at(&strand.state, strand.entered)),
                };
                if matches!(map.items, Items::Path(_)) {
                    seen.note("afterItemsPath", &items);
                }
                match (items.into_value(), &run) {
                    (Value::Array(items), _) => items,
                    // The members of an object are items of a distributed Map only.
                    (_, Some(run)) if reader.is_none() => return shown_of_run(run, map, seen),
                    _ => return Ok(()),
                }
            }
        };
        let Some(selected) = self.chosen_items(strand, state, map, items)? else {
            return Ok(());
        };
        shown(run.as_ref(), map, selected, seen)
    }

    /// What the selector makes of the items, if that can be shown.
    fn chosen_items(
        &self,
        strand: &Strand,
        state: &State,
        map: &Map,
        items: Vec<Value>,
    ) -> Result<Option<Vec<Value>>, Fault> {
        if items.len() > SHOWN {
            return Ok(None);
        }
        let (mut selected, mut room) = (Vec::with_capacity(items.len()), limit::PAYLOAD);
        // Together they may take what one evaluation may.
        let until = self.spent.get() + WHOLE;
        for (index, item) in items.into_iter().enumerate() {
            if self.spent.get() >= until {
                return Ok(None);
            }
            let item = self
                .selected(strand, state, map, index, &Payload::new(item))?
                .into_value();
            match size::within(&item, room, limit::DEPTH) {
                Some(bytes) => room -= bytes,
                None => return Ok(None),
            }
            selected.push(item);
        }
        Ok(Some(selected))
    }

    /// The run that a distributed Map would open.
    fn inspected(
        &self,
        strand: &Strand,
        state: &'m State,
        map: &'m Map,
        inspection: &Inspection<'m>,
    ) -> Option<MapRun<'m>> {
        let mut run = Run::new(inspection.machine, Execution::new(), self.at);
        run.random = self.random.branch(0);
        run.given = self.given.clone();
        MapRun::inspected(run, strand.clone(), state, map, inspection.machine)
    }
}

/// The members of an object as items.
fn shown_of_run(run: &MapRun<'_>, map: &Map, seen: &mut Seen) -> Result<(), Fault> {
    match run.selection(SHOWN).map_err(faulty)? {
        Some(selected) => shown(Some(run), map, selected, seen),
        None => Ok(()),
    }
}

fn shown(run: Option<&MapRun<'_>>, map: &Map, selected: Vec<Value>, seen: &mut Seen) -> Result<(), Fault> {
    if map.work.parameters.is_some() {
        seen.note("afterItemSelector", &Payload::new(selected.clone().into()));
    }
    if let Some((run, batcher)) = run.zip(map.run.as_ref().and_then(|run| run.batcher.as_ref())) {
        let batches = run.batches(batcher, selected).map_err(faulty)?;
        let inputs: Vec<Value> = batches.into_iter().map(|batch| batch.input).collect();
        if size::within(&Value::from(inputs.as_slice()), limit::PAYLOAD, limit::DEPTH).is_some() {
            seen.note("afterItemBatcher", &Payload::new(inputs.into()));
        }
    }
    Ok(())
}

/// The items in the text of an object, or in a list of objects; `None` when they are too large to be shown.
fn read(mut reading: Reading, text: &str) -> Result<Option<Vec<Value>>, Fault> {
    let answer = match reading.wants() {
        Some(crate::items::Request::Listing { .. }) => {
            let listed = json::read(text)
                .ok()
                .and_then(|listed| listed.as_array().cloned());
            let cause = "The data of listObjectsV2 is a JSON array of objects.";
            Answer::Listing {
                objects: listed.ok_or_else(|| Fault::named(fault::ITEM_READER, cause))?,
                next: None,
            }
        }
        _ => Answer::Object(text.as_bytes().to_vec()),
    };
    match reading.take(answer) {
        Err(_) if reading.is_full() => Ok(None),
        taken => taken.map(|()| Some(reading.items())).map_err(faulty),
    }
}

fn faulty(failure: Failure) -> Fault {
    Fault {
        terminal: failure.error == fault::RUNTIME,
        ..Fault::named(&failure.error, failure.cause)
    }
}
