//! `vend.yaml` compiled to Amazon States Language: the order of a release as data.
//!
//! Pure. What comes out is drawn, diffed, kept with its execution and run by the engine; the same text runs on AWS
//! with activity workers. Every task has a time-out, retries what the platform may get over, and a way back.
//! No task has `HeartbeatSeconds`: leases belong to the engine, and a platform that was switched off for an hour
//! must go on where it stood instead of timing out.

mod tail;

pub use tail::{MONITOR, UNWIND};

use model::{
    spec,
    stage::{self, Stage as Known},
};
use serde_json::{Value, json};

/// Names of the platform's own things begin so. The account is nobody's; on AWS it is the customer's.
const ACCOUNT: &str = "arn:aws:states:local:000000000000:";
/// A Task's resource: the activity of this name.
const ACTIVITY: &str = "arn:aws:states:local:000000000000:activity:";

/// The whole name of something of the platform's own.
pub fn arn(rest: &str) -> String {
    format!("{ACCOUNT}{rest}")
}

/// Is somebody in this process there for the resource?
pub fn is_known(resource: &str) -> bool {
    activity(resource).is_some_and(|name| super::ACTIVITIES.contains(&name))
}

/// The name of the activity in a resource, if it is one of ours.
pub fn activity(resource: &str) -> Option<&str> {
    resource.strip_prefix(ACTIVITY)
}

/// Does the resource's activity undo or destroy? Such work is finished, whoever wants it stopped.
pub fn is_final(resource: &str) -> bool {
    const FINAL: [&str; 7] = [
        "unwind",
        "rest",
        "unroute",
        "stop-hosts",
        "drop-database",
        "remove-network",
        "forget",
    ];
    activity(resource).is_some_and(|name| FINAL.contains(&name))
}

/// Does the resource's activity touch no host, so that others may change them meanwhile? So it is until a release has its
/// plan, and while people think about that.
pub fn is_apart(resource: &str) -> bool {
    is_asking(resource) || is_making(resource)
}

/// Does the resource's activity make what a release is of?
pub fn is_making(resource: &str) -> bool {
    matches!(activity(resource), Some("source" | "build" | "bake"))
}

/// The same of a state: those are called as their activities are.
pub fn is_state_apart(state: &str) -> bool {
    is_apart(&arn(&format!("activity:{}", state.to_lowercase())))
}

/// Does the resource's activity bring a release to its hosts, as soon as nobody else has them?
pub fn is_coming(resource: &str) -> bool {
    matches!(activity(resource), Some("plan" | "confirm"))
}

/// Do people answer tasks of this resource?
pub fn is_asking(resource: &str) -> bool {
    activity(resource) == Some("approve")
}

/// Does the resource's activity bring the data to where a release needs it? Of one that was ended nobody knows how far it
/// came.
pub fn is_migrating(resource: &str) -> bool {
    activity(resource) == Some("migrate")
}

/// The resources of all activities.
pub fn resources() -> Vec<String> {
    super::ACTIVITIES
        .iter()
        .map(|name| format!("{ACTIVITY}{name}"))
        .collect()
}

#[derive(Clone, Copy)]
struct Stage {
    name: &'static str,
    activity: &'static str,
    result: &'static str,
    timeout_s: i64,
}

impl Stage {
    const fn new(name: &'static str, activity: &'static str, result: &'static str, timeout_s: i64) -> Self {
        Self {
            name,
            activity,
            result,
            timeout_s,
        }
    }
}

const HOUR: i64 = 3600;
/// Nobody holds a deployment longer; then it goes back.
const HELD: i64 = 7 * 24 * HOUR;
/// It waits for whoever has the hosts.
const PLAN: Stage = Stage::new("Plan", "plan", "$.plan", HELD + HOUR);

