//! The agent's socket: HTTP/1.1 with JSON, for the node and for `systemctl` of the host's root; what others may ask is
//! [`super::questions`]. Whatever comes in, it goes on answering.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures_util::StreamExt as _;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use jiff::Timestamp;
use model::{
    Digest,
    port::{Death, Fault, LogChunk, Verdict},
    spec::Checks,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    net::UnixListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use super::{
    api::{
        Configuration, ControlOrder, ControlOutcome, DaemonOrder, Deploy, Disk, Health, LogFile, Reports,
        RunOrder, RunOutcome, ServiceStatus,
    },
    control,
    files::Files,
    layout::Layout,
    lifecycle::Deployments,
    reaper::{Exit, Reaper},
    run,
    service::Wish,
    services::Services,
    spawn::Launch,
    succession, usage,
    users::Users,
};
use crate::{check, hosts, now};

/// Connections at one time; more wait.
const CONNECTIONS: usize = 64;

/// Of these so many may be of `systemctl`, which waits as long as a unit does: the node always finds a place.
const CALLS: usize = 48;

/// Largest JSON that is read, in bytes.
const BODY: usize = 4 << 20;

/// Largest revision, in bytes.
const REVISION: u64 = 8 << 30;

/// Longest that somebody waits for a process to die.
pub(super) const WATCH: Duration = Duration::from_secs(5);

/// Longest a one-off command may ask for.
const LONGEST_RUN: Duration = Duration::from_secs(3600);

#[derive(Clone)]
pub struct Agent {
    layout: Layout,
    reaper: Reaper,
    services: Services,
    deployments: Deployments,
    started_at: Timestamp,
    calls: Arc<Semaphore>,
    /// It is the agent of a whole machine.
    is_machine: bool,
}

impl Agent {
    /// Keeps deployments from beginning; `None` when one runs.
    pub fn rest(&self) -> Option<OwnedSemaphorePermit> {
        self.deployments.rest()
    }

    pub fn begin(layout: Layout, reaper: Reaper, services: Services, files: Files) -> Self {
        Self {
            deployments: Deployments::begin(layout.clone(), reaper.clone(), services.clone(), files),
            layout,
            reaper,
            services,
            started_at: now(),
            calls: Arc::new(Semaphore::new(CALLS)),
            is_machine: false,
        }
    }

    pub fn of_machine(self) -> Self {
        Self {
            is_machine: true,
            ..self
        }
    }
}

/// A socket that only root can connect to.
pub fn listen(layout: &Layout) -> io::Result<UnixListener> {
    bind(&layout.socket(), 0o600)
}

/// A socket whose mode is this one, in the place of what was there.
pub(super) fn bind(path: &std::path::Path, mode: u32) -> io::Result<UnixListener> {
    let fresh = path.with_extension("new");
    for old in [path, &fresh] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // It gets its mode before it gets its name.
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Answers for ever.
pub async fn serve(listener: UnixListener, agent: Agent) {
    accept(listener, router(agent), CONNECTIONS, None).await;
}

/// Answers so many connections at one time, each of which ends after `limit`.
pub(super) async fn accept(listener: UnixListener, router: Router, most: usize, limit: Option<Duration>) {
    let service = TowerToHyperService::new(router);
    let room = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = service.clone();
        connections.spawn(async move {
            let _place = place;
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .max_buf_size(64 << 10)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // What is no HTTP, or too slow, ends the connection and nothing else.
            match limit {
                Some(limit) => drop(timeout(limit, serving).await),
                None => drop(serving.await),
            }
        });
    }
}

fn router(agent: Agent) -> Router {
    deployments()
        .route(
            "/v1/program/{digest}",
            put(put_program).layer(DefaultBodyLimit::disable()),
        )
        .route("/v1/deaths/{since}", get(death))
        .route("/v1/services/{name}/{verb}", post(service))
        .route("/v1/daemon", post(daemon))
        .route("/v1/run", post(run_once))
        .route("/v1/control", post(systemctl))
        .route("/v1/logs", get(logs))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(agent)
}

/// What a machine's agent answers to whom it has dialled: deployments, and nothing that runs a command of its own.
pub fn guest(agent: Agent) -> Router {
    deployments()
        .route("/v1/logs/{name}/{offset}", get(read_log))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(agent)
}

/// What is asked of every agent, also by way of the network: nothing here runs a command of the asker's own.
fn deployments() -> Router<Agent> {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/configure", post(configure))
        .route(
            "/v1/revisions/{digest}",
            put(put_revision).layer(DefaultBodyLimit::disable()),
        )
        .route("/v1/deploy", post(deploy))
        .route("/v1/deployments/{deployment}/stop", post(stop_deployment))
        .route("/v1/tickets/{ticket}", get(knows))
        .route("/v1/tickets/{ticket}/events", get(progress))
        .route("/v1/check", post(run_checks))
        .route("/v1/services", get(services))
}

async fn read_log(
    State(agent): State<Agent>,
    Path((name, offset)): Path<(String, u64)>,
) -> Result<Json<LogChunk>, Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if !name.chars().all(plain) {
        return Err(Fault::order(format!("`{name}` is not the name of a log")).into());
    }
    let run = camino::Utf8PathBuf::from_path_buf(agent.layout.run.clone());
    let run = run.map_err(|_| Fault::platform("the agent's directory is not UTF-8"))?;
    let chunk = hosts::chunk(&run, &format!("logs/{name}.log"), offset);
    Ok(Json(chunk.map_err(|error| {
        format!("cannot read the log {name}: {error}")
    })?))
}

