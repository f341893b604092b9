use crate::check::Code;
use crate::machine::{Flavour, Machine};
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
        json!({ "Type": "Task", "Resource": "x:y", "End": true, "Retry": [{ "ErrorEquals": ["States.ALL"], "BackoffRate": 1 }] }),
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
        (
            json!({ "Type": "Nap", "End": true }),
            "/States/S/Type The field 'Type' should have one of these values: [Task,",
        ),
        (
            json!({ "End": true }),
            "/States/S These fields are required: [Type]",
        ),
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
            json!({ "Type": "Pass", "End": true, "Parameters": { "x.$": " States.UUID()" } }),
            "/States/S/Parameters/x.$ The value for",
        ),
        (
            json!({ "Type": "Task", "End": true }),
            "/States/S These fields are required: [Resource]",
        ),
        (
            json!({ "Type": "Task", "Resource": "x:y", "End": true, "TimeoutSeconds": 0 }),
            "/States/S/TimeoutSeconds Minimum value is 1",
        ),
        (
            json!({ "Type": "Task", "Resource": "x:y", "End": true, "TimeoutSeconds": 5, "HeartbeatSeconds": 5 }),
            "/States/S/HeartbeatSeconds",
        ),
        (
            json!({ "Type": "Task", "Resource": "x:y", "End": true, "Credentials": {} }),
            "/States/S/Credentials The field 'RoleArn'",
        ),
        (
            json!({ "Type": "Task", "Resource": "x:y", "End": true, "Retry": [{ "ErrorEquals": [] }] }),
            "/States/S/Retry/0/ErrorEquals",
        ),
        (
            json!({ "Type": "Task", "Resource": "x:y", "End": true, "Retry": [{ "ErrorEquals": ["E"], "BackoffRate": 0.5 }] }),
            "/States/S/Retry/0/BackoffRate",
        ),
        (
            json!({ "Type": "Task", "Resource": "x:y", "End": true, "Retry": [{ "ErrorEquals": ["States.ALL", "E"] }] }),
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
            "/States/S There should only be one of the following fields: [Cause, CausePath]",
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
        check(beside(state), &[&schema(want)]);
    }
}

/// A state in a machine that can end without it.
fn beside(state: Value) -> Value {
    let gate = json!({ "Type": "Choice", "Choices": [{ "Variable": "$", "IsNull": true, "Next": "S" }], "Default": "Z" });
    json!({ "StartAt": "G", "States": { "G": gate, "S": state, "Z": { "Type": "Succeed" } } })
}

#[test]
fn a_machine_must_be_able_to_end() {
    let to = |next: &str| json!({ "Type": "Pass", "Next": next });
    let circle = json!({ "StartAt": "A", "States": { "A": to("B"), "B": to("A"), "C": to("A") } });
    check(circle, &["MISSING_END_STATE / Workflow has no terminal state"]);
    let lost = json!({ "StartAt": "A", "States": {
        "A": { "Type": "Succeed" }, "B": to("C"), "C": to("D"), "D": to("C"), "E": to("F"), "F": to("E"),
    } });
    let unreachable =
        |name: &str| format!("MISSING_TRANSITION_TARGET /States/{name} State \"{name}\" is not reachable.");
    check(lost, &[&unreachable("B"), &unreachable("E")]);
    let nowhere = json!({ "StartAt": "A", "States": { "A": { "Type": "Task", "Resource": "x:y", "Next": "B", "Catch": [
        { "ErrorEquals": ["States.ALL"], "Next": "C" } ] } } });
    check(
        nowhere,
        &[
            "MISSING_TRANSITION_TARGET /States/A/Next Missing 'Next' target: B",
            "MISSING_TRANSITION_TARGET /States/A/Catch/0/Next Missing 'Next' target: C",
            "MISSING_END_STATE / Workflow",
        ],
    );
}

#[test]
fn places_are_aws_s_too() {
    let state = json!({ "Type": "Task", "Resource": "x:y", "End": true, "Colour": 1, "Retry": [{}], "Parameters": { "a": { "b/c.$": 1 } } });
    let problems = Machine::parse(&beside(state).to_string()).unwrap_err();
    let found: Vec<_> = problems
        .iter()
        .map(|problem| {
            (
                problem.location.as_deref().unwrap_or_default(),
                problem.pointer.as_str(),
            )
        })
        .collect();
    let want = [
        ("/States/S", "/States/S/Colour"),
        ("/States/S/Retry[0]", "/States/S/Retry/0"),
        ("/States/S/Parameters/a", "/States/S/Parameters/a/b~1c.$"),
    ];
    assert_eq!(found, want);
}

