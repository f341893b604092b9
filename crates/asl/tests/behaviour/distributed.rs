//! Distributed Maps: runs, their children, what they endure, and their results.

use crate::{Story, single};
use asl::{Answer, Child, Command, Ended, Event, MapRun, Status};
use serde_json::{Value, json};

fn map(fields: Value) -> Value {
    let mut map = json!({ "Type": "Map", "End": true, "ItemProcessor": {
        "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "STANDARD" },
        "StartAt": "P", "States": { "P": { "Type": "Pass", "End": true } },
    }});
    map.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    single(map)
}

fn open(children: u64) -> Event {
    Event::MapRunOpened {
        task: 1,
        children,
        items: children,
        closes: true,
    }
}

fn ended(child: u64, succeeded: bool) -> Event {
    Event::ChildEnded {
        task: 1,
        child,
        items: 1,
        succeeded,
    }
}

fn started(commands: &[Command]) -> Vec<u64> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::StartChild { child, .. } => Some(*child),
            _ => None,
        })
        .collect()
}

fn children(story: &Story) -> Vec<Child> {
    let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
    run.children(None).unwrap()
}

#[test]
fn children_run_as_many_at_a_time_as_may() {
    let mut story = Story::new(map(json!({ "MaxConcurrency": 2 })), json!([1, 2, 3]));
    assert!(matches!(
        &story.commands[..],
        [Command::OpenMapRun { task: 1, .. }]
    ));
    assert_eq!(started(story.event(open(3))), [0, 1]);
    assert!(story.event(open(9)).is_empty(), "a run is opened once");
    assert!(story.event(ended(2, true)).is_empty(), "it was not started");
    assert_eq!(started(story.event(ended(1, true))), [2]);
    assert!(story.event(ended(1, true)).is_empty());
    assert!(story.event(ended(2, true)).is_empty());
    assert_eq!(story.event(ended(0, true)), [Command::CloseMapRun { task: 1 }]);
    let record = serde_json::to_string(&story.execution).unwrap();
    assert!(record.len() < 2_000, "{}", record.len());
    story.event(Event::MapRunClosed {
        task: 1,
        output: json!(["a", "b", "c"]),
    });
    assert_eq!(story.output(), json!(["a", "b", "c"]));
}

#[test]
fn a_record_does_not_grow_with_the_items() {
    let mut story = Story::new(map(json!({ "MaxConcurrency": 200 })), json!([1, 2, 3]));
    story.event(open(1_000_000));
    for child in 0..500 {
        story.event(ended(child, true));
    }
    let record = serde_json::to_string(&story.execution).unwrap();
    assert!(record.len() < 4_096, "{}", record.len());
}

#[test]
fn too_many_failures_end_the_run_and_its_children() {
    let mut story = Story::new(map(json!({ "ToleratedFailureCount": 1 })), json!([1, 2, 3]));
    story.event(open(3));
    assert!(story.event(ended(0, false)).is_empty());
    assert_eq!(story.event(ended(1, false)), [Command::CancelTask { task: 1 }]);
    assert_eq!(story.failure().0, "States.ExceedToleratedFailureThreshold");
    assert_eq!(
        story.kinds()[4..],
        ["MapRunFailed", "MapStateFailed", "ExecutionFailed"]
    );
}

fn writer() -> Value {
    json!({ "Resource": "arn:aws:states:::s3:putObject", "Parameters": { "Bucket": "b" } })
}

/// A journal of before: its run failed at once, and what came after is read as it was lived.
#[test]
fn a_journal_that_does_not_say_so_wrote_no_results_of_a_run_that_fails() {
    let fields = json!({ "MaxConcurrency": 3, "ResultWriter": writer() });
    let mut story = Story::new(map(fields), json!([1, 2, 3]));
    let opened = json!({ "map_run_opened": { "task": 1, "children": 3, "items": 3 } });
    story.event(serde_json::from_value(opened).unwrap());
    story.event(ended(0, false));
    assert_eq!(story.failure().0, "States.ExceedToleratedFailureThreshold");
}

