//! `vend.yaml` compiled to Amazon States Language: the order of a release as data.
//!
//! Pure. What comes out is drawn, diffed, kept with its execution and run by the engine; the same text runs on AWS
//! with activity workers. Every task has a time-out, retries what the platform may get over, and a way back.
//! No task has `HeartbeatSeconds`: leases belong to the engine, and a platform that was switched off for an hour
//! must go on where it stood instead of timing out.

use model::spec;
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
    const FINAL: [&str; 6] = [
        "unwind",
        "unroute",
        "stop-hosts",
        "drop-database",
        "remove-network",
        "forget",
    ];
    activity(resource).is_some_and(|name| FINAL.contains(&name))
}

/// Do people answer tasks of this resource?
pub fn is_asking(resource: &str) -> bool {
    activity(resource) == Some("approve")
}

/// The resources of all activities.
pub fn resources() -> Vec<String> {
    super::ACTIVITIES
        .iter()
        .map(|name| format!("{ACTIVITY}{name}"))
        .collect()
}

struct Stage {
    name: &'static str,
    activity: &'static str,
    result: &'static str,
    timeout_s: i64,
}

/// What a push runs through. `approval`: the rule that it is under, which is not always its own.
pub fn release(environment: &spec::Environment, approval: Option<&spec::Approval>) -> Value {
    let build_timeout = environment.build.timeout.as_secs() + 600;
    let mut states = serde_json::Map::new();
    add(
        &mut states,
        task(
            &Stage {
                name: "Source",
                activity: "source",
                result: "$.source",
                timeout_s: 900,
            },
            "Make",
        ),
    );
    states.insert("Make".into(), make(build_timeout));
    let after_plan = if approval.is_some() {
        "Approve"
    } else {
        "Provision"
    };
    add(
        &mut states,
        task(
            &Stage {
                name: "Plan",
                activity: "plan",
                result: "$.plan",
                timeout_s: 300,
            },
            after_plan,
        ),
    );
    if let Some(approval) = approval {
        let timeout_s = approval.expires.as_secs() + 60;
        add(
            &mut states,
            task(
                &Stage {
                    name: "Approve",
                    activity: "approve",
                    result: "$.approval",
                    timeout_s,
                },
                "Confirm",
            ),
        );
        add(
            &mut states,
            task(
                &Stage {
                    name: "Confirm",
                    activity: "confirm",
                    result: "$.confirmed",
                    timeout_s: 300,
                },
                "PlanUnchanged",
            ),
        );
        states.insert(
            "PlanUnchanged".into(),
            json!({
                "Type": "Choice",
                "Comment": "An approval is bound to one exact plan: when the plan changed meanwhile, ask again.",
                "Choices": [{ "Variable": "$.confirmed.same", "BooleanEquals": true, "Next": "Provision" }],
                "Default": "Plan",
            }),
        );
    }
    tail(&mut states);
    if let Some(migrate) = &environment.deploy.migrate {
        migrating(&mut states, migrate.timeout.as_secs());
    }
    if environment.placement.is_some() {
        on_machines(&mut states);
    }
    json!({
        "Comment": format!("A push to {} of branch {}", environment.name, environment.branch),
        "StartAt": "Source",
        "States": states,
    })
}

/// Going back to a release that is still kept. It was approved once; going back asks nobody.
pub fn rollback() -> Value {
    let mut states = serde_json::Map::new();
    add(
        &mut states,
        task(
            &Stage {
                name: "Plan",
                activity: "plan",
                result: "$.plan",
                timeout_s: 300,
            },
            "Provision",
        ),
    );
    tail(&mut states);
    json!({ "Comment": "Back to a kept release", "StartAt": "Plan", "States": states })
}

/// The same on machines of the customer's own.
pub fn rollback_on_machines() -> Value {
    let mut flow = rollback();
    on_machines(flow["States"].as_object_mut().expect("a flow has states"));
    flow
}

/// As many hosts of the live release as there are to be: after `vend scale`, and after a host died.
pub fn resize() -> Value {
    let mut states = serde_json::Map::new();
    tail(&mut states);
    json!({ "Comment": "The live release on its number of hosts", "StartAt": "Provision", "States": states })
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
        let (name, mut state) = task(
            &Stage {
                name,
                activity,
                result: "$.done",
                timeout_s: 600,
            },
            next,
        );
        // There is no way back from half a destruction but to finish it: retry long, and say so when it fails.
        state["Retry"] = json!([retry(20)]);
        state
            .as_object_mut()
            .expect("a state is an object")
            .remove("Catch");
        states.insert(name, state);
    }
    states.insert("Destroyed".into(), json!({ "Type": "Succeed" }));
    json!({ "Comment": "The environment and all it holds, removed", "StartAt": "Unroute", "States": states })
}

