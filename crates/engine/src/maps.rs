//! Runs of distributed Maps: their children are executions of their own, and each step of a run is an event of the
//! execution that it is in.
//!
//! What is in memory of a run is which of its children are open. All of it follows from rows: after a start, what the
//! execution says of its run and what became of those children say what is next.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use asl::{Command, Event};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Definition, MapChild, RunChange, RunStep, Status};
use tracing::{error, warn};

use crate::{
    Engine, Error, PLATFORM,
    act::Act,
    beside,
    chores::{self, Around, Chore, Deed, Kindred, Outcome},
    handle::{Answer, Input},
    objects::Buckets,
};

/// An open run.
pub(crate) struct Open {
    /// Number of the tenant.
    pub owner: u64,
    /// `None` until a chore has found it out.
    pub kindred: Option<Arc<Kindred>>,
    /// Keys of the children that were started and have not ended, by number.
    pub children: BTreeMap<u64, u64>,
    /// Children that are to be started, or to be looked after.
    pub calls: VecDeque<u64>,
    /// The run fails: children that were not started never are, and those that were are stopped.
    pub failing: bool,
    written: bool,
}

impl Open {
    fn new(owner: u64) -> Self {
        Self {
            owner,
            kindred: None,
            children: BTreeMap::new(),
            calls: VecDeque::new(),
            failing: false,
            written: false,
        }
    }
}

/// Something that took time is done.
pub(crate) enum Done {
    Chore(Chore, Outcome),
    /// It is time to do it again.
    Later(Chore),
    Fetched {
        execution: u64,
        task: u64,
        places: Vec<u64>,
        children: Result<Vec<MapChild>, Error>,
    },
    News(crate::news::Page),
    /// Open children of an execution that is lost.
    Strays(Result<Vec<u64>, Error>),
}

/// What a run may do, as it is kept and described.
fn bounds(execution: &asl::Execution, task: u64) -> String {
    let open = execution.open_runs().find(|open| open.task == task);
    open.map_or(
        Value::Null,
        |open| json!({ "most": open.most, "failures": open.failures, "percentage": open.percentage }),
    )
    .to_string()
}

/// Executions that are to be read at once for what was put off; the rest of it waits.
const WANTED: usize = 256;

impl Engine {
    fn run_step(&mut self, execution: u64, task: u64, at: Timestamp, change: RunChange) {
        self.batch.runs.push(RunStep {
            execution,
            task,
            at,
            change,
        });
    }

    /// Lets what was put off happen, and starts what takes time.
    pub(crate) fn go_on(&mut self) {
        while self.has_room() && self.wanted.len() < WANTED {
            let Some((key, event)) = self.agenda.pop_front() else {
                break;
            };
            match self.live.contains_key(&key) {
                true => self.happen(key, event),
                false => self.park(key, Input::Happen { key, event }),
            }
        }
        self.call();
        self.start_chores();
    }

    /// A command of an execution about a run of its own.
    pub(crate) fn map_command(&mut self, key: u64, at: Timestamp, event: &Event, command: Command) {
        let chore = |task, deed| {
            Act::Chore(Chore {
                execution: key,
                task,
                deed,
            })
        };
        match command {
            Command::OpenMapRun { task, arn, .. } => {
                self.key += 1;
                let bounds = self.bounds_of(key, task);
                let change = RunChange::Begin {
                    key: self.key,
                    arn,
                    bounds,
                };
                self.run_step(key, task, at, change);
                let owner = self.live.get(&key).map_or(PLATFORM, |live| live.owner);
                self.runs.insert((key, task), Open::new(owner));
                self.acts.push(chore(task, Deed::Open));
            }
            Command::RedriveMapRun { task, .. } => {
                self.run_step(key, task, at, RunChange::Redrive);
                let owner = self.live.get(&key).map_or(PLATFORM, |live| live.owner);
                self.runs.insert((key, task), Open::new(owner));
                self.acts.push(chore(task, Deed::Redrive));
            }
            Command::StartChild { task, child, .. } => {
                if let Some(open) = self.runs.get_mut(&(key, task)) {
                    if open.calls.is_empty() {
                        self.callers.push_back(open.owner, (key, task));
                    }
                    open.calls.push_back(child);
                }
            }
            Command::StopChildren { task } => {
                if let Some(open) = self.runs.get_mut(&(key, task)) {
                    open.failing = true;
                    let children: Vec<u64> = open.children.values().copied().collect();
                    self.stop_all(children);
                }
            }
            Command::CloseMapRun { task } => self.acts.push(chore(task, Deed::Close)),
            Command::CancelTask { task } => {
                let status = match about(event) == Some(task) {
                    true => Status::Failed,
                    false => Status::Aborted,
                };
                self.run_over(key, task, at, status);
            }
            _ => {}
        }
    }

