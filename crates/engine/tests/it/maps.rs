//! Distributed Maps: their runs and children, whatever happens to the engine in between.

use std::{sync::Arc, time::Duration};

use engine::{Error, Limits};
use serde_json::{Value, json};
use store::{RunFilter, Status};

use crate::world::{
    self, OWNER, dir, ended,
    maps::{Buckets, answer, children, counts, fail, map, nothing_is_offered, over, pass, runs},
    open, read, resource, run, run_with, setup, start,
};

#[tokio::test]
async fn children_are_executions_as_many_at_a_time_as_may_be() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let (handle, store) = (&running.handle, &running.store);
    let text = map(json!({ "MaxConcurrency": 2, "Label": "all" }));
    let begun = handle
        .start(start(&text, "a", json!([10, 20, 30])))
        .await
        .unwrap();
    let first = handle.poll(&resource("work"), None).await.unwrap();
    let second = handle.poll(&resource("work"), None).await.unwrap();
    nothing_is_offered(handle).await;
    let [found] = &runs(store, begun.key).await[..] else {
        panic!("no run")
    };
    assert_eq!(
        (found.status, found.children, found.items),
        (Status::Running, Some(3), 3)
    );
    assert!(found.arn.contains(":mapRun:m/all:"), "{}", found.arn);
    handle.succeed(OWNER, &second.token, json!("two")).await.unwrap();
    assert_eq!(answer(handle).await, json!(30));
    handle.succeed(OWNER, &first.token, json!("one")).await.unwrap();
    let over = ended(store, begun.key).await;
    assert_eq!(over.output.as_deref(), Some(r#"["one","two",{"did":30}]"#));
    let kept = children(store, found.key).await;
    let inputs: Vec<&str> = kept.iter().map(|child| child.input.as_str()).collect();
    assert_eq!(inputs, ["10", "20", "30"]);
    for child in &kept {
        assert_eq!(child.status, Status::Succeeded);
        assert!(child.arn.contains(":execution:m/all:"), "{}", child.arn);
        let key = child.key;
        let (events, _) = store
            .read(move |db| engine::history(db, key, 1, 100))
            .await
            .unwrap();
        assert_eq!(events.last().unwrap().kind.as_str(), "ExecutionSucceeded");
    }
    let [found] = &runs(store, begun.key).await[..] else {
        panic!("no run")
    };
    assert_eq!(found.status, Status::Succeeded);
    assert_eq!(
        counts(store, found.key).await,
        [("Succeeded".into(), (3, 3))].into()
    );
    // A list of the machine's executions has the one that somebody started.
    let filter = RunFilter {
        machine: 1,
        limit: 10,
        ..RunFilter::default()
    };
    assert_eq!(read(store, move |db| db.runs(&filter)).await.len(), 1);
    running.end().await;
}

#[tokio::test]
async fn express_children_leave_their_outputs_and_nothing_else() {
    let dir = dir();
    let limits = Limits {
        children: 64,
        live: 200,
        log: 2000,
        ..Limits::default()
    };
    let running = run(open(&dir.path).await, limits).await;
    let items: Vec<u64> = (0..3000).collect();
    let batches = json!({ "ItemBatcher": { "MaxItemsPerBatch": 2 } });
    let text = over("EXPRESS", pass(), batches);
    let begun = running
        .handle
        .start(start(&text, "a", json!(items)))
        .await
        .unwrap();
    let over = ended(&running.store, begun.key).await;
    let output: Vec<Value> = serde_json::from_str(&over.output.unwrap()).unwrap();
    assert_eq!(output.len(), 1500);
    assert_eq!(output[1499], json!({ "Items": [2998, 2999] }));
    let [found] = &runs(&running.store, begun.key).await[..] else {
        panic!("no run")
    };
    assert_eq!(
        counts(&running.store, found.key).await,
        [("Succeeded".into(), (1500, 3000))].into()
    );
    assert!(children(&running.store, found.key).await.is_empty());
    running.end().await;
}

#[tokio::test]
async fn what_a_run_may_do_is_changed_while_it_runs() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let handle = &running.handle;
    let text = map(json!({ "MaxConcurrency": 1 }));
    let begun = handle.start(start(&text, "a", json!([0, 1, 2]))).await.unwrap();
    let first = handle.poll(&resource("work"), None).await.unwrap();
    nothing_is_offered(handle).await;
    let found = runs(&running.store, begun.key).await.remove(0);
    handle
        .change_run(begun.key, found.task, Some(3), Some(1), None)
        .await
        .unwrap();
    assert_eq!(fail(handle).await, json!(1));
    answer(handle).await;
    handle.succeed(OWNER, &first.token, json!({})).await.unwrap();
    let over = ended(&running.store, begun.key).await;
    assert_eq!(over.status, Status::Succeeded, "one may fail now");
    let change = handle.change_run(begun.key, found.task, Some(1), None, None);
    assert!(matches!(change.await, Err(Error::NotOpen(_))));
    running.end().await;
}

