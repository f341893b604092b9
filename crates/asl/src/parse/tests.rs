use crate::check::Code;
use crate::machine::Machine;
use serde_json::{Value, json};

/// Each problem as `CODE pointer message`.
fn problems(definition: &Value) -> Vec<String> {
    let problems = Machine::parse(&definition.to_string()).err().unwrap_or_default();
    problems
        .iter()
        .map(|problem| format!("{} {} {}", problem.code, problem.pointer, problem.message))
        .collect()
}

fn single(state: Value) -> Value {
    json!({ "StartAt": "S", "States": { "S": state } })
}

fn check(definition: Value, want: &[&str]) {
    let is = problems(&definition);
    let fits = is.len() == want.len() && is.iter().zip(want).all(|(is, want)| is.starts_with(want));
    assert!(fits, "{definition}\n  want {want:#?}\n  but  {is:#?}");
}

#[test]
fn sound_definitions_pass() {
    for state in [
        json!({ "Type": "Pass", "InputPath": null, "OutputPath": "$", "ResultPath": null, "End": true }),
        json!({ "Type": "Task", "Resource": "x", "End": true, "Retry": [{ "ErrorEquals": ["States.ALL"], "BackoffRate": 1 }] }),
        json!({ "Type": "Wait", "Timestamp": "2030-01-01T00:00:00Z", "End": true }),
        json!({ "Type": "Fail" }),
        json!({ "Type": "Succeed", "Comment": "done" }),
        json!({ "Type": "Map", "Iterator": single(json!({ "Type": "Fail" })).as_object().map(|inner| {
            let text = serde_json::to_string(inner).unwrap().replace("\"S\"", "\"T\"");
            serde_json::from_str::<Value>(&text).unwrap()
        }), "End": true }),
    ] {
        check(single(state), &[]);
    }
}

#[test]
fn all_problems_are_found_at_once_and_in_order() {
    let definition = json!({
        "Version": "2.0",
        "StartAt": "A",
        "States": {
            "A": { "Type": "Pass", "Next": "Nowhere", "Colour": 1 },
            "B": { "Type": "Wait", "Seconds": 1, "End": true },
        },
    });
    check(
        definition,
        &[
            "SCHEMA_VALIDATION_FAILED /Version The version",
            "MISSING_TRANSITION_TARGET /States/A/Next Missing 'Next' target: Nowhere",
            "SCHEMA_VALIDATION_FAILED /States/A/Colour Field 'Colour' is not supported",
            "MISSING_TRANSITION_TARGET /States/B State \"B\" is not reachable.",
        ],
    );
}