    /// What an event about a run means for its row, once the commands that follow from it are seen to.
    pub(crate) fn map_event(&mut self, key: u64, at: Timestamp, event: &Event) {
        match event {
            Event::MapRunOpened {
                task,
                children,
                items,
                ..
            } => {
                let (children, items) = (*children, *items);
                self.run_step(key, *task, at, RunChange::Open { children, items });
            }
            Event::MapRunChanged { task, .. } if self.runs.contains_key(&(key, *task)) => {
                let bounds = self.bounds_of(key, *task);
                self.run_step(key, *task, at, RunChange::Bound(bounds));
            }
            Event::MapRunClosed { task, .. } => self.run_over(key, *task, at, Status::Succeeded),
            _ => {}
        }
    }

    fn bounds_of(&self, key: u64, task: u64) -> String {
        let live = self.live.get(&key);
        live.map_or_else(|| "null".into(), |live| bounds(&live.state, task))
    }

    /// The run has ended; the children that have not are stopped.
    pub(crate) fn run_over(&mut self, key: u64, task: u64, at: Timestamp, status: Status) {
        let Some(open) = self.runs.remove(&(key, task)) else {
            return;
        };
        let written = open.written;
        self.run_step(key, task, at, RunChange::End { status, written });
        self.stop_all(open.children.into_values());
    }

    pub(crate) fn stop_all(&mut self, children: impl IntoIterator<Item = u64>) {
        self.agenda.extend(children.into_iter().map(stopped));
    }

    pub(crate) fn done(&mut self, done: Done) {
        match done {
            Done::Chore(chore, outcome) => {
                self.busy = self.busy.saturating_sub(1);
                self.chore_done(chore, outcome);
            }
            Done::Fetched {
                execution,
                task,
                places,
                children,
            } => {
                self.fetching = false;
                self.fetched((execution, task), places, children);
            }
            Done::Later(chore) => self.queue(chore),
            Done::News(page) => self.news(page),
            Done::Strays(found) => self.strays(found),
        }
    }

    /// Does a chore in its owner's turn, if its run is still open.
    pub(crate) fn queue(&mut self, chore: Chore) {
        if let Some(open) = self.runs.get(&(chore.execution, chore.task)) {
            self.chores.push_back(open.owner, chore);
        }
    }

    /// The same, before the others of its owner.
    pub(crate) fn queue_first(&mut self, chore: Chore) {
        if let Some(open) = self.runs.get(&(chore.execution, chore.task)) {
            self.chores.push_front(open.owner, chore);
        }
    }

    /// Waits outside the places that others want.
    pub(crate) fn later(&mut self, chore: Chore, pause: Duration) {
        self.jobs.spawn(async move {
            tokio::time::sleep(pause).await;
            Done::Later(chore)
        });
    }

    pub(crate) fn start_chores(&mut self) {
        for _ in 0..self.chores.len() {
            if self.busy + self.waking >= chores::AT_ONCE {
                return;
            }
            let Some(chore) = self.chores.pop() else {
                return;
            };
            if !self.runs.contains_key(&(chore.execution, chore.task)) {
                continue;
            }
            let Some(live) = self.live.get(&chore.execution) else {
                self.waking += 1;
                self.park(chore.execution, Input::Chore(chore));
                continue;
            };
            let around = Around {
                store: self.setup.store.clone(),
                buckets: Buckets {
                    objects: self.setup.objects.clone(),
                    owner: live.owner,
                },
                machine: live.machine.clone(),
                state: live.state.clone(),
            };
            self.busy += 1;
            self.jobs.spawn(beside::whole(
                async move { Done::Chore(chore, chores::work(chore, around).await) },
                move || Done::Chore(chore, Outcome::Cut),
            ));
        }
    }

    fn chore_done(&mut self, chore: Chore, outcome: Outcome) {
        let (execution, task) = (chore.execution, chore.task);
        let Some(open) = self.runs.get_mut(&(execution, task)) else {
            return;
        };
        let event = match outcome {
            Outcome::Ready(kindred) => {
                self.know(execution, task, kindred);
                return self.resume_run(execution, task);
            }
            Outcome::Opened {
                kindred,
                children,
                items,
            } => {
                self.know(execution, task, kindred);
                Event::MapRunOpened {
                    task,
                    children,
                    items,
                    closes: true,
                }
            }
            Outcome::Reopened {
                kindred,
                children,
                items,
                failed,
            } => {
                self.know(execution, task, kindred);
                Event::MapRunReopened {
                    task,
                    children,
                    items,
                    failed,
                    closes: true,
                }
            }
            Outcome::Closed { output, written } => {
                open.written = written;
                Event::MapRunClosed { task, output }
            }
            Outcome::Failed(asl::Failure { error, cause }) => {
                warn!(
                    execution,
                    task,
                    error,
                    "the children of a Map run could not be made, or their results not be written: {cause}"
                );
                let (error, cause) = (Some(error), Some(cause));
                Event::MapRunFailed { task, error, cause }
            }
            Outcome::Busy(children) => {
                self.stop_all(children);
                return self.later(chore, chores::PAUSE);
            }
            Outcome::Broken(error) => {
                error!(error = &error as &dyn std::error::Error, "a Map run has to wait");
                return self.later(chore, chores::LONG);
            }
            Outcome::Cut => return self.later(chore, chores::LONG),
            Outcome::Gone => return drop(self.runs.remove(&(execution, task))),
        };
        self.agenda.push_back((execution, event));
    }

