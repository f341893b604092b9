//! Hosts that are missing while a deployment goes on, because one died or because more were asked for. They get the
//! release that they belong to.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use model::{DeploymentId, Place, port::Fault, release::Release};
use serde::Deserialize;
use store::{Host, HostState};
use tokio::time::sleep;
use tracing::warn;

use super::{Attempt, World, healthy, provision, state::Planned, stored, turn::Turn};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

/// Hosts brought up at the same time.
const AT_ONCE: usize = 4;
/// An old release of which so many hosts could not be brought up is left as it is: it is about to go.
const TRIED: usize = 3;
/// Hosts that were made, and to which nothing else was done that is known.
const MADE: &[HostState] = &[HostState::Starting];
/// Those of a fleet that serves, too: another stage was about to put them into the traffic.
pub(super) const UNFINISHED: &[HostState] = &[HostState::Starting, HostState::Ready];

/// A live fleet that is kept up is looked at so often; one that cannot be, more and more seldom.
const EVERY: Duration = Duration::from_secs(3);
const SELDOM: Duration = Duration::from_secs(60);

/// Does something to new hosts, and keeps the live fleet up meanwhile: who visits it does not wait for them. What was begun
/// for it and is not finished then is finished beside what comes next, or cleared away behind the last.
pub fn beside<'a, T: Send + 'a>(
    world: &'a World,
    attempt: &'a Attempt,
    doing: impl Future<Output = Result<T, Fault>> + Send + 'a,
) -> BoxFuture<'a, Result<T, Fault>> {
    Box::pin(async move {
        tokio::select! {
            biased;
            done = doing => done,
            never = keep_up(world, attempt) => never,
        }
    })
}

/// Never ends by itself.
async fn keep_up<T>(world: &World, attempt: &Attempt) -> T {
    let mut pause = EVERY;
    loop {
        sleep(pause).await;
        pause = match refill(world, attempt).await {
            Ok(()) => EVERY,
            Err(fault) => {
                warn!(execution.id = %attempt.execution, "a host of the live release could not be replaced: {fault}");
                (pause * 2).min(SELDOM)
            }
        };
    }
}

/// Makes the hosts of the live release that are missing.
async fn refill(world: &World, attempt: &Attempt) -> Result<(), Fault> {
    let Input {
        place,
        plan,
        deployment,
    } = attempt.read()?;
    let own = place.clone();
    let environment = world.store.read(move |db| db.environment(&own));
    let environment = environment.await.map_err(stored)?;
    let Some(live) = kept_up(environment.live, environment.asleep_at.is_some(), &plan) else {
        return Ok(());
    };
    let (_, release) = provision::load(world, &place, live).await?;
    let lost = failed(&hosts(world, &place, live).await?);
    let wanted = provision::desired(&environment, &release) as usize;
    let wanted = match live == plan.release {
        // A host on which the release failed is not tried on another one.
        true => wanted.saturating_sub(lost),
        false => wanted,
    };
    if release.spec.placement.is_some() || lost >= TRIED {
        return Ok(());
    }
    // The next stage goes on with what is not finished, and runs no script twice.
    let attempt = attempt.of_all_stages();
    let turn = Turn {
        world,
        attempt: &attempt,
        place: &place,
        environment: &environment,
        deployment: &deployment,
        to: &release,
        serves: true,
    };
    fill(&turn, wanted, UNFINISHED).await
}

/// The live release, if it is another than the one that hosts are made for just now: these are the stage's own. One that
/// has just gone live is another no more, and stands by itself.
fn kept_up(live: Option<u64>, is_asleep: bool, plan: &Planned) -> Option<u64> {
    let old = plan.old()?;
    live.filter(|live| !is_asleep && [old, plan.release].contains(live))
}

