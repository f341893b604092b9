//! What every role does first: take the sockets that were lent to it, and end with its supervisor.

use std::{
    net::{TcpListener, UdpSocket},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Sockets lent by the supervisor or by systemd, by name.
#[derive(Debug, Default)]
pub struct Lent(Vec<(String, OwnedFd)>);

impl Lent {
    /// Takes the sockets as sd_listen_fds(3) describes: descriptors from 3, names in `LISTEN_FDNAMES`, for whom
    /// `LISTEN_PID` says, or for whoever is started where it says nothing.
    /// Must be called once, before any thread is started.
    pub fn take() -> Self {
        if std::env::var_os("VEND_SUPERVISED").is_some() {
            // A role without a supervisor would hold sockets and locks that the next one needs.
            if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
                tracing::warn!(%error, "this role will not end with its supervisor");
            }
        }
        let said = |name: &str| std::env::var(name).ok();
        // systemd says whom it means: a child of whoever was meant has none of these sockets.
        let meant = said("LISTEN_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let count = said("LISTEN_FDS").filter(|_| meant);
        let count: i32 = count.and_then(|count| count.parse().ok()).unwrap_or(0);
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        Self(
            (0..count.clamp(0, 64))
                .map(|index| (names.next().unwrap_or_default(), owned(3 + index)))
                .collect(),
        )
    }

    /// For tests: sockets by name.
    #[cfg(test)]
    pub fn of(sockets: Vec<(String, OwnedFd)>) -> Self {
        Self(sockets)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn one(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.0.iter().position(|(own, _)| own == name)?;
        Some(self.0.swap_remove(index).1)
    }

    pub fn tcp(&mut self, name: &str) -> Option<TcpListener> {
        self.one(name).map(TcpListener::from)
    }

    pub fn udp(&mut self, name: &str) -> Option<UdpSocket> {
        self.one(name).map(UdpSocket::from)
    }

    pub fn unix(&mut self, name: &str) -> Option<UnixListener> {
        self.one(name).map(UnixListener::from)
    }
}

#[allow(unsafe_code)]
pub fn owned(fd: i32) -> OwnedFd {
    // SAFETY: by the LISTEN_FDS protocol, or by the program that this process was, these descriptors were opened for
    // this process and nobody else in it has taken them: both are read once, first thing.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    // Whatever this role starts must not hold the platform's sockets.
    if let Err(error) = rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC) {
        tracing::warn!(%error, fd, "cannot keep a lent socket from being inherited");
    }
    owned
}
