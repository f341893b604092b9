//! Maps and Parallel states: what is shown of their items, and what may be mocked. From "Testing Map and Parallel states"
//! in AWS's developer guide.

use asl::{Level, Refusal, TestRequest, TestResponse, Tested, test};
use serde_json::{Value, json};

fn tested(state: &Value, input: &Value, more: Value) -> Result<TestResponse, Refusal> {
    let mut request =
        json!({ "definition": state.to_string(), "input": input.to_string(), "inspectionLevel": "DEBUG" });
    let more = more.as_object().cloned().unwrap_or_default();
    request.as_object_mut().unwrap().extend(more);
    let request: TestRequest = serde_json::from_value(request).unwrap();
    assert_eq!(request.inspection_level, Level::Debug);
    test(&request, "2026-11-20T22:00:00Z".parse().unwrap(), [7, 7])
}

fn refused(state: &Value, more: Value) -> (&'static str, String) {
    let refusal = tested(state, &json!({}), more).unwrap_err();
    (refusal.code, refusal.message)
}

/// What is shown under `name`, as JSON.
fn shown(response: &TestResponse, name: &str) -> Value {
    let data = response.inspection_data.as_ref().unwrap();
    data.get(name).map_or(Value::Null, |text| {
        serde_json::from_str(text.as_str().unwrap()).unwrap()
    })
}