/// The deadline of the builds of a push: that of what is built, and what the platform takes before and after. It is the
/// last resort: the node's client gives up what hangs, from when it has left the queue.
fn build_timeout(build: &spec::Build) -> i64 {
    /// An image for builds may be made first, and what is left is kept.
    const AROUND_S: i64 = HOUR;
    let own = match build.batch {
        // It counts the waiting, too.
        true => build.batch_timeout.as_secs(),
        false => {
            let queued = i64::try_from(host::build::QUEUED.as_secs()).unwrap_or(i64::MAX);
            let waits = super::images::longest_wait_s().saturating_add(queued);
            build.timeout.as_secs().saturating_add(waits)
        }
    };
    own.saturating_add(AROUND_S)
}

/// The deadline of a bake: what it waits for, room and its turn, its base, and its scripts.
fn bake_timeout() -> i64 {
    /// A base may be made first, and what is left is kept.
    const AROUND_S: i64 = HOUR;
    let queued = i64::try_from(host::build::QUEUED.as_secs()).unwrap_or(i64::MAX);
    super::images::longest_wait_s() + queued + super::bake::TIMEOUT.as_secs() + AROUND_S
}

/// What a push runs through. `approval`: the rule that it is under, which is not always its own.
pub fn release(environment: &spec::Environment, approval: Option<&spec::Approval>) -> Value {
    let build_timeout = build_timeout(&environment.build);
    let mut states = serde_json::Map::new();
    let first = tail::add(&mut states, environment);
    let order = stage::order(environment, approval.is_some());
    let after = |stage| {
        let at = order.iter().position(|own| *own == stage);
        match at.and_then(|at| order.get(at + 1)) {
            Some(Known::Make) => "Make",
            Some(Known::Plan) => PLAN.name,
            Some(Known::Approve) => "Approve",
            _ => first,
        }
    };
    let source = Stage::new("Source", "source", "$.source", 900);
    add(&mut states, task(&source, after(Known::Source)));
    states.insert("Make".into(), make(build_timeout, after(Known::Make)));
    add(&mut states, task(&PLAN, after(Known::Plan)));
    if let Some(approval) = approval {
        let timeout_s = approval.expires.as_secs() + 60;
        let approve = Stage::new("Approve", "approve", "$.approval", timeout_s);
        add(&mut states, task(&approve, "Confirm"));
        let confirm = Stage::new("Confirm", "confirm", "$.confirmed", HELD + HOUR);
        add(&mut states, task(&confirm, "PlanUnchanged"));
        states.insert(
            "PlanUnchanged".into(),
            json!({
                "Type": "Choice",
                "Comment": "An approval is bound to one exact plan: when the plan changed meanwhile, ask again.",
                "Choices": [{ "Variable": "$.confirmed.same", "BooleanEquals": true, "Next": after(Known::Approve) }],
                "Default": "Plan",
            }),
        );
    }
    json!({
        "Comment": format!("A push to {} of branch {}", environment.name, environment.branch),
        "StartAt": "Source",
        "States": states,
    })
}

/// Going back to a release that is still kept, on its hosts or in place, and all traffic at once: whoever goes back is in
/// a hurry. It was approved once; going back asks nobody.
pub fn rollback(environment: &spec::Environment) -> Value {
    let mut states = serde_json::Map::new();
    let first = tail::back(&mut states, environment);
    add(&mut states, task(&PLAN, first));
    json!({ "Comment": "Back to a kept release", "StartAt": "Plan", "States": states })
}

/// The live release on machines that lack it.
pub fn join(environment: &spec::Environment) -> Value {
    let mut states = serde_json::Map::new();
    let first = tail::back(&mut states, environment);
    json!({ "Comment": "The live release to machines that lack it", "StartAt": first, "States": states })
}

/// As many hosts of the live release as there are to be: after `vend scale`, and after a host died.
pub fn resize() -> Value {
    let mut states = serde_json::Map::new();
    let first = tail::again(&mut states);
    json!({ "Comment": "The live release on its number of hosts", "StartAt": first, "States": states })
}

