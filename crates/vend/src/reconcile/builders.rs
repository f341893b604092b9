//! Builders as the catalogue says: one that is to be removed is once it has no build, none goes on with a build that was
//! given up, and none fills up. Each is looked after by itself: one that is slow keeps no other waiting.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use model::{
    AppName, HostId, TenantName,
    port::{Fault, Keep, Upkeep as _, Work as _},
};
use store::{Build, Builder, By};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::flow::{World, stored};

const EVERY: Duration = Duration::from_secs(5);
/// Between two sweeps of a builder. The first is not due at once: what resumes at a start may need what nobody names yet.
const SWEEP: Duration = Duration::from_secs(3600);
/// Of one builder, builds that are ended in one look.
const AT_ONCE: usize = 100;
/// For a look at one builder, and for its sweep.
const LOOK: Duration = Duration::from_secs(120);
const LONGEST: Duration = Duration::from_secs(600);
/// Builders that are swept at the same time.
const SWEEPS: usize = 8;

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let looks = async { tokio::join!(look(&world), sweep(&world)) };
    tokio::select! { () = cancel.cancelled() => {}, _ = looks => {} }
}

/// One task for each builder, which ends before there is another.
async fn look(world: &Arc<World>) {
    let mut tasks: HashMap<HostId, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        tasks.retain(|_, task| !task.is_finished());
        for builder in known(world).await {
            tasks
                .entry(builder.id.clone())
                .or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(one(Arc::clone(world), builder))));
        }
        tokio::select! {
            () = world.pokes.builders.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

async fn one(world: Arc<World>, builder: Builder) {
    let late = |_| Err(Fault::platform("it is too slow"));
    let looked = timeout(LOOK, look_after(&world, &builder)).await;
    if let Err(fault) = looked.unwrap_or_else(late) {
        warn!(builder = %builder.id, "the builder {} could not be looked after: {fault}", builder.name);
    }
}

async fn sweep(world: &World) {
    loop {
        sleep(SWEEP).await;
        let sweeps = stream::iter(known(world).await);
        let sweeps = sweeps.for_each_concurrent(SWEEPS, |builder| async move {
            let late = |_| Err(Fault::platform("a sweep takes long"));
            let swept = timeout(LONGEST, make_room(world, &builder.id)).await;
            if let Err(fault) = swept.unwrap_or_else(late) {
                warn!(builder = %builder.id, "the builder {} could not be swept: {fault}", builder.name);
            }
        });
        sweeps.await;
    }
}

async fn known(world: &World) -> Vec<Builder> {
    let builders = world.store.read(|db| db.builders()).await;
    builders.unwrap_or_else(|error| {
        warn!("builders cannot be read: {}", stored(error));
        Vec::new()
    })
}

async fn look_after(world: &World, builder: &Builder) -> Result<(), Fault> {
    // One that does not answer as it should can be removed all the same.
    let tidied = timeout(LOOK / 2, tidy(world, builder)).await;
    if builder.leaving && own(world, &builder.id).await?.is_empty() {
        let (id, by) = (builder.id.clone(), By::platform(crate::clock::now()));
        let removed = world.store.write(move |tx| tx.remove_builder(&id, &by));
        removed.await.map_err(stored)?;
        world.machines.live.close(&builder.id);
        info!(builder = %builder.id, "the builder {} is removed", builder.name);
    }
    tidied.unwrap_or_else(|_| Err(Fault::platform("it is too slow")))
}

async fn tidy(world: &World, builder: &Builder) -> Result<(), Fault> {
    let live = &world.machines.live;
    if live.address(&builder.id).is_none() {
        return Ok(());
    }
    let node = live.node(&builder.id);
    // Before the rows: a build is on record before its builder hears of it.
    let goes_on = node.building().await?;
    let own = own(world, &builder.id).await?;
    let wanted: BTreeSet<_> = own.iter().map(Build::ticket_there).collect();
    let strays = goes_on.iter().filter(|ticket| !wanted.contains(ticket));
    for stray in strays.take(AT_ONCE) {
        info!(builder = %builder.id, ticket = %stray, "a build that nobody waits for is stopped");
        node.stop_work(stray, "it was given up, or goes on elsewhere")
            .await?;
    }
    Ok(())
}

/// Removes what a builder keeps and nothing that goes on needs.
async fn make_room(world: &World, id: &HostId) -> Result<(), Fault> {
    if world.machines.live.address(id).is_none() {
        return Ok(());
    }
    let keep = Keep {
        objects: own(world, id).await?.iter().map(|build| build.source).collect(),
        ..Keep::default()
    };
    world.machines.live.node(id).sweep(&keep).await.map(drop)
}

/// What it has to do now.
async fn own(world: &World, id: &HostId) -> Result<Vec<Build>, Fault> {
    let id = id.clone();
    let own = world.store.read(move |db| db.running_builds_of(&id));
    own.await.map_err(stored)
}

/// Removes what builders keep to be faster for an app or a tenant that is deleted. It fails until all of them have: the name
/// may be another customer's next.
pub async fn forget(world: &World, tenant: &TenantName, app: Option<&AppName>) -> Result<(), Fault> {
    let builders = world.store.read(|db| db.builders()).await.map_err(stored)?;
    for builder in builders.iter().filter(|builder| builder.serves(tenant)) {
        let node = world.machines.live.node(&builder.id);
        node.forget(tenant, app).await.map_err(|fault| {
            Fault::platform(format!(
                "the builder {} keeps caches of what is deleted: {fault}",
                builder.name
            ))
            .next("have it come back, or remove it: vend builders remove --now")
        })?;
    }
    Ok(())
}
