//! What callers, workers and clocks see.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

use engine::{Error, Limits};
use jiff::{SignedDuration, Timestamp};
use model::ledger::Deed;
use serde_json::{Value, json};
use store::{Status, Store};

use crate::world::{self, OWNER, chain, dir, ended, found, open, resource, run, run_with, setup, start};

fn deed(action: &str) -> Deed {
    Deed {
        actor: "person:ada".into(),
        action: action.into(),
        tenant: None,
        object: "execution".into(),
        detail: json!({}),
    }
}

/// What the ledger says that the person did, oldest first.
async fn told(store: &Store) -> Vec<String> {
    let lines = store.read(|db| db.ledger_from(0, 1_000)).await.unwrap();
    let theirs = lines.into_iter().filter(|line| line.actor == "person:ada");
    theirs.map(|line| line.action).collect()
}

async fn kinds(store: &Store, key: u64) -> Vec<String> {
    let (events, _) = store
        .read(move |db| engine::history(db, key, 1, 1000))
        .await
        .unwrap();
    events.iter().map(|event| event.kind.to_string()).collect()
}

fn wait(seconds: u64) -> String {
    json!({ "StartAt": "W", "States": { "W": { "Type": "Wait", "Seconds": seconds, "End": true } } })
        .to_string()
}

fn task(more: Value) -> String {
    let mut state = json!({ "Type": "Task", "Resource": resource("work"), "End": true });
    more.as_object()
        .unwrap()
        .iter()
        .for_each(|(name, value)| state[name] = value.clone());
    json!({ "StartAt": "T", "States": { "T": state } }).to_string()
}

#[tokio::test]
async fn a_task_is_given_to_one_worker_and_answered_once() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = running.handle.clone();
    let begun = handle
        .start(start(&chain(1), "a", json!({ "n": 0 })))
        .await
        .unwrap();
    let offer = handle.poll(&resource("work"), Some("me".into())).await.unwrap();
    assert_eq!(offer.input, json!({ "n": 0 }));
    let nobody = tokio::time::timeout(Duration::from_millis(100), handle.poll(&resource("work"), None)).await;
    assert!(nobody.is_err(), "a task was given away twice");
    // Somebody else's token, and no token at all.
    assert!(matches!(
        handle.succeed(OWNER + 1, &offer.token, json!(1)).await,
        Err(Error::TaskGone)
    ));
    assert!(matches!(
        handle.succeed(OWNER, "no token", json!(1)).await,
        Err(Error::Token)
    ));
    handle
        .succeed(OWNER, &offer.token, json!({ "n": 1 }))
        .await
        .unwrap();
    assert!(matches!(
        handle.succeed(OWNER, &offer.token, json!(1)).await,
        Err(Error::TaskGone)
    ));
    let run = ended(&running.store, begun.key).await;
    assert_eq!(
        (run.status, run.output.as_deref()),
        (Status::Succeeded, Some(r#"{"n":1}"#))
    );
    running.end().await;
}

#[tokio::test]
async fn a_name_is_used_once() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = &running.handle;
    let (first, second) = tokio::join!(
        handle.start(start(&chain(1), "a", json!({}))),
        handle.start(start(&chain(1), "a", json!({})))
    );
    assert_eq!(first.is_ok() as u8 + second.is_ok() as u8, 1);
    assert!(matches!(
        handle.start(start(&chain(1), "a", json!({}))).await,
        Err(Error::Exists(_))
    ));
    running.end().await;
}

#[tokio::test]
async fn who_stops_waiting_takes_no_task_with_it() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = &running.handle;
    for _ in 0..3 {
        let work = resource("work");
        let poll = tokio::time::timeout(Duration::from_millis(20), handle.poll(&work, None));
        assert!(poll.await.is_err());
    }
    handle.start(start(&chain(1), "a", json!({}))).await.unwrap();
    assert!(handle.poll(&resource("work"), None).await.is_ok());
    running.end().await;
}

#[tokio::test]
async fn a_missed_heartbeat_and_a_missed_deadline_end_a_task() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = &running.handle;
    let heart = task(json!({ "HeartbeatSeconds": 1, "TimeoutSeconds": 30 }));
    let silent = handle.start(start(&heart, "silent", json!({}))).await.unwrap();
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        handle.heartbeat(OWNER, &offer.token).await.unwrap();
    }
    assert!(
        found(&running.store, silent.key).await.ended_at.is_none(),
        "it was heard of"
    );
    let run = ended(&running.store, silent.key).await;
    assert_eq!(run.error.as_deref(), Some("States.Timeout"));
    let slow = task(json!({ "TimeoutSeconds": 1 }));
    let slow = handle.start(start(&slow, "slow", json!({}))).await.unwrap();
    assert_eq!(
        ended(&running.store, slow.key).await.error.as_deref(),
        Some("States.Timeout")
    );
    running.end().await;
}