/// A refusal, as JSON of a fault.
struct Refusal(StatusCode, Fault);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, fault)
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Fault::customer(why).into()
    }
}

/// Does to its end what was asked for, also when nobody waits for it any more: a restart of which only the stop is done
/// would leave things worse than they were.
async fn to_end<T: Send + 'static>(job: impl Future<Output = T> + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::spawn(job).await;
    done.map_err(|_| Fault::platform("the agent could not bring it to its end").into())
}

async fn health(State(agent): State<Agent>) -> Json<Health> {
    let (active, failed) = agent.services.count();
    Json(Health {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        configured: agent.services.is_configured(),
        started_at: agent.started_at,
        active,
        failed,
        disk: disk(),
        usage: if agent.is_machine { usage::now() } else { None },
    })
}

fn disk() -> Option<Disk> {
    let root = rustix::fs::statvfs("/").ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(root.f_frsize);
    Some(Disk {
        used_bytes: bytes(root.f_blocks.saturating_sub(root.f_bfree)),
        total_bytes: bytes(root.f_blocks),
    })
}

/// Keeps the environment. The first time, what is enabled starts, and so do the processes of an app that is there. What
/// the node orders next waits for that.
async fn configure(
    State(agent): State<Agent>,
    Json(configuration): Json<Configuration>,
) -> Result<Json<()>, Refusal> {
    if agent.services.configure(configuration.clone()) {
        to_end(begin(agent, !configuration.processes.is_empty())).await??;
    }
    Ok(Json(()))
}

async fn begin(agent: Agent, has_processes: bool) -> Result<(), String> {
    agent.services.listen().await;
    agent.services.boot();
    if has_processes && agent.layout.app.is_dir() {
        agent.services.booted().await;
        agent.services.begin_processes().await?;
    }
    Ok(())
}

async fn deploy(State(agent): State<Agent>, Json(deploy): Json<Deploy>) -> Result<Json<Reports>, Refusal> {
    agent.services.booted().await;
    Ok(Json(agent.deployments.deploy(deploy).await?))
}

async fn stop_deployment(
    State(agent): State<Agent>,
    Path(deployment): Path<String>,
    Json(reason): Json<String>,
) -> Result<Json<()>, Refusal> {
    let deployment = deployment
        .parse()
        .map_err(|_| Fault::order("not the id of a deployment"))?;
    agent.deployments.stop(deployment, reason);
    Ok(Json(()))
}

async fn knows(State(agent): State<Agent>, Path(ticket): Path<String>) -> Result<Json<bool>, Refusal> {
    let ticket = ticket.parse().map_err(|_| Fault::order("not a ticket"))?;
    Ok(Json(agent.deployments.knows(&ticket)))
}

async fn progress(State(agent): State<Agent>, Path(ticket): Path<String>) -> Result<Json<Reports>, Refusal> {
    let ticket = ticket.parse().map_err(|_| Fault::order("not a ticket"))?;
    Ok(Json(Reports {
        events: agent.deployments.progress(&ticket),
    }))
}

/// Answers when there is something to say, and else after a while.
async fn death(State(agent): State<Agent>, Path(since): Path<i64>) -> Result<Json<Option<Death>>, Refusal> {
    let since = Timestamp::from_millisecond(since).map_err(|_| Fault::order("not a time"))?;
    let death = timeout(WATCH, agent.deployments.death(since)).await;
    Ok(Json(death.ok()))
}

/// A command that a check runs ends with it.
async fn run_checks(
    State(agent): State<Agent>,
    Json(checks): Json<Checks>,
) -> Result<Json<Verdict>, Refusal> {
    let around = check::Surroundings {
        reaper: agent.reaper.clone(),
        environment: agent.services.environment(),
    };
    to_end(async move { Json(check::run(&checks, &around).await) }).await
}

async fn services(State(agent): State<Agent>) -> Json<Vec<ServiceStatus>> {
    Json(agent.services.list())
}

async fn service(
    State(agent): State<Agent>,
    Path((name, verb)): Path<(String, String)>,
) -> Result<Json<()>, Refusal> {
    let wish = match verb.as_str() {
        "start" => Wish::Start,
        "stop" => Wish::Stop,
        "restart" => Wish::Restart,
        "reload" => Wish::Reload,
        _ => return Err(Fault::order(format!("`{verb}` is nothing that a service does")).into()),
    };
    agent.services.booted().await;
    let asked = to_end(async move {
        let _concern = agent.services.at_peace().await;
        agent.services.ask(&name, wish).await
    });
    Ok(Json(asked.await??))
}

