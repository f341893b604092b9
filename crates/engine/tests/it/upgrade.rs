//! A database of before, in which releases were rows of their own: what ended is still to be read, and what was open
//! goes on where it stood.

use std::time::Duration;

use asl::{Event, Execution, HistoryEvent, Machine, step};
use camino::Utf8Path;
use engine::{Limits, Offer, PLATFORM, history, recover};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use store::{Error, Status, Store};

use crate::world::{self, dir};

/// The schema up to the version before.
const BEFORE: [&str; 7] = [
    include_str!("../../../store/migrations/01-catalogue.sql"),
    include_str!("../../../store/migrations/02-journal.sql"),
    include_str!("../../../store/migrations/03-ledger.sql"),
    include_str!("../../../store/migrations/04-evidence.sql"),
    include_str!("../../../store/migrations/05-people.sql"),
    include_str!("../../../store/migrations/06-kept-releases.sql"),
    include_str!("../../../store/migrations/07-states.sql"),
];

fn activity(name: &str) -> String {
    format!("arn:aws:states:local:000000000000:activity:{name}")
}

/// Two branches, one after them, and a way back.
fn definition() -> Value {
    let retry = json!([{ "ErrorEquals": ["Vend.Platform"], "IntervalSeconds": 1, "MaxAttempts": 3 }]);
    let branch = |name: &str| {
        let task = json!({ "Type": "Task", "Resource": activity(name), "Retry": retry, "TimeoutSeconds": 9000000, "End": true });
        json!({ "StartAt": name, "States": { name: task } })
    };
    let catch = json!([{ "ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Unwind" }]);
    json!({ "StartAt": "Make", "States": {
        "Make": { "Type": "Parallel", "Branches": [branch("build"), branch("bake")], "ResultPath": "$.made",
            "Catch": catch, "Next": "Shift" },
        "Shift": { "Type": "Task", "Resource": activity("shift"), "Retry": retry, "Catch": catch, "End": true },
        "Unwind": { "Type": "Task", "Resource": activity("unwind"), "Next": "Failed" },
        "Failed": { "Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause" },
    }})
}

/// An execution as it was kept before.
struct Old {
    machine: Machine,
    state: Execution,
    history: Vec<HistoryEvent>,
    attempts: Vec<(u64, String, Value, u32)>,
    at: Timestamp,
}

impl Old {
    fn new() -> Self {
        // An hour ago, as exactly as it was kept.
        let at = Timestamp::now().as_microsecond() - 3_600_000_000;
        let at = Timestamp::from_microsecond(at).unwrap();
        let mut old = Self {
            machine: Machine::parse(&definition().to_string()).unwrap(),
            state: Execution::new(),
            history: Vec::new(),
            attempts: Vec::new(),
            at,
        };
        let text = |text: &str| text.to_owned();
        old.happen(Event::Start {
            id: text("x-1"),
            name: text("x-1"),
            input: json!({ "place": "acme/shop/dev", "price": 1.0, "text": "“ä\u{1}”" }),
            role: text("vend"),
            machine_id: text("m"),
            machine_name: text("release"),
            seed: [1, store::random_bits().unwrap()],
        });
        old
    }

    fn happen(&mut self, event: Event) {
        self.at += SignedDuration::from_micros(1_500_001);
        let step = step(&self.machine, std::mem::take(&mut self.state), &event, self.at);
        self.state = step.execution;
        self.history.extend(step.history);
        for command in step.commands {
            if let asl::Command::Schedule {
                task,
                resource,
                input,
                attempt,
                ..
            } = command
            {
                self.attempts.push((task, resource, input, attempt));
            }
        }
    }

    fn done(&mut self, task: u64) {
        let worker = Some("serve".to_owned());
        self.happen(Event::TaskStarted { task, worker });
        let output = json!({ "task": task });
        self.happen(Event::TaskSucceeded { task, output });
    }

    fn failed(&mut self, task: u64, error: &str) {
        let (error, cause) = (Some(error.to_owned()), Some("no disk".to_owned()));
        self.happen(Event::TaskFailed { task, error, cause });
    }

