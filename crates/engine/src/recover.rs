//! From rows to executions: a snapshot, and the events after it.

use std::{collections::BTreeMap, sync::Arc};

use asl::{Command, Event, Execution, HistoryEvent, Kind, Machine, Step};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use store::{Db, Kin, Logged, Piece, Run, Snapshot};

use crate::{Error, Order, PLATFORM, live, live::Own};

/// An open execution as its rows say it is.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// Number of its tenant.
    pub owner: u64,
    pub machine: Machine,
    pub state: Execution,
    /// Number of its last event in the log.
    pub seq: u64,
    /// Its first event after the snapshot.
    pub unfolded: Option<u64>,
    pub orders: BTreeMap<u64, Order>,
    /// What happened after the snapshot.
    pub history: Vec<HistoryEvent>,
    /// When its last event happened.
    pub at: Timestamp,
    /// Whose child it is.
    pub kin: Option<Kin>,
    /// It is the platform's own.
    pub own: Option<Arc<Own>>,
}

/// Reads an open execution, log included. `None`: there is none with this key, or it has ended.
pub fn recover(db: &Db<'_>, key: u64) -> Result<Option<Recovered>, Error> {
    let Some((run, definition)) = db.run_by_key(key)?.filter(|(run, _)| run.ended_at.is_none()) else {
        return Ok(None);
    };
    let machine = Machine::kept(&definition).map_err(|_| Error::Damaged(key))?;
    let snapshot = db.snapshot(key)?;
    let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.seq);
    replay(&run, machine, snapshot, &db.log(Some(key), after)?).map(Some)
}

/// Lets the events happen again on what the snapshot has; those that it has already are passed over.
pub(crate) fn replay(
    run: &Run,
    machine: Machine,
    snapshot: Option<Snapshot>,
    events: &[Logged],
) -> Result<Recovered, Error> {
    let damaged = || Error::Damaged(run.key);
    let (state, seq, orders) = match &snapshot {
        None => (Execution::new(), 0, BTreeMap::new()),
        Some(snapshot) => (
            serde_json::from_str(&snapshot.state).map_err(|_| damaged())?,
            snapshot.seq,
            live::orders(snapshot).ok_or_else(damaged)?,
        ),
    };
    let mut recovered = Recovered {
        owner: run.owner,
        machine,
        state,
        seq,
        unfolded: None,
        orders,
        history: Vec::new(),
        at: run.started_at,
        kin: run.kin,
        own: (run.owner == PLATFORM && run.kin.is_none()).then(|| {
            Arc::new(Own {
                name: run.name.clone(),
                origin: run.origin.clone(),
            })
        }),
    };
    for logged in events.iter().filter(|logged| logged.seq > seq) {
        let event = serde_json::from_str(&logged.event).map_err(|_| damaged())?;
        let state = std::mem::take(&mut recovered.state);
        let step = asl::step(&recovered.machine, state, &event, logged.at);
        note(&mut recovered.orders, &event, &step);
        recovered.state = step.execution;
        recovered.history.extend(step.history);
        recovered.seq = logged.seq;
        recovered.at = logged.at;
        recovered.unfolded.get_or_insert(logged.seq);
    }
    Ok(recovered)
}

/// What a step does to the open tasks: gives those that came and those that are over.
pub(crate) fn note(orders: &mut BTreeMap<u64, Order>, event: &Event, step: &Step) -> (Vec<u64>, Vec<Order>) {
    let (mut came, mut over) = (Vec::new(), Vec::new());
    match event {
        Event::TaskStarted { task, .. } => {
            if let Some(order) = orders.get_mut(task) {
                order.started = true;
            }
        }
        Event::TaskSubmitted { task, .. } => {
            if let Some(order) = orders.get_mut(task) {
                order.submitted = true;
            }
        }
        Event::TaskSucceeded { task, .. }
        | Event::TaskFailed { task, .. }
        | Event::TaskRefused { task, .. }
        | Event::TaskTimedOut { task, .. }
            if !step.execution.open_tasks().any(|open| open.task == *task) =>
        {
            over.extend(orders.remove(task));
        }
        _ => {}
    }
    for command in &step.commands {
        match command {
            Command::Schedule {
                task,
                resource,
                input,
                heartbeat,
                attempt,
                token,
                ..
            } => {
                let order = Order {
                    task: *task,
                    resource: resource.as_str().into(),
                    token: token.as_str().into(),
                    heartbeat: *heartbeat,
                    attempt: *attempt,
                    started: false,
                    submitted: false,
                    input: input.clone(),
                };
                orders.insert(*task, order);
                came.push(*task);
            }
            Command::CancelTask { task } => over.extend(orders.remove(task)),
            Command::OpenMapRun { .. }
            | Command::RedriveMapRun { .. }
            | Command::StartChild { .. }
            | Command::StopChildren { .. }
            | Command::CloseMapRun { .. }
            | Command::StartTimer { .. }
            | Command::CancelTimer { .. } => {}
        }
    }
    (came, over)
}

