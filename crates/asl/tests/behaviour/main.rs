//! What a step does, told in short stories: events in, commands and history out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod distributed;
mod jsonata;
mod limits;
mod numbers;
mod redrive;

use asl::{Command, Event, Execution, HistoryEvent, Machine, Purpose, Status, Timeout, step};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const ACTIVITY: &str = "arn:aws:states:local:1:activity:work";

struct Story {
    machine: Machine,
    execution: Execution,
    at: Timestamp,
    commands: Vec<Command>,
    history: Vec<HistoryEvent>,
}

impl Story {
    fn new(definition: Value, input: Value) -> Self {
        let machine = Machine::parse(&definition.to_string()).unwrap();
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut story = Self {
            machine,
            execution: Execution::new(),
            at,
            commands: Vec::new(),
            history: Vec::new(),
        };
        let text = |text: &str| text.to_owned();
        let (id, name, role, machine_id, machine_name) = (
            text("arn:run"),
            text("run"),
            text("role"),
            text("arn:aws:states:local:1:stateMachine:m"),
            text("m"),
        );
        story.event(Event::Start {
            id,
            name,
            input,
            role,
            machine_id,
            machine_name,
            seed: [1, 1],
        });
        story
    }

    /// Applies an event; `commands` then holds what it led to.
    fn event(&mut self, event: Event) -> &[Command] {
        let outcome = step(&self.machine, self.execution.clone(), &event, self.at);
        self.execution = outcome.execution;
        self.commands = outcome.commands;
        self.history.extend(outcome.history);
        &self.commands
    }

    fn succeed(&mut self, task: u64, output: Value) -> &[Command] {
        self.event(Event::TaskSucceeded { task, output })
    }

    fn fail(&mut self, task: u64, error: &str) -> &[Command] {
        self.event(Event::TaskFailed {
            task,
            error: Some(error.into()),
            cause: Some("why".into()),
        })
    }

    /// Lets the earliest timer of a kind fire.
    fn fire(&mut self, purpose: Purpose) -> &[Command] {
        let timer = self
            .execution
            .open_timers()
            .filter(|timer| timer.purpose == purpose)
            .min_by_key(|timer| timer.at);
        let (timer, at) = timer.map(|timer| (timer.timer, timer.at)).unwrap();
        self.at = self.at.max(at);
        self.event(Event::TimerFired { timer })
    }

    fn tasks(&self) -> Vec<u64> {
        self.execution.open_tasks().map(|task| task.task).collect()
    }

    fn kinds(&self) -> Vec<&str> {
        self.history.iter().map(|event| event.kind.as_str()).collect()
    }

