//! `vend up`: starts and supervises serve, node and edge on one machine.
//!
//! The supervisor holds the listening sockets and lends them to the roles (the `LISTEN_FDS` protocol of
//! sd_listen_fds(3), so that systemd's socket units do the same): while a role is being restarted, connections wait in
//! the socket's queue instead of being refused. It knows nothing of what the roles do.

mod lend;
mod replace;
mod sockets;

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    process::{ExitStatus, Stdio},
};

use camino::Utf8PathBuf;
use command_fds::{CommandFdExt as _, FdMapping};
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::{Duration, Instant, sleep, timeout},
};
use tracing::{info, warn};

use model::wire::{Health, RoleHealth};
use rustix::process::Pid;

use crate::{
    cli::Client,
    config::{Data, Platform},
    view::View,
};

use lend::{Role, lent, roles};
pub use replace::replace;
use replace::{Held, Running};
use sockets::picked;

/// How long a role may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(20);
const SLOWEST_RESTART: Duration = Duration::from_secs(10);
/// A role that lived this long is well: its next restart is at once again.
const WELL_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`vend up` must be root: it starts a role that makes containers (try `sudo vend up`)")]
    NotRoot,
    #[error("another platform runs in {0}: stop it first, or choose another --data")]
    Busy(Utf8PathBuf),
    #[error("cannot listen on {address}: choose another address in platform.toml, or --pick-ports")]
    Listen { address: String, source: std::io::Error },
    #[error("cannot prepare {path}")]
    Prepare {
        path: Utf8PathBuf,
        source: std::io::Error,
    },
    #[error("cannot start {role}")]
    Spawn {
        role: &'static str,
        source: std::io::Error,
    },
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("cannot listen for signals")]
    Signal(#[source] std::io::Error),
    #[error("no platform runs in {0}: `vend up` without --replace starts one")]
    NotRunning(Utf8PathBuf),
    #[error(
        "the platform in {0} is just starting, or of a version that is not replaced while it runs: stop `vend up` and start this one"
    )]
    TooOld(Utf8PathBuf),
    #[error("cannot ask the platform that runs to go on as this program")]
    Replace { source: std::io::Error },
    #[error("the platform in {0} does not go on as this program: its log says why (`vend health`)")]
    NotReplaced(Utf8PathBuf),
}

/// Where a running platform is reached; kept in `<data>/run/endpoints.json` for the CLI.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    pub http: SocketAddr,
    pub api: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<SocketAddr>,
    /// The built-in name server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<SocketAddr>,
    /// Where Prometheus asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

/// Whom the unprivileged roles run as. Both share a group, so that serve reaches the others' sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Users {
    pub serve: u32,
    pub edge: u32,
    pub group: u32,
}

impl Users {
    /// The packaged users `vend` and `vend-edge` where they exist, else two ids that nobody has.
    pub fn of_this_machine() -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let find = |name: &str| {
            let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        match (find("vend"), find("vend-edge")) {
            (Some((serve, group)), Some((edge, _))) => Self { serve, edge, group },
            _ => Self {
                serve: 64_200,
                edge: 64_201,
                group: 64_200,
            },
        }
    }
}

