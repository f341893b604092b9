//! The revision onto the hosts: CodeDeploy's lifecycle up to the point where traffic may come.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    DeploymentId, HostId, Place,
    port::{DeployOrder, Deployed, Deployer as _, EventReport, Fault, LifecycleEvent, LogRef},
    release::Release,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, DeploymentState, HostState};

use super::{Attempt, World, healthy, provision, state::Planned, stored};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

const AT_ONCE: usize = 4;

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        deployment,
    } = attempt.read()?;
    let (_, release) = provision::load(world, &place, plan.release).await?;
    provision::begin(world, attempt, &place, &plan, &deployment, &release).await?;
    let (own, id) = (place.clone(), deployment.clone());
    let begun = world.store.write(move |tx| {
        tx.set_deployment_state(&id, DeploymentState::InProgress)?;
        let asleep = tx.environment(&own)?.asleep_at.is_some();
        Ok((tx.hosts_of_release(&own, plan.release)?, asleep))
    });
    let (hosts, asleep) = begun.await.map_err(stored)?;
    let waiting: Vec<HostId> = hosts
        .iter()
        .filter(|host| host.state == HostState::Starting)
        .map(|host| host.id.clone())
        .collect();
    let total = waiting.len() as u32;
    let deploying = stream::iter(waiting)
        .map(|host| async {
            let failure = one(world, attempt, &release, &place, &deployment, host).await?;
            if asleep && failure.is_none() {
                // Somebody waits for the first host that serves, not for all of them.
                world.routes.apply().await?;
            }
            Ok::<_, Fault>(failure)
        })
        .buffer_unordered(AT_ONCE);
    let results: Vec<Option<Fault>> = deploying.try_collect().await?;
    let failures: Vec<Fault> = results.into_iter().flatten().collect();
    let well = total - failures.len() as u32;
    match failures.into_iter().next() {
        Some(fault) if !healthy::is_enough(release.spec.deploy.minimum_healthy, total, well) => Err(fault),
        _ => Ok(json!({ "hosts": total, "succeeded": well })),
    }
}

async fn one(
    world: &World,
    attempt: &Attempt,
    release: &Release,
    place: &Place,
    deployment: &DeploymentId,
    host: HostId,
) -> Result<Option<Fault>, Fault> {
    let order = order(
        release,
        place,
        deployment,
        &host,
        LifecycleEvent::BEFORE_TRAFFIC.to_vec(),
    );
    let deployed = world
        .node
        .deploy(&attempt.steady.part(host.as_str()), &order)
        .await?;
    let failure = deployed.failure().map(|event| fault(event, &host, &deployed.log));
    record(world, deployment, &host, deployed, failure.as_ref()).await?;
    Ok(failure)
}

pub fn order(
    release: &Release,
    place: &Place,
    deployment: &DeploymentId,
    host: &HostId,
    events: Vec<LifecycleEvent>,
) -> DeployOrder {
    DeployOrder {
        deployment: deployment.clone(),
        place: place.clone(),
        host: host.clone(),
        revision: release.revision,
        appspec: release.spec.deploy.appspec.clone(),
        events,
        migration: None,
    }
}

/// One row per host and event, and the host's new state, in one transaction.
async fn record(
    world: &World,
    deployment: &DeploymentId,
    host: &HostId,
    deployed: Deployed,
    failure: Option<&Fault>,
) -> Result<(), Fault> {
    let (deployment, host) = (deployment.clone(), host.clone());
    let reason = failure.map(|fault| fault.message.clone());
    let by = By::platform(crate::clock::now());
    let written = world.store.write(move |tx| {
        tx.record_events(&deployment, &host, &deployed.events)?;
        let state = if reason.is_some() {
            HostState::Failed
        } else {
            HostState::Ready
        };
        tx.set_host_state(&host, state, reason.as_deref(), &by)
    });
    written.await.map_err(stored)
}

/// One sentence that says what failed.
pub fn fault(event: &EventReport, host: &HostId, log: &LogRef) -> Fault {
    let message = match &event.failure {
        Some(failure) => {
            let last = failure
                .log
                .lines()
                .rev()
                // The agent's own remarks are not what the script said.
                .find(|line| !line.trim().is_empty() && !line.starts_with("[vend]"))
                .unwrap_or_default();
            let said = if last.is_empty() {
                String::new()
            } else {
                format!("; it last said: {last}")
            };
            format!("{} failed on host {host}: {}{said}", event.event, failure.message)
        }
        None => format!("{} failed on host {host}", event.event),
    };
    Fault::customer(message)
        .evidence(log.clone())
        .next(format!("vend logs {log}"))
}
