//! Requests under way at hosts that get no new ones.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::HostId;
use store::{Db, Error, Host, HostState};
use tokio::time::{Instant, sleep, timeout};

use super::routes;
use crate::flow::World;

const LOOK: Duration = Duration::from_millis(50);
/// The load balancer is asked more and more seldom up to this.
const SELDOM: Duration = Duration::from_millis(200);
/// Who looks after all hosts does not wait for longer for its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hosts that answer somebody just now, as far as the load balancer says.
pub struct Busy(Option<BTreeSet<String>>);

impl Busy {
    pub async fn look(world: &World) -> Self {
        let asked = timeout(PATIENCE, world.edge.health()).await;
        Self(asked.ok().and_then(Result::ok).map(|seen| {
            let busy = seen.into_iter().filter(|seen| seen.active > 0);
            busy.map(|seen| seen.target.id).collect()
        }))
    }

    /// As long as nobody has looked.
    pub fn unknown() -> Self {
        Self(None)
    }

    #[cfg(test)]
    pub fn of(hosts: &[HostId]) -> Self {
        Self(Some(hosts.iter().map(HostId::to_string).collect()))
    }

    /// A load balancer that does not answer now may still be busy with all.
    pub fn has(&self, host: &HostId) -> bool {
        self.0.as_ref().is_none_or(|busy| busy.contains(host.as_str()))
    }

    /// How long a host that leaves the traffic now has for what it was asked before. One that failed, or was to get
    /// another release, left it when it changed, and may have served until then. One that is ready has visitors already where
    /// its release is live, or wakes.
    pub fn time(&self, db: &Db<'_>, host: &Host, now: Timestamp) -> Result<SignedDuration, Error> {
        let all = || routes::delay(db, &host.place, host.release);
        Ok(match host.state {
            HostState::Serving | HostState::Kept => all()?,
            HostState::Ready if self.has(&host.id) => all()?,
            HostState::Failed | HostState::Updating if self.has(&host.id) => {
                let had = now.duration_since(host.changed_at);
                all()?.saturating_sub(had).max(SignedDuration::ZERO)
            }
            _ => SignedDuration::ZERO,
        })
    }
}

/// Waits until no request is under way at hosts that have left the routes, for as long as requests have.
pub async fn finish(world: &World, hosts: &[HostId], most: SignedDuration) {
    let end = Instant::now() + most.unsigned_abs();
    let mut pause = LOOK;
    while Instant::now() < end {
        let busy = Busy::look(world).await;
        if !hosts.iter().any(|host| busy.has(host)) {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(SELDOM);
    }
}
