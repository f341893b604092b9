//! Drives a flow to its end by our own interpreter, against the world.

use std::collections::BTreeMap;

use asl::{Command, Event, Execution, Machine, Status, step};
use aws::synth::{Priorities, environment};
use jiff::{SignedDuration, Timestamp};
use model::spec;
use serde_json::json;

use crate::{config, deployed, world::World};

/// Runs the flow of the environment to its end.
pub fn run(options: &str, world: &mut World) -> Status {
    release("{}", options, world)
}

/// The same of an environment that is deployed as `vend.yaml` says.
pub fn release(deploy: &str, options: &str, world: &mut World) -> Status {
    release_of(&deployed(deploy, "{ min: 2, max: 4 }"), options, world)
}

pub fn release_of(app: &spec::App, options: &str, world: &mut World) -> Status {
    let config = config(options);
    let own = &app.environments[0];
    let mut targets = vec!["production".parse().unwrap()];
    targets.extend(config.apps[&app.app].environments[&own.name].also.iter().cloned());
    let definition = aws::synth::machine(&config, app, own, &targets).unwrap();
    let stack = environment(&config, &app.app, own, &targets[0], &mut Priorities::default());
    let stack = stack.ok();
    let group = stack
        .as_ref()
        .and_then(|own| own.template.resource("GreenDeployments"));
    world.forgets = group.is_some_and(|own| own.body()["Condition"] == "GreenIsRunning");
    let text = filled(&definition.to_string());
    let machine = Machine::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let sender = world.sender.as_deref().unwrap_or("arn:aws:iam::1:user/ada");
    let mut execution = Execution::new();
    let mut at: Timestamp = world.begins.unwrap_or("2026-01-01T00:00:00Z").parse().unwrap();
    world.runs += 1;
    let mut events = vec![Event::Start {
        id: format!(
            "arn:aws:states:eu-central-1:111111111111:execution:f:{}",
            world.runs
        ),
        name: world.runs.to_string(),
        input: json!({ "app": "shop", "branch": "main", "commit": "abc123", "author": "a", "message": "m of\ntwo lines", "sender": sender }),
        role: "arn:aws:iam::111111111111:role/f".into(),
        machine_id: "arn:aws:states:eu-central-1:111111111111:stateMachine:f".into(),
        machine_name: "f".into(),
        seed: [1, 2],
    }];
    let mut timers: BTreeMap<u64, Timestamp> = BTreeMap::new();
    for _ in 0..20_000 {
        let Some(event) = events.pop() else {
            // Nothing else to do: the next timer.
            let Some((&timer, &when)) = timers.iter().min_by_key(|(_, when)| **when) else {
                break;
            };
            timers.remove(&timer);
            at = at.max(when);
            events.push(Event::TimerFired { timer });
            continue;
        };
        world.at = at;
        let outcome = step(&machine, execution, &event, at);
        execution = outcome.execution;
        at += SignedDuration::from_millis(1);
        for command in outcome.commands {
            match command {
                Command::Schedule {
                    task,
                    resource,
                    input,
                    role,
                    ..
                } => {
                    let is_own = !resource.contains("aws-sdk") || resource.contains("s3:headObject");
                    let role = role.unwrap_or_default();
                    assert!(is_own || role.contains("-release"), "{resource} has no role");
                    events.push(match world.answer(&role, &resource, &input) {
                        Ok(output) => Event::TaskSucceeded { task, output },
                        Err((error, cause)) => Event::TaskFailed {
                            task,
                            error: Some(error),
                            cause: Some(cause),
                        },
                    });
                }
                Command::StartTimer { timer, at } => drop(timers.insert(timer, at)),
                Command::CancelTimer { timer } => drop(timers.remove(&timer)),
                _ => {}
            }
        }
    }
    execution.status().clone()
}

/// What CloudFormation fills in.
fn filled(text: &str) -> String {
    text.replace("${AWS::Partition}", "aws")
        .replace("${AWS::AccountId}", "111111111111")
        .replace("${AWS::Region}", "eu-central-1")
        .replace("${Builds}", "arn:aws:sns:eu-central-1:111111111111:builds")
        .replace(
            "${Operations}",
            "arn:aws:sns:eu-central-1:111111111111:operations",
        )
}