fn map(mode: &str, more: Value) -> Value {
    let mut map = json!({
        "Type": "Map", "End": true,
        "ItemProcessor": {
            "ProcessorConfig": { "Mode": mode }, "StartAt": "Work",
            "States": {
                "Work": { "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "Pass" },
                "Pass": { "Type": "Pass", "End": true },
            },
        },
    });
    if mode == "DISTRIBUTED" {
        map["ItemProcessor"]["ProcessorConfig"]["ExecutionType"] = "STANDARD".into();
    }
    let more = more.as_object().cloned().unwrap_or_default();
    map.as_object_mut().unwrap().extend(more);
    map
}

fn result(value: Value) -> Value {
    json!({ "mock": { "result": value.to_string() } })
}

#[test]
fn items_are_shown_on_their_way() {
    let selector = json!({ "v.$": "$$.Map.Item.Value", "i.$": "$$.Map.Item.Index", "all.$": "$.n" });
    let own = json!({ "ItemsPath": "$.items", "ItemSelector": selector });
    let input = json!({ "items": [5, 6], "n": 2 });
    for mode in ["INLINE", "DISTRIBUTED"] {
        let seen = tested(&map(mode, own.clone()), &input, result(json!([1, 2]))).unwrap();
        assert_eq!(shown(&seen, "afterItemsPath"), json!([5, 6]));
        let selected = json!([{ "v": 5, "i": 0, "all": 2 }, { "v": 6, "i": 1, "all": 2 }]);
        assert_eq!(shown(&seen, "afterItemSelector"), selected);
        assert_eq!(shown(&seen, "afterItemBatcher"), Value::Null);
    }
}

#[test]
fn what_the_reader_reads_is_given() {
    let reader = |config: Value| {
        json!({
            "ItemReader": { "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": config,
                "Parameters": { "Bucket": "b", "Key": "k" } },
            "ItemBatcher": { "MaxItemsPerBatch": 2, "BatchInput": { "x": 1 } },
        })
    };
    let read = |config: Value, data: &str| {
        let mut more = result(json!([1]));
        more["stateConfiguration"] = json!({ "mapItemReaderData": data });
        tested(&map("DISTRIBUTED", reader(config)), &json!({}), more).unwrap()
    };
    let seen = read(
        json!({ "InputType": "JSON", "ItemsPointer": "/a/b" }),
        "{\"a\":{\"b\":[1,2,3]}}",
    );
    assert_eq!(shown(&seen, "afterItemsPointer"), json!([1, 2, 3]));
    let batches =
        json!([{ "BatchInput": { "x": 1 }, "Items": [1, 2] }, { "BatchInput": { "x": 1 }, "Items": [3] }]);
    assert_eq!(shown(&seen, "afterItemBatcher"), batches);
    let csv = json!({ "InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW" });
    let seen = read(csv.clone(), "name,n\nx,1\n");
    assert_eq!(
        shown(&seen, "afterItemBatcher")[0]["Items"],
        json!([{ "name": "x", "n": "1" }])
    );
    let seen = read(csv, "name,name\nx,1\n");
    assert_eq!(seen.status, Tested::Failed);
    assert_eq!(seen.error.as_deref(), Some("States.ItemReaderFailed"));
}

/// A selector that makes much of many items is not a way to fill the memory.
#[test]
fn what_is_too_long_is_not_shown() {
    let own = json!({ "ItemsPath": "$.items", "ItemSelector": { "all.$": "$" } });
    let input = json!({ "items": vec![1; 900] });
    let seen = tested(&map("INLINE", own), &input, result(json!([1]))).unwrap();
    assert_eq!(shown(&seen, "afterItemSelector"), Value::Null);
    assert_eq!(seen.status, Tested::Succeeded);
}

/// A short table may have many cells: every row has all columns.
#[test]
fn what_is_read_and_too_large_is_not_shown() {
    let shown_of = |input: &str, columns: usize, rows: usize| {
        let config = match input {
            "CSV" => json!({ "InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW" }),
            _ => json!({ "InputType": "JSON", "ItemsPointer": "/a" }),
        };
        let own = json!({
            "ItemReader": { "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": config,
                "Parameters": { "Bucket": "b", "Key": "k" } },
            "ItemBatcher": { "MaxItemsPerBatch": 1_000 },
        });
        let names: Vec<String> = (0..columns).map(|at| format!("c{at}")).collect();
        let data = match input {
            "CSV" => format!("{}\n{}", names.join(","), "x\n".repeat(rows)),
            _ => json!({ "a": vec![1; rows] }).to_string(),
        };
        let mut more = result(json!([1]));
        more["stateConfiguration"] = json!({ "mapItemReaderData": data });
        let seen = tested(&map("DISTRIBUTED", own), &json!({}), more).unwrap();
        assert_eq!(seen.status, Tested::Succeeded, "{seen:?}");
        let of = match input {
            "CSV" => "afterItemBatcher",
            _ => "afterItemsPointer",
        };
        !shown(&seen, of).is_null()
    };
    assert!(shown_of("CSV", 20, 100));
    assert!(!shown_of("CSV", 20_000, 64_000));
    assert!(shown_of("JSON", 0, 1_000));
    assert!(!shown_of("JSON", 0, 1_001));
}

/// What each may take, all together may take.
#[test]
fn the_work_of_selectors_has_one_budget() {
    let selects = |numbers: usize| {
        let mut state = map(
            "INLINE",
            json!({
                "QueryLanguage": "JSONata",
                "ItemSelector": { "n": format!("{{% $sum([1..{numbers}].($ * 2)) %}}") },
            }),
        );
        state["Items"] = "{% $states.input.items %}".into();
        let input = json!({ "items": vec![1; 200] });
        let seen = tested(&state, &input, result(json!([1]))).unwrap();
        assert_eq!(seen.status, Tested::Succeeded, "{seen:?}");
        !shown(&seen, "afterItemSelector").is_null()
    };
    assert!(selects(10));
    assert!(!selects(10_000));
}

#[test]
fn data_of_a_reader_is_limited() {
    let reader = json!({ "ItemReader": { "Resource": "arn:aws:states:::s3:getObject", "Parameters": { "Bucket": "b", "Key": "k" } } });
    let mut more = result(json!([1]));
    more["stateConfiguration"] = json!({ "mapItemReaderData": " ".repeat(262_145) });
    let (code, message) = refused(&map("DISTRIBUTED", reader), more);
    assert_eq!(
        (code, message.as_str()),
        ("ValidationException", "The mapItemReaderData is too large.")
    );
}

#[test]
fn a_result_that_is_written_is_an_object() {
    let writer = json!({ "Resource": "arn:aws:states:::s3:putObject", "Parameters": { "Bucket": "b", "Prefix": "p" } });
    let written = map(
        "DISTRIBUTED",
        json!({ "ItemsPath": "$.i", "ResultWriter": writer }),
    );
    let about =
        json!({ "MapRunArn": "arn", "ResultWriterDetails": { "Bucket": "b", "Key": "p/manifest.json" } });
    let seen = tested(&written, &json!({ "i": [] }), result(about.clone())).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&seen.output.unwrap()).unwrap(),
        about
    );
    let object = "Mocked result must be a JSON object.".to_owned();
    assert_eq!(
        refused(&written, result(json!([1]))),
        ("ValidationException", object)
    );
    let array = "Mocked result must be an array.".to_owned();
    assert_eq!(
        refused(&map("DISTRIBUTED", json!({})), result(about)),
        ("ValidationException", array)
    );
}

