//! A path or an intrinsic function on the first line, the input after it, in machines of two states. Whatever they say,
//! the run ends, and its record survives being written and read.
#![no_main]

use asl::{Command, Event, Execution, Machine, Status, step};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const TASKS: usize = 50;

fuzz_target!(|text: &str| {
    let (expression, input) = text.split_once('\n').unwrap_or((text, "{}"));
    let input: Value = serde_json::from_str(input).unwrap_or_default();
    let end = json!({ "Type": "Succeed" });
    for first in [
        json!({ "Type": "Pass", "Parameters": { "value.$": expression }, "Next": "End" }),
        json!({ "Type": "Pass", "InputPath": expression, "ResultPath": expression, "Next": "End" }),
        json!({ "Type": "Map", "ItemsPath": expression, "Next": "End", "ItemProcessor": {
            "StartAt": "Item", "States": { "Item": { "Type": "Pass", "End": true } } } }),
        json!({ "Type": "Choice", "Default": "End", "Choices": [
            { "Variable": expression, "IsPresent": true, "Next": "End" },
            { "Variable": expression, "StringMatches": "a*", "Next": "End" },
            { "Variable": "$.a", "NumericLessThanPath": expression, "Next": "End" },
        ] }),
        json!({ "Type": "Wait", "TimestampPath": expression, "Next": "End" }),
        json!({ "Type": "Task", "Resource": "arn:aws:states:local:1:activity:work", "OutputPath": expression,
            "ResultSelector": { "value.$": expression }, "Next": "End" }),
    ] {
        let definition = json!({ "StartAt": "First", "States": { "First": first, "End": end } });
        if let Ok(machine) = Machine::parse(&definition.to_string()) {
            run(&machine, input.clone());
        }
    }
});

fn run(machine: &Machine, input: Value) {
    let at = Timestamp::UNIX_EPOCH;
    let text = str::to_owned;
    let (id, name, role) = (text("run"), text("run"), text("role"));
    let (machine_id, machine_name) = (text("arn:aws:states:local:1:stateMachine:m"), text("m"));
    let mut events = vec![Event::Start {
        id,
        name,
        input,
        role,
        machine_id,
        machine_name,
        seed: [1, 2],
    }];
    let mut execution = Execution::new();
    let mut answered = 0;
    while let Some(event) = events.pop() {
        let outcome = step(machine, execution.clone(), &event, at);
        assert_eq!(
            outcome,
            step(machine, execution, &event, at),
            "the same again is the same"
        );
        let record = serde_json::to_string(&outcome.execution).expect("a record can be written");
        execution = serde_json::from_str(&record).expect("a record can be read");
        assert_eq!(execution, outcome.execution);
        for command in outcome.commands {
            answered += 1;
            match command {
                Command::Schedule { task, input, .. } => {
                    events.push(Event::TaskSucceeded { task, output: input });
                }
                Command::StartTimer { timer, .. } => events.push(Event::TimerFired { timer }),
                Command::CancelTask { .. } | Command::CancelTimer { .. } => {}
            }
        }
        assert!(answered < TASKS, "two states do not want so much");
    }
    assert_ne!(execution.status(), &Status::Running, "it stands still");
}
