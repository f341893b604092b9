//! The whole state of one execution: all that a step needs besides the definition.

use crate::fault::Fault;
use crate::limit;
use crate::machine::Flavour;
use crate::payload::Payload;
use jiff::Timestamp;
use jsonata::json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Layout of the record; a reader refuses numbers that it does not know. Records of the first layout lack the fields
/// that have defaults here.
const VERSION: u32 = 2;

/// The variables of one scope.
pub(crate) type Variables = BTreeMap<String, Payload>;

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
    #[serde(default)]
    pub(crate) redrives: u32,
    /// When it was redriven last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) redriven: Option<Timestamp>,
    /// Activities that are not there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) gone: BTreeSet<String>,
    /// Somebody waits for the end of it: the `StartSyncExecution` of Express.
    #[serde(default)]
    pub(crate) synchronous: bool,
    /// The lines of control as they were when the execution failed: a redrive goes on with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) fallen: BTreeMap<u64, Strand>,
}

fn known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(deserializer)?;
    if (1..=VERSION).contains(&version) {
        Ok(VERSION)
    } else {
        Err(serde::de::Error::custom(format_args!(
            "execution record version {version}, expected at most {VERSION}"
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
        #[serde(deserialize_with = "json::exact")]
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
    pub input: Payload,
    pub role: String,
    pub machine_id: String,
    pub machine_name: String,
    pub seed: [u64; 2],
    pub at: Timestamp,
    #[serde(default)]
    pub flavour: Flavour,
}

/// One line of control: the machine's own, a branch's or an iteration's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Strand {
    pub parent: Parent,
    pub state: String,
    /// The raw input of the state.
    pub input: Payload,
    /// The event before the state was entered, the one with which it was, and when.
    #[serde(default)]
    pub before: u64,
    pub entered: u64,
    pub since: Timestamp,
    /// The event that causes the next one.
    pub last: u64,
    /// Retries in this visit of the state: all, and by retrier.
    pub retries: u32,
    pub attempts: Vec<u32>,
    pub variables: Variables,
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Parent {
    None,
    Branch { of: u64, index: usize },
    Item { of: u64, index: usize, value: Payload },
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
        results: BTreeMap<usize, Payload>,
    },
    Map {
        waiting: VecDeque<Payload>,
        length: usize,
        results: BTreeMap<usize, Payload>,
        /// Iterations at the same time; 0 in records of before, which did not keep it.
        #[serde(default)]
        open: usize,
    },
    Run(Box<Children>),
}

/// How the child executions of a distributed Map stand. Their inputs and outputs are not here: whoever runs them keeps
/// them, and knows them by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Children {
    /// The number of the Map run among the tasks.
    pub task: u64,
    /// `MapRunStarted`
    pub started: u64,
    /// Children, and items in them, once they are known.
    pub total: Option<u64>,
    pub items: u64,
    /// The next one to start.
    pub next: u64,
    pub open: BTreeSet<u64>,
    /// Items in children that failed.
    pub failed: u64,
    /// How many may.
    pub failures: Option<u64>,
    pub percentage: Option<f64>,
    /// Children at the same time.
    pub most: u64,
    /// All have ended; their outputs are being collected.
    pub closing: bool,
    /// How often the run was tried again.
    #[serde(default)]
    pub redrives: u32,
    /// Its results are written also when it fails.
    #[serde(default)]
    pub closes: bool,
    /// Why the run fails, once its results are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Fault>,
}

impl Strand {
    pub fn new(parent: Parent, state: &str, input: Payload, last: u64, at: Timestamp) -> Self {
        Self {
            parent,
            state: state.to_owned(),
            input,
            before: 0,
            entered: 0,
            since: at,
            last,
            retries: 0,
            attempts: Vec::new(),
            variables: Variables::new(),
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

/// A distributed Map that runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenRun<'a> {
    /// Its number, from the same series as those of tasks.
    pub task: u64,
    pub state: &'a str,
    /// How many children there are; `None` until they are made.
    pub children: Option<u64>,
    /// Children that were started and have not ended.
    pub open: &'a BTreeSet<u64>,
    /// Children that were started, those that have ended too.
    pub begun: u64,
    /// All children have ended and their outputs are wanted.
    pub closing: bool,
    /// The run fails: no child is started any more, and it ends when those that are open have ended and the results of
    /// all are written.
    pub failing: bool,
    /// How often the run was tried again; children are then numbered anew.
    pub redrives: u32,
    /// Children at the same time, at most.
    pub most: u64,
    /// Items that may fail, and which part of all.
    pub failures: Option<u64>,
    pub percentage: Option<f64>,
}

/// A timer that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTimer<'a> {
    pub timer: u64,
    pub at: Timestamp,
    pub purpose: Purpose,
    /// Empty when the timer belongs to the execution and to no state.
    pub state: &'a str,
    /// Attempts at the state before it, in this visit.
    pub attempts: u32,
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
            redrives: 0,
            redriven: None,
            synchronous: false,
            gone: BTreeSet::new(),
            fallen: BTreeMap::new(),
        }
    }

    /// The same, for an execution whose end somebody waits for: it has no count of redrives.
    pub fn synchronous() -> Self {
        Self {
            synchronous: true,
            ..Self::new()
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

    /// How often the execution was redriven.
    pub fn redrives(&self) -> u32 {
        self.redrives
    }

    /// Whether [`Event::Redrive`](crate::Event) would be accepted: a standard execution that ended without success, and
    /// whose history has room.
    pub fn can_redrive(&self) -> bool {
        let standard = self
            .origin
            .as_ref()
            .is_some_and(|origin| origin.flavour == Flavour::Standard);
        let ended = matches!(
            self.status,
            Status::Failed { .. } | Status::TimedOut | Status::Aborted { .. }
        );
        standard && ended && !self.fallen.is_empty() && self.history + 2 < limit::HISTORY
    }

    /// The distributed Maps that are open.
    pub fn open_runs(&self) -> impl Iterator<Item = OpenRun<'_>> {
        self.strands.values().filter_map(|strand| match &strand.position {
            Position::Run(children) => Some(OpenRun {
                task: children.task,
                state: &strand.state,
                children: children.total,
                open: &children.open,
                begun: children.next,
                closing: children.closing,
                failing: children.failing.is_some(),
                redrives: children.redrives,
                most: children.most,
                failures: children.failures,
                percentage: children.percentage,
            }),
            _ => None,
        })
    }

    pub fn open_tasks(&self) -> impl Iterator<Item = OpenTask<'_>> {
        self.tasks.iter().filter_map(|(task, strand)| {
            let strand = self.strands.get(strand)?;
            if matches!(strand.position, Position::Run(_)) {
                return None;
            }
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
            let strand = self.strands.get(strand).filter(|_| !whole);
            let state = strand.map_or("", |strand| &strand.state);
            OpenTimer {
                timer: *timer,
                at: *at,
                purpose: *purpose,
                state,
                attempts: strand.map_or(0, |strand| strand.retries.saturating_add(1)),
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
