//! Numbers are the text that they were written with, until something computes with them.

use super::{Story, json, single};
use asl::{Event, Execution};
use serde_json::Value;

/// None of these is what a double or an integer of 64 bits would be written as.
const LITERALS: &str =
    "[1.50,-0,-0.0,100000000000000000000000000001,0.1000000000000000055511151231257827,2.0e-7,1e+400]";

fn literals() -> Value {
    serde_json::from_str(LITERALS).unwrap()
}

#[test]
fn literals_pass_through_every_state() {
    let definition = r#"{ "StartAt": "Keep", "States": {
        "Keep": { "Type": "Pass", "Result": LITERALS, "ResultPath": "$.own", "Assign": { "kept.$": "$" }, "Next": "Shape" },
        "Shape": { "Type": "Pass", "Parameters": { "first.$": "$.given[0]", "given.$": "$.given", "own.$": "$.own", "fixed": 1.50 }, "Next": "Each" },
        "Each": { "Type": "Map", "ItemsPath": "$.given", "ResultPath": "$.mapped", "Next": "Both", "ItemProcessor": {
            "StartAt": "I", "States": { "I": { "Type": "Pass", "End": true } } } },
        "Both": { "Type": "Parallel", "ResultPath": "$.both", "Next": "Text", "Branches": [
            { "StartAt": "B", "States": { "B": { "Type": "Pass", "OutputPath": "$.given", "End": true } } } ] },
        "Text": { "Type": "Pass", "End": true, "Parameters": {
            "all.$": "States.JsonToString($)", "read.$": "States.StringToJson('[1.50]')", "say.$": "States.Format('{}', $.first)",
            "list.$": "States.Array($.first, 2.50)", "variable.$": "$kept" } } } }"#
        .replace("LITERALS", LITERALS);
    let input: Value = serde_json::from_str(&format!(r#"{{"given":{LITERALS}}}"#)).unwrap();
    let story = Story::new(serde_json::from_str(&definition).unwrap(), input);
    let output = story.output();
    let all = format!(
        r#"{{"first":1.50,"given":{LITERALS},"own":{LITERALS},"fixed":1.50,"mapped":{LITERALS},"both":[{LITERALS}]}}"#
    );
    assert_eq!(output["all"], all);
    assert_eq!(output["read"].to_string(), "[1.50]");
    assert_eq!(output["say"], "1.50");
    assert_eq!(output["list"].to_string(), "[1.50,2.50]");
    assert_eq!(output["variable"].to_string(), LITERALS);
}

#[test]
fn a_record_keeps_literals() {
    let mut story = Story::new(
        single(json!({ "Type": "Task", "Resource": super::ACTIVITY, "ResultPath": "$.result", "End": true })),
        json!({ "given": literals() }),
    );
    let record = serde_json::to_string(&story.execution).unwrap();
    story.execution = serde_json::from_str::<Execution>(&record).unwrap();
    let event = Event::TaskSucceeded {
        task: story.tasks()[0],
        output: literals(),
    };
    story.event(event);
    let text = format!(r#"{{"given":{LITERALS},"result":{LITERALS}}}"#);
    assert_eq!(story.output().to_string(), text);
}

#[test]
fn what_computes_makes_new_numbers() {
    let input: Value = serde_json::from_str(r#"{"n":1.50}"#).unwrap();
    let sum =
        single(json!({ "Type": "Pass", "Parameters": { "sum.$": "States.MathAdd($.n, 1)" }, "End": true }));
    assert_eq!(
        Story::new(sum, input.clone()).output().to_string(),
        r#"{"sum":3}"#
    );
    let query = json!({ "Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% $states.input.n + 1 %}", "End": true });
    assert_eq!(Story::new(single(query), input).output().to_string(), "2.5");
    let large = json!({ "Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% $states.input[0] + 1 %}", "End": true });
    let story = Story::new(single(large), serde_json::from_str("[1e400]").unwrap());
    assert_eq!(story.failure().0, "States.QueryEvaluationError");
}

#[test]
fn numbers_are_compared_by_value() {
    for (left, operator, right, holds) in [
        ("1.50", "NumericEquals", "1.5", true),
        ("15e-1", "NumericEquals", "1.5", true),
        ("-0", "NumericEquals", "0.0", true),
        ("9007199254740993", "NumericEquals", "9007199254740992.0", false),
        (
            "100000000000000000000000000001",
            "NumericGreaterThan",
            "1e29",
            true,
        ),
        ("1e400", "NumericGreaterThanEquals", "1e401", false),
        ("-1e400", "NumericLessThan", "-1.7e308", true),
    ] {
        let definition = format!(
            r#"{{ "StartAt": "C", "States": {{
                "C": {{ "Type": "Choice", "Default": "No", "Choices": [{{ "Variable": "$", "{operator}": {right}, "Next": "Yes" }}] }},
                "Yes": {{ "Type": "Pass", "Result": true, "End": true }}, "No": {{ "Type": "Pass", "Result": false, "End": true }} }} }}"#
        );
        let input = serde_json::from_str(left).unwrap();
        let story = Story::new(serde_json::from_str(&definition).unwrap(), input);
        assert_eq!(story.output(), holds, "{left} {operator} {right}");
    }
    let contains = single(
        json!({ "Type": "Pass", "Parameters": { "has.$": "States.ArrayContains($, 1.5)", "one.$": "States.ArrayUnique($)" }, "End": true }),
    );
    let story = Story::new(contains, serde_json::from_str("[1.50, 1.5, 15e-1]").unwrap());
    assert_eq!(story.output().to_string(), r#"{"has":true,"one":[1.50]}"#);
}

#[test]
fn limits_count_the_literals() {
    let pass = single(json!({ "Type": "Pass", "Parameters": { "n.$": "$" }, "End": true }));
    let run = |text: &str| Story::new(pass.clone(), serde_json::from_str(text).unwrap());
    // The output is the list in `{"n":}`; as doubles, 1.5, all of it would fit.
    let most = (asl::limit::PAYLOAD - r#"{"n":[]}"#.len() + 1) / "1.50,".len();
    let list = |count: usize| format!("[{}]", vec!["1.50"; count].join(","));
    assert!(run(&list(most)).output().to_string().len() <= asl::limit::PAYLOAD);
    assert_eq!(run(&list(most + 1)).failure().0, "States.DataLimitExceeded");
    let number = |length: usize| format!("[1.{}]", "0".repeat(length - 2));
    assert!(run(&number(asl::limit::NUMBER)).output()["n"][0].is_number());
    assert_eq!(
        run(&number(asl::limit::NUMBER + 1)).failure().0,
        "States.DataLimitExceeded"
    );
}
