//! The traffic, from the release that serves to the one that is to: one change of rows, one change of weights.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use model::{
    DeploymentId, HostId, Place,
    port::{Deployer as _, EventStatus, Fault, LifecycleEvent},
    release::Release,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, HostState};

use super::{Attempt, World, deploy, provision, state::Planned, stored, validate};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

pub struct Fleet<'a> {
    pub release: &'a Release,
    pub hosts: Vec<HostId>,
    /// What comes in its place does not mind what fails on its way out.
    pub ignores_stop: bool,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        deployment,
    } = attempt.read()?;
    let (environment, new) = provision::load(world, &place, plan.release).await?;
    let ignores_stop = new.spec.deploy.ignore_stop_failures;
    let arriving = Fleet {
        release: &new,
        hosts: validate::usable(world, &place, plan.release).await?,
        ignores_stop,
    };
    let hook = |fleet, event| hooks(world, attempt, &place, &deployment, fleet, event);
    // By steps, this was before the first of them.
    if !plan.steps {
        hook(&arriving, LifecycleEvent::BeforeAllowTraffic).await?;
    }
    let old = match plan.old() {
        Some(number) => Some(provision::load(world, &place, number).await?.1),
        None => None,
    };
    let leaving = match &old {
        Some(old) => Some(Fleet {
            release: old,
            hosts: validate::usable(world, &place, old.number).await?,
            ignores_stop,
        }),
        None => None,
    };
    if let Some(leaving) = &leaving {
        hook(leaving, LifecycleEvent::BeforeBlockTraffic).await?;
    }
    switch(world, &place, plan.release).await?;
    hook(&arriving, LifecycleEvent::AfterAllowTraffic).await?;
    if let Some(leaving) = &leaving {
        hook(leaving, LifecycleEvent::AfterBlockTraffic).await?;
    }
    trim(world, &environment, &new).await?;
    Ok(json!({ "live": plan.release, "hosts": arriving.hosts.len() }))
}

/// Makes a release live and waits until the edge serves it so.
pub async fn switch(world: &World, place: &Place, release: u64) -> Result<(), Fault> {
    let (_, content) = provision::load(world, place, release).await?;
    let by = By::platform(crate::clock::now());
    let retire_at = by.at + content.spec.deploy.keep_old;
    let own = place.clone();
    world
        .store
        .write(move |tx| tx.set_live(&own, release, retire_at, &by))
        .await
        .map_err(stored)?;
    world.routes.apply().await
}

/// Hosts whose hooks run at the same time.
const AT_ONCE: usize = 8;

/// One lifecycle event on all hosts of a fleet, for this deployment: on the hosts that it takes out, too, so that what ends
/// it ends their scripts. Which revision's script runs is the host's to know. Hosts with a script are on record. A failed
/// hook fails the shift, when all hosts have had their turn.
pub async fn hooks(
    world: &World,
    attempt: &Attempt,
    place: &Place,
    deployment: &DeploymentId,
    fleet: &Fleet<'_>,
    event: LifecycleEvent,
) -> Result<(), Fault> {
    if fleet.release.spec.deploy.appspec.is_none() {
        return Ok(());
    }
    let one = |host: HostId| async move {
        let mut order = deploy::order(fleet.release, place, deployment, &host, vec![event]);
        order.ignores_stop = fleet.ignores_stop;
        let ticket = attempt
            .steady
            .part(&format!("{host}.{}", event.to_string().to_lowercase()));
        let mut deployed = world.node.deploy(&ticket, &order).await?;
        let failure = order.failure(&deployed.events);
        let failure = failure.map(|failed| deploy::fault(failed, &host, &deployed.log));
        deployed
            .events
            .retain(|report| report.status != EventStatus::Skipped);
        let deployment = deployment.clone();
        let kept = world
            .store
            .write(move |tx| tx.record_events(&deployment, &host, &deployed.events));
        kept.await.map_err(stored)?;
        failure.map_or(Ok(()), Err)
    };
    let hosts = stream::iter(fleet.hosts.iter().cloned().map(one));
    let all: Vec<Result<(), Fault>> = hosts.buffer_unordered(AT_ONCE).collect().await;
    all.into_iter().collect()
}

/// A live fleet that is larger than it is to be gives its newest hosts back.
pub async fn trim(world: &World, environment: &store::Environment, release: &Release) -> Result<(), Fault> {
    let wanted = provision::desired(environment, release) as usize;
    let (place, number) = (environment.place.clone(), release.number);
    let (drain, by) = (release.spec.deploy.drain, By::platform(crate::clock::now()));
    let written = world.store.write(move |tx| {
        let mut serving = tx.hosts_of_release(&place, number)?;
        serving.retain(|host| host.state == HostState::Serving);
        for host in serving.iter().skip(wanted) {
            tx.set_host_state(&host.id, HostState::Draining, Some("scaled in"), &by)?;
            tx.set_host_retirement(&host.id, Some(by.at + drain))?;
        }
        Ok(())
    });
    written.await.map_err(stored)?;
    world.routes.apply().await
}
