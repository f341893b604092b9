//! Executions of the platform's own: what is in one transaction with them, who is told, and how they are interrupted.

use std::sync::{Arc, Mutex};

use asl::HistoryEvent;
use engine::{Also, Error, Limits, Own, PLATFORM, Setup, Start, Witness};
use model::ledger::Deed;
use serde_json::{Value, json};
use store::{LedgerFilter, Store};

use crate::world::{self, Running, dir, open, run, run_with, setup, start};

fn resource(name: &str) -> String {
    format!("arn:aws:states:local:000000000000:activity:{name}")
}

/// A task that is tried twice, with a way back.
fn definition() -> String {
    json!({ "StartAt": "Work", "States": {
        "Work": { "Type": "Task", "Resource": resource("work"), "Next": "Done",
            "Retry": [{ "ErrorEquals": ["Again"], "IntervalSeconds": 86400, "MaxAttempts": 1 }],
            "Catch": [{ "ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Unwind" }] },
        "Unwind": { "Type": "Task", "Resource": resource("unwind"), "ResultPath": "$.unwound", "Next": "Failed" },
        "Failed": { "Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause" },
        "Done": { "Type": "Succeed" },
    }})
    .to_string()
}

fn own(name: &str) -> Start {
    Start {
        tenant: None,
        owner: PLATFORM,
        origin: json!({ "of": name }).to_string(),
        fresh: true,
        ..start(&definition(), name, json!({ "n": 1 }))
    }
}

/// Writes a setting with the start.
fn noting(name: &'static str) -> Also {
    Box::new(move |tx, key| tx.put(name, &key.to_string()))
}

trait Put {
    fn put(&mut self, name: &str, value: &str) -> Result<(), store::Error>;
}

impl Put for store::Tx<'_> {
    fn put(&mut self, name: &str, value: &str) -> Result<(), store::Error> {
        let by = store::By::platform("2026-01-01T00:00:00Z".parse().unwrap());
        self.set_setting(name, Some(value), &by)
    }
}

async fn setting(store: &Store, name: &'static str) -> Option<String> {
    let read = store.read(move |db| db.setting(name)).await;
    read.unwrap_or_else(|error: store::Error| panic!("{error}"))
}

async fn kinds(store: &Store, key: u64) -> Vec<String> {
    let read = store.read(move |db| engine::history(db, key, 1, 1000)).await;
    read.unwrap()
        .0
        .iter()
        .map(|event| event.kind.to_string())
        .collect()
}

#[tokio::test]
async fn a_start_is_kept_with_what_comes_with_it_or_not_at_all() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    // Somebody waits for work already: what is refused is never offered.
    let handle = running.handle.clone();
    let worker = tokio::spawn(async move { handle.poll(&resource("work"), None).await.unwrap() });
    let refused: Also = Box::new(|tx, key| {
        tx.put("refused", &key.to_string())?;
        Err(store::Error::Refused {
            message: "something is under way".into(),
            next: None,
        })
    });
    // Together, so that they may share a commit.
    let (no, yes, user) = tokio::join!(
        running.handle.start_with(own("no"), refused),
        running.handle.start_with(own("yes"), noting("kept")),
        running.handle.start(start(&world::chain(1), "theirs", json!({}))),
    );
    assert!(matches!(no, Err(Error::Refused(error)) if error.to_string() == "something is under way"));
    let (yes, user) = (yes.unwrap(), user.unwrap());
    assert_eq!(worker.await.unwrap().execution, yes.key);
    assert_eq!(setting(&running.store, "kept").await, Some(yes.key.to_string()));
    assert_eq!(setting(&running.store, "refused").await, None);
    let runs = running.store.read(|db| {
        let known = |arn: &str| db.run(&format!("arn:aws:states:local:000000000001:execution:m:{arn}"));
        Ok::<_, store::Error>([
            known("no")?.is_some(),
            known("yes")?.is_some(),
            known("theirs")?.is_some(),
        ])
    });
    assert_eq!(runs.await.unwrap(), [false, true, true]);
    assert!(matches!(
        running.handle.stop(user.key + 9, None, None).await,
        Err(Error::NotOpen(_))
    ));
    // Nothing of it is found by the next start either.
    let running = run(running.abort().await, Limits::default()).await;
    let offer = running.handle.poll(&resource("work"), None).await.unwrap();
    assert_eq!((offer.execution, offer.task, offer.attempt), (yes.key, 1, 1));
    running
        .handle
        .succeed(PLATFORM, &offer.token, json!(1))
        .await
        .unwrap();
    running.end().await;
}

fn is_final(resource: &str) -> bool {
    resource.ends_with(":unwind")
}

async fn begun(running: &Running, name: &str) -> u64 {
    running
        .handle
        .start_with(own(name), Box::new(|_, _| Ok(())))
        .await
        .unwrap()
        .key
}

