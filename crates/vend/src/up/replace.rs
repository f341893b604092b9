//! Another program, or another version of this one, takes the supervisor's place: `vend up --replace`.
//!
//! The supervisor becomes the new program by execve(2): the process, its listening sockets and the roles, which are its
//! children, stay. So nobody is refused while roles are exchanged, and whoever watches the process (systemd, a shell) sees
//! none end.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, WaitOptions, kill_process, test_kill_process, waitpid},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};
use tracing::warn;

use super::Error;
use crate::{
    config::{Data, Platform},
    flow::chain,
};

/// Over execve: what is left, as JSON.
pub const VARIABLE: &str = "VEND_HELD";
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After this time a new program is known not to have come up.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What one supervisor leaves to the next.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Left {
    /// Whose it is: nobody else has these descriptors.
    process: u32,
    sockets: Vec<(String, i32)>,
    roles: Vec<(String, i32)>,
}

/// What the supervisor before this one held.
#[derive(Debug, Default)]
pub struct Held {
    sockets: Vec<(String, OwnedFd)>,
    roles: Vec<(String, i32)>,
}

impl Held {
    /// Must be called once.
    pub fn take() -> Self {
        let left: Option<Left> = std::env::var(VARIABLE)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        let Some(left) = left.filter(|left| left.process == std::process::id()) else {
            return Self::default();
        };
        let own = |(name, fd)| (name, crate::role::owned(fd));
        Self {
            sockets: left.sockets.into_iter().map(own).collect(),
            roles: left.roles,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// A socket of this name that `is` what is wanted.
    fn one(&mut self, name: &str, is: impl Fn(&OwnedFd) -> bool) -> Option<OwnedFd> {
        let index = self
            .sockets
            .iter()
            .position(|(own, socket)| own == name && is(socket))?;
        Some(self.sockets.swap_remove(index).1)
    }

    pub fn tcp(&mut self, name: &str, wanted: SocketAddr) -> Option<(OwnedFd, SocketAddr)> {
        let at = |socket: &OwnedFd| TcpListener::from(socket.try_clone().ok()?).local_addr().ok();
        let socket = self.one(name, |socket| at(socket).is_some_and(|at| suits(at, wanted)))?;
        let at = at(&socket)?;
        Some((socket, at))
    }

    /// What serve had, for want of what it is to have: without any, nobody could ask what is wrong.
    pub fn api(&mut self, error: Error) -> Result<(OwnedFd, SocketAddr), Error> {
        let Some(socket) = self.one("api", |_| true) else {
            return Err(error);
        };
        warn!("{}: the API stays where it is", chain(&error));
        let at = TcpListener::from(socket.try_clone().map_err(|source| Error::Replace { source })?);
        let at = at.local_addr().map_err(|source| Error::Replace { source })?;
        Ok((socket, at))
    }

    /// For tests: sockets by name, as if of a supervisor before.
    #[cfg(test)]
    pub fn of(sockets: Vec<(String, OwnedFd)>) -> Self {
        Self {
            sockets,
            roles: Vec::new(),
        }
    }

    pub fn udp(&mut self, name: &str, wanted: SocketAddr) -> Option<OwnedFd> {
        let at = |socket: &OwnedFd| UdpSocket::from(socket.try_clone().ok()?).local_addr().ok();
        self.one(name, |socket| at(socket).is_some_and(|at| suits(at, wanted)))
    }

    pub fn local(&mut self, name: &str) -> Option<OwnedFd> {
        self.one(name, |_| true)
    }

    pub fn role(&mut self, name: &str) -> Option<Pid> {
        let index = self.roles.iter().position(|(own, _)| own == name)?;
        Pid::from_raw(self.roles.swap_remove(index).1)
    }
}

/// A free port was wanted, and one was found: it is as good now.
fn suits(at: SocketAddr, wanted: SocketAddr) -> bool {
    at == wanted || (wanted.port() == 0 && at.ip() == wanted.ip())
}

/// The roles that run, by name, and how many of the supervisor before this one have not ended yet.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<Roles>>);

#[derive(Debug, Default)]
struct Roles {
    running: Vec<(String, i32)>,
    leaving: usize,
}

impl Running {
    pub fn set(&self, role: &str, pid: Option<u32>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.running.retain(|(name, _)| name != role);
        held.running.extend(pid.map(|pid| (role.to_owned(), pid as i32)));
    }

    pub fn all(&self) -> Vec<(String, i32)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .running
            .clone()
    }

    /// Counts those that leave, and says how many there are.
    pub fn leaving(&self, change: isize) -> usize {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.leaving = held.leaving.saturating_add_signed(change);
        held.leaving
    }
}

/// Becomes the program that was asked for. Comes back only when that cannot be.
pub fn become_next(data: &Data, sockets: &[(&'static str, OwnedFd)], running: &Running) -> std::io::Error {
    // The next one would not know of them.
    if running.leaving(0) > 0 {
        return std::io::Error::other("roles are still being exchanged: ask again in half a minute");
    }
    let asked = std::fs::read_to_string(asked_for(data));
    let program = match asked {
        Ok(path) => PathBuf::from(path),
        Err(error) => return error,
    };
    let mut left = Left {
        process: std::process::id(),
        sockets: Vec::new(),
        roles: running.all(),
    };
    for (name, socket) in sockets {
        if let Err(error) = fcntl_setfd(socket, FdFlags::empty()) {
            return error.into();
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
        left.sockets.push(((*name).to_owned(), fd));
    }
    let text = serde_json::to_string(&left).expect("names and numbers are plain data");
    let mut next = Command::new(program);
    let error = next.args(std::env::args_os().skip(1)).env(VARIABLE, text).exec();
    for (_, socket) in sockets {
        // Roles that are started again must not have more than is theirs.
        let _ = fcntl_setfd(socket, FdFlags::CLOEXEC);
    }
    error
}

/// Ends a role of the supervisor before, which was counted among those that leave. Its successor may begin when this comes back; what is under way there goes on
/// for as long as `grace`.
pub async fn give_way(role: &str, pid: Pid, doors: Option<&Path>, grace: Duration, running: &Running) {
    let _ = kill_process(pid, Signal::TERM);
    let (until, running) = (Instant::now() + grace, running.clone());
    let ended = tokio::spawn(async move {
        reap(pid, until).await;
        running.leaving(-1);
    });
    match doors {
        None => {
            let _ = ended.await;
        }
        // A second one would have it shut its successor's.
        Some(socket) => {
            while !ended.is_finished() && std::os::unix::net::UnixStream::connect(socket).is_ok() {
                sleep(LOOK_EVERY).await;
            }
        }
    }
    tracing::info!(role, "{role} gives way");
}

async fn reap(pid: Pid, until: Instant) {
    let mut killed = false;
    while matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)) {
        if Instant::now() > until && !killed {
            warn!(pid = pid.as_raw_pid(), "a role did not end in time, killing it");
            let _ = kill_process(pid, Signal::KILL);
            killed = true;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Written whenever all roles have been started and answer.
pub fn ready_at(data: &Data) -> camino::Utf8PathBuf {
    data.run().join("up.ready")
}

fn asked_for(data: &Data) -> camino::Utf8PathBuf {
    data.run().join("next")
}

/// `vend up --replace`: has the supervisor of this directory go on as this program, and waits until it does.
pub async fn replace(data: &Data) -> Result<(), Error> {
    let wrong = |source| Error::Replace { source };
    if !super::is_running(data) {
        return Err(Error::NotRunning(data.0.clone()));
    }
    // What the new program cannot read or open would leave the platform without a supervisor.
    let platform = Platform::load(&data.platform_toml())?;
    let lock = std::fs::read_to_string(data.run().join("up.lock")).map_err(wrong)?;
    let pid = lock.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::NotRunning(data.0.clone()))?;
    if !listens(pid) {
        return Err(Error::TooOld(data.0.clone()));
    }
    can_listen(&platform, data, pid)?;
    let program = std::env::current_exe().map_err(wrong)?;
    std::fs::write(asked_for(data), program.as_os_str().as_encoded_bytes()).map_err(wrong)?;
    let begun = std::time::SystemTime::from(crate::clock::now());
    kill_process(pid, Signal::USR2).map_err(|error| wrong(error.into()))?;
    let until = Instant::now() + READY_WITHIN;
    while Instant::now() < until && test_kill_process(pid).is_ok() {
        let ready = std::fs::metadata(ready_at(data)).and_then(|file| file.modified());
        if ready.is_ok_and(|ready| ready > begun) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(Error::NotReplaced(data.0.clone()))
}

/// Are the addresses free that the platform does not have yet?
fn can_listen(platform: &Platform, data: &Data, pid: Pid) -> Result<(), Error> {
    let Some(now) = super::endpoints(data) else {
        return Ok(());
    };
    let command = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    let picks = command
        .split(|byte| *byte == 0)
        .any(|word| word == b"--pick-ports");
    let mut wanted: Vec<(SocketAddr, &[SocketAddr])> = Vec::new();
    if !picks {
        wanted.push((platform.listen.http, std::slice::from_ref(&now.http)));
        wanted.push((platform.listen.api, std::slice::from_ref(&now.api)));
    }
    wanted.extend(platform.listen.https.map(|https| (https, now.https.as_slice())));
    wanted.extend(
        platform
            .dns
            .listen
            .iter()
            .map(|names| (*names, now.dns.as_slice())),
    );
    for (address, has) in wanted {
        if has.iter().any(|at| suits(*at, address)) {
            continue;
        }
        let names = platform.dns.listen.contains(&address);
        let free =
            TcpListener::bind(address).and_then(|_| names.then(|| UdpSocket::bind(address)).transpose());
        free.map_err(|source| Error::Listen {
            address: address.to_string(),
            source,
        })?;
    }
    Ok(())
}

/// Does the supervisor take the signal that asks it? It would end one that does not.
fn listens(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    caught.is_some_and(|caught| caught & (1 << (Signal::USR2.as_raw() - 1)) != 0)
}
