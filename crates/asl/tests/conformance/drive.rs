//! Runs one case: answers its tasks as recorded, runs child executions, and lets virtual time pass.

use crate::recorded;
use crate::world::{Recording, listing, objects};
use asl::{
    Answer, Command, Ended, Event, Execution, HistoryEvent, Machine, MapRun, Request, Status, Timeout, step,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

pub struct Outcome {
    pub status: Status,
    pub history: Vec<HistoryEvent>,
}

/// One execution, and the children of its Map runs.
struct World<'a, 'c> {
    machine: Machine,
    execution: Execution,
    at: Timestamp,
    history: Vec<HistoryEvent>,
    timers: BTreeMap<(Timestamp, u64), ()>,
    queue: VecDeque<Event>,
    runs: BTreeMap<u64, Vec<(asl::Child, Option<Ended>)>>,
    recording: &'a mut Recording<'c>,
}

pub fn run(case: &Value) -> Result<Outcome, String> {
    let machine = recorded::machine(case)?;
    let at = "2026-11-20T22:00:00Z".parse().unwrap();
    let execution = match case["kind"].as_str() {
        Some("sync_execution") => Execution::synchronous(),
        _ => Execution::new(),
    };
    execute(machine, execution, &start(case), at, &mut Recording::of(case))
}

fn execute(
    machine: Machine,
    execution: Execution,
    start: &Event,
    at: Timestamp,
    recording: &mut Recording,
) -> Result<Outcome, String> {
    let mut world = World {
        machine,
        execution,
        at,
        history: Vec::new(),
        timers: BTreeMap::new(),
        queue: VecDeque::new(),
        runs: BTreeMap::new(),
        recording,
    };
    for resource in world.recording.missing() {
        world.apply(&Event::Activity {
            resource,
            exists: false,
        })?;
    }
    world.apply(start)?;
    while world.execution.is_open() {
        if let Some(event) = world.queue.pop_front() {
            world.apply(&event)?;
        } else if world.recording.expected() == "RUNNING" {
            break;
        } else if world.recording.expected() == "ABORTED" {
            world.apply(&Event::Cancel {
                error: None,
                cause: None,
            })?;
        } else if let Some(((at, timer), ())) = world.timers.pop_first() {
            world.at = world.at.max(at);
            world.apply(&Event::TimerFired { timer })?;
        } else {
            return Err("nothing can happen any more".into());
        }
    }
    Ok(Outcome {
        status: world.execution.status().clone(),
        history: world.history,
    })
}

fn start(case: &Value) -> Event {
    let input = match case.get("input_as_sent") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap(),
        Some(Value::Null) => case
            .get("input")
            .filter(|input| !input.is_null())
            .cloned()
            .unwrap_or_else(|| json!({})),
        _ => case.get("input").cloned().unwrap_or_else(|| json!({})),
    };
    Event::Start {
        id: "arn:aws:states:us-east-1:111111111111:execution:machine:run".into(),
        name: "run".into(),
        input,
        role: "snf_role_arn".into(),
        machine_id: "arn:aws:states:us-east-1:111111111111:stateMachine:machine".into(),
        machine_name: "machine".into(),
        seed: [7, 7],
    }
}

impl World<'_, '_> {
    fn apply(&mut self, event: &Event) -> Result<(), String> {
        let outcome = step(&self.machine, self.execution.clone(), event, self.at);
        self.execution = outcome.execution;
        self.history.extend(outcome.history);
        for command in outcome.commands {
            match command {
                Command::Schedule {
                    task,
                    state,
                    resource,
                    input,
                    timeout,
                    heartbeat,
                    ..
                } => {
                    self.queue.push_back(Event::TaskStarted {
                        task,
                        worker: self.recording.worker(),
                    });
                    self.answer(task, &state, (&resource, &input), timeout, heartbeat);
                }
                Command::CancelTask { task } => drop(self.runs.remove(&task)),
                Command::OpenMapRun { task, .. } => {
                    let event = self.open(task);
                    self.queue.push_back(event);
                }
                Command::StartChild {
                    task,
                    child,
                    name,
                    seed,
                } => self.child(task, child, &name, seed)?,
                Command::CloseMapRun { task } => {
                    let event = self.close(task);
                    self.queue.push_back(event);
                }
                // Nothing is redriven here, and children end where they start.
                Command::RedriveMapRun { .. } | Command::StopChildren { .. } => {}
                Command::StartTimer { timer, at } => drop(self.timers.insert((at, timer), ())),
                Command::CancelTimer { timer } => self.timers.retain(|(_, other), ()| *other != timer),
            }
        }
        Ok(())
    }

