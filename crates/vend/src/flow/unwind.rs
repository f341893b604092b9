//! The way back: what a failed execution made is undone in reverse order, the release before keeps or gets back the
//! traffic, and the evidence stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use model::{
    DeploymentId, HostId, Place,
    plan::PlanKind,
    port::{Deployer as _, Fault, HostRole, Hosts as _},
    release::ReleaseState,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState};
use tracing::{debug, warn};

use super::{
    Attempt, World, build, cancel, close, late, part, plan, regain::Regain, roll, state::Planned, stored,
    supersede,
};
use crate::reconcile::requests::Busy;

/// So many builds and bakes are stopped at a time.
const AT_ONCE: usize = 16;

#[derive(Deserialize)]
struct Input {
    place: Place,
    kind: PlanKind,
    plan: Option<Planned>,
    deployment: DeploymentId,
    /// The deployment that undoes it in place.
    undo: Option<DeploymentId>,
    failure: Failure,
    /// Machines that it was about, which lacked the live release.
    #[serde(default)]
    late: BTreeSet<HostId>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "Error", default)]
    error: String,
    #[serde(rename = "Cause", default)]
    cause: String,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let input: Input = attempt.read()?;
    stop_work(world, attempt, &input.failure.cause).await?;
    end_hooks(world, &input.place, &input.deployment, &input.failure.cause).await?;
    let mut stopped = 0;
    // Who comes after somebody has done nothing to the hosts, and what is done to them now is that one's.
    let is_behind = plan::is_behind(world, attempt, &input.place).await?;
    let mut reason = input.failure.cause.clone();
    if let Some(plan) = &input.plan {
        if !is_behind {
            let (own, deployment, old) = (input.place.clone(), input.deployment.clone(), plan.old());
            let read = world.store.read(move |db| -> Result<_, store::Error> {
                let parted = old.map(|old| part::has_begun(db, &own, old, &deployment));
                Ok((
                    db.environment(&own)?.live,
                    parted.transpose()?.unwrap_or_default(),
                ))
            });
            let (live, parted) = read.await.map_err(stored)?;
            let (kept, why) = match is_kept(&input, plan, live, parted) {
                true => (true, None),
                false => {
                    let why = undo(world, attempt, &input, plan).await?;
                    (why.is_some(), why)
                }
            };
            if kept {
                reason.push_str(&format!("; v{} is live already, and stays", plan.release));
            }
            reason.extend(why.map(|why| format!(": {why}")));
            stopped = stop_hosts(world, &input, plan.release).await?;
        }
        fail_release(world, &input, plan.release).await?;
    }
    let by = By::platform(crate::clock::now());
    let execution = attempt.execution.clone();
    let finished = world.store.write(move |tx| {
        let error = &input.failure.error;
        for machine in &input.late {
            match error.as_str() {
                // Nobody who stopped it wants it again in a minute.
                cancel::ERROR => tx.set_machine_tries(machine, late::MOST, by.at)?,
                // What gave way to a newer push was not tried to its end.
                supersede::ERROR => tx.forget_machine_try(machine)?,
                _ => {}
            }
        }
        let over = close::Over {
            execution: &execution,
            place: &input.place,
            error,
            reason: &reason,
        };
        close::all(tx, &over, &by)
    });
    finished.await.map_err(stored)?;
    world.routes.apply().await?;
    world.pokes.pushes.notify_one();
    Ok(json!({ "hosts_stopped": stopped }))
}

/// Does what went live stay? When somebody went back to it before a push took its place, the push stands on that: what they
/// went back from would be worse for as long as it takes. And when the hosts before it have parted: all that the new ones
/// were to show they have shown by then, and the old ones may have stopped.
fn is_kept(input: &Input, plan: &Planned, live: Option<u64>, parted: bool) -> bool {
    let gives_way = input.kind == PlanKind::Rollback && input.failure.error == supersede::ERROR;
    // In place the same hosts come back.
    let ended = parted && !plan.rolls;
    plan.old().is_some() && live == Some(plan.release) && (gives_way || ended)
}

/// The hosts and the traffic as they were before. Gives the reason where the release keeps the traffic.
async fn undo(
    world: &World,
    attempt: &Attempt,
    input: &Input,
    plan: &Planned,
) -> Result<Option<String>, Fault> {
    if let (true, Some(undo)) = (plan.rolls, &input.undo) {
        roll::back(world, attempt, &input.place, plan, (&input.deployment, undo)).await?;
    }
    give_back(world, attempt, input, plan).await
}

/// Builds and bakes that this execution does not wait for any more, on the node and on record.
async fn stop_work(world: &World, attempt: &Attempt, cause: &str) -> Result<(), Fault> {
    let execution = attempt.execution.clone();
    let running = world.store.read(move |db| db.work_of_execution(&execution));
    let running = running.await.map_err(stored)?;
    // Several at once: each is waited for for a moment.
    let stops = running.into_iter().map(|ticket| async move {
        let fault = build::place::stop(world, &ticket, cause).await?;
        Ok::<_, Fault>((ticket, fault.map(|fault| fault.phases).unwrap_or_default()))
    });
    let phases = each(stops).await?;
    let (execution, why) = (attempt.execution.clone(), Fault::order(cause));
    let by = By::platform(crate::clock::now());
    let written = world
        .store
        .write(move |tx| tx.stop_work(&execution, &why, &phases, &by));
    written.await.map_err(stored)
}