#[test]
fn each_field_is_checked() {
    let schema = |rest: &str| format!("SCHEMA_VALIDATION_FAILED {rest}");
    for (state, want) in [
        (json!({ "Type": "Nap" }), "/States/S/Type Value is not valid"),
        (json!({}), "/States/S These fields are required: [Type]"),
        (json!(1), "/States/S Expected value of type Object"),
        (
            json!({ "Type": "Pass" }),
            "/States/S One of the following fields is required: [Next, End]",
        ),
        (
            json!({ "Type": "Pass", "End": false }),
            "/States/S/End Value must be true",
        ),
        (
            json!({ "Type": "Pass", "End": true, "InputPath": "a" }),
            "/States/S/InputPath Value is not a valid JSONPath",
        ),
        (
            json!({ "Type": "Pass", "End": true, "ResultPath": "$.a[*]" }),
            "/States/S/ResultPath Value is not a Reference Path",
        ),
        (
            json!({ "Type": "Pass", "End": true, "ResultPath": "$$.a" }),
            "/States/S/ResultPath Value must start with '$.'",
        ),
        (
            json!({ "Type": "Pass", "End": true, "Parameters": { "a": [{ "x.$": 1 }] } }),
            "/States/S/Parameters/a/0/x.$ The value for",
        ),
        (
            json!({ "Type": "Task", "End": true }),
            "/States/S These fields are required: [Resource]",
        ),
        (
            json!({ "Type": "Task", "Resource": "x", "End": true, "TimeoutSeconds": 0 }),
            "/States/S/TimeoutSeconds Expected value",
        ),
        (
            json!({ "Type": "Task", "Resource": "x", "End": true, "TimeoutSeconds": 5, "HeartbeatSeconds": 5 }),
            "/States/S/HeartbeatSeconds",
        ),
        (
            json!({ "Type": "Task", "Resource": "x", "End": true, "Credentials": {} }),
            "/States/S/Credentials The field 'RoleArn'",
        ),
        (
            json!({ "Type": "Task", "Resource": "x", "End": true, "Retry": [{ "ErrorEquals": [] }] }),
            "/States/S/Retry/0/ErrorEquals",
        ),
        (
            json!({ "Type": "Task", "Resource": "x", "End": true, "Retry": [{ "ErrorEquals": ["E"], "BackoffRate": 0.5 }] }),
            "/States/S/Retry/0/BackoffRate",
        ),
        (
            json!({ "Type": "Task", "Resource": "x", "End": true, "Retry": [{ "ErrorEquals": ["States.ALL", "E"] }] }),
            "/States/S/Retry/0/ErrorEquals States.ALL must appear alone",
        ),
        (
            json!({ "Type": "Choice", "Choices": [] }),
            "/States/S/Choices There must be",
        ),
        (
            json!({ "Type": "Choice", "Choices": [{ "Variable": "$", "Next": "S" }] }),
            "/States/S/Choices/0 A comparison is missing",
        ),
        (
            json!({ "Type": "Choice", "Choices": [{ "Variable": "$", "IsNull": 1, "Next": "S" }] }),
            "/States/S/Choices/0/IsNull Expected value of type Boolean",
        ),
        (
            json!({ "Type": "Choice", "Choices": [{ "Variable": "$", "TimestampEquals": "noon", "Next": "S" }] }),
            "/States/S/Choices/0/TimestampEquals Expected",
        ),
        (
            json!({ "Type": "Choice", "Choices": [{ "Not": { "Variable": "$", "IsNull": true, "Next": "S" }, "Next": "S" }] }),
            "/States/S/Choices/0/Not/Next Field",
        ),
        (
            json!({ "Type": "Wait", "End": true }),
            "/States/S One of the following fields is required",
        ),
        (
            json!({ "Type": "Wait", "Timestamp": "noon", "End": true }),
            "/States/S/Timestamp Value is not",
        ),
        (
            json!({ "Type": "Fail", "Cause": "a", "CausePath": "$.a" }),
            "/States/S Only one of",
        ),
        (
            json!({ "Type": "Parallel", "Branches": [], "End": true }),
            "/States/S/Branches There must be",
        ),
        (
            json!({ "Type": "Map", "End": true }),
            "/States/S One of the following fields is required: [ItemProcessor, Iterator]",
        ),
    ] {
        check(single(state), &[&schema(want)]);
    }
}

#[test]
fn names_are_unique_in_the_whole_machine() {
    let inner = single(json!({ "Type": "Succeed" }));
    check(
        single(json!({ "Type": "Parallel", "Branches": [inner], "End": true })),
        &["DUPLICATE_STATE_NAME /States/S/Branches/0/States/S"],
    );
}

#[test]
fn what_is_not_built_is_refused() {
    let map = single(
        json!({ "Type": "Map", "End": true, "ItemReader": { "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": { "InputType": "PARQUET" } },
            "ItemProcessor": { "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS" }, "StartAt": "T", "States": { "T": { "Type": "Succeed" } } } }),
    );
    check(
        map,
        &[
            "NOT_AVAILABLE_YET /States/S/ItemReader/ReaderConfig/InputType the input type PARQUET is not available yet",
        ],
    );
}

#[test]
fn places_are_lines_and_columns() {
    let text =
        "{\n  \"StartAt\": \"A\",\n  \"States\": {\n    \"A\": {\"Type\": \"Pass\", \"Next\": \"B\"}\n  }\n}";
    let problems = Machine::parse(text).unwrap_err();
    assert_eq!(
        (problems[0].line, problems[0].column, problems[0].code),
        (4, 27, Code::MissingTransitionTarget)
    );
    let problems = Machine::parse("{\n  \"a\": }").unwrap_err();
    assert_eq!(
        (problems[0].line, problems[0].code),
        (2, Code::InvalidJsonDescription)
    );
    assert_eq!(
        problems[0].to_string(),
        "2:8: INVALID_JSON_DESCRIPTION: expected value at line 2 column 8 at /"
    );
}

#[test]
fn hostile_sizes_are_refused_briefly() {
    assert_eq!(
        Machine::parse(&" ".repeat(crate::limit::DEFINITION + 1))
            .unwrap_err()
            .len(),
        1
    );
    assert_eq!(Machine::parse(&"[".repeat(100_000)).unwrap_err().len(), 1);
    let states: serde_json::Map<_, _> = (0..1_000)
        .map(|at| (format!("S{at}"), json!({ "Type": "Nap" })))
        .collect();
    let problems = Machine::parse(&json!({ "StartAt": "S0", "States": states }).to_string()).unwrap_err();
    assert_eq!(problems.len(), crate::limit::DIAGNOSTICS);
}
