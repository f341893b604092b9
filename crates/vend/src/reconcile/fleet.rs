//! Hosts as the catalogue says: retired when their time has come, replaced when they died, removed when nobody knows
//! them.
//!
//! Each is stopped by itself: apps that take their time to end keep nobody else's from being replaced.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::{
    HostId, Place,
    port::{Fault, HostRole, HostSeen, HostState as Seen, Hosts as _},
};
use store::{By, HostState};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::stops::{Stop, Stops};
use super::{patience, requests::Busy};
use crate::flow::{World, start, stored};

mod stops;

const EVERY: Duration = Duration::from_secs(3);
/// A fleet is brought to its size at most this often; one that cannot be, more and more seldom (see `patience`).
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// A host whose processes run and whose agent says nothing may be busy: so long it is not taken for dead.
const SILENCE: SignedDuration = SignedDuration::from_secs(15);
/// When no agent of the whole machine says anything, it is the machine that is busy: replacing all would make it busier.
const SILENCE_OF_ALL: SignedDuration = SignedDuration::from_secs(90);

/// The reason of a host that was to run and does not: whoever deploys meanwhile counts it as one that failed.
pub const DIED: &str = "it died";

/// What is remembered from look to look. Nothing is lost with it but patience.
#[derive(Default)]
struct Memory {
    /// When a fleet was last brought to its size.
    tried: HashMap<Place, Timestamp>,
    /// Since when a host that runs says nothing.
    silent: HashMap<HostId, Timestamp>,
    stops: Stops,
}

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let mut memory = Memory::default();
    let mut failed = false;
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            let done = once(&world, &mut memory).await;
            match &done {
                Ok(()) => {}
                // The roles start side by side: that the node does not answer the first time says nothing yet.
                Err(fault) if !failed => debug!("hosts could not be looked after: {fault}"),
                Err(fault) => warn!("hosts could not be looked after: {fault}"),
            }
            failed = done.is_err();
            next = Instant::now() + EVERY;
        }
        memory.stops.begin(|stop| stop.run(Arc::clone(&world)));
        tokio::select! {
            () = cancel.cancelled() => return,
            () = world.pokes.fleet.notified() => next = Instant::now(),
            () = sleep_until(next) => {}
            _ = memory.stops.ended() => {}
        }
    }
}

async fn once(world: &World, memory: &mut Memory) -> Result<(), Fault> {
    retire(world, &mut memory.stops).await?;
    let standing = || world.store.read(|db| db.standing_hosts(None));
    // A host is only dead when it was wanted before it was looked for, and nobody's when it is in no row afterwards.
    let before = standing().await.map_err(stored)?;
    let seen = world.node.list().await?;
    let rows = standing().await.map_err(stored)?;
    memory.stops.know(&seen);
    for stray in seen
        .iter()
        .filter(|seen| rows.iter().all(|row| row.id != seen.host))
    {
        // Rows are written before hosts are started: a host without a row is a left-over.
        let id = stray.host.clone();
        let known = world
            .store
            .read(move |db| Ok(db.host(&id).is_ok_and(|host| host.state != HostState::Retired)));
        if !known.await.map_err(stored)? {
            info!(host.id = %stray.host, "host {} belongs to nobody: removing it", stray.host);
            memory.stops.ask(Stop::of_nobody(stray));
        }
    }
    mark_dead(world, &before, &seen, memory).await?;
    resize(world, memory).await
}

/// Hosts whose time has come leave the routes first, and are stopped when requests under way have had their time.
async fn retire(world: &World, stops: &mut Stops) -> Result<(), Fault> {
    let now = crate::clock::now();
    let store = &world.store;
    let found = store.read(move |db| {
        let due = db.hosts_to_retire(now)?;
        let leave = due.iter().any(|host| host.state != HostState::Draining) || !left(db)?.is_empty();
        Ok((leave, !due.is_empty()))
    });
    let busy = match found.await.map_err(stored)? {
        (true, _) => Busy::look(world).await,
        (false, true) => Busy::unknown(),
        (false, false) => return Ok(()),
    };
    let due = store
        .write(move |tx| drain(tx, now, &busy))
        .await
        .map_err(stored)?;
    if due.left_routes {
        world.routes.apply().await?;
    }
    for host in due.drained {
        let reason = host.reason.clone().unwrap_or_else(|| REASON.to_owned());
        stops.ask(Stop::of(host, &reason));
    }
    Ok(())
}

