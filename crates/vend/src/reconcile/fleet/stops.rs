//! Hosts that are being stopped, beside everything else: an app may take its whole time to end, and has many hosts.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use model::{
    HostId, Place,
    port::{Fault, HostSeen, Hosts as _},
};
use store::Host;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::warn;

use crate::{
    flow::{World, unwind},
    reconcile::turns::Turns,
};

/// A host that is to be stopped.
pub struct Stop {
    host: HostId,
    place: Place,
    /// Its row, and the reason that goes into it. `None`: there is no row.
    row: Option<(Host, String)>,
}

impl Stop {
    pub fn of(host: Host, reason: &str) -> Self {
        Self {
            host: host.id.clone(),
            place: host.place.clone(),
            row: Some((host, reason.to_owned())),
        }
    }

    /// One that nobody knows.
    pub fn of_nobody(seen: &HostSeen) -> Self {
        Self {
            host: seen.host.clone(),
            place: seen.place.clone(),
            row: None,
        }
    }

    /// Has it gone? What cannot be stopped now is found and asked for again.
    pub async fn run(self, world: Arc<World>) -> bool {
        let stopped = self.stop(&world).await;
        if let Err(fault) = &stopped {
            let host = &self.host;
            warn!(host.id = %host, "host {host} could not be stopped: {fault}");
        }
        stopped.is_ok()
    }

    async fn stop(&self, world: &World) -> Result<(), Fault> {
        match &self.row {
            Some((row, reason)) => unwind::retire(world, row, reason).await,
            None => world.node.stop(&self.host).await,
        }
    }
}

/// What is being stopped, and what waits for that. Those that still run end with this.
#[derive(Default)]
pub struct Stops {
    turns: Turns,
    waiting: HashMap<HostId, Stop>,
    running: JoinSet<bool>,
    /// Those of both that have no rows, and where they are.
    places: HashMap<HostId, Place>,
    /// Those that could not be stopped the last time.
    failed: HashSet<HostId>,
}

impl Stops {
    /// A host that is to be stopped, unless it is already.
    pub fn ask(&mut self, stop: Stop) {
        if !self.turns.wait(&stop.host, &stop.place.tenant) {
            return;
        }
        if stop.row.is_none() {
            self.places.insert(stop.host.clone(), stop.place.clone());
        }
        self.waiting.insert(stop.host.clone(), stop);
    }

    /// Is anything of an environment about to go whose address could be given away? One that could not be stopped holds up
    /// nothing any more.
    pub fn hold(&self, place: &Place) -> bool {
        let mut own = self.places.iter();
        own.any(|(host, own)| own == place && !self.failed.contains(host))
    }

    /// What there is; what is not any more is forgotten.
    pub fn know(&mut self, seen: &[HostSeen]) {
        self.failed.retain(|id| seen.iter().any(|seen| seen.host == *id));
    }

    /// Begins to stop those whose turn it is.
    pub fn begin<F: Future<Output = bool> + Send + 'static>(&mut self, run: impl Fn(Stop) -> F) {
        for id in self.turns.next() {
            let stop = self.waiting.remove(&id).expect("who waits was asked for");
            let task = self.running.spawn(run(stop));
            self.turns.begun(&id, task.id());
        }
    }

    /// Waits until some have ended, for ever while none runs. Has one gone?
    pub async fn ended(&mut self) -> bool {
        let Some(first) = self.running.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let mut has_gone = self.note(first);
        while let Some(ended) = self.running.try_join_next_with_id() {
            has_gone |= self.note(ended);
        }
        has_gone
    }

    fn note(&mut self, ended: Result<(Id, bool), JoinError>) -> bool {
        let (task, has_gone) = ended.unwrap_or_else(|broken| (broken.id(), false));
        if let Some(host) = self.turns.ended(task) {
            self.places.remove(&host);
            match has_gone {
                true => self.failed.remove(&host),
                false => self.failed.insert(host),
            };
        }
        has_gone
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use store::HostState;

    use super::*;
    use crate::fixtures;

    fn of(tenant: &str, number: u64) -> Stop {
        let mut host = fixtures::host(number, 1, HostState::Draining);
        host.place.tenant = tenant.parse().unwrap();
        Stop::of(host, "its time has come")
    }

    #[tokio::test]
    async fn apps_that_do_not_end_keep_nobody_else_s_hosts_running_and_are_asked_once() {
        let begun: Arc<Mutex<Vec<HostId>>> = Arc::default();
        let run = |stop: Stop| {
            begun.lock().unwrap().push(stop.host.clone());
            async move {
                match stop.place.tenant.as_str() {
                    "acme" => std::future::pending().await,
                    _ => true,
                }
            }
        };
        let mut stops = Stops::default();
        for number in 1..=100 {
            stops.ask(of("acme", number));
        }
        stops.begin(run);
        let hang = begun.lock().unwrap().len();
        assert!((1..100).contains(&hang));
        // The next look finds all of them again, and one more.
        for number in 1..=100 {
            stops.ask(of("acme", number));
        }
        stops.ask(of("other", 101));
        stops.begin(run);
        assert_eq!(begun.lock().unwrap()[hang..], [HostId::from_bits(101)]);
        assert!(stops.ended().await);
    }

    #[tokio::test]
    async fn what_cannot_be_stopped_is_asked_again_and_holds_up_nothing_then() {
        let mut stops = Stops::default();
        let nobodys = || Stop {
            row: None,
            ..of("acme", 1)
        };
        let place = nobodys().place;
        let mut again = async |goes: bool| {
            stops.ask(nobodys());
            let held = stops.hold(&place);
            stops.begin(|_| std::future::ready(goes));
            assert_eq!(stops.ended().await, goes);
            assert!(!stops.hold(&place));
            held
        };
        assert!(again(false).await);
        assert!(!again(false).await);
        assert!(!again(true).await);
        assert!(again(false).await);
        // Somebody else has stopped it.
        stops.know(&[]);
        stops.ask(nobodys());
        assert!(stops.hold(&place));
        // An address that a row has is nobody else's.
        stops.ask(of("other", 2));
        assert!(!stops.hold(&of("other", 2).place));
    }
}
