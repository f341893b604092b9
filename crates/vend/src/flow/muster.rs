//! Hosts that are missing while a deployment goes on, because one died or because more were asked for. They get the
//! release that they belong to.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::{DeploymentId, Place, port::Fault, release::Release};
use store::{Host, HostState};
use tracing::warn;

use super::{Attempt, World, healthy, provision, state::Planned, stored, turn::Turn};

/// Hosts brought up at the same time.
const AT_ONCE: usize = 4;
/// An old release of which so many hosts could not be brought up is left as it is: it is about to go.
const TRIED: usize = 3;

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
        return fill(&turn, wanted).await;
    };
    let others = hosts(world, place, old).await?;
    // In place there is one fleet of two releases. What is missing there joins with the old one, and is taken along.
    let missing = match plan.rolls {
        false => {
            fill(&turn, wanted).await?;
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
    let old = Turn {
        to: &release,
        serves: true,
        ..turn
    };
    // What it is about is the new release.
    if let Err(fault) = fill(&old, wanted).await {
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

/// Makes the hosts of one release that are missing, and brings up those that were made and not finished.
async fn fill(turn: &Turn<'_>, wanted: usize) -> Result<(), Fault> {
    let hosts = provision::fleet(turn.world, turn.environment, turn.to, wanted).await?;
    let total = hosts.len() as u32;
    let fresh = hosts.into_iter().filter(|host| host.state == HostState::Starting);
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