/// Does all of it, some at a time, also when one of them fails; then says the first failure.
async fn each<T: Ord, U>(
    all: impl Iterator<Item = impl Future<Output = Result<(T, U), Fault>>>,
) -> Result<BTreeMap<T, U>, Fault> {
    let done: Vec<_> = stream::iter(all).buffer_unordered(AT_ONCE).collect().await;
    done.into_iter().collect()
}

/// Ends scripts that hosts and machines still run for the deployment: what follows would wait for them. A host that does
/// not answer runs none, or is stopped.
pub async fn end_hooks(
    world: &World,
    place: &Place,
    deployment: &DeploymentId,
    why: &str,
) -> Result<(), Fault> {
    let place = place.clone();
    let read = world.store.read(move |db| -> Result<_, store::Error> {
        let mut hosts = db.standing_hosts(Some(&place))?;
        hosts.retain(|host| host.role == HostRole::App);
        Ok((hosts, db.machines_of(&place)?))
    });
    let (hosts, machines) = read.await.map_err(stored)?;
    let hosts = hosts.iter().map(|host| async move {
        let ended = world.node.stop_deployment(&host.id, deployment, why);
        (&host.id, ended.await)
    });
    let machines = machines.iter().map(|machine| async move {
        let live = &world.machines.live;
        (
            &machine.id,
            live.stop_deployment(&machine.id, deployment, why).await,
        )
    });
    let (hosts, machines) = futures_util::join!(join_all(hosts), join_all(machines));
    for (id, ended) in hosts.into_iter().chain(machines) {
        if let Err(fault) = ended {
            debug!("no script of {deployment} could be ended on {id}: {fault}");
        }
    }
    Ok(())
}

/// When the failure came after the switch, the release before gets the traffic back, if it can answer.
async fn give_back(
    world: &World,
    attempt: &Attempt,
    input: &Input,
    plan: &Planned,
) -> Result<Option<String>, Fault> {
    let place = &input.place;
    let (own, execution) = (place.clone(), attempt.execution.clone());
    let read = world.store.read(move |db| {
        let execution = db.execution_summary(&execution)?;
        let newer = supersede::held_up(db, &own, &execution)?;
        Ok::<_, store::Error>((db.environment(&own)?, newer.is_some()))
    });
    let (environment, waits) = read.await.map_err(stored)?;
    match plan.old() {
        Some(_) if environment.live == Some(plan.release) => {
            let regain = Regain {
                world,
                attempt,
                place,
                plan,
                deployment: &input.deployment,
                undo: input.undo.as_ref().filter(|_| !waits && makes_hosts(input, plan)),
            };
            return regain.run().await;
        }
        // What it had of the traffic goes back before its hosts do.
        _ if environment.arriving.is_some() => {
            let (place, by) = (place.clone(), By::platform(crate::clock::now()));
            let shared = world.store.write(move |tx| tx.share_traffic(&place, None, &by));
            shared.await.map_err(stored)?;
            world.routes.apply().await?;
        }
        _ => {}
    }
    Ok(None)
}

/// Is it worth to make hosts of the release before, where it lacks them? A newer push is better than to wait for them, and
/// so is the release that somebody went back to than what they went away from. In place they are the same hosts.
fn makes_hosts(input: &Input, plan: &Planned) -> bool {
    input.kind == PlanKind::Release && input.failure.error != supersede::ERROR && !plan.rolls
}

/// Leaves the hosts that never served. Hosts of the live release and kept ones are not touched.
async fn stop_hosts(world: &World, input: &Input, release: u64) -> Result<usize, Fault> {
    let place = input.place.clone();
    let found = world
        .store
        .read(move |db| {
            Ok((
                db.environment(&place)?.live,
                db.hosts_of_release(&place, release)?,
            ))
        })
        .await
        .map_err(stored)?;
    let (live, hosts) = found;
    let undone = |host: &store::Host| match host.state {
        HostState::Starting | HostState::Failed | HostState::Ready | HostState::Updating => true,
        HostState::Kept | HostState::Serving => live != Some(release) && input.kind == PlanKind::Release,
        HostState::Draining | HostState::Retired => false,
    };
    let hosts: Vec<store::Host> = hosts
        .into_iter()
        .filter(|host| host.role == HostRole::App && undone(host))
        .collect();
    let count = hosts.len();
    leave(world, hosts, REASON).await?;
    Ok(count)
}

pub const REASON: &str = "its release failed";

