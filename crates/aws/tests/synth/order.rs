//! The machine of branches, run by our own interpreter: several executions against one table, one build project and one
//! Step Functions.

use std::collections::BTreeMap;

use asl::{Command, Event, Execution, Machine, Status, step};
use aws::synth::{Config, Priorities, all};
use jiff::{SignedDuration, Timestamp};
use model::spec;
use serde_json::{Value, json};

const OWN: &str = "x-b-0123456789ab";

/// What all executions see.
#[derive(Default)]
struct World {
    table: BTreeMap<String, Value>,
    /// What the builds were to do.
    built: Vec<String>,
    /// So many builds fail.
    failing: u32,
    started: Vec<String>,
    told: Vec<String>,
}

impl World {
    fn answer(&mut self, resource: &str, input: &Value) -> Result<Value, (String, String)> {
        let what = resource.rsplit(":::").next().unwrap();
        match what {
            "dynamodb:putItem" => put(&mut self.table, input),
            "dynamodb:getItem" => {
                let found = self.table.get(input["Key"]["key"]["S"].as_str().unwrap());
                Ok(found.map_or_else(|| json!({}), |item| json!({ "Item": item })))
            }
            "dynamodb:deleteItem" => delete(&mut self.table, input),
            "codebuild:startBuild.sync" => {
                assert_eq!(input["ProjectName"], "vend-pipeline-production-shop-branches");
                let variables = &input["EnvironmentVariablesOverride"];
                assert_eq!(
                    variables[1],
                    json!({ "Name": "VEND_BRANCH", "Type": "PLAINTEXT", "Value": "feature/x" })
                );
                assert!(
                    self.table.contains_key(&format!("turn/stacks/{OWN}")),
                    "it is not its turn"
                );
                self.built
                    .push(variables[0]["Value"].as_str().unwrap().to_owned());
                if self.failing > 0 {
                    self.failing -= 1;
                    return Err(("States.TaskFailed".into(), "the build failed".into()));
                }
                Ok(json!({}))
            }
            "states:startExecution" => {
                let flow = input["StateMachineArn"].as_str().unwrap();
                assert!(
                    flow.ends_with(&format!(":stateMachine:vend-flow-production-shop-{OWN}")),
                    "{flow}"
                );
                let name = input["Name"].as_str().unwrap().to_owned();
                assert_eq!(input["Input"]["commit"], "abc");
                if self.started.contains(&name) {
                    return Err(("StepFunctions.ExecutionAlreadyExistsException".into(), name));
                }
                self.started.push(name);
                Ok(json!({}))
            }
            "sns:publish" => {
                self.told.push(crate::notices::mail(input));
                Ok(json!({}))
            }
            other => panic!("the world has no {other}"),
        }
    }
}

/// The conditions that machines have.
pub fn put(table: &mut BTreeMap<String, Value>, input: &Value) -> Result<Value, (String, String)> {
    let item = &input["Item"];
    let key = item["key"]["S"].as_str().unwrap().to_owned();
    let number = |value: &Value| value["N"].as_str().unwrap().parse::<i64>().unwrap();
    let given = &input["ExpressionAttributeValues"];
    let holds = match (input["ConditionExpression"].as_str().unwrap(), table.get(&key)) {
        ("#owner = :owner", own) => own.is_some_and(|own| own["owner"] == given[":owner"]),
        (_, None) => true,
        ("attribute_not_exists(#key) OR #began <= :began", Some(old)) => {
            number(&old["began"]) <= number(&given[":began"])
        }
        ("attribute_not_exists(#key) OR #expires < :now OR #owner = :owner", Some(old)) => {
            number(&old["expires"]) < number(&given[":now"]) || old["owner"] == given[":owner"]
        }
        ("attribute_not_exists(#key) OR (#began <= :began AND #commit = :commit)", Some(old)) => {
            number(&old["began"]) <= number(&given[":began"]) && old["commit"] == given[":commit"]
        }
        ("attribute_not_exists(#key) OR #owner = :owner", Some(old)) => old["owner"] == given[":owner"],
        (other, _) => panic!("nobody knows {other}"),
    };
    if !holds {
        return Err(("DynamoDB.ConditionalCheckFailedException".into(), key));
    }
    table.insert(key, item.clone());
    Ok(json!({}))
}

