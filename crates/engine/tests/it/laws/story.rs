//! An execution beside what is kept of it, and what must hold of the two.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use asl::{Event, Execution, HistoryEvent, Machine, Status, Timeout, step};
use engine::{Recovered, recover};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{Batch, Begin, Fold, Logged, Piece, Snapshot, Store};

use super::world;

const KEY: u64 = 1;

/// An execution beside what is kept of it.
pub struct Story {
    store: Store,
    machine: Machine,
    state: Execution,
    at: Timestamp,
    seq: u64,
    history: Vec<HistoryEvent>,
    folded: usize,
    orders: Vec<u64>,
}

impl Story {
    pub async fn new(store: Store, definition: &Value, input: Value) -> Self {
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut story = Self {
            store,
            machine: Machine::parse(&definition.to_string()).unwrap(),
            state: Execution::new(),
            at,
            seq: 0,
            history: Vec::new(),
            folded: 0,
            orders: Vec::new(),
        };
        let begin = Begin {
            key: KEY,
            tenant: Some(world::tenant()),
            machine: 1,
            name: "x".into(),
            arn: "x".into(),
            origin: "{}".into(),
            definition: definition.to_string().into(),
            input: input.to_string(),
            at,
            kin: None,
        };
        let text = |text: &str| text.to_owned();
        let event = Event::Start {
            id: text("x"),
            name: text("x"),
            input,
            role: text("r"),
            machine_id: text("m"),
            machine_name: text("m"),
            seed: [3, 9],
        };
        story.happen(event, vec![begin]).await;
        story
    }

    async fn keep(&self, batch: Batch) {
        let kept = self.store.write(move |tx| tx.append(&batch)).await;
        kept.unwrap_or_else(|error: store::Error| panic!("{error}"));
    }

    async fn happen(&mut self, event: Event, begins: Vec<Begin>) {
        self.seq += 1;
        let logged = Logged {
            seq: self.seq,
            execution: KEY,
            at: self.at,
            event: serde_json::to_string(&event).unwrap(),
        };
        let batch = Batch {
            begins,
            events: vec![logged],
            ..Batch::default()
        };
        self.keep(batch).await;
        let done = step(&self.machine, std::mem::take(&mut self.state), &event, self.at);
        self.state = done.execution;
        self.history.extend(done.history);
        self.orders = self.state.open_tasks().map(|open| open.task).collect();
    }

    async fn recovered(&self) -> Recovered {
        self.store.read(|db| recover(db, KEY)).await.unwrap().unwrap()
    }

    /// What is kept is what is.
    async fn check(&self) {
        let recovered = self.recovered().await;
        assert_eq!(recovered.state, self.state, "after {} events", self.seq);
        assert_eq!(recovered.orders.keys().copied().collect::<Vec<_>>(), self.orders);
        let (kept, last) = self
            .store
            .read(|db| engine::history(db, KEY, 1, 100_000))
            .await
            .unwrap();
        assert_eq!(last, self.history.len() as u64);
        assert_eq!(kept, self.history);
    }

    /// Folds what has happened, as the engine does, and perhaps drops the events.
    async fn fold(&mut self, drops: bool) {
        let recovered = self.recovered().await;
        let orders: Vec<_> = recovered.orders.values().collect();
        let inputs: Vec<_> = recovered.orders.values().map(|order| &order.input).collect();
        let fresh = &self.history[self.folded..];
        let snapshot = Snapshot {
            execution: KEY,
            seq: self.seq,
            wake: self.state.open_timers().map(|timer| timer.at).min(),
            open: serde_json::to_string(&orders).unwrap(),
            orders: serde_json::to_string(&inputs).unwrap(),
            state: serde_json::to_string(&self.state).unwrap(),
        };
        let history = fresh.first().map(|first| Piece {
            first: first.id,
            events: serde_json::to_string(fresh).unwrap(),
        });
        let batch = Batch {
            folds: vec![Fold { snapshot, history }],
            folded_before: drops.then_some(self.seq + 1),
            ..Batch::default()
        };
        self.folded = self.history.len();
        self.keep(batch).await;
    }

    /// Something that happens to a Map run, if one is open.
    fn next_of_run(&self, choice: u32) -> Option<Event> {
        let run = self
            .state
            .open_runs()
            .next()
            .filter(|_| choice.is_multiple_of(2))?;
        let (task, number) = (run.task, u64::from(choice / 64));
        Some(
            match run.open.iter().nth(number as usize % run.open.len().max(1)) {
                _ if run.children.is_none() => Event::MapRunOpened {
                    task,
                    children: number % 5,
                    items: number % 5,
                    closes: true,
                },
                Some(child) => Event::ChildEnded {
                    task,
                    child: *child,
                    items: 1,
                    succeeded: number % 7 > 0,
                },
                None => Event::MapRunClosed {
                    task,
                    output: json!([choice % 5]),
                },
            },
        )
    }

    fn next(&self, choice: u32, before: &[Event]) -> Event {
        if let Some(event) = self.next_of_run(choice) {
            return event;
        }
        let pick = |many: usize| (choice / 64) as usize % many.max(1);
        let task = self.orders.get(pick(self.orders.len())).copied();
        let timers: Vec<u64> = self.state.open_timers().map(|open| open.timer).collect();
        let timer = timers.get(pick(timers.len())).copied();
        match (choice % 12, task, timer) {
            // Late, twice, or for somebody else.
            (0 | 1, ..) if !before.is_empty() => before[pick(before.len())].clone(),
            (2, ..) => Event::TaskSucceeded {
                task: u64::from(choice / 64 % 40),
                output: json!(choice),
            },
            (3, Some(task), _) => Event::TaskStarted { task, worker: None },
            (4, Some(task), _) => Event::TaskFailed {
                task,
                error: Some("Broken".into()),
                cause: None,
            },
            (5, Some(task), _) => Event::TaskTimedOut {
                task,
                kind: Timeout::Heartbeat,
            },
            (6.., Some(task), _) => Event::TaskSucceeded {
                task,
                output: json!({ "n": choice % 5 }),
            },
            (_, _, Some(timer)) => Event::TimerFired { timer },
            _ => Event::TimerFired { timer: 0 },
        }
    }
}