/// Stops an environment's hosts and keeps all else.
pub fn sleep() -> Value {
    let rest = Stage::new("Rest", "rest", "$.rested", 4 * HOUR);
    let (name, state) = thorough(&rest, "Asleep");
    json!({
        "Comment": "No hosts until somebody asks for them",
        "StartAt": name,
        "States": { name: state, "Asleep": { "Type": "Succeed" } },
    })
}

/// Takes an environment down: traffic first, data last.
pub fn environment_destroy() -> Value {
    let stages = [
        ("Unroute", "unroute"),
        ("StopHosts", "stop-hosts"),
        ("DropDatabase", "drop-database"),
        ("RemoveNetwork", "remove-network"),
        ("Forget", "forget"),
    ];
    let mut states = serde_json::Map::new();
    for (index, (name, activity)) in stages.iter().enumerate() {
        let next = stages.get(index + 1).map_or("Destroyed", |(name, _)| name);
        add(
            &mut states,
            thorough(&Stage::new(name, activity, "$.done", 600), next),
        );
    }
    states.insert("Destroyed".into(), json!({ "Type": "Succeed" }));
    json!({ "Comment": "The environment and all it holds, removed", "StartAt": "Unroute", "States": states })
}

/// There is no way back from half a destruction but to finish it: retry long, and say so when it fails.
fn thorough(stage: &Stage, next: &str) -> (String, Value) {
    let (name, mut state) = task(stage, next);
    state["Retry"] = json!([retry(20)]);
    state
        .as_object_mut()
        .expect("a state is an object")
        .remove("Catch");
    (name, state)
}

/// Build and bake need nothing of one another but the source.
fn make(build_timeout_s: i64, next: &str) -> Value {
    let branch = |name: &'static str, activity: &'static str, timeout_s| {
        let (name, mut state) = task(&Stage::new(name, activity, "$", timeout_s), "");
        let object = state.as_object_mut().expect("a state is an object");
        object.remove("Catch");
        object.remove("Next");
        object.insert("End".into(), json!(true));
        json!({ "StartAt": name, "States": { name: state } })
    };
    json!({
        "Type": "Parallel",
        "Branches": [branch("Build", "build", build_timeout_s), branch("Bake", "bake", bake_timeout())],
        "ResultSelector": { "build.$": "$[0]", "bake.$": "$[1]" },
        "ResultPath": "$.made",
        "Catch": [catch()],
        "Next": next,
    })
}

fn task(stage: &Stage, next: &str) -> (String, Value) {
    let state = json!({
        "Type": "Task",
        "Resource": format!("{ACTIVITY}{}", stage.activity),
        "TimeoutSeconds": stage.timeout_s,
        "ResultPath": stage.result,
        "Retry": [retry(4)],
        "Catch": [catch()],
        "Next": next,
    });
    (stage.name.to_owned(), state)
}

/// What the platform or its machine got wrong may go right the next time; what the customer brought will not.
fn retry(attempts: u32) -> Value {
    json!({
        "ErrorEquals": ["Vend.Platform"],
        "IntervalSeconds": 1,
        "BackoffRate": 2.0,
        "MaxDelaySeconds": 30,
        "MaxAttempts": attempts,
    })
}

/// For what must be done, whoever is at fault: the most attempts that the language has (`MaxAttempts` below 99,999,999), five minutes apart.
fn endless() -> Value {
    json!({
        "ErrorEquals": ["States.ALL"],
        "IntervalSeconds": 1,
        "BackoffRate": 2.0,
        "MaxDelaySeconds": 300,
        "MaxAttempts": 99_999_998,
    })
}

fn catch() -> Value {
    json!({ "ErrorEquals": ["States.ALL"], "ResultPath": "$.failure", "Next": "Unwind" })
}

fn add(states: &mut serde_json::Map<String, Value>, (name, state): (String, Value)) {
    states.insert(name, state);
}

#[cfg(test)]
pub mod tests {
    use super::*;

