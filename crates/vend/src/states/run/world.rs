//! The loop: events in, commands out, and answers from mocks. Children of distributed Maps are worlds of their own.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use asl::{
    Answer, Child, Command, Ended, Event, Execution, Failure, Flavour, HistoryEvent, Machine, MapRun,
    Request, Status, Timeout, step,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Objects, Report};
use crate::states::mocks::{self, Mocks};

/// Events that one run takes in, those of its children too, before it is given up.
const EVENTS: u64 = 1_000_000;
/// Distributed Maps inside each other.
const DEPTH: usize = 8;
/// The region and account of everything that has a name of AWS here.
const PLACE: &str = "us-east-1:123456789012";

/// Why there is no end to report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Mocks(#[from] mocks::Error),
    #[error("nothing says what the ItemReader of Map state \"{state}\" reads")]
    Unread { state: String },
    #[error("the results of Map state \"{state}\" cannot be written: {why}")]
    Results { state: String, why: String },
    #[error("the execution waits for something that cannot happen here")]
    Stuck,
    #[error("the execution did not end within {EVENTS} events")]
    Endless,
    #[error("more than {DEPTH} distributed Maps are inside each other")]
    Deep,
}

/// What is run, and how.
pub struct Setup {
    pub machine: Machine,
    /// Of the machine; the execution is called `run`.
    pub name: String,
    pub input: Value,
    pub mocks: Mocks,
    pub objects: Objects,
    /// As StartSyncExecution starts it.
    pub synchronous: bool,
    /// Waits and back-offs take no time.
    pub virtual_time: bool,
    /// When the execution starts.
    pub at: Timestamp,
    /// Where its randomness comes from.
    pub seed: [u64; 2],
}

/// What all executions of a run share.
struct Around {
    mocks: Mocks,
    objects: Objects,
    events: u64,
}

/// Something that will happen.
enum Due {
    Timer(u64),
    Event(Event),
}

struct World {
    machine: Machine,
    execution: Execution,
    at: Timestamp,
    history: Vec<HistoryEvent>,
    now: VecDeque<Event>,
    later: BTreeMap<(Timestamp, u64), Due>,
    /// Counts what was put into `later`: what is due at the same time happens in the order in which it was put there.
    order: u64,
    runs: BTreeMap<u64, Open>,
    depth: usize,
}

/// A Map run, its children and how they ended.
struct Open {
    state: String,
    children: Vec<(Child, Option<Ended>)>,
}

