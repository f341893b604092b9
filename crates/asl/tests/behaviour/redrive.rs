//! An execution that did not succeed goes on from where it failed.

use crate::{ACTIVITY, Story, single};
use asl::{Event, Purpose};
use serde_json::{Value, json};

fn task() -> Value {
    json!({ "Type": "Task", "Resource": ACTIVITY, "End": true })
}

#[test]
fn a_failed_task_is_attempted_again_with_its_input() {
    let mut story = Story::new(
        json!({ "StartAt": "P", "States": {
            "P": { "Type": "Pass", "Result": { "n": 1 }, "Assign": { "v": 7 }, "Next": "T" },
            "T": { "Type": "Task", "Resource": ACTIVITY, "Parameters": { "v.$": "$v", "n.$": "$.n", "count.$": "$$.Execution.RedriveCount" },
                "Retry": [{ "ErrorEquals": ["Twice"], "MaxAttempts": 1 }], "End": true },
        }}),
        json!({}),
    );
    story.fail(1, "Twice");
    story.fire(Purpose::Backoff);
    story.fail(2, "Twice");
    assert_eq!(story.failure().0, "Twice");
    let before = story.history.len();
    assert!(story.execution.can_redrive());
    let commands = story.event(Event::Redrive { count: 1 }).to_vec();
    assert!(
        matches!(&commands[..], [asl::Command::Schedule { task: 3, input, attempt: 1, .. }]
            if *input == json!({ "v": 7, "n": 1, "count": 1 })),
        "{commands:?}"
    );
    assert_eq!(
        story.kinds()[before..],
        ["ExecutionRedriven", "ActivityScheduled"]
    );
    assert_eq!(story.history[before].details, json!({ "redriveCount": 1 }));
    // The same redrive a second time is late.
    assert!(story.event(Event::Redrive { count: 1 }).is_empty());
    story.fail(3, "Twice");
    story.fire(Purpose::Backoff);
    story.succeed(4, json!("done"));
    assert_eq!(story.output(), json!("done"));
    assert!(!story.execution.can_redrive());
    assert!(story.event(Event::Redrive { count: 2 }).is_empty());
}

#[test]
fn branches_that_succeeded_stay_so() {
    let branch = |name: &str| json!({ "StartAt": name, "States": { name: task() } });
    let mut story = Story::new(
        single(
            json!({ "Type": "Parallel", "Branches": [branch("A"), branch("B"), branch("C")], "End": true }),
        ),
        json!(1),
    );
    story.succeed(1, json!("a"));
    story.fail(2, "Broken");
    assert_eq!(story.failure().0, "Broken");
    story.event(Event::Redrive { count: 1 });
    let states: Vec<_> = story.execution.open_tasks().map(|task| task.state).collect();
    assert_eq!(states, ["B", "C"]);
    story.succeed(4, json!("b"));
    story.succeed(5, json!("c"));
    assert_eq!(story.output(), json!(["a", "b", "c"]));
}

#[test]
fn iterations_that_succeeded_stay_so() {
    let mut story = Story::new(
        single(
            json!({ "Type": "Map", "MaxConcurrency": 1, "End": true, "ItemProcessor": { "StartAt": "T", "States": { "T": task() } } }),
        ),
        json!([1, 2, 3]),
    );
    story.succeed(1, json!("one"));
    story.fail(2, "Broken");
    story.event(Event::Redrive { count: 1 });
    story.succeed(3, json!("two"));
    story.succeed(4, json!("three"));
    assert_eq!(story.output(), json!(["one", "two", "three"]));
}

#[test]
fn what_was_stopped_or_ran_out_of_time_goes_on() {
    let definition = json!({ "StartAt": "T", "TimeoutSeconds": 60, "States": { "T": task() } });
    let mut story = Story::new(definition, json!(1));
    story.fire(Purpose::Deadline);
    assert_eq!(story.execution.status().as_str(), "TIMED_OUT");
    story.event(Event::Redrive { count: 1 });
    assert_eq!(
        story.execution.open_timers().count(),
        1,
        "the deadline starts anew"
    );
    story.event(Event::Cancel {
        error: None,
        cause: None,
    });
    assert_eq!(story.execution.status().as_str(), "ABORTED");
    story.event(Event::Redrive { count: 2 });
    assert_eq!(story.execution.redrives(), 2);
    let open = story.tasks();
    story.succeed(open[0], json!("at last"));
    assert_eq!(story.output(), json!("at last"));
}

#[test]
fn a_failure_that_was_caught_is_not_redriven() {
    let mut story = Story::new(
        json!({ "StartAt": "T", "States": {
            "T": { "Type": "Task", "Resource": ACTIVITY, "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": "U" }], "End": true },
            "U": task(),
        }}),
        json!(1),
    );
    story.fail(1, "First");
    story.fail(2, "Second");
    story.event(Event::Redrive { count: 1 });
    let states: Vec<_> = story.execution.open_tasks().map(|task| task.state).collect();
    assert_eq!(states, ["U"]);
}