    #[test]
    fn builds_that_wait_are_not_cut_by_the_time_of_one() {
        let deadline = |build: &str| {
            let environment = parsed(&format!("app: shop\nbuild: {build}\n"));
            let make = release(&environment, None)["States"]["Make"].clone();
            make["Branches"][0]["States"]["Build"]["TimeoutSeconds"]
                .as_i64()
                .unwrap()
        };
        let queued = 8 * HOUR;
        assert!(deadline("{ timeout: 5m }") > queued + 300);
        assert!(deadline("{ batch: true, timeout: 5m }") > 8 * HOUR);
        let long = deadline("{ batch: true, timeout: 5m, batch_timeout: 30h }");
        assert!((30 * HOUR + 1..32 * HOUR).contains(&long), "{long}");
        let short = deadline("{ batch: true, timeout: 5m, batch_timeout: 1m }");
        assert!((61..2 * HOUR).contains(&short), "{short}");
    }

    #[test]
    fn bakes_that_wait_are_not_cut_by_the_time_of_one() {
        let make = release(&parsed("app: shop\n"), None)["States"]["Make"].clone();
        let deadline = make["Branches"][1]["States"]["Bake"]["TimeoutSeconds"]
            .as_i64()
            .unwrap();
        // Half an hour for room, eight hours for its turn, and then its own time.
        assert!(deadline > HOUR / 2 + 8 * HOUR + 45 * 60, "{deadline}");
    }

    #[test]
    fn every_definition_is_valid_and_every_task_has_a_deadline() {
        let mut all = vec![resize(), sleep(), environment_destroy(), rollback(&sample(false))];
        for strategy in STRATEGIES {
            let environment = with(strategy);
            all.extend([release(&environment, None), rollback(&environment)]);
        }
        for environment in [
            sample(true),
            migrating_sample(),
            rolling_sample(),
            placed_sample(),
            zoned_sample(),
        ] {
            all.push(release(&environment, environment.approval.as_ref()));
            all.push(rollback(&environment));
        }
        for definition in all {
            asl::Machine::parse(&definition.to_string()).unwrap_or_else(|problems| panic!("{problems:?}"));
            for (name, state) in definition["States"].as_object().unwrap() {
                if state["Type"] == "Task" {
                    assert!(state["TimeoutSeconds"].as_i64().unwrap() > 0, "{name}");
                    assert!(activity(state["Resource"].as_str().unwrap()).is_some(), "{name}");
                }
            }
        }
    }

    #[test]
    fn only_an_environment_that_asks_for_approval_waits_for_it() {
        assert!(release(&sample(false), None)["States"].get("Approve").is_none());
        let asking = release(&sample(true), sample(true).approval.as_ref());
        assert_eq!(asking["States"]["Plan"]["Next"], "Approve");
        assert_eq!(asking["States"]["PlanUnchanged"]["Default"], "Plan");
    }

    #[test]
    fn only_the_stages_of_its_strategy_stand_in_a_definition() {
        let has = |strategy, name: &str| release(&with(strategy), None)["States"].get(name).is_some();
        for (strategy, rolls, steps) in [
            ("blue-green", false, false),
            ("in-place", true, false),
            ("canary", false, true),
            ("linear", false, true),
        ] {
            assert_eq!(
                (has(strategy, "Roll"), has(strategy, "Step")),
                (rolls, steps),
                "{strategy}"
            );
            assert!(has(strategy, "Shift") && has(strategy, "Unwind"), "{strategy}");
        }
        let canary = release(&with("canary"), None);
        assert_eq!(canary["States"]["Watch"]["TimeoutSeconds"], 600 + 8 * HOUR);
        for (strategy, name) in [
            ("blue-green", "Deploy"),
            ("blue-green", "Shift"),
            ("canary", "Step"),
            ("in-place", "Roll"),
            ("in-place", "Unwind"),
        ] {
            // As CodeDeploy, for all hosts together.
            let flow = release(&with(strategy), None);
            assert_eq!(flow["States"][name]["TimeoutSeconds"], 8 * HOUR, "{name}");
        }
        assert!(rollback(&with("canary"))["States"].get("Step").is_none());
    }