#[test]
fn the_results_of_a_run_that_fails_are_written_before_it_is_told() {
    let fields = json!({ "MaxConcurrency": 3, "ResultWriter": writer() });
    let mut story = Story::new(map(fields), json!([1, 2, 3, 4, 5]));
    story.event(open(5));
    story.event(ended(0, true));
    let before = story.kinds().len();
    assert_eq!(story.event(ended(1, false)), [Command::StopChildren { task: 1 }]);
    assert!(story.event(ended(2, true)).is_empty(), "none is started any more");
    let raised = Event::MapRunChanged {
        task: 1,
        most: None,
        failures: Some(5),
        percentage: None,
    };
    assert!(story.event(raised).is_empty(), "it is too late to endure more");
    let failing = |story: &Story| story.execution.open_runs().next().map(|run| run.failing);
    assert_eq!(failing(&story), Some(true));
    assert_eq!(story.event(ended(3, false)), [Command::CloseMapRun { task: 1 }]);
    assert_eq!(story.kinds().len(), before, "nothing is told yet");
    let output = json!({ "ResultWriterDetails": {} });
    let closed = Event::MapRunClosed { task: 1, output };
    assert_eq!(story.event(closed), [Command::CancelTask { task: 1 }]);
    assert_eq!(story.failure().0, "States.ExceedToleratedFailureThreshold");
    assert_eq!(
        story.kinds()[before..],
        ["MapRunFailed", "MapStateFailed", "ExecutionFailed"]
    );
    story.event(Event::Redrive { count: 1 });
    assert_eq!(failing(&story), Some(false));
    let reopened = Event::MapRunReopened {
        task: 1,
        children: 3,
        items: 5,
        failed: 0,
        closes: true,
    };
    assert_eq!(started(story.event(reopened)), [0, 1, 2]);
    for child in 0..3 {
        story.event(ended(child, true));
    }
    let output = json!("whole");
    story.event(Event::MapRunClosed { task: 1, output });
    assert_eq!(story.output(), json!("whole"));
}

#[test]
fn a_run_fails_with_its_own_error_when_its_results_cannot_be_written() {
    let mut story = Story::new(map(json!({ "ResultWriter": writer() })), json!([1]));
    story.event(open(1));
    assert_eq!(
        story.event(ended(0, false)),
        [Command::CloseMapRun { task: 1 }],
        "no child is to be stopped"
    );
    story.event(Event::MapRunFailed {
        task: 1,
        error: Some("States.ResultWriterFailed".into()),
        cause: Some("the disk is full".into()),
    });
    let (error, cause) = story.failure();
    assert_eq!(error, "States.ExceedToleratedFailureThreshold");
    assert_eq!(
        cause,
        "The specified tolerated failure threshold was exceeded; and the results could not be written: the disk is full"
    );
}

#[test]
fn results_that_go_nowhere_do_not_hold_a_failure_up() {
    let config = json!({ "ResultWriter": { "WriterConfig": { "Transformation": "FLATTEN" } } });
    let mut story = Story::new(map(config), json!([1]));
    story.event(open(1));
    assert_eq!(story.event(ended(0, false)), [Command::CancelTask { task: 1 }]);
    assert_eq!(story.failure().0, "States.ExceedToleratedFailureThreshold");
}

#[test]
fn a_part_of_all_items_may_fail() {
    let half = map(json!({ "ToleratedFailurePercentage": 50 }));
    let mut story = Story::new(half, json!([1, 2]));
    story.event(open(2));
    story.event(ended(0, false));
    assert_eq!(story.event(ended(1, true)), [Command::CloseMapRun { task: 1 }]);
}

#[test]
fn a_run_that_fails_may_be_retried_and_caught() {
    let mut story = Story::new(
        map(json!({ "Retry": [{ "ErrorEquals": ["States.ItemReaderFailed"], "MaxAttempts": 1 }] })),
        json!([]),
    );
    let failed = |task: u64| Event::MapRunFailed {
        task,
        error: Some("States.ItemReaderFailed".into()),
        cause: None,
    };
    story.event(failed(1));
    story.fire(asl::Purpose::Backoff);
    assert!(matches!(
        &story.commands[..],
        [Command::OpenMapRun { task: 2, .. }]
    ));
    assert!(story.event(failed(1)).is_empty());
    story.event(failed(2));
    assert_eq!(story.failure().0, "States.ItemReaderFailed");
}