#[test]
fn fields_of_the_other_language_are_named() {
    let jsonata = json!({ "Type": "Pass", "QueryLanguage": "JSONata", "End": true, "Parameters": {} });
    let message =
        "The QueryLanguage is set to 'JSONata', but field 'Parameters' is only supported for the 'JSONPath'";
    check(
        beside(jsonata),
        &[&format!(
            "SCHEMA_VALIDATION_FAILED /States/S/Parameters {message}"
        )],
    );
    let jsonpath = json!({ "Type": "Pass", "End": true, "Output": {} });
    let message =
        "The QueryLanguage is set to 'JSONPath', but field 'Output' is only supported for the 'JSONata'";
    check(
        beside(jsonpath),
        &[&format!("SCHEMA_VALIDATION_FAILED /States/S/Output {message}")],
    );
}

#[test]
fn expressions_are_read_before_they_run() {
    let state = |expression: &str| {
        let output = format!("{{% {expression} %}}");
        json!({ "Type": "Pass", "QueryLanguage": "JSONata", "End": true, "Output": { "v": output } })
    };
    for (expression, want) in [
        (
            "1 +",
            Some("INVALID_JSONATA_EXPRESSION /States/S/Output/v Unexpected end of expression"),
        ),
        (
            "phone",
            Some(
                "UNSUPPORTED_JSONATA_EXPRESSION /States/S/Output/v Reference to 'phone' at the top level is not",
            ),
        ),
        (
            "$sum([phone.number, 1])",
            Some("UNSUPPORTED_JSONATA_EXPRESSION /States/S/Output/v Reference to 'phone' at"),
        ),
        (
            "$$",
            Some("UNSUPPORTED_JSONATA_EXPRESSION /States/S/Output/v Reference to '$$' at"),
        ),
        (
            "$states.errorOutput",
            Some("UNSUPPORTED_JSONATA_EXPRESSION /States/S/Output/v Field '$states.errorOutput' does"),
        ),
        (
            "$states.result",
            Some("UNSUPPORTED_JSONATA_EXPRESSION /States/S/Output/v Field '$states.result' does not exist."),
        ),
        ("'$states.result and $states.errorOutput'", None),
        ("($states := { 'result': 1 }; $states.result)", None),
        ("$states.input.orders[price > 1].{ 'a': name, 'b': $.name }", None),
        ("$map($states.input, function($x) { $x.name })", None),
        ("($x := 1; $x + $y)", None),
    ] {
        let want: Vec<&str> = want.into_iter().collect();
        check(beside(state(expression)), &want);
    }
    let caught = json!({ "Type": "Task", "QueryLanguage": "JSONata", "Resource": "x:y", "End": true, "Catch": [
        { "ErrorEquals": ["States.ALL"], "Next": "Z", "Output": "{% $states.errorOutput %}" },
    ] });
    check(beside(caught), &[]);
}

#[test]
fn a_result_is_there_after_the_task() {
    let task = |field: &str, value: Value| {
        let mut state = json!({ "Type": "Task", "QueryLanguage": "JSONata", "Resource": "x:y", "End": true });
        state[field] = value;
        beside(state)
    };
    let result = "{% $states.result.a %}";
    check(task("Output", json!([result])), &[]);
    check(task("Assign", json!({ "v": result })), &[]);
    let wrong =
        |place: &str| format!("UNSUPPORTED_JSONATA_EXPRESSION {place} Field '$states.result' does not");
    check(
        task("Arguments", json!({ "v": [result] })),
        &[&wrong("/States/S/Arguments/v/0")],
    );
    check(
        task("TimeoutSeconds", json!("{% $states.result %}")),
        &[&wrong("/States/S/TimeoutSeconds")],
    );
    let caught = json!([{ "ErrorEquals": ["States.ALL"], "Next": "Z", "Output": result }]);
    check(task("Catch", caught), &[&wrong("/States/S/Catch/0/Output")]);
    let choice = json!({ "Type": "Choice", "QueryLanguage": "JSONata", "Default": "Z",
        "Choices": [{ "Condition": "{% $states.result = 1 %}", "Next": "Z" }] });
    check(beside(choice), &[&wrong("/States/S/Choices/0/Condition")]);
}

