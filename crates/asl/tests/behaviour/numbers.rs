//! Numbers are the text that they were written with, until something computes with them.

use super::{Story, json, single};
use asl::json::read;
use asl::{Event, Execution};
use serde_json::Value;

/// None of these is what a double or an integer of 64 bits would be written as; and an object that serde_json's own reader
/// takes for a number.
const LITERALS: &str = r#"[1.50,-0,-0.0e-0,100000000000000000000000000001,0.1000000000000000055511151231257827,2.0E-7,1E5,1e5,1e+05,1e400,{"$serde_json::private::Number":"1"}]"#;

fn literals() -> Value {
    read(LITERALS).unwrap()
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
            "list.$": "States.Array($.first, 2.50E0)", "variable.$": "$kept", "input.$": "$$.Execution.Input.given" } } } }"#
        .replace("LITERALS", LITERALS);
    let input: Value = read(&format!(r#"{{"given":{LITERALS}}}"#)).unwrap();
    let story = Story::new(read(&definition).unwrap(), input);
    let output = story.output();
    let all = format!(
        r#"{{"first":1.50,"given":{LITERALS},"own":{LITERALS},"fixed":1.50,"mapped":{LITERALS},"both":[{LITERALS}]}}"#
    );
    assert_eq!(output["all"], all);
    assert_eq!(output["read"].to_string(), "[1.50]");
    assert_eq!(output["say"], "1.50");
    assert_eq!(output["list"].to_string(), "[1.50,2.50E0]");
    assert_eq!(output["variable"].to_string(), LITERALS);
    assert_eq!(output["input"].to_string(), LITERALS);
}

/// JSONata makes doubles of what it computes with; what it hands on it leaves alone.
#[test]
fn literals_pass_through_queries() {
    let definition = r#"{ "QueryLanguage": "JSONata", "StartAt": "Keep", "States": {
        "Keep": { "Type": "Pass", "Assign": { "kept": "{% $states.input.given %}", "own": 1.50E1 }, "Next": "Each" },
        "Each": { "Type": "Map", "Items": "{% $states.input.given %}", "Next": "All",
            "ItemSelector": { "item": "{% $states.context.Map.Item.Value %}" },
            "ItemProcessor": { "StartAt": "I", "States": { "I": { "Type": "Pass", "Output": "{% $states.input.item %}", "End": true } } } },
        "All": { "Type": "Pass", "End": true, "Output": { "kept": "{% $kept %}", "own": "{% [$own, $own + 0] %}", "mapped": "{% $states.input %}",
            "input": "{% $states.context.Execution.Input.given %}", "object": "{% { 'first': $kept[0], 'all': $kept } %}",
            "chosen": "{% $kept[6] = 100000 ? $kept[8] : 0 %}", "read": "{% $parse('[1E5]') %}", "fixed": 1E5 } } } }"#;
    let input = read(&format!(r#"{{"given":{LITERALS}}}"#)).unwrap();
    let story = Story::new(read(definition).unwrap(), input);
    let expected = format!(
        r#"{{"kept":{LITERALS},"own":[1.50E1,15],"mapped":{LITERALS},"input":{LITERALS},"object":{{"first":1.50,"all":{LITERALS}}},"chosen":1e+05,"read":[1E5],"fixed":1E5}}"#
    );
    assert_eq!(story.output().to_string(), expected);
}

#[test]
fn a_record_keeps_literals() {
    let mut story = Story::new(
        single(json!({ "Type": "Task", "Resource": super::ACTIVITY, "ResultPath": "$.result", "End": true })),
        read(&format!(r#"{{"given":{LITERALS}}}"#)).unwrap(),
    );
    let record = serde_json::to_string(&story.execution).unwrap();
    story.execution = serde_json::from_str::<Execution>(&record).unwrap();
    let event = Event::TaskSucceeded {
        task: story.tasks()[0],
        output: literals(),
    };
    let record = serde_json::to_string(&event).unwrap();
    let again = serde_json::from_str::<Event>(&record).unwrap();
    assert_eq!(again, event);
    assert!(record.contains(LITERALS));
    story.event(again);
    let text = format!(r#"{{"given":{LITERALS},"result":{LITERALS}}}"#);
    assert_eq!(story.output().to_string(), text);
}

#[test]
fn what_computes_makes_new_numbers() {
    let input: Value = read(r#"{"n":1.50}"#).unwrap();
    let sum =
        single(json!({ "Type": "Pass", "Parameters": { "sum.$": "States.MathAdd($.n, 1)" }, "End": true }));
    assert_eq!(
        Story::new(sum, input.clone()).output().to_string(),
        r#"{"sum":3}"#
    );
    let query = json!({ "Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% $states.input.n + 1 %}", "End": true });
    assert_eq!(Story::new(single(query), input).output().to_string(), "2.5");
    let large = json!({ "Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% $states.input[0] + 1 %}", "End": true });
    let story = Story::new(single(large), read("[1e400]").unwrap());
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
        let input = read(left).unwrap();
        let story = Story::new(read(&definition).unwrap(), input);
        assert_eq!(story.output(), holds, "{left} {operator} {right}");
    }
    let contains = single(
        json!({ "Type": "Pass", "Parameters": { "has.$": "States.ArrayContains($, 1.5)", "one.$": "States.ArrayUnique($)" }, "End": true }),
    );
    let story = Story::new(contains, read("[1.50, 1.5, 15e-1]").unwrap());
    assert_eq!(story.output().to_string(), r#"{"has":true,"one":[1.50]}"#);
}

#[test]
fn limits_count_the_literals() {
    let pass = single(json!({ "Type": "Pass", "Parameters": { "n.$": "$" }, "End": true }));
    let run = |text: &str| Story::new(pass.clone(), read(text).unwrap());
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
