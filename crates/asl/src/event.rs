//! What happens to an execution, and what it wants done.

use crate::execution::Execution;
use crate::history::HistoryEvent;
use jiff::Timestamp;
use jsonata::json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that happened. An event for a task or timer that is not open changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first event of every execution; what it says is what `$$` shows.
    Start {
        id: String,
        name: String,
        #[serde(deserialize_with = "json::exact")]
        input: Value,
        role: String,
        machine_id: String,
        machine_name: String,
        /// Where all randomness of the execution comes from, task tokens too: 128 bits nobody can guess.
        seed: [u64; 2],
    },
    /// An activity was deleted, or made again: a task of one that is not there fails instead of being scheduled. May come
    /// before the start as well.
    Activity {
        resource: String,
        exists: bool,
    },
    /// The states of an execution that did not succeed are tried again. See [`Execution::can_redrive`].
    Redrive {
        /// Which redrive this is, from 1: one more than [`Execution::redrives`].
        count: u32,
    },
    /// A worker took the task.
    TaskStarted {
        task: u64,
        worker: Option<String>,
    },
    /// The request of a `.sync` or `.waitForTaskToken` task was accepted; its answer is still to come.
    TaskSubmitted {
        task: u64,
        #[serde(deserialize_with = "json::exact")]
        output: Value,
    },
    TaskSucceeded {
        task: u64,
        #[serde(deserialize_with = "json::exact")]
        output: Value,
    },
    TaskFailed {
        task: u64,
        error: Option<String>,
        cause: Option<String>,
    },
    /// Nobody will ever work on the task: what its resource names is not there. Unlike what a worker reports, that is
    /// `States.Runtime`, which nothing retries or catches.
    TaskRefused {
        task: u64,
        cause: String,
    },
    TaskTimedOut {
        task: u64,
        kind: Timeout,
    },
    /// The children of a distributed Map are made, and kept by whoever runs them.
    MapRunOpened {
        task: u64,
        children: u64,
        /// Items in all of them together.
        items: u64,
        /// Its results are written also when it fails. Journals of before that do not say so, and are read as they were
        /// lived.
        #[serde(default)]
        closes: bool,
    },
    /// The children could not be made, or their results not be written.
    MapRunFailed {
        task: u64,
        error: Option<String>,
        cause: Option<String>,
    },
    ChildEnded {
        task: u64,
        child: u64,
        /// Items in it.
        items: u64,
        succeeded: bool,
    },
    /// The answer to [`Command::RedriveMapRun`]: which children are tried again is known, and kept by whoever runs them.
    MapRunReopened {
        task: u64,
        /// Children that are tried again; from now on they are numbered from 0 in this order.
        children: u64,
        /// Items in all children of the run, those that succeeded too.
        items: u64,
        /// Items in children that failed and cannot be tried again.
        failed: u64,
        /// As in [`Event::MapRunOpened`].
        #[serde(default)]
        closes: bool,
    },
    /// Somebody changes what an open Map run may do.
    MapRunChanged {
        task: u64,
        /// Children at the same time; 0: as many as may be.
        most: Option<u64>,
        /// Items that may fail.
        failures: Option<u64>,
        /// Which part of the items may.
        percentage: Option<f64>,
    },
    /// The answer to [`Command::CloseMapRun`].
    MapRunClosed {
        task: u64,
        #[serde(deserialize_with = "json::exact")]
        output: Value,
    },
    TimerFired {
        timer: u64,
    },
    /// Somebody stops the execution.
    Cancel {
        error: Option<String>,
        cause: Option<String>,
    },
}

/// Which deadline a task missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timeout {
    Timeout,
    Heartbeat,
}

/// Something to do, once the step is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Schedule {
        /// Unique in the execution and never used again: a retry is another task.
        task: u64,
        resource: String,
        #[serde(deserialize_with = "json::exact")]
        input: Value,
        /// Seconds. The interpreter runs a timer for it; a worker may want to know.
        timeout: Option<u64>,
        /// Seconds between heartbeats; whoever runs the task watches them and reports [`Event::TaskTimedOut`].
        heartbeat: Option<u64>,
        /// From 1; grows with each retry in one visit of the state.
        attempt: u32,
        state: String,
        /// The task token: who knows it may answer. The same as `$$.Task.Token`.
        token: String,
        /// The role to take on, if `Credentials` names one.
        role: Option<String>,
    },
    /// The answer is not wanted any more; if it is a Map run, its children are not either.
    CancelTask {
        task: u64,
    },
    /// Makes the children of a distributed Map, as [`MapRun`](crate::MapRun) says, and reports
    /// [`Event::MapRunOpened`].
    OpenMapRun {
        /// Its number, from the same series as those of tasks.
        task: u64,
        state: String,
        /// AWS's name of it.
        arn: String,
    },
    /// Finds the children of a distributed Map that did not succeed, and reports [`Event::MapRunReopened`].
    RedriveMapRun {
        task: u64,
        state: String,
        arn: String,
    },
    /// Starts a child, or tries it again, and reports [`Event::ChildEnded`] when it has ended.
    StartChild {
        task: u64,
        /// From 0, in the order of the items; after a redrive, of those children that are tried again.
        child: u64,
        /// Of the child execution; after a redrive, see [`Family`](crate::Family).
        name: String,
        seed: [u64; 2],
    },
    /// Stops the children that are open and reports [`Event::ChildEnded`] of each of them, of those that were to be
    /// started too. Their run fails, and waits for them because their results are to be written.
    StopChildren {
        task: u64,
    },
    /// Collects the outputs of the children, as [`MapRun`](crate::MapRun) says, and reports [`Event::MapRunClosed`], also
    /// when it is a run that fails.
    CloseMapRun {
        task: u64,
    },
    /// Sends [`Event::TimerFired`] at `at`, or at once when that has passed.
    StartTimer {
        timer: u64,
        at: Timestamp,
    },
    CancelTimer {
        timer: u64,
    },
}

/// The outcome of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub execution: Execution,
    pub commands: Vec<Command>,
    /// New events only, in order.
    pub history: Vec<HistoryEvent>,
}
