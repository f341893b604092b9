//! One step: an event goes in, the execution moves on until every line of control waits or has ended.
//!
//! Lines of control ("strands") form a tree, kept flat; what can go on stands in a queue, so nothing here recurses
//! deeper than the definition is nested. A step that has done much stops and asks for a timer that is due at once.

pub(crate) mod children;
mod choice;
pub(crate) mod data;
pub(crate) mod fork;
pub(crate) mod inspect;
mod redrive;
mod retry;
pub(crate) mod task;
mod wait;

use crate::event::{Command, Event, Step, Timeout};
use crate::execution::{Execution, Origin, Parent, Position, Purpose, Status, Strand, Timer};
use crate::fault::Fault;
use crate::history::{self, HistoryEvent, Kind};
use crate::limit;
use crate::machine::{self, Flavour, Machine, Program, State};
use crate::payload::Payload;
use crate::random::Random;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Applies `event`, which happened at `at`, to `execution`.
///
/// Pure and total: the same arguments give the same answer, and any arguments give one. An event that does not fit (for
/// a task that is not open, before the start, after the end) gives the same execution back, with nothing to do. `machine`
/// must be the one that the execution was started with.
pub fn step(machine: &Machine, execution: Execution, event: &Event, at: Timestamp) -> Step {
    let mut run = Run::new(machine, execution, at);
    if run.accept(event) {
        run.work();
        run.x.draws = run.random.draws();
        run.settle();
    }
    Step {
        execution: run.x,
        commands: run.commands,
        history: run.history,
    }
}

/// An execution in the middle of a step.
pub(crate) struct Run<'m> {
    machine: &'m Machine,
    pub random: Random,
    pub x: Execution,
    pub at: Timestamp,
    commands: Vec<Command>,
    history: Vec<HistoryEvent>,
    /// Bytes of history that this step may still write.
    bytes: usize,
    /// Steps that the queries of this step took.
    walked: Cell<u64>,
    /// What all evaluations took, in millionths of the budget that each has.
    pub(crate) spent: Cell<u64>,
    /// The history has no room for more than its last event.
    full: bool,
    /// Strands that a failure took down, as they were; forgotten when it is caught.
    fallen: BTreeMap<u64, Strand>,
    /// A context object that somebody made up, when a state is tested.
    given: Option<Value>,
}

impl<'m> Run<'m> {
    pub fn new(machine: &'m Machine, x: Execution, at: Timestamp) -> Self {
        let seed = x.origin.as_ref().map_or([0, 0], |origin| origin.seed);
        Self {
            machine,
            random: Random::new(seed, x.draws),
            x,
            at,
            commands: Vec::new(),
            history: Vec::new(),
            bytes: limit::STEP_BYTES,
            walked: Cell::new(0),
            spent: Cell::new(0),
            full: false,
            fallen: BTreeMap::new(),
            given: None,
        }
    }

