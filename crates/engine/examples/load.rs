//! How many durable transitions a second, and how soon after an answer there is the next task.
//!
//! `load DIR MODE OPEN SECONDS`, one JSON object on stdout. Modes: `engine` (through the engine), `raw` (SQLite alone: one
//! event a transition, as many in a commit as there are executions open), `resume` (how long a start takes with so many
//! executions open).
//!
//! A transition is an event of an execution that is committed: a worker took a task, or answered it.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on ends")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use asl::{Event, Machine};
use camino::{Utf8Path, Utf8PathBuf};
use engine::{Handle, Limits, Setup, Start};
use jiff::Timestamp;
use model::TenantName;
use serde_json::{Value, json};
use store::{By, Store};
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RESOURCE: &str = "arn:aws:states:local:000000000001:activity:work";
const MACHINE: &str = r#"{"StartAt":"Work","States":{
    "Work":{"Type":"Task","Resource":"arn:aws:states:local:000000000001:activity:work","Next":"Work",
        "Catch":[{"ErrorEquals":["Enough"],"Next":"Done"}]},
    "Done":{"Type":"Succeed"}}}"#;
/// Tasks of one execution: its history must not become longer than the language allows.
const TASKS: u64 = 4000;
/// Executions open, at most.
const OPEN: u64 = 1_000_000;
/// Workers, at most. With fewer executions there are twice as many: one is always waiting.
const WORKERS: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, dir, mode, open, seconds] = arguments.as_slice() else {
        eprintln!("usage: load DIR engine|raw|resume|express-map|standard-map OPEN SECONDS");
        std::process::exit(2);
    };
    let dir = Utf8PathBuf::from(dir);
    let (open, seconds): (usize, u64) = (open.parse().unwrap(), seconds.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let figures = match mode.as_str() {
        "engine" => runtime.block_on(engine(&dir, open, seconds)),
        "raw" => raw(&dir, open, seconds),
        "express-map" => runtime.block_on(map(&dir, open, "EXPRESS")),
        "standard-map" => runtime.block_on(map(&dir, open, "STANDARD")),
        "resume" => runtime.block_on(resume(&dir, open)),
        other => panic!("no mode {other}"),
    };
    println!("{figures}");
}

fn setup(store: Store) -> Setup {
    Setup {
        store,
        clock: Timestamp::now,
        bits: || store::random_bits().unwrap(),
        refuses: Arc::new(|_, _| None),
        own: |_| true,
        objects: None,
        witness: None,
        limits: Limits::default(),
    }
}

async fn open_store(dir: &Utf8Path) -> Store {
    let store = Store::open(dir).unwrap();
    let by = By::platform(Timestamp::now());
    let _ = store.write(move |tx| tx.create_tenant(&tenant(), &by)).await;
    store
}

fn tenant() -> TenantName {
    "acme".parse().unwrap()
}

fn start(machine: &Machine, text: &str, number: u64, input: Value) -> Start {
    Start {
        tenant: Some(tenant()),
        owner: 1,
        machine: 1,
        machine_arn: "arn:aws:states:local:000000000001:stateMachine:m".into(),
        machine_name: "m".into(),
        role: "role".into(),
        program: machine.clone(),
        definition: text.into(),
        name: format!("{number}"),
        arn: format!("arn:aws:states:local:000000000001:execution:m:{number}"),
        origin: "{}".into(),
        input,
        fresh: true,
    }
}

async fn begin(handle: &Handle, machine: &Machine, count: usize, first: u64, left: u64) {
    let mut jobs = tokio::task::JoinSet::new();
    for number in 0..count as u64 {
        let (handle, machine) = (handle.clone(), machine.clone());
        jobs.spawn(async move {
            let id = (first + number) % OPEN;
            let input = json!({ "id": id, "left": left, "order": "0123456789", "price": 12.5 });
            let start = start(&machine, MACHINE, first + number, input);
            handle.start(start).await.unwrap();
        });
        if jobs.len() >= 1000 {
            jobs.join_next().await;
        }
    }
    while jobs.join_next().await.is_some() {}
}

struct Counts {
    tasks: AtomicU64,
    over: AtomicBool,
    /// When the last task of each execution was answered, in microseconds since the beginning.
    answered: Vec<AtomicU64>,
    began: Instant,
    /// There is always a worker that waits: then each execution's next task is offered as soon as it can be. Otherwise
    /// it waits for a worker, and what counts is how long a worker waits.
    idle: bool,
}

