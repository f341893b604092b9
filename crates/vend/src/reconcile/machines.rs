//! Machines as the catalogue says: those that came back get again what their agents have lost, those that missed the live
//! release get it, those that are to be removed are, and those that nobody knows any more are not talked to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{
    Ticket,
    port::{DeployOrder, Fault, LifecycleEvent},
};
use store::{By, Machine};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::flow::{World, late, machines, start, stored};

const EVERY: Duration = Duration::from_secs(3);
/// For the scripts that stop an app on a machine that it leaves. Everybody else's machines wait behind them.
const STOP: Duration = Duration::from_secs(300);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    loop {
        if let Err(fault) = once(&world).await {
            warn!("machines could not be looked after: {fault}");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = world.pokes.machines.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn once(world: &World) -> Result<(), Fault> {
    let read = world
        .store
        .read(|db| Ok::<_, store::Error>((db.machines(None)?, db.builders()?)));
    let (machines, builders) = read.await.map_err(stored)?;
    let machine = machines.iter().map(|machine| &machine.id);
    let known: BTreeSet<_> = machine
        .chain(builders.iter().map(|builder| &builder.id))
        .collect();
    world.machines.live.keep_only(|id| known.contains(id));
    for machine in &machines {
        let done = match (machine.leaving, is_left(world, machine).await) {
            (true, _) => leave(world, machine).await,
            (false, Ok(true)) => free(world, machine).await,
            (false, Ok(false)) => configure(world, machine).await,
            (false, Err(fault)) => Err(fault),
        };
        if let Err(fault) = done {
            warn!(machine = %machine.id, "{} could not be looked after: {fault}", machine.id);
        }
    }
    catch_up(world, &machines).await
}

/// Begins deployments of live releases to machines that have missed them.
async fn catch_up(world: &World, machines: &[Machine]) -> Result<(), Fault> {
    let ids = machines.iter().map(|machine| &machine.id);
    let connected: BTreeSet<_> = ids
        .filter(|id| world.machines.live.address(id).is_some())
        .cloned()
        .collect();
    let now = crate::clock::now();
    let due = world.store.read(move |db| late::due(db, &connected, now));
    for due in due.await.map_err(stored)? {
        let (place, many) = (due.place.clone(), due.machines.len());
        if start::join(world, due, By::platform(now)).await.map_err(stored)? {
            info!("{many} machines of {place} joined late, and get its live release");
        }
    }
    Ok(())
}

/// The environment of a machine's processes is in its agent's memory only.
async fn configure(world: &World, machine: &Machine) -> Result<(), Fault> {
    let (Some(place), Some(number)) = (machine.place.clone(), machine.release) else {
        return Ok(());
    };
    if world.machines.live.address(&machine.id).is_none()
        || world.machines.live.health(&machine.id).await?.configured
    {
        return Ok(());
    }
    let read = world.store.read(move |db| -> Result<_, store::Error> {
        Ok((db.environment(&place)?, db.release(&place, number)?.content))
    });
    let (environment, release) = read.await.map_err(stored)?;
    let configuration = machines::configuration(world, &environment, &release).await?;
    world.machines.live.configure(&machine.id, &configuration).await?;
    info!(machine = %machine.id, "the machine {} has its configuration again", machine.id);
    Ok(())
}

/// Has its environment gone elsewhere: is the release that is live there for no machines, or for others?
async fn is_left(world: &World, machine: &Machine) -> Result<bool, Fault> {
    let (Some(place), own) = (machine.place.clone(), machine.clone()) else {
        return Ok(false);
    };
    let read = world.store.read(move |db| -> Result<_, store::Error> {
        let live = db.live_release(&place)?;
        let leaves = live.is_some_and(|live| match live.content.spec.placement {
            Some(placement) => !own.fits(&placement.registered),
            None => true,
        });
        Ok(leaves && !db.is_busy(&place)?)
    });
    read.await.map_err(stored)
}

/// A machine that its environment has left is given back. One that is away is waited for.
async fn free(world: &World, machine: &Machine) -> Result<(), Fault> {
    if world.machines.live.address(&machine.id).is_none() {
        return Ok(());
    }
    give_back(world, machine, &Ticket::from_bits(crate::clock::bits())).await
}

/// What runs on a machine is stopped, by its own scripts where it has some, and another environment may have it.
pub async fn give_back(world: &World, machine: &Machine, ticket: &Ticket) -> Result<(), Fault> {
    if let Err(fault) = stop(world, machine, ticket).await {
        warn!(machine = %machine.id, "{} is given back although its app did not stop: {fault}", machine.id);
    }
    let (id, by) = (machine.id.clone(), By::platform(crate::clock::now()));
    let freed = world.store.write(move |tx| tx.free_machine(&id, &by));
    freed.await.map_err(stored)?;
    info!(machine = %machine.id, "the machine {} is nobody's any more", machine.id);
    Ok(())
}

/// What is deployed there is stopped by its own scripts first; then nobody knows the machine any more.
async fn leave(world: &World, machine: &Machine) -> Result<(), Fault> {
    if let Some(place) = machine.place.clone() {
        let busy = world.store.read(move |db| db.is_busy(&place));
        if busy.await.map_err(stored)? {
            return Ok(());
        }
    }
    let ticket = Ticket::from_bits(crate::clock::bits());
    if world.machines.live.address(&machine.id).is_some()
        && let Err(fault) = stop(world, machine, &ticket).await
    {
        warn!(machine = %machine.id, "{} is removed although its app did not stop: {fault}", machine.id);
    }
    let (id, by) = (machine.id.clone(), By::platform(crate::clock::now()));
    let removed = world.store.write(move |tx| tx.remove_machine(&id, &by));
    removed.await.map_err(stored)?;
    world.machines.live.close(&machine.id);
    info!(machine = %machine.id, "the machine {} is removed", machine.id);
    Ok(())
}

async fn stop(world: &World, machine: &Machine, ticket: &Ticket) -> Result<(), Fault> {
    let (Some(place), Some(number), Some(deployment)) =
        (machine.place.clone(), machine.release, machine.deployment.clone())
    else {
        return Ok(());
    };
    let own = place.clone();
    let read = world.store.read(move |db| db.release(&own, number));
    let release = read.await.map_err(stored)?.content;
    let order = DeployOrder {
        deployment,
        place,
        host: machine.id.clone(),
        revision: release.revision,
        appspec: release.spec.deploy.appspec.clone(),
        events: vec![LifecycleEvent::ApplicationStop],
        migration: None,
        ignores_stop: false,
        commit: Some(release.commit.id.clone()),
    };
    // Nothing is brought: the scripts are there.
    let deploying = world.machines.live.deploy(ticket, &order, "/dev/null".into());
    let late = |_| Fault::customer(format!("its scripts did not end within {} s", STOP.as_secs()));
    let deployed = tokio::time::timeout(STOP, deploying).await.map_err(late)??;
    match deployed.failure() {
        Some(event) => Err(crate::flow::lifecycle_fault(event, &machine.id, &deployed.log)),
        None => Ok(()),
    }
}
