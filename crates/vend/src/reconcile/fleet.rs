//! Hosts as the catalogue says: retired when their time has come, replaced when they died, removed when nobody knows
//! them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use model::{
    HostId, Place,
    port::{Fault, HostRole, HostSeen, HostState as Seen, Hosts as _},
};
use store::{By, HostState};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{patience, routes};
use crate::flow::{World, start, stored, unwind};

const EVERY: Duration = Duration::from_secs(3);
/// A fleet is brought to its size at most this often; one that cannot be, more and more seldom (see `patience`).
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let mut tried: HashMap<Place, Timestamp> = HashMap::new();
    let mut failed = false;
    loop {
        let done = once(&world, &mut tried).await;
        match &done {
            Ok(()) => {}
            // The roles start side by side: that the node does not answer the first time says nothing yet.
            Err(fault) if !failed => debug!("hosts could not be looked after: {fault}"),
            Err(fault) => warn!("hosts could not be looked after: {fault}"),
        }
        failed = done.is_err();
        tokio::select! {
            () = cancel.cancelled() => return,
            () = world.pokes.fleet.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

async fn once(world: &World, tried: &mut HashMap<Place, Timestamp>) -> Result<(), Fault> {
    retire(world).await?;
    let seen = world.node.list().await?;
    let rows = world
        .store
        .read(|db| db.standing_hosts(None))
        .await
        .map_err(stored)?;
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
            if let Err(fault) = world.node.stop(&stray.host).await {
                warn!(host.id = %stray.host, "host {} could not be removed: {fault}", stray.host);
            }
        }
    }
    mark_dead(world, &rows, &seen).await?;
    clear(world).await?;
    resize(world, tried).await
}

/// Hosts whose time has come leave the routes first, and are stopped when requests under way have had their time.
async fn retire(world: &World) -> Result<(), Fault> {
    let now = crate::clock::now();
    let due = world
        .store
        .write(move |tx| drain(tx, now))
        .await
        .map_err(stored)?;
    if due.left_routes {
        world.routes.apply().await?;
    }
    for host in &due.drained {
        if let Err(fault) = unwind::retire(world, host, REASON).await {
            warn!(host.id = %host.id, "host {} could not be stopped: {fault}", host.id);
        }
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
fn drain(tx: &mut store::Tx<'_>, now: Timestamp) -> Result<Due, store::Error> {
    let by = By::platform(now);
    let (drained, kept): (Vec<_>, Vec<_>) = tx
        .hosts_to_retire(now)?
        .into_iter()
        .partition(|host| host.state == HostState::Draining);
    let mut left_routes = false;
    for host in kept {
        // An execution may be about to use what is kept.
        if !tx.is_busy(&host.place)? {
            tx.set_host_state(&host.id, HostState::Draining, Some(REASON), &by)?;
            let delay = routes::delay(tx, &host.place, host.release)?;
            tx.set_host_retirement(&host.id, Some(now + delay))?;
            left_routes = true;
        }
    }
    Ok(Due { drained, left_routes })
}

/// Hosts that an execution made and left behind when it ended badly.
async fn clear(world: &World) -> Result<(), Fault> {
    let left = world.store.read(|db| {
        let mut hosts = db.standing_hosts(None)?;
        hosts.retain(|host| {
            let half_made = matches!(
                host.state,
                HostState::Starting | HostState::Ready | HostState::Updating | HostState::Failed
            );
            host.role == HostRole::App && half_made
        });
        // Read after the hosts: an execution that made one of them is still under way then.
        let mut left = Vec::new();
        for host in hosts {
            if !db.is_busy(&host.place)? {
                left.push(host);
            }
        }
        Ok(left)
    });
    for host in left.await.map_err(stored)? {
        if let Err(fault) = unwind::retire(world, &host, "its execution ended without it").await {
            warn!(host.id = %host.id, "host {} could not be removed: {fault}", host.id);
        }
    }
    Ok(())
}

/// A host that should run and does not is failed; whatever serves without it is told so.
async fn mark_dead(world: &World, rows: &[store::Host], seen: &[HostSeen]) -> Result<(), Fault> {
    let runs = |row: &store::Host| {
        seen.iter()
            .any(|seen| seen.host == row.id && seen.state == Seen::Running && seen.configured)
    };
    let wanted =
        |row: &store::Host| matches!(row.state, HostState::Ready | HostState::Serving | HostState::Kept);
    let dead: Vec<store::Host> = rows
        .iter()
        .filter(|row| row.role == HostRole::App && wanted(row) && !runs(row))
        .cloned()
        .collect();
    for host in &dead {
        warn!(host.id = %host.id, "host {} of {} died", host.id, host.place);
        let (id, by) = (host.id.clone(), By::platform(crate::clock::now()));
        let failed = world
            .store
            .write(move |tx| tx.set_host_state(&id, HostState::Failed, Some("it died"), &by));
        failed.await.map_err(stored)?;
    }
    if !dead.is_empty() {
        world.routes.apply().await?;
    }
    for host in &dead {
        // It is failed: what cannot be removed now is removed with what executions left.
        if let Err(fault) = unwind::retire(world, host, "it died").await {
            warn!(host.id = %host.id, "host {} could not be removed: {fault}", host.id);
        }
    }
    Ok(())
}

/// Starts an execution for every environment whose live release has fewer or more hosts than it is to have, or whose
/// database does not run.
async fn resize(world: &World, tried: &mut HashMap<Place, Timestamp>) -> Result<(), Fault> {
    let environments = world
        .store
        .read(|db| db.environments(None))
        .await
        .map_err(stored)?;
    let seen = world.node.list().await?;
    let now = crate::clock::now();
    for environment in environments {
        let patient = tried
            .get(&environment.place)
            .is_some_and(|at| now.duration_since(*at) < PATIENCE);
        if patient || is_whole(world, &environment, &seen).await? {
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
            tried.insert(environment.place, now);
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