impl Counts {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

async fn engine(dir: &Utf8Path, open: usize, seconds: u64) -> Value {
    let store = open_store(dir).await;
    let (engine, handle) = engine::new(setup(store.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(engine.run(async move { drop(stopped.await) }));
    let machine = Machine::parse(MACHINE).unwrap();
    let began = Instant::now();
    begin(&handle, &machine, open, 0, TASKS).await;
    let starting = began.elapsed().as_secs_f64();
    let wanted = WORKERS.min(2 * open);
    let counts = Arc::new(Counts {
        tasks: AtomicU64::new(0),
        over: AtomicBool::new(false),
        answered: (0..open).map(|_| AtomicU64::new(0)).collect(),
        began: Instant::now(),
        idle: wanted > open,
    });
    let mut workers = Vec::new();
    for _ in 0..wanted {
        let worker = work(handle.clone(), machine.clone(), Arc::clone(&counts));
        workers.push(tokio::spawn(worker));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let commits = store.commits();
    let (first_commit, busy) = (*commits.borrow(), cpu());
    let (before, from) = (counts.tasks.load(Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let tasks = counts.tasks.load(Relaxed) - before;
    let elapsed = from.elapsed().as_secs_f64();
    let busy = cpu() - busy;
    let commits = (*commits.borrow() - first_commit) as f64;
    counts.over.store(true, Relaxed);
    let resident = resident();
    let _ = stop.send(());
    running.await.unwrap().unwrap();
    let mut waits = Vec::new();
    for worker in workers {
        waits.extend(worker.await.unwrap());
    }
    waits.sort_unstable();
    let at = |part: f64| {
        waits
            .get((waits.len() as f64 * part) as usize)
            .map(|wait| *wait as f64 / 1e3)
    };
    json!({
        "open": open,
        "transitions_per_s": (2 * tasks) as f64 / elapsed,
        "tasks_per_s": tasks as f64 / elapsed,
        "commits_per_s": commits / elapsed,
        "transitions_per_commit": (2 * tasks) as f64 / commits,
        "cpu_us_per_transition": busy * 1e6 / (2 * tasks) as f64,
        "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999),
        "starts_per_s": open as f64 / starting,
        "resident_mb": resident,
    })
}

/// A worker: gives the microseconds from each answer to the next task.
async fn work(handle: Handle, machine: Machine, counts: Arc<Counts>) -> Vec<u64> {
    let mut waits = Vec::new();
    let mut own = 0;
    while let Ok(offer) = handle.poll(RESOURCE, Some("w".into())).await {
        let id = offer.input["id"].as_u64().unwrap();
        let since = match counts.idle {
            true => counts.answered[id as usize].load(Relaxed),
            false => own,
        };
        if since > 0 {
            waits.push(counts.now().saturating_sub(since));
        }
        own = counts.now();
        counts.answered[id as usize].store(own, Relaxed);
        let left = offer.input["left"].as_u64().unwrap();
        let done = if left == 0 {
            let number = id + OPEN * counts.now();
            begin(&handle, &machine, 1, number, TASKS).await;
            handle.fail(1, &offer.token, Some("Enough".into()), None).await
        } else {
            let mut output = offer.input;
            output["left"] = json!(left - 1);
            handle.succeed(1, &offer.token, output).await
        };
        if done.is_err() || counts.over.load(Relaxed) {
            break;
        }
        counts.tasks.fetch_add(1, Relaxed);
    }
    waits
}

/// Seconds of processor time that the process has had.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text[text.rfind(')').unwrap()..].split(' ').collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    (ticks(12) + ticks(13)) / 100.0
}

/// Bytes of the process that are in memory, in MB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}

/// SQLite and nothing else: what the disk and the library allow.
fn raw(dir: &Utf8Path, group: usize, seconds: u64) -> Value {
    std::fs::create_dir_all(dir).unwrap();
    let connection = rusqlite::Connection::open(dir.join("raw.sqlite3")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE events (seq INTEGER PRIMARY KEY, execution INTEGER NOT NULL, at INTEGER NOT NULL, event TEXT NOT NULL) STRICT;",
        )
        .unwrap();
    let event = serde_json::to_string(&Event::TaskSucceeded {
        task: 1,
        output: json!({ "left": 1, "order": "0123456789", "price": 12.5 }),
    })
    .unwrap();
    let (mut count, from) = (0i64, Instant::now());
    let mut insert = connection
        .prepare("INSERT INTO events VALUES (?1, ?2, ?3, ?4)")
        .unwrap();
    let mut waits = Vec::new();
    while from.elapsed().as_secs() < seconds {
        let began = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..group {
            count += 1;
            insert
                .execute((count, count % group as i64, count, &event))
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        waits.push(began.elapsed().as_micros() as u64);
    }
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100] as f64 / 1e3;
    json!({ "group": group, "p99_ms": p99, "transitions_per_s": count as f64 / from.elapsed().as_secs_f64() })
}

/// An object of so many numbers, whatever is asked for.
struct Numbers(usize);

impl engine::Objects for Numbers {
    fn read(&self, _: u64, _: &Value) -> std::io::Result<Vec<u8>> {
        let numbers: Vec<usize> = (0..self.0).collect();
        Ok(serde_json::to_vec(&numbers)?)
    }

    fn list(&self, _: u64, _: &Value) -> std::io::Result<Vec<Value>> {
        Ok(Vec::new())
    }

    fn write(&self, _: u64, _: &str, _: &str, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// A distributed Map over so many items, to its end.
async fn map(dir: &Utf8Path, items: usize, kind: &str) -> Value {
    let store = open_store(dir).await;
    let mut setup = setup(store.clone());
    setup.objects = Some(Arc::new(Numbers(items)));
    let (engine, handle) = engine::new(setup);
    let running = tokio::spawn(engine.run(std::future::pending()));
    let text = json!({ "StartAt": "M", "States": { "M": { "Type": "Map", "End": true,
        "ItemReader": { "Resource": "arn:aws:states:::s3:getObject", "Parameters": { "Bucket": "b", "Key": "k" } },
        "ItemProcessor": { "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": kind },
            "StartAt": "P", "States": { "P": { "Type": "Pass", "End": true } } },
        "ResultWriter": { "Resource": "arn:aws:states:::s3:putObject", "Parameters": { "Bucket": "b" } } } } })
    .to_string();
    let machine = Machine::parse(&text).unwrap();
    let (empty, from) = (resident(), Instant::now());
    let begun = handle.start(start(&machine, &text, 0, json!({}))).await.unwrap();
    let (mut most, mut opened) = (0.0_f64, None);
    let status = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident());
        let rows = store.read(move |db| Ok((db.run_by_key(begun.key)?, db.map_runs(begun.key, None, 1)?)));
        let (run, runs) = rows.await.unwrap_or_else(|error: store::Error| panic!("{error}"));
        if runs.first().is_some_and(|run| run.children.is_some()) {
            opened.get_or_insert(from.elapsed().as_secs_f64());
        }
        let run = run.unwrap().0;
        if run.ended_at.is_some() {
            break run.status;
        }
    };
    let elapsed = from.elapsed().as_secs_f64();
    running.abort();
    json!({
        "items": items, "status": status, "seconds": elapsed, "opened_s": opened,
        "children_per_s": items as f64 / elapsed, "resident_mb_before": empty, "resident_mb_at_most": most,
    })
}

/// Makes so many waiting executions, ends as a crash would, and starts again.
async fn resume(dir: &Utf8Path, open: usize) -> Value {
    let store = open_store(dir).await;
    let (engine, handle) = engine::new(setup(store.clone()));
    let running = tokio::spawn(engine.run(std::future::pending()));
    let machine = Machine::parse(MACHINE).unwrap();
    let empty = resident();
    begin(&handle, &machine, open, 0, TASKS).await;
    let full = resident();
    // As a kill would: nothing is folded that was not.
    running.abort();
    let _ = running.await;
    drop((handle, store));
    let store = loop {
        match Store::open(dir) {
            Ok(store) => break store,
            Err(store::Error::Locked(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let from = Instant::now();
    let (engine, handle) = engine::new(setup(store));
    let running = tokio::spawn(engine.run(std::future::pending()));
    let offer = handle.poll(RESOURCE, None).await.unwrap();
    let elapsed = from.elapsed().as_secs_f64();
    handle.succeed(1, &offer.token, offer.input).await.unwrap();
    running.abort();
    json!({
        "open": open, "resume_s": elapsed,
        "bytes_per_execution": (full - empty) * 1e6 / open as f64,
    })
}