#[tokio::test]
async fn work_that_nobody_does_fails_at_once() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let text = task(json!({ "Resource": resource("nobody") }));
    let begun = running.handle.start(start(&text, "a", json!({}))).await.unwrap();
    let run = ended(&running.store, begun.key).await;
    assert_eq!(
        (run.error.as_deref(), run.cause.as_deref()),
        (Some("States.Runtime"), Some("nobody"))
    );
    running.end().await;
}

/// A definition that would be refused today is one of an execution that began when it was not.
#[tokio::test]
async fn what_was_taken_once_is_recovered() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let unknown = task(json!({ "Resource": "work" }));
    let twice = |once: &str| once.replacen("\"States\":{", "\"States\":{\"T\":{\"Type\":\"Succeed\"},", 1);
    let text = twice(&unknown);
    assert_ne!(text, unknown);
    for text in [&text, &unknown, &twice(&task(json!({})))] {
        assert!(asl::Machine::parse(text).is_err());
    }
    let mut order = start(&chain(1), "a", json!({}));
    order.program = asl::Machine::kept(&text).unwrap();
    order.definition = text;
    let begun = running.handle.start(order).await.unwrap();
    drop(running.end().await);
    let running = run(open(&dir.path).await, Limits::default()).await;
    let offer = running.handle.poll("work", None).await.unwrap();
    running
        .handle
        .succeed(OWNER, &offer.token, json!({}))
        .await
        .unwrap();
    assert_eq!(ended(&running.store, begun.key).await.status, Status::Succeeded);
    running.end().await;
}

#[tokio::test]
async fn what_failed_is_tried_again_where_it_failed() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = &running.handle;
    let begun = handle
        .start(start(&chain(2), "a", json!({ "n": 0 })))
        .await
        .unwrap();
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    assert!(matches!(
        handle.redrive_with(begun.key, Some(deed("too early"))).await,
        Err(Error::NotRedrivable(_))
    ));
    handle
        .succeed(OWNER, &offer.token, json!({ "n": 1 }))
        .await
        .unwrap();
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    handle
        .fail(OWNER, &offer.token, Some("Broken".into()), None)
        .await
        .unwrap();
    assert_eq!(ended(&running.store, begun.key).await.status, Status::Failed);
    // Also by an engine that never saw it.
    let store = running.abort().await;
    let running = run(store, Limits::default()).await;
    let handle = &running.handle;
    let deed = Some(deed("again"));
    handle.redrive_with(begun.key, deed).await.unwrap();
    let store = &running.store;
    assert_eq!(told(store).await, ["again"]);
    assert_eq!(
        (
            found(store, begun.key).await.status,
            found(store, begun.key).await.redrives
        ),
        (Status::Running, 1)
    );
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    assert_eq!(offer.input, json!({ "n": 1 }), "it goes on where it failed");
    handle
        .succeed(OWNER, &offer.token, json!({ "n": 2 }))
        .await
        .unwrap();
    assert_eq!(
        ended(store, begun.key).await.output.as_deref(),
        Some(r#"{"n":2}"#)
    );
    assert!(matches!(
        handle.redrive(begun.key).await,
        Err(Error::NotRedrivable(_) | Error::NotOpen(_))
    ));
    let kinds = kinds(store, begun.key).await;
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "ExecutionRedriven").count(),
        1,
        "{kinds:?}"
    );
    running.end().await;
}

#[tokio::test]
async fn stopping_ends_an_execution_and_what_it_waits_for() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = &running.handle;
    let begun = handle
        .start(start(&chain(2), "a", json!({ "n": 0 })))
        .await
        .unwrap();
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    let error = Some("E".into());
    let stopped = handle.stop_with(begun.key, error, None, Some(deed("stop"))).await;
    stopped.unwrap();
    assert!(matches!(
        handle.succeed(OWNER, &offer.token, json!({})).await,
        Err(Error::TaskGone)
    ));
    assert!(matches!(
        handle.stop_with(begun.key, None, None, Some(deed("again"))).await,
        Err(Error::NotOpen(_))
    ));
    assert_eq!(
        told(&running.store).await,
        ["stop"],
        "what did not happen is not told"
    );
    assert_eq!(found(&running.store, begun.key).await.status, Status::Aborted);
    running.end().await;
}