#[tokio::test]
async fn stopping_ends_the_children_too_and_time_forgets_them() {
    let dir = dir();
    let running = run(open(&dir.path).await, Limits::default()).await;
    let (handle, store) = (&running.handle, &running.store);
    let inner: Value = serde_json::from_str(&map(json!({})).replace(r#""M""#, r#""Inner""#)).unwrap();
    let text = over("STANDARD", inner, json!({}));
    let begun = handle
        .start(start(&text, "a", json!([[1, 2], [3]])))
        .await
        .unwrap();
    for _ in 0..2 {
        handle.poll(&resource("work"), None).await.unwrap();
    }
    handle.stop(begun.key, None, None).await.unwrap();
    let open = || {
        read(store, |db| {
            Ok((db.open_map_runs()?.len(), db.stray_children()?.len()))
        })
    };
    for _ in 0..1000 {
        if open().await == (0, 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(open().await, (0, 0));
    let outer = runs(store, begun.key).await.remove(0);
    assert_eq!(outer.status, Status::Aborted);
    for child in children(store, outer.key).await {
        assert_eq!(child.status, Status::Aborted);
        assert_eq!(runs(store, child.key).await[0].status, Status::Aborted);
    }
    handle.settle().await.unwrap();
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(9);
    let mut rounds = 0;
    while store
        .write(move |tx| tx.prune_runs(later, 100, 2))
        .await
        .unwrap_or_else(|error: store::Error| panic!("{error}"))
        > 0
    {
        rounds += 1;
    }
    assert!(rounds > 3, "all went at once");
    drop(running.end().await);
    let connection = rusqlite::Connection::open(dir.path.join("store.sqlite3")).unwrap();
    for table in [
        "state_executions",
        "map_runs",
        "map_children",
        "map_counts",
        "map_redrives",
        "snapshots",
        "histories",
    ] {
        let sql = format!("SELECT count(*) FROM {table}");
        let left: u64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn items_come_from_objects_and_results_go_there() {
    let dir = dir();
    let root = dir.held.path().join("objects");
    std::fs::create_dir_all(root.join("in")).unwrap();
    std::fs::write(root.join("in/list.csv"), "n,word\n1,one\n2,two\n").unwrap();
    let text = over(
        "EXPRESS",
        pass(),
        json!({
            "ItemReader": {
                "Resource": "arn:aws:states:::s3:getObject",
                "ReaderConfig": { "InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW" },
                "Parameters": { "Bucket": "in", "Key.$": "$.key" },
            },
            "ResultWriter": {
                "Resource": "arn:aws:states:::s3:putObject",
                "Parameters": { "Bucket": "out", "Prefix": "p" },
                "WriterConfig": { "Transformation": "COMPACT", "OutputType": "JSON" },
            },
        }),
    );
    let store = open(&dir.path).await;
    let mut with = setup(&store, Limits::default());
    with.objects = Some(Arc::new(Buckets(root.clone())));
    let running = run_with(with, store).await;
    let begin = |name: &'static str, key: &'static str| {
        let start = start(&text, name, json!({ "key": key }));
        let handle = running.handle.clone();
        async move { handle.start(start).await.unwrap().key }
    };
    let good = begin("a", "list.csv").await;
    let over = ended(&running.store, good).await;
    let output: Value = serde_json::from_str(&over.output.unwrap()).unwrap();
    let manifest = output["ResultWriterDetails"]["Key"].as_str().unwrap();
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(root.join("out").join(manifest)).unwrap()).unwrap();
    let results = manifest["ResultFiles"]["SUCCEEDED"][0]["Key"].as_str().unwrap();
    let results: Value =
        serde_json::from_slice(&std::fs::read(root.join("out").join(results)).unwrap()).unwrap();
    assert_eq!(
        results,
        json!([{ "n": "1", "word": "one" }, { "n": "2", "word": "two" }])
    );
    assert!(runs(&running.store, good).await[0].written);
    let bad = begin("b", "nowhere").await;
    let over = ended(&running.store, bad).await;
    assert_eq!(over.error.as_deref(), Some("States.ItemReaderFailed"));
    assert_eq!(runs(&running.store, bad).await[0].status, Status::Failed);
    // Where there are no objects, that is what is said.
    let running = run(running.end().await, Limits::default()).await;
    let none = running
        .handle
        .start(start(&text, "c", json!({ "key": "list.csv" })))
        .await
        .unwrap();
    let over = ended(&running.store, none.key).await;
    assert_eq!(over.error.as_deref(), Some("States.ItemReaderFailed"));
    assert!(over.cause.unwrap().contains("no object store"));
    running.end().await;
}

/// What somebody waits for goes on; what comes next fails as if the activity had never been.
#[tokio::test]
async fn executions_hear_of_an_activity_that_was_deleted() {
    let dir = dir();
    let mut running = run(open(&dir.path).await, Limits::default()).await;
    let by = store::By::platform(jiff::Timestamp::now());
    let (tenant, at) = (world::tenant(), by.clone());
    let made = running
        .store
        .write(move |tx| tx.create_activity(&tenant, "work", &at))
        .await;
    made.unwrap_or_else(|error: store::Error| panic!("{error}"));
    let begun = running
        .handle
        .start(start(&world::chain(2), "a", json!({ "n": 0 })))
        .await
        .unwrap();
    let offer = running.handle.poll(&resource("work"), None).await.unwrap();
    let tenant = world::tenant();
    let deleted = running
        .store
        .write(move |tx| tx.delete_activity(&tenant, "work", &by))
        .await;
    deleted.unwrap_or_else(|error: store::Error| panic!("{error}"));
    // Nobody tells the engine, which ends: the next one finds it out.
    running = run(running.abort().await, Limits::default()).await;
    for _ in 0..1000 {
        if read(&running.store, |db| db.activity_news()).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(read(&running.store, |db| db.activity_news()).await.is_empty());
    let offer = match running.handle.succeed(OWNER, &offer.token, json!({})).await {
        Ok(()) => None,
        Err(_) => Some(offer),
    };
    assert!(offer.is_none(), "the task that was waited for goes on");
    let over = ended(&running.store, begun.key).await;
    let cause = format!("The activity {} does not exist.", resource("work"));
    assert_eq!(
        (over.error.as_deref(), over.cause),
        (Some("States.Runtime"), Some(cause))
    );
    running.end().await;
}

/// More children than are read at once are stopped with their run, though none of them is in memory.
#[tokio::test]
async fn a_run_stops_children_that_left_the_memory() {
    const CHILDREN: u64 = 400;
    let dir = dir();
    let limits = Limits {
        live: 8,
        ..Limits::default()
    };
    let running = run(open(&dir.path).await, limits).await;
    let items: Vec<u64> = (0..CHILDREN).collect();
    let text = map(json!({}));
    let begun = running
        .handle
        .start(start(&text, "a", json!(items)))
        .await
        .unwrap();
    let run_key = loop {
        let found = runs(&running.store, begun.key).await;
        if let Some(found) = found.first()
            && children(&running.store, found.key).await.len() as u64 == CHILDREN
        {
            break found.key;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    running.handle.settle().await.unwrap();
    running.handle.stop(begun.key, None, None).await.unwrap();
    for child in children(&running.store, run_key).await {
        assert_eq!(ended(&running.store, child.key).await.status, Status::Aborted);
    }
    running.end().await;
}

/// What cannot be read of a Map, at a start or later, ends: its run hears of a child, and the children of an execution.
#[tokio::test]
async fn what_is_lost_of_a_map_holds_up_nothing() {
    for (open_orders, state, of_parent) in [
        ("[7]", "{}", false),
        ("[7]", "{}", true),
        ("[]", r#"{"of":7}"#, true),
    ] {
        let dir = dir();
        let running = run(open(&dir.path).await, Limits::default()).await;
        let begun = running
            .handle
            .start(start(&map(json!({})), "a", json!([1, 2])))
            .await
            .unwrap();
        for _ in 0..2 {
            running.handle.poll(&resource("work"), None).await.unwrap();
        }
        let found = runs(&running.store, begun.key).await.remove(0);
        let below = children(&running.store, found.key).await;
        running.handle.settle().await.unwrap();
        let store = running.end().await;
        let lost = if of_parent { begun.key } else { below[0].key };
        let snapshot = read(&store, move |db| db.snapshot(lost)).await.unwrap();
        let snapshot = store::Snapshot {
            open: open_orders.into(),
            state: state.into(),
            ..snapshot
        };
        let batch = store::Batch {
            folds: vec![store::Fold {
                snapshot,
                history: None,
            }],
            ..store::Batch::default()
        };
        let kept: Result<(), store::Error> = store.write(move |tx| tx.append(&batch)).await;
        kept.unwrap();
        let running = run(store, Limits::default()).await;
        let over = ended(&running.store, begun.key).await;
        let error = match of_parent {
            true => "Vend.Unreadable",
            false => "States.ExceedToleratedFailureThreshold",
        };
        assert_eq!(over.error.as_deref(), Some(error));
        for child in below {
            let child = ended(&running.store, child.key).await;
            let is_lost = child.key == lost;
            assert_eq!(
                child.status,
                if is_lost { Status::Failed } else { Status::Aborted }
            );
        }
        let found = runs(&running.store, begun.key).await.remove(0);
        assert_eq!(found.status, Status::Failed);
        running.end().await;
    }
}

/// A tenant whose express children fill their place leaves others theirs.
#[tokio::test]
async fn a_tenant_with_many_children_holds_up_no_other() {
    let dir = dir();
    let limits = Limits {
        children: 2,
        ..Limits::default()
    };
    let store = open(&dir.path).await;
    let by = store::By::platform(jiff::Timestamp::now());
    let name: model::TenantName = "other".parse().unwrap();
    let other = name.clone();
    let made: Result<_, store::Error> = store.write(move |tx| tx.create_tenant(&other, &by)).await;
    made.unwrap();
    let running = run(store, limits).await;
    let wait = json!({ "StartAt": "W", "States": { "W": { "Type": "Wait", "Seconds": 200, "End": true } } });
    let text = over("EXPRESS", wait, json!({}));
    let long = running
        .handle
        .start(start(&text, "long", json!([1, 2, 3, 4])))
        .await
        .unwrap();
    while runs(&running.store, long.key)
        .await
        .first()
        .is_none_or(|run| run.children.is_none())
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = over("EXPRESS", pass(), json!({}));
    let theirs = engine::Start {
        tenant: Some(name),
        owner: 2,
        ..start(&text, "short", json!([1, 2, 3]))
    };
    let short = running.handle.start(theirs).await.unwrap();
    assert_eq!(ended(&running.store, short.key).await.status, Status::Succeeded);
    running.end().await;
}
