//! Who waits for children. PID 1 inherits every orphan of the host, so one place waits for all processes and tells
//! those who supervise one; nothing else in the agent may call wait, and `tokio::process` is not used at all.

use std::{
    collections::HashMap,
    fmt, io,
    os::fd::OwnedFd,
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, wait, waitpid},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It was gone before anybody could ask.
    Unknown,
}

impl Exit {
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// As a shell gives it.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Unknown => 255,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// Which processes to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All: for PID 1, or a child subreaper.
    Everything,
    /// Those that were started through the reaper: for a process that has other children too.
    Own,
}

#[derive(Clone)]
pub struct Reaper {
    scope: Scope,
    waiting: Arc<Mutex<HashMap<i32, oneshot::Sender<Exit>>>>,
    /// Who waits for processes that are not this one's children.
    strangers: Arc<Mutex<JoinSet<()>>>,
}

impl Reaper {
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            waiting: Arc::default(),
            strangers: Arc::default(),
        }
    }

    /// Starts a process. Nobody can reap it before its end is awaited: the lock is held over both.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, oneshot::Receiver<Exit>)> {
        let mut waiting = self.lock();
        let child = command.spawn()?;
        let (sender, exit) = oneshot::channel();
        waiting.insert(child.id().cast_signed(), sender);
        Ok((child, exit))
    }

    /// The end of a process that somebody else started: a daemon that left its starter, or what an agent ran that is gone.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, exit) = oneshot::channel();
        let mut waiting = self.lock();
        match (self.scope, Pid::from_raw(pid)) {
            (Scope::Everything, Some(own)) if rustix::process::test_kill_process(own) != Err(Errno::SRCH) => {
                waiting.insert(pid, sender);
            }
            (Scope::Own, Some(own)) => match waitpid(Some(own), WaitOptions::NOHANG) {
                Ok(None) => drop(waiting.insert(pid, sender)),
                // Whoever asked may have left.
                Ok(Some((_, status))) => drop(sender.send(status.into())),
                Err(_) => self.follow(own, sender),
            },
            _ => drop(sender.send(Exit::Unknown)),
        }
        exit
    }

    /// Waits for a process of somebody else. How it ended only its parent is told.
    fn follow(&self, pid: Pid, sender: oneshot::Sender<Exit>) {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            let _ = sender.send(Exit::Unknown);
            return;
        };
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        while strangers.try_join_next().is_some() {}
        strangers.spawn(async move {
            // What cannot be waited for is taken as ended: its supervisor ends what is left of it.
            if let Some(process) = watched(process) {
                let _ = process.readable().await;
            }
            let _ = sender.send(Exit::Unknown);
        });
    }

    /// Does somebody wait for this process?
    pub fn knows(&self, pid: i32) -> bool {
        self.lock().contains_key(&pid)
    }

    /// Waits for children for ever.
    pub async fn run(self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        self.reap();
        while children.recv().await.is_some() {
            self.reap();
        }
        Ok(())
    }

    /// Waits for all that ended by now.
    fn reap(&self) {
        let mut waiting = self.lock();
        match self.scope {
            Scope::Everything => {
                // Of every process group: services have groups of their own.
                while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                    if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                        let _ = sender.send(status.into());
                    }
                }
            }
            Scope::Own => {
                let ended: Vec<(i32, Exit)> = waiting.keys().filter_map(|pid| ended(*pid)).collect();
                for (pid, exit) in ended {
                    if let Some(sender) = waiting.remove(&pid) {
                        let _ = sender.send(exit);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Exit>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(unsafe_code)]
fn watched(process: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: what is given stays open, and the same file, for as long as it is held.
    unsafe { AsyncFd::register_with_interest(process, Interest::READABLE).ok() }
}

fn ended(pid: i32) -> Option<(i32, Exit)> {
    match waitpid(Pid::from_raw(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some((pid, status.into())),
        Err(Errno::CHILD) => Some((pid, Exit::Unknown)),
        _ => None,
    }
}
