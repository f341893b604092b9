//! Two nodes of which one has dialled, without TLS and without containers: what they keep is real, what is built is not.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU32},
};

use axum::{
    Json, Router,
    extract::{FromRef, Request, State},
    http::Method,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::post,
};
use camino::{Utf8Path, Utf8PathBuf};
use hyper::client::conn::http2 as client;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use model::{Ticket, port::BuildOrder, spec::Buildspec};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    agent,
    build::choice_order,
    logs::{self, Mask},
    node::{
        self,
        api::{Reading, Ticketed},
        logs::{Copying, Saying},
    },
    objects, socket,
};

/// What one side keeps, and how often it was asked to build.
#[derive(Clone)]
struct Side {
    objects: objects::Directory,
    logs: logs::Directory,
    asked: Arc<AtomicU32>,
    /// The artifact that it says it has built.
    artifact: Digest,
    secondary: BTreeMap<String, Digest>,
    /// It gives other bytes than it is asked for.
    lies: bool,
    /// The next time it does not say what it has.
    slow: Arc<AtomicBool>,
}

impl Side {
    fn new(root: &Utf8Path) -> Self {
        let objects = objects::Directory::open(root, 1 << 20).unwrap();
        Self {
            artifact: Digest::of("artifact"),
            objects,
            logs: logs::Directory::open(root).unwrap(),
            asked: Arc::default(),
            secondary: BTreeMap::new(),
            lies: false,
            slow: Arc::default(),
        }
    }

    fn router(&self) -> Router {
        Router::new()
            .merge(node::objects::router())
            .route("/v1/logs/read", post(read))
            .route("/v1/logs/copy", post(copy))
            .route("/v1/logs/say", post(say))
            .route("/v1/builds/waits", post(|| async { Json(false) }))
            .route("/v1/builds/build", post(build))
            .layer(from_fn_with_state(self.clone(), slow))
            .with_state(self.clone())
    }
}

impl FromRef<Side> for objects::Directory {
    fn from_ref(side: &Side) -> Self {
        side.objects.clone()
    }
}

/// Says nothing the first time.
async fn slow(State(side): State<Side>, request: Request, next: Next) -> Response {
    let asks = request.uri().path() == "/v1/objects/has";
    if asks && side.slow.swap(false, Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let gives = request.method() == Method::GET && request.uri().path().starts_with("/v1/objects/");
    match side.lies && gives {
        true => "something else".into_response(),
        false => next.run(request).await,
    }
}

async fn read(State(side): State<Side>, Json(asked): Json<Reading>) -> Json<Value> {
    let chunk = side.logs.chunk(&asked.log, asked.offset).unwrap();
    Json(serde_json::to_value(chunk).unwrap())
}

async fn copy(State(side): State<Side>, Json(Copying { log, piece }): Json<Copying>) -> Json<u64> {
    Json(side.logs.copy(&log, &piece, 1 << 20).unwrap())
}

async fn say(State(side): State<Side>, Json(Saying { log, line }): Json<Saying>) -> Json<u64> {
    Json(side.logs.say(&log, &line).unwrap())
}

/// It says which time it is asked; the first time it never ends.
async fn build(State(side): State<Side>, Json(call): Json<Ticketed<BuildOrder>>) -> Response {
    let time = side.asked.fetch_add(1, Ordering::Relaxed) + 1;
    assert!(
        side.objects.has(&call.order.source).await.unwrap(),
        "it has the source"
    );
    let log: LogRef = format!("build/{}", call.ticket).parse().unwrap();
    let mut writer = side.logs.append(&log, Mask::default(), 1 << 20).unwrap();
    writer.line(format!("asked {time}x")).unwrap();
    if time == 1 {
        std::future::pending::<()>().await;
    }
    writer.end().unwrap();
    Json(Built {
        artifact: side.artifact,
        size_bytes: 8,
        phases: Vec::new(),
        reports: Vec::new(),
        exported: Default::default(),
        log,
        name: None,
        secondary: side.secondary,
    })
    .into_response()
}

struct World {
    _directory: tempfile::TempDir,
    here: Side,
    there: Side,
    client: Client,
    machines: Machines,
    machine: HostId,
    log: LogRef,
    disk_mib: u64,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let [here, there] = ["here", "there"].map(|name| Side::new(&root.join(name)));
        let path = root.join("node.sock");
        let listener = socket::bind(&path, 0o600).unwrap();
        let router = here.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        here.objects.keep(&b"source"[..], "a test".into()).unwrap();
        there.objects.keep(&b"artifact"[..], "a test".into()).unwrap();
        Self {
            _directory: directory,
            here,
            there,
            client: Client::new(path),
            machines: Machines::default(),
            machine: HostId::from_bits(1),
            log: "build/t-here".parse().unwrap(),
            disk_mib: 1,
        }
    }

    /// The builder is there until the task is aborted.
    async fn dial(&self) -> JoinHandle<()> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let service = TowerToHyperService::new(self.there.router());
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = client::handshake(TokioExecutor::new(), TokioIo::new(ours))
            .await
            .unwrap();
        let dialled = agent::Client::dialled(sender);
        let live = self
            .machines
            .enter(&self.machine, dialled, ([192, 0, 2, 1], 1).into());
        let (machines, machine) = (self.machines.clone(), self.machine.clone());
        tokio::spawn(async move {
            let _leaves = Leaves(machines, machine);
            let _live = live;
            let answering = server.serve_connection(TokioIo::new(theirs), service);
            tokio::select! { _ = answering => {}, _ = connection => {} }
        })
    }

    fn away(&self, log_from: u64) -> Away<'_> {
        Away {
            machines: &self.machines,
            machine: &self.machine,
            name: "second",
            here: &self.client,
            log: &self.log,
            log_from,
            silent: Duration::from_secs(1),
        }
    }

    async fn build(&self) -> Result<Built, Fault> {
        let log_from = self.here.logs.say(&self.log, "first").unwrap();
        let away = self.away(log_from);
        let text = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
        let mut order = choice_order(Buildspec::parse(text, "buildspec.yml").unwrap().0);
        order.source = Digest::of("source");
        order.limits.disk_mib = self.disk_mib;
        away.build(&"t-there".parse::<Ticket>().unwrap(), &order).await
    }

    /// What the log here has, behind its first line.
    fn said(&self) -> (String, bool) {
        let chunk = self.here.logs.chunk(&self.log, 0).unwrap();
        let text = chunk.text.split_once("first\n").unwrap().1.to_owned();
        (text, chunk.ended)
    }

    async fn until(&self, is: impl Fn(&Self) -> bool) {
        let looking = async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), looking)
            .await
            .unwrap();
    }
}