/// Runs to the end.
///
/// # Errors
/// A task that no mock answers, or no end.
pub async fn run(setup: Setup) -> Result<Report, Error> {
    let start = start(&setup);
    let execution = match setup.synchronous {
        true => Execution::synchronous(),
        false => Execution::new(),
    };
    let mut world = World::new(setup.machine, execution, start, setup.at, 0);
    let mut around = Around {
        mocks: setup.mocks,
        objects: setup.objects,
        events: 0,
    };
    while let Some(pause) = world.advance(&mut around)? {
        if !setup.virtual_time {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(Report::new(world.execution.status(), &world.history))
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
    fn new(machine: Machine, execution: Execution, start: Event, at: Timestamp, depth: usize) -> Self {
        Self {
            machine,
            execution,
            at,
            history: Vec::new(),
            now: VecDeque::from([start]),
            later: BTreeMap::new(),
            order: 0,
            runs: BTreeMap::new(),
            depth,
        }
    }

    /// Goes on until time must pass; `None` at the end.
    fn advance(&mut self, around: &mut Around) -> Result<Option<Duration>, Error> {
        loop {
            if let Some(event) = self.now.pop_front() {
                around.events += 1;
                if around.events > EVENTS {
                    return Err(Error::Endless);
                }
                self.apply(&event, around)?;
            } else if !self.execution.is_open() {
                return Ok(None);
            } else if let Some(((at, _), due)) = self.later.pop_first() {
                self.now.push_back(match due {
                    Due::Timer(timer) => Event::TimerFired { timer },
                    Due::Event(event) => event,
                });
                let pause = Duration::try_from(at.duration_since(self.at)).unwrap_or_default();
                self.at = self.at.max(at);
                return Ok(Some(pause));
            } else {
                return Err(Error::Stuck);
            }
        }
    }

    fn apply(&mut self, event: &Event, around: &mut Around) -> Result<(), Error> {
        let step = step(&self.machine, std::mem::take(&mut self.execution), event, self.at);
        self.execution = step.execution;
        self.history.extend(step.history);
        for command in step.commands {
            match command {
                Command::Schedule {
                    task,
                    state,
                    resource,
                    ..
                } => {
                    let answer = around.mocks.answer(&state)?;
                    self.answer(task, &answer, &resource);
                }
                Command::CancelTask { task } => drop(self.runs.remove(&task)),
                Command::OpenMapRun { task, state, .. } => {
                    let event = self.open(task, state, around)?;
                    self.now.push_back(event);
                }
                Command::StartChild {
                    task,
                    child,
                    name,
                    seed,
                } => self.child(task, child, &name, seed, around)?,
                Command::CloseMapRun { task } => {
                    let event = self.close(task, around)?;
                    self.now.push_back(event);
                }
                Command::StopChildren { task } => self.stop(task),
                // Nothing is redriven here.
                Command::RedriveMapRun { .. } => {}
                Command::StartTimer { timer, at } => self.put(at, Due::Timer(timer)),
                Command::CancelTimer { timer } => {
                    self.later
                        .retain(|_, due| !matches!(due, Due::Timer(other) if *other == timer));
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, at: Timestamp, due: Due) {
        self.order += 1;
        self.later.insert((at, self.order), due);
    }

    /// A task is started and answered in the moment in which it is scheduled.
    fn answer(&mut self, task: u64, answer: &mocks::Answer, resource: &str) {
        self.now.push_back(Event::TaskStarted { task, worker: None });
        if resource.contains(".sync") || resource.contains(".waitForTaskToken") {
            let output = answer.submitted.clone().unwrap_or_else(|| json!({}));
            self.now.push_back(Event::TaskSubmitted { task, output });
        }
        self.now.push_back(match answer.outcome() {
            Ok(output) => Event::TaskSucceeded { task, output },
            Err(thrown) => failure(task, thrown),
        });
    }

    /// Makes the children of a Map run.
    fn open(&mut self, task: u64, state: String, around: &mut Around) -> Result<Event, Error> {
        let Some(run) = MapRun::of(&self.machine, &self.execution, task) else {
            return Err(Error::Stuck);
        };
        let made = match run.reading() {
            Ok(None) => run.children(None),
            Err(failure) => Err(failure),
            Ok(Some(mut reading)) => {
                let mut read = Ok(());
                while let Some(request) = reading.wants() {
                    read = given(request, &state, around)?.and_then(|answer| reading.take(answer));
                    if read.is_err() {
                        break;
                    }
                }
                read.and_then(|()| run.children(Some(reading)))
            }
        };
        let children = match made {
            Ok(children) => children,
            Err(Failure { error, cause }) => {
                let (error, cause) = (Some(error), Some(cause));
                return Ok(Event::MapRunFailed { task, error, cause });
            }
        };
        let event = Event::MapRunOpened {
            task,
            children: children.len() as u64,
            items: children.iter().map(|child| child.items).sum(),
            closes: true,
        };
        let children = children.into_iter().map(|child| (child, None)).collect();
        self.runs.insert(task, Open { state, children });
        Ok(event)
    }

    /// Runs a child to its end; its parent hears of it when that time has come.
    fn child(
        &mut self,
        task: u64,
        number: u64,
        name: &str,
        seed: [u64; 2],
        around: &mut Around,
    ) -> Result<(), Error> {
        if self.depth >= DEPTH {
            return Err(Error::Deep);
        }
        let run = MapRun::of(&self.machine, &self.execution, task);
        let open = self.runs.get_mut(&task);
        let slot = open.and_then(|open| open.children.get_mut(usize::try_from(number).ok()?));
        let (Some(run), Some((child, ended))) = (run, slot) else {
            return Ok(());
        };
        let Some(machine) = run.machine() else {
            return Err(Error::Stuck);
        };
        let start = run.start(name, seed, child.input.clone());
        let mut world = World::new(machine, Execution::new(), start, self.at, self.depth + 1);
        while world.advance(around)?.is_some() {}
        let status = world.execution.status().clone();
        let event = Event::ChildEnded {
            task,
            child: number,
            items: child.items,
            succeeded: matches!(status, Status::Succeeded { .. }),
        };
        *ended = Some(Ended {
            name: name.to_owned(),
            input: child.input.clone(),
            status,
            started: self.at,
            stopped: world.at,
        });
        self.put(world.at, Due::Event(event));
        Ok(())
    }

    /// Children that would end later end now; their parent hears of it next.
    fn stop(&mut self, task: u64) {
        let at = self.at;
        let children = self.runs.get_mut(&task).map(|open| &mut open.children);
        let ended = children
            .into_iter()
            .flatten()
            .filter_map(|(_, ended)| ended.as_mut());
        for ended in ended.filter(|ended| ended.stopped > at) {
            let (error, cause) = (None, None);
            ended.status = Status::Aborted { error, cause };
            ended.stopped = at;
        }
        let due = self.later.extract_if(
            (at, u64::MAX)..,
            |_, due| matches!(due, Due::Event(Event::ChildEnded { task: other, .. }) if *other == task),
        );
        let due: Vec<Due> = due.map(|(_, due)| due).collect();
        for mut due in due {
            if let Due::Event(Event::ChildEnded { succeeded, .. }) = &mut due {
                *succeeded = false;
            }
            self.put(at, due);
        }
    }

    /// Collects what the children said, and writes it where the state wants it.
    fn close(&mut self, task: u64, around: &Around) -> Result<Event, Error> {
        let run = MapRun::of(&self.machine, &self.execution, task);
        let (Some(run), Some(open)) = (run, self.runs.remove(&task)) else {
            return Err(Error::Stuck);
        };
        let (family, at) = (run.family(), self.at);
        let ended = (0..).zip(open.children).map(|(number, (child, ended))| {
            ended.unwrap_or_else(|| Ended {
                name: family.name(number),
                input: child.input,
                status: Status::Running,
                started: at,
                stopped: at,
            })
        });
        let ended: Vec<Ended> = ended.collect();
        let writing = match run.writing() {
            Ok(writing) => writing,
            Err(Failure { error, cause }) => {
                let (error, cause) = (Some(error), Some(cause));
                return Ok(Event::MapRunFailed { task, error, cause });
            }
        };
        let Some(writing) = writing else {
            let output = run.output(ended);
            return Ok(Event::MapRunClosed { task, output });
        };
        for file in writing.files(&run, &ended) {
            let written = around.objects.write(writing.bucket(), &file.key, &file.bytes);
            written.map_err(|error| Error::Results {
                state: open.state.clone(),
                why: error.to_string(),
            })?;
        }
        let output = writing.output();
        Ok(Event::MapRunClosed { task, output })
    }
}

/// What an `ItemReader` reads: from the mock of its Map state, or from the directory.
fn given(request: &Request, state: &str, around: &mut Around) -> Result<Result<Answer, Failure>, Error> {
    let failed = |cause: String| Failure {
        error: "States.ItemReaderFailed".into(),
        cause,
    };
    if around.mocks.has(state) {
        return Ok(match (around.mocks.answer(state)?.outcome(), request) {
            (Err(thrown), _) => Err(Failure {
                error: thrown.error.unwrap_or_else(|| failed(String::new()).error),
                cause: thrown.cause.unwrap_or_default(),
            }),
            (Ok(Value::Array(objects)), Request::Listing { .. }) => {
                Ok(Answer::Listing { objects, next: None })
            }
            (Ok(Value::String(text)), _) => Ok(Answer::Object(text.into_bytes())),
            (Ok(value), _) => Ok(Answer::Object(value.to_string().into_bytes())),
        });
    }
    if around.objects.0.is_none() {
        let state = state.to_owned();
        return Err(Error::Unread { state });
    }
    Ok(match request {
        Request::Object { parameters } => around.objects.read(parameters).map(Answer::Object),
        Request::Listing { parameters } => {
            let listed = around.objects.list(parameters);
            listed.map(|objects| Answer::Listing { objects, next: None })
        }
    }
    .map_err(|error| failed(format!("{} cannot be read: {error}", described(request)))))
}

fn described(request: &Request) -> String {
    let (Request::Object { parameters } | Request::Listing { parameters }) = request;
    parameters.to_string()
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
