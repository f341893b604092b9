//! The machine that brings containers a new password, run by our own interpreter against a small ECS.

use std::collections::BTreeMap;

use asl::{Command, Event, Execution, Machine, Status, step};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{of, wants::live};

/// What ECS says of each deployment of a half, look by look; the last is said for ever. `gone`: it is not there any more, nor does
/// anything move. `other`: another came in its place, and is under way.
type Deployments = &'static [&'static [&'static str]];

/// Services by half; a half without any does not run.
struct Ecs {
    services: BTreeMap<&'static str, Deployments>,
    /// Deployments that were asked for, and looks at the last of them.
    begun: BTreeMap<String, (usize, usize)>,
}

impl Ecs {
    fn answer(&mut self, resource: &str, input: &Value) -> Result<Value, &'static str> {
        assert_eq!(input["Cluster"], "shop");
        let half = input["Service"]
            .as_str()
            .or_else(|| input["Services"][0].as_str());
        let half = half.unwrap();
        let Some(all) = self.services.get(half) else {
            return Err("Ecs.ServiceNotFoundException");
        };
        let (starts, looks) = self.begun.entry(half.to_owned()).or_default();
        let before = json!({ "Id": "ecs-svc/0", "Status": "ACTIVE", "RolloutState": "COMPLETED" });
        if resource.ends_with("updateService") {
            assert_eq!(input["ForceNewDeployment"], true);
            (*starts, *looks) = (*starts + 1, 0);
            let own = json!({ "Id": format!("ecs-svc/{starts}"), "Status": "PRIMARY", "RolloutState": "IN_PROGRESS" });
            return Ok(json!({ "Service": { "Deployments": [own, before] } }));
        }
        assert!(resource.ends_with("describeServices"), "{resource}");
        let said = all[(*starts - 1).min(all.len() - 1)];
        let now = said[(*looks).min(said.len() - 1)];
        *looks += 1;
        let (id, state) = match now {
            "gone" => ("ecs-svc/other".to_owned(), "COMPLETED"),
            "other" => ("ecs-svc/other".to_owned(), "IN_PROGRESS"),
            _ => (format!("ecs-svc/{starts}"), now),
        };
        let own = json!({ "Id": id, "Status": "PRIMARY", "RolloutState": state });
        Ok(json!({ "Services": [{ "Deployments": [own, before] }] }))
    }
}

