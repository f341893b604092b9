//! What a release needs under it: a network, a database, and hosts that run its image.
//!
//! Everything here is "make it so": what is there already, from an earlier try or from a kept fleet, is used.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    DeploymentId, HostId, Place,
    plan::PlanKind,
    port::{DatabaseOrder, Databases as _, Fault, HostOrder, HostRole, Hosts as _, Resources},
    release::Release,
    spec,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState, NewDeployment, NewHost};
use tracing::info;

use super::{Attempt, World, alarms, chain, part, state::Planned, stored, variables};

#[derive(Deserialize)]
struct Input {
    place: Place,
    kind: PlanKind,
    plan: Planned,
    deployment: DeploymentId,
}

/// Hosts started at the same time.
const AT_ONCE: usize = 4;

const DATABASE_SIZE: &str = "small";

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        kind,
        plan,
        deployment,
    } = attempt.read()?;
    let (environment, release) = load(world, &place, plan.release).await?;
    begin(world, attempt, &place, &plan, &deployment, &release).await?;
    alarms::refuse(world, kind, &place, &release).await?;
    needs(world, attempt, &environment, &release).await?;
    let environment = load(world, &place, plan.release).await?.0;
    let count = desired(&environment, &release) as usize;
    part::leave(world, &place, &release).await?;
    let hosts = fleet(world, &environment, &release, count).await?;
    let starting = stream::iter(hosts.iter().cloned())
        .map(|host| async { start(world, attempt, &environment, &release, host).await })
        .buffer_unordered(AT_ONCE);
    let fallbacks: Vec<Vec<String>> = starting.try_collect().await?;
    let mut fallbacks = fallbacks.concat();
    fallbacks.sort();
    fallbacks.dedup();
    let hosts: Vec<&HostId> = hosts.iter().map(|host| &host.id).collect();
    Ok(json!({ "hosts": hosts, "fallbacks": fallbacks }))
}

/// Puts the deployment on record. Once it is begun it is begun.
pub async fn begin(
    world: &World,
    attempt: &Attempt,
    place: &Place,
    plan: &Planned,
    deployment: &DeploymentId,
    release: &Release,
) -> Result<(), Fault> {
    let new = NewDeployment {
        id: deployment.clone(),
        place: place.clone(),
        release: plan.release,
        execution: Some(attempt.execution.clone()),
        strategy: plan.strategy(release),
        cause: None,
    };
    let by = By::platform(crate::clock::now());
    let begun = world
        .store
        .write(move |tx| tx.begin_deployment(&new, &by).map(drop));
    begun.await.map_err(stored)
}

/// What a release needs beside hosts.
pub async fn needs(
    world: &World,
    attempt: &Attempt,
    environment: &store::Environment,
    release: &Release,
) -> Result<(), Fault> {
    variables::check_edge(world, &environment.place, release).await?;
    match release.spec.database {
        Some(_) => database(world, attempt, environment, release).await,
        None => Ok(()),
    }
}

/// An environment and one of its releases, both of which a stage takes for granted.
pub async fn load(world: &World, place: &Place, number: u64) -> Result<(store::Environment, Release), Fault> {
    let place = place.clone();
    world
        .store
        .read(move |db| Ok((db.environment(&place)?, db.release(&place, number)?.content)))
        .await
        .map_err(stored)
}

/// How many hosts the environment is to have.
pub fn desired(environment: &store::Environment, release: &Release) -> u32 {
    environment.desired.unwrap_or(release.spec.scaling.min).max(1)
}

fn resources(world: &World, size: &str) -> Result<Resources, Fault> {
    world.platform.resources(size).ok_or_else(|| {
        let known: Vec<&str> = world.platform.sizes.keys().map(String::as_str).collect();
        Fault::order(format!("there is no size class `{size}`"))
            .next(format!("use one of {}", known.join(", ")))
    })
}

/// The rows of the release's hosts: those that are there, and as many new ones as are missing to `count`.
pub async fn fleet(
    world: &World,
    environment: &store::Environment,
    release: &Release,
    count: usize,
) -> Result<Vec<store::Host>, Fault> {
    let (place, number, image, size) = (
        environment.place.clone(),
        release.number,
        release.image,
        release.spec.host.size.clone(),
    );
    let by = By::platform(crate::clock::now());
    let fresh: Vec<HostId> = (0..count)
        .map(|_| HostId::from_bits(crate::clock::bits()))
        .collect();
    let hosts = world.store.write(move |tx| {
        let mut hosts = tx.hosts_of_release(&place, number)?;
        hosts.retain(|host| !matches!(host.state, HostState::Failed | HostState::Draining));
        for id in fresh.into_iter().skip(hosts.len()) {
            let (place, size) = (place.clone(), size.clone());
            let new = NewHost {
                id,
                place,
                release: Some(number),
                role: HostRole::App,
                image: Some(image),
                size,
            };
            hosts.push(tx.create_host(&new, &by)?);
        }
        Ok(hosts)
    });
    hosts.await.map_err(stored)
}

