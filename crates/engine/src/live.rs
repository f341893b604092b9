//! An execution in memory.

use std::{collections::BTreeMap, sync::Arc};

use asl::{Event, Execution, HistoryEvent, Machine};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Fold, Kin, Piece, Snapshot};

use crate::{
    Recovered,
    desk::Token,
    handle::{Answer, Ended},
};

/// A task that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub task: u64,
    pub resource: Arc<str>,
    pub token: Token,
    /// Seconds.
    pub heartbeat: Option<u64>,
    /// From 1; orders of before it was kept have 0.
    #[serde(default)]
    pub attempt: u32,
    /// A worker has it.
    pub started: bool,
    /// Its request was accepted.
    #[serde(default)]
    pub submitted: bool,
    /// Not here when the order is read at a start, which does not need it.
    #[serde(skip)]
    pub input: Value,
}

impl Order {
    /// Is it out of its worker's hands, because whoever was given its token answers?
    pub(crate) fn is_with_others(&self) -> bool {
        self.submitted && self.resource.ends_with(".waitForTaskToken")
    }
}

/// What is told to whom it concerns of an execution of the platform's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub name: String,
    /// What was kept with it.
    pub origin: String,
}

/// What an express execution has instead of a log.
pub(crate) struct Express {
    pub started_at: Timestamp,
    /// `None`: it is a child of a Map run.
    pub answer: Option<Answer<Ended>>,
}

pub(crate) struct Live {
    /// Number of its tenant.
    pub owner: u64,
    pub machine: Machine,
    pub state: Execution,
    /// Number of its last event in the log.
    pub seq: u64,
    /// Its first event that is not folded.
    pub unfolded: Option<u64>,
    /// The commit that its last fold is in.
    pub folded_in: u64,
    pub orders: BTreeMap<u64, Order>,
    pub pending: Pending,
    /// Grows with each use.
    pub touched: u64,
    /// No event happened before.
    pub at: Timestamp,
    pub express: Option<Box<Express>>,
    /// Whose child it is.
    pub kin: Option<Kin>,
    pub own: Option<Arc<Own>>,
}

/// History that is in no piece yet, as text.
#[derive(Default)]
pub(crate) struct Pending {
    first: u64,
    text: String,
}

impl Pending {
    /// Gives the bytes that were added.
    pub fn push(&mut self, events: &[HistoryEvent]) -> usize {
        let before = self.text.len();
        for event in events {
            match self.text.is_empty() {
                true => {
                    self.first = event.id;
                    self.text.push('[');
                }
                false => self.text.push(','),
            }
            let text = serde_json::to_string(event).expect("an event is plain data");
            self.text.push_str(&text);
        }
        self.text.len() - before
    }

    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn take(&mut self) -> Option<Piece> {
        if self.text.is_empty() {
            return None;
        }
        let mut events = std::mem::take(&mut self.text);
        events.push(']');
        Some(Piece {
            first: self.first,
            events,
        })
    }
}

impl Live {
    pub fn new(owner: u64, machine: Machine, at: Timestamp) -> Self {
        Self {
            owner,
            machine,
            state: Execution::new(),
            seq: 0,
            unfolded: None,
            folded_in: 0,
            orders: BTreeMap::new(),
            pending: Pending::default(),
            touched: 0,
            at,
            express: None,
            kin: None,
            own: None,
        }
    }

    /// Could the event change anything?
    pub fn fits(&self, event: &Event) -> bool {
        let open = |task: &u64| self.state.open_tasks().find(|open| open.task == *task);
        let run = |task: &u64| self.state.open_runs().find(|open| open.task == *task);
        match event {
            Event::TimerFired { timer } => self.state.open_timers().any(|open| open.timer == *timer),
            Event::TaskStarted { task, .. } => open(task).is_some_and(|open| !open.started),
            Event::TaskSubmitted { task, .. }
            | Event::TaskSucceeded { task, .. }
            | Event::TaskFailed { task, .. }
            | Event::TaskRefused { task, .. }
            | Event::TaskTimedOut { task, .. } => open(task).is_some(),
            Event::Start { .. } | Event::Cancel { .. } | Event::Redrive { .. } | Event::Activity { .. } => {
                true
            }
            Event::MapRunOpened { task, .. } | Event::MapRunReopened { task, .. } => {
                run(task).is_some_and(|run| run.children.is_none())
            }
            Event::MapRunFailed { task, .. } | Event::MapRunChanged { task, .. } => run(task).is_some(),
            Event::ChildEnded { task, child, .. } => run(task).is_some_and(|run| run.open.contains(child)),
            Event::MapRunClosed { task, .. } => run(task).is_some_and(|run| run.closing),
        }
    }

    /// When its first timer goes off.
    pub fn wake(&self) -> Option<Timestamp> {
        self.state.open_timers().map(|timer| timer.at).min()
    }

    /// All that its events so far have led to.
    pub fn fold(&mut self, execution: u64) -> Fold {
        let orders: Vec<&Order> = self.orders.values().collect();
        let inputs: Vec<&Value> = self.orders.values().map(|order| &order.input).collect();
        let text = "orders and states are plain data";
        Fold {
            snapshot: Snapshot {
                execution,
                seq: self.seq,
                wake: self.wake(),
                open: serde_json::to_string(&orders).expect(text),
                orders: serde_json::to_string(&inputs).expect(text),
                state: serde_json::to_string(&self.state).expect(text),
            },
            history: self.pending.take(),
        }
    }
}

/// The orders of a snapshot, with their inputs.
pub(crate) fn orders(snapshot: &Snapshot) -> Option<BTreeMap<u64, Order>> {
    let open: Vec<Order> = serde_json::from_str(&snapshot.open).ok()?;
    let Value::Array(inputs) = asl::json::read(&snapshot.orders).ok()? else {
        return None;
    };
    if open.len() != inputs.len() {
        return None;
    }
    let with = |(order, input): (Order, Value)| (order.task, Order { input, ..order });
    Some(open.into_iter().zip(inputs).map(with).collect())
}

impl From<Recovered> for Live {
    fn from(recovered: Recovered) -> Self {
        let mut pending = Pending::default();
        pending.push(&recovered.history);
        Self {
            seq: recovered.seq,
            unfolded: recovered.unfolded,
            orders: recovered.orders,
            pending,
            kin: recovered.kin,
            state: recovered.state,
            own: recovered.own,
            ..Self::new(recovered.owner, recovered.machine, recovered.at)
        }
    }
}
