//! The end of the corridor: the push is done, and what it made is on record.

use std::sync::Arc;

use model::{DeploymentId, Place, port::Fault};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{By, DeploymentState, PushState};

use super::{Attempt, World, state::Planned, stored};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    push: Option<u64>,
    deployment: DeploymentId,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
    let Input {
        place,
        plan,
        push,
        deployment,
    } = attempt.read()?;
    let by = By::platform(crate::clock::now());
    let finished = world.store.write(move |tx| {
        tx.finish_deployment(&deployment, DeploymentState::Succeeded, None, None, &by)?;
        push.map_or(Ok(()), |push| tx.finish_push(push, PushState::Done, None, &by))
    });
    finished.await.map_err(stored)?;
    world.pokes.fleet.notify_one();
    world.pokes.pushes.notify_one();
    Ok(json!({ "release": plan.release, "url": format!("http://{}", world.platform.hostname(&place)) }))
}
