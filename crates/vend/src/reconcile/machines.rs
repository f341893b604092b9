//! Machines as the catalogue says: those that came back get again what their agents have lost, those that lack the live
//! release get it, those that are to be removed are, and those that nobody knows any more are not talked to.
//!
//! Each is looked after by itself: one that hangs keeps no other waiting.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{
    DeploymentId, HostId, Ticket,
    port::{DeployOrder, Fault, LifecycleEvent},
};
use store::{By, Machine};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::turns::Turns;
use crate::flow::{World, late, machines, start, stored};

const EVERY: Duration = Duration::from_secs(3);
/// For the scripts that stop an app on a machine that it leaves.
const STOP: Duration = Duration::from_secs(300);
/// For all that one look after a machine does: its scripts, its configuration, and the questions around them.
const LOOK: Duration = Duration::from_secs(600);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let (mut turns, mut looks) = (Turns::default(), JoinSet::new());
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            if let Err(fault) = round(&world, &mut turns).await {
                warn!("machines could not be looked after: {fault}");
            }
            next = Instant::now() + EVERY;
        }
        for id in turns.next() {
            let world = Arc::clone(&world);
            let own = id.clone();
            turns.begun(&id, looks.spawn(async move { look(&world, &own).await }).id());
        }
        tokio::select! {
            // What still looks after a machine ends with this.
            () = cancel.cancelled() => return,
            () = world.pokes.machines.notified() => next = Instant::now(),
            () = sleep_until(next) => {}
            Some(ended) = looks.join_next_with_id() => {
                turns.ended(ended.map_or_else(|broken| broken.id(), |(task, ())| task));
            }
        }
    }
}

/// Has every machine looked after that is not already, and begins what machines have missed.
async fn round(world: &World, turns: &mut Turns) -> Result<(), Fault> {
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
        turns.wait(&machine.id, &machine.tenant);
    }
    catch_up(world, &machines).await
}

async fn look(world: &World, id: &HostId) {
    let late = |_| Fault::platform(format!("it took longer than {} s", LOOK.as_secs()));
    let looked = timeout(LOOK, after(world, id)).await.map_err(late);
    if let Err(fault) = looked.and_then(|done| done) {
        warn!(machine = %id, "{id} could not be looked after: {fault}");
    }
}

/// One machine, as it is now. It may have gone while it waited for its turn.
async fn after(world: &World, id: &HostId) -> Result<(), Fault> {
    let own = id.clone();
    let machine = match world.store.read(move |db| db.machine(&own)).await {
        Err(store::Error::Missing { .. }) => return Ok(()),
        machine => machine.map_err(stored)?,
    };
    if machine.leaving {
        return leave(world, &machine).await;
    }
    match is_left(world, &machine).await? {
        true => free(world, &machine).await,
        false => configure(world, &machine).await,
    }
}

/// Begins deployments of live releases to machines that lack them.
async fn catch_up(world: &World, machines: &[Machine]) -> Result<(), Fault> {
    let ids = machines.iter().map(|machine| &machine.id);
    let connected: BTreeSet<_> = ids
        .filter(|id| world.machines.live.address(id).is_some())
        .cloned()
        .collect();
    let now = crate::clock::now();
    let due = world.store.read(move |db| late::due(db, &connected, now));
    for due in due.await.map_err(stored)? {
        let told = format!(
            "{} machines of {} get its live release by themselves: {}",
            due.machines.len(),
            due.place,
            due.why
        );
        if start::join(world, due, By::platform(now)).await.map_err(stored)? {
            info!("{told}");
        }
    }
    Ok(())
}

/// The environment of a machine's processes is in its agent's memory only.
async fn configure(world: &World, machine: &Machine) -> Result<(), Fault> {
    if world.machines.live.address(&machine.id).is_none() {
        return Ok(());
    }
    // What the machine uses is kept with the answer, whether it has a release or not.
    let is_configured = world.machines.live.health(&machine.id).await?.configured;
    let (Some(place), Some(number)) = (machine.place.clone(), machine.release) else {
        return Ok(());
    };
    if is_configured {
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
    let (Some(place), Some(number)) = (machine.place.clone(), machine.release) else {
        return Ok(());
    };
    let own = place.clone();
    let read = world.store.read(move |db| db.release(&own, number));
    let release = read.await.map_err(stored)?.content;
    let order = DeployOrder {
        // One of its own: the last may have failed, and nothing more is done for it. What stops the app is what was
        // installed last, whatever was brought after it.
        deployment: DeploymentId::from_bits(crate::clock::bits()),
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
    let deployed = timeout(STOP, deploying).await.map_err(late)??;
    match deployed.failure() {
        Some(event) => Err(crate::flow::lifecycle_fault(event, &machine.id, &deployed.log)),
        None => Ok(()),
    }
}
