//! Timers that go off soon. Those of later stay in the store until their time comes near.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use jiff::{SignedDuration, Timestamp};

/// How far ahead timers are held in memory.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);
/// The next stretch is read when less than this is left.
const NEAR: SignedDuration = SignedDuration::from_secs(15);

/// Before a read that failed is tried again.
const MOMENT: SignedDuration = SignedDuration::from_millis(100);

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A timer of the execution's state.
    Timer { execution: u64, timer: u64 },
    /// An execution that has a timer then, and is not in memory.
    Wake { execution: u64 },
    /// A worker should have been heard of.
    Heartbeat { execution: u64, task: u64 },
    /// An express execution has had its time.
    Express { execution: u64 },
}

#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, Due)>>,
    /// Timers up to here are in the heap; `None`: nothing was read yet.
    horizon: Option<Timestamp>,
    /// Until when a worker may be silent; the heap's entry may be of an earlier sign of life.
    silent: HashMap<(u64, u64), Timestamp>,
}

impl Timers {
    pub fn clear(&mut self) {
        self.heap
            .retain(|Reverse((_, due))| matches!(due, Due::Express { .. }));
        self.horizon = None;
        self.silent.clear();
    }

    /// Remembers a timer if it goes off soon.
    pub fn set(&mut self, at: Timestamp, due: Due) {
        if self.horizon.is_some_and(|horizon| at <= horizon) {
            self.heap.push(Reverse((at, due)));
        }
    }

    /// Remembers it in any case: for what the store does not know.
    pub fn keep(&mut self, at: Timestamp, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    /// The stretch that is to be read next, when it is time.
    pub fn stretch(&self, now: Timestamp) -> Option<(Option<Timestamp>, Timestamp)> {
        match self.horizon {
            Some(horizon) if horizon > now + NEAR => None,
            horizon => Some((horizon, now + AHEAD)),
        }
    }

    pub fn read_up_to(&mut self, horizon: Timestamp) {
        self.horizon = Some(horizon);
    }

    /// When to look again.
    pub fn next(&self, now: Timestamp) -> Timestamp {
        let first = self.heap.peek().map(|Reverse((at, _))| *at);
        // When it is due already, it is being read.
        let stretch = self
            .horizon
            .map_or(now, |horizon| horizon - NEAR)
            .max(now + MOMENT);
        first.map_or(stretch, |first| first.min(stretch))
    }

    /// Takes out the next timer that is due.
    pub fn due(&mut self, now: Timestamp) -> Option<Due> {
        loop {
            let Reverse((at, due)) = *self.heap.peek()?;
            if at > now {
                return None;
            }
            self.heap.pop();
            let Due::Heartbeat { execution, task } = due else {
                return Some(due);
            };
            match self.silent.get(&(execution, task)).copied() {
                None => {}
                Some(until) if until > now => self.heap.push(Reverse((until, due))),
                Some(_) => {
                    self.silent.remove(&(execution, task));
                    return Some(due);
                }
            }
        }
    }

    /// A worker showed that it lives: it may be silent until `until`.
    pub fn alive(&mut self, execution: u64, task: u64, until: Timestamp) {
        if self.silent.insert((execution, task), until).is_none() {
            self.keep(until, Due::Heartbeat { execution, task });
        }
    }

    pub fn over(&mut self, execution: u64, task: u64) {
        self.silent.remove(&(execution, task));
    }
}
