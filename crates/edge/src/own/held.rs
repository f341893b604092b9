//! What people and others see of the sockets that the edge opens itself, and how long it waits until it tries again.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Key;
use crate::metrics;

/// The place of a socket that no rule has for itself.
pub const ALL: &str = "every rule";

/// A socket that the edge opens itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSeen {
    pub address: SocketAddr,
    /// `http`, `https`, `tcp`, `udp`, `sni` or `dns`.
    pub speaks: String,
    pub hosts: Vec<String>,
    /// The rule's; `every rule` when it is a listener that all share.
    pub place: String,
    /// Why nothing can be had there.
    pub problem: Option<String>,
}

impl OwnSeen {
    /// Is it one that all share?
    pub fn is_shared(&self) -> bool {
        self.place == ALL
    }
}

/// What the keepers of the sockets and of the table share with people.
#[derive(Default)]
pub struct Held {
    /// Rules with sockets of their own have come or gone.
    pub changed: Notify,
    seen: Mutex<Vec<OwnSeen>>,
    /// Of the name server, which opens its sockets itself.
    names: Mutex<BTreeMap<SocketAddr, OwnSeen>>,
    /// The open ones, once more.
    open: Mutex<Vec<(Key, OwnedFd)>>,
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// What is open, to be left to the next edge.
    pub fn take(&self) -> Vec<(Key, OwnedFd)> {
        std::mem::take(&mut lock(&self.open))
    }

    pub fn keep(&self, open: Vec<(Key, OwnedFd)>, seen: Vec<OwnSeen>) {
        *lock(&self.open) = open;
        *lock(&self.seen) = seen;
    }

    /// What is known of a socket for names.
    pub fn note(&self, name: OwnSeen) {
        lock(&self.names).insert(name.address, name);
    }

    pub fn seen(&self) -> Vec<OwnSeen> {
        let names = lock(&self.names).values().cloned().collect();
        [names, lock(&self.seen).clone()].concat()
    }

    /// How many cannot be opened.
    pub fn closed(&self) -> u32 {
        let closed = |seen: &&OwnSeen| seen.problem.is_some();
        let names = lock(&self.names).values().filter(closed).count();
        (names + lock(&self.seen).iter().filter(closed).count()) as u32
    }

    /// As Prometheus text.
    pub fn write(&self, out: &mut String) {
        metrics::single(
            out,
            "vend_edge_sockets_unbound",
            "Sockets at which nothing can be had, as `vend edge sockets` says why.",
            self.closed().into(),
        );
    }
}

/// Says once in the log what cannot be had, and when it can.
#[derive(Default)]
pub struct Told(HashMap<Key, String>);

impl Told {
    pub fn tell(&mut self, key: Key, seen: &OwnSeen) {
        let OwnSeen {
            address,
            speaks,
            place,
            problem,
            ..
        } = seen;
        match (problem, self.0.get(&key)) {
            (Some(problem), before) if before != Some(problem) => {
                tracing::error!(
                    %address, speaks, place, problem,
                    "cannot listen at {address} ({speaks}): {problem}; it is tried again"
                );
                self.0.insert(key, problem.clone());
            }
            (None, Some(_)) => {
                tracing::info!(%address, speaks, place, "listening at {address} ({speaks}) now");
                self.0.remove(&key);
            }
            _ => {}
        }
    }

    /// Nobody wants these any more.
    pub fn forget(&mut self, gone: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| !gone(key));
    }
}

/// How long to wait until it is tried again: twice as long each time.
pub struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_millis(250))
    }
}

impl Patience {
    /// Who frees a port waits no longer than this until it is taken.
    const MOST: Duration = Duration::from_secs(15);

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.grow();
    }

    fn grow(&mut self) {
        self.0 = (self.0 * 2).min(Self::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(port: u16, problem: Option<&str>) -> OwnSeen {
        OwnSeen {
            address: ([127, 0, 0, 1], port).into(),
            speaks: "dns".into(),
            hosts: Vec::new(),
            place: ALL.into(),
            problem: problem.map(Into::into),
        }
    }

    #[test]
    fn what_is_closed_is_counted_until_it_is_open() {
        let held = Held::default();
        held.note(name(53, Some("in use")));
        held.keep(Vec::new(), vec![name(80, None), name(443, Some("in use"))]);
        assert_eq!((held.closed(), held.seen().len()), (2, 3));
        let mut out = String::new();
        held.write(&mut out);
        assert!(out.ends_with("vend_edge_sockets_unbound 2\n"), "{out}");
        held.note(name(53, None));
        assert_eq!(held.closed(), 1);
    }

    #[test]
    fn it_is_tried_less_and_less_often_but_never_given_up() {
        let mut patience = Patience::default();
        let waits = std::array::from_fn(|_| {
            let wait = patience.0.as_millis();
            patience.grow();
            wait
        });
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
    }
}
