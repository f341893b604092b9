//! The recorded executions of AWS, run as people run them: task results turned into mocks, time virtual, compared by
//! the rules of the recordings' own `compare.py`.

#[path = "../../../asl/tests/recorded/mod.rs"]
mod recorded;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    mocks::Mocks,
    run::{self, Objects, Report, Setup},
};

const FOLDERS: [&str; 5] = ["core", "activity", "lambda", "other_services", "s3"];

/// Cases that do not pass, and why; `crates/asl/CONFORMANCE.md` has the same list.
const KNOWN: [(&str, &str); 8] = [
    (
        "base_test_base__TestSnfBase__test_query_context_object_values__get_execution_history",
        "the recording replaced the times",
    ),
    (
        "express_test_express_async__TestExpressAsync__test_query_runtime_memory__end_event",
        "the recording replaced the times",
    ),
    (
        "express_test_express_sync__TestExpressSync__test_query_runtime_memory__start_execution_sync_response",
        "the recording replaced the times",
    ),
    (
        "scenarios_test_base_scenarios__TestBaseScenarios__test_parallel_state_PARALLEL_STATE__get_execution_history",
        "the recording lost the event ParallelStateSucceeded",
    ),
    (
        "local_mocking_test_base_scenarios__TestBaseScenarios__test_parallel_state_lambda__get_execution_history",
        "the recording replaced the output, and lost the event ParallelStateSucceeded",
    ),
    (
        "states_variables_test_error_output__TestStateVariablesTemplate__test_parallel_catch_error_PARALLEL_CATCH_ERROR_OUTPUT__get_execution_history",
        "the recording lost the event ParallelStateFailed",
    ),
    (
        "states_variables_test_error_output__TestStateVariablesTemplate__test_parallel_catch_error_PARALLEL_CATCH_ERROR_OUTPUT_WITH_RETRY__get_execution_history",
        "the recording lost the event ParallelStateFailed",
    ),
    (
        "states_variables_test_error_output__TestStateVariablesTemplate__test_parallel_catch_error_PARALLEL_CATCH_ERROR_VARIABLE_SAMPLING__get_execution_history",
        "the recording lost the event ParallelStateFailed",
    ),
];

/// Names of all Task states, inner ones too.
fn tasks(definition: &Value, found: &mut Vec<String>) {
    for (name, state) in definition["States"].as_object().into_iter().flatten() {
        if state["Type"] == "Task" {
            found.push(name.clone());
        }
        let branches = state["Branches"].as_array().into_iter().flatten();
        for inner in branches.chain([&state["ItemProcessor"], &state["Iterator"]]) {
            tasks(inner, found);
        }
    }
}

/// The mock file of a case, with one test case `recorded`; `None` when it cannot be known what a task answers.
fn mocks(case: &Value) -> Option<Value> {
    let mut states = Vec::new();
    tasks(&case["definition"], &mut states);
    let mut answers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut submitted: BTreeMap<String, Value> = BTreeMap::new();
    let mut nameless = states.iter().cycle();
    for result in case["task_results"].as_array().into_iter().flatten() {
        let state = match result["state"].as_str() {
            Some(state) => state.to_owned(),
            None => nameless.next()?.clone(),
        };
        let event = result["event"].as_str().unwrap();
        if event.ends_with("Submitted") {
            submitted.insert(state, result["output"].clone());
            continue;
        }
        let mut answer = match event.ends_with("Succeeded") {
            true => json!({ "Return": result["output"] }),
            false => json!({ "Throw": thrown(result) }),
        };
        if let Some(output) = submitted.remove(&state) {
            answer["Submit"] = output;
        }
        answers.entry(state).or_default().push(answer);
    }
    let raising = case["lambda_functions"][0]["source"]
        .as_str()
        .is_some_and(|source| source.contains("raise Exception("));
    for state in states {
        if answers.contains_key(&state) || !reached(case) {
            continue;
        }
        let thrown = raising.then(|| json!({ "Throw": { "Error": "Exception", "Cause": "{}" } }))?;
        answers.insert(state, vec![thrown; 16]);
    }
    let responses: Map<_, _> = answers
        .iter()
        .map(|(state, answers)| {
            let calls: Map<_, _> = answers
                .iter()
                .enumerate()
                .map(|(at, answer)| (at.to_string(), answer.clone()))
                .collect();
            (state.clone(), Value::Object(calls))
        })
        .collect();
    let names: Map<_, _> = answers
        .keys()
        .map(|state| (state.clone(), json!(state)))
        .collect();
    Some(json!({
        "StateMachines": { "machine": { "TestCases": { "recorded": names } } },
        "MockedResponses": responses,
    }))
}

/// Whether a task is called at all; some cases fail before.
fn reached(case: &Value) -> bool {
    case["lambda_functions"].is_array() && case["task_results"].as_array().is_none_or(Vec::is_empty)
}

fn thrown(result: &Value) -> Value {
    let mut thrown = json!({});
    if let Some(error) = result["error"].as_str() {
        thrown["Error"] = error.into();
    }
    match &result["cause"] {
        Value::Null => {}
        Value::String(cause) => thrown["Cause"] = cause.as_str().into(),
        cause => thrown["Cause"] = cause.to_string().into(),
    }
    thrown
}

