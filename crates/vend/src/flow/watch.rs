//! While a step of canary or linear is watched: its interval passes, and both fleets are kept up meanwhile, as at a gate.

use std::sync::Arc;

use model::{DeploymentId, Place, port::Fault};
use serde::Deserialize;
use serde_json::json;

use super::{Attempt, Outcome, World, analyse::Analysed, muster, provision, state::Planned, step::Stepped};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
    stepped: Stepped,
    analysis: Option<Analysed>,
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Outcome, Fault> {
    let Input {
        place,
        plan,
        deployment,
        stepped,
        analysis,
    } = attempt.read()?;
    let (_, release) = provision::load(world, &place, plan.release).await?;
    let Some(steps) = &release.spec.deploy.steps else {
        return Err(Fault::order("the release does not go by steps"));
    };
    // What was too little to judge is watched for another interval.
    let again = analysis.filter(|last| last.step == stepped.step);
    let from = again.map_or(stepped.at, |last| last.at);
    let until = from.saturating_add(steps.interval).unwrap_or(from);
    muster::tend(world, attempt, &place, &plan, &deployment).await?;
    Ok(match crate::clock::now() < until {
        true => Outcome::Until(until),
        false => Outcome::Done(json!({})),
    })
}
