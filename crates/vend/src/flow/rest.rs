//! An environment that nobody asks for is put to rest: out of the routes first, then its hosts, then its database.
//!
//! The release, its image and the data stay. From the first step on requests wait at the edge, so that none meets a host
//! that stops.

use std::sync::Arc;

use jiff::SignedDuration;
use model::{
    HostId, Place,
    port::{Fault, HostRole, Hosts as _},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState};

use super::{Attempt, World, stored, unwind};
use crate::reconcile::{requests, routes};

const REASON: &str = "its environment sleeps";
/// Should this stage never come to stop its hosts, whoever looks after fleets does, so long after they have had their
/// time.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

#[derive(Deserialize)]
struct Input {
    place: Place,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input { place } = attempt.read()?;
    let drain = leave(world, &place).await?;
    world.routes.apply().await?;
    let own = place.clone();
    let hosts = world.store.read(move |db| db.standing_hosts(Some(&own)));
    let (apps, databases): (Vec<_>, Vec<_>) = hosts
        .await
        .map_err(stored)?
        .into_iter()
        .partition(|host| host.role == HostRole::App);
    let leaving: Vec<HostId> = apps.iter().map(|host| host.id.clone()).collect();
    requests::finish(world, &leaving, drain).await;
    for host in &apps {
        unwind::retire(world, host, REASON).await?;
    }
    for host in databases {
        stop_database(world, &place, host.id).await?;
    }
    Ok(json!({ "stopped": apps.len() }))
}

/// Marks it asleep and its hosts as leaving. Gives the time that requests under way have.
async fn leave(world: &World, place: &Place) -> Result<SignedDuration, Fault> {
    let (place, by) = (place.clone(), By::platform(crate::clock::now()));
    let left = world.store.write(move |tx| {
        let live = tx.environment(&place)?.live;
        let drain = routes::delay(tx, &place, live)?;
        tx.sleep(&place, by.at + drain + GRACE, &by)?;
        Ok(drain)
    });
    left.await.map_err(stored)
}

/// Its row and its data stay; whoever wakes the environment starts it again.
async fn stop_database(world: &World, place: &Place, host: HostId) -> Result<(), Fault> {
    world.node.stop(&host).await?;
    let (place, by) = (place.clone(), By::platform(crate::clock::now()));
    let written = world.store.write(move |tx| {
        tx.set_host_state(&host, HostState::Kept, Some(REASON), &by)?;
        tx.set_database(&place, Some(&host), false, &by)
    });
    written.await.map_err(stored)
}