#[test]
fn items_are_selected_and_batched() {
    let story = Story::new(
        map(json!({
            "ItemsPath": "$.list",
            "ItemSelector": { "i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value", "all.$": "$.k" },
            "ItemBatcher": { "MaxItemsPerBatch": 2, "BatchInput": { "k.$": "$.k" } },
        })),
        json!({ "k": true, "list": ["a", "b", "c"] }),
    );
    let made = children(&story);
    assert_eq!(made.iter().map(|child| child.items).collect::<Vec<_>>(), [2, 1]);
    let item = |i: u64, v: &str| json!({ "i": i, "v": v, "all": true });
    assert_eq!(
        made[0].input,
        json!({ "BatchInput": { "k": true }, "Items": [item(0, "a"), item(1, "b")] })
    );
    assert_eq!(made[1].input["Items"], json!([item(2, "c")]));
    let bytes = Story::new(
        map(json!({ "ItemBatcher": { "MaxInputBytesPerBatch": 30 } })),
        json!(["0123456789", "0123456789", "0123456789"]),
    );
    let made = children(&bytes);
    assert_eq!(
        made.iter().map(|child| child.items).collect::<Vec<_>>(),
        [1, 1, 1]
    );
}

#[test]
fn members_of_an_object_are_items() {
    let story = Story::new(
        map(json!({ "ItemSelector": { "key.$": "$$.Map.Item.Key", "value.$": "$$.Map.Item.Value" } })),
        json!({ "x": 1, "y": 2 }),
    );
    let made: Vec<_> = children(&story).into_iter().map(|child| child.input).collect();
    assert_eq!(
        made,
        [
            json!({ "key": "x", "value": 1 }),
            json!({ "key": "y", "value": 2 })
        ]
    );
}

#[test]
fn items_are_read_as_the_state_says() {
    let reader = json!({ "ItemReader": {
        "Resource": "arn:aws:states:::s3:getObject",
        "ReaderConfig": { "InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW", "CSVDelimiter": "PIPE", "MaxItems": 1 },
        "Parameters": { "Bucket": "b", "Key.$": "$.key" },
    }});
    let story = Story::new(map(reader), json!({ "key": "k" }));
    let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
    let mut reading = run.reading().unwrap().unwrap();
    let wanted = asl::Request::Object {
        parameters: json!({ "Bucket": "b", "Key": "k" }),
    };
    assert_eq!(reading.wants(), Some(&wanted));
    reading.take(Answer::Object(b"h|i\n1|2\n3|4\n".to_vec())).unwrap();
    assert_eq!(reading.wants(), None);
    let made = run.children(Some(reading)).unwrap();
    assert_eq!(
        made,
        [Child {
            input: json!({ "h": "1", "i": "2" }),
            items: 1
        }]
    );
}

#[test]
fn children_have_names_of_their_own_and_the_processor_for_a_machine() {
    let mut story = Story::new(map(json!({ "Label": "work" })), json!([1]));
    let commands = story.event(open(1)).to_vec();
    let [Command::StartChild { name, seed, .. }] = &commands[..] else {
        panic!("{commands:?}");
    };
    let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
    assert!(run.arn().starts_with("arn:aws:states:local:1:mapRun:m/work:"));
    let Event::Start {
        id,
        machine_id,
        input,
        ..
    } = run.start(name, *seed, json!(5))
    else {
        panic!("a child starts with a start");
    };
    assert_eq!(id, format!("arn:aws:states:local:1:execution:m/work:{name}"));
    assert_eq!(machine_id, "arn:aws:states:local:1:stateMachine:m/work");
    assert_eq!(input, json!(5));
    assert_eq!(run.machine().unwrap().definition()["StartAt"], "P");
}

