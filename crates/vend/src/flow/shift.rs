//! The traffic, from the release that serves to the one that is to: one change of rows, one change of weights.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    DeploymentId, HostId, Place,
    port::{Deployer as _, Fault, LifecycleEvent},
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

/// One lifecycle event on all hosts of a fleet. A failed hook fails the shift.
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
    let known = deployments(world, place, fleet.release.number).await?;
    for host in &fleet.hosts {
        // A host that was kept has the bundle of the deployment that made it, and no other.
        let deployment = known.get(host).unwrap_or(deployment);
        let mut order = deploy::order(fleet.release, place, deployment, host, vec![event]);
        order.ignores_stop = fleet.ignores_stop;
        let ticket = attempt
            .steady
            .part(&format!("{host}.{}", event.to_string().to_lowercase()));
        let deployed = world.node.deploy(&ticket, &order).await?;
        if let Some(failed) = order.failure(&deployed.events) {
            return Err(deploy::fault(failed, host, &deployed.log));
        }
    }
    Ok(())
}

/// Which deployment put the release on each of its hosts.
async fn deployments(
    world: &World,
    place: &Place,
    release: u64,
) -> Result<BTreeMap<HostId, DeploymentId>, Fault> {
    let place = place.clone();
    let found = world.store.read(move |db| {
        let mut found = BTreeMap::new();
        // Newest first: the first one that names a host is the one whose bundle it has.
        for deployment in db
            .deployments(&place, 200)?
            .into_iter()
            .filter(|own| own.release == release)
        {
            for (host, _) in db.deployment_events(&deployment.id)? {
                found.entry(host).or_insert_with(|| deployment.id.clone());
            }
        }
        Ok(found)
    });
    found.await.map_err(stored)
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