    /// Takes the event in; `false` when it changes nothing.
    fn accept(&mut self, event: &Event) -> bool {
        if let Event::Start { .. } = event {
            return self.x.origin.is_none() && self.start(event);
        }
        if let Event::Redrive { count } = event {
            return self.redrive(*count);
        }
        if let Event::Activity { resource, exists } = event {
            // Whatever waits goes on waiting; only what is scheduled from now on is affected.
            if *exists {
                self.x.gone.remove(resource);
            } else if self.x.gone.len() < limit::ACTIVITIES {
                self.x.gone.insert(resource.clone());
            }
            return false;
        }
        if !self.x.is_open() {
            return false;
        }
        match event {
            Event::Start { .. } | Event::Redrive { .. } | Event::Activity { .. } => false,
            Event::TaskStarted { task, worker } => self.task_started(*task, worker.as_deref()),
            Event::TaskSubmitted { task, output } => self.task_submitted(*task, output),
            Event::TaskSucceeded { task, output } => self.task_succeeded(*task, output),
            Event::TaskFailed { task, error, cause } => {
                self.task_failed(*task, error.as_deref(), cause.as_deref())
            }
            Event::TaskRefused { task, cause } => self.task_refused(*task, cause),
            Event::TaskTimedOut { task, kind } => self.task_timed_out(*task, *kind),
            Event::MapRunOpened {
                task,
                children,
                items,
                closes,
            } => self.run_opened(*task, *children, *items, *closes),
            Event::MapRunReopened {
                task,
                children,
                items,
                failed,
                closes,
            } => self.run_reopened(*task, *children, (*items, *failed), *closes),
            Event::MapRunChanged {
                task,
                most,
                failures,
                percentage,
            } => self.run_changed(*task, *most, *failures, *percentage),
            Event::MapRunFailed { task, error, cause } => {
                self.run_failed(*task, error.as_deref(), cause.as_deref())
            }
            Event::ChildEnded {
                task,
                child,
                items,
                succeeded,
            } => self.child_ended(*task, *child, *items, *succeeded),
            Event::MapRunClosed { task, output } => self.run_closed(*task, output),
            Event::TimerFired { timer } => self.timer_fired(*timer),
            Event::Cancel { error, cause } => self.cancel(error.clone(), cause.clone()),
        }
    }

    fn start(&mut self, event: &Event) -> bool {
        let Event::Start {
            id,
            name,
            input,
            role,
            machine_id,
            machine_name,
            seed,
        } = event
        else {
            return false;
        };
        let input = Payload::new(input.clone());
        let fits = input.fits();
        let input = if fits { input } else { Payload::default() };
        self.random = Random::new(*seed, 0);
        self.x.origin = Some(Origin {
            id: id.clone(),
            name: name.clone(),
            input: input.clone(),
            role: role.clone(),
            machine_id: machine_id.clone(),
            machine_name: machine_name.clone(),
            seed: *seed,
            at: self.at,
            flavour: self.machine.flavour(),
        });
        let mut details = json!({});
        history::payload(&mut details, "input", &input);
        details["roleArn"] = role.as_str().into();
        self.emit("ExecutionStarted", 0, details);
        if !fits {
            self.end_failed(0, Fault::too_large("input"));
            return true;
        }
        self.start_deadline();
        let strand = Strand::new(Parent::None, &self.machine.program().start, input, 0, self.at);
        self.spawn(strand);
        true
    }

    /// `TimeoutSeconds` of the machine; Express has a limit of its own.
    fn start_deadline(&mut self) {
        let express = self.machine.flavour() == Flavour::Express;
        let most = if express { limit::EXPRESS } else { u64::MAX };
        match self.machine.timeout() {
            Some(seconds) => drop(self.timer(seconds.min(most) as f64, Purpose::Deadline, 0)),
            None if express => drop(self.timer(most as f64, Purpose::Deadline, 0)),
            None => {}
        }
    }

    fn timer_fired(&mut self, timer: u64) -> bool {
        let Some(Timer {
            purpose, strand: id, ..
        }) = self.x.timers.remove(&timer)
        else {
            return false;
        };
        if purpose == Purpose::Deadline {
            self.emit("ExecutionTimedOut", 0, json!({}));
            self.end(Status::TimedOut);
            return true;
        }
        if purpose == Purpose::Continue {
            return true;
        }
        let Some(mut strand) = self.x.strands.remove(&id) else {
            return true;
        };
        match purpose {
            Purpose::Deadline | Purpose::Continue => {}
            Purpose::Wait => self.waited(id, strand),
            Purpose::Backoff => {
                strand.retries = strand.retries.saturating_add(1);
                strand.position = Position::Attempt;
                self.resume(id, strand);
            }
            Purpose::TaskTimeout => {
                if let Position::Task { task, timer, .. } = &mut strand.position {
                    *timer = None;
                    self.commands.push(Command::CancelTask { task: *task });
                }
                self.timed_out(id, strand, Timeout::Timeout);
            }
        }
        true
    }