/// Whatever happens, in whatever order, and wherever it is folded: what is kept is what is.
pub async fn wander(store: Store, definition: &Value, input: Value, choices: Vec<u32>) {
    let mut story = Story::new(store, definition, input).await;
    let mut before = Vec::new();
    for choice in choices {
        if !story.state.is_open() {
            break;
        }
        story.at += SignedDuration::from_millis(i64::from(choice % 5000));
        let event = story.next(choice, &before);
        before.push(event.clone());
        story.happen(event, Vec::new()).await;
        story.check().await;
        if choice % 5 == 0 {
            story.fold(choice % 2 == 0).await;
            story.check().await;
        }
    }
}

/// What workers answer: the same to the same attempt at the same work.
pub type Answers<'a> = &'a dyn Fn(&str, u32) -> Result<Value, String>;

/// How an execution ended, and the kinds of all its events.
pub type Ending = (Status, Vec<String>);

/// An execution that goes on without being kept.
struct Course<'a> {
    machine: &'a Machine,
    state: Execution,
    /// Resource and attempt of each open task.
    orders: BTreeMap<u64, (String, u32)>,
    kinds: Vec<String>,
}

impl Course<'_> {
    /// What happens next: the first open task is taken, then answered; without one, a timer goes off.
    fn next(&self, answers: Answers<'_>) -> Event {
        let Some(open) = self.state.open_tasks().next() else {
            let timer = self
                .state
                .open_timers()
                .min_by_key(|timer| (timer.at, timer.timer));
            return Event::TimerFired {
                timer: timer.expect("an open execution waits for something").timer,
            };
        };
        let task = open.task;
        if !open.started {
            return Event::TaskStarted { task, worker: None };
        }
        let (resource, attempt) = &self.orders[&task];
        match answers(resource, *attempt) {
            Ok(output) => Event::TaskSucceeded { task, output },
            Err(error) => Event::TaskFailed {
                task,
                error: Some(error),
                cause: Some("a test".into()),
            },
        }
    }

    fn happen(&mut self, event: &Event, at: Timestamp) {
        let done = step(self.machine, std::mem::take(&mut self.state), event, at);
        for command in done.commands {
            if let asl::Command::Schedule {
                task,
                resource,
                attempt,
                ..
            } = command
            {
                self.orders.insert(task, (resource, attempt));
            }
        }
        self.state = done.execution;
        self.kinds
            .extend(done.history.iter().map(|event| event.kind.to_string()));
    }

    /// A clock that jumps, to and fro.
    fn ending(mut self, answers: Answers<'_>, mut at: Timestamp, jumps: [i64; 3]) -> Ending {
        for count in 0.. {
            if !self.state.is_open() {
                break;
            }
            let event = self.next(answers);
            self.happen(&event, at);
            at += SignedDuration::from_millis(jumps[count % 3]);
        }
        (self.state.status().clone(), self.kinds)
    }
}

impl Story {
    fn course(&self, recovered: Recovered, kept: &[HistoryEvent]) -> Course<'_> {
        let order = |order: &engine::Order| (order.task, (order.resource.to_string(), order.attempt));
        Course {
            machine: &self.machine,
            orders: recovered.orders.values().map(order).collect(),
            state: recovered.state,
            kinds: kept.iter().map(|event| event.kind.to_string()).collect(),
        }
    }

    /// What is late, comes twice or is for another attempt changes nothing.
    fn stays(&self, before: &[Event]) {
        for event in before {
            let again = step(&self.machine, self.state.clone(), event, self.at);
            assert_eq!(again.execution, self.state, "after {event:?} came again");
            assert!(again.history.is_empty() && again.commands.is_empty(), "{event:?}");
        }
    }
}

/// Plays an execution to its end with these answers. From every prefix of what is kept it comes to the same end, by the
/// same way, whatever the clock does; and nothing that was said before changes anything.
pub async fn every_prefix_ends_the_same(
    store: Store,
    definition: &Value,
    input: Value,
    answers: Answers<'_>,
) -> Status {
    let mut story = Story::new(store, definition, input).await;
    let mut before = Vec::new();
    let mut expected: Option<Ending> = None;
    loop {
        let recovered = story.store.read(|db| recover(db, KEY)).await.unwrap();
        let Some(recovered) = recovered else { break };
        let is_over = !recovered.state.is_open();
        for jumps in [[1, 1, 1], [3_600_000, -7_200_000, 5]] {
            let course = story.course(recovered.clone(), &story.history);
            let ending = course.ending(answers, story.at, jumps);
            let first = expected.get_or_insert_with(|| ending.clone());
            assert_eq!(ending, *first, "after {} events", story.seq);
        }
        if is_over {
            break;
        }
        let event = story.course(recovered, &[]).next(answers);
        story.at += SignedDuration::from_millis(700);
        story.happen(event.clone(), Vec::new()).await;
        before.push(event);
        story.check().await;
        if story.seq % 4 == 0 {
            story.fold(story.seq % 8 == 0).await;
        }
        if story.state.is_open() {
            story.stays(&before);
        }
    }
    expected.expect("it began").0
}