    fn output(&self) -> Value {
        match self.execution.status() {
            Status::Succeeded { output } => output.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn failure(&self) -> (&str, &str) {
        match self.execution.status() {
            Status::Failed { error, cause } => (
                error.as_deref().unwrap_or_default(),
                cause.as_deref().unwrap_or_default(),
            ),
            other => panic!("{other:?}"),
        }
    }
}

fn single(state: Value) -> Value {
    json!({ "StartAt": "S", "States": { "S": state } })
}

fn after(seconds: i64, from: Timestamp) -> Timestamp {
    from + SignedDuration::from_secs(seconds)
}

#[test]
fn a_task_is_scheduled_with_all_it_needs() {
    let story = Story::new(
        single(json!({
            "Type": "Task", "Resource": ACTIVITY, "End": true, "TimeoutSeconds": 60, "HeartbeatSecondsPath": "$.beat",
            "Parameters": { "x.$": "$.x" }, "Credentials": { "RoleArn": "arn:role" },
        })),
        json!({ "x": [1], "beat": 7 }),
    );
    let Command::Schedule {
        task,
        resource,
        input,
        timeout,
        heartbeat,
        attempt,
        state,
        token,
        role,
    } = &story.commands[0]
    else {
        panic!("{:?}", story.commands)
    };
    assert_eq!(
        (*task, resource.as_str(), state.as_str(), *attempt),
        (1, ACTIVITY, "S", 1)
    );
    assert_eq!(
        (input, *timeout, *heartbeat),
        (&json!({ "x": [1] }), Some(60), Some(7))
    );
    assert_eq!((token.len(), role.as_deref()), (43, Some("arn:role")));
    assert_eq!(
        story.commands[1],
        Command::StartTimer {
            timer: 1,
            at: after(60, story.at)
        }
    );
    assert_eq!(story.commands.len(), 2);
}

#[test]
fn the_token_in_the_data_is_the_token_of_the_command() {
    let mut story = Story::new(
        single(json!({
            "Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": true,
            "Parameters": { "token.$": "$$.Task.Token" }, "ResultSelector": { "token.$": "$$.Task.Token" },
            "Retry": [{ "ErrorEquals": ["States.ALL"] }],
        })),
        json!({}),
    );
    let told = |commands: &[Command]| match &commands[0] {
        Command::Schedule { input, token, .. } => {
            assert_eq!(input["token"], token.as_str());
            token.clone()
        }
        other => panic!("{other:?}"),
    };
    let first = told(&story.commands);
    story.fail(1, "E");
    let second = told(story.fire(Purpose::Backoff));
    assert_ne!(first, second);
    story.succeed(2, json!(null));
    assert_eq!(story.output(), json!({ "token": second }));
}

#[test]
fn a_task_times_out_by_its_own_timer_and_is_cancelled() {
    let mut story = Story::new(
        single(json!({ "Type": "Task", "Resource": ACTIVITY, "End": true, "TimeoutSeconds": 5 })),
        json!({}),
    );
    assert_eq!(
        story.fire(Purpose::TaskTimeout),
        [Command::CancelTask { task: 1 }]
    );
    assert_eq!(story.failure(), ("States.Timeout", ""));
    assert_eq!(story.kinds().last(), Some(&"ExecutionFailed"));
    assert!(story.kinds().contains(&"ActivityTimedOut"));
    assert!(story.succeed(1, json!(1)).is_empty(), "too late");
}

#[test]
fn a_missed_heartbeat_answers_to_both_names() {
    for name in ["States.HeartbeatTimeout", "States.Timeout"] {
        let mut story = Story::new(
            json!({ "StartAt": "S", "States": {
                "S": { "Type": "Task", "Resource": ACTIVITY, "Next": "E", "HeartbeatSeconds": 5,
                       "Catch": [{ "ErrorEquals": ["States.TaskFailed"], "Next": "F" }, { "ErrorEquals": [name], "Next": "E" }] },
                "E": { "Type": "Succeed" }, "F": { "Type": "Fail" },
            }}),
            json!({}),
        );
        story.event(Event::TaskTimedOut {
            task: 1,
            kind: Timeout::Heartbeat,
        });
        assert_eq!(
            story.output(),
            json!({ "Error": "States.Timeout", "Cause": null })
        );
    }
}

#[test]
fn retries_wait_longer_each_time_and_are_counted_in_the_context() {
    let mut story = Story::new(
        single(json!({
            "Type": "Task", "Resource": ACTIVITY, "End": true, "Parameters": { "retry.$": "$$.State.RetryCount" },
            "Retry": [{ "ErrorEquals": ["E"], "IntervalSeconds": 2, "BackoffRate": 3, "MaxDelaySeconds": 10, "MaxAttempts": 3 }],
        })),
        json!({}),
    );
    for (attempt, delay) in [(1, 2), (2, 6), (3, 10)] {
        let at = after(delay, story.at);
        assert_eq!(
            story.fail(attempt, "E"),
            [Command::StartTimer { timer: attempt, at }]
        );
        let [
            Command::Schedule {
                task,
                input,
                attempt: number,
                ..
            },
        ] = story.fire(Purpose::Backoff)
        else {
            panic!()
        };
        assert_eq!((*task, u64::from(*number)), (attempt + 1, attempt + 1));
        assert_eq!(*input, json!({ "retry": attempt }));
    }
    story.fail(4, "E");
    assert_eq!(story.failure(), ("E", "why"));
    assert_eq!(
        story
            .kinds()
            .iter()
            .filter(|kind| **kind == "TaskStateEntered")
            .count(),
        1
    );
}

#[test]
fn a_map_keeps_to_its_concurrency_and_its_order() {
    let definition = single(json!({
        "Type": "Map", "MaxConcurrency": 2, "End": true,
        "ItemProcessor": { "StartAt": "T", "States": { "T": { "Type": "Task", "Resource": ACTIVITY, "End": true } } },
    }));
    let mut story = Story::new(definition.clone(), json!(["a", "b", "c"]));
    assert_eq!(story.tasks(), [1, 2]);
    story.succeed(2, json!("B"));
    assert_eq!(story.tasks(), [1, 3]);
    story.succeed(3, json!("C"));
    story.succeed(1, json!(null));
    assert_eq!(story.output(), json!([null, "B", "C"]));

    let mut story = Story::new(definition, json!(["a", "b", "c"]));
    assert_eq!(story.fail(1, "E"), [Command::CancelTask { task: 2 }]);
    assert_eq!(story.failure(), ("E", "why"));
    let end = [
        "ActivityFailed",
        "MapIterationFailed",
        "TaskStateAborted",
        "MapIterationAborted",
        "MapStateFailed",
        "ExecutionFailed",
    ];
    assert_eq!(story.kinds()[story.kinds().len() - 6..], end);
}

#[test]
fn a_failing_selector_fails_the_map_which_may_catch_it() {
    let mut definition = single(json!({
        "Type": "Map", "End": true, "ItemSelector": { "x.$": "States.MathAdd($$.Map.Item.Value, 1)" },
        "ItemProcessor": { "StartAt": "P", "States": { "P": { "Type": "Wait", "Seconds": 1, "End": true } } },
    }));
    let story = Story::new(definition.clone(), json!([1, "two"]));
    assert_eq!(story.failure().0, "States.IntrinsicFailure");
    assert!(story.commands.is_empty() && story.execution.open_timers().next().is_none());
    definition["States"]["S"]["Catch"] =
        json!([{ "ErrorEquals": ["States.IntrinsicFailure"], "Next": "E", "ResultPath": null }]);
    definition["States"]["E"] = json!({ "Type": "Succeed" });
    assert_eq!(
        Story::new(definition, json!([1, "two"])).output(),
        json!([1, "two"])
    );
}

#[test]
fn a_failing_branch_stops_the_others_down_to_the_last_timer() {
    let task = json!({ "Type": "Task", "Resource": ACTIVITY, "TimeoutSeconds": 9, "End": true });
    let mut story = Story::new(
        single(json!({ "Type": "Parallel", "End": true, "Branches": [
            { "StartAt": "A", "States": { "A": task } },
            { "StartAt": "B", "States": { "B": { "Type": "Parallel", "End": true, "Branches": [
                { "StartAt": "C", "States": { "C": { "Type": "Wait", "Seconds": 9, "End": true } } },
                { "StartAt": "D", "States": { "D": task } },
            ] } } },
        ] })),
        json!({}),
    );
    let inside: Vec<_> = story
        .execution
        .open_states()
        .map(|state| (state.name.to_owned(), state.inside.len()))
        .collect();
    assert_eq!(inside, [("A".into(), 1), ("C".into(), 2), ("D".into(), 2)]);
    story.fail(1, "E");
    assert_eq!(story.failure(), ("E", "why"));
    assert_eq!(
        story
            .commands
            .iter()
            .filter(|command| matches!(command, Command::CancelTask { task: 2 }))
            .count(),
        1
    );
    assert_eq!(
        story
            .commands
            .iter()
            .filter(|command| matches!(command, Command::CancelTimer { .. }))
            .count(),
        3
    );
    assert_eq!(
        story
            .kinds()
            .iter()
            .filter(|kind| kind.ends_with("Aborted"))
            .count(),
        4
    );
}

#[test]
fn what_is_taken_back_in_the_same_step_is_never_asked_for() {
    let story = Story::new(
        single(json!({ "Type": "Parallel", "End": true, "Branches": [
            { "StartAt": "A", "States": { "A": { "Type": "Task", "Resource": ACTIVITY, "TimeoutSeconds": 9, "End": true } } },
            { "StartAt": "B", "States": { "B": { "Type": "Fail", "Error": "E" } } },
        ] })),
        json!({}),
    );
    assert_eq!(story.failure(), ("E", ""));
    assert!(story.commands.is_empty(), "{:?}", story.commands);
}

#[test]
fn the_machine_has_a_deadline_and_can_be_cancelled() {
    let mut definition = single(json!({ "Type": "Wait", "Seconds": 60, "End": true }));
    definition["TimeoutSeconds"] = json!(10);
    let mut story = Story::new(definition.clone(), json!({}));
    assert_eq!(story.fire(Purpose::Deadline), [Command::CancelTimer { timer: 2 }]);
    assert_eq!(story.execution.status(), &Status::TimedOut);
    assert_eq!(story.kinds().last(), Some(&"ExecutionTimedOut"));

    let mut story = Story::new(definition, json!({}));
    let cancel = Event::Cancel {
        error: Some("Stop".into()),
        cause: None,
    };
    assert_eq!(
        story.event(cancel.clone()),
        [
            Command::CancelTimer { timer: 1 },
            Command::CancelTimer { timer: 2 }
        ]
    );
    assert_eq!(
        story.execution.status(),
        &Status::Aborted {
            error: Some("Stop".into()),
            cause: None
        }
    );
    assert!(story.event(cancel).is_empty());
}

#[test]
fn states_all_does_not_catch_runtime_errors_but_their_names_do() {
    for (name, caught) in [
        ("States.ALL", false),
        ("States.Runtime", true),
        ("States.ParameterPathFailure", true),
    ] {
        let story = Story::new(
            json!({ "StartAt": "S", "States": {
                "S": { "Type": "Task", "Resource": ACTIVITY, "Parameters": { "x.$": "$.x" }, "Next": "E",
                       "Catch": [{ "ErrorEquals": [name], "Next": "E" }] },
                "E": { "Type": "Succeed" },
            }}),
            json!({}),
        );
        assert_eq!(
            matches!(story.execution.status(), Status::Succeeded { .. }),
            caught,
            "{name}"
        );
    }
}

#[test]
fn variables_are_seen_inside_and_assigned_at_the_end_of_a_state() {
    let story = Story::new(
        json!({ "StartAt": "A", "States": {
            "A": { "Type": "Pass", "Assign": { "x": 1 }, "Next": "B" },
            "B": { "Type": "Pass", "Assign": { "x": 2, "y.$": "$x" }, "Next": "C" },
            "C": { "Type": "Parallel", "End": true, "Branches": [
                { "StartAt": "D", "States": { "D": { "Type": "Pass", "Parameters": { "x.$": "$x", "y.$": "$y" }, "End": true } } },
            ] },
        }}),
        json!({}),
    );
    assert_eq!(story.output(), json!([{ "x": 2, "y": 1 }]));
}

#[test]
fn an_activity_that_is_gone_is_not_scheduled() {
    let mut story = Story::new(
        json!({ "StartAt": "A", "States": {
            "A": { "Type": "Task", "Resource": ACTIVITY, "Next": "B" },
            "B": { "Type": "Task", "Resource": ACTIVITY, "End": true },
        }}),
        json!(1),
    );
    let gone = Event::Activity {
        resource: ACTIVITY.into(),
        exists: false,
    };
    assert!(story.event(gone).is_empty());
    story.succeed(1, json!(2));
    let cause = format!("The activity {ACTIVITY} does not exist.");
    assert_eq!(story.failure(), ("States.Runtime", cause.as_str()));
    assert_eq!(
        story
            .kinds()
            .iter()
            .rev()
            .take(2)
            .rev()
            .copied()
            .collect::<Vec<_>>(),
        ["TaskStateEntered", "ExecutionFailed"]
    );
}

/// A task that nobody will ever do: no retrier and no catcher has a say in that, and what is around it fails too.
#[test]
fn a_task_that_is_refused_ends_the_execution() {
    let retry = json!([{ "ErrorEquals": ["States.TaskFailed"] }, { "ErrorEquals": ["States.ALL"] }]);
    let catch = json!([{ "ErrorEquals": ["States.TaskFailed"], "Next": "C" }, { "ErrorEquals": ["States.ALL"], "Next": "C" }]);
    let work = json!({ "Type": "Task", "Resource": ACTIVITY, "Retry": retry, "Catch": catch, "End": true });
    let inner = json!({ "StartAt": "W", "States": { "W": work, "C": { "Type": "Succeed" } } });
    let mut story = Story::new(
        json!({ "StartAt": "P", "States": {
            "P": { "Type": "Parallel", "Branches": [inner], "Retry": retry, "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": "E" }], "End": true },
            "E": { "Type": "Succeed" },
        } }),
        json!({}),
    );
    let task = story.tasks()[0];
    story.event(Event::TaskRefused {
        task,
        cause: "nobody".into(),
    });
    assert_eq!(story.failure(), ("States.Runtime", "nobody"));
    assert!(story.kinds().contains(&"ActivityFailed"), "{:?}", story.kinds());
    let before = story.history.len();
    story.event(Event::TaskRefused {
        task,
        cause: "again".into(),
    });
    assert_eq!(story.history.len(), before);
}
