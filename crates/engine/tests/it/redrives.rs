//! Distributed Maps that are tried again, and engines that end in the middle of one.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engine::{Error, Handle, Limits};
use serde_json::json;
use store::{Status, Store};

use crate::world::{
    self, Dir, OWNER, Running, dir, ended,
    maps::{answer, children, counts, fail, map, nothing_is_offered, over, pass, runs},
    open, resource, run, start,
};

#[tokio::test]
async fn too_many_failures_end_the_run_and_a_redrive_goes_on_with_it() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let (handle, store) = (running.handle.clone(), running.store.clone());
    let text = map(json!({ "MaxConcurrency": 2, "ToleratedFailureCount": 1 }));
    let begun = handle
        .start(start(&text, "a", json!([0, 1, 2, 3, 4])))
        .await
        .unwrap();
    answer(&handle).await;
    fail(&handle).await;
    fail(&handle).await;
    let over = ended(&store, begun.key).await;
    assert_eq!(
        over.error.as_deref(),
        Some("States.ExceedToleratedFailureThreshold")
    );
    nothing_is_offered(&handle).await;
    let before = runs(&store, begun.key).await;
    assert_eq!(before[0].status, Status::Failed);
    let failed = children(&store, before[0].key).await;
    let stati: Vec<Status> = failed.iter().map(|child| child.status).collect();
    assert_eq!(
        stati,
        [Status::Succeeded, Status::Failed, Status::Failed, Status::Aborted]
    );
    // A child goes on with its run and not by itself.
    assert!(matches!(
        handle.redrive(failed[1].key).await,
        Err(Error::NotRedrivable(_))
    ));
    // By an engine that never saw it, too.
    let running = run(running.abort().await, Limits::default()).await;
    let handle = running.handle.clone();
    handle.redrive(begun.key).await.unwrap();
    let mut again = Vec::new();
    for _ in 0..4 {
        again.push(answer(&handle).await.as_u64().unwrap());
    }
    again.sort_unstable();
    assert_eq!(again, [1, 2, 3, 4], "what had succeeded is not done again");
    let over = ended(&store, begun.key).await;
    let output = r#"[{"did":0},{"did":1},{"did":2},{"did":3},{"did":4}]"#;
    assert_eq!(over.output.as_deref(), Some(output));
    let [after] = &runs(&store, begun.key).await[..] else {
        panic!("another run")
    };
    assert_eq!(
        (&after.arn, after.status, after.redrives),
        (&before[0].arn, Status::Succeeded, 1)
    );
    let kept = children(&store, after.key).await;
    let redrives: Vec<u32> = kept.iter().map(|child| child.redrives).collect();
    assert_eq!(redrives, [0, 1, 1, 1, 0]);
    assert_eq!(
        counts(&store, after.key).await,
        [("Succeeded".into(), (5, 5))].into()
    );
    running.end().await;
}

/// The engine ends at every step of a redrive, and before the children that failed with their run have been stopped.
#[tokio::test]
async fn a_redrive_that_is_cut_off_goes_on() {
    let text = map(json!({ "MaxConcurrency": 3 }));
    for cut in 0..=4 {
        let dir = dir();
        let running = run(open(&dir.path).await, Limits::default()).await;
        let begun = running
            .handle
            .start(start(&text, "a", json!([0, 1, 2, 3, 4])))
            .await
            .unwrap();
        answer(&running.handle).await;
        fail(&running.handle).await;
        ended(&running.store, begun.key).await;
        let mut running = match cut % 2 {
            0 => running,
            _ => run(running.abort().await, Limits::default()).await,
        };
        running.handle.redrive(begun.key).await.unwrap();
        if cut == 0 {
            running = run(running.abort().await, Limits::default()).await;
        }
        for done in 0..4 {
            answer(&running.handle).await;
            if done + 1 == cut {
                running = run(running.abort().await, Limits::default()).await;
            }
        }
        let over = ended(&running.store, begun.key).await;
        let output = r#"[{"did":0},{"did":1},{"did":2},{"did":3},{"did":4}]"#;
        assert_eq!(over.output.as_deref(), Some(output), "cut {cut}");
        let found = runs(&running.store, begun.key).await.remove(0);
        assert_eq!(found.redrives, 1);
        assert_eq!(
            counts(&running.store, found.key).await,
            [("Succeeded".into(), (5, 5))].into(),
            "cut {cut}"
        );
        running.end().await;
    }
}