    fn open(&mut self, task: u64) -> Event {
        let run = MapRun::of(&self.machine, &self.execution, task).unwrap();
        let children = run.reading().and_then(|reading| {
            let Some(mut reading) = reading else {
                return run.children(None);
            };
            while let Some(request) = reading.wants() {
                let answer = match request {
                    Request::Object { parameters } => {
                        Answer::Object(objects(self.recording.case, parameters).unwrap())
                    }
                    Request::Listing { parameters } => Answer::Listing {
                        objects: listing(self.recording.case, parameters),
                        next: None,
                    },
                };
                reading.take(answer)?;
            }
            run.children(Some(reading))
        });
        match children {
            Ok(children) => {
                let event = Event::MapRunOpened {
                    task,
                    children: children.len() as u64,
                    items: children.iter().map(|child| child.items).sum(),
                    closes: true,
                };
                let children = children.into_iter().map(|child| (child, None));
                self.runs.insert(task, children.collect());
                event
            }
            Err(failure) => Event::MapRunFailed {
                task,
                error: Some(failure.error),
                cause: Some(failure.cause),
            },
        }
    }

    fn child(&mut self, task: u64, number: u64, name: &str, seed: [u64; 2]) -> Result<(), String> {
        let run = MapRun::of(&self.machine, &self.execution, task).unwrap();
        let slot = &mut self.runs.get_mut(&task).unwrap()[number as usize];
        let input = slot.0.input.clone();
        let start = run.start(name, seed, input.clone());
        let child = Execution::new();
        let outcome = execute(run.machine().unwrap(), child, &start, self.at, self.recording)?;
        self.queue.push_back(Event::ChildEnded {
            task,
            child: number,
            items: slot.0.items,
            succeeded: matches!(outcome.status, Status::Succeeded { .. }),
        });
        slot.1 = Some(Ended {
            name: name.to_owned(),
            input,
            status: outcome.status,
            started: self.at,
            stopped: self.at,
        });
        Ok(())
    }

    fn close(&mut self, task: u64) -> Event {
        let run = MapRun::of(&self.machine, &self.execution, task).unwrap();
        let children = self.runs.remove(&task).unwrap();
        let ended = children.into_iter().filter_map(|(_, ended)| ended);
        let output = match run.writing() {
            Ok(Some(writing)) => writing.output(),
            Ok(None) => run.output(ended),
            Err(failure) => {
                return Event::MapRunFailed {
                    task,
                    error: Some(failure.error),
                    cause: Some(failure.cause),
                };
            }
        };
        Event::MapRunClosed { task, output }
    }

    /// Queues what the recording says that the next attempt of `state` answered.
    fn answer(
        &mut self,
        task: u64,
        state: &str,
        (resource, input): (&str, &Value),
        timeout: Option<u64>,
        heartbeat: Option<u64>,
    ) {
        loop {
            let Some(answer) = self.recording.next(state) else {
                if let Some(event) = self.recording.call(task, resource, input) {
                    self.queue.push_back(event);
                }
                return;
            };
            let output = answer["output"].clone();
            let text = |name: &str| match &answer[name] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let event = answer["event"].as_str().unwrap_or_default();
            if event.ends_with("Submitted") {
                self.queue.push_back(Event::TaskSubmitted { task, output });
                continue;
            }
            if event.ends_with("Succeeded") {
                self.queue.push_back(Event::TaskSucceeded { task, output });
            } else if event.ends_with("Failed") {
                self.queue.push_back(Event::TaskFailed {
                    task,
                    error: text("error"),
                    cause: text("cause"),
                });
            } else if heartbeat.is_some() {
                self.queue.push_back(Event::TaskTimedOut {
                    task,
                    kind: Timeout::Heartbeat,
                });
            } else if timeout.is_none() {
                self.queue.push_back(Event::TaskTimedOut {
                    task,
                    kind: Timeout::Timeout,
                });
            }
            return;
        }
    }
}
