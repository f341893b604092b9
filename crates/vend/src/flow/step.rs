//! One step of canary or linear: a share more of the traffic for the new hosts.

use std::sync::Arc;

use edge::GroupStats;
use jiff::Timestamp;
use model::{
    DeploymentId, Place,
    port::{Fault, LifecycleEvent},
    stage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Arriving, By, DeploymentState};
use tracing::info;

use super::{
    Attempt, World, muster, provision,
    shift::{Fleet, Shift},
    silent,
    state::Planned,
    stored, validate,
};
use crate::reconcile::routes;

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
    stepped: Option<Stepped>,
}

/// What a step leaves.
#[derive(Serialize, Deserialize)]
pub struct Stepped {
    /// From 1.
    pub step: u32,
    pub steps: u32,
    /// Percent of the traffic.
    pub share: u32,
    /// When it began.
    #[serde(default)]
    pub at: Timestamp,
    /// What both had done then.
    pub since: Looks,
}

/// What the edge counted of the new hosts and of the old ones.
#[derive(Serialize, Deserialize)]
pub struct Looks {
    pub new: Option<GroupStats>,
    pub old: Option<GroupStats>,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        deployment,
        stepped,
    } = attempt.read()?;
    let (_, release) = provision::load(world, &place, plan.release).await?;
    let shares = stage::shares(&release.spec.deploy);
    let step = stepped.map_or(0, |stepped| stepped.step as usize);
    let Some(share) = shares.get(step).copied() else {
        return Err(Fault::order("the execution has made all its steps"));
    };
    if step == 0 {
        let mut arriving = Fleet {
            release: &release,
            hosts: validate::usable(world, &place, plan.release).await?,
            ignores_stop: release.spec.deploy.ignore_stop_failures,
        };
        let shift = Shift {
            world,
            attempt,
            place: &place,
            plan: &plan,
            deployment: &deployment,
        };
        shift
            .admit(&mut arriving, LifecycleEvent::BeforeAllowTraffic)
            .await?;
    }
    muster::tend(world, attempt, &place, &plan, &deployment).await?;
    let (own, by) = (place.clone(), By::platform(crate::clock::now()));
    let arriving = Arriving {
        release: plan.release,
        share: Some(share),
    };
    let shared = world.store.write(move |tx| {
        tx.share_traffic(&own, Some(arriving), &by)?;
        tx.set_deployment_state(&deployment, DeploymentState::Baking)
    });
    shared.await.map_err(stored)?;
    world.routes.apply().await?;
    info!("v{} of {place} gets {share} % of the traffic", plan.release);
    let stepped = Stepped {
        step: step as u32 + 1,
        steps: shares.len() as u32,
        share,
        at: crate::clock::now(),
        since: look(world, &place, &plan).await?,
    };
    Ok(json!(stepped))
}

/// What the edge has counted until now.
pub async fn look(world: &World, place: &Place, plan: &Planned) -> Result<Looks, Fault> {
    let stats = world.edge.stats().await.map_err(silent)?;
    let of = |release: u64| {
        let name = routes::group(place, release);
        stats.iter().find(|stats| stats.group == name).cloned()
    };
    Ok(Looks {
        new: of(plan.release),
        old: plan.old().and_then(of),
    })
}
