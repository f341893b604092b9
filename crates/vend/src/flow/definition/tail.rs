//! From hosts to the record: what strategies differ in.
//!
//! A pause takes effect at a gate, between two steps: what is done on hosts is never held half way.

use model::{
    spec::{Environment, Strategy},
    stage,
};
use serde_json::{Map, Value, json};

use super::{HELD, HOUR, Stage, add as put, endless, task};

/// The wait after a zone. Where it is only held, it takes no time.
pub const MONITOR: &str = "Monitor";

/// The way back.
pub const UNWIND: &str = "Unwind";

/// What CodeDeploy gives a deployment, for all of its hosts together. Each script has a time-out of its own.
const DEPLOYMENT: i64 = 8 * HOUR;

const PROVISION: Stage = Stage::new("Provision", "provision", "$.fleet", 900);
const MACHINES: Stage = Stage::new("Machines", "machines", "$.deployed", DEPLOYMENT);
const DEPLOY: Stage = Stage::new("Deploy", "deploy", "$.deployed", DEPLOYMENT);
const VALIDATE: Stage = Stage::new("Validate", "validate", "$.verdict", 900);
const ARRANGE: Stage = Stage::new("Arrange", "arrange", "$.arranged", 900);
const READY: Stage = Stage::new("Ready", "gate", "$.gate", HELD);
const HOLD: Stage = Stage::new("Hold", "gate", "$.gate", HELD);
/// Hooks run there, each with its own time-out, as in all states in which they do.
const SHIFT: Stage = Stage::new("Shift", "shift", "$.shifted", DEPLOYMENT);
const RECORD: Stage = Stage::new("Record", "record", "$.seal", 300);

/// The states of a release's strategy. Gives the first one.
pub fn add(states: &mut Map<String, Value>, environment: &Environment) -> &'static str {
    let deploy = &environment.deploy;
    let first = follow(states, &stage::tail(environment), Some(environment));
    match (&environment.placement, deploy.strategy, &deploy.steps) {
        (Some(_), ..) => by_waves(states),
        (None, Strategy::InPlace, _) => {
            let way = in_place(states);
            // On the hosts that are there, it runs before the first of them changes.
            if let Some(stage) = migrate(environment, "MigrateFirst") {
                chain(states, &[ARRANGE, stage], HOLD.name);
            }
            return way;
        }
        (None, Strategy::Canary | Strategy::Linear, Some(steps)) => {
            by_steps(states, steps.interval.as_secs().max(1));
        }
        _ => {}
    }
    first
}

/// Those of a way back: whatever the strategy is, traffic moves at once. The release's migration ran when it was made.
pub fn back(states: &mut Map<String, Value>, environment: &Environment) -> &'static str {
    let first = follow(states, &stage::back(environment), None);
    match (&environment.placement, environment.deploy.strategy) {
        (Some(_), _) => by_waves(states),
        (None, Strategy::InPlace) => return in_place(states),
        _ => {}
    }
    first
}

/// Those of a live release that gets another number of hosts.
pub fn again(states: &mut Map<String, Value>) -> &'static str {
    follow(states, &stage::again(), None)
}

/// Machines that are there already are deployed to some at a time; where it is held, and between two zones, which are
/// watched first, there is a gate.
fn by_waves(states: &mut Map<String, Value>) {
    chain(states, &[MACHINES], "Waves");
    choose(states, "Waves", &[("$.deployed.more", MONITOR)], RECORD.name);
    states.insert(
        MONITOR.into(),
        json!({ "Type": "Wait", "SecondsPath": "$.deployed.monitor_s", "Next": HOLD.name }),
    );
    chain(states, &[HOLD], MACHINES.name);
}

/// The stages one after the other, all traffic at once. `environment`: that of a migration.
fn follow(
    states: &mut Map<String, Value>,
    order: &[stage::Stage],
    environment: Option<&Environment>,
) -> &'static str {
    let own = |stage: &stage::Stage| match stage {
        stage::Stage::Provision => vec![PROVISION],
        stage::Stage::Migrate => environment
            .and_then(|own| migrate(own, "Migrate"))
            .into_iter()
            .collect(),
        stage::Stage::Deploy => vec![DEPLOY],
        stage::Stage::Validate => vec![VALIDATE],
        stage::Stage::Shift => vec![READY, SHIFT],
        stage::Stage::Machines => vec![MACHINES],
        stage::Stage::Record => vec![RECORD],
        // Before the hosts.
        stage::Stage::Source | stage::Stage::Make | stage::Stage::Plan | stage::Stage::Approve => Vec::new(),
    };
    let stages: Vec<Stage> = order.iter().flat_map(own).collect();
    chain(states, &stages, "Live");
    ends(states);
    stages.first().map_or("Live", |stage| stage.name)
}

fn migrate(environment: &Environment, name: &'static str) -> Option<Stage> {
    let script_s = environment.deploy.migrate.as_ref()?.timeout.as_secs();
    Some(Stage::new(name, "migrate", "$.migrated", script_s + 900))
}

/// The plan says whether hosts can stay: they cannot when the image has changed, or when there are none.
fn in_place(states: &mut Map<String, Value>) -> &'static str {
    choose(states, "Way", &[("$.plan.rolls", "Arrange")], "Provision");
    let roll = Stage::new("Roll", "roll", "$.rolled", DEPLOYMENT);
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
fn by_steps(states: &mut Map<String, Value>, pause_s: i64) {
    chain(states, &[VALIDATE], "Steps");
    choose(states, "Steps", &[("$.plan.steps", "Hold")], "Ready");
    chain(
        states,
        &[HOLD, Stage::new("Step", "step", "$.stepped", DEPLOYMENT)],
        "Watch",
    );
    // A task, and no Wait: hosts that die or are asked for meanwhile are brought up, which has its time, too.
    let watch = Stage::new("Watch", "watch", "$.watched", pause_s + DEPLOYMENT);
    let analyse = Stage::new("Analyse", "analyse", "$.analysis", 900);
    chain(states, &[watch, analyse], "Analysed");
    let after = [("$.analysis.again", "Watch"), ("$.analysis.more", "Hold")];
    choose(states, "Analysed", &after, "Ready");
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

/// Where every way ends: live, or undone.
fn ends(states: &mut Map<String, Value>) {
    states.insert("Live".into(), json!({ "Type": "Succeed" }));
    // In place, the way back is as long as the way was. It is tried until it is done: nothing else would undo it.
    let (name, mut unwind) = task(&Stage::new(UNWIND, "unwind", "$.unwound", DEPLOYMENT), "Failed");
    unwind["Retry"] = json!([endless()]);
    unwind
        .as_object_mut()
        .expect("a state is an object")
        .remove("Catch");
    states.insert(name, unwind);
    states.insert(
        "Failed".into(),
        json!({ "Type": "Fail", "ErrorPath": "$.failure.Error", "CausePath": "$.failure.Cause" }),
    );
}
