//! What workers of calls need: to know that a task is over and not only offered again, that an execution has ended, and
//! that what is in others' hands is left there.

use std::time::Duration;

use engine::{Error, Handle, Limits};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::{OWNER, chain, dir, ended, open, resource, run, start};

const SOON: Duration = Duration::from_secs(20);

/// A machine of one task.
fn task(resource: &str) -> String {
    let task = json!({ "Type": "Task", "Resource": resource, "End": true });
    json!({ "StartAt": "T", "States": { "T": task } }).to_string()
}

async fn fail_a_commit(handle: &Handle, name: &str) {
    handle.start(start(&chain(1), name, json!({}))).await.unwrap();
    // A name that was used, though its giver said it was not.
    let bad = engine::Start {
        fresh: true,
        ..start(&chain(1), name, json!({}))
    };
    assert!(matches!(handle.start(bad).await, Err(Error::Store(_))));
}

#[tokio::test]
async fn a_task_that_is_offered_again_is_open_and_one_that_ended_is_not() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = running.handle.clone();
    let own = "arn:aws:states:::states:startExecution.sync";
    handle.start(start(&task(own), "a", json!({}))).await.unwrap();
    let offer = handle.poll(own, None).await.unwrap();
    let over = handle.over(&offer.token);
    tokio::pin!(over);
    // Asked for before anything happens.
    assert!(timeout(Duration::from_millis(50), &mut over).await.is_err());
    fail_a_commit(&handle, "x").await;
    timeout(SOON, over).await.unwrap();
    assert!(
        handle.is_open(&offer.token).await.unwrap(),
        "only the engine began anew"
    );
    let again = handle.poll(own, None).await.unwrap();
    assert_eq!(again.token, offer.token);
    handle.succeed(OWNER, &again.token, json!(1)).await.unwrap();
    timeout(SOON, handle.over(&offer.token)).await.unwrap();
    assert!(!handle.is_open(&offer.token).await.unwrap());
    running.end().await;
}

#[tokio::test]
async fn who_waits_for_an_end_is_told() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = running.handle.clone();
    let key = handle.start(start(&chain(1), "a", json!({}))).await.unwrap().key;
    let mut end = handle.end_of(key).await.unwrap();
    let given_up = handle.end_of(key).await.unwrap();
    drop(given_up);
    assert!(timeout(Duration::from_millis(50), &mut end).await.is_err());
    // A commit that fails wakes everybody: they look again.
    fail_a_commit(&handle, "x").await;
    assert!(timeout(SOON, end).await.unwrap().is_err());
    let end = handle.end_of(key).await.unwrap();
    for _ in 0..2 {
        let offer = handle.poll(&resource("work"), None).await.unwrap();
        handle.succeed(OWNER, &offer.token, json!({})).await.unwrap();
    }
    assert!(timeout(SOON, end).await.unwrap().is_err());
    let run = ended(&running.store, key).await;
    assert_eq!(run.status, store::Status::Succeeded);
    running.end().await;
}

/// The task's request was accepted: whoever has its token answers, and nobody makes the request again.
#[tokio::test]
async fn what_is_in_others_hands_is_not_offered_again() {
    let dir = dir();
    let [token, sync] =
        ["waitForTaskToken", "sync"].map(|p| format!("arn:aws:states:::states:startExecution.{p}"));
    let running = run(open(&dir.path).await, Limits::default()).await;
    let mut tokens = Vec::new();
    for resource in [&token, &sync] {
        let begun = start(&task(resource), &resource[30..], json!({}));
        running.handle.start(begun).await.unwrap();
        let offer = running.handle.poll(resource, None).await.unwrap();
        running
            .handle
            .submit(OWNER, &offer.token, json!({ "a": 1 }))
            .await
            .unwrap();
        tokens.push(offer.token);
    }
    // They are read from their snapshots.
    running.handle.settle().await.unwrap();
    let store = running.abort().await;
    let running = run(store, Limits::default()).await;
    let again = timeout(SOON, running.handle.poll(&sync, None))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.token, tokens[1]);
    let nothing = timeout(Duration::from_millis(300), running.handle.poll(&token, None)).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let answer: Value = json!("late");
    running.handle.succeed(OWNER, &tokens[0], answer).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_tenant_has_so_many_express_executions_and_no_more() {
    let dir = dir();
    let limits = Limits {
        express_open: 2,
        ..Limits::default()
    };
    let running = run(open(&dir.path).await, limits).await;
    let handle = running.handle.clone();
    let begin = async |name: &str| handle.begin_express(start(&chain(1), name, json!({}))).await;
    let (one, _two) = (begin("a").await.unwrap(), begin("b").await.unwrap());
    assert!(matches!(begin("c").await.map(drop), Err(Error::Full(2))));
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    handle.succeed(OWNER, &offer.token, json!({})).await.unwrap();
    timeout(SOON, one).await.unwrap().unwrap();
    drop(begin("d").await.unwrap());
    assert!(matches!(begin("e").await.map(drop), Err(Error::Full(2))));
    running.end().await;
}