/// Brings both fleets to their sizes.
pub async fn tend(
    world: &World,
    attempt: &Attempt,
    place: &Place,
    plan: &Planned,
    deployment: &DeploymentId,
) -> Result<(), Fault> {
    let (environment, new) = provision::load(world, place, plan.release).await?;
    if new.spec.placement.is_some() {
        // Machines are the customer's to keep up.
        return Ok(());
    }
    let shares = environment
        .arriving
        .is_some_and(|own| own.release == plan.release);
    let serves = shares || environment.live == Some(plan.release);
    let turn = Turn {
        world,
        attempt,
        place,
        environment: &environment,
        deployment,
        to: &new,
        serves,
    };
    // A host on which the release failed is not tried on another one.
    let failed = failed(&hosts(world, place, plan.release).await?);
    let wanted = (provision::desired(&environment, &new) as usize).saturating_sub(failed);
    let Some(old) = plan.old() else {
        return fill(&turn, wanted, MADE).await;
    };
    let others = hosts(world, place, old).await?;
    // In place there is one fleet of two releases. What is missing there joins with the old one, and is taken along.
    let missing = match plan.rolls {
        false => {
            fill(&turn, wanted, MADE).await?;
            0
        }
        true => wanted.saturating_sub(
            hosts(world, place, plan.release)
                .await?
                .iter()
                .filter(|host| stands(host))
                .count(),
        ),
    };
    if environment.live != Some(old) || self::failed(&others) >= TRIED {
        return Ok(());
    }
    let (_, release) = provision::load(world, turn.place, old).await?;
    let wanted = match plan.rolls {
        true => missing,
        false => provision::desired(&environment, &release) as usize,
    };
    // In place a later wave gives the same host the new release, under a ticket of the stage's own.
    let beside = attempt.of_all_stages();
    let old = Turn {
        attempt: &beside,
        to: &release,
        serves: true,
        ..turn
    };
    // In place they are the next wave's.
    let unfinished = if plan.rolls { MADE } else { UNFINISHED };
    // What it is about is the new release.
    if let Err(fault) = fill(&old, wanted, unfinished).await {
        warn!("a host of {place} could not be replaced: {fault}");
    }
    Ok(())
}

async fn hosts(world: &World, place: &Place, release: u64) -> Result<Vec<Host>, Fault> {
    let place = place.clone();
    let hosts = world.store.read(move |db| db.hosts_of_release(&place, release));
    hosts.await.map_err(stored)
}

fn failed(hosts: &[Host]) -> usize {
    hosts
        .iter()
        .filter(|host| host.state == HostState::Failed)
        .count()
}

fn stands(host: &Host) -> bool {
    !matches!(
        host.state,
        HostState::Failed | HostState::Draining | HostState::Retired
    )
}

/// Makes the hosts of one release that are missing, and brings up those that were made and are `unfinished`.
pub(super) async fn fill(turn: &Turn<'_>, wanted: usize, unfinished: &[HostState]) -> Result<(), Fault> {
    let hosts = provision::fleet(turn.world, turn.environment, turn.to, wanted).await?;
    let total = hosts.len() as u32;
    let fresh = hosts.into_iter().filter(|host| unfinished.contains(&host.state));
    let bringing = stream::iter(fresh.collect::<Vec<_>>())
        .map(|host| turn.take(host))
        .buffer_unordered(AT_ONCE);
    let failures: Vec<Option<Fault>> = bringing.try_collect().await?;
    let failures: Vec<Fault> = failures.into_iter().flatten().collect();
    let well = total.saturating_sub(failures.len() as u32);
    match failures.into_iter().next() {
        Some(fault) if !is_enough(turn.to, total, well) => Err(fault),
        _ => Ok(()),
    }
}

fn is_enough(release: &Release, total: u32, well: u32) -> bool {
    healthy::is_enough(release.spec.deploy.minimum_healthy, total, well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_fleet_is_kept_up_beside_another_and_never_beside_itself() {
        let planned = |release, from| Planned {
            release,
            from,
            rolls: false,
            steps: false,
        };
        for (what, live, asleep, plan, kept) in [
            ("new hosts are made", Some(1), false, planned(2, Some(1)), Some(1)),
            ("they are live now", Some(2), false, planned(2, Some(1)), Some(2)),
            ("the first release", None, false, planned(1, None), None),
            (
                "the live fleet gets its size",
                Some(1),
                false,
                planned(1, Some(1)),
                None,
            ),
            ("nobody is to be served", Some(1), true, planned(2, Some(1)), None),
            ("who is neither", Some(3), false, planned(2, Some(1)), None),
        ] {
            assert_eq!(kept_up(live, asleep, &plan), kept, "{what}");
        }
    }
}
