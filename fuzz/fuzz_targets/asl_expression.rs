//! A path, an intrinsic function or a query on the first line, the input after it, in machines of two states. Whatever
//! they say, the run ends, and its record survives being written and read.
#![no_main]

use asl::{Command, Event, Execution, Machine, MapRun, Status, step};
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
    ]
    .into_iter()
    .chain(queries(expression))
    {
        let definition = json!({ "StartAt": "First", "States": { "First": first, "End": end } });
        if let Ok(machine) = Machine::parse(&definition.to_string()) {
            run(&machine, input.clone());
        }
    }
});

/// States in which the text is JSONata.
fn queries(expression: &str) -> impl Iterator<Item = Value> {
    let query = format!("{{%{expression}%}}");
    let states = [
        json!({ "Type": "Pass", "Output": query, "Assign": { "v": query }, "Next": "End" }),
        json!({ "Type": "Choice", "Default": "End", "Choices": [{ "Condition": query, "Next": "End" }] }),
        json!({ "Type": "Wait", "Seconds": query, "Next": "End" }),
        json!({ "Type": "Map", "Items": query, "ItemSelector": [query], "Next": "End", "ToleratedFailureCount": query,
            "ItemProcessor": { "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS" },
                "StartAt": "Item", "States": { "Item": { "Type": "Pass", "End": true } } } }),
        json!({ "Type": "Task", "Resource": "arn:aws:states:local:1:activity:work", "Arguments": { "a": query },
            "TimeoutSeconds": query, "Output": [query], "Next": "End" }),
    ];
    states.into_iter().map(|mut state| {
        state["QueryLanguage"] = json!("JSONata");
        state
    })
}

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
                Command::OpenMapRun { task, .. } => events.push(open(machine, &execution, task)),
                Command::StartChild { task, child, .. } => events.push(Event::ChildEnded {
                    task,
                    child,
                    items: 1,
                    succeeded: child % 3 > 0,
                }),
                Command::CloseMapRun { task } => events.push(Event::MapRunClosed {
                    task,
                    output: json!([]),
                }),
                // Nothing is redriven here, and children end where they start.
                Command::RedriveMapRun { .. }
                | Command::StopChildren { .. }
                | Command::CancelTask { .. }
                | Command::CancelTimer { .. } => {}
            }
        }
        assert!(answered < TASKS, "two states do not want so much");
    }
    assert_ne!(execution.status(), &Status::Running, "it stands still");
}

/// A few children are enough.
fn open(machine: &Machine, execution: &Execution, task: u64) -> Event {
    let run = MapRun::of(machine, execution, task).expect("the run is open");
    match run.children(None) {
        Ok(children) => Event::MapRunOpened {
            task,
            children: children.len().min(5) as u64,
            items: children.len() as u64,
            closes: true,
        },
        Err(failure) => Event::MapRunFailed {
            task,
            error: Some(failure.error),
            cause: Some(failure.cause),
        },
    }
}
