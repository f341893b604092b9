//! Laws for generated machines, against the real store: what is kept of an execution says at every moment what the
//! execution is, wherever it was folded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../asl/tests/laws/generate.rs"]
#[allow(dead_code, reason = "these laws need a part of it")]
mod generate;
mod world;

use asl::{Event, Execution, HistoryEvent, Machine, Timeout, step};
use camino::Utf8PathBuf;
use engine::{Recovered, recover};
use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::{Value, json};
use store::{Batch, Begin, Fold, Logged, Piece, Snapshot, Store};

const KEY: u64 = 1;

/// An execution beside what is kept of it.
struct Story {
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
    async fn new(store: Store, definition: &Value, input: Value) -> Self {
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
            definition: definition.to_string(),
            input: input.to_string(),
            at,
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

    fn next(&self, choice: u32, before: &[Event]) -> Event {
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

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 40,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_prefix_of_the_log_is_the_execution(
        definition in generate::definition(),
        choices in prop::collection::vec(any::<u32>(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let held = tempfile::tempdir().unwrap();
            let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
            let store = world::open(&dir).await;
            let input = json!({ "n": 1, "items": [1, 2, 3], "f": 0.1 });
            let mut story = Story::new(store, &definition, input).await;
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
        });
    }
}
