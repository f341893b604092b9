//! How fast the interpreter is by itself: `cargo run -p asl --release --example steps`.
//!
//! Two machines: a loop of Pass and Choice that counts, and a loop around a task, to which the answers come at once. No
//! journal, no engine: what is measured is processor time in [`asl::step`], and in the last column the writing of the
//! record as well.

use asl::{Command, Event, Execution, Machine, step};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

const LOOP: &str = r#"{ "StartAt": "Add", "States": {
    "Add": { "Type": "Pass", "Parameters": { "n.$": "States.MathAdd($.n, 1)", "most.$": "$.most" }, "Next": "More" },
    "More": { "Type": "Choice", "Choices": [{ "Variable": "$.n", "NumericLessThanPath": "$.most", "Next": "Add" }], "Default": "Done" },
    "Done": { "Type": "Succeed" } } }"#;

const QUERIES: &str = r#"{ "QueryLanguage": "JSONata", "StartAt": "Add", "States": {
    "Add": { "Type": "Pass", "Output": { "n": "{% $states.input.n + 1 %}", "most": "{% $states.input.most %}" }, "Next": "More" },
    "More": { "Type": "Choice", "Choices": [{ "Condition": "{% $states.input.n < $states.input.most %}", "Next": "Add" }], "Default": "Done" },
    "Done": { "Type": "Succeed" } } }"#;

const TASKS: &str = r#"{ "StartAt": "Work", "States": {
    "Work": { "Type": "Task", "Resource": "arn:aws:states:local:1:activity:work", "TimeoutSeconds": 60, "ResultPath": "$.result", "Next": "More" },
    "More": { "Type": "Choice", "Choices": [{ "Variable": "$.result.more", "BooleanEquals": true, "Next": "Work" }], "Default": "Done" },
    "Done": { "Type": "Succeed" } } }"#;

fn main() {
    for (name, definition, input) in [
        ("Pass and Choice", LOOP, json!({ "n": 0, "most": 5_000 })),
        ("the same in JSONata", QUERIES, json!({ "n": 0, "most": 5_000 })),
        ("Task and Choice", TASKS, order(500)),
        ("Task and Choice, 64 KiB", TASKS, order(64 * 1024)),
    ] {
        let machine = Machine::parse(definition).expect("the definition is sound");
        let (steps, transitions, spent) = run(&machine, &input, false);
        let (writing, _, written) = run(&machine, &input, true);
        println!(
            "{name:<24} {:>9.0} steps/s {:>9.0} transitions/s {:>9.0} steps/s with the record written",
            steps / spent.as_secs_f64(),
            transitions / spent.as_secs_f64(),
            writing / written.as_secs_f64(),
        );
    }
    let waiting = waiting(500);
    println!(
        "a waiting execution with an input of 500 bytes: {} bytes",
        waiting.len()
    );
}

fn order(bytes: usize) -> Value {
    json!({ "order": "x".repeat(bytes), "result": { "more": true } })
}

fn start(input: &Value) -> Event {
    Event::Start {
        id: "arn:aws:states:local:1:execution:machine:0123456789".into(),
        name: "0123456789".into(),
        input: input.clone(),
        role: "arn:aws:iam::1:role/machine".into(),
        machine_id: "arn:aws:states:local:1:stateMachine:machine".into(),
        machine_name: "machine".into(),
        seed: [1, 2],
    }
}

/// Steps, state transitions, and the time that the steps took.
fn run(machine: &Machine, input: &Value, write: bool) -> (f64, f64, Duration) {
    let at = Timestamp::UNIX_EPOCH;
    let (mut steps, mut transitions, mut bytes) = (0.0, 0.0, 0);
    let mut spent = Duration::ZERO;
    while spent < Duration::from_secs(1) {
        let mut execution = Execution::new();
        let mut events = vec![start(input)];
        let from = processor();
        let mut answers = 0;
        while let Some(event) = events.pop() {
            let outcome = step(machine, execution, &event, at);
            steps += 1.0;
            for event in &outcome.history {
                transitions += f64::from(u8::from(event.kind.as_str().ends_with("StateEntered")));
            }
            execution = outcome.execution;
            if write {
                bytes += serde_json::to_string(&execution)
                    .expect("a record is plain data")
                    .len();
            }
            for command in &outcome.commands {
                match command {
                    Command::Schedule { task, .. } => {
                        answers += 1;
                        let output = json!({ "more": answers < 1_000 });
                        events.push(Event::TaskSucceeded { task: *task, output });
                    }
                    // The step had done enough; the deadlines of tasks are not waited for.
                    Command::StartTimer { timer, .. } if execution.open_tasks().next().is_none() => {
                        events.push(Event::TimerFired { timer: *timer });
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(
            execution.status().as_str(),
            "SUCCEEDED",
            "{:?}",
            execution.status()
        );
        spent += processor() - from;
    }
    std::hint::black_box(bytes);
    (steps, transitions, spent)
}

/// Time that the processor gave to this thread; other loads of the machine are not in it.
fn processor() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let nanos = times.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the first number is nanoseconds"))
}

/// The record of an execution that waits for a task.
fn waiting(bytes: usize) -> String {
    let machine = Machine::parse(TASKS).expect("the definition is sound");
    let outcome = step(
        &machine,
        Execution::new(),
        &start(&order(bytes)),
        Timestamp::UNIX_EPOCH,
    );
    serde_json::to_string(&outcome.execution).expect("a record is plain data")
}
