//! Recorded answers of AWS's TestState. `cargo test -p asl --test teststate -- --nocapture` prints the counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../recorded/mod.rs"]
mod recorded;

mod maps;

use asl::{Refusal, TestRequest, TestResponse, test};
use serde_json::{Value, json};

/// The request as it was sent. Where a function was really called, its answer is mocked.
fn request(case: &Value) -> TestRequest {
    let mut request = case["request"].clone();
    for name in ["definition", "input", "variables", "context"] {
        if let Some(raw) = request.get(format!("{name}_raw")).cloned() {
            request[name] = raw;
        }
    }
    let expected = &case["expected"];
    let called = request.get("mock").is_none() && expected["status"] == "SUCCEEDED";
    if called && request["definition"].as_str().unwrap().contains(":lambda:") {
        let answer = expected["response"]["inspectionData"].get("result");
        let answer = answer.unwrap_or(&expected["response"]["output"]);
        let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
        request["mock"] = json!({ "result": text });
        request["roleArn"] = "arn:aws:iam::111111111111:role/test".into();
    }
    serde_json::from_value(request).unwrap()
}

/// The recordings parsed the payloads that are objects.
fn parsed(value: &Value) -> Value {
    value
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| value.clone())
}

/// What is not the same, by place.
fn differences(want: &Value, is: &Value, place: &str, volatile: &[&str], found: &mut Vec<String>) {
    if volatile.contains(&place)
        || want
            .as_str()
            .is_some_and(|text| text.contains('<') || text == "date")
    {
        return;
    }
    // What the recordings left as text is compared as text.
    if want.is_string() && is.is_string() {
        if want != is {
            found.push(format!("{place}: {want} but was {is}"));
        }
        return;
    }
    match (&parsed(want), &parsed(is)) {
        (Value::Object(want), Value::Object(is)) => {
            for key in want
                .keys()
                .chain(is.keys().filter(|key| !want.contains_key(*key)))
            {
                let place = format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
                match (want.get(key), is.get(key)) {
                    (Some(want), Some(is)) => differences(want, is, &place, volatile, found),
                    (want, is) => found.push(format!("{place}: {want:?} but was {is:?}")),
                }
            }
        }
        (Value::Array(want), Value::Array(is)) if want.len() == is.len() => {
            for (at, (want, is)) in want.iter().zip(is).enumerate() {
                differences(want, is, &format!("{place}/{at}"), volatile, found);
            }
        }
        (Value::Number(want), Value::Number(is)) if want.as_f64() == is.as_f64() => {}
        (want, is) if want == is => {}
        (want, is) => found.push(format!("{place}: {want} but was {is}")),
    }
}

fn compare(case: &Value, is: &Result<TestResponse, Refusal>) -> Vec<String> {
    let expected = &case["expected"]["response"];
    let is = match is {
        Ok(is) => serde_json::to_value(is).unwrap(),
        Err(refusal) => json!({
            "Error": { "Code": refusal.code, "Message": refusal.message },
            "message": refusal.message,
        }),
    };
    let volatile = case["volatile"].as_array().into_iter().flatten();
    let volatile: Vec<_> = volatile.filter_map(Value::as_str).collect();
    let mut found = Vec::new();
    differences(expected, &is, "", &volatile, &mut found);
    found
}

#[test]
fn recorded_tests_of_states() {
    let Some(cases) = recorded::cases("test_state") else {
        return;
    };
    let at = "2026-11-20T22:00:00Z".parse().unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let found = compare(case, &test(&request(case), at, [7, 7]));
        if !found.is_empty() {
            wrong.push(format!("{id}\n    {}", found.join("\n    ")));
        }
    }
    println!("test_state: {} cases, {} differ", cases.len(), wrong.len());
    assert!(
        wrong.is_empty(),
        "{} cases differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_nobody_changed_goes_out_as_it_came() {
    let request = TestRequest {
        definition: json!({ "Type": "Pass", "InputPath": "$.a", "ResultPath": "$.b", "End": true })
            .to_string(),
        input: Some("{\"a\" : [1, {\"x\":  \"]\"}]}".into()),
        inspection_level: asl::Level::Debug,
        ..TestRequest::default()
    };
    let answer = test(&request, "2026-11-20T22:00:00Z".parse().unwrap(), [7, 7]).unwrap();
    let data = answer.inspection_data.unwrap();
    assert_eq!(data["input"], "{\"a\" : [1, {\"x\":  \"]\"}]}");
    assert_eq!(data["afterInputPath"], "[1, {\"x\":  \"]\"}]");
    assert_eq!(
        answer.output.unwrap(),
        "{\"a\":[1,{\"x\":\"]\"}],\"b\":[1,{\"x\":\"]\"}]}"
    );
}

/// Every place of a value.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            places(value, &format!("{here}/{key}"), found);
        }),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, value)| places(value, &format!("{here}/{at}"), found));
        }
        _ => {}
    }
}

/// A state with anything anywhere is answered or refused, and a refusal says why.
#[test]
fn every_request_has_an_answer() {
    let task = json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "InputPath": "$.a", "Parameters": { "b.$": "$$.c" },
        "ResultSelector": { "d.$": "$.e" }, "ResultPath": "$.f", "OutputPath": "$.g", "Assign": { "v.$": "$" }, "End": true,
        "TimeoutSecondsPath": "$.t", "Retry": [{ "ErrorEquals": ["E"], "BackoffRate": 1e300, "MaxAttempts": 99 }],
        "Catch": [{ "ErrorEquals": ["States.ALL"], "Next": "N" }],
    });
    let map = json!({
        "Type": "Map", "QueryLanguage": "JSONata", "Items": "{% $states.input.a %}", "End": true, "MaxConcurrency": "{% $states.input.a %}",
        "ItemProcessor": { "StartAt": "I", "States": { "I": { "Type": "Succeed" } } }, "Output": "{% $states.result %}",
    });
    let wait = json!({ "Type": "Wait", "SecondsPath": "$.a", "Next": "N" });
    let at = "2026-11-20T22:00:00Z".parse().unwrap();
    for state in [task, map, wait] {
        let mut all = Vec::new();
        places(&state, "", &mut all);
        for place in &all {
            for value in [
                json!(null),
                json!(-1),
                json!("$"),
                json!("{% $x %}"),
                json!([1]),
                json!({ "a": "$y" }),
            ] {
                let mut changed = state.clone();
                *changed.pointer_mut(place).unwrap() = value;
                for (mock, input) in [
                    ("{\"result\": \"[1]\"}", "{\"a\": {}}"),
                    ("{\"errorOutput\": {\"error\": \"E\"}}", "[]"),
                    ("{}", "1"),
                ] {
                    let request = TestRequest {
                        definition: changed.to_string(),
                        input: Some(input.into()),
                        mock: serde_json::from_str(mock).ok(),
                        inspection_level: asl::Level::Trace,
                        state_configuration: serde_json::from_value(json!({ "retrierRetryCount": 98 }))
                            .unwrap(),
                        ..TestRequest::default()
                    };
                    if let Err(refusal) = test(&request, at, [1, 2]) {
                        assert!(!refusal.message.is_empty(), "{place}");
                    }
                }
            }
        }
    }
}
