use crate::{Flavour, Machine, Severity, validate};
use serde_json::{Value, json};

fn machine(state: Value) -> String {
    json!({ "StartAt": "S", "States": { "S": state } }).to_string()
}

/// What is said of a state, warnings too: code, message and place.
fn said(state: Value) -> Vec<String> {
    let found = validate(&machine(state), Flavour::Standard, Severity::Warning, 100);
    let each = found.diagnostics.iter();
    each.map(|one| {
        format!(
            "{}: {} at {}",
            one.code,
            one.message,
            one.location.as_deref().unwrap_or_default()
        )
    })
    .collect()
}

fn task(resource: &str) -> Value {
    json!({ "Type": "Task", "Resource": resource, "End": true })
}

#[test]
fn resources_that_aws_takes_are_taken() {
    for resource in [
        "arn:aws:lambda:eu-west-1:123456789012:function:f:PROD",
        "arn:aws-us-gov:states:us-gov-west-1:123456789012:activity:a",
        "arn:aws:states:local:1:activity:build",
        "arn:aws:states:::lambda:invoke",
        "arn:aws-cn:states:::sqs:sendMessage",
        "arn:aws:states:::glue:startJobRun.sync",
        "arn:aws:states:::codebuild:startBuildBatch.sync",
        "arn:aws:states:::ecs:runTask.sync",
        "arn:aws:states:::aws-sdk:s3:listObjectsV2",
        "arn:aws:states:::aws-sdk:sfn:describeMapRun",
    ] {
        assert_eq!(said(task(resource)), [""; 0], "{resource}");
    }
}

#[test]
fn what_is_no_resource_is_refused() {
    let place = "at /States/S/Resource";
    for resource in [
        "foo",
        "",
        ":::lambda:invoke",
        "arn:aws",
        "arn:aws:states:::",
        "arn:aws:states:us-east-1:123456789012:stateMachine:m",
        "arn:aws:states:us-east-1:123456789012:activity:",
    ] {
        let want = format!("SCHEMA_VALIDATION_FAILED: Value is not a valid resource ARN {place}");
        assert_eq!(said(task(resource)), [want], "{resource}");
    }
    for resource in [
        "arn:aws:states:::lambda:invok",
        "arn:aws:states:::states:stopExecution",
        "arn:aws:states:::aws-sdk:sfn:noSuchThing",
        "arn:aws:states:::aws-sdk:s3:ListBuckets",
        "arn:aws:states:::aws-sdk:s3",
        "arn:aws:states:::sqs:sendMessage.waitForToken",
    ] {
        let want = format!(
            "SCHEMA_VALIDATION_FAILED: The resource provided {resource} is not recognized. The value is not a valid \
             resource ARN, or the resource is not available in this region. {place}"
        );
        assert_eq!(said(task(resource)), [want], "{resource}");
    }
}

#[test]
fn what_is_not_known_is_doubted() {
    for (resource, code) in [
        ("foo:bar", "NO_ARN"),
        ("arn:aws:states:::foo:bar", "UNKNOWN_RESOURCE"),
        ("arn:aws:s3:::bucket", "UNKNOWN_RESOURCE"),
    ] {
        let found = said(task(resource));
        assert_eq!(found.len(), 1, "{resource}: {found:?}");
        assert!(found[0].starts_with(code), "{resource}: {found:?}");
        assert!(Machine::parse(&machine(task(resource))).is_ok(), "{resource}");
    }
}

#[test]
fn an_execution_is_started_of_a_machine() {
    let start = |more: Value| {
        let mut state = task("arn:aws:states:::states:startExecution.sync:2");
        let members = more.as_object().cloned().unwrap_or_default();
        state.as_object_mut().unwrap().extend(members);
        said(state)
    };
    let missing = |field: &str, place: &str| {
        [format!(
            "SCHEMA_VALIDATION_FAILED: The field '{field}' is required but was missing at /States/S{place}"
        )]
    };
    let doubts = start(json!({}));
    assert!(
        doubts.len() == 1 && doubts[0].starts_with("NO_PARAMETERS"),
        "{doubts:?}"
    );
    assert_eq!(
        start(json!({ "Parameters": { "Input": {} } })),
        missing("StateMachineArn", "/Parameters")
    );
    assert_eq!(
        start(json!({ "QueryLanguage": "JSONata", "Arguments": {} })),
        missing("StateMachineArn", "/Arguments")
    );
    for good in [
        json!({ "Parameters": { "StateMachineArn.$": "$.a" } }),
        json!({ "Parameters": { "StateMachineArn": "arn:aws:states:local:1:stateMachine:m" } }),
        json!({ "QueryLanguage": "JSONata", "Arguments": "{% $states.input %}" }),
    ] {
        assert_eq!(start(good.clone()), [""; 0], "{good}");
    }
}

#[test]
fn a_token_that_nobody_is_told_is_doubted() {
    let wait = |more: Value| {
        let mut state = task("arn:aws:states:::sqs:sendMessage.waitForTaskToken");
        let members = more.as_object().cloned().unwrap_or_default();
        state.as_object_mut().unwrap().extend(members);
        said(state)
            .iter()
            .filter(|one| one.starts_with("NO_TASK_TOKEN"))
            .count()
    };
    assert_eq!(wait(json!({})), 1);
    assert_eq!(wait(json!({ "Parameters": { "MessageBody.$": "$.a" } })), 1);
    assert_eq!(
        wait(json!({ "Parameters": { "MessageBody": { "t.$": "$$.Task.Token" } } })),
        0
    );
    assert_eq!(
        wait(json!({ "Parameters": { "MessageBody.$": "States.Format('{}', $$.Task.Token)" } })),
        0
    );
    let query = |text: &str| json!({ "QueryLanguage": "JSONata", "Arguments": { "MessageBody": text } });
    assert_eq!(wait(query("{% $states.context.Task.Token %}")), 0);
    assert_eq!(wait(query("{% $states.input %}")), 1);
}

#[test]
fn blanks_around_an_expression_are_doubted() {
    let pass = |output: Value| {
        said(json!({ "Type": "Pass", "QueryLanguage": "JSONata", "End": true, "Output": output }))
    };
    let found = pass(json!({ "a": [" {% 1 %}"], "b": "{% 1 %}", "c": " {% 1 %} and", "d": " plain " }));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("NO_EXPRESSION") && found[0].ends_with("at /States/S/Output/a[0]"),
        "{found:?}"
    );
    let path = json!({ "Type": "Pass", "End": true, "Result": " {% 1 %}" });
    assert_eq!(said(path), [""; 0]);
}

/// A definition that was taken once is read, though it would be refused today.
#[test]
fn what_was_taken_is_kept() {
    let query = |output: &str| json!({ "Type": "Pass", "QueryLanguage": "JSONata", "Output": { "a": output }, "End": true });
    let once = machine(task("arn:aws:states:::sqs:sendMessage"));
    for text in [
        machine(task("foo")),
        machine(task("arn:aws:states:::events:putEvents.sync")),
        machine(query("{% $states.result %}")),
        machine(query("{% $states.errorOutput %}")),
        once.replacen("\"States\":{", "\"States\":{\"S\":{\"Type\":\"Succeed\"},", 1),
    ] {
        assert!(Machine::parse(&text).is_err(), "{text}");
        assert!(Machine::kept(&text).is_ok(), "{text}");
    }
}