fn finished(name: &str, status: Status) -> Ended {
    Ended {
        name: name.into(),
        input: json!(1),
        status,
        started: "2026-01-01T00:00:00Z".parse().unwrap(),
        stopped: "2026-01-01T00:00:01.5Z".parse().unwrap(),
    }
}

fn outcomes() -> Vec<Ended> {
    let failed = Status::Failed {
        error: Some("E".into()),
        cause: None,
    };
    vec![
        finished(
            "one",
            Status::Succeeded {
                output: json!([1, 2]),
            },
        ),
        finished("two", failed),
        finished("three", Status::Succeeded { output: json!("x") }),
    ]
}

#[test]
fn results_are_what_the_children_said() {
    for (config, want) in [
        (json!({}), json!([[1, 2], "x"])),
        (
            json!({ "ResultWriter": { "WriterConfig": { "Transformation": "FLATTEN" } } }),
            json!([1, 2, "x"]),
        ),
    ] {
        let story = Story::new(map(config), json!([1]));
        let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
        assert_eq!(run.writing(), Ok(None));
        assert_eq!(run.output(outcomes()), want);
    }
}

/// As AWS leaves it: what the child would have been called is not said.
#[test]
fn a_child_that_was_never_started_is_pending() {
    let fields = json!({ "ResultWriter": writer() });
    let story = Story::new(map(fields), json!([1]));
    let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
    let mut children = outcomes();
    children.truncate(1);
    children[0].status = Status::Running;
    let input = children[0].input.to_string();
    let files = run.writing().unwrap().unwrap().files(&run, &children);
    let [pending, _manifest] = &files[..] else {
        panic!("{files:?}");
    };
    assert!(pending.key.ends_with("/PENDING_0.json"), "{}", pending.key);
    assert_eq!(
        serde_json::from_slice::<Value>(&pending.bytes).unwrap(),
        json!([{ "Input": input, "InputDetails": { "Included": true }, "Status": "PENDING" }])
    );
}

#[test]
fn results_are_written_with_a_manifest() {
    let writer = json!({ "ResultWriter": {
        "Resource": "arn:aws:states:::s3:putObject",
        "Parameters": { "Bucket.$": "$.bucket", "Prefix": "out/" },
    }});
    let story = Story::new(map(writer), json!({ "bucket": "b" }));
    let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
    let writing = run.writing().unwrap().unwrap();
    let files = writing.files(&run, &outcomes());
    let folder = run.arn().rsplit(':').next().unwrap();
    let keys: Vec<_> = files.iter().map(|file| file.key.as_str()).collect();
    let key = |name: &str| format!("out/{folder}/{name}");
    assert_eq!(
        keys,
        [
            key("FAILED_0.json"),
            key("SUCCEEDED_0.json"),
            key("manifest.json")
        ]
    );
    let read = |at: usize| serde_json::from_slice::<Value>(&files[at].bytes).unwrap();
    assert_eq!(read(0)[0]["Error"], "E");
    assert_eq!(read(1)[0]["Output"], "[1,2]");
    assert_eq!(read(1)[1]["StopDate"], "2026-01-01T00:00:01.500Z");
    assert_eq!(
        read(2)["ResultFiles"]["SUCCEEDED"][0]["Size"],
        files[1].bytes.len()
    );
    assert_eq!(
        writing.output()["ResultWriterDetails"],
        json!({ "Bucket": "b", "Key": key("manifest.json") })
    );
}

