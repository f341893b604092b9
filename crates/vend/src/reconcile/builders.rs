//! Builders as the catalogue says: one that is to be removed is once it has no build, none goes on with a build that was
//! given up, and none fills up.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{
    AppName, HostId, TenantName,
    port::{Fault, Keep, Upkeep as _, Work as _},
};
use store::{Build, Builder, By};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::flow::{World, stored};

const EVERY: Duration = Duration::from_secs(5);
/// So many looks are between two sweeps of a builder: an hour.
const SWEEP: u32 = 720;
/// Of one builder, builds that are ended in one look.
const AT_ONCE: usize = 100;
/// For one of them. Other builders wait behind it.
const LONGEST: Duration = Duration::from_secs(600);

pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    let mut looks: u32 = 0;
    loop {
        if let Err(fault) = once(&world, looks.is_multiple_of(SWEEP)).await {
            warn!("builders could not be looked after: {fault}");
        }
        looks = looks.wrapping_add(1);
        tokio::select! {
            () = cancel.cancelled() => return,
            () = world.pokes.builders.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn once(world: &World, sweeps: bool) -> Result<(), Fault> {
    let builders = world.store.read(|db| db.builders()).await.map_err(stored)?;
    for builder in &builders {
        if let Err(fault) = look_after(world, builder, sweeps).await {
            warn!(builder = %builder.id, "the builder {} could not be looked after: {fault}", builder.name);
        }
    }
    Ok(())
}

async fn look_after(world: &World, builder: &Builder, sweeps: bool) -> Result<(), Fault> {
    // One that does not answer as it should can be removed all the same.
    let tidied = tidy(world, builder, sweeps).await;
    if builder.leaving && own(world, &builder.id).await?.is_empty() {
        let (id, by) = (builder.id.clone(), By::platform(crate::clock::now()));
        let removed = world.store.write(move |tx| tx.remove_builder(&id, &by));
        removed.await.map_err(stored)?;
        world.machines.live.close(&builder.id);
        info!(builder = %builder.id, "the builder {} is removed", builder.name);
    }
    tidied
}

async fn tidy(world: &World, builder: &Builder, sweeps: bool) -> Result<(), Fault> {
    let live = &world.machines.live;
    if live.address(&builder.id).is_some() {
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
        if sweeps {
            let keep = Keep {
                objects: own.iter().map(|build| build.source).collect(),
                ..Keep::default()
            };
            let late = |_| Fault::platform("a sweep takes long");
            tokio::time::timeout(LONGEST, node.sweep(&keep))
                .await
                .map_err(late)??;
        }
    }
    Ok(())
}

/// What it has to do now.
async fn own(world: &World, id: &HostId) -> Result<Vec<Build>, Fault> {
    let mut running = world.store.read(|db| db.running_builds()).await.map_err(stored)?;
    running.retain(|build| build.builder.as_ref() == Some(id));
    Ok(running)
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
            .next("have it come back, or remove it: vend builders remove")
        })?;
    }
    Ok(())
}