#[tokio::test]
async fn an_interrupted_execution_takes_its_way_back_and_that_is_not_interrupted() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let (engine, key) = (running.handle.clone(), begun(&running, "a").await);
    let offer = engine.poll(&resource("work"), None).await.unwrap();
    let (watcher, token) = (engine.clone(), offer.token.clone());
    let over = tokio::spawn(async move { watcher.over(&token).await });
    engine
        .interrupt(key, "Cancelled", "enough", is_final)
        .await
        .unwrap();
    over.await.unwrap();
    engine.over(&offer.token).await;
    engine
        .interrupt(key, "Cancelled", "again", is_final)
        .await
        .unwrap();
    assert!(matches!(
        engine.succeed(PLATFORM, &offer.token, json!(1)).await,
        Err(Error::TaskGone)
    ));
    let unwind = engine.poll(&resource("unwind"), None).await.unwrap();
    assert_eq!(
        unwind.input["failure"],
        json!({ "Error": "Cancelled", "Cause": "enough" })
    );
    // Nobody else's worker may answer.
    assert!(matches!(
        engine.succeed(1, &unwind.token, json!(1)).await,
        Err(Error::TaskGone)
    ));
    engine.succeed(PLATFORM, &unwind.token, json!(1)).await.unwrap();
    assert!(matches!(
        engine.interrupt(key, "Cancelled", "late", is_final).await,
        Err(Error::NotOpen(_))
    ));
    let run = running.store.read(move |db| db.run_by_key(key)).await;
    let (run, _) = run
        .unwrap_or_else(|error: store::Error| panic!("{error}"))
        .unwrap();
    assert_eq!(
        (run.error.as_deref(), run.cause.as_deref()),
        (Some("Cancelled"), Some("enough"))
    );
    running.end().await;
}

#[tokio::test]
async fn what_waits_to_be_tried_again_is_interrupted_too() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let key = begun(&running, "a").await;
    let offer = running.handle.poll(&resource("work"), None).await.unwrap();
    let again = Some("Again".to_owned());
    running
        .handle
        .fail(PLATFORM, &offer.token, again, None)
        .await
        .unwrap();
    // It is not in memory: it is read first.
    let running = run(running.abort().await, Limits::default()).await;
    let handle = running.handle.clone();
    let idle = tokio::spawn(async move { handle.poll(&resource("work"), None).await });
    running
        .handle
        .interrupt(key, "Cancelled", "enough", is_final)
        .await
        .unwrap();
    let unwind = running.handle.poll(&resource("unwind"), None).await.unwrap();
    assert_eq!(unwind.input["failure"]["Error"], "Cancelled");
    running
        .handle
        .succeed(PLATFORM, &unwind.token, json!(1))
        .await
        .unwrap();
    // The attempt that was only there to be failed was nobody's; the next one is.
    let next = begun(&running, "b").await;
    assert_eq!(idle.await.unwrap().unwrap().execution, next);
    assert!(
        kinds(&running.store, key)
            .await
            .ends_with(&["FailStateEntered".into(), "ExecutionFailed".into()])
    );
    running.end().await;
}

/// Writes down everything that it hears.
#[derive(Default)]
struct Scribe(Mutex<Vec<String>>);

impl Witness for Scribe {
    fn deeds(&self, own: &Own, events: &[HistoryEvent]) -> Vec<Deed> {
        let origin: Value = serde_json::from_str(&own.origin).unwrap();
        let deed = |event: &HistoryEvent| Deed {
            actor: "platform".into(),
            action: event.kind.to_string(),
            tenant: None,
            object: origin["of"].as_str().unwrap().into(),
            detail: json!({ "id": event.id }),
        };
        events.iter().map(deed).collect()
    }

    fn ended(&self, own: &Own, status: &str) {
        self.0.lock().unwrap().push(format!("{} {status}", own.name));
    }
}

/// Every event is a line, once, whatever happens between them; and only those of the platform's own.
#[tokio::test]
async fn the_ledger_has_a_line_for_each_event_whenever_it_was_committed() {
    let dir = dir();
    let scribe = Arc::new(Scribe::default());
    let store = open(&dir.path).await;
    let heard = Arc::clone(&scribe);
    let told = |store: &Store| Setup {
        witness: Some(heard.clone()),
        ..setup(store, Limits::default())
    };
    let running = run_with(told(&store), store).await;
    let refused: Also = Box::new(|_, _| {
        let message = String::new();
        Err(store::Error::Refused { message, next: None })
    });
    assert!(running.handle.start_with(own("never"), refused).await.is_err());
    running
        .handle
        .start(start(&world::chain(1), "theirs", json!({})))
        .await
        .unwrap();
    let key = begun(&running, "a").await;
    let offer = running.handle.poll(&resource("work"), None).await.unwrap();
    let store = running.abort().await;
    let running = run_with(told(&store), store).await;
    running
        .handle
        .succeed(PLATFORM, &offer.token, json!(1))
        .await
        .unwrap();
    let lines = |object: &'static str| {
        let filter = LedgerFilter {
            object: Some(object.into()),
            ..LedgerFilter::default()
        };
        running.store.read(move |db| db.ledger(&filter))
    };
    // Newest first.
    let told: Vec<String> = lines("a")
        .await
        .unwrap()
        .into_iter()
        .rev()
        .map(|line| line.action)
        .collect();
    assert_eq!(told, kinds(&running.store, key).await);
    assert!(lines("never").await.unwrap().is_empty());
    running.end().await;
    assert_eq!(*scribe.0.lock().unwrap(), ["a SUCCEEDED"]);
}

/// Whoever was refused can take the reason out of what it is told, however soon it looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refusal_belongs_to_who_is_refused() {
    const ASK: usize = 200;
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    for round in 0..5 {
        let asked = (0..ASK).map(|n| {
            let handle = running.handle.clone();
            let also: Also = Box::new(|_, _| {
                let message = "somebody was first".into();
                Err(store::Error::Refused { message, next: None })
            });
            tokio::spawn(async move {
                match handle.start_with(own(&format!("a{round}-{n}")), also).await {
                    Err(Error::Refused(error)) => Arc::try_unwrap(error),
                    other => panic!("not refused: {other:?}"),
                }
            })
        });
        for asked in asked.collect::<Vec<_>>() {
            let error = asked.await.unwrap();
            assert!(matches!(error, Ok(store::Error::Refused { .. })), "{error:?}");
        }
    }
    running.end().await;
}