/// Starts one host, or gives one that runs its environment again.
pub async fn start(
    world: &World,
    attempt: &Attempt,
    environment: &store::Environment,
    release: &Release,
    host: store::Host,
) -> Result<Vec<String>, Fault> {
    let variables = variables::of(world, environment, release).await?;
    let order = HostOrder {
        host: host.id.clone(),
        place: environment.place.clone(),
        role: HostRole::App,
        image: host.image.unwrap_or(release.image),
        network: environment.network(),
        address: host.address,
        uid_base: environment.uid_base,
        resources: resources(world, &release.spec.host.size)?,
        port: release.spec.host.port,
        environment: variables.all,
        secrets: variables.secrets,
        processes: processes(world, &environment.place, release).await?,
    };
    let up = world
        .node
        .start(&attempt.ticket.part(host.id.as_str()), &order)
        .await?;
    info!(host.id = %host.id, duration_ms = up.duration_ms, "host {} of {} runs", host.id, environment.place);
    Ok(up.fallbacks)
}

async fn database(
    world: &World,
    attempt: &Attempt,
    environment: &store::Environment,
    release: &Release,
) -> Result<(), Fault> {
    let Some(wanted) = &release.spec.database else {
        return Ok(());
    };
    let host = database_host(world, environment).await?;
    let password = variables::reveal(
        &world.store,
        &environment.place,
        variables::DATABASE_PASSWORD,
        None,
    )
    .await?;
    let order = DatabaseOrder {
        host: host.id,
        place: environment.place.clone(),
        engine: wanted.engine,
        network: environment.network(),
        address: host.address,
        uid_base: environment.uid_base,
        resources: resources(world, DATABASE_SIZE)?,
        name: variables::DATABASE_NAME.into(),
        password: password.ok_or_else(|| Fault::platform("the database's password is not in the vault"))?,
    };
    let up = world
        .node
        .ensure(&attempt.ticket.part("database"), &order)
        .await?;
    info!(
        duration_ms = up.duration_ms,
        "the database of {} answers", environment.place
    );
    let (place, by) = (environment.place.clone(), By::platform(crate::clock::now()));
    let written = world.store.write(move |tx| {
        tx.set_host_state(&order.host, HostState::Serving, None, &by)?;
        tx.set_database(&place, Some(&order.host), true, &by)
    });
    written.await.map_err(stored)
}

/// The row of the environment's database host and its password in the vault, both made when they are not there.
async fn database_host(world: &World, environment: &store::Environment) -> Result<store::Host, Fault> {
    let (place, known) = (environment.place.clone(), environment.database_host.clone());
    let fresh = HostId::from_bits(crate::clock::bits());
    let by = By::platform(crate::clock::now());
    let written = world.store.write(move |tx| {
        tx.generate_secret(&place, variables::DATABASE_PASSWORD, &by)?;
        if let Some(known) = known {
            return tx.host(&known);
        }
        let new = NewHost {
            id: fresh,
            place: place.clone(),
            release: None,
            role: HostRole::Database,
            image: None,
            size: DATABASE_SIZE.into(),
        };
        let host = tx.create_host(&new, &by)?;
        tx.set_database(&place, Some(&host.id), false, &by)?;
        Ok(host)
    });
    written.await.map_err(stored)
}

/// What the agent starts by itself: the `Procfile` of an app without an appspec.
pub(super) async fn processes(
    world: &World,
    place: &Place,
    release: &Release,
) -> Result<BTreeMap<String, String>, Fault> {
    if release.spec.deploy.appspec.is_some() {
        return Ok(BTreeMap::new());
    }
    let bytes = world.repository(place).read(&release.commit.id, "Procfile").await;
    let bytes = bytes.map_err(|error| Fault::order(format!("cannot read Procfile: {}", chain(&error))))?;
    Ok(spec::procfile(&String::from_utf8_lossy(&bytes), "Procfile").0)
}