/// `States.TaskFailed` is for tasks, wherever inside the Map they are.
#[test]
fn an_error_is_one_of_the_state_that_it_happened_in() {
    let catch =
        json!({ "ItemsPath": "$.i", "Catch": [{ "ErrorEquals": ["States.TaskFailed"], "Next": "N" }] });
    let caused = |by: &str| {
        let more = json!({ "mock": { "errorOutput": { "error": "Mine" } }, "stateConfiguration": { "errorCausedByState": by } });
        tested(&map("INLINE", catch.clone()), &json!({ "i": [1] }), more)
    };
    assert_eq!(caused("Work").unwrap().status, Tested::CaughtError);
    assert_eq!(caused("Pass").unwrap().status, Tested::Failed);
    assert_eq!(caused("Nowhere").unwrap_err().code, "ValidationException");
}

#[test]
fn what_cannot_be_mocked_is_refused_in_aws_words() {
    let validation = |message: &str| ("ValidationException", message.to_owned());
    let pass = json!({ "Type": "Pass", "End": true });
    assert_eq!(
        refused(&pass, result(json!({}))),
        validation("State type 'Pass' is not supported when a mock is specified")
    );
    let none = "TestState API does not support Map or Parallel states. Supported state types include: [Task, Wait, Pass, \
                Succeed, Fail, Choice]";
    assert_eq!(
        refused(&map("INLINE", json!({})), json!({})),
        ("InvalidDefinition", none.to_owned())
    );
    let task = json!({ "Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "End": true });
    let mut secret = result(json!({}));
    secret["revealSecrets"] = true.into();
    assert_eq!(
        refused(&task, secret),
        validation("TestState does not support RevealSecrets when a mock is specified.")
    );
    assert_eq!(
        refused(&task, json!({ "mock": { "result": "{" } })),
        validation("Mocked result must be valid JSON")
    );
    let branch = |name: &str| json!({ "StartAt": name, "States": { name: { "Type": "Succeed" } } });
    let parallel = json!({ "Type": "Parallel", "Branches": [branch("A"), branch("B")], "End": true });
    assert_eq!(
        refused(&parallel, result(json!([1]))),
        validation("Mocked result must have one element for each branch: 2 of them")
    );
}

/// Nothing catches it, as nothing does in an execution.
#[test]
fn runtime_errors_are_final() {
    let task = json!({ "Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "End": true,
        "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": "N" }] });
    let more = json!({ "mock": { "errorOutput": { "error": "States.Runtime" } } });
    assert_eq!(tested(&task, &json!({}), more).unwrap().status, Tested::Failed);
}

/// A state of a Map sees an item, which is its input.
#[test]
fn a_state_of_a_map_sees_its_item() {
    let mut around = map("INLINE", json!({}));
    around["ItemProcessor"]["States"]["Pass"]["Parameters"] =
        json!({ "i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value" });
    let machine = json!({ "StartAt": "M", "States": { "M": around } });
    let seen = tested(&machine, &json!({ "a": 1 }), json!({ "stateName": "Pass" })).unwrap();
    let output: Value = serde_json::from_str(&seen.output.unwrap()).unwrap();
    assert_eq!(output, json!({ "i": 0, "v": { "a": 1 } }));
}

#[test]
fn what_nobody_knows_is_refused_by_name() {
    let wrong =
        serde_json::from_value::<TestRequest>(json!({ "stateConfiguration": { "retrierRetries": 1 } }));
    assert!(wrong.unwrap_err().to_string().contains("retrierRetries"));
}