/// The stages that a release and a rollback share, from hosts to the record.
fn tail(states: &mut serde_json::Map<String, Value>) {
    let stages = [
        Stage {
            name: "Provision",
            activity: "provision",
            result: "$.fleet",
            timeout_s: 900,
        },
        Stage {
            name: "Deploy",
            activity: "deploy",
            result: "$.deployed",
            timeout_s: 4 * 3600,
        },
        Stage {
            name: "Validate",
            activity: "validate",
            result: "$.verdict",
            timeout_s: 900,
        },
        Stage {
            name: "Shift",
            activity: "shift",
            result: "$.shifted",
            timeout_s: 900,
        },
        Stage {
            name: "Record",
            activity: "record",
            result: "$.seal",
            timeout_s: 300,
        },
    ];
    for (index, stage) in stages.iter().enumerate() {
        let next = stages.get(index + 1).map_or("Live", |stage| stage.name);
        add(states, task(stage, next));
    }
    states.insert("Live".into(), json!({ "Type": "Succeed" }));
    let (name, mut unwind) = task(
        &Stage {
            name: "Unwind",
            activity: "unwind",
            result: "$.unwound",
            timeout_s: 900,
        },
        "Failed",
    );
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
}

/// A migration of the release's own, between its hosts and what is deployed to them. Neither a rollback nor a change of
/// the number of hosts has one: the release's ran when it was made.
fn migrating(states: &mut serde_json::Map<String, Value>, script_s: i64) {
    states["Provision"]["Next"] = json!("Migrate");
    let stage = Stage {
        name: "Migrate",
        activity: "migrate",
        result: "$.migrated",
        timeout_s: script_s + 900,
    };
    add(states, task(&stage, "Deploy"));
}

/// Where there are machines already, one stage deploys to them in the place of those that make hosts and move traffic.
fn on_machines(states: &mut serde_json::Map<String, Value>) {
    for stage in ["Provision", "Migrate", "Deploy", "Validate", "Shift"] {
        states.remove(stage);
    }
    let stage = Stage {
        name: "Machines",
        activity: "machines",
        result: "$.deployed",
        timeout_s: 8 * 3600,
    };
    add(states, task(&stage, "Record"));
    let redirect = |next: &mut Value| {
        if next == "Provision" {
            *next = json!("Machines");
        }
    };
    for state in states.values_mut().filter_map(Value::as_object_mut) {
        state.get_mut("Next").map(redirect);
        for choice in state
            .get_mut("Choices")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            choice.get_mut("Next").map(redirect);
        }
    }
}

/// Build and bake need nothing of one another but the source.
fn make(build_timeout_s: i64) -> Value {
    let branch = |name: &'static str, activity: &'static str, timeout_s| {
        let (name, mut state) = task(
            &Stage {
                name,
                activity,
                result: "$",
                timeout_s,
            },
            "",
        );
        let object = state.as_object_mut().expect("a state is an object");
        object.remove("Catch");
        object.remove("Next");
        object.insert("End".into(), json!(true));
        json!({ "StartAt": name, "States": { name: state } })
    };
    json!({
        "Type": "Parallel",
        "Branches": [branch("Build", "build", build_timeout_s), branch("Bake", "bake", 3600)],
        "ResultSelector": { "build.$": "$[0]", "bake.$": "$[1]" },
        "ResultPath": "$.made",
        "Catch": [catch()],
        "Next": "Plan",
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
    fn every_definition_is_valid_and_every_task_has_a_deadline() {
        for definition in [
            release(&sample(false), None),
            release(&sample(true), sample(true).approval.as_ref()),
            release(&migrating_sample(), None),
            release(&placed_sample(), placed_sample().approval.as_ref()),
            rollback(),
            rollback_on_machines(),
            resize(),
            environment_destroy(),
        ] {
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
    fn only_a_release_with_a_migration_migrates_and_before_anything_is_deployed() {
        let migrating = release(&migrating_sample(), None);
        assert_eq!(migrating["States"]["Provision"]["Next"], "Migrate");
        assert_eq!(migrating["States"]["Migrate"]["Next"], "Deploy");
        assert_eq!(migrating["States"]["Migrate"]["TimeoutSeconds"], 300 + 900);
        for flow in [release(&sample(false), None), rollback(), resize()] {
            assert!(flow["States"].get("Migrate").is_none());
            assert_eq!(flow["States"]["Provision"]["Next"], "Deploy");
        }
    }

    #[test]
    fn machines_are_deployed_to_in_one_stage_after_the_approval() {
        let flow = release(&placed_sample(), placed_sample().approval.as_ref());
        let next = &flow["States"]["PlanUnchanged"]["Choices"][0]["Next"];
        assert_eq!(
            (next, &flow["States"]["Machines"]["Next"]),
            (&json!("Machines"), &json!("Record"))
        );
        assert_eq!(rollback_on_machines()["States"]["Plan"]["Next"], "Machines");
        assert!(flow["States"].get("Provision").is_none());
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

    pub fn placed_sample() -> spec::Environment {
        parsed("app: shop\nplacement: { registered: { role: web } }\napproval: { required: 1 }\n")
    }

    fn parsed(text: &str) -> spec::Environment {
        let tree = |path: &camino::Utf8Path| path == "Procfile" || path == "migrate.sh";
        let (app, _) = spec::App::parse(text, "vend.yaml", &tree).unwrap();
        app.environments[0].clone()
    }
}