/// Hosts, of a release that failed for one, are nobody's from now on, and whoever looks after the fleet stops them: an app
/// that does not end holds nothing up. One that served a moment ago finishes its requests first.
pub async fn leave(world: &World, hosts: Vec<store::Host>, reason: &'static str) -> Result<(), Fault> {
    let by = By::platform(crate::clock::now());
    let written = world.store.write(move |tx| {
        let mut left = Vec::new();
        for host in hosts {
            let host = tx.host(&host.id)?;
            if matches!(host.state, HostState::Retired | HostState::Draining) {
                continue;
            }
            let delay = Busy::unknown().time(tx, &host, by.at)?;
            tx.set_host_state(&host.id, HostState::Draining, Some(reason), &by)?;
            tx.set_host_retirement(&host.id, Some(by.at + delay))?;
            left.push(host);
        }
        Ok::<_, store::Error>(left)
    });
    let left = written.await.map_err(stored)?;
    // Nobody new comes from here on: who answers nobody now need not stay.
    world.routes.apply().await?;
    let (busy, now) = (Busy::look(world).await, crate::clock::now());
    let written = world.store.write(move |tx| {
        for host in left {
            // As it was when it left.
            if busy.time(tx, &host, now)?.is_zero() && tx.host(&host.id)?.state == HostState::Draining {
                tx.set_host_retirement(&host.id, Some(now))?;
            }
        }
        Ok::<_, store::Error>(())
    });
    written.await.map_err(stored)?;
    world.pokes.fleet.notify_one();
    Ok(())
}

/// Stops a host and frees its address, in this order. One that has traffic is taken out of the routes first, by the
/// caller.
pub async fn retire(world: &World, host: &store::Host, reason: &str) -> Result<(), Fault> {
    world.node.stop(&host.id).await?;
    let (id, reason, by) = (
        host.id.clone(),
        reason.to_owned(),
        By::platform(crate::clock::now()),
    );
    let written = world
        .store
        .write(move |tx| tx.set_host_state(&id, HostState::Retired, Some(&reason), &by));
    written.await.map_err(stored)
}

async fn fail_release(world: &World, input: &Input, release: u64) -> Result<(), Fault> {
    let (place, reason) = (input.place.clone(), input.failure.cause.clone());
    let by = By::platform(crate::clock::now());
    let is_rollback = input.kind == PlanKind::Rollback;
    let written = world.store.write(move |tx| {
        let found = tx.release(&place, release)?;
        // A rollback that failed says nothing against the release that it wanted; a live one has nothing to go back to.
        if is_rollback || found.state == ReleaseState::Live {
            return Ok(());
        }
        tx.fail_release(&place, release, &reason, &by)
    });
    written
        .await
        .map_err(stored)
        .inspect_err(|error| warn!(%error, "cannot mark the release as failed"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_stays_live_when_it_is_undone() {
        let place: Place = "acme/shop/dev".parse().unwrap();
        let (back, forth, push) = ("rollback", "release", supersede::ERROR);
        let (failed, ended) = ("Vend.Customer", cancel::ERROR);
        for (what, kind, from, error, live, parted, kept) in [
            ("its hooks hang behind the switch", back, 2, push, 1, false, true),
            ("they hang before it", back, 2, push, 2, false, false),
            ("somebody ended it", back, 2, ended, 1, false, false),
            ("it failed", back, 2, failed, 1, false, false),
            (
                "a release that is not known to be good",
                forth,
                2,
                push,
                1,
                false,
                false,
            ),
            (
                "hosts of the live one are replaced",
                back,
                1,
                push,
                1,
                false,
                false,
            ),
            (
                "the last scripts of the old hosts failed",
                forth,
                2,
                failed,
                1,
                true,
                true,
            ),
            ("somebody ended them", forth, 2, ended, 1, true, true),
            ("those of a way back", back, 2, failed, 1, true, true),
            ("they are another deployment's", forth, 2, failed, 2, true, false),
        ] {
            let input: Input = serde_json::from_value(json!({
                "place": place, "kind": kind, "deployment": DeploymentId::from_bits(1),
                "plan": { "release": 1, "from": from }, "failure": { "Error": error, "Cause": "" },
            }))
            .unwrap();
            let plan = input.plan.as_ref().unwrap();
            assert_eq!(is_kept(&input, plan, Some(live), parted), kept, "{what}");
            let in_place = Planned { rolls: true, ..*plan };
            let stays = kept && !parted;
            assert_eq!(
                is_kept(&input, &in_place, Some(live), parted),
                stays,
                "{what}, in place"
            );
        }
    }

    #[tokio::test]
    async fn one_that_cannot_be_stopped_keeps_no_other_going() {
        let (going, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let stops = (0..50).map(async |number| {
            most.fetch_max(going.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            going.fetch_sub(1, Ordering::Relaxed);
            done.fetch_add(1, Ordering::Relaxed);
            match number {
                0 => Err(Fault::order("away")),
                _ => Ok((number, ())),
            }
        });
        assert_eq!(each(stops).await.unwrap_err().message, "away");
        assert_eq!(
            (done.load(Ordering::Relaxed), most.load(Ordering::Relaxed)),
            (50, AT_ONCE)
        );
    }
}
