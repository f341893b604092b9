//! The first process of a container: who it is for sure, when it ends, and how.

use std::{fs, os::fd::OwnedFd, sync::Arc};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch as channel;

use super::watch;

/// A process id that cannot be mistaken for a later one's, also after a restart of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    pub pid: u32,
    /// Clock ticks since the machine started.
    start: u64,
    boot: String,
}

impl Birth {
    /// Of a process that runs now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start: start_of(pid)?,
            boot: boot()?,
        })
    }

    pub fn is_running(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// `proc_pid_stat(5)`, field 22; `None` for a process that has ended but was not waited for.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X"))
        .then(|| fields.nth(18)?.parse().ok())
        .flatten()
}

fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// A running first process.
#[derive(Debug, Clone)]
pub struct Life {
    process: Arc<OwnedFd>,
    /// 128 + the signal's number when a signal ended it; `Some(None)` when only its new parent learnt how it ended.
    ended: channel::Receiver<Option<Option<i32>>>,
}

impl Life {
    /// Watches the process from now on, and waits for it when it is a child, so that it does not stay a zombie.
    pub fn watch(birth: &Birth) -> std::io::Result<Self> {
        let pid = i32::try_from(birth.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| std::io::Error::other("not a process id"))?;
        let process = Arc::new(pidfd_open(pid, PidfdFlags::NONBLOCK)?);
        if !birth.is_running() && Birth::of(birth.pid).is_some() {
            return Err(std::io::Error::other("the process id is another's by now"));
        }
        let (sender, ended) = channel::channel(None);
        let waited = watch::register(process.clone())?;
        // Ends with the process.
        tokio::spawn(async move {
            let _ = waited.readable().await;
            sender.send_replace(Some(reap(waited.get_ref())));
        });
        Ok(Self { process, ended })
    }

    /// A process that has ended is signalled.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        match pidfd_send_signal(&*self.process, signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> Option<i32> {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.flatten(),
            Err(_) => None,
        }
    }
}

fn reap(process: &OwnedFd) -> Option<i32> {
    use std::os::fd::AsFd as _;
    let status = waitid(
        WaitId::PidFd(process.as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    )
    .ok()??;
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(
        clippy::zombie_processes,
        reason = "that it is waited for elsewhere is what is tested"
    )]
    async fn learns_how_a_child_ended() {
        let child = std::process::Command::new("sh")
            .args(["-c", "sleep 0.05; exit 3"])
            .spawn()
            .unwrap();
        let birth = Birth::of(child.id()).unwrap();
        assert!(birth.is_running());
        let mut life = Life::watch(&birth).unwrap();
        assert_eq!(life.end().await, Some(3));
        assert_eq!(life.end().await, Some(3));
        assert!(!birth.is_running());
        life.signal(Signal::TERM).unwrap();
    }
}