/// How the machine ends, how often each half was started, and after how long.
fn run(services: &[(&'static str, Deployments)]) -> (Status, BTreeMap<String, usize>, SignedDuration) {
    run_with("scaling = { drain = 30 }", services)
}

fn run_with(
    options: &str,
    services: &[(&'static str, Deployments)],
) -> (Status, BTreeMap<String, usize>, SignedDuration) {
    let template = live(
        &format!("runtime = 'fargate'\nstrategy = 'blue-green'\n{options}"),
        "database: { engine: mariadb }",
    );
    let machine = of(&template, "PasswordMachine");
    let text = machine["DefinitionString"]["Fn::Sub"].as_str().unwrap();
    let text = text
        .replace("${AWS::Partition}", "aws")
        .replace("${AWS::StackName}", "shop");
    let machine = Machine::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let mut ecs = Ecs {
        services: services.iter().copied().collect(),
        begun: BTreeMap::new(),
    };
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let (mut at, mut execution) = (start, Execution::new());
    let mut timers: BTreeMap<u64, Timestamp> = BTreeMap::new();
    let mut events = vec![Event::Start {
        id: "arn:aws:states:eu-central-1:111111111111:execution:p:1".into(),
        name: "1".into(),
        input: json!({ "detail": { "eventName": "RotationSucceeded" } }),
        role: "arn:aws:iam::111111111111:role/p".into(),
        machine_id: "arn:aws:states:eu-central-1:111111111111:stateMachine:p".into(),
        machine_name: "p".into(),
        seed: [1, 2],
    }];
    for _ in 0..50_000 {
        let event = match events.pop() {
            Some(event) => event,
            None => {
                let Some((&timer, &when)) = timers.iter().min_by_key(|(_, when)| **when) else {
                    break;
                };
                timers.remove(&timer);
                at = at.max(when);
                Event::TimerFired { timer }
            }
        };
        let outcome = step(&machine, execution, &event, at);
        execution = outcome.execution;
        for command in outcome.commands {
            match command {
                Command::Schedule {
                    task,
                    resource,
                    input,
                    ..
                } => {
                    events.push(match ecs.answer(&resource, &input) {
                        Ok(output) => Event::TaskSucceeded { task, output },
                        Err(error) => Event::TaskFailed {
                            task,
                            error: Some(error.into()),
                            cause: None,
                        },
                    });
                }
                Command::StartTimer { timer, at } => drop(timers.insert(timer, at)),
                Command::CancelTimer { timer } => drop(timers.remove(&timer)),
                _ => {}
            }
        }
        if !matches!(execution.status(), Status::Running) {
            break;
        }
    }
    let starts = ecs.begun.into_iter().map(|(half, (starts, _))| (half, starts));
    (
        execution.status().clone(),
        starts.collect(),
        at.duration_since(start),
    )
}

fn cause(status: &Status) -> String {
    match status {
        Status::Failed { cause, .. } => cause.clone().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_password_is_there_when_containers_run_with_it() {
    const SLOW: Deployments = &[&["IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]];
    let (status, starts, took) = run(&[("blue", SLOW)]);
    assert!(matches!(status, Status::Succeeded { .. }), "{status:?}");
    assert_eq!(starts["blue"], 1);
    assert!(took >= SignedDuration::from_secs(45), "{took:?}");
    // Neither runs before the first release.
    let (status, starts, _) = run(&[]);
    assert!(
        matches!(status, Status::Succeeded { .. }) && starts.is_empty(),
        "{status:?}"
    );
}

#[test]
fn a_half_whose_containers_do_not_come_is_said_and_hinders_no_other() {
    const FAILS: Deployments = &[&["IN_PROGRESS", "FAILED"]];
    const WELL: Deployments = &[&["IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]];
    let (status, starts, took) = run(&[("blue", FAILS), ("green", WELL)]);
    assert_eq!(
        cause(&status),
        "blue: after 2 looks, one each 15 s, its new containers are FAILED"
    );
    assert_eq!(starts["green"], 1);
    assert!(
        took >= SignedDuration::from_secs(60),
        "green was waited for: {took:?}"
    );
}

#[test]
fn waiting_for_containers_has_an_end() {
    const NEVER: Deployments = &[&["IN_PROGRESS"]];
    let (status, _, took) = run(&[("blue", NEVER)]);
    assert_eq!(
        cause(&status),
        "blue: after 248 looks, one each 15 s, its new containers are IN_PROGRESS"
    );
    assert!(
        took >= SignedDuration::from_secs(3_720) && took < SignedDuration::from_mins(90),
        "{took:?}"
    );
    // Old containers that have an hour to end are waited for.
    let (status, _, took) = run_with("scaling = { drain = 3600 }", &[("blue", NEVER)]);
    assert_eq!(
        cause(&status),
        "blue: after 486 looks, one each 15 s, its new containers are IN_PROGRESS"
    );
    assert!(took >= SignedDuration::from_hours(2), "{took:?}");
}

/// Another deployment came in between: a release, or ECS went back to the old containers.
#[test]
fn what_was_replaced_is_started_again_and_not_for_ever() {
    const ONCE: Deployments = &[&["IN_PROGRESS", "gone"], &["COMPLETED"]];
    let (status, starts, _) = run(&[("blue", ONCE)]);
    assert!(matches!(status, Status::Succeeded { .. }), "{status:?}");
    assert_eq!(starts["blue"], 2);
    const ALWAYS: Deployments = &[&["gone"]];
    let (status, starts, _) = run(&[("blue", ALWAYS)]);
    assert_eq!(
        cause(&status),
        "blue: after 3 looks, one each 15 s, its new containers are REPLACED"
    );
    assert_eq!(starts["blue"], 3);
}

/// Most often that is a release, which must not be cut short.
#[test]
fn what_came_in_between_comes_to_its_end_first() {
    const RELEASE: Deployments = &[
        &["IN_PROGRESS", "other", "other", "other", "gone"],
        &["COMPLETED"],
    ];
    let (status, starts, took) = run(&[("blue", RELEASE)]);
    assert!(matches!(status, Status::Succeeded { .. }), "{status:?}");
    assert_eq!(starts["blue"], 2);
    assert!(took >= SignedDuration::from_secs(90), "{took:?}");
}
