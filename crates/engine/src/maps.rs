//! Runs of distributed Maps: their children are executions of their own, and each step of a run is an event of the
//! execution that it is in.
//!
//! What is in memory of a run is which of its children are open. All of it follows from rows: after a start, what the
//! execution says of its run and what became of those children say what is next.

use std::{collections::BTreeMap, collections::VecDeque, sync::Arc};

use asl::{Command, Event};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Begin, ChildEnd, Kin, MapChild, RunChange, RunStep, Status};
use tracing::{error, warn};

use crate::{
    Engine, Error,
    act::Act,
    chores::{self, Around, Chore, Deed, Kindred, Outcome},
    handle::{Answer, Input},
    live::{Express, Live},
    objects::Buckets,
    timers::Due,
};

/// Children that are looked up at once.
const FETCH: usize = 128;

/// An open run.
#[derive(Default)]
pub(crate) struct Open {
    /// `None` until a chore has found it out.
    kindred: Option<Arc<Kindred>>,
    /// Keys of the children that were started and have not ended, by number.
    children: BTreeMap<u64, u64>,
    /// Children that are to be started, or to be looked after.
    calls: VecDeque<u64>,
    written: bool,
}

/// Something that took time is done.
pub(crate) enum Done {
    Chore(Chore, Outcome),
    Fetched {
        execution: u64,
        task: u64,
        places: Vec<u64>,
        children: Result<Vec<MapChild>, Error>,
    },
    News(crate::news::Page),
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
        while self.has_room() {
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
                self.runs.insert((key, task), Open::default());
                self.acts.push(chore(task, Deed::Open));
            }
            Command::RedriveMapRun { task, .. } => {
                self.run_step(key, task, at, RunChange::Redrive);
                self.runs.insert((key, task), Open::default());
                self.acts.push(chore(task, Deed::Redrive));
            }
            Command::StartChild { task, child, .. } => {
                if let Some(open) = self.runs.get_mut(&(key, task)) {
                    if open.calls.is_empty() {
                        self.callers.push_back((key, task));
                    }
                    open.calls.push_back(child);
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
    fn run_over(&mut self, key: u64, task: u64, at: Timestamp, status: Status) {
        let Some(open) = self.runs.remove(&(key, task)) else {
            return;
        };
        let written = open.written;
        self.run_step(key, task, at, RunChange::End { status, written });
        self.agenda.extend(open.children.into_values().map(stopped));
    }

    /// Reads what is known of children that are to be started: which they are, and whether they were started before.
    fn call(&mut self) {
        if self.fetching || !self.has_room() {
            return;
        }
        for _ in 0..self.callers.len() {
            let Some(caller) = self.callers.pop_front() else {
                return;
            };
            let Some(open) = self.runs.get_mut(&caller) else {
                continue;
            };
            let Some(kindred) = open.kindred.clone().filter(|_| !open.calls.is_empty()) else {
                continue;
            };
            let is_express = kindred.program.flavour() == asl::Flavour::Express;
            let room = match is_express {
                true => self.setup.limits.children.saturating_sub(self.brood),
                false => FETCH,
            };
            let most = FETCH.min(room).min(open.calls.len());
            if most == 0 {
                self.callers.push_back(caller);
                continue;
            }
            let places: Vec<u64> = open.calls.drain(..most).collect();
            let rest = !open.calls.is_empty();
            if rest {
                self.callers.push_back(caller);
            }
            let (store, (execution, task)) = (self.setup.store.clone(), caller);
            self.fetching = true;
            self.jobs.spawn(async move {
                let (wanted, run, redriven) = (places.clone(), kindred.run, kindred.redriven);
                let found = store.read(move |db| Ok(db.map_places(run, redriven, &wanted)?));
                Done::Fetched {
                    execution,
                    task,
                    places,
                    children: found.await,
                }
            });
            return;
        }
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
            Done::News(page) => self.news(page),
        }
    }

    fn fetched(&mut self, run: (u64, u64), places: Vec<u64>, children: Result<Vec<MapChild>, Error>) {
        let Some(open) = self.runs.get_mut(&run) else {
            return;
        };
        let Some(kindred) = open.kindred.clone() else {
            return;
        };
        match children {
            Ok(children) => children
                .into_iter()
                .for_each(|child| self.look_after(run, &kindred, child)),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "cannot read children");
                open.calls.extend(places);
                self.callers.push_back(run);
            }
        }
    }

    /// Starts a child, or does whatever is next for it.
    fn look_after(&mut self, (execution, task): (u64, u64), kindred: &Arc<Kindred>, child: MapChild) {
        let kin = Kin {
            run: kindred.run,
            execution,
            task,
            child: child.child,
            place: child.place,
            items: child.items,
        };
        let Some(open) = self.runs.get_mut(&(execution, task)) else {
            return;
        };
        if open.children.contains_key(&kin.place) {
            return;
        }
        match (child.status, child.execution) {
            (None, _) => self.begin_child(kindred, kin, &child.input),
            (Some(Status::Running), Some(key)) => drop(open.children.insert(kin.place, key)),
            (Some(_), Some(key)) if child.waits => {
                open.children.insert(kin.place, key);
                self.park(key, Input::Again { key, kin });
            }
            (Some(status), _) => self.child_over(kin, status == Status::Succeeded),
        }
    }

    fn begin_child(&mut self, kindred: &Kindred, kin: Kin, input: &str) {
        let at = self.now();
        let event = kindred
            .family
            .start(kin.child, serde_json::from_str(input).unwrap_or_default());
        let is_express = kindred.program.flavour() == asl::Flavour::Express;
        let mut live = Live::new(kindred.owner, kindred.program.clone(), at);
        live.kin = Some(kin);
        let key = match is_express {
            true => {
                self.express += 1;
                self.brood += 1;
                live.express = Some(Box::new(Express {
                    started_at: at,
                    answer: None,
                }));
                let until = at + self.setup.limits.express;
                self.timers.keep(
                    until,
                    Due::Express {
                        execution: self.express,
                    },
                );
                self.express
            }
            false => {
                self.key += 1;
                self.batch.begins.push(Begin {
                    key: self.key,
                    tenant: kindred.tenant.clone(),
                    machine: kindred.machine,
                    name: kindred.family.name(kin.child),
                    arn: kindred.family.id(kin.child),
                    origin: kindred.origin.clone(),
                    definition: kindred.definition.clone(),
                    input: input.to_owned(),
                    at,
                    kin: Some(kin),
                });
                self.key
            }
        };
        if let Some(open) = self.runs.get_mut(&(kin.execution, kin.task)) {
            open.children.insert(kin.place, key);
        }
        self.insert(key, live);
        self.happen(key, event);
    }

    /// A child has ended: its run hears of it.
    pub(crate) fn child_over(&mut self, kin: Kin, succeeded: bool) {
        let Some(open) = self.runs.get_mut(&(kin.execution, kin.task)) else {
            return;
        };
        open.children.remove(&kin.place);
        let ended = Event::ChildEnded {
            task: kin.task,
            child: kin.place,
            items: kin.items,
            succeeded,
        };
        self.agenda.push_back((kin.execution, ended));
    }

    /// An express child has ended: that is all that is kept of it.
    pub(crate) fn express_child_over(
        &mut self,
        kin: Kin,
        started_at: Timestamp,
        ended_at: Timestamp,
        status: asl::Status,
    ) {
        self.brood = self.brood.saturating_sub(1);
        let (status, output, error, cause) = told(status);
        self.batch.ended.push(ChildEnd {
            run: kin.run,
            child: kin.child,
            items: kin.items,
            status,
            output,
            error,
            cause,
            started_at,
            ended_at,
        });
        self.child_over(kin, status == Status::Succeeded);
    }

    /// A child goes on that ended before its run was tried again.
    pub(crate) fn child_again(&mut self, key: u64, kin: Kin, recovered: crate::Recovered) {
        let (at, count) = (self.now(), recovered.state.redrives() + 1);
        let mut live = Live::from(recovered);
        live.kin = Some(kin);
        self.insert(key, live);
        self.batch.placed.push((key, kin));
        self.batch.reopened.push((key, at));
        self.happen(key, Event::Redrive { count });
    }

    pub(crate) fn start_chores(&mut self) {
        for _ in 0..self.chores.len() {
            if self.busy >= chores::AT_ONCE {
                return;
            }
            let Some(chore) = self.chores.pop_front() else {
                return;
            };
            if !self.runs.contains_key(&(chore.execution, chore.task)) {
                continue;
            }
            let Some(live) = self.live.get(&chore.execution) else {
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
            self.jobs
                .spawn(async move { Done::Chore(chore, chores::work(chore, around).await) });
        }
    }

    fn chore_done(&mut self, chore: Chore, outcome: Outcome) {
        let Chore {
            execution,
            task,
            deed,
            ..
        } = chore;
        if !self.runs.contains_key(&(execution, task)) {
            return;
        }
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
                }
            }
            Outcome::Busy(open) => {
                self.agenda.extend(open.into_iter().map(stopped));
                return self.chores.push_back(Chore { deed, ..chore });
            }
            Outcome::Closed { output, written } => {
                if let Some(open) = self.runs.get_mut(&(execution, task)) {
                    open.written = written;
                }
                Event::MapRunClosed { task, output }
            }
            Outcome::Failed(failure) => Event::MapRunFailed {
                task,
                error: Some(failure.error),
                cause: Some(failure.cause),
            },
            Outcome::Gone => return drop(self.runs.remove(&(execution, task))),
            Outcome::Broken(error) => {
                error!(error = &error as &dyn std::error::Error, "a Map run has to wait");
                return self.chores.push_back(chore);
            }
        };
        self.agenda.push_back((execution, event));
    }

    fn know(&mut self, execution: u64, task: u64, kindred: Kindred) {
        if let Some(open) = self.runs.get_mut(&(execution, task)) {
            open.kindred = Some(Arc::new(kindred));
            self.callers.push_back((execution, task));
        }
    }

    /// After a start: what the execution says of its run is what is next.
    fn resume_run(&mut self, execution: u64, task: u64) {
        let Some(live) = self.live.get(&execution) else {
            let deed = Deed::Resume;
            return self.chores.push_back(Chore {
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
                    self.callers.push_back((execution, task));
                }
                return;
            }
        };
        self.chores.push_back(Chore {
            execution,
            task,
            deed,
        });
    }

    /// All that was open when the engine ended.
    pub(crate) fn resume_runs(&mut self, runs: Vec<store::MapRun>, strays: Vec<u64>) {
        for run in runs {
            let (execution, task) = (run.execution, run.task);
            self.runs.insert((execution, task), Open::default());
            let deed = Deed::Resume;
            self.chores.push_back(Chore {
                execution,
                task,
                deed,
            });
        }
        self.agenda.extend(strays.into_iter().map(stopped));
    }

    /// Everything about runs is forgotten, with the children that only memory knows.
    pub(crate) fn forget_runs(&mut self) {
        self.runs.clear();
        self.callers.clear();
        self.agenda.clear();
        self.chores.clear();
        self.jobs = tokio::task::JoinSet::new();
        (self.busy, self.brood, self.fetching) = (0, 0, false);
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
