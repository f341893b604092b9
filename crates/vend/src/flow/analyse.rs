//! After a step was watched: are the new hosts worse than the old ones were in the same minutes?

use std::sync::Arc;

use jiff::Timestamp;
use model::{
    DeploymentId, Place,
    port::{Code, Fault},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::By;
use tracing::info;

use super::{
    Attempt, World,
    judge::{Outcome, Part, judge},
    muster, provision,
    state::Planned,
    step::{self, Stepped},
    stored,
};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
    stepped: Stepped,
    analysis: Option<Analysed>,
}

/// What an analysis leaves.
#[derive(Serialize, Deserialize)]
pub struct Analysed {
    pub step: u32,
    /// When it was made.
    #[serde(default)]
    pub at: Timestamp,
    /// How often the step was watched for another interval, because there was too little to judge.
    waited: u32,
    /// Watch it again.
    again: bool,
    /// Another step follows.
    more: bool,
}

/// A step with too few requests is watched so many intervals more. Then it goes on: nobody asked, so nobody is hurt.
const WAITS: u32 = 3;

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Value, Fault> {
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
    let now = step::look(world, &place, &plan).await?;
    let since = &stepped.since;
    let verdict = judge(
        &steps.analysis,
        Part::between(since.new.as_ref(), now.new.as_ref()),
        Part::between(since.old.as_ref(), now.old.as_ref()),
    );
    let waited = analysis
        .filter(|last| last.step == stepped.step)
        .map_or(0, |last| last.waited);
    let again = matches!(verdict.outcome, Outcome::Unknown { .. }) && waited < WAITS;
    let mut told = json!(verdict);
    told["step"] = json!(stepped.step);
    told["steps"] = json!(stepped.steps);
    told["percent"] = json!(stepped.share);
    keep(world, &deployment, told.clone()).await?;
    info!("step {} of v{} of {place}: {told}", stepped.step, plan.release);
    if let Outcome::Worse { reason } = verdict.outcome {
        let (release, share) = (plan.release, stepped.share);
        let fault = Fault::customer(format!(
            "v{release} was taken back at {share} % of the traffic: {reason}"
        ));
        let fault = fault.code(Code::AlarmActive);
        return Err(fault.next(format!("vend deployments show {deployment}")));
    }
    muster::tend(world, attempt, &place, &plan, &deployment).await?;
    let analysed = Analysed {
        step: stepped.step,
        at: crate::clock::now(),
        waited: if again { waited + 1 } else { 0 },
        again,
        more: stepped.step < stepped.steps,
    };
    told["at"] = json!(analysed.at);
    told["again"] = json!(analysed.again);
    told["more"] = json!(analysed.more);
    told["waited"] = json!(analysed.waited);
    Ok(told)
}

async fn keep(world: &World, deployment: &DeploymentId, analysis: Value) -> Result<(), Fault> {
    let (deployment, by) = (deployment.clone(), By::platform(crate::clock::now()));
    let kept = world
        .store
        .write(move |tx| tx.record_analysis(&deployment, &analysis, &by));
    kept.await.map_err(stored)
}