    fn know(&mut self, execution: u64, task: u64, mut kindred: Kindred) {
        kindred.definition = self.once(kindred.definition);
        if let Some(open) = self.runs.get_mut(&(execution, task)) {
            open.kindred = Some(Arc::new(kindred));
            self.callers.push_back(open.owner, (execution, task));
        }
    }

    /// The same definition, as other runs have it: many may be open, and their texts are long.
    fn once(&mut self, definition: Definition) -> Definition {
        self.definitions.retain(|_, seen| seen.get().is_some());
        let seen = self.definitions.entry(definition.digest());
        let seen = seen.or_insert_with(|| definition.seen());
        seen.get().unwrap_or(definition)
    }

    /// After a start: what the execution says of its run is what is next.
    fn resume_run(&mut self, execution: u64, task: u64) {
        let Some(live) = self.live.get(&execution) else {
            let deed = Deed::Resume;
            return self.queue(Chore {
                execution,
                task,
                deed,
            });
        };
        let Some(run) = live.state.open_runs().find(|open| open.task == task) else {
            return;
        };
        let deed = match (run.children, run.closing) {
            (None, _) if run.redrives > 0 => Deed::Redrive,
            (None, _) => Deed::Open,
            (_, true) => Deed::Close,
            (_, false) => {
                let calls: VecDeque<u64> = run.open.iter().copied().collect();
                if let Some(open) = self.runs.get_mut(&(execution, task)) {
                    open.calls = calls;
                    open.failing = run.failing;
                    self.callers.push_back(open.owner, (execution, task));
                }
                return;
            }
        };
        // The execution may know by now what no row says yet: as after an event, the chore begins when that is kept.
        self.acts.push(Act::Chore(Chore {
            execution,
            task,
            deed,
        }));
    }

    /// All that was open when the engine ended.
    pub(crate) fn resume_runs(&mut self, runs: Vec<store::MapRun>, strays: Vec<u64>) {
        for run in runs {
            let (execution, task) = (run.execution, run.task);
            self.runs.insert((execution, task), Open::new(run.owner));
            let deed = Deed::Resume;
            self.queue(Chore {
                execution,
                task,
                deed,
            });
        }
        self.stop_all(strays);
    }

    /// Everything about runs is forgotten, with the children that only memory knows.
    pub(crate) fn forget_runs(&mut self) {
        self.runs.clear();
        // Who asked for something was told; the rest was for runs, and follows from rows again.
        self.parked.clear();
        self.callers.clear();
        self.agenda.clear();
        self.chores.clear();
        self.jobs = tokio::task::JoinSet::new();
        self.brood.clear();
        (self.busy, self.waking, self.fetching) = (0, 0, false);
        (self.telling, self.asking) = (None, false);
    }

    pub(crate) fn change_run(&mut self, key: u64, event: Event, answer: Answer<()>) {
        let Some(live) = self.live.get(&key) else {
            return self.park(key, Input::Change { key, event, answer });
        };
        if !live.fits(&event) {
            return drop(answer.send(Err(Error::NotOpen(key))));
        }
        self.happen(key, event);
        self.acts.push(Act::Done(answer));
    }
}

fn stopped(child: u64) -> (u64, Event) {
    let (error, cause) = (None, None);
    (child, Event::Cancel { error, cause })
}

/// Which run an event is about.
fn about(event: &Event) -> Option<u64> {
    match event {
        Event::MapRunOpened { task, .. }
        | Event::MapRunReopened { task, .. }
        | Event::MapRunChanged { task, .. }
        | Event::MapRunFailed { task, .. }
        | Event::MapRunClosed { task, .. }
        | Event::ChildEnded { task, .. } => Some(*task),
        _ => None,
    }
}

/// An end, as rows have it.
pub(crate) fn told(status: asl::Status) -> (Status, Option<String>, Option<String>, Option<String>) {
    match status {
        asl::Status::Running => (Status::Running, None, None, None),
        asl::Status::Succeeded { output } => (Status::Succeeded, Some(output.to_string()), None, None),
        asl::Status::Failed { error, cause } => (Status::Failed, None, error, cause),
        asl::Status::TimedOut => (Status::TimedOut, None, None, None),
        asl::Status::Aborted { error, cause } => (Status::Aborted, None, error, cause),
    }
}