    /// The rows that were written for it.
    fn keep(&self, db: &Connection, key: i64) {
        let open = self.state.is_open();
        let at = |at: Timestamp| at.as_microsecond();
        let digest = model::Digest::of(definition().to_string());
        let digest: Vec<u8> = hex(&digest.to_string()["sha256:".len()..]);
        db.execute(
            "INSERT INTO machines VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![digest, definition().to_string()],
        )
        .unwrap();
        let id = model::ExecutionId::from_bits(key as u64);
        let status = self.state.status().as_str();
        db.execute(
            "INSERT INTO executions VALUES (?1, ?2, 'acme', 'shop', 'dev', 'release', ?3, '{}', ?4, NULL, 'E', 'c',
                 5, 'platform', ?5, 99)",
            params![key, id.as_str(), digest, status, (!open).then_some(at(self.at))],
        )
        .unwrap();
        let state = serde_json::to_string(&self.state).unwrap();
        db.execute(
            "INSERT INTO execution_states VALUES (?1, 7, ?2)",
            params![key, state],
        )
        .unwrap();
        for event in &self.history {
            db.execute(
                "INSERT INTO history VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    key,
                    event.id,
                    event.previous,
                    at(event.at),
                    event.kind.as_str(),
                    event.details.to_string()
                ],
            )
            .unwrap();
        }
        for open in self.state.open_tasks() {
            let (task, resource, input, attempt) =
                self.attempts.iter().find(|kept| kept.0 == open.task).unwrap();
            db.execute(
                "INSERT INTO tasks VALUES (?1, ?2, ?3, ?4, 't', ?5, 1, 1, NULL, NULL, ?6, NULL, NULL)",
                params![
                    key,
                    task,
                    resource,
                    input.to_string(),
                    attempt,
                    open.started.then_some(1)
                ],
            )
            .unwrap();
        }
        for timer in self.state.open_timers() {
            db.execute(
                "INSERT INTO timers VALUES (?1, ?2, ?3)",
                params![key, timer.timer, at(timer.at)],
            )
            .unwrap();
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// A store of the version before, with these executions: the keys are 1, 2, …
fn before(dir: &Utf8Path, executions: &[&Old]) {
    // The keys are beside the database.
    drop(Store::open(dir).unwrap());
    std::fs::remove_file(dir.join("store.sqlite3")).unwrap();
    let db = Connection::open(dir.join("store.sqlite3")).unwrap();
    BEFORE.iter().for_each(|step| db.execute_batch(step).unwrap());
    // Somebody's own state machine, which ended.
    db.execute_batch(
        "INSERT INTO tenants (id, name, created_at, created_by) VALUES (1, 'acme', 0, 'x');
         INSERT INTO machines VALUES (x'00', '{}');
         INSERT INTO state_executions VALUES
             (40, 1, 3, 'theirs', 'theirs', '{}', x'00', '{}', 1, 'SUCCEEDED', '1', NULL, NULL, 2, 0, NULL);
         INSERT INTO histories VALUES (40, 1, '[]');
         INSERT INTO events VALUES (77, 41, 1, '{}');
         PRAGMA user_version = 7;",
    )
    .unwrap();
    db.execute_batch("BEGIN").unwrap();
    for (index, old) in executions.iter().enumerate() {
        old.keep(&db, index as i64 + 1);
    }
    db.execute_batch("COMMIT").unwrap();
}

async fn run_of(store: &Store, bits: u64) -> u64 {
    let id = model::ExecutionId::from_bits(bits);
    let found = store.read(move |db| db.execution_summary(&id)).await;
    found.unwrap_or_else(|error: Error| panic!("{error}")).run
}

async fn events(store: &Store, run: u64) -> Vec<HistoryEvent> {
    let read = store.read(move |db| history(db, run, 1, 100_000)).await;
    read.unwrap().0
}

#[tokio::test]
async fn what_has_ended_keeps_its_history_and_what_is_not_ours_stays() {
    let dir = dir();
    let (mut good, mut bad) = (Old::new(), Old::new());
    [1, 2, 3].into_iter().for_each(|task| good.done(task));
    bad.failed(2, "Vend.Customer");
    let unwind = bad.state.open_tasks().next().unwrap().task;
    bad.done(unwind);
    // More events than go into one piece.
    let last = good.history.last().unwrap().clone();
    for id in last.id + 1..700 {
        let previous = id - 1;
        good.history.push(HistoryEvent {
            id,
            previous,
            ..last.clone()
        });
    }
    before(&dir.path, &[&good, &bad]);
    let store = Store::open(&dir.path).unwrap();
    for (bits, old) in [(1, &good), (2, &bad)] {
        let run = run_of(&store, bits).await;
        assert_eq!(events(&store, run).await, old.history);
        let open = store.read(move |db| recover(db, run)).await.unwrap();
        assert!(open.is_none());
    }
    let kept = store.read(|db| {
        let id = model::ExecutionId::from_bits(2);
        let theirs = db.run_by_key(40)?.map(|(run, _)| (run.owner, run.status));
        Ok::<_, Error>((theirs, db.pieces(40, 1, 9)?.len(), db.execution_summary(&id)?))
    });
    let (theirs, pieces, summary) = kept.await.unwrap();
    assert_eq!((theirs, pieces), (Some((1, Status::Succeeded)), 1));
    assert_eq!(
        (summary.status, summary.cause.as_deref()),
        (Status::Failed, Some("c"))
    );
    assert_eq!(
        summary.place.map(|place| place.to_string()).as_deref(),
        Some("acme/shop/dev")
    );
    assert!(summary.run > 41, "no key is given twice");
    let ended = store
        .write(|tx| {
            let by = store::By::platform(Timestamp::now());
            tx.delete_tenant(&world::tenant(), &by)?;
            Ok::<_, Error>((tx.run_by_key(40)?.is_some(), tx.run_by_key(43)?.is_some()))
        })
        .await;
    assert_eq!(
        ended.unwrap(),
        (false, true),
        "a tenant takes its own runs with it"
    );
}

/// Works until nothing comes any more, and gives what was offered.
async fn work(running: &world::Running) -> Vec<(u64, Offer)> {
    let mut offers = Vec::new();
    for name in ["build", "bake", "shift", "unwind"].into_iter().cycle().take(200) {
        let resource = activity(name);
        let poll = running.handle.poll(&resource, Some("serve".into()));
        if let Ok(offer) = tokio::time::timeout(Duration::from_millis(50), poll).await {
            let offer = offer.unwrap();
            let output = json!({ "task": offer.task });
            running
                .handle
                .succeed(PLATFORM, &offer.token, output)
                .await
                .unwrap();
            offers.push((offer.execution, offer));
        }
        let open = running.store.read(|db| db.open_executions()).await.unwrap();
        if open.is_empty() {
            return offers;
        }
    }
    panic!("it does not end")
}

#[tokio::test]
async fn what_was_open_goes_on_where_it_stood() {
    let dir = dir();
    let (fresh, mut begun, mut retried, mut waiting, mut undone) =
        (Old::new(), Old::new(), Old::new(), Old::new(), Old::new());
    begun.happen(Event::TaskStarted {
        task: 1,
        worker: Some("serve".into()),
    });
    begun.done(2);
    // A second attempt is under way: it has a number of its own.
    retried.done(1);
    retried.failed(2, "Vend.Platform");
    let timer = retried
        .state
        .open_timers()
        .find(|timer| timer.purpose == asl::Purpose::Backoff);
    retried.happen(Event::TimerFired {
        timer: timer.unwrap().timer,
    });
    // The clock has to say when the next attempt is made.
    waiting.done(1);
    waiting.done(2);
    waiting.failed(3, "Vend.Platform");
    undone.failed(1, "Vend.Customer");
    let all = [&fresh, &begun, &retried, &waiting, &undone];
    before(&dir.path, &all);

    let store = Store::open(&dir.path).unwrap();
    for (index, old) in all.iter().enumerate() {
        let run = run_of(&store, index as u64 + 1).await;
        let open = store.read(move |db| recover(db, run)).await.unwrap().unwrap();
        assert_eq!(open.state, old.state);
        let tasks: Vec<u64> = old.state.open_tasks().map(|open| open.task).collect();
        assert_eq!(open.orders.keys().copied().collect::<Vec<_>>(), tasks);
    }
    let running = world::run(store, Limits::default()).await;
    let offers = work(&running).await;
    for (index, old) in all.iter().enumerate() {
        let run = run_of(&running.store, index as u64 + 1).await;
        let first = offers
            .iter()
            .filter(|(key, _)| *key == run)
            .map(|(_, offer)| offer);
        // What was open is offered under its own number, and attempt.
        for open in old.state.open_tasks() {
            let offer = first.clone().find(|offer| offer.task == open.task).unwrap();
            assert_eq!(offer.attempt, open.attempt, "of execution {}", index + 1);
            let kept = old.attempts.iter().find(|kept| kept.0 == open.task).unwrap();
            assert_eq!(offer.input, kept.2);
        }
        let events = events(&running.store, run).await;
        assert_eq!(events[..old.history.len()], old.history);
        assert!(
            events
                .iter()
                .enumerate()
                .all(|(at, event)| event.id == at as u64 + 1)
        );
        let id = model::ExecutionId::from_bits(index as u64 + 1);
        let ended = running.store.read(move |db| db.execution_summary(&id)).await;
        let expected = if index == 4 {
            Status::Failed
        } else {
            Status::Succeeded
        };
        assert_eq!(
            ended.unwrap_or_else(|error: Error| panic!("{error}")).status,
            expected
        );
    }
    running.end().await;
}
