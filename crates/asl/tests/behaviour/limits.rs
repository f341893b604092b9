//! Totality: whatever the definition and the data, a step ends, and so does the execution.

use crate::{ACTIVITY, Story, single};
use asl::{Event, Execution, Machine, Purpose, limit};
use serde_json::{Value, json};

#[test]
fn an_endless_loop_ends_with_the_history_in_bounded_steps() {
    let mut story = Story::new(
        json!({ "StartAt": "A", "States": {
            "A": { "Type": "Pass", "Next": "B" },
            "B": { "Type": "Choice", "Choices": [{ "Variable": "$", "IsNull": true, "Next": "C" }], "Default": "A" },
            "C": { "Type": "Succeed" },
        }}),
        json!({}),
    );
    let mut steps = 1;
    while story.execution.is_open() {
        let before = story.history.len();
        story.fire(Purpose::Continue);
        assert!(story.history.len() - before <= 3_000);
        steps += 1;
    }
    assert!((9..20).contains(&steps), "{steps}");
    assert_eq!(
        story.failure(),
        (
            "States.Runtime",
            "The execution reached the maximum number of history events (25000)."
        )
    );
    assert_eq!(story.history.len() as u64, limit::HISTORY);
    assert_eq!(
        story.history.last().map(|event| (event.id, event.kind.as_str())),
        Some((limit::HISTORY, "ExecutionFailed"))
    );
}

#[test]
fn large_payloads_do_not_fill_memory() {
    let mut story = Story::new(
        json!({ "StartAt": "A", "States": {
            "A": { "Type": "Pass", "Next": "A2" }, "A2": { "Type": "Pass", "Next": "A3" },
            "A3": { "Type": "Choice", "Choices": [{ "Variable": "$", "IsNull": true, "Next": "E" }], "Default": "A" },
            "E": { "Type": "Succeed" },
        }}),
        json!("x".repeat(200_000)),
    );
    let written: usize = story
        .history
        .iter()
        .map(|event| event.details.to_string().len())
        .sum();
    assert!(written < 5_000_000, "{written}");
    assert_eq!(
        story
            .execution
            .open_timers()
            .next()
            .map(|timer| (timer.purpose, timer.at)),
        Some((Purpose::Continue, story.at))
    );
    story.event(Event::Cancel {
        error: None,
        cause: None,
    });
    assert_eq!(story.execution.status().as_str(), "ABORTED");
}

#[test]
fn growing_payloads_meet_the_limits() {
    let grow = |state: Value| {
        Story::new(
            json!({ "StartAt": "S", "States": {
                "S": state,
                "C": { "Type": "Choice", "Choices": [{ "Variable": "$", "IsNull": true, "Next": "E" }], "Default": "S" },
                "E": { "Type": "Succeed" },
            }}),
            json!({ "x": "0123456789" }),
        )
    };
    let wider =
        grow(json!({ "Type": "Pass", "Parameters": { "x.$": "States.Array($.x, $.x)" }, "Next": "C" }));
    assert_eq!(wider.failure().0, "States.DataLimitExceeded");
    let deeper = grow(json!({ "Type": "Pass", "Parameters": { "x.$": "$" }, "Next": "C" }));
    assert_eq!(deeper.failure().0, "States.DataLimitExceeded");
    let text = serde_json::to_string(&deeper.execution).unwrap();
    assert_eq!(
        serde_json::from_str::<Execution>(&text).unwrap(),
        deeper.execution
    );
}

#[test]
fn an_oversized_input_or_result_is_an_error_of_the_execution() {
    let large = json!("x".repeat(limit::PAYLOAD));
    let task = single(json!({ "Type": "Task", "Resource": ACTIVITY, "End": true }));
    assert_eq!(
        Story::new(task.clone(), large.clone()).failure().0,
        "States.DataLimitExceeded"
    );
    let mut story = Story::new(task, json!({}));
    story.succeed(1, large);
    assert_eq!(story.failure().0, "States.DataLimitExceeded");
    assert!(story.kinds().contains(&"ActivityFailed"));
}

#[test]
fn deep_nesting_runs_to_its_end() {
    let mut program = json!({ "StartAt": "S0", "States": { "S0": { "Type": "Pass", "End": true } } });
    for depth in 1..=25 {
        let name = format!("S{depth}");
        program = json!({ "StartAt": name, "States": { name: { "Type": "Parallel", "Branches": [program], "End": true } } });
    }
    assert_eq!(
        Story::new(program, json!(1)).output().to_string(),
        format!("{}1{}", "[".repeat(25), "]".repeat(25))
    );
}

#[test]
fn an_execution_of_another_definition_fails_and_does_not_panic() {
    let mut story = Story::new(
        single(json!({ "Type": "Wait", "Seconds": 1, "End": true })),
        json!({}),
    );
    story.machine = Machine::parse(r#"{"StartAt": "X", "States": {"X": {"Type": "Succeed"}}}"#).unwrap();
    story.fire(Purpose::Wait);
    assert_eq!(
        story.failure(),
        (
            "States.Runtime",
            "The state 'S' is not in the definition of this execution."
        )
    );
}

#[test]
fn a_record_of_another_version_is_refused() {
    let mut record = serde_json::to_value(Execution::new()).unwrap();
    record["version"] = json!(3);
    assert!(
        serde_json::from_value::<Execution>(record)
            .unwrap_err()
            .to_string()
            .contains("version 3")
    );
}

/// Executions that were open when an older version stopped go on.
#[test]
fn a_record_of_the_first_layout_is_read() {
    let mut story = Story::new(
        single(
            json!({ "Type": "Map", "MaxConcurrency": 1, "End": true, "ItemProcessor": { "StartAt": "T", "States": {
            "T": { "Type": "Task", "Resource": ACTIVITY, "End": true } } } }),
        ),
        json!([1, 2]),
    );
    let mut record = serde_json::to_value(&story.execution).unwrap();
    record["version"] = json!(1);
    for new in ["redrives", "synchronous"] {
        record.as_object_mut().unwrap().shift_remove(new).unwrap();
    }
    record["origin"]
        .as_object_mut()
        .unwrap()
        .shift_remove("flavour")
        .unwrap();
    for strand in record["strands"].as_object_mut().unwrap().values_mut() {
        strand.as_object_mut().unwrap().shift_remove("before").unwrap();
        if let Some(map) = strand["position"].get_mut("map") {
            map.as_object_mut().unwrap().shift_remove("open").unwrap();
        }
    }
    story.execution = serde_json::from_value(record).unwrap();
    story.succeed(1, json!("a"));
    story.succeed(2, json!("b"));
    assert_eq!(story.output(), json!(["a", "b"]));
}

#[test]
fn many_rules_over_a_large_payload_are_no_error() {
    let rules: Vec<_> = (0..100)
        .map(|_| json!({ "Variable": "$.x", "StringEquals": "a", "Next": "E" }))
        .collect();
    let definition = json!({ "StartAt": "S", "States": {
        "S": { "Type": "Choice", "Choices": rules, "Default": "E" }, "E": { "Type": "Succeed" },
    }});
    let input = json!({ "x": "y".repeat(200_000) });
    assert_eq!(Story::new(definition, input.clone()).output(), input);
}

#[test]
fn executions_and_machines_may_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Execution>();
    crosses::<Machine>();
}