    fn cancel(&mut self, error: Option<String>, cause: Option<String>) -> bool {
        let mut details = json!({});
        history::failure(&mut details, error.as_deref(), cause.as_deref());
        self.emit("ExecutionAborted", 0, details);
        self.end(Status::Aborted { error, cause });
        true
    }

    /// Runs what is ready, within this step's budget.
    fn work(&mut self) {
        for _ in 0..limit::STEP_TRANSITIONS {
            if self.full || self.bytes == 0 || self.walked.get() > limit::STEP_QUERIES {
                break;
            }
            let Some(id) = self.x.ready.pop_front() else { break };
            if let Some(strand) = self.x.strands.remove(&id) {
                self.advance(id, strand);
            }
        }
        if self.full && self.x.is_open() {
            let cause = format!(
                "The execution reached the maximum number of history events ({}).",
                limit::HISTORY
            );
            self.end_failed(self.x.history, Fault::runtime(cause));
        }
        let waiting = self
            .x
            .timers
            .iter()
            .find(|(_, timer)| timer.purpose == Purpose::Continue)
            .map(|(id, _)| *id);
        match waiting {
            None if !self.x.ready.is_empty() => drop(self.timer(0.0, Purpose::Continue, 0)),
            Some(timer) if self.x.ready.is_empty() => self.stop_timer(timer),
            _ => {}
        }
    }

    fn advance(&mut self, id: u64, mut strand: Strand) {
        let Some(state) = self.state(&strand) else {
            let cause = format!(
                "The state '{}' is not in the definition of this execution.",
                strand.state
            );
            return self.end_failed(strand.last, Fault::runtime(cause));
        };
        if matches!(strand.position, Position::Enter) {
            let mut details = json!({ "name": strand.state });
            history::payload(&mut details, "input", &strand.input);
            strand.before = strand.last;
            strand.entered = self.emit(state.kind.entered(), strand.last, details);
            strand.last = strand.entered;
            strand.since = self.at;
            strand.retries = 0;
            strand.attempts.clear();
        }
        strand.position = Position::Attempt;
        match &state.kind {
            machine::Kind::Pass(pass) => self.pass(id, strand, state, pass),
            machine::Kind::Task(task) => self.schedule(id, strand, state, task),
            machine::Kind::Choice(choice) => self.choose(id, strand, state, choice),
            machine::Kind::Wait(wait) => self.wait(id, strand, state, wait),
            machine::Kind::Succeed => self.complete(id, strand, state, None),
            machine::Kind::Fail { error, cause } => {
                self.fail_state(id, strand, state, error.as_ref(), cause.as_ref())
            }
            machine::Kind::Parallel { branches, work } => self.parallel(id, strand, state, branches, work),
            machine::Kind::Map(map) => match &map.run {
                None => self.map(id, strand, state, map),
                Some(run) => self.open_run(id, strand, state, map, run),
            },
        }
    }

