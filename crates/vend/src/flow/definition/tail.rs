//! From hosts to the record: what strategies differ in.
//!
//! A pause takes effect at a gate, between two steps: what is done on hosts is never held half way.

use model::spec::{Environment, Strategy};
use serde_json::{Map, Value, json};

use super::{Stage, add as put, retry, task};

const HOUR: i64 = 3600;
/// Nobody holds a deployment longer; then it goes back.
const HELD: i64 = 7 * 24 * HOUR;

const PROVISION: Stage = Stage::new("Provision", "provision", "$.fleet", 900);
const DEPLOY: Stage = Stage::new("Deploy", "deploy", "$.deployed", 4 * HOUR);
const VALIDATE: Stage = Stage::new("Validate", "validate", "$.verdict", 900);
const ARRANGE: Stage = Stage::new("Arrange", "arrange", "$.arranged", 900);
const READY: Stage = Stage::new("Ready", "gate", "$.gate", HELD);
const HOLD: Stage = Stage::new("Hold", "gate", "$.gate", HELD);
const SHIFT: Stage = Stage::new("Shift", "shift", "$.shifted", 900);
const RECORD: Stage = Stage::new("Record", "record", "$.seal", 300);

/// The states of a release's strategy. Gives the first one.
pub fn add(states: &mut Map<String, Value>, environment: &Environment) -> &'static str {
    let deploy = &environment.deploy;
    if environment.placement.is_some() {
        return on_machines(states, environment);
    }
    let first = match (deploy.strategy, &deploy.steps) {
        (Strategy::InPlace, _) => in_place(states),
        (Strategy::Canary | Strategy::Linear, Some(steps)) => {
            by_steps(states, steps.interval.as_secs().max(1))
        }
        _ => at_once(states),
    };
    if let Some(migrate) = &deploy.migrate {
        let script_s = migrate.timeout.as_secs();
        let stage = Stage::new("Migrate", "migrate", "$.migrated", script_s + 900);
        chain(states, &[PROVISION, stage], DEPLOY.name);
        if deploy.strategy == Strategy::InPlace {
            let first = Stage::new("MigrateFirst", "migrate", "$.migrated", script_s + 900);
            chain(states, &[ARRANGE, first], HOLD.name);
        }
    }
    first
}

/// Those of a way back: whatever the strategy is, traffic moves at once. The release's migration ran when it was made.
pub fn back(states: &mut Map<String, Value>, environment: &Environment) -> &'static str {
    match (&environment.placement, environment.deploy.strategy) {
        (Some(_), _) => on_machines(states, environment),
        (None, Strategy::InPlace) => in_place(states),
        _ => at_once(states),
    }
}

/// Where there are machines already, one stage deploys to them in the place of those that make hosts and move traffic:
/// once, or once for each of their zones, with a wait between them.
fn on_machines(states: &mut Map<String, Value>, environment: &Environment) -> &'static str {
    let machines = Stage::new("Machines", "machines", "$.deployed", 8 * HOUR);
    chain(states, &[machines, RECORD], "Live");
    if environment.deploy.zones.is_some() {
        chain(states, &[machines], "Zones");
        choose(states, "Zones", &[("$.deployed.more", "Monitor")], RECORD.name);
        states.insert(
            "Monitor".into(),
            json!({ "Type": "Wait", "SecondsPath": "$.deployed.monitor_s", "Next": "Machines" }),
        );
    }
    ends(states);
    "Machines"
}

/// New hosts, and all traffic at once.
pub fn at_once(states: &mut Map<String, Value>) -> &'static str {
    chain(
        states,
        &[PROVISION, DEPLOY, VALIDATE, READY, SHIFT, RECORD],
        "Live",
    );
    ends(states)
}

/// The plan says whether hosts can stay: they cannot when the image has changed, or when there are none.
fn in_place(states: &mut Map<String, Value>) -> &'static str {
    at_once(states);
    choose(states, "Way", &[("$.plan.rolls", "Arrange")], "Provision");
    let roll = Stage::new("Roll", "roll", "$.rolled", 4 * HOUR);
    chain(states, &[ARRANGE, HOLD, roll], "Rolled");
    choose(states, "Rolled", &[("$.rolled.more", "Hold")], "Settle");
    chain(
        states,
        &[Stage::new("Settle", "settle", "$.shifted", 900)],
        "Record",
    );
    "Way"
}

/// Without an old fleet there is nobody to share the traffic with, or to be compared with.
fn by_steps(states: &mut Map<String, Value>, pause_s: i64) -> &'static str {
    at_once(states);
    chain(states, &[VALIDATE], "Steps");
    choose(states, "Steps", &[("$.plan.steps", "Hold")], "Ready");
    chain(
        states,
        &[HOLD, Stage::new("Step", "step", "$.stepped", 900)],
        "Watch",
    );
    states.insert(
        "Watch".into(),
        json!({ "Type": "Wait", "Seconds": pause_s, "Next": "Analyse" }),
    );
    chain(
        states,
        &[Stage::new("Analyse", "analyse", "$.analysis", 900)],
        "Analysed",
    );
    let after = [("$.analysis.again", "Watch"), ("$.analysis.more", "Hold")];
    choose(states, "Analysed", &after, "Ready");
    "Provision"
}

fn chain(states: &mut Map<String, Value>, stages: &[Stage], last: &str) {
    for (index, stage) in stages.iter().enumerate() {
        let next = stages.get(index + 1).map_or(last, |stage| stage.name);
        put(states, task(stage, next));
    }
}

/// The first flag that is there and set says where to go.
fn choose(states: &mut Map<String, Value>, name: &str, flags: &[(&str, &str)], otherwise: &str) {
    let choice = |(flag, next): &(&str, &str)| {
        json!({
            "And": [{ "Variable": flag, "IsPresent": true }, { "Variable": flag, "BooleanEquals": true }],
            "Next": next,
        })
    };
    let choices: Vec<Value> = flags.iter().map(choice).collect();
    states.insert(
        name.into(),
        json!({ "Type": "Choice", "Choices": choices, "Default": otherwise }),
    );
}

/// Where every way ends: live, or undone. Gives the first state of [`at_once`].
fn ends(states: &mut Map<String, Value>) -> &'static str {
    states.insert("Live".into(), json!({ "Type": "Succeed" }));
    // In place, the way back is as long as the way was.
    let (name, mut unwind) = task(&Stage::new("Unwind", "unwind", "$.unwound", 4 * HOUR), "Failed");
    unwind["Retry"] = json!([retry(10)]);
    unwind
        .as_object_mut()
        .expect("a state is an object")
        .remove("Catch");
    states.insert(name, unwind);
    states.insert(
        "Failed".into(),
        json!({ "Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause" }),
    );
    PROVISION.name
}