/// Takes an item away that is whose it is said to be.
pub fn delete(table: &mut BTreeMap<String, Value>, input: &Value) -> Result<Value, (String, String)> {
    let key = input["Key"]["key"]["S"].as_str().unwrap();
    let owner = &input["ExpressionAttributeValues"][":owner"];
    match table.get(key).is_some_and(|item| item["owner"] == *owner) {
        true => drop(table.remove(key)),
        false => return Err(("DynamoDB.ConditionalCheckFailedException".into(), key.to_owned())),
    }
    Ok(json!({}))
}

/// One execution, which is driven as far as somebody wants.
struct Run<'m> {
    machine: &'m Machine,
    execution: Execution,
    events: Vec<Event>,
    timers: BTreeMap<u64, Timestamp>,
    at: Timestamp,
}

impl<'m> Run<'m> {
    fn new(machine: &'m Machine, name: &str, at: Timestamp, input: Value) -> Self {
        let id = format!("arn:aws:states:eu-central-1:111111111111:execution:branches:{name}");
        let start = Event::Start {
            id,
            name: name.to_owned(),
            input,
            role: "arn:aws:iam::111111111111:role/f".into(),
            machine_id: "arn:aws:states:eu-central-1:111111111111:stateMachine:branches".into(),
            machine_name: "branches".into(),
            seed: [1, 2],
        };
        Self {
            machine,
            execution: Execution::new(),
            events: vec![start],
            timers: BTreeMap::new(),
            at,
        }
    }

    /// Goes on until it ends, or has to wait longer than until `end`.
    fn until(&mut self, world: &mut World, end: Timestamp) -> Status {
        for _ in 0..50_000 {
            let event = match self.events.pop() {
                Some(event) => event,
                None => match self
                    .timers
                    .iter()
                    .min_by_key(|(_, at)| **at)
                    .map(|(id, at)| (*id, *at))
                {
                    Some((timer, at)) if at <= end => {
                        self.timers.remove(&timer);
                        self.at = self.at.max(at);
                        Event::TimerFired { timer }
                    }
                    _ => break,
                },
            };
            self.one(world, &event);
        }
        self.execution.status().clone()
    }

    fn one(&mut self, world: &mut World, event: &Event) {
        let outcome = step(
            self.machine,
            std::mem::replace(&mut self.execution, Execution::new()),
            event,
            self.at,
        );
        self.execution = outcome.execution;
        self.at += SignedDuration::from_millis(1);
        for command in outcome.commands {
            match command {
                Command::Schedule {
                    task,
                    resource,
                    input,
                    ..
                } => {
                    self.events.push(match world.answer(&resource, &input) {
                        Ok(output) => Event::TaskSucceeded { task, output },
                        Err((error, cause)) => Event::TaskFailed {
                            task,
                            error: Some(error),
                            cause: Some(cause),
                        },
                    });
                }
                Command::StartTimer { timer, at } => drop(self.timers.insert(timer, at)),
                Command::CancelTimer { timer } => drop(self.timers.remove(&timer)),
                _ => {}
            }
        }
    }
}

fn definition() -> Value {
    let config: Config =
        toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
            .unwrap();
    let yaml = "app: shop\nenvironments: { live: {}, preview: { branches: 'feature/*' } }\n";
    let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
    let made = all(&config, &app, &mut Priorities::default()).unwrap();
    let pipeline = made
        .stacks
        .iter()
        .find(|own| own.name == "vend-pipeline-production-shop")
        .unwrap();
    let machine = pipeline.template.resource("BranchMachine").unwrap();
    let text = machine.properties["DefinitionString"]["Fn::Sub"][0]
        .as_str()
        .unwrap();
    let text = text
        .replace("${AWS::Partition}", "aws")
        .replace("${AWS::AccountId}", "111111111111")
        .replace("${AWS::Region}", "eu-central-1")
        .replace(
            "${Operations}",
            "arn:aws:sns:eu-central-1:111111111111:operations",
        );
    serde_json::from_str(&text).unwrap()
}