/// Events of an execution's history from the id `first` on, `limit` at most, and how many there are in all.
pub fn history(db: &Db<'_>, key: u64, first: u64, limit: usize) -> Result<(Vec<HistoryEvent>, u64), Error> {
    let newest = recover(db, key)?;
    let last = match &newest {
        Some(open) => open.state.history_len(),
        None => last(db, key)?,
    };
    let mut found = Vec::new();
    let mut from = first.max(1);
    let until = from.saturating_add(limit as u64).min(last + 1);
    while from < until {
        let pieces = db.pieces(key, from, 16)?;
        let before = from;
        for piece in &pieces {
            if from >= until {
                break;
            }
            let events = events(key, piece)?;
            let events = events
                .into_iter()
                .filter(|event| event.id >= before && event.id < until);
            found.extend(events.filter(|event| event.id >= from));
            from = found.last().map_or(from, |event: &HistoryEvent| event.id + 1);
        }
        if from == before {
            break;
        }
    }
    let rest = newest.map(|open| open.history).unwrap_or_default();
    found.extend(
        rest.into_iter()
            .filter(|event| event.id >= from && event.id < until),
    );
    Ok((found, last))
}

/// An event without its payloads: what a picture of the execution needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mark {
    pub id: u64,
    /// The event that caused this one; 0 for the first ones.
    pub previous: u64,
    pub kind: Kind,
    /// What the event's details call `name`: of a state that is entered or left, the state.
    #[serde(rename = "details", deserialize_with = "named")]
    pub name: Option<String>,
}

impl From<&HistoryEvent> for Mark {
    fn from(event: &HistoryEvent) -> Self {
        Self {
            id: event.id,
            previous: event.previous,
            kind: event.kind.clone(),
            name: event.details["name"].as_str().map(str::to_owned),
        }
    }
}

fn named<'de, D: Deserializer<'de>>(details: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
    }
    Ok(Option::<Named>::deserialize(details)?.and_then(|named| named.name))
}

/// All that happened to an execution, read once and without payloads.
pub fn outline(db: &Db<'_>, key: u64) -> Result<Vec<Mark>, Error> {
    const PIECES: u32 = 16;
    let newest = recover(db, key)?;
    let (mut found, mut next, mut more) = (Vec::<Mark>::new(), 1, true);
    while more {
        let pieces = db.pieces(key, next, PIECES)?;
        let first = next;
        for piece in &pieces {
            let marks: Vec<Mark> = serde_json::from_str(&piece.events).map_err(|_| Error::Damaged(key))?;
            found.extend(marks.into_iter().filter(|mark| mark.id >= first));
            next = found.last().map_or(next, |mark| mark.id + 1);
        }
        more = next > first && pieces.len() == PIECES as usize;
    }
    let rest = newest.map(|open| open.history).unwrap_or_default();
    let rest = rest.into_iter().filter(|event| event.id >= next);
    found.extend(rest.map(|event| Mark::from(&event)));
    Ok(found)
}

fn last(db: &Db<'_>, key: u64) -> Result<u64, Error> {
    let Some(piece) = db.pieces(key, u64::from(u32::MAX), 1)?.pop() else {
        return Ok(0);
    };
    Ok(events(key, &piece)?.last().map_or(0, |event| event.id))
}

fn events(key: u64, piece: &Piece) -> Result<Vec<HistoryEvent>, Error> {
    serde_json::from_str(&piece.events).map_err(|_| Error::Damaged(key))
}
