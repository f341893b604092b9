//! What the tests of this room share: an engine on a store in a directory, and somebody who works.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test's clock is the machine's")]
#![allow(dead_code, reason = "each test file uses its part")]

pub mod maps;

use std::{sync::Arc, time::Duration};

use asl::Machine;
use camino::{Utf8Path, Utf8PathBuf};
use engine::{Handle, Limits, Setup, Start};
use jiff::Timestamp;
use model::TenantName;
use serde_json::Value;
use store::{By, Run, Store};
use tokio::{sync::oneshot, task::JoinHandle};

pub const OWNER: u64 = 1;

/// Where a store is, for as long as a test wants it.
pub struct Dir {
    pub path: Utf8PathBuf,
    pub held: tempfile::TempDir,
}

pub fn dir() -> Dir {
    let held = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(held.path().join("store")).unwrap();
    Dir { path, held }
}

/// An engine that runs.
pub struct Running {
    pub store: Store,
    pub handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), engine::Error>>,
}

pub async fn open(dir: &Utf8Path) -> Store {
    let store = Store::open(dir).unwrap();
    let by = By::platform(Timestamp::now());
    let _ = store.write(move |tx| tx.create_tenant(&tenant(), &by)).await;
    store
}

pub fn tenant() -> TenantName {
    "acme".parse().unwrap()
}

pub fn setup(store: &Store, limits: Limits) -> Setup {
    Setup {
        store: store.clone(),
        clock: Timestamp::now,
        bits: || store::random_bits().unwrap(),
        refuses: Arc::new(|_, resource| resource.contains(":nobody").then(|| "nobody".to_owned())),
        own: |_| true,
        objects: None,
        witness: None,
        limits,
    }
}

pub async fn run(store: Store, limits: Limits) -> Running {
    run_with(setup(&store, limits), store).await
}

pub async fn run_with(setup: Setup, store: Store) -> Running {
    let (engine, handle) = engine::new(setup);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(engine.run(async move { drop(stopped.await) }));
    Running {
        store,
        handle,
        stop: Some(stop),
        task,
    }
}

impl Running {
    /// Ends in order.
    pub async fn end(mut self) -> Store {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
        self.store
    }

    /// Ends in the middle of whatever it does.
    pub async fn abort(self) -> Store {
        self.task.abort();
        let _ = self.task.await;
        self.store
    }
}

pub async fn read<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&store::Db<'_>) -> Result<T, store::Error> + Send + 'static,
) -> T {
    store.read(work).await.unwrap()
}

pub async fn found(store: &Store, key: u64) -> Run {
    read(store, move |db| db.run_by_key(key)).await.unwrap().0
}

pub async fn ended(store: &Store, key: u64) -> Run {
    for _ in 0..6000 {
        let run = found(store, key).await;
        if run.ended_at.is_some() {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not end");
}

/// A machine of tasks, one after the other.
pub fn chain(length: usize) -> String {
    let mut states = serde_json::Map::new();
    for n in 0..length {
        let mut state = serde_json::json!({ "Type": "Task", "Resource": resource("work") });
        match n + 1 == length {
            true => state["End"] = true.into(),
            false => state["Next"] = format!("S{}", n + 1).into(),
        }
        states.insert(format!("S{n}"), state);
    }
    serde_json::json!({ "StartAt": "S0", "States": states }).to_string()
}

pub fn resource(name: &str) -> String {
    format!("arn:aws:states:local:000000000001:activity:{name}")
}

pub fn start(text: &str, name: &str, input: Value) -> Start {
    Start {
        tenant: Some(tenant()),
        owner: OWNER,
        machine: 1,
        machine_arn: "arn:aws:states:local:000000000001:stateMachine:m".into(),
        machine_name: "m".into(),
        role: "arn:aws:iam::1:role/r".into(),
        program: Machine::parse(text).unwrap(),
        definition: text.into(),
        name: name.into(),
        arn: format!("arn:aws:states:local:000000000001:execution:m:{name}"),
        origin: "{}".into(),
        input,
        fresh: false,
    }
}