struct Leaves(Machines, HostId);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.close(&self.1);
    }
}

#[tokio::test]
async fn a_build_is_asked_for_again_when_its_builder_comes_back() {
    let world = World::new();
    let connection = world.dial().await;
    let mut again = None;
    let breaks = async {
        // It is heard while it goes on.
        let heard = |world: &World| {
            let chunk = world.here.logs.chunk(&world.log, 0).unwrap();
            chunk.text.contains("asked 1x")
        };
        world.until(heard).await;
        connection.abort();
        world
            .until(|world| world.machines.address(&world.machine).is_none())
            .await;
        again = Some(world.dial().await);
    };
    let (built, ()) = tokio::join!(world.build(), breaks);
    let built = built.unwrap();
    assert_eq!((built.artifact, &built.log), (Digest::of("artifact"), &world.log));
    assert!(world.here.objects.has(&built.artifact).await.unwrap());
    assert_eq!(world.there.asked.load(Ordering::Relaxed), 2);
    assert_eq!(world.said(), ("asked 1x\nasked 2x\n".to_owned(), true));
    assert!(again.is_some());
}

#[tokio::test]
async fn a_builder_that_stays_away_is_given_up() {
    let world = World::new();
    let fault = world.build().await.unwrap_err();
    assert!(is_silent(&fault), "{fault}");
    assert!(
        fault
            .message
            .starts_with("the builder second has said nothing for 1 seconds")
    );
    assert_eq!(fault.evidence.as_ref(), Some(&world.log));
    let (text, ended) = world.said();
    assert!(text.contains(&fault.message) && ended, "{text}");
}

#[tokio::test]
async fn what_a_builder_has_not_got_it_has_not_built() {
    let mut world = World::new();
    // Somebody else's, which is here.
    world.there.artifact = world.here.objects.keep(&b"secret"[..], "a test".into()).unwrap();
    world.there.asked.store(1, Ordering::Relaxed);
    let _connection = world.dial().await;
    let fault = world.build().await.unwrap_err();
    assert_eq!(fault.blame, Blame::Platform, "{fault}");
    assert!(
        fault.message.contains("does not give what it says it has built"),
        "{fault}"
    );
}

#[tokio::test]
async fn other_bytes_than_those_of_the_artifact_are_not_taken() {
    let mut world = World::new();
    world.there.lies = true;
    world.there.asked.store(1, Ordering::Relaxed);
    let _connection = world.dial().await;
    let fault = world.build().await.unwrap_err();
    assert_eq!(fault.blame, Blame::Platform, "{fault}");
    assert!(fault.message.contains("arrived as another one"), "{fault}");
}

#[tokio::test]
async fn artifacts_are_not_fetched_that_no_build_can_have() {
    let mut world = World::new();
    world.there.secondary = (0..100)
        .map(|number| (format!("a{number}"), Digest::of("artifact")))
        .collect();
    world.there.asked.store(1, Ordering::Relaxed);
    let _connection = world.dial().await;
    let fault = world.build().await.unwrap_err();
    assert!(fault.message.contains("what no build can say"), "{fault}");
    assert!(!world.here.objects.has(&world.there.artifact).await.unwrap());
}

#[tokio::test]
async fn artifacts_are_no_larger_than_what_the_build_may_write() {
    let mut world = World::new();
    world.disk_mib = 0;
    world.there.asked.store(1, Ordering::Relaxed);
    let _connection = world.dial().await;
    let fault = world.build().await.unwrap_err();
    assert_eq!(fault.blame, Blame::Platform, "{fault}");
    assert!(!world.here.objects.has(&world.there.artifact).await.unwrap());
}

#[tokio::test]
async fn a_builder_that_is_slow_to_say_what_it_has_keeps_its_build() {
    let world = World::new();
    world.there.slow.store(true, Ordering::Relaxed);
    world.there.asked.store(1, Ordering::Relaxed);
    let _connection = world.dial().await;
    assert_eq!(world.build().await.unwrap().artifact, Digest::of("artifact"));
}

#[tokio::test]
async fn the_log_of_a_build_that_is_stopped_ends_though_its_builder_is_away() {
    let world = World::new();
    let log_from = world.here.logs.say(&world.log, "first").unwrap();
    let stopped = world
        .away(log_from)
        .stop(&"t-there".parse().unwrap(), "a test")
        .await;
    assert!(stopped.is_err());
    let (text, ended) = world.said();
    assert!(ended && text.contains("The build was stopped: a test"), "{text}");
}
