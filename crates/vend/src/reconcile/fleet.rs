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
}

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let mut memory = Memory::default();
    let mut failed = false;
    loop {
        let done = once(&world, &mut memory).await;
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

async fn once(world: &World, memory: &mut Memory) -> Result<(), Fault> {
    retire(world).await?;
    let standing = || world.store.read(|db| db.standing_hosts(None));
    // A host is only dead when it was wanted before it was looked for, and nobody's when it is in no row afterwards.
    let before = standing().await.map_err(stored)?;
    let seen = world.node.list().await?;
    let rows = standing().await.map_err(stored)?;
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
    mark_dead(world, &before, &seen, &mut memory.silent).await?;
    clear(world).await?;
    resize(world, &mut memory.tried).await
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
    silent: &mut HashMap<HostId, Timestamp>,
) -> Result<(), Fault> {
    let mut dead = Vec::new();
    for host in self::dead(rows, seen, silent, crate::clock::now()) {
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
        if let Err(fault) = unwind::retire(world, host, DIED).await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn row(number: u64, state: HostState) -> store::Host {
        fixtures::host(number, 1, state)
    }

    /// Running, its agent answering, holding its environment.
    fn seen(number: u64, runs: bool, answers: bool, configured: bool) -> HostSeen {
        HostSeen {
            host: HostId::from_bits(number),
            place: "acme/shop/dev".parse().unwrap(),
            role: HostRole::App,
            state: if runs { Seen::Running } else { Seen::Stopped },
            address: [10, 0, 0, 1].into(),
            image: model::Digest::of(""),
            started_at: at(0),
            memory_bytes: 0,
            cpu_ms: 0,
            pids: 1,
            disk_bytes: answers.then_some(1),
            disk_total_bytes: answers.then_some(2),
            configured,
        }
    }

    #[test]
    fn only_what_should_run_and_does_not_is_dead() {
        let rows = [
            row(1, HostState::Serving),
            row(2, HostState::Serving),
            row(3, HostState::Ready),
            row(4, HostState::Kept),
            row(5, HostState::Updating),
            row(6, HostState::Serving),
        ];
        let seen = [
            seen(1, true, true, true),
            seen(2, false, false, false),
            // Its agent was started anew by itself, and knows nothing.
            seen(3, true, true, false),
            seen(6, true, false, false),
        ];
        let (mut silent, mut dies) = (HashMap::new(), Vec::new());
        for second in [100, 105, 114, 115] {
            let dead = dead(&rows, &seen, &mut silent, at(second));
            let dead = dead
                .iter()
                .map(|host| rows.iter().position(|row| row.id == host.id).unwrap() + 1);
            dies.push(dead.collect::<Vec<_>>());
        }
        assert_eq!(
            dies,
            [vec![2, 3, 4], vec![2, 3, 4], vec![2, 3, 4], vec![2, 3, 4, 6]]
        );
    }

    #[test]
    fn one_answer_ends_a_silence() {
        let rows = [row(1, HostState::Serving)];
        let mut silent = HashMap::new();
        let other = || seen(2, true, true, true);
        for (second, answers) in [(0, false), (14, false), (15, true), (16, false), (30, false)] {
            let seen = [seen(1, true, answers, answers), other()];
            assert!(dead(&rows, &seen, &mut silent, at(second)).is_empty(), "{second}");
        }
        let seen = [seen(1, true, false, false), other()];
        assert_eq!(dead(&rows, &seen, &mut silent, at(31)).len(), 1);
    }

    #[test]
    fn a_machine_too_busy_for_any_agent_is_no_death_of_all_hosts() {
        let rows = [row(1, HostState::Serving), row(2, HostState::Serving)];
        let mut silent = HashMap::new();
        let all = [seen(1, true, false, false), seen(2, true, false, false)];
        for second in [0, 15, 60, 89] {
            assert!(dead(&rows, &all, &mut silent, at(second)).is_empty(), "{second}");
        }
        assert_eq!(
            dead(&rows, &all, &mut silent, at(90)).len(),
            2,
            "one day it is said"
        );
        // What does not run at all is dead at once.
        let gone = [seen(1, false, false, false), seen(2, true, false, false)];
        assert_eq!(dead(&rows, &gone, &mut HashMap::new(), at(0)).len(), 1);
    }
}