fn machine() -> Machine {
    Machine::parse(&definition().to_string()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn at(minutes: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
}

/// An hour after the last push it goes.
fn apply(release: &str) -> Value {
    let push = json!({ "commit": "abc", "branch": "feature/x" });
    aws::live::release::job(OWN, "feature/x", 3_600, release, &push)
}

fn destroy(event: &str) -> Value {
    aws::live::release::end(OWN, "feature/x", "abc", event)
}

impl World {
    /// What is left for ever: which deletions have counted.
    fn seen(&self) -> Vec<&str> {
        let prefix = format!("gone/{OWN}/");
        let all = self.table.iter().map(|(key, item)| {
            assert!(item["expires"].is_null(), "{item}");
            key.strip_prefix(&prefix).unwrap()
        });
        all.collect()
    }
}

#[test]
fn a_push_makes_the_stacks_starts_the_flow_and_takes_all_away_when_nobody_comes() {
    let (machine, mut world) = (machine(), World::default());
    let mut first = Run::new(&machine, "a", at(0), apply("r1"));
    assert_eq!(first.until(&mut world, at(30)).as_str(), "RUNNING");
    assert_eq!(
        (&world.built[..], &world.started[..]),
        (&["apply".to_owned()][..], &["r1".to_owned()][..])
    );
    // Meanwhile others have their turn.
    assert!(!world.table.contains_key(&format!("turn/stacks/{OWN}")));
    // A push after 40 minutes: the first one's hour is over, and it goes on.
    let mut second = Run::new(&machine, "b", at(40), apply("r2"));
    second.until(&mut world, at(50));
    assert_eq!(first.until(&mut world, at(70)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["apply", "apply"]);
    assert_eq!(second.until(&mut world, at(200)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["apply", "apply", "destroy"]);
    assert!(
        world.table.is_empty() && world.told.is_empty(),
        "{:?}",
        world.table
    );
}

#[test]
fn the_end_of_a_branch_is_the_end_whatever_its_pushes_wait_for() {
    let (machine, mut world) = (machine(), World::default());
    let mut push = Run::new(&machine, "a", at(0), apply("r1"));
    push.until(&mut world, at(10));
    let mut gone = Run::new(&machine, "b", at(10), destroy("e1"));
    assert_eq!(gone.until(&mut world, at(20)).as_str(), "SUCCEEDED");
    assert_eq!(push.until(&mut world, at(100)).as_str(), "SUCCEEDED");
    // The push found the record gone, and took nothing away a second time.
    assert_eq!(world.built, ["apply", "destroy"]);
    assert_eq!(world.seen(), ["e1"]);
}

/// Step Functions knows names for 90 days, and a signed body may be sent for ever.
#[test]
fn a_deletion_counts_once_whatever_it_is_called_and_whenever_it_comes() {
    let (machine, mut world) = (machine(), World::default());
    let after = 91 * 24 * 60;
    Run::new(&machine, "a", at(0), apply("r1")).until(&mut world, at(10));
    let mut gone = Run::new(&machine, "b", at(10), destroy("same"));
    assert_eq!(gone.until(&mut world, at(20)).as_str(), "SUCCEEDED");
    // The branch is there again, at the same commit.
    let mut push = Run::new(&machine, "c", at(after), apply("r2"));
    push.until(&mut world, at(after + 10));
    let mut again = Run::new(&machine, "d", at(after + 20), destroy("same"));
    assert_eq!(again.until(&mut world, at(after + 30)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["apply", "destroy", "apply"]);
    // Another deletion is another.
    let mut other = Run::new(&machine, "e", at(after + 30), destroy("other"));
    assert_eq!(other.until(&mut world, at(after + 40)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["apply", "destroy", "apply", "destroy"]);
    assert_eq!(world.seen(), ["other", "same"]);
}

#[test]
fn a_deletion_that_comes_late_takes_nothing_from_who_pushed_since() {
    let (machine, mut world) = (machine(), World::default());
    // It was of another commit, and is sent only now.
    Run::new(&machine, "a", at(0), apply("r1")).until(&mut world, at(10));
    let late = aws::live::release::end(OWN, "feature/x", "before", "e");
    let mut late = Run::new(&machine, "b", at(10), late);
    assert_eq!(late.until(&mut world, at(20)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["apply"]);
    // Where nothing of the branch is known, it counts: half a stack may be there.
    world.table.clear();
    let mut gone = Run::new(&machine, "c", at(30), destroy("f"));
    assert_eq!(gone.until(&mut world, at(40)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["apply", "destroy"]);
}

/// The push of the commit that is deleted began before the deletion, and writes after it has looked for the first time.
#[test]
fn a_deletion_waits_a_little_for_the_push_before_it() {
    let (machine, mut world) = (machine(), World::default());
    let old = json!({ "owner": { "S": "o" }, "began": { "N": "1" }, "commit": { "S": "older" } });
    world.table.insert(format!("branch/{OWN}"), old);
    let mut gone = Run::new(&machine, "b", at(1), destroy("e"));
    gone.until(&mut world, at(1));
    let mut push = Run::new(&machine, "a", at(0), apply("r1"));
    push.until(&mut world, at(0));
    assert_eq!(gone.until(&mut world, at(20)).as_str(), "SUCCEEDED");
    assert_eq!(world.built.last().unwrap(), "destroy");
    assert_eq!(world.seen(), ["e"]);
}

#[test]
fn of_two_that_are_there_at_once_the_later_counts() {
    let (machine, mut world) = (machine(), World::default());
    // The push has been written down and waits for its turn, when the branch is deleted.
    world.table.insert(
        format!("turn/stacks/{OWN}"),
        json!({ "owner": { "S": "another" }, "expires": { "N": at(5).as_second().to_string() } }),
    );
    let mut push = Run::new(&machine, "a", at(0), apply("r1"));
    push.until(&mut world, at(1));
    let mut gone = Run::new(&machine, "b", at(1), destroy("e2"));
    gone.until(&mut world, at(2));
    assert!(world.built.is_empty());
    assert_eq!(push.until(&mut world, at(10)).as_str(), "SUCCEEDED");
    assert!(world.built.is_empty(), "{:?}", world.built);
    assert_eq!(gone.until(&mut world, at(20)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["destroy"]);
    // And one that began earlier and comes later does nothing.
    let mut again = Run::new(&machine, "d", at(31), apply("r3"));
    again.until(&mut world, at(32));
    let mut late = Run::new(&machine, "c", at(30), destroy("e3"));
    assert_eq!(late.until(&mut world, at(40)).as_str(), "SUCCEEDED");
    assert_eq!(world.built, ["destroy", "apply"]);
}

#[test]
fn what_cannot_be_made_is_told_and_expires_and_what_cannot_go_is_tried_again() {
    let (machine, mut world) = (machine(), World::default());
    world.failing = 2;
    let mut push = Run::new(&machine, "a", at(0), apply("r1"));
    assert_eq!(push.until(&mut world, at(30)).as_str(), "RUNNING");
    assert_eq!(world.built, ["apply", "apply"]);
    assert!(world.started.is_empty());
    assert!(
        world.told[0].contains("feature/x: could not apply its stacks"),
        "{:?}",
        world.told
    );
    world.failing = 3;
    assert_eq!(push.until(&mut world, at(1_000)).as_str(), "SUCCEEDED");
    assert_eq!(world.built[2..], ["destroy", "destroy", "destroy", "destroy"]);
    assert!(world.table.is_empty());
    // For ever it is not tried.
    world.failing = 100;
    let mut gone = Run::new(&machine, "b", at(2_000), destroy("e4"));
    let status = gone.until(&mut world, at(10_000));
    assert_eq!(status.as_str(), "FAILED", "{status:?}");
    assert!(
        world.told[1].contains("could not destroy") && world.told[1].contains("Nobody tries again by itself"),
        "{:?}",
        world.told
    );
    assert!(!world.told[0].contains("Nobody tries again"), "{:?}", world.told);
    assert_eq!(
        world
            .built
            .iter()
            .rev()
            .take_while(|own| *own == "destroy")
            .count(),
        4 + 6
    );
}

/// However long builds take: another execution takes a turn that is over, and two would make the stacks of one branch.
#[test]
fn all_tries_together_end_before_the_turn_does() {
    let definition = definition();
    let number = |value: &Value| value.as_u64().unwrap();
    let turn = definition["States"]["Turn"]["Arguments"]["Item"]["expires"]["N"]
        .as_str()
        .unwrap();
    let turn_s: u64 = turn
        .rsplit("+ ")
        .next()
        .unwrap()
        .trim_end_matches(") %}")
        .parse()
        .unwrap();
    for name in ["Apply", "Destroy"] {
        let state = &definition["States"][name];
        let retry = &state["Retry"][0];
        let tries = u32::try_from(number(&retry["MaxAttempts"])).unwrap();
        let waits: u64 = (0..tries)
            .map(|one| number(&retry["IntervalSeconds"]) * number(&retry["BackoffRate"]).pow(one))
            .sum();
        let all = waits + u64::from(tries + 1) * number(&state["TimeoutSeconds"]);
        // An hour is left for what stands before and after it.
        assert!(all + 3_600 < turn_s, "{name} may take {all} s of {turn_s}");
    }
}
