//! An environment taken down: traffic first, then hosts, then data, then the record of its existence.

use std::sync::Arc;

use futures_util::future;
use model::{
    Place,
    port::{Databases as _, Fault, HostRole, Hosts as _},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState};

use super::{Attempt, World, stored, unwind};
use crate::reconcile::machines;

#[derive(Deserialize)]
struct Input {
    place: Place,
}

const REASON: &str = "its environment is destroyed";

async fn load(world: &World, attempt: &Attempt) -> Result<Option<store::Environment>, Fault> {
    let Input { place } = attempt.read()?;
    world
        .store
        .read(move |db| db.find_environment(&place))
        .await
        .map_err(stored)
}

pub async fn unroute(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Some(environment) = load(world, attempt).await? else {
        return Ok(json!({}));
    };
    let by = By::platform(crate::clock::now());
    let draining = world.store.write(move |tx| {
        let mut hosts = tx.standing_hosts(Some(&environment.place))?;
        hosts.retain(|host| host.role == HostRole::App);
        let drain = |host: &store::Host| tx.set_host_state(&host.id, HostState::Draining, Some(REASON), &by);
        hosts.iter().try_for_each(drain)
    });
    draining.await.map_err(stored)?;
    world.routes.apply().await?;
    Ok(json!({}))
}

pub async fn stop_hosts(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input { place } = attempt.read()?;
    let own = place.clone();
    let hosts = world
        .store
        .read(move |db| db.standing_hosts(Some(&own)))
        .await
        .map_err(stored)?;
    let apps: Vec<store::Host> = hosts
        .into_iter()
        .filter(|host| host.role == HostRole::App)
        .collect();
    for host in &apps {
        unwind::retire(world, host, REASON).await?;
    }
    let machines = give_back(world, attempt, place).await?;
    Ok(json!({ "stopped": apps.len(), "machines": machines }))
}

/// Machines of the customer's own stay, without the app. One that is away is not waited for: what runs there goes on.
async fn give_back(world: &World, attempt: &Attempt, place: Place) -> Result<usize, Fault> {
    let machines = world.store.read(move |db| db.machines_of(&place));
    let machines = machines.await.map_err(stored)?;
    let all = machines.iter().map(async |machine| {
        // Who repeats it waits for the scripts that run already.
        let ticket = attempt.steady.part(machine.id.as_str());
        machines::give_back(world, machine, &ticket).await
    });
    future::try_join_all(all).await?;
    Ok(machines.len())
}

pub async fn drop_database(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input { place } = attempt.read()?;
    let own = place.clone();
    let hosts = world
        .store
        .read(move |db| db.standing_hosts(Some(&own)))
        .await
        .map_err(stored)?;
    for host in hosts.iter().filter(|host| host.role == HostRole::Database) {
        world.node.destroy(&host.id, &place).await?;
        unwind::retire(world, host, REASON).await?;
    }
    Ok(json!({}))
}

pub async fn remove_network(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    if let Some(environment) = load(world, attempt).await? {
        world.node.remove_network(&environment.network()).await?;
    }
    Ok(json!({}))
}

/// The execution that does this stays on record: it is not the environment's but the app's.
pub async fn forget(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    if let Some(environment) = load(world, attempt).await? {
        let by = By::platform(crate::clock::now());
        let place = environment.place;
        world
            .store
            .write(move |tx| tx.delete_environment(&place, &by))
            .await
            .map_err(stored)?;
    }
    world.routes.apply().await?;
    Ok(json!({}))
}