    #[test]
    fn only_a_release_with_a_migration_migrates_and_before_anything_is_deployed() {
        let migrating = release(&migrating_sample(), None);
        assert_eq!(migrating["States"]["Provision"]["Next"], "Migrate");
        assert_eq!(migrating["States"]["Migrate"]["Next"], "Deploy");
        assert_eq!(migrating["States"]["Migrate"]["TimeoutSeconds"], 300 + 900);
        for flow in [
            release(&sample(false), None),
            rollback(&migrating_sample()),
            resize(),
        ] {
            assert!(flow["States"].get("Migrate").is_none());
            assert_eq!(flow["States"]["Provision"]["Next"], "Deploy");
        }
    }

    #[test]
    fn in_place_a_migration_comes_before_the_first_host() {
        let flow = release(&rolling_sample(), None);
        assert_eq!(flow["States"]["Arrange"]["Next"], "MigrateFirst");
        assert_eq!(flow["States"]["MigrateFirst"]["Next"], "Hold");
        assert_eq!(flow["States"]["Migrate"]["Next"], "Deploy");
        assert_eq!(rollback(&rolling_sample())["States"]["Arrange"]["Next"], "Hold");
    }

    #[test]
    fn machines_are_deployed_to_in_one_stage_after_the_approval() {
        let flow = release(&placed_sample(), placed_sample().approval.as_ref());
        let next = &flow["States"]["PlanUnchanged"]["Choices"][0]["Next"];
        assert_eq!(
            (next, &flow["States"]["Machines"]["Next"]),
            (&json!("Machines"), &json!("Waves"))
        );
        assert_eq!(rollback(&placed_sample())["States"]["Plan"]["Next"], "Machines");
        assert!(flow["States"].get("Provision").is_none());
    }

    /// The states by which a stage is known, here and on AWS.
    const KNOWN: [(Known, &str, &str); 8] = [
        (Known::Make, "Make", "BuildAndBake"),
        (Known::Approve, "Approve", "Approve"),
        (Known::Provision, "Provision", "Start"),
        (Known::Migrate, "Migrate", "Migrate"),
        (Known::Deploy, "Deploy", "Deploy"),
        (Known::Validate, "Validate", "Healthy"),
        (Known::Shift, "Shift", "Shift"),
        (Known::Record, "Live", "Live"),
    ];

    /// What can be reached from a state, failures left out; a Map is gone through before what follows it.
    fn reached(machine: &Value, from: &str) -> std::collections::BTreeSet<String> {
        let inner = |name: &str| &machine["States"][name]["ItemProcessor"]["States"];
        let place = machine["States"].as_object().unwrap().keys();
        let outer = |name: &str| place.clone().find(|own| inner(own).get(name).is_some()).cloned();
        let mut reached = std::collections::BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(name) = open.pop() {
            let map = outer(&name);
            let state = map
                .as_ref()
                .map_or(&machine["States"][&name], |map| &inner(map)[&name]);
            let choices = state["Choices"].as_array().into_iter().flatten();
            let mut next: Vec<&str> = choices.filter_map(|choice| choice["Next"].as_str()).collect();
            next.extend(["Next", "Default"].iter().filter_map(|key| state[key].as_str()));
            let processor = &state["ItemProcessor"];
            next.extend(processor["StartAt"].as_str());
            if state["End"] == true {
                next.extend(
                    map.as_ref()
                        .and_then(|map| machine["States"][map]["Next"].as_str()),
                );
            }
            open.extend(
                next.into_iter()
                    .map(str::to_owned)
                    .filter(|next| reached.insert(next.clone())),
            );
        }
        reached
    }