async fn daemon(State(agent): State<Agent>, Json(order): Json<DaemonOrder>) -> Result<Json<()>, Refusal> {
    agent.services.booted().await;
    let run = to_end(async move {
        let _concern = agent.services.at_peace().await;
        agent.services.run_daemon(&order).await
    });
    Ok(Json(run.await??))
}

async fn run_once(
    State(agent): State<Agent>,
    Json(order): Json<RunOrder>,
) -> Result<Json<RunOutcome>, Refusal> {
    let Some((program, arguments)) = order.command.split_first() else {
        return Err(Fault::order("a command needs a program").into());
    };
    let mut launch = Launch::new(program, arguments);
    launch.directory = Some(order.directory.clone().unwrap_or_else(|| "/".to_owned()).into());
    launch.environment = agent.services.environment();
    launch.environment.extend(
        order
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    if let Some(user) = &order.user {
        let identity = Users::read().identity(user, None);
        launch.identity = Some(identity.ok_or_else(|| format!("there is no user {user} in the host"))?);
    }
    let limit = Duration::from_millis(order.timeout_ms).min(LONGEST_RUN);
    let stdin = order.stdin.clone();
    let run = to_end(async move {
        let stdin = stdin.as_ref().map(|stdin| stdin.expose().as_bytes());
        run::run(&agent.reaper, &launch, stdin, limit).await
    });
    let ran = run
        .await?
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    Ok(Json(RunOutcome {
        code: ran.exit.map(Exit::code),
        stdout: String::from_utf8_lossy(&ran.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ran.stderr).into_owned(),
    }))
}

async fn systemctl(
    State(agent): State<Agent>,
    Json(order): Json<ControlOrder>,
) -> Result<Json<ControlOutcome>, Refusal> {
    let Ok(_place) = agent.calls.try_acquire() else {
        return Ok(Json(ControlOutcome {
            code: 1,
            stderr: format!(
                "{CALLS} calls of systemctl wait already: list-units says what is being started\n"
            ),
            ..ControlOutcome::default()
        }));
    };
    let services = agent.services.clone();
    to_end(async move { Json(control::control(&services, &order).await) }).await
}

async fn logs(State(agent): State<Agent>) -> Json<Vec<LogFile>> {
    let entries = fs::read_dir(agent.layout.shared_logs())
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut files: Vec<LogFile> = entries
        .filter_map(|entry| {
            Some(LogFile {
                file: entry.file_name().to_str()?.to_owned(),
                bytes: entry.metadata().ok()?.len(),
            })
        })
        .collect();
    files.sort_by(|a, b| a.file.cmp(&b.file));
    Json(files)
}

/// Keeps a revision's tar until it is deployed. Only the bytes that its digest says are kept.
async fn put_revision(
    State(agent): State<Agent>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<Json<()>, Refusal> {
    let digest: Digest = digest.parse().map_err(|_| Fault::order("not a digest"))?;
    let path = agent.layout.revisions().join(format!("{}.tar", digest.hex()));
    keep(&digest, body, &path, 0o600).await.map(Json)
}

/// Keeps a program, and has it take over from this one when the answer is out. Services go on meanwhile.
async fn put_program(
    State(agent): State<Agent>,
    Path(digest): Path<String>,
    body: Body,
) -> Result<Json<()>, Refusal> {
    /// For the answer to leave.
    const ANSWER: Duration = Duration::from_millis(200);
    let digest: Digest = digest.parse().map_err(|_| Fault::order("not a digest"))?;
    // One that comes from now on waits, and is ordered again of the next agent.
    let Some(peace) = agent.deployments.rest() else {
        return Err(Fault::order("a deployment runs: the agent takes over when it has ended").into());
    };
    let path = agent.layout.state.join("program");
    keep(&digest, body, &path, 0o700).await?;
    let legacy = agent.services.leave().await.map_err(Fault::customer)?;
    tokio::spawn(async move {
        tokio::time::sleep(ANSWER).await;
        let error = succession::execute(&path, &["agent".into()], &legacy);
        drop((legacy, peace));
        tracing::error!("the new agent cannot take over: {error}");
    });
    Ok(Json(()))
}

/// Keeps the bytes that a digest names, and no others.
async fn keep(digest: &Digest, body: Body, path: &std::path::Path, mode: u32) -> Result<(), Refusal> {
    let fresh = Fresh(path.with_extension("new"));
    let failed = |error: io::Error| Fault::platform(format!("the host cannot keep what was sent: {error}"));
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh.0)
        .map_err(failed)?;
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut stream = body.into_data_stream();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.map_err(|error| Fault::platform(format!("what was sent broke off: {error}")))?;
        length += bytes.len() as u64;
        if length > REVISION {
            let most = REVISION >> 30;
            return Err(Fault::customer(format!("what was sent is larger than {most} GiB")).into());
        }
        hash.update(&bytes);
        file.write_all(&bytes).map_err(failed)?;
    }
    if Digest::from_bytes(hash.finalize().into()) != *digest {
        return Err(Fault::platform("what was sent is not what its digest says").into());
    }
    fs::rename(&fresh.0, path).map_err(|error| failed(error).into())
}

/// A file that is removed unless it was renamed.
struct Fresh(PathBuf);

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
