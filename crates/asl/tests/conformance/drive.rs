//! Runs one case: answers its tasks as recorded and lets virtual time pass.

use asl::{Command, Event, Execution, HistoryEvent, Machine, Status, Timeout, step};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

pub struct Outcome {
    pub status: Status,
    pub history: Vec<HistoryEvent>,
}

struct World<'a> {
    machine: Machine,
    execution: Execution,
    at: Timestamp,
    history: Vec<HistoryEvent>,
    timers: BTreeMap<(Timestamp, u64), ()>,
    answers: VecDeque<&'a Value>,
    worker: Option<String>,
    queue: VecDeque<Event>,
}

pub fn run(case: &Value) -> Result<Outcome, String> {
    let machine = Machine::parse(&case["definition"].to_string()).map_err(|problems| {
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    let mut world = World {
        machine,
        execution: Execution::new(),
        at: "2026-11-20T22:00:00Z".parse().unwrap(),
        history: Vec::new(),
        timers: BTreeMap::new(),
        answers: case["task_results"].as_array().into_iter().flatten().collect(),
        worker: worker(case),
        queue: VecDeque::new(),
    };
    world.apply(&start(case));
    let expected = case["expected"]["status"].as_str().unwrap_or_default();
    while world.execution.is_open() {
        if let Some(event) = world.queue.pop_front() {
            world.apply(&event);
        } else if expected == "RUNNING" {
            break;
        } else if expected == "ABORTED" {
            world.apply(&Event::Cancel {
                error: None,
                cause: None,
            });
        } else if let Some(((at, timer), ())) = world.timers.pop_first() {
            world.at = world.at.max(at);
            world.apply(&Event::TimerFired { timer });
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
        Some(Value::Null) => json!({}),
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

fn worker(case: &Value) -> Option<String> {
    let events = case["expected"]["events"].as_array()?;
    let name = events
        .iter()
        .find_map(|event| event["activityStartedEventDetails"]["workerName"].as_str());
    name.map(str::to_owned)
}

impl World<'_> {
    fn apply(&mut self, event: &Event) {
        let outcome = step(&self.machine, self.execution.clone(), event, self.at);
        self.execution = outcome.execution;
        self.history.extend(outcome.history);
        for command in outcome.commands {
            match command {
                Command::Schedule {
                    task,
                    state,
                    timeout,
                    heartbeat,
                    ..
                } => self.answer(task, &state, timeout, heartbeat),
                Command::CancelTask { .. } => {}
                Command::StartTimer { timer, at } => drop(self.timers.insert((at, timer), ())),
                Command::CancelTimer { timer } => self.timers.retain(|(_, other), ()| *other != timer),
            }
        }
    }

    /// Queues what the recording says that the next attempt of `state` answered.
    fn answer(&mut self, task: u64, state: &str, timeout: Option<u64>, heartbeat: Option<u64>) {
        self.queue.push_back(Event::TaskStarted {
            task,
            worker: self.worker.clone(),
        });
        loop {
            let fits = |answer: &&Value| answer["state"] == state || answer["state"].is_null();
            let Some(at) = self.answers.iter().position(fits) else {
                return;
            };
            let answer = self.answers.remove(at).unwrap();
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
