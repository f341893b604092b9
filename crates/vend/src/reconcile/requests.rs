//! Requests under way at hosts that get no new ones.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::HostId;
use store::{Db, Error, Host, HostState};
use tokio::time::{Instant, sleep};

use super::routes;
use crate::flow::World;

const LOOK: Duration = Duration::from_millis(50);

/// Hosts that answer somebody just now, as far as the load balancer says.
pub struct Busy(Option<BTreeSet<String>>);

impl Busy {
    pub async fn look(world: &World) -> Self {
        let seen = world.edge.health().await.ok();
        Self(seen.map(|seen| {
            let busy = seen.into_iter().filter(|seen| seen.active > 0);
            busy.map(|seen| seen.target.id).collect()
        }))
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
    /// another release, left it when it changed, and may have served until then.
    pub fn time(&self, db: &Db<'_>, host: &Host, now: Timestamp) -> Result<SignedDuration, Error> {
        let all = || routes::delay(db, &host.place, host.release);
        Ok(match host.state {
            HostState::Serving | HostState::Kept => all()?,
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
    while Instant::now() < end {
        let busy = Busy::look(world).await;
        if !hosts.iter().any(|host| busy.has(host)) {
            return;
        }
        sleep(LOOK).await;
    }
}
