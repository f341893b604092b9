//! A platform with two tenants, `acme` and `other`; `acme` has one of everything.

mod recorder;

pub use recorder::Recorder;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{
    Extension,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use camino::Utf8PathBuf;
use futures_util::future::BoxFuture;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use jiff::{SignedDuration, Timestamp};
use model::{
    AppName, ApprovalId, DeliveryId, DeploymentId, Digest, ExecutionId, HostId, Place, Secret, TenantName,
    Ticket,
    plan::{Plan, PlanKind},
    policy::{Principal, Role},
    port::{
        BasesSeen, Built, Commit, Fault, HostRole, HostSeen, HostState, ImageAbout, ImageDiff, ImageExport,
        ImageTaken, LogChunk, LogRef,
    },
    route::TargetHealth,
    spec,
    webhook::Provider,
    wire::{NewRollback, Refreshed},
};
use serde_json::Value;
use store::{By, NewBuilder, NewInvitation, Store};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Data, Platform},
    git::remote::Remotes,
    machines::Pass,
    web::{self, Commands, Moving, Pushed, Sight, listen::Peer},
};

/// The secret that GitHub and acme/shop both know.
pub const HOOK_SECRET: &str = "a-secret-of-at-least-sixteen";
pub const OWNER: u32 = 4711;

pub fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

pub fn place() -> Place {
    "acme/shop/dev".parse().unwrap()
}

pub fn machine() -> HostId {
    HostId::from_bits(2)
}

pub fn builder() -> HostId {
    HostId::from_bits(3)
}

pub fn host() -> HostId {
    HostId::from_bits(1)
}

pub fn execution() -> ExecutionId {
    ExecutionId::from_bits(2)
}

pub fn approval() -> ApprovalId {
    ApprovalId::from_bits(3)
}

pub fn deployment() -> DeploymentId {
    DeploymentId::from_bits(4)
}

pub fn delivery() -> DeliveryId {
    DeliveryId::from_bits(5)
}

pub fn log() -> String {
    format!("build/{}", Ticket::of(&execution(), 1, 1))
}

pub fn commit() -> Commit {
    Commit {
        id: "0123456789abcdef0123456789abcdef01234567".into(),
        author: "Ann <ann@acme.example>".into(),
        message: "A change".into(),
        branch: "dev".into(),
        repository: "acme/shop".into(),
        committed_at: now(),
    }
}

pub fn plan(place: &Place) -> Plan {
    Plan {
        place: place.to_string(),
        kind: PlanKind::Release,
        from: None,
        to: 1,
        changes: Vec::new(),
        commits: vec![commit()],
    }
}

pub struct World {
    pub state: web::State,
    pub recorder: Arc<Recorder>,
    pub stop: CancellationToken,
    pub directory: tempfile::TempDir,
}

/// A caller of one kind.
#[derive(Debug, Clone)]
pub enum Who {
    /// Over TCP, without a token.
    Nobody,
    /// On the local socket, by number.
    User(u32),
    Bearer(String),
}

impl World {
    pub async fn new() -> Self {
        Self::at(now).await
    }

