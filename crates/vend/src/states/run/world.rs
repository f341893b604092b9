//! The loop: events in, commands out, and answers from mocks.

use std::{collections::{BTreeMap, VecDeque}, time::Duration};

use asl::{Command, Event, Execution, Flavour, HistoryEvent, Machine, Timeout, step};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Report;
use crate::states::mocks::{self, Mocks};

/// Events that one run takes in before it is given up: a machine that never ends has no history limit when Express.
const EVENTS: u64 = 1_000_000;
/// The account and region of everything that has a name of AWS here.
const PLACE: &str = "us-east-1:123456789012";

/// Why there is no end to report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Mocks(#[from] mocks::Error),
    #[error("the execution waits for something that cannot happen here")]
    Stuck,
    #[error("the execution did not end within {EVENTS} events")]
    Endless,
}

/// What is run, and how.
pub struct Setup {
    pub machine: Machine,
    /// Of the machine; the execution is called `run`.
    pub name: String,
    pub input: Value,
    pub mocks: Mocks,
    /// Waits and back-offs take no time.
    pub virtual_time: bool,
    /// When the execution starts.
    pub at: Timestamp,
    /// Where its randomness comes from.
    pub seed: [u64; 2],
}

struct World {
    machine: Machine,
    execution: Execution,
    mocks: Mocks,
    at: Timestamp,
    history: Vec<HistoryEvent>,
    timers: BTreeMap<(Timestamp, u64), ()>,
    queue: VecDeque<Event>,
}

/// Runs to the end.
///
/// # Errors
/// A task that no mock answers, or no end.
pub async fn run(setup: Setup) -> Result<Report, Error> {
    let start = start(&setup);
    let mut world = World {
        machine: setup.machine,
        execution: Execution::new(),
        mocks: setup.mocks,
        at: setup.at,
        history: Vec::new(),
        timers: BTreeMap::new(),
        queue: VecDeque::from([start]),
    };
    for _ in 0..EVENTS {
        if let Some(event) = world.queue.pop_front() {
            world.apply(&event)?;
        } else if !world.execution.is_open() {
            return Ok(Report::new(world.execution.status(), &world.history));
        } else if let Some(((at, timer), ())) = world.timers.pop_first() {
            if !setup.virtual_time {
                let left = at.duration_since(world.at);
                tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
            }
            world.at = world.at.max(at);
            world.queue.push_back(Event::TimerFired { timer });
        } else {
            return Err(Error::Stuck);
        }
    }
    Err(Error::Endless)
}

fn start(setup: &Setup) -> Event {
    let name = &setup.name;
    let kind = match setup.machine.flavour() {
        Flavour::Standard => "execution",
        Flavour::Express => "express",
    };
    Event::Start {
        id: format!("arn:aws:states:{PLACE}:{kind}:{name}:run"),
        name: "run".into(),
        input: setup.input.clone(),
        role: "arn:aws:iam::123456789012:role/local".into(),
        machine_id: format!("arn:aws:states:{PLACE}:stateMachine:{name}"),
        machine_name: name.clone(),
        seed: setup.seed,
    }
}

impl World {
    fn apply(&mut self, event: &Event) -> Result<(), Error> {
        let step = step(&self.machine, std::mem::take(&mut self.execution), event, self.at);
        self.execution = step.execution;
        self.history.extend(step.history);
        for command in step.commands {
            match command {
                Command::Schedule { task, state, resource, .. } => self.answer(task, &state, &resource)?,
                Command::CancelTask { .. } => {}
                Command::StartTimer { timer, at } => drop(self.timers.insert((at, timer), ())),
                Command::CancelTimer { timer } => self.timers.retain(|(_, other), ()| *other != timer),
            }
        }
        Ok(())
    }

    /// A task is started and answered in the moment in which it is scheduled.
    fn answer(&mut self, task: u64, state: &str, resource: &str) -> Result<(), Error> {
        let answer = self.mocks.answer(state)?;
        self.queue.push_back(Event::TaskStarted { task, worker: None });
        if resource.contains(".sync") || resource.contains(".waitForTaskToken") {
            let output = answer.submitted.clone().unwrap_or_else(|| json!({}));
            self.queue.push_back(Event::TaskSubmitted { task, output });
        }
        self.queue.push_back(match answer.outcome() {
            Ok(output) => Event::TaskSucceeded { task, output },
            Err(thrown) => failure(task, thrown),
        });
        Ok(())
    }
}

/// A thrown time-out is one.
fn failure(task: u64, thrown: mocks::Thrown) -> Event {
    let kind = match thrown.error.as_deref() {
        Some("States.Timeout") => Timeout::Timeout,
        Some("States.HeartbeatTimeout") => Timeout::Heartbeat,
        _ => {
            let mocks::Thrown { error, cause } = thrown;
            return Event::TaskFailed { task, error, cause };
        }
    };
    Event::TaskTimedOut { task, kind }
}
