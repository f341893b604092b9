//! The process is killed at random instants, under load, with a full disk and with commits that fail: nothing is lost
//! and nothing happens twice.
//!
//! The test starts itself again as the process that is killed. That one starts executions of five tasks, each of which
//! adds one to a number, and distributed Maps with children of both kinds, and says what the engine has acknowledged.
//! `KILLS` is how often it is killed.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use engine::Limits;
use serde_json::json;

use crate::faults;
use crate::world::{OWNER, chain, open, resource, run, start};

const LENGTH: usize = 5;
/// The machine with distributed Maps.
const MAPS: u64 = 2;
const CHILD: &str = "ENGINE_CRASH_DIR";
/// One in so many fsyncs fails in the process that is killed; 0: none.
const FAULTS: &str = "ENGINE_CRASH_FAULTS";
/// What the child says when something was refused to it.
const REFUSED: &str = "refused";

/// Small, so that executions leave memory, come back, and are folded all the time.
fn limits() -> Limits {
    Limits {
        log: 300,
        live: 20,
        ..Limits::default()
    }
}

/// Every history is whole: ids without gaps, each state entered and left once, the output counts each task once.
async fn check(dir: &Utf8Path, acknowledged: &BTreeSet<String>) -> usize {
    let running = run(open(dir).await, limits()).await;
    let handle = running.handle.clone();
    let mut jobs = Vec::new();
    for _ in 0..8 {
        let handle = handle.clone();
        jobs.push(tokio::spawn(async move { work(&handle, |_| {}).await }));
    }
    loop {
        let open = running
            .store
            .read(|db| Ok([db.open_runs(1)?, db.open_runs(MAPS)?].concat()))
            .await
            .unwrap_or_else(|error: store::Error| panic!("{error}"));
        if open.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    jobs.iter().for_each(tokio::task::JoinHandle::abort);
    let store = running.end().await;
    let mut seen = BTreeSet::new();
    let mut before = None;
    loop {
        let filter = store::RunFilter {
            machine: 1,
            before,
            limit: 500,
            ..store::RunFilter::default()
        };
        let page = store
            .read(move |db| db.runs(&filter))
            .await
            .unwrap_or_else(|error: store::Error| panic!("{error}"));
        let Some(last) = page.last() else { break };
        before = Some(last.key);
        for run in page {
            assert_eq!(
                run.output.as_deref(),
                Some(r#"{"n":5}"#),
                "{}: {:?}",
                run.name,
                run.status
            );
            let key = run.key;
            let (events, last) = store
                .read(move |db| engine::history(db, key, 1, 1000))
                .await
                .unwrap();
            let ids: Vec<u64> = events.iter().map(|event| event.id).collect();
            assert_eq!(ids, (1..=last).collect::<Vec<u64>>(), "{}", run.name);
            for kind in [
                "TaskStateEntered",
                "ActivityScheduled",
                "ActivityStarted",
                "ActivitySucceeded",
                "TaskStateExited",
            ] {
                let count = events.iter().filter(|event| event.kind == *kind).count();
                assert_eq!(count, LENGTH, "{kind} of {}", run.name);
            }
            assert!(seen.insert(run.name.clone()), "{} is there twice", run.name);
        }
    }
    check_maps(&store, &mut seen).await;
    let lost: Vec<&String> = acknowledged.difference(&seen).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    drop(store);
    let connection = rusqlite::Connection::open(dir.join("store.sqlite3")).unwrap();
    let verdict: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    seen.len()
}

async fn read<T: Send + 'static>(
    store: &store::Store,
    work: impl FnOnce(&store::Db<'_>) -> Result<T, store::Error> + Send + 'static,
) -> T {
    store.read(work).await.unwrap()
}

/// A distributed Map over four items: each child has a task, and a Map with three express children.
fn maps() -> String {
    let quick = json!({ "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS" },
        "StartAt": "P", "States": { "P": { "Type": "Pass", "End": true } } });
    let child = json!({ "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "STANDARD" },
        "StartAt": "W", "States": {
            "W": { "Type": "Task", "Resource": resource("work"), "Next": "L" },
            "L": { "Type": "Pass", "Result": [7, 8, 9], "Next": "I" },
            "I": { "Type": "Map", "ItemProcessor": quick, "End": true },
        } });
    let outer = json!({ "Type": "Map", "ItemProcessor": child, "MaxConcurrency": 3, "End": true });
    json!({ "StartAt": "M", "States": { "M": outer } }).to_string()
}

/// Every run has all its children, each of which was there once; none is left open.
async fn check_maps(store: &store::Store, seen: &mut BTreeSet<String>) {
    assert_eq!(read(store, |db| db.open_map_runs()).await, []);
    assert_eq!(read(store, |db| db.stray_children()).await, [0; 0]);
    let mut before = None;
    loop {
        let filter = store::RunFilter {
            machine: MAPS,
            before,
            limit: 500,
            ..store::RunFilter::default()
        };
        let page = read(store, move |db| db.runs(&filter)).await;
        let Some(last) = page.last() else { return };
        before = Some(last.key);
        for run in page {
            let output = "[[7,8,9],[7,8,9],[7,8,9],[7,8,9]]";
            assert_eq!(
                run.output.as_deref(),
                Some(output),
                "{}: {:?}",
                run.name,
                run.error
            );
            let children = check_run(store, run.key, 4).await;
            assert_eq!(children.len(), 4, "children of {}", run.name);
            for child in children {
                let (events, last) = store
                    .read(move |db| engine::history(db, child, 1, 1000))
                    .await
                    .unwrap();
                let ids: Vec<u64> = events.iter().map(|event| event.id).collect();
                assert_eq!(ids, (1..=last).collect::<Vec<u64>>(), "{}", run.name);
                for kind in [
                    "ActivityScheduled",
                    "ActivitySucceeded",
                    "MapRunStarted",
                    "MapRunSucceeded",
                ] {
                    let count = events.iter().filter(|event| event.kind == *kind).count();
                    assert_eq!(count, 1, "{kind} of a child of {}", run.name);
                }
                assert_eq!(
                    check_run(store, child, 3).await,
                    [0; 0],
                    "express children are no executions"
                );
            }
            assert!(seen.insert(run.name.clone()), "{} is there twice", run.name);
        }
    }
}

/// The one run of an execution: gives its children that are executions.
async fn check_run(store: &store::Store, key: u64, many: u64) -> Vec<u64> {
    let runs = read(store, move |db| db.map_runs(key, None, 10)).await;
    let [run] = &runs[..] else {
        panic!("{} runs", runs.len());
    };
    let of = run.key;
    let counts = read(store, move |db| db.map_counts(of)).await;
    let all = store::Children {
        children: many,
        items: many,
    };
    assert_eq!(counts, [(store::Status::Succeeded, all)], "{}", run.arn);
    assert_eq!((run.status, run.children), (store::Status::Succeeded, Some(many)));
    let filter = store::RunFilter {
        run: Some(of),
        limit: 100,
        ..store::RunFilter::default()
    };
    let children = read(store, move |db| db.runs(&filter)).await;
    children.iter().map(|child| child.key).collect()
}

/// Does tasks until the engine is gone; tells of each answer that was acknowledged.
async fn work(handle: &engine::Handle, done: impl Fn(&str)) {
    while let Ok(offer) = handle.poll(&resource("work"), Some("w".into())).await {
        let output = json!({ "n": offer.input["n"].as_u64().unwrap() + 1 });
        // Twice, as a worker does that did not hear the answer: the second changes nothing.
        let first = handle.succeed(OWNER, &offer.token, output.clone()).await;
        let second = handle.succeed(OWNER, &offer.token, output).await;
        match (first, second) {
            (Ok(()), Ok(())) => panic!("a task was answered twice"),
            (Ok(()), _) => done(&offer.token),
            _ => {}
        }
    }
}

/// What is killed.
async fn child(dir: &Utf8Path) {
    let seed = std::process::id();
    let running = run(open(dir).await, limits()).await;
    let mut jobs = Vec::new();
    for _ in 0..16 {
        let handle = running.handle.clone();
        jobs.push(tokio::spawn(async move { work(&handle, |_| {}).await }));
    }
    for starter in 0..4 {
        let handle = running.handle.clone();
        jobs.push(tokio::spawn(async move {
            let (chain, maps) = (chain(LENGTH), maps());
            for number in 0.. {
                let name = format!("{seed}-{starter}-{number}");
                let mut begin = match starter {
                    0 => start(
                        &maps,
                        &name,
                        json!([{ "n": 0 }, { "n": 1 }, { "n": 2 }, { "n": 3 }]),
                    ),
                    _ => start(&chain, &name, json!({ "n": 0 })),
                };
                begin.machine = if starter == 0 { MAPS } else { 1 };
                // One line, one write.
                match handle.start(begin).await {
                    Ok(_) => println!("{name}"),
                    Err(_) => println!("{REFUSED}"),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    std::future::pending().await
}

/// What children have said.
#[derive(Default)]
struct Said {
    /// Names of executions that the engine has acknowledged.
    started: BTreeSet<String>,
    refused: usize,
}

/// Runs the child for a while, and kills it.
fn life(dir: &Utf8Path, lasts: Duration, faults: u64, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::killed", "--nocapture", "--ignored"])
        .env(CHILD, dir)
        .env(FAULTS, faults.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let lines = std::thread::spawn(move || out.lines().map_while(Result::ok).collect::<Vec<String>>());
    std::thread::sleep(lasts);
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.join().unwrap() {
        match line.as_str() {
            REFUSED => said.refused += 1,
            name if name.matches('-').count() == 2 => drop(said.started.insert(line)),
            _ => {}
        }
    }
}

#[test]
#[ignore = "it is started by the others, to be killed"]
fn killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    faults::install(std::env::var(FAULTS).map_or(0, |text| text.parse().unwrap()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(child(&Utf8PathBuf::from(dir)));
}

fn kills() -> u64 {
    std::env::var("KILLS").map_or(8, |text| text.parse().unwrap())
}

/// Numbers that differ from run to run; a failing run is told by what is left in its directory.
fn dice() -> u64 {
    store::random_bits().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_happens_twice_when_it_is_killed() {
    let held = tempfile::tempdir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
    let mut said = Said::default();
    for _ in 0..kills() {
        life(&dir, Duration::from_millis(60 + dice() % 500), 0, &mut said);
    }
    let count = check(&dir, &said.started).await;
    println!(
        "killed {} times: {} executions acknowledged, {count} there",
        kills(),
        said.started.len()
    );
    assert!(!said.started.is_empty(), "it was killed before it did anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_happens_twice_when_syncs_fail() {
    let held = tempfile::tempdir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
    let mut said = Said::default();
    // The first is not disturbed: it makes the store.
    life(&dir, Duration::from_millis(500), 0, &mut said);
    for _ in 0..kills() {
        life(&dir, Duration::from_millis(500 + dice() % 1500), 20, &mut said);
    }
    let count = check(&dir, &said.started).await;
    let (acknowledged, refused) = (said.started.len(), said.refused);
    println!(
        "killed {} times: {acknowledged} acknowledged, {refused} refused, {count} there",
        kills()
    );
    assert!(refused > 0, "no sync failed");
}

/// A file system of a few megabytes, of which the rest is filled while the engine works and freed again. A new one
/// every few times, because what is kept would fill it for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() {
    let mut said = Said::default();
    let mut count = 0;
    for _ in 0..kills().div_ceil(16) {
        let held = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(held.path().to_owned()).unwrap();
        let size = ["-t", "tmpfs", "-o", "size=64m", "tmpfs", root.as_str()];
        if !Command::new("mount")
            .args(size)
            .status()
            .is_ok_and(|status| status.success())
        {
            println!("skipped: this needs root");
            return;
        }
        let _unmount = Unmount(root.clone());
        let dir = root.join("store");
        let mut here = Said::default();
        for _ in 0..4 {
            fill_for_a_while(&root, || {
                life(&dir, Duration::from_millis(1600 + dice() % 500), 0, &mut here)
            });
        }
        count += check(&dir, &here.started).await;
        said.refused += here.refused;
        said.started.extend(here.started);
    }
    let (acknowledged, refused) = (said.started.len(), said.refused);
    println!("{acknowledged} executions acknowledged, {refused} refused, {count} there");
    assert!(acknowledged > 0 && refused > 0, "the disk was never full");
}

fn fill_for_a_while(root: &Utf8Path, meanwhile: impl FnOnce()) {
    let filler = root.join("filler");
    let filling = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(250));
        // The write fails when nothing is left, which is what it is for.
        let _ = std::fs::write(&filler, vec![7; 128 << 20]);
        std::thread::sleep(Duration::from_millis(700));
        std::fs::remove_file(&filler).unwrap();
    });
    meanwhile();
    filling.join().unwrap();
}

struct Unmount(Utf8PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", self.0.as_str()]).status();
    }
}