    #[test]
    fn both_engines_go_through_the_same_stages_in_the_same_order() {
        let config: aws::synth::Config =
            toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
                .unwrap();
        let mut texts: Vec<String> = STRATEGIES
            .iter()
            .map(|strategy| {
                format!("app: shop\ndeploy: {{ strategy: {strategy} }}\napproval: {{ required: 1 }}\n")
            })
            .collect();
        texts.push("app: shop\ndeploy: { strategy: linear, migrate: { script: migrate.sh } }\n".to_owned());
        for text in texts {
            let app = whole(&text);
            let own = &app.environments[0];
            let here = release(own, own.approval.as_ref());
            let there = aws::synth::machine(&config, &app, own, &["production".parse().unwrap()]).unwrap();
            let order = stage::order(own, own.approval.is_some());
            let in_place = own.deploy.strategy == spec::Strategy::InPlace;
            let stages: Vec<_> = KNOWN
                .iter()
                .filter(|(stage, ..)| order.contains(stage) && !(in_place && *stage == Known::Shift))
                .collect();
            let sorted: Vec<Known> = order
                .iter()
                .copied()
                .filter(|own| stages.iter().any(|known| known.0 == *own))
                .collect();
            assert_eq!(stages.iter().map(|known| known.0).collect::<Vec<_>>(), sorted);
            for pair in stages.windows(2) {
                for (machine, first, next) in [(&here, pair[0].1, pair[1].1), (&there, pair[0].2, pair[1].2)]
                {
                    assert!(
                        reached(machine, first).contains(next),
                        "{text}{first} does not lead to {next}"
                    );
                    assert!(
                        !reached(machine, next).contains(first),
                        "{text}{next} leads back to {first}"
                    );
                }
            }
        }
    }

    #[test]
    fn between_machines_there_is_a_gate() {
        for environment in [placed_sample(), zoned_sample()] {
            for flow in [
                release(&environment, None),
                rollback(&environment),
                join(&environment),
            ] {
                assert_eq!(flow["States"]["Machines"]["Next"], "Waves");
                assert_eq!(flow["States"]["Waves"]["Choices"][0]["Next"], "Monitor");
                assert_eq!(flow["States"]["Waves"]["Default"], "Record");
                assert_eq!(flow["States"]["Monitor"]["Next"], "Hold");
                assert_eq!(flow["States"]["Hold"]["Next"], "Machines");
            }
        }
    }

    pub const STRATEGIES: [&str; 4] = ["blue-green", "in-place", "canary", "linear"];

    pub fn with(strategy: &str) -> spec::Environment {
        parsed(&format!("app: shop\ndeploy: {{ strategy: {strategy} }}\n"))
    }

    pub fn sample(approval: bool) -> spec::Environment {
        parsed(if approval {
            "app: shop\nenvironments:\n  production: { branch: main, approval: { required: 1 } }\n"
        } else {
            "app: shop\nenvironments:\n  production: { branch: main }\n"
        })
    }

    pub fn migrating_sample() -> spec::Environment {
        parsed("app: shop\ndeploy: { migrate: { script: migrate.sh, timeout: 5m } }\n")
    }

    pub fn rolling_sample() -> spec::Environment {
        parsed("app: shop\ndeploy: { strategy: in-place, migrate: { script: migrate.sh, timeout: 5m } }\n")
    }

    pub fn placed_sample() -> spec::Environment {
        parsed("app: shop\nplacement: { registered: { role: web } }\napproval: { required: 1 }\n")
    }

    pub fn zoned_sample() -> spec::Environment {
        parsed(
            "app: shop\nplacement: { registered: { role: web } }\n\
             deploy: { zones: { minimum_healthy: 1, monitor: 5m, first_monitor: 10m } }\n",
        )
    }

    fn parsed(text: &str) -> spec::Environment {
        whole(text).environments[0].clone()
    }

    fn whole(text: &str) -> spec::App {
        let tree = |path: &camino::Utf8Path| path == "Procfile" || path == "migrate.sh";
        let (app, _) = spec::App::parse(text, "vend.yaml", &tree).unwrap();
        app
    }
}
