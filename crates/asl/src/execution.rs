//! The whole state of one execution: all that a step needs besides the definition.

use crate::limit;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};

/// Layout of the record; a reader refuses numbers that it does not know.
const VERSION: u32 = 1;

/// One run of a [`Machine`](crate::Machine). A record: it survives being written and read at every step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    #[serde(deserialize_with = "known")]
    version: u32,
    pub(crate) status: Status,
    pub(crate) origin: Option<Origin>,
    /// Id of the last history event.
    pub(crate) history: u64,
    /// Random numbers drawn so far.
    pub(crate) draws: u64,
    pub(crate) next_task: u64,
    pub(crate) next_timer: u64,
    pub(crate) next_strand: u64,
    pub(crate) strands: BTreeMap<u64, Strand>,
    /// Strands that can go on without waiting for anything.
    pub(crate) ready: VecDeque<u64>,
    /// Which strand waits for which task.
    pub(crate) tasks: BTreeMap<u64, u64>,
    pub(crate) timers: BTreeMap<u64, Timer>,
}

fn known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(deserializer)?;
    if version == VERSION {
        Ok(version)
    } else {
        Err(serde::de::Error::custom(format_args!(
            "execution record version {version}, expected {VERSION}"
        )))
    }
}

/// How an execution stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Also before the start.
    Running,
    Succeeded {
        output: Value,
    },
    Failed {
        error: Option<String>,
        cause: Option<String>,
    },
    /// The machine's own `TimeoutSeconds` passed.
    TimedOut,
    Aborted {
        error: Option<String>,
        cause: Option<String>,
    },
}

impl Status {
    /// AWS's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Succeeded { .. } => "SUCCEEDED",
            Self::Failed { .. } => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Aborted { .. } => "ABORTED",
        }
    }
}

/// What [`Event::Start`](crate::Event) said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub id: String,
    pub name: String,
    pub input: Value,
    pub role: String,
    pub machine_id: String,
    pub machine_name: String,
    pub seed: [u64; 2],
    pub at: Timestamp,
}

/// One line of control: the machine's own, a branch's or an iteration's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Strand {
    pub parent: Parent,
    pub state: String,
    /// The raw input of the state.
    pub input: Value,
    /// The event with which the state was entered, and when.
    pub entered: u64,
    pub since: Timestamp,
    /// The event that causes the next one.
    pub last: u64,
    /// Retries in this visit of the state: all, and by retrier.
    pub retries: u32,
    pub attempts: Vec<u32>,
    pub variables: Map<String, Value>,
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Parent {
    None,
    Branch { of: u64, index: usize },
    Item { of: u64, index: usize, value: Value },
}

impl Parent {
    pub fn strand(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Branch { of, .. } | Self::Item { of, .. } => Some(*of),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
    /// About to enter the state.
    Enter,
    /// Entered, about to do its work, for the first time or again.
    Attempt,
    Task {
        task: u64,
        timer: Option<u64>,
        started: bool,
        submitted: bool,
    },
    Wait {
        timer: u64,
    },
    Backoff {
        timer: u64,
    },
    Parallel {
        branches: usize,
        results: BTreeMap<usize, Value>,
    },
    Map {
        waiting: VecDeque<Value>,
        length: usize,
        results: BTreeMap<usize, Value>,
    },
}

impl Strand {
    pub fn new(parent: Parent, state: &str, input: Value, last: u64, at: Timestamp) -> Self {
        Self {
            parent,
            state: state.to_owned(),
            input,
            entered: 0,
            since: at,
            last,
            retries: 0,
            attempts: Vec::new(),
            variables: Map::new(),
            position: Position::Enter,
        }
    }

    pub fn timer(&self) -> Option<u64> {
        match self.position {
            Position::Task { timer, .. } => timer,
            Position::Wait { timer } | Position::Backoff { timer } => Some(timer),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timer {
    pub at: Timestamp,
    pub purpose: Purpose,
    /// Whose timer it is; 0, the outermost, when it is the execution's.
    pub strand: u64,
}

/// Why a timer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// `TimeoutSeconds` of the machine.
    Deadline,
    /// `TimeoutSeconds` of a task.
    TaskTimeout,
    /// A Wait state.
    Wait,
    /// The pause before a retry.
    Backoff,
    /// The step had done enough and wants to be called again.
    Continue,
}

/// A task that somebody works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTask<'a> {
    pub task: u64,
    pub state: &'a str,
    pub started: bool,
    /// From 1.
    pub attempt: u32,
}

/// A timer that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTimer<'a> {
    pub timer: u64,
    pub at: Timestamp,
    pub purpose: Purpose,
    /// Empty when the timer belongs to the execution and to no state.
    pub state: &'a str,
}

/// A state that was entered and not left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenState<'a> {
    pub name: &'a str,
    pub since: Timestamp,
    /// The names of the Parallel and Map states around it, outermost first, with the number of the branch or item.
    pub inside: Vec<(&'a str, usize)>,
}

impl Default for Execution {
    fn default() -> Self {
        Self::new()
    }
}

impl Execution {
    /// An execution before its start.
    pub fn new() -> Self {
        Self {
            version: VERSION,
            status: Status::Running,
            origin: None,
            history: 0,
            draws: 0,
            next_task: 1,
            next_timer: 1,
            next_strand: 0,
            strands: BTreeMap::new(),
            ready: VecDeque::new(),
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
        }
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether the start was seen and the end was not.
    pub fn is_open(&self) -> bool {
        self.origin.is_some() && self.status == Status::Running
    }

    /// Id of the last history event; 0 before the start, never more than [`limit::HISTORY`].
    pub fn history_len(&self) -> u64 {
        self.history.min(limit::HISTORY)
    }

    pub fn open_tasks(&self) -> impl Iterator<Item = OpenTask<'_>> {
        self.tasks.iter().filter_map(|(task, strand)| {
            let strand = self.strands.get(strand)?;
            let started = matches!(strand.position, Position::Task { started: true, .. });
            Some(OpenTask {
                task: *task,
                state: &strand.state,
                started,
                attempt: strand.retries.saturating_add(1),
            })
        })
    }

    pub fn open_timers(&self) -> impl Iterator<Item = OpenTimer<'_>> {
        self.timers.iter().map(|(timer, Timer { at, purpose, strand })| {
            let whole = matches!(purpose, Purpose::Deadline | Purpose::Continue);
            let state = self
                .strands
                .get(strand)
                .filter(|_| !whole)
                .map_or("", |strand| &strand.state);
            OpenTimer {
                timer: *timer,
                at: *at,
                purpose: *purpose,
                state,
            }
        })
    }

    /// The innermost states that the execution is in: one, or one for each open branch and iteration.
    pub fn open_states(&self) -> impl Iterator<Item = OpenState<'_>> {
        self.strands
            .values()
            .filter(|strand| {
                !matches!(
                    strand.position,
                    Position::Enter | Position::Parallel { .. } | Position::Map { .. }
                )
            })
            .map(|strand| OpenState {
                name: &strand.state,
                since: strand.since,
                inside: self.around(strand),
            })
    }

    fn around<'a>(&'a self, strand: &'a Strand) -> Vec<(&'a str, usize)> {
        let mut inside = Vec::new();
        let mut parent = &strand.parent;
        while let Parent::Branch { of, index } | Parent::Item { of, index, .. } = parent {
            let Some(outer) = self.strands.get(of) else { break };
            inside.push((outer.state.as_str(), *index));
            parent = &outer.parent;
        }
        inside.reverse();
        inside
    }
}