const REASON: &str = "its time has come";

struct Due {
    /// Hosts that get no traffic any more, and whose time is over.
    drained: Vec<store::Host>,
    left_routes: bool,
}

/// Decided and written in one transaction: a rollback may want a kept host in the same moment.
fn drain(tx: &mut store::Tx<'_>, now: Timestamp, busy: &Busy) -> Result<Due, store::Error> {
    let by = By::platform(now);
    let mut left_routes = false;
    for host in left(tx)? {
        let delay = busy.time(tx, &host, now)?;
        tx.set_host_state(&host.id, HostState::Draining, Some(LEFT), &by)?;
        tx.set_host_retirement(&host.id, Some(now + delay))?;
        left_routes = true;
    }
    let (drained, kept): (Vec<_>, Vec<_>) = tx
        .hosts_to_retire(now)?
        .into_iter()
        .partition(|host| host.state == HostState::Draining);
    for host in kept {
        // An execution may be about to use what is kept.
        if !tx.is_busy(&host.place)? {
            tx.set_host_state(&host.id, HostState::Draining, Some(REASON), &by)?;
            tx.set_host_retirement(&host.id, Some(now + busy.time(tx, &host, now)?))?;
            left_routes = true;
        }
    }
    Ok(Due { drained, left_routes })
}

/// The reason of a host that nothing is to be done with any more.
const LEFT: &str = "its execution ended without it";

/// Hosts that an execution left behind which ended in the middle: half made, or serving a release that is not live. Not
/// where anything is under way, nor those that serve while the live release has nobody who does: it gets its own first.
fn left(db: &store::Db<'_>) -> Result<Vec<store::Host>, store::Error> {
    let mut left = Vec::new();
    for host in db.unsettled_hosts()? {
        let is_needed = match host.state {
            HostState::Serving => lacks_hosts(db, &host.place)?,
            _ => false,
        };
        if !is_needed && !db.is_busy(&host.place)? {
            left.push(host);
        }
    }
    Ok(left)
}

/// Is there a live release that is to have hosts here, and none of them serves?
pub fn lacks_hosts(db: &store::Db<'_>, place: &Place) -> Result<bool, store::Error> {
    let environment = db.environment(place)?;
    let Some(live) = environment.live.filter(|_| environment.asleep_at.is_none()) else {
        return Ok(false);
    };
    let mut hosts = db.hosts_of_release(place, live)?.into_iter();
    let serves = hosts.any(|host| host.state == HostState::Serving);
    Ok(!serves && db.release(place, live)?.content.spec.placement.is_none())
}

/// What a look at a host says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Well,
    /// It runs, and its agent does not answer.
    Silent,
    Gone,
}

fn life(seen: Option<&HostSeen>) -> Life {
    match seen {
        Some(seen) if seen.state != Seen::Running => Life::Gone,
        Some(seen) if seen.configured => Life::Well,
        // It answers, and has lost its memory.
        Some(seen) if seen.disk_bytes.is_some() => Life::Gone,
        Some(_) => Life::Silent,
        None => Life::Gone,
    }
}

fn should_run(state: HostState) -> bool {
    matches!(state, HostState::Ready | HostState::Serving | HostState::Kept)
}

/// The hosts that should run and do not. `silent` is brought up to date.
fn dead<'r>(
    rows: &'r [store::Host],
    seen: &[HostSeen],
    silent: &mut HashMap<HostId, Timestamp>,
    now: Timestamp,
) -> Vec<&'r store::Host> {
    let mut still = HashMap::new();
    let mut dead = Vec::new();
    let patience = match seen.iter().any(|seen| life(Some(seen)) == Life::Well) {
        true => SILENCE,
        false => SILENCE_OF_ALL,
    };
    for row in rows {
        if row.role != HostRole::App || !should_run(row.state) {
            continue;
        }
        match life(seen.iter().find(|seen| seen.host == row.id)) {
            Life::Well => {}
            Life::Gone => dead.push(row),
            Life::Silent => {
                let since = silent.get(&row.id).copied().unwrap_or(now);
                if now.duration_since(since) >= patience {
                    dead.push(row);
                } else {
                    still.insert(row.id.clone(), since);
                }
            }
        }
    }
    *silent = still;
    dead
}