/// An engine that has just begun hears of a child's end while nothing can be kept: what it closes the run with is what is on
/// record, and that is not there yet.
#[tokio::test]
async fn a_run_closes_when_the_end_of_its_last_child_is_on_record() {
    for _ in 0..8 {
        let dir = dir();
        let running = run(open(&dir.path).await, Limits::default()).await;
        let begun = running
            .handle
            .start(start(&map(json!({})), "a", json!([0])))
            .await
            .unwrap();
        let offer = running.handle.poll(&resource("work"), None).await.unwrap();
        let running = run(running.abort().await, Limits::default()).await;
        let (is_held, held) = tokio::sync::oneshot::channel();
        let store = running.store.clone();
        let holding = tokio::spawn(async move {
            let hold = store.write(move |_| {
                let _ = is_held.send(());
                std::thread::sleep(Duration::from_millis(100));
                Ok::<_, store::Error>(())
            });
            hold.await
        });
        held.await.unwrap();
        let output = json!({ "did": offer.input });
        running.handle.succeed(OWNER, &offer.token, output).await.unwrap();
        holding.await.unwrap().unwrap();
        let over = ended(&running.store, begun.key).await;
        assert_eq!(over.output.as_deref(), Some(r#"[{"did":0}]"#));
        running.end().await;
    }
}

/// Express children that failed are run again; those that succeeded are not.
#[tokio::test]
async fn express_children_are_tried_again_too() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let choice = json!({ "Type": "Choice", "Default": "Good",
        "Choices": [{ "Variable": "$", "NumericEquals": 2, "Next": "Bad" }] });
    let processor = json!({ "StartAt": "C", "States": {
        "C": choice, "Good": { "Type": "Succeed" }, "Bad": { "Type": "Fail", "Error": "Two" } } });
    let text = over("EXPRESS", processor, json!({ "MaxConcurrency": 1 }));
    let begun = running
        .handle
        .start(start(&text, "a", json!([1, 2, 3])))
        .await
        .unwrap();
    for redrives in 0..3 {
        ended(&running.store, begun.key).await;
        let found = runs(&running.store, begun.key).await.remove(0);
        assert_eq!((found.status, found.redrives), (Status::Failed, redrives));
        let expected = [("Failed".into(), (1, 1)), ("Succeeded".into(), (1, 1))];
        assert_eq!(counts(&running.store, found.key).await, expected.into());
        running.handle.redrive(begun.key).await.unwrap();
    }
    running.end().await;
}

/// What a run with children of both kinds has come to: the output, and what each child went through.
async fn story(store: &Store, key: u64) -> (Option<String>, Vec<Vec<String>>) {
    let over = ended(store, key).await;
    let mut told = Vec::new();
    let mut next = vec![key];
    while let Some(key) = next.pop() {
        let (events, _) = store
            .read(move |db| engine::history(db, key, 1, 1000))
            .await
            .unwrap();
        told.push(events.iter().map(|event| event.kind.to_string()).collect());
        for run in runs(store, key).await {
            assert_eq!(run.status, Status::Succeeded);
            let counted: u64 = counts(store, run.key).await.values().map(|count| count.0).sum();
            assert_eq!(Some(counted), run.children);
            next.extend(children(store, run.key).await.iter().map(|child| child.key));
        }
    }
    told.sort();
    (over.output, told)
}

/// Does one task; some fail.
async fn one(handle: &Handle) {
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    let n = offer.input["n"].as_u64().unwrap_or_default();
    let done = match n == 3 {
        true => {
            handle
                .fail(OWNER, &offer.token, Some("Broken".into()), None)
                .await
        }
        false => handle.succeed(OWNER, &offer.token, json!({ "n": n + 1 })).await,
    };
    done.unwrap();
}

fn worker(running: &Running) -> tokio::task::JoinHandle<()> {
    let handle = running.handle.clone();
    tokio::spawn(async move {
        loop {
            one(&handle).await;
        }
    })
}

/// Copies of the store are taken while the engine works: each is a prefix of the log, and each comes to the same end.
#[tokio::test(flavor = "multi_thread")]
async fn every_prefix_of_the_log_comes_to_the_same_end() {
    let dir = dir();
    let definition = definition();
    let input = json!(
        (0..8)
            .map(|n| json!({ "n": n, "list": [n, 1, 2] }))
            .collect::<Vec<_>>()
    );
    let limits = Limits {
        log: 20,
        live: 6,
        ..Limits::default()
    };
    let running = run(open(&dir.path).await, limits).await;
    let begun = running
        .handle
        .start(start(&definition, "a", input))
        .await
        .unwrap();
    let mut copies = vec![copy(&dir, 0)];
    while copies.len() < 3 * 8 {
        if copies.len() % 3 == 0 {
            one(&running.handle).await;
        }
        let (n, own) = (copies.len(), &dir);
        copies.push(tokio::task::block_in_place(|| copy(own, n)));
    }
    one(&running.handle).await;
    let expected = story(&running.store, begun.key).await;
    assert!(expected.0.is_some(), "it failed");
    drop(running.end().await);
    for (n, copy) in copies.iter().enumerate() {
        let running = run(Store::open(copy).unwrap(), limits).await;
        let job = worker(&running);
        assert_eq!(story(&running.store, begun.key).await, expected, "prefix {n}");
        job.abort();
        drop(running.end().await);
    }
}

/// Two Maps inside each other, of which the inner has express children; tasks fail and are caught.
fn definition() -> String {
    let work = json!({ "Type": "Task", "Resource": resource("work"), "ResultPath": "$.work", "Next": "Inner",
        "Catch": [{ "ErrorEquals": ["States.ALL"], "ResultPath": null, "Next": "Inner" }] });
    let mut quick = pass();
    quick["ProcessorConfig"] = json!({ "Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS" });
    let inner = json!({ "Type": "Map", "ItemsPath": "$.list", "End": true, "ItemProcessor": quick });
    let processor = json!({ "StartAt": "Work", "States": { "Work": work, "Inner": inner } });
    over("STANDARD", processor, json!({ "MaxConcurrency": 3 }))
}

/// Copies the store as it is at this moment.
fn copy(dir: &Dir, n: usize) -> Utf8PathBuf {
    let connection = rusqlite::Connection::open(dir.path.join("store.sqlite3")).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let to = dir.held.path().join(format!("copy-{n}"));
    let to = Utf8PathBuf::from_path_buf(to).unwrap();
    aside(&dir.path, &to);
    let file = to.join("store.sqlite3");
    connection.execute("VACUUM INTO ?1", [file.as_str()]).unwrap();
    to
}

/// Copies what is beside the database: keys.
fn aside(from: &Utf8Path, to: &Utf8Path) {
    std::fs::create_dir(to).unwrap();
    for entry in from.read_dir_utf8().unwrap() {
        let path = entry.unwrap().into_path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            aside(&path, &to.join(name));
        } else if !name.starts_with("store.sqlite3") && name != "lock" {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The execution is stopped while its children are being read to be tried again: none of them goes on.
#[tokio::test]
async fn no_child_outlives_a_redrive_that_is_stopped() {
    const CHILDREN: u64 = 60;
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let (handle, store) = (running.handle.clone(), running.store.clone());
    let items: Vec<u64> = (0..CHILDREN).collect();
    let text = map(json!({ "ToleratedFailurePercentage": 99 }));
    let begun = handle.start(start(&text, "a", json!(items))).await.unwrap();
    for _ in 0..CHILDREN {
        fail(&handle).await;
    }
    ended(&store, begun.key).await;
    let run = runs(&store, begun.key).await[0].key;
    for pause in 0..24 {
        handle.redrive(begun.key).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        handle.stop(begun.key, None, None).await.unwrap();
        for child in children(&store, run).await {
            ended(&store, child.key).await;
        }
        handle.settle().await.unwrap();
        let found = runs(&store, begun.key).await.remove(0);
        assert_eq!(found.status, Status::Aborted, "after {pause} ms");
        let open = children(&store, run)
            .await
            .into_iter()
            .filter(|child| child.ended_at.is_none());
        assert_eq!(open.count(), 0, "after {pause} ms");
    }
    running.end().await;
}

/// What is asked for while an execution is being read to be tried again happens to it then.
#[tokio::test]
async fn who_stops_right_after_a_redrive_stops_it() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = running.handle.clone();
    let begun = handle
        .start(start(&world::chain(1), "a", json!(1)))
        .await
        .unwrap();
    fail(&handle).await;
    ended(&running.store, begun.key).await;
    handle.settle().await.unwrap();
    let (again, stopped) = tokio::join!(handle.redrive(begun.key), handle.stop(begun.key, None, None));
    again.unwrap();
    stopped.unwrap();
    assert_eq!(ended(&running.store, begun.key).await.status, Status::Aborted);
    running.end().await;
}