/// The run goes on with what did not succeed, under the same name; what those are is for whoever keeps the children.
#[test]
fn a_run_that_failed_is_tried_again_and_not_begun_anew() {
    let mut story = Story::new(map(json!({ "MaxConcurrency": 2 })), json!([1, 2, 3, 4]));
    let [Command::OpenMapRun { arn, .. }] = &story.commands[..] else {
        panic!("{:?}", story.commands);
    };
    let arn = arn.clone();
    let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
    assert_eq!(run.arn(), arn);
    let family = run.family();
    let [Command::StartChild { name, seed, .. }, _] = story.event(open(4)) else {
        panic!("{:?}", story.commands);
    };
    let (name, seed) = (name.clone(), *seed);
    assert_eq!(family.name(0), name);
    let run = MapRun::of(&story.machine, &story.execution, 1).unwrap();
    assert_eq!(family.start(0, json!(1)), run.start(&name, seed, json!(1)));
    story.event(ended(0, true));
    story.event(ended(1, false));
    assert_eq!(story.failure().0, "States.ExceedToleratedFailureThreshold");
    let commands = story.event(Event::Redrive { count: 1 }).to_vec();
    let again = |state: &str| Command::RedriveMapRun {
        task: 1,
        state: state.into(),
        arn: arn.clone(),
    };
    let [Command::RedriveMapRun { state, .. }] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(commands, [again(state)]);
    let last = story.history.last().unwrap();
    assert_eq!(last.kind.as_str(), "MapRunRedriven");
    assert_eq!(last.details, json!({ "mapRunArn": arn, "redriveCount": 1 }));
    // Late news of before changes nothing.
    assert!(story.event(ended(2, true)).is_empty());
    let reopened = Event::MapRunReopened {
        task: 1,
        children: 3,
        items: 4,
        failed: 0,
        closes: true,
    };
    assert_eq!(started(story.event(reopened.clone())), [0, 1]);
    assert!(story.event(reopened).is_empty());
    assert_eq!(started(story.event(ended(0, true))), [2]);
    story.event(ended(1, true));
    assert_eq!(story.event(ended(2, true)), [Command::CloseMapRun { task: 1 }]);
    let output = json!([1, 2, 3, 4]);
    story.event(Event::MapRunClosed { task: 1, output });
    assert_eq!(story.output(), json!([1, 2, 3, 4]));
}

#[test]
fn a_run_that_never_had_children_is_begun_anew() {
    let mut story = Story::new(map(json!({})), json!([1]));
    let error = Some("States.ItemReaderFailed".to_owned());
    let (task, cause) = (1, None);
    story.event(Event::MapRunFailed { task, error, cause });
    let commands = story.event(Event::Redrive { count: 1 });
    assert!(
        matches!(commands, [Command::OpenMapRun { task: 2, .. }]),
        "{commands:?}"
    );
}

#[test]
fn what_an_open_run_may_do_can_be_changed() {
    let changed = |most, failures, percentage| Event::MapRunChanged {
        task: 1,
        most,
        failures,
        percentage,
    };
    let mut story = Story::new(map(json!({ "MaxConcurrency": 1 })), json!([1, 2, 3]));
    assert!(story.event(changed(Some(2), None, None)).is_empty());
    assert_eq!(started(story.event(open(9))), [0, 1]);
    assert_eq!(started(story.event(changed(Some(4), Some(1), None))), [2, 3]);
    assert_eq!(started(story.event(ended(0, false))), [4], "one may fail");
    assert_eq!(started(story.event(changed(Some(0), None, None))), [5, 6, 7, 8]);
    let commands = story.event(changed(None, Some(0), None));
    assert_eq!(commands, [Command::CancelTask { task: 1 }]);
    assert_eq!(story.failure().0, "States.ExceedToleratedFailureThreshold");
}

/// A processor is a machine of its own: it speaks the language of the machine around it.
#[test]
fn the_machine_of_the_children_can_be_read_from_its_text() {
    let definition = json!({ "QueryLanguage": "JSONata", "StartAt": "M", "States": { "M": {
        "Type": "Map", "End": true, "Items": [1],
        "ItemProcessor": {
            "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS" },
            "StartAt": "P", "States": { "P": { "Type": "Pass", "Output": "{% $states.input + 1 %}", "End": true } },
        },
    }}});
    let machine = asl::Machine::parse(&definition.to_string()).unwrap();
    let inner = machine.processor("M").unwrap();
    let text = inner.definition().to_string();
    let read = asl::Machine::parse_as(inner.flavour(), &text).unwrap();
    assert_eq!(read.definition(), inner.definition());
    assert_eq!(read.flavour(), asl::Flavour::Express);
}
