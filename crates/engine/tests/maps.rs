//! Distributed Maps: their runs and children, whatever happens to the engine in between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test's clock is the machine's")]

mod world;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use engine::{Error, Handle, Limits, Objects};
use serde_json::{Value, json};
use store::{MapRun, Run, RunFilter, Status, Store};
use world::{OWNER, Running, open, resource, run, run_with, setup, start};

struct Dir {
    path: Utf8PathBuf,
    held: tempfile::TempDir,
}

fn dir() -> Dir {
    let held = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
    Dir { path, held }
}

/// Buckets in a directory.
struct Buckets(PathBuf);

impl Objects for Buckets {
    fn read(&self, _: u64, parameters: &Value) -> io::Result<Vec<u8>> {
        let text = |name: &str| parameters[name].as_str().unwrap_or_default().to_owned();
        std::fs::read(self.0.join(text("Bucket")).join(text("Key")))
    }

    fn list(&self, _: u64, _: &Value) -> io::Result<Vec<Value>> {
        Err(io::Error::other("it has no lists"))
    }

    fn write(&self, _: u64, bucket: &str, key: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(bucket).join(key);
        std::fs::create_dir_all(path.parent().unwrap())?;
        std::fs::write(path, bytes)
    }
}

async fn read<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&store::Db<'_>) -> Result<T, store::Error> + Send + 'static,
) -> T {
    store.read(work).await.unwrap()
}

async fn found(store: &Store, key: u64) -> Run {
    read(store, move |db| db.run_by_key(key)).await.unwrap().0
}

async fn ended(store: &Store, key: u64) -> Run {
    for _ in 0..6000 {
        let run = found(store, key).await;
        if run.ended_at.is_some() {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not end");
}

async fn runs(store: &Store, key: u64) -> Vec<MapRun> {
    read(store, move |db| db.map_runs(key, None, 100)).await
}

async fn children(store: &Store, run: u64) -> Vec<Run> {
    let filter = RunFilter {
        run: Some(run),
        limit: 1000,
        ..RunFilter::default()
    };
    let mut found = read(store, move |db| db.runs(&filter)).await;
    found.reverse();
    found
}

async fn counts(store: &Store, run: u64) -> BTreeMap<String, (u64, u64)> {
    let counted = read(store, move |db| db.map_counts(run)).await;
    let counted = counted.into_iter().filter(|(_, count)| count.children > 0);
    counted
        .map(|(status, count)| (format!("{status:?}"), (count.children, count.items)))
        .collect()
}

/// A Map whose children each have a task, with further fields.
fn map(more: Value) -> String {
    let work = json!({ "Type": "Task", "Resource": resource("work"), "End": true });
    over(
        "STANDARD",
        json!({ "StartAt": "Work", "States": { "Work": work } }),
        more,
    )
}

fn over(kind: &str, mut processor: Value, more: Value) -> String {
    processor["ProcessorConfig"] = json!({ "Mode": "DISTRIBUTED", "ExecutionType": kind });
    let mut state = json!({ "Type": "Map", "End": true, "ItemProcessor": processor });
    let more = more.as_object().unwrap().clone();
    state.as_object_mut().unwrap().extend(more);
    json!({ "StartAt": "M", "States": { "M": state } }).to_string()
}

/// A Pass in JSONPath that gives its input back.
fn pass() -> Value {
    json!({ "StartAt": "P", "States": { "P": { "Type": "Pass", "End": true } } })
}

async fn answer(handle: &Handle) -> Value {
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    let output = json!({ "did": offer.input });
    handle.succeed(OWNER, &offer.token, output).await.unwrap();
    offer.input
}

async fn fail(handle: &Handle) -> Value {
    let offer = handle.poll(&resource("work"), None).await.unwrap();
    let (error, cause) = (Some("Broken".into()), None);
    handle.fail(OWNER, &offer.token, error, cause).await.unwrap();
    offer.input
}

async fn nothing_is_offered(handle: &Handle) {
    let work = resource("work");
    let waited = tokio::time::timeout(Duration::from_millis(200), handle.poll(&work, None));
    assert!(waited.await.is_err(), "a task too many");
}

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
