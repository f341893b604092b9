//! States that speak JSONata.

use crate::{ACTIVITY, Story};
use asl::{Command, Event, Purpose, Timeout};
use serde_json::{Value, json};

/// A machine in JSONata of one state and what may come after it.
fn machine(state: Value) -> Value {
    json!({ "QueryLanguage": "JSONata", "StartAt": "S", "States": {
        "S": state, "E": { "Type": "Succeed", "Output": { "v": "{% $exists($v) ? $v : 'none' %}", "input": "{% $states.input %}" } },
    }})
}

fn run(state: Value, input: Value) -> Story {
    Story::new(machine(state), input)
}

fn cause(story: &Story) -> String {
    assert_eq!(story.failure().0, "States.QueryEvaluationError");
    let opening = "An error occurred while executing the state 'S' (entered at the event id #2). ";
    story.failure().1.strip_prefix(opening).unwrap().to_owned()
}

#[test]
fn assignments_and_output_see_the_state_before_it() {
    let state = json!({ "Type": "Pass", "Assign": { "v": "{% $states.input.n %}" },
        "Output": { "seen": "{% $exists($v) %}", "twice": "{% $states.input.n * 2 %}" }, "Next": "E" });
    let story = run(state, json!({ "n": 4 }));
    assert_eq!(
        story.output(),
        json!({ "v": 4, "input": { "seen": false, "twice": 8 } })
    );
}

#[test]
fn fields_want_values_of_their_types() {
    for (state, want) in [
        (
            json!({ "Type": "Choice", "Choices": [{ "Condition": "{% $states.input.n %}", "Next": "E" }], "Default": "E" }),
            "The JSONata expression '$states.input.n' specified for the field 'Choices[0]/Condition' returned an unexpected result type. Expected 'boolean', but was 'number' for value: 4",
        ),
        (
            json!({ "Type": "Wait", "Seconds": "{% 'long' %}", "Next": "E" }),
            "The JSONata expression ''long'' specified for the field 'Seconds' returned an unexpected result type. Expected 'number', but was 'string' for value: \"long\"",
        ),
        (
            json!({ "Type": "Pass", "Output": [1, { "f": "{% function($x) { $x } %}" }], "Next": "E" }),
            "The JSONata expression 'function($x) { $x }' specified for the field 'Output[1]/f' returned an unsupported result type.",
        ),
        (
            json!({ "Type": "Task", "Resource": ACTIVITY, "Arguments": { "n": "{% $states.input.n + 'x' %}" }, "Next": "E" }),
            "The JSONata expression '$states.input.n + 'x'' specified for the field 'Arguments/n' threw an error during evaluation. T2002: The right side of the \"+\" operator must evaluate to a number",
        ),
    ] {
        let story = run(state, json!({ "n": 4 }));
        assert_eq!(cause(&story), want);
        let last = story.kinds().len() - 2;
        assert_eq!(story.kinds()[last], "EvaluationFailed");
    }
}

#[test]
fn a_query_that_fails_is_caught_with_the_error_for_output() {
    let state = json!({ "Type": "Task", "Resource": ACTIVITY, "Arguments": "{% $nothing %}", "End": true,
        "Catch": [{ "ErrorEquals": ["States.QueryEvaluationError"], "Assign": { "v": "{% $states.errorOutput.Error %}" }, "Next": "E" }] });
    let story = run(state, json!(1));
    let output = story.output();
    assert_eq!(output["v"], "States.QueryEvaluationError");
    assert_eq!(output["input"]["Error"], "States.QueryEvaluationError");
}

#[test]
fn results_are_seen_once_there_are_some() {
    let state = json!({ "Type": "Task", "Resource": ACTIVITY, "TimeoutSeconds": "{% $states.input.t %}",
        "HeartbeatSeconds": "{% $states.input.t / 2 %}", "Arguments": { "early": "{% $exists($lookup($states, 'result')) %}" },
        "Output": "{% $states.result.x & $states.input.t %}", "Next": "E" });
    let mut story = run(state, json!({ "t": 10 }));
    let [
        Command::Schedule {
            input,
            timeout,
            heartbeat,
            ..
        },
        _,
    ] = &story.commands[..]
    else {
        panic!("{:?}", story.commands);
    };
    assert_eq!(
        (input, timeout, heartbeat),
        (&json!({ "early": false }), &Some(10), &Some(5))
    );
    story.succeed(1, json!({ "x": "a" }));
    assert_eq!(story.output()["input"], "a10");
}

#[test]
fn a_missed_heartbeat_answers_to_both_names() {
    let state = json!({ "Type": "Task", "Resource": ACTIVITY, "HeartbeatSeconds": 5, "End": true,
        "Catch": [{ "ErrorEquals": ["States.HeartbeatTimeout"], "Output": "beat", "Next": "E" }] });
    let mut story = run(state, json!(1));
    story.event(Event::TaskTimedOut {
        task: 1,
        kind: Timeout::Heartbeat,
    });
    assert_eq!(story.output()["input"], "beat");
}

#[test]
fn randomness_is_the_same_when_the_journal_is_replayed() {
    let state = json!({ "Type": "Pass", "Output": "{% [$uuid(), $random(), $uuid()] %}", "Next": "E" });
    let (one, other) = (run(state.clone(), json!(1)), run(state, json!(1)));
    assert_eq!(one.output(), other.output());
    assert_ne!(one.output()["input"][0], one.output()["input"][2]);
}

#[test]
fn queries_end_at_their_limits() {
    let endless =
        json!({ "Type": "Pass", "Output": "{% ($f := function($n) { $f($n + 1) }; $f(0)) %}", "Next": "E" });
    let ended = cause(&run(endless, json!(1)));
    assert!(ended.contains("threw an error during evaluation. U10"), "{ended}");
    // The queries of one state share what there is.
    let much = "{% $sum($map([1..10000], function($n) { $n % 7 })) %}";
    let many = json!({ "Type": "Pass", "Output": vec![much; 60], "Next": "E" });
    assert!(cause(&run(many, json!(1))).contains("threw an error during evaluation. U1002: "));
}

#[test]
fn a_step_with_many_queries_asks_to_be_called_again() {
    let mut story = Story::new(
        json!({ "QueryLanguage": "JSONata", "StartAt": "A", "States": {
            "A": { "Type": "Pass", "Output": "{% $states.input + $sum($map([1..10000], function($n) { $n % 7 })) * 0 + 1 %}", "Next": "B" },
            "B": { "Type": "Choice", "Choices": [{ "Condition": "{% $states.input < 100 %}", "Next": "A" }], "Default": "C" },
            "C": { "Type": "Succeed" },
        }}),
        json!(0),
    );
    let mut steps = 1;
    while story.execution.is_open() {
        story.fire(Purpose::Continue);
        steps += 1;
    }
    assert_eq!(story.output(), json!(100));
    assert!(steps > 1, "{steps}");
}

#[test]
fn one_state_may_speak_it_alone() {
    let story = Story::new(
        json!({ "StartAt": "P", "States": {
            "P": { "Type": "Pass", "Parameters": { "a.$": "$.n" }, "Assign": { "v.$": "$.a" }, "Next": "Q" },
            "Q": { "QueryLanguage": "JSONata", "Type": "Pass", "Output": { "a": "{% $states.input.a + $v %}" }, "Next": "R" },
            "R": { "Type": "Pass", "Parameters": { "a.$": "$.a", "v.$": "$v" }, "End": true },
        }}),
        json!({ "n": 2 }),
    );
    assert_eq!(story.output(), json!({ "a": 4, "v": 2 }));
}