    /// The state that a strand is in, if the definition has it.
    pub fn state(&self, strand: &Strand) -> Option<&'m State> {
        self.program(&strand.parent)?.states.get(&strand.state)
    }

    fn program(&self, parent: &Parent) -> Option<&'m Program> {
        let outer = |of: &u64| Some(&self.state(self.x.strands.get(of)?)?.kind);
        match parent {
            Parent::None => Some(self.machine.program()),
            Parent::Branch { of, index } => match outer(of)? {
                machine::Kind::Parallel { branches, .. } => branches.get(*index),
                _ => None,
            },
            Parent::Item { of, .. } => match outer(of)? {
                machine::Kind::Map(map) => Some(&map.processor),
                _ => None,
            },
        }
    }

    fn spawn(&mut self, strand: Strand) {
        let id = self.x.next_strand;
        self.x.next_strand += 1;
        self.resume(id, strand);
    }

    fn resume(&mut self, id: u64, strand: Strand) {
        self.x.strands.insert(id, strand);
        self.x.ready.push_back(id);
    }

    /// Writes a history event and returns its id. When only the last place is left, nothing is written.
    fn emit(&mut self, kind: impl Into<Kind>, previous: u64, details: Value) -> u64 {
        if self.x.history + 1 >= limit::HISTORY {
            self.full = true;
            return self.x.history;
        }
        self.write(kind, previous, details)
    }

    fn write(&mut self, kind: impl Into<Kind>, previous: u64, details: Value) -> u64 {
        self.bytes = self.bytes.saturating_sub(weight(&details));
        self.x.history += 1;
        let details = if details.as_object().is_some_and(serde_json::Map::is_empty) {
            Value::Null
        } else {
            details
        };
        self.history.push(HistoryEvent {
            id: self.x.history,
            previous,
            at: self.at,
            kind: kind.into(),
            details,
        });
        self.x.history
    }

    /// Starts a timer that fires in `seconds`.
    fn timer(&mut self, seconds: f64, purpose: Purpose, strand: u64) -> u64 {
        let wait = SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX);
        let at = self.at.saturating_add(wait).unwrap_or(Timestamp::MAX);
        self.timer_at(at, purpose, strand)
    }

    fn timer_at(&mut self, at: Timestamp, purpose: Purpose, strand: u64) -> u64 {
        let timer = self.x.next_timer;
        self.x.next_timer += 1;
        self.x.timers.insert(timer, Timer { at, purpose, strand });
        self.commands.push(Command::StartTimer { timer, at });
        timer
    }

    fn stop_timer(&mut self, timer: u64) {
        if self.x.timers.remove(&timer).is_some() {
            self.commands.push(Command::CancelTimer { timer });
        }
    }

    fn end_failed(&mut self, previous: u64, fault: Fault) {
        let mut details = json!({});
        history::failure(&mut details, fault.error.as_deref(), fault.cause.as_deref());
        self.write("ExecutionFailed", previous, details);
        self.end(Status::Failed {
            error: fault.error,
            cause: fault.cause,
        });
    }

    fn end(&mut self, status: Status) {
        self.keep_for_redrive(&status);
        self.x.status = status;
        self.x.strands.clear();
        self.x.ready.clear();
        for task in std::mem::take(&mut self.x.tasks).into_keys() {
            self.commands.push(Command::CancelTask { task });
        }
        for timer in std::mem::take(&mut self.x.timers).into_keys() {
            self.commands.push(Command::CancelTimer { timer });
        }
    }

    /// Drops commands that were taken back in the same step.
    fn settle(&mut self) {
        let (mut tasks, mut timers) = (BTreeSet::new(), BTreeSet::new());
        for command in &self.commands {
            match command {
                Command::Schedule { task, .. }
                | Command::OpenMapRun { task, .. }
                | Command::RedriveMapRun { task, .. } => {
                    tasks.insert(*task);
                }
                Command::StartTimer { timer, .. } => drop(timers.insert(*timer)),
                _ => {}
            }
        }
        let x = &self.x;
        self.commands.retain(|command| match command {
            Command::Schedule { task, .. }
            | Command::OpenMapRun { task, .. }
            | Command::RedriveMapRun { task, .. }
            | Command::StartChild { task, .. }
            | Command::StopChildren { task }
            | Command::CloseMapRun { task } => x.tasks.contains_key(task),
            Command::CancelTask { task } => !tasks.contains(task),
            Command::StartTimer { timer, .. } => x.timers.contains_key(timer),
            Command::CancelTimer { timer } => !timers.contains(timer),
        });
    }
}

/// About how many bytes the details of an event are: nearly all of them are in texts at the top.
fn weight(details: &Value) -> usize {
    let members = details.as_object().into_iter().flat_map(serde_json::Map::values);
    let texts = members.map(|member| match member {
        Value::String(text) => text.len(),
        Value::Object(inner) => inner.values().filter_map(Value::as_str).map(str::len).sum(),
        _ => 0,
    });
    128 + texts.sum::<usize>()
}