    /// With a clock of its own.
    pub async fn at(clock: fn() -> Timestamp) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&at(&directory).join("serve")).unwrap();
        store.write(seed).await.unwrap();
        Self::with(store, directory, clock).await
    }

    /// The same, after its process was gone for a moment.
    pub async fn again(mut self) -> Self {
        self.stop.cancel();
        self.state.closed().await;
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        let clock = self.state.clock;
        drop(self);
        let store = loop {
            match Store::open(&at(&directory).join("serve")) {
                // The engine has it until its last commit is done.
                Err(store::Error::Locked(_)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await
                }
                opened => break opened.unwrap(),
            }
        };
        Self::with(store, directory, clock).await
    }

    async fn with(store: Store, directory: tempfile::TempDir, clock: fn() -> Timestamp) -> Self {
        let path = at(&directory);
        let (recorder, stop) = (Arc::new(Recorder::default()), CancellationToken::new());
        let states = states(&store, clock, &stop).await;
        let state = web::State::new(web::Setup {
            store,
            commands: recorder.clone(),
            sight: Arc::new(recorder::Machine),
            repositories: path.join("serve/git"),
            remotes: Remotes::new(&Platform::default(), &Data(path.clone())),
            url: "http://127.0.0.1:1".into(),
            owner: OWNER,
            urls: Arc::new(|place| vec![format!("http://{place}/")]),
            names: Arc::new(|db, own| crate::reconcile::routes::asked(db, &Platform::default(), own)),
            states,
            clock,
            stop: stop.clone(),
        })
        .unwrap();
        web::services::work(&state, &stop);
        Self {
            state,
            recorder,
            stop,
            directory,
        }
    }

    /// The text of a new token.
    pub async fn token(&self, role: Role, tenant: Option<&str>) -> String {
        let name = format!("{role:?}-{}", tenant.unwrap_or("platform")).to_lowercase();
        let new = store::NewToken {
            principal: Principal {
                actor: format!("token:{name}"),
                role,
                tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            },
            name,
            expires_at: None,
        };
        let by = By::platform(now());
        let (_, text) = self
            .state
            .store
            .write(move |tx| tx.create_token(&new, &by))
            .await
            .unwrap();
        text.expose().to_owned()
    }

    pub async fn bearer(&self, role: Role, tenant: Option<&str>) -> Who {
        Who::Bearer(self.token(role, tenant).await)
    }

    /// Sends a request to the router, as a door would. JSON comes back, or null.
    pub async fn ask(
        &self,
        who: &Who,
        method: Method,
        uri: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(body) = &body {
            request = request.header("content-type", "application/json");
            let _ = body;
        }
        self.send(
            who,
            request
                .body(Body::from(body.map(|body| body.to_string()).unwrap_or_default()))
                .unwrap(),
        )
        .await
    }

    pub async fn send(&self, who: &Who, request: Request<Body>) -> (StatusCode, Value) {
        let (status, _, answer) = self.answer(who, request).await;
        (status, answer)
    }

    /// The same with the answer's headers.
    pub async fn answer(&self, who: &Who, mut request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
        let peer = match who {
            Who::User(uid) => Peer::Local { uid: *uid },
            _ => Peer::Remote(([127, 0, 0, 1], 9).into()),
        };
        if let Who::Bearer(token) = who {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        let router = web::router(self.state.clone()).layer(Extension(peer));
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 10 << 20).await.unwrap();
        if status.is_client_error() || status.is_server_error() {
            assert_eq!(
                headers["content-type"], "application/problem+json",
                "{status} {bytes:?}"
            );
        }
        (
            status,
            headers,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn at(directory: &tempfile::TempDir) -> Utf8PathBuf {
    Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap()
}

/// The engine of state machines, as `serve` puts it together.
async fn states(store: &Store, clock: fn() -> Timestamp, stop: &CancellationToken) -> web::States {
    let known = Arc::new(web::Known::default());
    known.load(store).await.unwrap();
    let refuses = Arc::clone(&known);
    let (engine, handle) = engine::new(engine::Setup {
        store: store.clone(),
        clock,
        bits: crate::clock::bits,
        refuses: Arc::new(move |owner, resource| refuses.refuses(owner, resource)),
        own: web::services::is_called,
        objects: None,
        witness: None,
        limits: engine::Limits::default(),
    });
    tokio::spawn(engine.run(stop.clone().cancelled_owned()));
    web::States {
        engine: handle,
        known,
        unsigned: None,
    }
}

/// A world with everybody who may be allowed something in it.
pub struct Callers {
    pub world: World,
    people: Vec<(Option<Role>, Who)>,
}

impl Callers {
    pub async fn new() -> Self {
        let world = World::new().await;
        let mut people = vec![(None, Who::User(0))];
        for role in [
            Role::Operator,
            Role::Developer,
            Role::Approver,
            Role::Auditor,
            Role::Monitor,
        ] {
            people.push((Some(role), world.bearer(role, Some("acme")).await));
        }
        Self { world, people }
    }

    /// The bearer of a role in acme; without one, root on the local socket.
    pub fn with(&self, role: Option<Role>) -> &Who {
        let found = self.people.iter().find(|(own, _)| *own == role);
        found.map(|(_, who)| who).unwrap()
    }
}

/// The one of the execution.
fn built() -> Built {
    let object = |name: &str| (name.to_owned(), Digest::of(name));
    Built {
        artifact: Digest::of("main"),
        size_bytes: 1,
        phases: Vec::new(),
        reports: Vec::new(),
        exported: Default::default(),
        log: log().parse().unwrap(),
        name: None,
        secondary: [object("docs"), object("swept")].into(),
    }
}

fn seed(tx: &mut store::Tx<'_>) -> Result<(), store::Error> {
    let by = By::new("person:ann@acme.example", now());
    let (acme, shop): (TenantName, AppName) = ("acme".parse().unwrap(), "shop".parse().unwrap());
    tx.create_tenant(&acme, &by)?;
    tx.create_tenant(&"other".parse().unwrap(), &by)?;
    tx.create_app(&acme, &shop, None, &by)?;
    tx.set_webhook_secret(
        &acme,
        &shop,
        Provider::Github,
        Some(&Secret::new(HOOK_SECRET.into())),
        &by,
    )?;
    tx.ensure_environment(&place(), "dev", &by)?;
    let invitation = NewInvitation {
        tenant: acme.clone(),
        labels: [("role".to_owned(), "web".to_owned())].into(),
        expires_at: now() + SignedDuration::from_secs(60),
    };
    let secret = Secret::new("a machine's".into());
    tx.invite_machine(&secret, &invitation, &by)?;
    tx.join_machine(&machine(), &secret, "box", Digest::of("key"), now())?;
    let new = NewBuilder {
        labels: [("arch".to_owned(), "arm64".to_owned())].into(),
        tenants: Default::default(),
        expires_at: now() + SignedDuration::from_secs(60),
    };
    let secret = Secret::new("a builder's".into());
    tx.invite_builder(&secret, &new, &by)?;
    tx.join_builder(
        &builder(),
        &secret,
        "pi",
        Digest::of("its key"),
        &new.labels,
        now(),
    )?;
    tx.begin_move(&place(), "shop.aws.example", 1, false, &by)?;
    let push = store::NewPush {
        tenant: acme.clone(),
        app: shop.clone(),
        environment: Some(place().environment),
        branch: "older".into(),
        commit: commit(),
        origin: "git".into(),
        event: None,
    };
    tx.enqueue_push(&push, &by)?;
    let (app, _) = spec::App::parse("app: shop\n", "vend.yaml", &|path| path == "Procfile").unwrap();
    let new = store::NewRelease {
        commit: commit(),
        source: Digest::of("source"),
        image: Digest::of("image"),
        revision: Digest::of("revision"),
        spec: app.environments[0].clone(),
        secrets: Default::default(),
        execution: Some(execution()),
    };
    tx.create_release(&place(), &new, &by)?;
    tx.create_host(
        &store::NewHost {
            id: host(),
            place: place(),
            release: Some(1),
            role: HostRole::App,
            image: Some(Digest::of("image")),
            size: "small".into(),
        },
        &by,
    )?;
    let machine = r#"{"StartAt":"End","States":{"End":{"Type":"Succeed"}}}"#;
    // Above the keys that the engine gives.
    let run = 1 << 40;
    let begin = store::Begin {
        key: run,
        tenant: None,
        machine: 0,
        name: execution().to_string(),
        arn: "arn:aws:states:local:000000000000:execution:release:x".into(),
        origin: "{}".into(),
        definition: machine.into(),
        input: "{}".into(),
        at: by.at,
        kin: None,
    };
    tx.append(&store::Batch {
        begins: vec![begin],
        ..store::Batch::default()
    })?;
    tx.start_execution(
        &store::NewExecution {
            id: execution(),
            place: Some(place()),
            kind: "release".into(),
            run,
            deadline_at: None,
        },
        &by,
    )?;
    let build = store::NewBuild {
        ticket: Ticket::of(&execution(), 1, 0),
        place: place(),
        execution: Some(execution()),
        commit: commit(),
        source: Digest::of("source"),
        identifier: None,
        log: None,
    };
    tx.begin_build(&build, &by)?;
    tx.finish_build(&build.ticket, Ok(&built()), &by)?;
    tx.open_approval(
        &store::NewApproval {
            id: approval(),
            place: place(),
            execution: execution(),
            task: 1,
            plan: plan(&place()),
            required: 1,
            approvers: Vec::new(),
            authors: vec!["ann@acme.example".into()],
            author_may_approve: false,
            expires_at: now() + SignedDuration::from_hours(1),
        },
        &by,
    )?;
    tx.begin_deployment(
        &store::NewDeployment {
            id: deployment(),
            place: place(),
            release: 1,
            strategy: spec::Strategy::BlueGreen,
            cause: None,
            execution: Some(execution()),
        },
        &by,
    )?;
    tx.receive_delivery(
        &store::NewDelivery {
            id: delivery(),
            tenant: acme.clone(),
            app: shop.clone(),
            provider: Provider::Github,
            delivery: Some("first".into()),
            headers: vec![("X-GitHub-Event".into(), "ping".into())],
            body: br#"{"zen":"x"}"#.to_vec(),
            verdict: store::DeliveryVerdict::Ignored,
            reason: None,
            event: None,
        },
        &by,
    )?;
    let scope = store::SecretScope {
        tenant: acme,
        app: shop,
        environment: None,
    };
    let errors = "errors".parse().expect("a name");
    tx.set_alarm(&scope.tenant, &errors, model::alarm::AlarmState::Ok, None, &by)?;
    tx.set_secret(&scope, "api-key", &Secret::new("hidden".into()), &by)?;
    Ok(())
}
