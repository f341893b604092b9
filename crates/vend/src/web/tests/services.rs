//! Tasks that the platform itself answers: executions that start executions, and callbacks.

use std::time::Duration;

use axum::http::StatusCode;
use model::policy::Role::{Developer, Operator};
use serde_json::{Value, json};

use super::{
    states::call,
    world::{Who, World},
};

pub async fn ask(world: &World, who: &Who, operation: &str, input: Value) -> Value {
    let (status, answer) = call(world, who, operation, &input).await;
    assert_eq!(status, StatusCode::OK, "{operation}: {answer}");
    answer
}

pub async fn machine(world: &World, who: &Who, name: &str, definition: Value) -> String {
    let new =
        json!({ "name": name, "definition": definition.to_string(), "roleArn": "arn:aws:iam::1:role/r" });
    let made = ask(world, who, "CreateStateMachine", new).await;
    made["stateMachineArn"].as_str().unwrap().to_owned()
}

/// A machine of one task.
fn task(resource: &str, parameters: Value) -> Value {
    let task = json!({ "Type": "Task", "Resource": format!("arn:aws:states:::{resource}"),
        "Parameters": parameters, "End": true });
    json!({ "StartAt": "T", "States": { "T": task } })
}

pub async fn start(world: &World, who: &Who, machine: &str) -> String {
    let started = ask(
        world,
        who,
        "StartExecution",
        json!({ "stateMachineArn": machine, "input": "{\"a\":1.50}" }),
    )
    .await;
    started["executionArn"].as_str().unwrap().to_owned()
}

