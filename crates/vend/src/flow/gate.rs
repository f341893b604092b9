//! Where a deployment can be held: between two steps, never in the middle of one.

use std::sync::Arc;

use model::{DeploymentId, Place, port::Fault};
use serde::Deserialize;
use serde_json::json;
use store::DeploymentState;

use super::{Attempt, Outcome, World, muster, state::Planned, stored};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
}

/// Goes on at once unless somebody holds the deployment. However long that takes, its fleets are kept up.
pub async fn pass(world: &Arc<World>, attempt: &Attempt) -> Result<Outcome, Fault> {
    let Input {
        place,
        plan,
        deployment,
    } = attempt.read()?;
    let id = deployment.clone();
    let held = world.store.write(move |tx| {
        let held = tx.deployment(&id)?.paused.is_some();
        let state = match held {
            true => DeploymentState::Ready,
            false => DeploymentState::InProgress,
        };
        tx.set_deployment_state(&id, state)?;
        Ok(held)
    });
    if !held.await.map_err(stored)? {
        return Ok(Outcome::Done(json!({})));
    }
    muster::tend(world, attempt, &place, &plan, &deployment).await?;
    Ok(Outcome::Later)
}