/// Executions that are not in memory, and engines that come after, are the same to those who ask.
#[tokio::test]
async fn executions_outlive_memory_and_engines() {
    let dir = dir();
    let limits = Limits {
        live: 4,
        log: 16,
        ..Limits::default()
    };
    let mut store = open(&dir.path).await;
    let mut keys = Vec::new();
    for round in 0..3 {
        let running = run(store, limits).await;
        for n in 0..20 {
            let name = format!("{round}-{n}");
            let begun = running
                .handle
                .start(start(&chain(3), &name, json!({ "n": 0 })))
                .await
                .unwrap();
            keys.push(begun.key);
        }
        for _ in 0..30 {
            let offer = running.handle.poll(&resource("work"), None).await.unwrap();
            let output = json!({ "n": offer.input["n"].as_u64().unwrap() + 1 });
            running.handle.succeed(OWNER, &offer.token, output).await.unwrap();
        }
        store = match round {
            0 => running.end().await,
            _ => running.abort().await,
        };
    }
    let running = run(store, limits).await;
    for _ in 0..90 {
        let offer = running.handle.poll(&resource("work"), None).await.unwrap();
        let output = json!({ "n": offer.input["n"].as_u64().unwrap() + 1 });
        running.handle.succeed(OWNER, &offer.token, output).await.unwrap();
    }
    for key in keys {
        assert_eq!(
            ended(&running.store, key).await.output.as_deref(),
            Some(r#"{"n":3}"#)
        );
        let expected: usize = 2 + 3 * 5;
        assert_eq!(kinds(&running.store, key).await.len(), expected);
    }
    running.end().await;
}

#[tokio::test]
async fn timers_go_off_in_order_though_nobody_is_in_memory() {
    let dir = dir();
    let limits = Limits {
        live: 2,
        log: 4,
        ..Limits::default()
    };
    let running = run(open(&dir.path).await, limits).await;
    let mut keys = Vec::new();
    for (name, seconds) in [("c", 3), ("a", 1), ("b", 2), ("d", 1), ("e", 2)] {
        keys.push((
            seconds,
            running
                .handle
                .start(start(&wait(seconds), name, json!({})))
                .await
                .unwrap(),
        ));
    }
    running.handle.settle().await.unwrap();
    for (seconds, begun) in keys {
        let run = ended(&running.store, begun.key).await;
        assert!(
            run.ended_at.unwrap() >= begun.at + SignedDuration::from_secs(seconds as i64),
            "{}",
            run.name
        );
    }
    running.end().await;
}

static SHIFT: AtomicI64 = AtomicI64::new(0);

/// A clock that jumps about changes no order: no event is before the one that caused it.
#[tokio::test]
async fn a_clock_that_jumps_changes_no_order() {
    let dir = dir();
    let store = open(&dir.path).await;
    let mut jumping = setup(&store, Limits::default());
    jumping.clock = || Timestamp::now() + SignedDuration::from_secs(SHIFT.load(Relaxed));
    let running = run_with(jumping, store).await;
    let handle = &running.handle;
    let begun = handle
        .start(start(&chain(4), "a", json!({ "n": 0 })))
        .await
        .unwrap();
    for shift in [-86_400, 500, -7, 100_000] {
        SHIFT.store(shift, Relaxed);
        let offer = handle.poll(&resource("work"), None).await.unwrap();
        let output = json!({ "n": offer.input["n"].as_u64().unwrap() + 1 });
        handle.succeed(OWNER, &offer.token, output).await.unwrap();
    }
    let run = ended(&running.store, begun.key).await;
    assert_eq!(run.output.as_deref(), Some(r#"{"n":4}"#));
    let key = begun.key;
    let (events, _) = running
        .store
        .read(move |db| engine::history(db, key, 1, 1000))
        .await
        .unwrap();
    assert!(events.is_sorted_by_key(|event| (event.at, event.id)));
    running.end().await;
}

#[tokio::test]
async fn express_executions_end_in_their_time_and_leave_nothing() {
    let dir = dir();
    let limits = Limits {
        express: SignedDuration::from_millis(300),
        ..Limits::default()
    };
    let running = run(open(&dir.path).await, limits).await;
    let quick = r#"{"StartAt":"P","States":{"P":{"Type":"Pass","End":true}}}"#;
    let ended = running
        .handle
        .express(start(quick, "a", json!([1])))
        .await
        .unwrap();
    assert_eq!(ended.status, asl::Status::Succeeded { output: json!([1]) });
    let ended = running
        .handle
        .express(start(&wait(60), "b", json!({})))
        .await
        .unwrap();
    assert_eq!(ended.status, asl::Status::TimedOut);
    let ends: (u64, u64) = running
        .store
        .read(|db| db.log_ends())
        .await
        .unwrap_or_else(|error: store::Error| panic!("{error}"));
    assert_eq!(ends, (0, 0));
    running.end().await;
}

/// What a reader sees of an open execution is the same before and after it is folded.
#[tokio::test]
async fn a_history_reads_the_same_from_the_log_and_from_rows() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = &running.handle;
    let begun = handle
        .start(start(&chain(3), "a", json!({ "n": 0 })))
        .await
        .unwrap();
    let key = begun.key;
    for _ in 0..2 {
        let offer = handle.poll(&resource("work"), None).await.unwrap();
        handle
            .succeed(OWNER, &offer.token, json!({ "n": 1 }))
            .await
            .unwrap();
        let before = running
            .store
            .read(move |db| engine::history(db, key, 1, 1000))
            .await
            .unwrap();
        handle.settle().await.unwrap();
        let after = running
            .store
            .read(move |db| engine::history(db, key, 1, 1000))
            .await
            .unwrap();
        assert_eq!(before, after);
        for from in 1..=before.1 {
            let (page, _) = running
                .store
                .read(move |db| engine::history(db, key, from, 2))
                .await
                .unwrap();
            let expected = &before.0[(from - 1) as usize..before.0.len().min(from as usize + 1)];
            assert_eq!(page, expected, "from {from}");
        }
    }
    running.end().await;
}

/// Somebody starts an execution that cannot be kept, and the commit with it.
async fn fail_a_commit(handle: &engine::Handle, name: &str) {
    handle.start(start(&wait(900), name, json!({}))).await.unwrap();
    // A name that was used, though its giver said it was not.
    let bad = engine::Start {
        fresh: true,
        ..start(&wait(900), name, json!({}))
    };
    assert!(matches!(handle.start(bad).await, Err(Error::Store(_))));
}

#[tokio::test]
async fn a_commit_that_fails_takes_no_task_from_an_express_execution() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = running.handle.clone();
    let own = handle.clone();
    let express = tokio::spawn(async move { own.express(start(&chain(2), "e", json!({ "n": 1 }))).await });
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    // While a worker has the task, and while nobody has.
    fail_a_commit(&handle, "x").await;
    handle
        .succeed(OWNER, &offer.token, json!({ "n": 2 }))
        .await
        .unwrap();
    fail_a_commit(&handle, "y").await;
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    assert_eq!(offer.input, json!({ "n": 2 }));
    handle
        .succeed(OWNER, &offer.token, json!({ "n": 3 }))
        .await
        .unwrap();
    let ended = express.await.unwrap().unwrap();
    let output = json!({ "n": 3 });
    assert_eq!(ended.status, asl::Status::Succeeded { output });
    running.end().await;
}

/// What cannot be read ends as failed, by name, and stops nobody else.
#[tokio::test]
async fn an_execution_that_cannot_be_read_stops_no_other() {
    let dir = dir();
    let store = open(&dir.path).await;
    let begin = |key: u64, definition: &str| store::Begin {
        key,
        tenant: Some(world::tenant()),
        machine: 1,
        name: format!("{key}"),
        arn: format!("{key}"),
        origin: "{}".into(),
        definition: definition.into(),
        input: "{}".into(),
        at: Timestamp::now(),
        kin: None,
    };
    let logged = |seq, execution| store::Logged {
        seq,
        execution,
        at: Timestamp::now(),
        event: r#"{"of":"another version"}"#.into(),
    };
    let broken = |execution, open: &str| store::Snapshot {
        execution,
        seq: 0,
        wake: None,
        open: open.into(),
        orders: "[]".into(),
        state: "{\"of\":7}".into(),
    };
    let fold = |snapshot| store::Fold {
        snapshot,
        history: None,
    };
    let batch = store::Batch {
        begins: vec![
            begin(1, "{}"),
            begin(2, &chain(1)),
            begin(3, &chain(1)),
            begin(4, &chain(1)),
        ],
        events: vec![logged(1, 1), logged(2, 2)],
        folds: vec![fold(broken(3, "[7]")), fold(broken(4, "[]"))],
        ..store::Batch::default()
    };
    let kept = store.write(move |tx| tx.append(&batch)).await;
    kept.unwrap_or_else(|error: store::Error| panic!("{error}"));
    let running = run(store, Limits::default()).await;
    let begun = running
        .handle
        .start(start(&chain(1), "a", json!({})))
        .await
        .unwrap();
    let offer = running.handle.poll(&resource("work"), None).await.unwrap();
    running
        .handle
        .succeed(OWNER, &offer.token, json!({}))
        .await
        .unwrap();
    assert_eq!(ended(&running.store, begun.key).await.status, Status::Succeeded);
    running.handle.settle().await.unwrap();
    // Nothing has happened yet to the last one.
    let unknown = running.handle.stop(4, None, None).await;
    unknown.unwrap();
    for key in 1..=4 {
        let lost = ended(&running.store, key).await;
        assert_eq!(
            (lost.status, lost.error.as_deref()),
            (Status::Failed, Some("Vend.Unreadable")),
            "{key}"
        );
    }
    running.handle.settle().await.unwrap();
    let store = running.end().await;
    let left = store.read(|db| db.log(None, 0)).await;
    let left = left.unwrap_or_else(|error: store::Error| panic!("{error}"));
    assert!(left.len() <= 1, "the log is dropped: {left:?}");
}