/// Waits until `ready` says so of what DescribeExecution tells.
async fn until(world: &World, who: &Who, execution: &str, ready: impl Fn(&Value) -> bool) -> Value {
    let look = async {
        loop {
            let about = ask(
                world,
                who,
                "DescribeExecution",
                json!({ "executionArn": execution }),
            )
            .await;
            if ready(&about) {
                return about;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), look).await;
    waited.unwrap_or_else(|_| panic!("{execution} does not come to it"))
}

pub async fn end(world: &World, who: &Who, execution: &str) -> Value {
    until(world, who, execution, |about| about["status"] != "RUNNING").await
}

async fn executions(world: &World, who: &Who, machine: &str) -> Vec<Value> {
    let found = ask(
        world,
        who,
        "ListExecutions",
        json!({ "stateMachineArn": machine }),
    )
    .await;
    found["executions"].as_array().unwrap().clone()
}

/// The first execution of a machine, once there is one.
async fn first(world: &World, who: &Who, machine: &str) -> String {
    for _ in 0..1000 {
        if let Some(found) = executions(world, who, machine).await.first() {
            return found["executionArn"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{machine} is not started");
}

pub async fn kinds(world: &World, who: &Who, execution: &str) -> Vec<String> {
    let history = ask(
        world,
        who,
        "GetExecutionHistory",
        json!({ "executionArn": execution }),
    )
    .await;
    let events = history["events"].as_array().unwrap().iter();
    events
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}

fn read(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

const ECHO: &str = r#"{"StartAt":"P","States":{"P":{"Type":"Pass","End":true}}}"#;
const WAIT: &str = r#"{"StartAt":"W","States":{"W":{"Type":"Wait","Seconds":3600,"End":true}}}"#;

fn definition(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_waits_for_the_one_it_starts() {
    let world = World::at(crate::clock::now).await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let echo = machine(&world, &owner, "echo", definition(ECHO)).await;
    let parameters = json!({ "StateMachineArn": echo, "Input.$": "$" });
    let sync = |pattern: &str| task(&format!("states:startExecution{pattern}"), parameters.clone());

    let parsed = machine(&world, &owner, "parsed", sync(".sync:2")).await;
    let execution = start(&world, &owner, &parsed).await;
    let output = read(&end(&world, &owner, &execution).await["output"]);
    assert_eq!(
        (&output["Status"], &output["Output"]),
        (&json!("SUCCEEDED"), &definition(r#"{"a":1.50}"#)),
        "{output}"
    );
    assert_eq!(output["StateMachineArn"], echo);
    assert!(
        output["StartDate"].is_i64() && output["StopDate"].is_i64(),
        "{output}"
    );
    let text = ["TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded"];
    assert_eq!(kinds(&world, &owner, &execution).await[2..6], text);

    let text = machine(&world, &owner, "text", sync(".sync")).await;
    let execution = start(&world, &owner, &text).await;
    let output = read(&end(&world, &owner, &execution).await["output"]);
    assert_eq!(output["Output"], "{\"a\":1.50}", "a number keeps its literal");

    let quick = machine(&world, &owner, "quick", sync("")).await;
    let execution = start(&world, &owner, &quick).await;
    let output = read(&end(&world, &owner, &execution).await["output"]);
    assert!(
        output["ExecutionArn"]
            .as_str()
            .unwrap()
            .contains(":execution:echo:"),
        "{output}"
    );
    assert_eq!(executions(&world, &owner, &echo).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_cause_and_can_be_caught() {
    let world = World::at(crate::clock::now).await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let fail =
        json!({ "StartAt": "F", "States": { "F": { "Type": "Fail", "Error": "E", "Cause": "because" } } });
    let fail = machine(&world, &owner, "fail", fail).await;
    let mut outer = task("states:startExecution.sync:2", json!({ "StateMachineArn": fail }));
    outer["States"]["T"]["Catch"] = json!([{ "ErrorEquals": ["States.TaskFailed"], "Next": "C" }]);
    outer["States"]["C"] = json!({ "Type": "Pass", "End": true });
    let outer = machine(&world, &owner, "outer", outer).await;
    let caught = read(&end(&world, &owner, &start(&world, &owner, &outer).await).await["output"]);
    let cause = read(&caught["Cause"]);
    assert_eq!(
        (&cause["Error"], &cause["Cause"], &cause["Status"]),
        (&json!("E"), &json!("because"), &json!("FAILED"))
    );

    for (name, resource, parameters, error) in [
        (
            "missing",
            "states:startExecution",
            json!({ "StateMachineArn": format!("{fail}x") }),
            "StepFunctions.StateMachineDoesNotExistException",
        ),
        (
            "token",
            "aws-sdk:sfn:sendTaskSuccess",
            json!({ "TaskToken": "x", "Output": {} }),
            "Sfn.InvalidTokenException",
        ),
        (
            "nothing",
            "states:startExecution.sync",
            json!({ "StateMachineArn": null }),
            "StepFunctions.ValidationException",
        ),
    ] {
        let outer = machine(&world, &owner, name, task(resource, parameters)).await;
        let ended = end(&world, &owner, &start(&world, &owner, &outer).await).await;
        assert_eq!(
            (&ended["status"], &ended["error"]),
            (&json!("FAILED"), &json!(error)),
            "{ended}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_token_answers() {
    let world = World::at(crate::clock::now).await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let answer = json!({ "TaskToken.$": "$.token", "Output": { "yes": true } });
    let inner = machine(
        &world,
        &owner,
        "inner",
        task("aws-sdk:sfn:sendTaskSuccess", answer),
    )
    .await;
    let parameters = json!({ "StateMachineArn": inner, "Input": { "token.$": "$$.Task.Token" } });
    let outer = task("states:startExecution.waitForTaskToken", parameters);
    let outer = machine(&world, &owner, "outer", outer).await;
    let execution = start(&world, &owner, &outer).await;
    let ended = end(&world, &owner, &execution).await;
    assert_eq!(
        (&ended["status"], read(&ended["output"])),
        (&json!("SUCCEEDED"), json!({ "yes": true })),
        "{ended}"
    );
    let kinds = kinds(&world, &owner, &execution).await;
    assert!(kinds.contains(&"TaskSucceeded".to_owned()), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_stops_what_it_waits_for() {
    let world = World::at(crate::clock::now).await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let wait = machine(&world, &owner, "wait", definition(WAIT)).await;
    for (name, resource, stops) in [
        ("sync", "states:startExecution.sync", true),
        ("token", "states:startExecution.waitForTaskToken", false),
    ] {
        let parameters = json!({ "StateMachineArn": wait, "Name": name });
        let outer = machine(&world, &owner, name, task(resource, parameters)).await;
        let execution = start(&world, &owner, &outer).await;
        let inner = wait.replace(":stateMachine:", ":execution:") + ":" + name;
        while call(
            &world,
            &owner,
            "DescribeExecution",
            &json!({ "executionArn": inner }),
        )
        .await
        .0 != StatusCode::OK
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ask(
            &world,
            &owner,
            "StopExecution",
            json!({ "executionArn": execution }),
        )
        .await;
        if stops {
            assert_eq!(end(&world, &owner, &inner).await["status"], "ABORTED");
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let about = ask(
                &world,
                &owner,
                "DescribeExecution",
                json!({ "executionArn": inner }),
            )
            .await;
            assert_eq!(about["status"], "RUNNING", "it is its own");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_outlives_the_process_and_starts_nothing_twice() {
    let world = World::at(crate::clock::now).await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let made = ask(&world, &owner, "CreateActivity", json!({ "name": "work" })).await;
    let work = json!({ "Type": "Task", "Resource": made["activityArn"], "End": true });
    let work = json!({ "StartAt": "W", "States": { "W": work } });
    let work = machine(&world, &owner, "work", work).await;
    let mut outers = Vec::new();
    for (name, parameters) in [
        ("named", json!({ "StateMachineArn": work, "Name": "n" })),
        ("unnamed", json!({ "StateMachineArn": work })),
    ] {
        let outer = machine(
            &world,
            &owner,
            name,
            task("states:startExecution.sync:2", parameters),
        )
        .await;
        let execution = start(&world, &owner, &outer).await;
        while !kinds(&world, &owner, &execution)
            .await
            .contains(&"TaskSubmitted".to_owned())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        outers.push(execution);
    }
    let world = world.again().await;
    for _ in 0..2 {
        let given = ask(
            &world,
            &owner,
            "GetActivityTask",
            json!({ "activityArn": made["activityArn"] }),
        )
        .await;
        let answer = json!({ "taskToken": given["taskToken"], "output": "7" });
        ask(&world, &owner, "SendTaskSuccess", answer).await;
    }
    for execution in outers {
        let ended = end(&world, &owner, &execution).await;
        assert_eq!(read(&ended["output"])["Output"], 7, "{ended}");
        let kinds = kinds(&world, &owner, &execution).await;
        assert_eq!(
            kinds.iter().filter(|kind| *kind == "TaskSubmitted").count(),
            1,
            "{kinds:?}"
        );
    }
    assert_eq!(executions(&world, &owner, &work).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_reaches_nothing_of_another_tenant() {
    let world = World::at(crate::clock::now).await;
    let (ours, theirs) = (
        world.bearer(Developer, Some("acme")).await,
        world.bearer(Operator, Some("other")).await,
    );
    let secret = machine(&world, &theirs, "secret", definition(WAIT)).await;
    let running = start(&world, &theirs, &secret).await;
    for (name, resource, parameters, error) in [
        (
            "a",
            "states:startExecution",
            json!({ "StateMachineArn": secret }),
            "StepFunctions.StateMachineDoesNotExistException",
        ),
        (
            "b",
            "aws-sdk:sfn:describeExecution",
            json!({ "ExecutionArn": running }),
            "Sfn.ExecutionDoesNotExistException",
        ),
        (
            "c",
            "aws-sdk:sfn:stopExecution",
            json!({ "ExecutionArn": running }),
            "Sfn.ExecutionDoesNotExistException",
        ),
    ] {
        let outer = machine(&world, &ours, name, task(resource, parameters)).await;
        let ended = end(&world, &ours, &start(&world, &ours, &outer).await).await;
        assert_eq!(ended["error"], error, "{ended}");
    }
    let listed = machine(
        &world,
        &ours,
        "list",
        task("aws-sdk:sfn:listStateMachines", json!({})),
    )
    .await;
    let ended = end(&world, &ours, &start(&world, &ours, &listed).await).await;
    assert!(!ended["output"].as_str().unwrap().contains("secret"), "{ended}");
    assert_eq!(first(&world, &theirs, &secret).await, running);
    assert_eq!(executions(&world, &theirs, &secret).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_else_has_used_is_refused() {
    let world = World::at(crate::clock::now).await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let echo = machine(&world, &owner, "echo", definition(ECHO)).await;
    let parameters = json!({ "StateMachineArn": echo, "Name": "once" });
    let outer = machine(
        &world,
        &owner,
        "outer",
        task("states:startExecution.sync", parameters),
    )
    .await;
    assert_eq!(
        end(&world, &owner, &start(&world, &owner, &outer).await).await["status"],
        "SUCCEEDED"
    );
    let ended = end(&world, &owner, &start(&world, &owner, &outer).await).await;
    assert_eq!(
        ended["error"], "StepFunctions.ExecutionAlreadyExistsException",
        "{ended}"
    );
    let express =
        json!({ "name": "x", "definition": ECHO, "roleArn": "arn:aws:iam::1:role/r", "type": "EXPRESS" });
    let express = ask(&world, &owner, "CreateStateMachine", express).await;
    let parameters = json!({ "StateMachineArn": express["stateMachineArn"] });
    let outer = machine(
        &world,
        &owner,
        "vain",
        task("states:startExecution.sync", parameters),
    )
    .await;
    let ended = end(&world, &owner, &start(&world, &owner, &outer).await).await;
    assert_eq!(
        ended["error"], "StepFunctions.StateMachineTypeNotSupportedException",
        "{ended}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_stops_nothing_that_is_waited_for() {
    let world = World::at(crate::clock::now).await;
    let owner = world.bearer(Developer, Some("acme")).await;
    let made = ask(&world, &owner, "CreateActivity", json!({ "name": "work" })).await;
    let activity = json!({ "activityArn": made["activityArn"] });
    let work = json!({ "Type": "Task", "Resource": made["activityArn"], "End": true });
    let work = json!({ "StartAt": "W", "States": { "W": work } });
    let inner = machine(&world, &owner, "inner", work.clone()).await;
    let parameters = json!({ "StateMachineArn": inner, "Name": "n" });
    let outer = machine(
        &world,
        &owner,
        "outer",
        task("states:startExecution.sync:2", parameters),
    )
    .await;
    let execution = start(&world, &owner, &outer).await;
    let given = ask(&world, &owner, "GetActivityTask", activity).await;

    // A name that was used, though its giver says that it was not.
    let text = work.to_string();
    let bad = engine::Start {
        tenant: Some("acme".parse().unwrap()),
        owner: 1,
        machine: 1,
        machine_arn: inner.clone(),
        machine_name: "inner".into(),
        role: "arn:aws:iam::1:role/r".into(),
        program: asl::Machine::parse(&text).unwrap(),
        definition: text,
        name: "n".into(),
        arn: inner.replace(":stateMachine:", ":execution:") + ":n",
        origin: "{}".into(),
        input: json!({}),
        fresh: true,
    };
    let failed = world.state.states.engine.start(bad).await;
    assert!(matches!(failed, Err(engine::Error::Store(_))), "{failed:?}");

    let answer = json!({ "taskToken": given["taskToken"], "output": "7" });
    ask(&world, &owner, "SendTaskSuccess", answer).await;
    let ended = end(&world, &owner, &execution).await;
    assert_eq!(read(&ended["output"])["Output"], 7, "{ended}");
    assert_eq!(executions(&world, &owner, &inner).await.len(), 1);
}
