//! What the Step Functions API promises in small: data that is left out, settings that mean nothing here, tasks that
//! nobody does, and who stopped what.

use axum::http::StatusCode;
use model::policy::Role::Developer;
use serde_json::{Value, json};

use super::{
    services::{ask, end, kinds, machine, start},
    states::call,
    world::{Who, World},
};

const ROLE: &str = "arn:aws:iam::1:role/r";
const PASS: &str = r#"{"StartAt":"P","States":{"P":{"Type":"Pass","End":true}}}"#;

/// What a refused call says: the exception and its message.
async fn refused(world: &World, who: &Who, operation: &str, input: Value) -> (String, String) {
    let (status, answer) = call(world, who, operation, &input).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{operation}: {answer}");
    let text = |member: &str| answer[member].as_str().unwrap().to_owned();
    (text("__type"), text("message"))
}

/// A task of a service that nobody calls is not tried again, and no catcher makes it look done.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_does_ends_its_execution() {
    let world = World::at(crate::clock::now).await;
    let who = world.bearer(Developer, Some("acme")).await;
    for (number, (resource, sentence)) in [
        (
            "arn:aws:states:::lambda:invoke",
            "is a service that this platform does not call",
        ),
        ("foo:bar", "is not an ARN"),
        (
            "arn:aws:states:local:000000000001:activity:none",
            "does not exist",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let all = json!(["States.ALL"]);
        let definition = json!({ "StartAt": "T", "States": {
            "T": { "Type": "Task", "Resource": resource, "End": true,
                "Retry": [{ "ErrorEquals": ["States.TaskFailed"] }], "Catch": [{ "ErrorEquals": all, "Next": "C" }] },
            "C": { "Type": "Succeed" },
        } });
        let made = machine(&world, &who, &format!("m{number}"), definition).await;
        let execution = start(&world, &who, &made).await;
        let about = end(&world, &who, &execution).await;
        assert_eq!(
            (&about["status"], &about["error"]),
            (&json!("FAILED"), &json!("States.Runtime")),
            "{resource}"
        );
        let cause = about["cause"].as_str().unwrap();
        assert!(cause.contains(sentence), "{cause}");
        let kinds = kinds(&world, &who, &execution).await;
        let tries = kinds.iter().filter(|kind| kind.ends_with("Scheduled")).count();
        assert_eq!(tries, 1, "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_all_that_is_told() {
    let world = World::at(crate::clock::now).await;
    let who = world.bearer(Developer, Some("acme")).await;
    let made = machine(&world, &who, "m", serde_json::from_str(PASS).unwrap()).await;
    let execution = start(&world, &who, &made).await;
    let whole = end(&world, &who, &execution).await;
    assert_eq!(whole["outputDetails"], json!({ "included": true }));
    let only = |member: &str, arn: &str| json!({ member: arn, "includedData": "METADATA_ONLY" });
    let about = ask(
        &world,
        &who,
        "DescribeExecution",
        only("executionArn", &execution),
    )
    .await;
    for (member, details) in [("input", "inputDetails"), ("output", "outputDetails")] {
        assert_eq!(about.get(member), None);
        assert_eq!(about[details], json!({ "included": false }));
    }
    assert_eq!(about["status"], "SUCCEEDED");
    let of = only("executionArn", &execution);
    let about = ask(&world, &who, "DescribeStateMachineForExecution", of).await;
    assert_eq!(about["definition"], "{}");
    let about = ask(
        &world,
        &who,
        "DescribeStateMachine",
        only("stateMachineArn", &made),
    )
    .await;
    assert_eq!(about["definition"], "{}");
    let wrong = json!({ "executionArn": execution, "includedData": "SOME" });
    let (name, message) = refused(&world, &who, "DescribeExecution", wrong).await;
    assert_eq!(name, "ValidationException");
    assert!(message.contains("includedData"), "{message}");
    let quick = json!({ "name": "q", "definition": PASS, "roleArn": ROLE, "type": "EXPRESS" });
    let quick = ask(&world, &who, "CreateStateMachine", quick).await;
    let of = only("stateMachineArn", quick["stateMachineArn"].as_str().unwrap());
    let ran = ask(&world, &who, "StartSyncExecution", of).await;
    assert_eq!((ran.get("input"), ran.get("output")), (None, None), "{ran}");
}

#[tokio::test]
async fn a_key_that_would_not_be_used_is_refused() {
    let world = World::new().await;
    let who = world.bearer(Developer, Some("acme")).await;
    let new = |kind: &str| {
        json!({ "name": "m", "definition": PASS, "roleArn": ROLE,
            "encryptionConfiguration": { "type": kind, "kmsKeyId": "k" } })
    };
    let (name, message) = refused(
        &world,
        &who,
        "CreateStateMachine",
        new("CUSTOMER_MANAGED_KMS_KEY"),
    )
    .await;
    assert_eq!(name, "InvalidEncryptionConfiguration");
    assert!(message.contains("AWS_OWNED_KEY"), "{message}");
    ask(&world, &who, "CreateStateMachine", new("AWS_OWNED_KEY")).await;
    let activity = json!({ "name": "a", "encryptionConfiguration": { "type": "CUSTOMER_MANAGED_KMS_KEY" } });
    let (name, _) = refused(&world, &who, "CreateActivity", activity).await;
    assert_eq!(name, "InvalidEncryptionConfiguration");
}

/// "The first revision ID when you create the state machine is null", and INITIAL stands for it.
#[tokio::test]
async fn a_machine_has_no_revision_before_its_first_update() {
    let world = World::new().await;
    let who = world.bearer(Developer, Some("acme")).await;
    let made = machine(&world, &who, "m", serde_json::from_str(PASS).unwrap()).await;
    let of = json!({ "stateMachineArn": made });
    let about = ask(&world, &who, "DescribeStateMachine", of.clone()).await;
    assert_eq!(about.get("revisionId"), None);
    let initial = json!({ "stateMachineArn": made, "revisionId": "INITIAL" });
    ask(&world, &who, "PublishStateMachineVersion", initial.clone()).await;
    let change = json!({ "stateMachineArn": made, "roleArn": "arn:aws:iam::1:role/s" });
    let updated = ask(&world, &who, "UpdateStateMachine", change).await;
    let about = ask(&world, &who, "DescribeStateMachine", of).await;
    assert_eq!(about["revisionId"], updated["revisionId"]);
    let (name, _) = refused(&world, &who, "PublishStateMachineVersion", initial).await;
    assert_eq!(name, "ConflictException");
}

#[tokio::test]
async fn definitions_that_call_nothing_are_refused() {
    let world = World::new().await;
    let who = world.bearer(Developer, Some("acme")).await;
    let made = |resource: &str| {
        let task = json!({ "StartAt": "T", "States": { "T": { "Type": "Task", "Resource": resource, "End": true } } });
        json!({ "name": "m", "definition": task.to_string(), "roleArn": ROLE })
    };
    for resource in [
        "foo",
        "arn:aws:states:::aws-sdk:sfn:noSuchThing",
        "arn:aws:states:::lambda:invok",
    ] {
        let (name, message) = refused(&world, &who, "CreateStateMachine", made(resource)).await;
        assert_eq!(name, "InvalidDefinition");
        assert!(message.ends_with("at /States/T/Resource'"), "{message}");
    }
}

/// Every operation that the platform has is one that the linter knows.
#[test]
fn the_linter_knows_every_operation() {
    for (operation, _) in crate::web::states::OPERATIONS {
        let mut letters = operation.chars();
        let first = letters.next().unwrap().to_ascii_lowercase();
        let resource = format!("arn:aws:states:::aws-sdk:sfn:{first}{}", letters.as_str());
        let task = json!({ "StartAt": "T", "States": { "T": { "Type": "Task", "Resource": resource, "End": true } } });
        assert!(asl::Machine::parse(&task.to_string()).is_ok(), "{resource}");
        assert!(crate::web::services::is_called(&resource), "{resource}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_or_redrives_an_execution_is_on_record() {
    let world = World::at(crate::clock::now).await;
    let who = world.bearer(Developer, Some("acme")).await;
    let wait = json!({ "StartAt": "W", "States": { "W": { "Type": "Wait", "Seconds": 3600, "End": true } } });
    let made = machine(&world, &who, "m", wait).await;
    let execution = start(&world, &who, &made).await;
    let of = json!({ "executionArn": execution });
    ask(&world, &who, "StopExecution", of.clone()).await;
    // It has ended, and is not stopped again.
    ask(&world, &who, "StopExecution", of.clone()).await;
    ask(&world, &who, "RedriveExecution", of).await;
    let lines = world
        .state
        .store
        .read(|db| {
            db.ledger(&store::LedgerFilter {
                limit: 100,
                ..store::LedgerFilter::default()
            })
        })
        .await
        .unwrap();
    let mut told: Vec<_> = lines
        .iter()
        .filter(|line| line.object == execution)
        .map(|line| (line.action.as_str(), line.tenant.as_deref()))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("state-machine.execution.redrive", Some("acme")),
            ("state-machine.execution.stop", Some("acme"))
        ]
    );
}