async fn execute(case: &Value, mocks: &Value) -> Result<Report, String> {
    let machine = recorded::machine(case)?;
    let input = match case.get("input_as_sent") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap(),
        _ => case
            .get("input")
            .filter(|input| !input.is_null())
            .cloned()
            .unwrap_or_else(|| json!({})),
    };
    let directory = tempfile::tempdir().unwrap();
    let objects = Objects(Some(directory.path().to_owned()));
    for put in case["s3_setup"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|call| call["op"] == "put_object")
    {
        let text = |name: &str| put["kwargs"][name].as_str().unwrap();
        objects
            .write(text("Bucket"), text("Key"), text("Body").as_bytes())
            .unwrap();
    }
    let setup = Setup {
        machine,
        name: "machine".into(),
        input,
        mocks: Mocks::read(&mocks.to_string(), None, "machine", Some("recorded"))
            .map_err(|error| error.to_string())?,
        objects,
        synchronous: case["kind"] == "sync_execution",
        virtual_time: true,
        at: "2026-11-20T22:00:00Z".parse().unwrap(),
        seed: [7, 7],
    };
    run::run(setup).await.map_err(|error| error.to_string())
}

/// The rules of `compare.py`.
fn compare(case: &Value, is: &Report) -> Vec<String> {
    let want = &case["expected"];
    let volatile = case["volatile"].as_array().into_iter().flatten();
    let volatile: Vec<_> = volatile.filter_map(Value::as_str).collect();
    let mut found = Vec::new();
    if want["status"] != is.status {
        return vec![format!(
            "status {} but was {} {:?} {:?}",
            want["status"], is.status, is.error, is.cause
        )];
    }
    if is.status == "SUCCEEDED" {
        let output = serde_json::from_str(is.output.as_deref().unwrap()).unwrap();
        equal(&want["output"], &output, "/output", &volatile, &mut found);
    } else {
        equal(&want["error"], &json!(is.error), "/error", &volatile, &mut found);
        let cause = is.cause.as_deref().map_or(Value::Null, |cause| {
            let read = want["cause"].is_object() || want["cause"].is_array();
            serde_json::from_str(cause)
                .ok()
                .filter(|_| read)
                .unwrap_or_else(|| cause.into())
        });
        equal(&want["cause"], &cause, "/cause", &volatile, &mut found);
    }
    if let Some(types) = want["event_types"].as_array() {
        let mut types: Vec<_> = types.iter().filter_map(Value::as_str).collect();
        let mut own: Vec<_> = is
            .events
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect();
        if case["interleaved"] == true {
            types.sort_unstable();
            own.sort_unstable();
        }
        if types != own {
            found.push(format!("events {types:?}\n      but were {own:?}"));
        }
    }
    found
}

fn equal(want: &Value, is: &Value, place: &str, volatile: &[&str], found: &mut Vec<String>) {
    if volatile.contains(&place) {
        return;
    }
    match (want, is) {
        (Value::Object(want), Value::Object(is)) => {
            for key in want
                .keys()
                .chain(is.keys().filter(|key| !want.contains_key(*key)))
            {
                let place = format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
                match (want.get(key), is.get(key)) {
                    (Some(want), Some(is)) => equal(want, is, &place, volatile, found),
                    _ if volatile.contains(&place.as_str()) => {}
                    (want, is) => found.push(format!("{place}: {want:?} but was {is:?}")),
                }
            }
        }
        (Value::Array(want), Value::Array(is)) if want.len() == is.len() => {
            for (at, (want, is)) in want.iter().zip(is).enumerate() {
                equal(want, is, &format!("{place}/{at}"), volatile, found);
            }
        }
        (Value::Number(want), Value::Number(is)) if want.as_f64() == is.as_f64() => {}
        (want, is) if want == is => {}
        (want, is) => found.push(format!("{place}: {want} but was {is}")),
    }
}

#[test]
fn what_is_known_is_told() {
    let told = include_str!("../../../asl/CONFORMANCE.md");
    for (id, why) in KNOWN {
        assert!(
            told.contains(&format!("| `{id}` | {why} |")),
            "{id} is not in CONFORMANCE.md"
        );
    }
}

#[tokio::test]
async fn recorded_executions_with_mocks() {
    let (mut wrong, mut stale) = (Vec::new(), Vec::new());
    for folder in FOLDERS {
        let Some(cases) = recorded::cases(folder) else {
            return;
        };
        let (mut passed, mut out, mut failed) = (0, 0, 0);
        for case in &cases {
            let id = case["id"].as_str().unwrap();
            let ended = ["SUCCEEDED", "FAILED", "TIMED_OUT"]
                .iter()
                .any(|status| case["expected"]["status"] == *status);
            let Some(mocks) = mocks(case).filter(|_| ended) else {
                out += 1;
                continue;
            };
            let found = match execute(case, &mocks).await {
                Ok(report) => compare(case, &report),
                Err(error) => vec![error],
            };
            match (found.is_empty(), KNOWN.iter().any(|known| known.0 == id)) {
                (true, false) => passed += 1,
                (true, true) => stale.push(id.to_owned()),
                (false, true) => {}
                (false, false) => {
                    failed += 1;
                    wrong.push(format!("{id}\n    {}", found.join("\n    ")));
                }
            }
        }
        println!("{folder}: {passed} pass, {failed} fail, {out} have no answers or no end");
    }
    assert!(stale.is_empty(), "listed as known but passing: {stale:?}");
    assert!(
        wrong.is_empty(),
        "{} cases fail:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