/// Runs until SIGTERM or SIGINT. Hosts go on running afterwards: `vend down` stops them.
pub async fn run(data: Data, pick_ports: bool) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let users = Users::of_this_machine();
    prepare(&data, users)?;
    let data = whole(&data)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let mut replaced = signal(SignalKind::user_defined2()).map_err(Error::Signal)?;
    let _lock = lock(&data)?;
    let mut held = Held::take();
    let mut platform = Platform::load(&data.platform_toml())?;
    if pick_ports {
        (platform.listen.http, platform.listen.api) = picked(&data, !held.is_empty());
        if let Some(metrics) = &mut platform.edge.metrics.0 {
            metrics.set_port(0);
        }
    }
    let (roles, endpoints) = roles(&data, &platform, users, &mut held)?;
    write_endpoints(&data, &endpoints)?;
    let lent = lent(&roles)?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let running = Running::default();
    let supervised = roles.into_iter().map(|role| {
        let before = held.role(role.name);
        running.leaving(isize::from(before.is_some()));
        supervise(
            role,
            before,
            running.clone(),
            data.clone(),
            users,
            stopping.clone(),
        )
    });
    let supervised: Vec<_> = supervised.collect();
    // Sockets that are wanted no more are closed.
    drop(held);
    let signalled = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = replaced.recv() => {
                    info!("going on as another program: hosts and sockets stay");
                    let error = replace::become_next(&data, &lent, &running);
                    warn!(%error, "this program goes on: the other one cannot be started");
                }
            }
        }
        info!("stopping: hosts go on running, `vend down` stops them");
        // The receivers live in this function: sending cannot fail.
        let _ = stop.send(true);
    };
    let supervised = futures_util::future::join_all(supervised);
    let work = async {
        tokio::join!(signalled, supervised);
        // What those of before have under way they finish, too.
        while running.leaving(0) > 0 {
            sleep(LOOK_EVERY).await;
        }
    };
    // Who asks how the roles are ends with them.
    tokio::select! {
        _ = work => {}
        () = async { announce(&data, &endpoints, &running).await; std::future::pending::<()>().await } => {}
    }
    Ok(())
}

/// How long the roles may take until one that does not answer is worth a warning.
const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Says on standard output, once each, which role answers, and then how the platform is used.
async fn announce(data: &Data, endpoints: &Endpoints, running: &Running) {
    // Until then those of the supervisor before this one answer.
    while running.all().len() < ROLES {
        sleep(LOOK_EVERY).await;
    }
    let Ok(client) = Client::new(None, Some(data.0.as_std_path())) else {
        return;
    };
    let started = Instant::now();
    let (mut ready, mut warned) = (Vec::new(), false);
    while ready.len() < ROLES {
        let health = client.get::<Health>("/v1/health").await;
        for role in health.iter().flat_map(|health| &health.roles) {
            if role.ok && !ready.contains(&role.role) {
                crate::output::aloud(format_args!("{}", ready_text(role, endpoints)));
                ready.push(role.role.clone());
            }
        }
        if !warned && ready.len() < ROLES && started.elapsed() > READY_WITHIN {
            warned = true;
            warn!(
                "after {}s only these roles answer: {}",
                READY_WITHIN.as_secs(),
                ready.join(", ")
            );
        }
        sleep(LOOK_EVERY).await;
    }
    if let Err(error) = std::fs::write(replace::ready_at(data), "") {
        warn!(%error, "nobody who waits will see that all roles answer");
    }
    crate::output::aloud(format_args!("{}", usage_text(data, endpoints)));
}

const ROLES: usize = 3;

fn ready_text(role: &RoleHealth, endpoints: &Endpoints) -> String {
    let does = match role.role.as_str() {
        "serve" => format!("http://{}  API, git and webhooks", endpoints.api),
        "edge" => format!("http://{}  the apps' visitors", endpoints.http),
        _ => "makes hosts, images and builds".to_owned(),
    };
    let but = role.reason.as_ref().map(|reason| format!("; {reason}"));
    format!("{:<5} is ready  {does}{}", role.role, but.unwrap_or_default())
}

/// The default data directory is found without being named.
fn usage_text(data: &Data, endpoints: &Endpoints) -> String {
    let option = match data.0.as_str() == crate::cli::DATA {
        true => String::new(),
        false => format!(" --data {}", data.0),
    };
    format!(
        "In another shell, as root:       vend tenants create NAME{option}\n\
         As somebody else, with a token:  vend login --url http://{}   (vend tokens create{option} makes one)\n\
         Ctrl-C stops the roles and leaves the hosts; then `vend down{option}` stops the hosts.",
        endpoints.api
    )
}

