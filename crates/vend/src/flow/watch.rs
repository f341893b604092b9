//! While a step of canary or linear is watched: its interval passes, and both fleets are kept up meanwhile, as at a gate.

use std::sync::Arc;

use jiff::Timestamp;
use model::{DeploymentId, Place, port::Fault, spec::Steps};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Db, Error};

use super::{Attempt, Outcome, World, analyse::Analysed, muster, provision, state::Planned, step::Stepped};

#[derive(Deserialize)]
struct Input {
    place: Place,
    plan: Planned,
    deployment: DeploymentId,
    stepped: Stepped,
    analysis: Option<Analysed>,
}

impl Input {
    /// When the interval is over. What was too little to judge is watched for another one.
    fn until(&self, steps: &Steps) -> Timestamp {
        let again = self
            .analysis
            .as_ref()
            .filter(|last| last.step == self.stepped.step);
        let from = again.map_or(self.stepped.at, |last| last.at);
        from.saturating_add(steps.interval).unwrap_or(from)
    }

    fn told(&self, steps: &Steps) -> String {
        let Stepped {
            step,
            steps: all,
            share,
            ..
        } = &self.stepped;
        let until = self.until(steps).strftime("%Y-%m-%d %H:%M:%S UTC");
        let release = self.plan.release;
        format!(
            "v{release} to be watched with {share} % of the traffic, until {until} (step {step} of {all})"
        )
    }
}

/// What a watch waits for. `input`: its task's.
pub fn told(db: &Db<'_>, input: &Value) -> Result<Option<String>, Error> {
    let Ok(input) = Input::deserialize(input) else {
        return Ok(None);
    };
    let release = match db.release(&input.place, input.plan.release) {
        // What takes an environment away goes on for a moment without it.
        Err(Error::Missing { .. }) => return Ok(None),
        release => release?.content,
    };
    Ok(release.spec.deploy.steps.as_ref().map(|steps| input.told(steps)))
}

pub async fn run(world: &Arc<World>, attempt: &Attempt) -> Result<Outcome, Fault> {
    let input: Input = attempt.read()?;
    let (_, release) = provision::load(world, &input.place, input.plan.release).await?;
    let Some(steps) = &release.spec.deploy.steps else {
        return Err(Fault::order("the release does not go by steps"));
    };
    let until = input.until(steps);
    muster::tend(world, attempt, &input.place, &input.plan, &input.deployment).await?;
    Ok(match crate::clock::now() < until {
        true => Outcome::Until(until),
        false => Outcome::Done(json!({})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_says_what_it_watches_and_until_when() {
        let look = json!({ "new": null, "old": null });
        let place: Place = "acme/shop/dev".parse().unwrap();
        let input = |analysis: Value| -> Input {
            let own = json!({
                "place": place, "deployment": DeploymentId::from_bits(4),
                "plan": { "release": 3, "from": 2, "rolls": false, "steps": true },
                "stepped": { "step": 1, "steps": 4, "share": 10, "at": "2026-01-01T12:00:00Z", "since": look },
                "analysis": analysis,
            });
            Input::deserialize(&own).unwrap()
        };
        let steps = super::super::definition::tests::with("canary")
            .deploy
            .steps
            .unwrap();
        let interval = steps.interval;
        let at = |text: &str| text.parse::<Timestamp>().unwrap() + interval;
        let first = input(Value::Null);
        assert_eq!(first.until(&steps), at("2026-01-01T12:00:00Z"));
        let clock = at("2026-01-01T12:00:00Z").strftime("%Y-%m-%d %H:%M:%S UTC");
        assert_eq!(
            first.told(&steps),
            format!("v3 to be watched with 10 % of the traffic, until {clock} (step 1 of 4)")
        );
        let again = |step: u32| {
            input(
                json!({ "step": step, "at": "2026-01-01T13:00:00Z", "waited": 1, "again": true, "more": false }),
            )
        };
        assert_eq!(again(1).until(&steps), at("2026-01-01T13:00:00Z"));
        assert_eq!(
            again(9).until(&steps),
            at("2026-01-01T12:00:00Z"),
            "that was another step"
        );
    }
}