/// A host that should run and does not is failed; whatever serves without it is told so.
async fn mark_dead(
    world: &World,
    rows: &[store::Host],
    seen: &[HostSeen],
    memory: &mut Memory,
) -> Result<(), Fault> {
    let mut dead = Vec::new();
    for host in self::dead(rows, seen, &mut memory.silent, crate::clock::now()) {
        let (id, by) = (host.id.clone(), By::platform(crate::clock::now()));
        let failed = world.store.write(move |tx| {
            // Whoever deploys to it or stops it meanwhile knows better.
            if !should_run(tx.host(&id)?.state) {
                return Ok(false);
            }
            tx.set_host_state(&id, HostState::Failed, Some(DIED), &by)?;
            Ok(true)
        });
        if failed.await.map_err(stored)? {
            warn!(host.id = %host.id, "host {} of {} died", host.id, host.place);
            dead.push(host);
        }
    }
    if !dead.is_empty() {
        world.routes.apply().await?;
    }
    for host in dead {
        // It is failed: what cannot be removed now is removed with what executions left.
        memory.stops.ask(Stop::of(host.clone(), DIED));
    }
    Ok(())
}

/// Starts an execution for every environment whose live release has fewer or more hosts than it is to have, or whose
/// database does not run. Not while hosts of it are being stopped: it would take them for its own.
async fn resize(world: &World, memory: &mut Memory) -> Result<(), Fault> {
    let environments = world
        .store
        .read(|db| db.environments(None))
        .await
        .map_err(stored)?;
    let seen = world.node.list().await?;
    let now = crate::clock::now();
    for environment in environments {
        let patient = memory
            .tried
            .get(&environment.place)
            .is_some_and(|at| now.duration_since(*at) < PATIENCE);
        if patient || memory.stops.hold(&environment.place) || is_whole(world, &environment, &seen).await? {
            continue;
        }
        let place = environment.place.clone();
        let failing = world.store.read(move |db| patience::failing(db, &place));
        if failing
            .await
            .map_err(stored)?
            .is_some_and(|failing| now < failing.next)
        {
            continue;
        }
        let by = By::platform(now);
        if start::resize(world, &environment.place, patience::HEAL, by)
            .await
            .map_err(stored)?
        {
            info!(
                "{} has not the number of hosts that it is to have",
                environment.place
            );
            memory.tried.insert(environment.place, now);
        }
    }
    Ok(())
}

/// Has it what it is to have, or nothing that it could have? `before` was read before the hosts were looked for. A
/// release may have gone live since then: what it is to have is read together with what it has.
async fn is_whole(world: &World, before: &store::Environment, seen: &[HostSeen]) -> Result<bool, Fault> {
    let place = before.place.clone();
    let read = world.store.read(move |db| {
        let Some(environment) = db.find_environment(&place)?.filter(|own| own.asleep_at.is_none()) else {
            return Ok(None);
        };
        let Some(live) = environment.live else {
            return Ok(None);
        };
        let release = db.release(&place, live)?.content;
        Ok(Some((environment, release, db.hosts_of_release(&place, live)?)))
    });
    let Some((environment, release, hosts)) = read.await.map_err(stored)? else {
        return Ok(true);
    };
    let runs = |id: &HostId| {
        let mut seen = seen.iter();
        seen.any(|seen| seen.host == *id && seen.state == Seen::Running)
    };
    let database_is_gone = before.database_ready
        && environment.database_host == before.database_host
        && !environment.database_host.as_ref().is_none_or(runs);
    if release.spec.placement.is_some() {
        return Ok(false);
    }
    let serving = hosts
        .iter()
        .filter(|host| host.state == HostState::Serving)
        .count();
    Ok(!database_is_gone && serving == crate::flow::desired(&environment, &release) as usize)
}

#[cfg(test)]
mod tests;