/// The directories of the roles, each with its owner.
fn prepare(data: &Data, users: Users) -> Result<(), Error> {
    let owned = [
        (data.0.clone(), None, 0o755),
        (data.run(), None, 0o755),
        (data.node(), None, 0o700),
        (data.serve(), Some(users.serve), 0o700),
        (data.edge(), Some(users.edge), 0o750),
    ];
    for (path, user, mode) in owned {
        let prepare = || {
            std::fs::create_dir_all(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            if let Some(user) = user {
                std::os::unix::fs::chown(&path, Some(user), Some(users.group))?;
            }
            Ok(())
        };
        prepare().map_err(|source| Error::Prepare {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// The directory under its own path: roles see another tree of files, in which no link leads to it, nor whatever the
/// path that was given began at.
fn whole(data: &Data) -> Result<Data, Error> {
    let path = data.0.canonicalize_utf8().map_err(|source| Error::Prepare {
        path: data.0.clone(),
        source,
    })?;
    Ok(Data(path))
}

fn lock(data: &Data) -> Result<std::fs::File, Error> {
    let path = data.run().join("up.lock");
    let open = || {
        let mut how = std::fs::File::options();
        how.write(true).create(true).truncate(false).open(&path)
    };
    let wrong = |source| Error::Prepare {
        path: path.clone(),
        source,
    };
    let file = open().map_err(wrong)?;
    file.try_lock().map_err(|_| Error::Busy(data.0.clone()))?;
    file.set_len(0).map_err(wrong)?;
    std::io::Write::write_all(&mut &file, std::process::id().to_string().as_bytes()).map_err(wrong)?;
    Ok(file)
}

/// Whether `vend up` holds this directory.
pub fn is_running(data: &Data) -> bool {
    let lock = std::fs::File::open(data.run().join("up.lock"));
    lock.is_ok_and(|file| file.try_lock().is_err())
}

fn write_endpoints(data: &Data, endpoints: &Endpoints) -> Result<(), Error> {
    let path = data.run().join("endpoints.json");
    let text = serde_json::to_string_pretty(endpoints).expect("addresses are plain data");
    std::fs::write(&path, text).map_err(|source| Error::Prepare { path, source })
}

/// Keeps one role running until told to stop.
async fn supervise(
    role: Role,
    before: Option<Pid>,
    running: Running,
    data: Data,
    users: Users,
    mut stopping: tokio::sync::watch::Receiver<bool>,
) {
    if let Some(before) = before {
        // Only edge has visitors that it must finish with while its successor works.
        let doors = (role.name == "edge").then(|| data.edge_socket().into_std_path_buf());
        replace::give_way(role.name, before, doors.as_deref(), role.grace(), &running).await;
    }
    let mut delay = Duration::from_millis(50);
    while !*stopping.borrow() {
        let started = Instant::now();
        match spawn(&role, &data, users) {
            Ok(mut child) => {
                info!(role = role.name, pid = child.id(), "started {}", role.name);
                running.set(role.name, child.id());
                tokio::select! {
                    status = child.wait() => report(role.name, status),
                    _ = stopping.changed() => return stop(&role, child).await,
                }
                running.set(role.name, None);
            }
            Err(error) => warn!(
                role = role.name,
                error = &error as &dyn std::error::Error,
                "{error}"
            ),
        }
        delay = if started.elapsed() > WELL_AFTER {
            Duration::from_millis(50)
        } else {
            delay
        };
        tokio::select! { _ = sleep(delay) => {}, _ = stopping.changed() => return }
        delay = (delay * 2).min(SLOWEST_RESTART);
    }
}

fn report(role: &str, status: std::io::Result<ExitStatus>) {
    match status {
        Ok(status) => warn!(role, %status, "{role} ended ({status}), starting it again"),
        Err(error) => warn!(role, %error, "lost sight of {role}, starting it again"),
    }
}

fn spawn(role: &Role, data: &Data, users: Users) -> Result<Child, Error> {
    let wrong = |source| Error::Spawn {
        role: role.name,
        source,
    };
    let mut command = std::process::Command::new("/proc/self/exe");
    command.env_remove(replace::VARIABLE);
    std::os::unix::process::CommandExt::arg0(&mut command, "vend");
    command
        .arg(role.name)
        .arg("--data")
        .arg(&data.0)
        .stdin(Stdio::null());
    // The supervisor may have been meant by systemd; its children are by nobody else.
    command
        .env_remove("LISTEN_PID")
        .env("VEND_SUPERVISED", "1")
        .env("LISTEN_FDS", role.sockets.len().to_string());
    let names: Vec<&str> = role.sockets.iter().map(|(name, _)| *name).collect();
    command.env("LISTEN_FDNAMES", names.join(":"));
    if let Some(user) = role.user {
        let view = View::new(data.0.as_std_path(), user, users.group).map_err(wrong)?;
        // Rules may have ports of their own, which only it knows.
        let view = if role.name == "edge" { view.binding() } else { view };
        // Before the descriptors are mapped: it uses one of its own.
        #[allow(unsafe_code)]
        // SAFETY: `enter` allocates nothing and takes no lock.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(&mut command, move || view.enter());
        }
    }
    let mappings = role.sockets.iter().enumerate().map(|(index, (_, socket))| {
        let parent_fd = socket.try_clone()?;
        Ok(FdMapping {
            parent_fd,
            child_fd: 3 + index as i32,
        })
    });
    let mappings = mappings
        .collect::<Result<Vec<_>, std::io::Error>>()
        .map_err(wrong)?;
    command
        .fd_mappings(mappings)
        .map_err(|error| wrong(std::io::Error::other(error)))?;
    Command::from(command).kill_on_drop(true).spawn().map_err(wrong)
}

async fn stop(role: &Role, mut child: Child) {
    let (role, grace) = (role.name, role.grace());
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
        // A role that is gone already needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if timeout(grace, child.wait()).await.is_err() {
        warn!(role, "{role} did not end within {}s, killing it", grace.as_secs());
        if let Err(error) = child.kill().await {
            warn!(role, %error, "cannot kill {role}");
        }
    }
}

/// Where the platform of a data directory was last reached.
pub fn endpoints(data: &Data) -> Option<Endpoints> {
    let text = std::fs::read_to_string(data.run().join("endpoints.json")).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_seen_however_it_was_named() {
        let top = tempfile::tempdir().unwrap();
        let real = top.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let named = Data(link.join("../real/.").try_into().unwrap());
        assert_eq!(whole(&named).unwrap().0.as_std_path(), real);
        for relative in [".", "src"] {
            let data = whole(&Data(relative.into())).unwrap();
            assert!(data.0.is_absolute(), "{}", data.0);
            assert!(View::new(data.0.as_std_path(), 64_200, 64_200).is_ok());
        }
    }

    #[test]
    fn what_is_ready_says_where_it_is_reached() {
        let endpoints = Endpoints {
            http: ([127, 0, 0, 1], 8080).into(),
            api: ([127, 0, 0, 1], 7070).into(),
            https: None,
            dns: Vec::new(),
            metrics: None,
        };
        let role = |role: &str, reason: Option<&str>| RoleHealth {
            role: role.into(),
            ok: true,
            reason: reason.map(Into::into),
        };
        assert_eq!(
            [
                ready_text(&role("serve", None), &endpoints),
                ready_text(&role("edge", None), &endpoints),
                ready_text(&role("node", Some("preparing: the base")), &endpoints),
            ],
            [
                "serve is ready  http://127.0.0.1:7070  API, git and webhooks",
                "edge  is ready  http://127.0.0.1:8080  the apps' visitors",
                "node  is ready  makes hosts, images and builds; preparing: the base",
            ]
        );
        let there = usage_text(&Data("/srv/v".into()), &endpoints);
        assert!(
            there.contains("vend tenants create NAME --data /srv/v\n"),
            "{there}"
        );
        assert!(!usage_text(&Data(crate::cli::DATA.into()), &endpoints).contains("--data"));
    }
}
