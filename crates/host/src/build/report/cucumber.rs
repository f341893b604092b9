//! Cucumber's JSON: features with scenarios with steps. A scenario is a test.

use serde::Deserialize;

use super::{CASES, Case, Error, Outcome, Telling};

#[derive(Deserialize)]
struct Feature {
    #[serde(default)]
    name: String,
    #[serde(default)]
    elements: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    steps: Vec<Step>,
    #[serde(default)]
    before: Vec<Step>,
    #[serde(default)]
    after: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    name: String,
    #[serde(default)]
    result: Option<Ran>,
}

#[derive(Deserialize)]
struct Ran {
    #[serde(default)]
    status: String,
    /// Nanoseconds.
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    error_message: Option<String>,
}

pub(super) fn read(bytes: &[u8], telling: Telling<'_>) -> Result<Vec<Case>, Error> {
    let features: Vec<Feature> =
        serde_json::from_slice(bytes).map_err(|error| Error::Json(telling.short(&error.to_string())))?;
    let mut cases = Vec::new();
    for feature in &features {
        // A background's steps belong to the scenario after it.
        let mut background: Option<&Scenario> = None;
        for scenario in &feature.elements {
            if scenario.kind == "background" {
                background = Some(scenario);
                continue;
            }
            if cases.len() >= CASES {
                return Err(Error::TooMany);
            }
            cases.push(case(feature, background.take(), scenario, telling));
        }
    }
    Ok(cases)
}

fn case(feature: &Feature, background: Option<&Scenario>, scenario: &Scenario, telling: Telling<'_>) -> Case {
    let parts = background.into_iter().chain([scenario]);
    let steps = parts.flat_map(|part| part.before.iter().chain(&part.steps).chain(&part.after));
    let (mut duration, mut outcome) = (0.0, Outcome::Passed);
    for step in steps {
        let Some(ran) = &step.result else {
            continue;
        };
        duration += ran.duration.clamp(0.0, 1e15);
        let failed = matches!(outcome, Outcome::Failed(_));
        match ran.status.as_str() {
            "failed" | "ambiguous" | "undefined" if !failed => {
                let told = ran.error_message.clone();
                let message = told.unwrap_or_else(|| format!("the step `{}` is {}", step.name, ran.status));
                outcome = Outcome::Failed(telling.short(&message));
            }
            "skipped" | "pending" if !failed => outcome = Outcome::Skipped,
            _ => {}
        }
    }
    let name = match feature.name.is_empty() {
        true => scenario.name.clone(),
        false => format!("{}: {}", feature.name, scenario.name),
    };
    Case {
        name: telling.short(&name),
        duration_ms: (duration / 1e6) as u64,
        outcome,
    }
}
