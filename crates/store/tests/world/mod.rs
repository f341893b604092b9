//! What the tests of this room share: a store in a directory of its own, and values to put into it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use model::{AppName, Digest, ExecutionId, HostId, Place, TenantName, port::Commit, port::HostRole, spec};
use store::{
    Batch, Begin, By, Error, Finish, NewExecution, NewHost, NewPush, NewRelease, Piece, Status, Store, Tx,
};

pub struct World {
    pub store: Store,
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&path(dir.path())).unwrap();
        Self { store, dir }
    }

    /// With one environment.
    pub async fn dev() -> (Self, Place) {
        let world = Self::new();
        let dev = world.environment("acme/shop/dev").await;
        (world, dev)
    }

    pub fn dir(&self) -> Utf8PathBuf {
        path(self.dir.path())
    }

    pub fn reopen(self) -> Self {
        let Self { store, dir } = self;
        drop(store);
        let store = Store::open(&path(dir.path())).unwrap();
        Self { store, dir }
    }

    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> T {
        self.store.write(work).await.unwrap()
    }

    /// The tenant and the app of the place, and the environment itself.
    pub async fn environment(&self, text: &str) -> Place {
        let place = place(text);
        let asked = place.clone();
        self.write(move |tx| {
            if tx.tenant(&asked.tenant).is_err() {
                tx.create_tenant(&asked.tenant, &by(0))?;
            }
            if tx.app(&asked.tenant, &asked.app).is_err() {
                tx.create_app(&asked.tenant, &asked.app, None, &by(0))?;
            }
            tx.ensure_environment(&asked, "main", &by(0))
        })
        .await;
        place
    }
}

pub fn path(path: &std::path::Path) -> Utf8PathBuf {
    Utf8Path::from_path(path).unwrap().join("store")
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub fn by(second: i64) -> By {
    By::new("person:ann@acme.example", at(second))
}

pub fn place(text: &str) -> Place {
    text.parse().unwrap()
}

pub fn tenant(text: &str) -> TenantName {
    text.parse().unwrap()
}

pub fn app(text: &str) -> AppName {
    text.parse().unwrap()
}

pub fn commit(text: &str) -> Commit {
    Commit {
        id: Digest::of(text).hex(),
        author: "Ann <ann@acme.example>".into(),
        message: text.into(),
        branch: "main".into(),
        repository: "acme/shop".into(),
        committed_at: at(0),
    }
}

pub fn push(place: &Place, text: &str) -> NewPush {
    NewPush {
        tenant: place.tenant.clone(),
        app: place.app.clone(),
        environment: Some(place.environment.clone()),
        branch: "main".into(),
        commit: commit(text),
        origin: "git".into(),
        event: None,
    }
}

/// The first commit of an execution with its run.
pub fn start(tx: &Tx<'_>, bits: u64, place: Option<&Place>, input: &str, by: &By) -> Result<(), Error> {
    begin(tx, bits, (place, "release"), input, by)
}

/// The same of any kind.
pub fn begin(
    tx: &Tx<'_>,
    bits: u64,
    (place, kind): (Option<&Place>, &str),
    input: &str,
    by: &By,
) -> Result<(), Error> {
    let run = 1000 + bits;
    let begin = Begin {
        key: run,
        tenant: None,
        machine: 0,
        name: ExecutionId::from_bits(bits).to_string(),
        arn: format!("platform:{bits}"),
        origin: "{}".into(),
        definition: r#"{"StartAt":"Build"}"#.into(),
        input: input.into(),
        at: by.at,
        kin: None,
    };
    tx.append(&Batch {
        begins: vec![begin],
        ..Batch::default()
    })?;
    let new = NewExecution {
        id: ExecutionId::from_bits(bits),
        place: place.cloned(),
        kind: kind.into(),
        run,
        deadline_at: Some(at(40)),
    };
    tx.start_execution(&new, by)
}

/// Its last commit.
pub fn end(tx: &Tx<'_>, bits: u64, status: Status, second: i64) -> Result<(), Error> {
    let finish = Finish {
        execution: 1000 + bits,
        status,
        output: None,
        error: (status == Status::Failed).then(|| "Vend.Customer".into()),
        cause: None,
        at: at(second),
        history: Some(Piece {
            first: 1,
            events: "[]".into(),
        }),
        snapshot: None,
        kin: None,
    };
    tx.append(&Batch {
        finishes: vec![finish],
        ..Batch::default()
    })
}

pub fn release(text: &str) -> NewRelease {
    NewRelease {
        commit: commit(text),
        source: Digest::of(format!("source {text}")),
        image: Digest::of(format!("image {text}")),
        revision: Digest::of(format!("revision {text}")),
        spec: spec(),
        secrets: BTreeMap::new(),
        execution: None,
    }
}

pub fn host(bits: u64, place: &Place, release: Option<u64>) -> NewHost {
    NewHost {
        id: HostId::from_bits(bits),
        place: place.clone(),
        release,
        role: if release.is_some() {
            HostRole::App
        } else {
            HostRole::Database
        },
        image: None,
        size: "small".into(),
    }
}

pub fn spec() -> spec::Environment {
    let second = SignedDuration::from_secs(1);
    spec::Environment {
        name: "dev".parse().unwrap(),
        branch: "main".into(),
        image: spec::Image {
            base: "debian-12".into(),
            scripts: vec![],
            inputs: vec![],
            login: None,
            refresh: spec::Refresh::Release,
        },
        build: spec::Build {
            buildspec: None,
            timeout: second,
            pass_rate: 100.0,
            pass_rate_asked: false,
            coverage: None,
            image: None,
            login: None,
            batch: false,
            combine_artifacts: false,
            env: BTreeMap::new(),
            batch_timeout: SignedDuration::from_hours(8),
        },
        deploy: spec::Deploy {
            appspec: None,
            strategy: spec::Strategy::BlueGreen,
            minimum_healthy: spec::MinimumHealthy::OneAtATime,
            keep_old: second,
            drain: second,
            steps: None,
            zones: None,
            migrate: None,
            ignore_stop_failures: false,
            alarms: None,
        },
        host: spec::Host {
            size: "small".into(),
            port: 8080,
            health: spec::Health {
                protocol: Default::default(),
                path: "/".into(),
                interval: second,
                timeout: second,
                healthy: 2,
                unhealthy: 3,
                codes: vec![(200, 399)],
                within: second,
            },
            traffic: Default::default(),
            env: BTreeMap::new(),
        },
        database: None,
        checks: None,
        approval: None,
        scaling: spec::Scaling { min: 1, max: 1 },
        listeners: vec![],
        domains: vec![],
        placement: None,
        sleep_after: None,
        preview: None,
        authenticate: None,
        access: Default::default(),
    }
}