#[test]
fn only_services_with_jobs_are_waited_for() {
    let task = |resource: &str| single(json!({ "Type": "Task", "Resource": resource, "End": true }));
    for resource in [
        "arn:aws:states:::lambda:invoke.sync",
        "arn:aws-cn:states:::sqs:sendMessage.sync",
        "arn:aws:states:::aws-sdk:s3:getObject.sync",
        "arn:aws:states:::dynamodb:putItem.sync:2",
    ] {
        let want = format!(
            "SCHEMA_VALIDATION_FAILED /States/S/Resource The resource provided {resource} is not recognized."
        );
        check(task(resource), &[&want]);
    }
    for resource in [
        "arn:aws:states:::states:startExecution.sync:2",
        "arn:aws:states:::glue:startJobRun.sync",
        "arn:aws:states:::lambda:invoke.waitForTaskToken",
        "arn:aws:states:::newest:runJob.sync",
        "arn:aws:lambda:eu-west-1:1:function:a.sync",
    ] {
        check(task(resource), &[]);
    }
}

#[test]
fn keys_that_stand_twice_are_found() {
    let text = r#"{
  "StartAt": "A", "Comment": "{\"a\": 1, \"a\": 2}",
  "States": {
    "A": { "Type": "Pass", "Result": [{ "x": 1, "x": 2, "y": "x" }], "Next": "B" },
    "B": { "Type": "Parallel", "End": true, "Branches": [
      { "StartAt": "C", "States": { "C": { "Type": "Fail" },
                                    "C": { "Type": "Succeed" } } } ] }
  } }"#;
    let found = crate::validate(text, Flavour::Standard, crate::Severity::Warning, 100);
    let told: Vec<_> = found
        .diagnostics
        .iter()
        .map(|each| (each.code, each.pointer.as_str(), each.line, each.column))
        .collect();
    assert_eq!(
        told,
        [
            (Code::DuplicateKey, "/States/A/Result/0/x", 4, 49),
            (Code::DuplicateStateName, "/States/B/Branches/0/States/C", 7, 37),
        ]
    );
    assert_eq!(found.result, crate::Verdict::Fail);
    let once = text.replace("\"C\": { \"Type\": \"Fail\" },", "");
    assert!(Machine::parse(&once).is_ok(), "what is doubtful can be run");
}

#[test]
fn variables_have_names() {
    for name in ["", "1a", "a-b", "states", "a b"] {
        let state = json!({ "Type": "Pass", "Assign": { name: 1 }, "End": true });
        let want =
            format!("SCHEMA_VALIDATION_FAILED /States/S/Assign/{name} '{name}' is not a valid variable name");
        check(beside(state), &[&want]);
    }
}

#[test]
fn express_machines_do_not_wait_for_others() {
    let task =
        |resource: &str| single(json!({ "Type": "Task", "Resource": resource, "End": true })).to_string();
    for (resource, want) in [
        ("arn:aws:states:eu-west-1:1:activity:a", Some("Activity ARN")),
        (
            "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
            Some("'.waitForTaskToken' service integration "),
        ),
        (
            "arn:aws:states:::states:startExecution.sync:2",
            Some("'.sync' service integration "),
        ),
        ("arn:aws:states:::x:do.synchronous", None),
        ("arn:aws:states:::sqs:sendMessage", None),
    ] {
        let problems = Machine::parse_as(Flavour::Express, &task(resource))
            .err()
            .unwrap_or_default();
        let messages: Vec<_> = problems.iter().map(|problem| problem.message.clone()).collect();
        let want: Vec<_> = want
            .iter()
            .map(|what| format!("Express state machine does not support {what}"))
            .collect();
        assert_eq!(messages, want, "{resource}");
        assert!(Machine::parse(&task(resource)).is_ok());
    }
}

#[test]
fn doubtful_texts_are_warnings() {
    let definition = json!({ "StartAt": "S", "States": {
        "S": { "Type": "Pass", "Result": { "a.$": "$.b" }, "Parameters": { "c": "$.d", "e": "text" }, "Next": "T" },
        "T": { "Type": "Choice", "Choices": [{ "Variable": "$.a", "StringEquals": "$.b", "Next": "U" }], "Default": "U" },
        "U": { "Type": "Pass", "QueryLanguage": "JSONata", "Output": "$.a", "End": true },
    } })
    .to_string();
    assert!(Machine::parse(&definition).is_ok());
    let found = crate::validate(&definition, Flavour::Standard, crate::Severity::Warning, 100);
    let codes: Vec<_> = found
        .diagnostics
        .iter()
        .map(|problem| (problem.code, problem.pointer.as_str()))
        .collect();
    let want = [
        (Code::PassResultIsStatic, "/States/S/Result"),
        (Code::NoDollar, "/States/S/Parameters/c"),
        (Code::NoPath, "/States/T/Choices/0/StringEquals"),
    ];
    assert_eq!(
        (found.result, codes.as_slice()),
        (crate::Verdict::Ok, want.as_slice())
    );
    let few = crate::validate(&definition, Flavour::Standard, crate::Severity::Warning, 1);
    assert!(few.truncated && few.diagnostics.len() == 1);
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
