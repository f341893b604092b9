//! `vend states` as people call it: the real binary, its answers and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod guide;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

fn vend(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("vend")
        .unwrap()
        .current_dir(directory)
        .args(["states"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn files(files: &[(&str, Value)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, value) in files {
        std::fs::write(directory.path().join(name), value.to_string()).unwrap();
    }
    directory
}

fn order() -> Value {
    json!({
        "StartAt": "Pay",
        "States": {
            "Pay": {
                "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "Rest",
                "Retry": [{ "ErrorEquals": ["Busy"], "IntervalSeconds": 3600, "MaxAttempts": 2 }],
            },
            "Rest": { "Type": "Wait", "Seconds": 86_400, "End": true },
        },
    })
}

fn mocks() -> Value {
    json!({
        "StateMachines": { "order": { "TestCases": { "second": { "Pay": "flaky" }, "never": { "Pay": "busy" } } } },
        "MockedResponses": {
            "flaky": { "0": { "Throw": { "Error": "Busy", "Cause": "later" } }, "1": { "Return": { "paid": true } } },
            "busy": { "0-2": { "Throw": { "Error": "Busy", "Cause": "later" } } },
        },
    })
}

#[test]
fn a_run_takes_no_time_and_says_how_it_went() {
    let directory = files(&[("order.asl.json", order()), ("mocks.json", mocks())]);
    let run = |case: &str| {
        let arguments = [
            "run",
            "order.asl.json",
            "--mocks",
            "mocks.json",
            "--test-case",
            case,
            "--virtual-time",
            "--json",
        ];
        let (code, out, _) = vend(directory.path(), &arguments);
        (code, serde_json::from_str::<Value>(&out).unwrap())
    };
    let (code, report) = run("second");
    assert_eq!(
        (code, &report["status"], &report["output"]),
        (0, &json!("SUCCEEDED"), &json!("{\"paid\":true}"))
    );
    let last = report["events"].as_array().unwrap().last().unwrap();
    assert_eq!(last["type"], "ExecutionSucceeded");
    assert_eq!(
        last["executionSucceededEventDetails"]["output"],
        "{\"paid\":true}"
    );
    let (code, report) = run("never");
    assert_eq!(
        (code, &report["error"], &report["cause"]),
        (1, &json!("Busy"), &json!("later"))
    );
}

#[test]
fn what_cannot_be_run_is_refused_with_a_cause_and_a_next_step() {
    let broken = json!({ "StartAt": "A", "States": { "A": { "Type": "Pass" } } });
    let directory = files(&[
        ("order.json", order()),
        ("mocks.json", mocks()),
        ("broken.json", broken),
        ("reader.json", reader()),
    ]);
    for (arguments, said) in [
        (vec!["run", "order.json"], "\"Pay\" has no mocked response"),
        (
            vec!["run", "order.json", "--mocks", "mocks.json"],
            "none is chosen: \"never\", \"second\"",
        ),
        (
            vec!["run", "order.json", "--mocks", "mocks.json", "--name", "x"],
            "no state machine \"x\"",
        ),
        (vec!["run", "order.json", "--input", "{"], "the input is not JSON"),
        (vec!["run", "broken.json"], "the definition has"),
        (
            vec!["test-state", "--definition", "{\"Type\":\"Nap\"}"],
            "InvalidDefinition",
        ),
        (vec!["draw", "mocks.json"], "no States"),
        (
            vec!["run", "reader.json"],
            "nothing says what the ItemReader of Map state \"M\" reads",
        ),
    ] {
        let (code, _, error) = vend(directory.path(), &arguments);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(
            error.contains(said) && error.contains("next:"),
            "{arguments:?}: {error}"
        );
    }
}

/// A distributed Map over an object, whose results are objects again.
fn reader() -> Value {
    json!({ "StartAt": "M", "States": { "M": {
        "Type": "Map", "End": true,
        "ItemReader": { "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": { "InputType": "JSON" },
            "Parameters": { "Bucket": "in", "Key": "items.json" } },
        "ItemProcessor": {
            "ProcessorConfig": { "Mode": "DISTRIBUTED", "ExecutionType": "STANDARD" },
            "StartAt": "P", "States": { "P": { "Type": "Wait", "Seconds": 60, "End": true } },
        },
        "ResultWriter": { "Resource": "arn:aws:states:::s3:putObject", "Parameters": { "Bucket": "out", "Prefix": "r" } },
    } } })
}

/// Two children wait when the third fails, and the fourth is never started.
#[test]
fn a_distributed_map_that_fails_writes_what_there_is() {
    let mut map = reader();
    let state = &mut map["States"]["M"];
    state["MaxConcurrency"] = json!(3);
    state["ItemProcessor"]["StartAt"] = json!("C");
    state["ItemProcessor"]["States"]["C"] = json!({ "Type": "Choice", "Default": "P", "Choices": [
        { "Variable": "$", "NumericEquals": 1, "Next": "G" }, { "Variable": "$", "NumericEquals": 4, "Next": "S" } ] });
    state["ItemProcessor"]["States"]["G"] = json!({ "Type": "Pass", "End": true });
    state["ItemProcessor"]["States"]["S"] = json!({ "Type": "Wait", "Seconds": 5, "Next": "F" });
    state["ItemProcessor"]["States"]["F"] = json!({ "Type": "Fail", "Error": "Four" });
    let directory = files(&[("fails.json", map)]);
    let objects = directory.path().join("objects");
    std::fs::create_dir_all(objects.join("in")).unwrap();
    std::fs::write(objects.join("in/items.json"), "[1, 2, 3, 4, 5]").unwrap();
    let arguments = [
        "run",
        "fails.json",
        "--objects",
        "objects",
        "--virtual-time",
        "--json",
    ];
    let (code, out, error) = vend(directory.path(), &arguments);
    assert_eq!(code, 1, "{error}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["error"], "States.ExceedToleratedFailureThreshold");
    let run = std::fs::read_dir(objects.join("out/r")).unwrap().next().unwrap();
    let run = run.unwrap().path();
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(run.join(name)).unwrap()).unwrap()
    };
    let manifest = read("manifest.json");
    for name in ["SUCCEEDED", "FAILED", "PENDING"] {
        assert_eq!(
            manifest["ResultFiles"][name].as_array().unwrap().len(),
            1,
            "{name}"
        );
    }
    let told = |name: &str| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let read = read(&format!("{name}_0.json"));
        let children = read.as_array().unwrap().iter();
        children
            .map(|child| (text(&child["Input"]), text(&child["Status"])))
            .collect()
    };
    let child = |input: &str, status: &str| (input.to_owned(), status.to_owned());
    assert_eq!(told("SUCCEEDED"), [child("1", "SUCCEEDED")]);
    assert_eq!(
        told("FAILED"),
        [child("2", "ABORTED"), child("3", "ABORTED"), child("4", "FAILED")]
    );
    assert_eq!(told("PENDING"), [child("5", "PENDING")]);
}

#[test]
fn a_distributed_map_reads_and_writes_a_directory() {
    let directory = files(&[("reader.json", reader())]);
    let objects = directory.path().join("objects");
    std::fs::create_dir_all(objects.join("in")).unwrap();
    std::fs::write(objects.join("in/items.json"), "[1, 2, 3]").unwrap();
    let arguments = [
        "run",
        "reader.json",
        "--objects",
        "objects",
        "--virtual-time",
        "--json",
    ];
    let (code, out, error) = vend(directory.path(), &arguments);
    assert_eq!(code, 0, "{error}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let output: Value = serde_json::from_str(report["output"].as_str().unwrap()).unwrap();
    let manifest = objects
        .join("out")
        .join(output["ResultWriterDetails"]["Key"].as_str().unwrap());
    let manifest: Value = serde_json::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
    let results = objects
        .join("out")
        .join(manifest["ResultFiles"]["SUCCEEDED"][0]["Key"].as_str().unwrap());
    let results: Value = serde_json::from_str(&std::fs::read_to_string(results).unwrap()).unwrap();
    assert_eq!(results.as_array().unwrap().len(), 3);
}

#[test]
fn lint_names_places_and_fails() {
    let directory = files(&[("order.json", order())]);
    assert_eq!(
        vend(directory.path(), &["lint", "order.json"]),
        (0, "ok\n".into(), String::new())
    );
    let text = "{\n  \"StartAt\": \"A\",\n  \"States\": {\n    \"A\": {\"Type\": \"Succeed\", \"Next\": \"B\"}\n  }\n}";
    std::fs::write(directory.path().join("bad.json"), text).unwrap();
    let (code, out, _) = vend(directory.path(), &["lint", "bad.json"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("bad.json:4:30: error: Field 'Next' is not supported at /States/A"),
        "{out}"
    );
    let (code, out, _) = vend(directory.path(), &["lint", "bad.json", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["result"]), (1, &json!("FAIL")));
    let twice =
        "{\n \"StartAt\": \"A\",\n \"StartAt\": \"A\",\n \"States\": { \"A\": { \"Type\": \"Succeed\" } } }";
    std::fs::write(directory.path().join("twice.json"), twice).unwrap();
    let (code, out, _) = vend(directory.path(), &["lint", "twice.json"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "ok\n1 warning is not shown: --warnings\n")
    );
    let (_, out, _) = vend(directory.path(), &["lint", "twice.json", "--warnings"]);
    assert!(
        out.starts_with("twice.json:3:2: warning: The key 'StartAt' stands twice"),
        "{out}"
    );
}

/// As a template has it, and as the tools of CloudFormation fill it in.
#[test]
fn what_a_template_fills_in_is_no_error() {
    let text = "{ \"StartAt\": \"A\", \"States\": {\n \"A\": {\"Type\": \"Task\", \"Next\": \"B\", \
                \"Resource\": \"arn:${AWS::Partition}:states:::sns:publish\"},\n \
                \"B\": {\"Type\": \"Task\", \"End\": true, \"Resource\": \"${Function.Arn}\"} } }";
    let directory = files(&[]);
    let wrong = text.replace(":::sns:publish", ":::sns:send");
    for (name, text) in [("flow.asl.json", text), ("bad.asl.json", &wrong)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let (code, out, _) = vend(directory.path(), &["lint", "flow.asl.json"]);
    assert!(code == 0 && out.starts_with("ok\n"), "{out}");
    let (code, _, err) = vend(directory.path(), &["draw", "flow.asl.json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, out, _) = vend(directory.path(), &["lint", "bad.asl.json"]);
    assert!(
        code == 1 && out.starts_with("bad.asl.json:2:") && out.contains("1 error\n"),
        "{out}"
    );
}

#[test]
fn a_state_is_tested_and_a_machine_is_drawn() {
    let directory = files(&[("order.json", order())]);
    let arguments = [
        "test-state",
        "--definition",
        "order.json",
        "--state-name",
        "Pay",
        "--mock",
        "{\"errorOutput\": {\"error\": \"Busy\"}}",
        "--inspection-level",
        "DEBUG",
        "--json",
    ];
    let (code, out, _) = vend(directory.path(), &arguments);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["status"]), (0, &json!("RETRIABLE")));
    assert_eq!(
        answer["inspectionData"]["errorDetails"]["retryBackoffIntervalSeconds"],
        3600
    );
    let (code, out, _) = vend(directory.path(), &["draw", "order.json"]);
    assert!(
        code == 0 && out.contains("│ Pay") || out.contains(" Pay "),
        "{out}"
    );
    let (code, _, _) = vend(directory.path(), &["draw", "order.json", "--svg", "order.svg"]);
    let svg = std::fs::read_to_string(directory.path().join("order.svg")).unwrap();
    assert!(code == 0 && svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
}

/// Some recorded executions through the binary, judged by the recordings' own comparator.
#[test]
fn recorded_executions_through_the_binary() {
    let root = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/conformance/asl"
    ));
    let comparator = root.join("compare.py");
    let python = std::process::Command::new("python3").arg("--version").output();
    if !comparator.is_file() || python.is_err() {
        println!("skipped: {} or python3 is not there", comparator.display());
        return;
    }
    for (folder, part) in [
        ("core", "choice_operators"),
        ("core", "test_wait"),
        ("core", "test_map_state_config_distributed_item_selector"),
        ("core", "intrinsic_functions"),
        ("activity", "test_activity_task_failure"),
        ("lambda", "test_lambda_empty_retry"),
        ("other_services", "test_sqs_wait_for_task_token_call_chain"),
    ] {
        let mut paths: Vec<_> = std::fs::read_dir(root.join(folder))
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        let found = paths.iter().find(|path| path.to_string_lossy().contains(part));
        let path = found.unwrap_or_else(|| panic!("no case {folder}/{part}"));
        judged(path, &comparator);
    }
}

fn judged(path: &Path, comparator: &Path) {
    let case: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let directory = files(&[
        ("machine.json", case["definition"].clone()),
        ("mocks.json", recorded(&case)),
    ]);
    let input = case["input_as_sent"].as_str().unwrap_or("{}");
    let kind = case["type"].as_str().unwrap_or("STANDARD");
    let arguments = [
        "run",
        "machine.json",
        "--input",
        input,
        "--type",
        kind,
        "--mocks",
        "mocks.json",
        "--virtual-time",
        "--json",
    ];
    let (_, out, error) = vend(directory.path(), &arguments);
    let mut actual: Value =
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{}: {error}", path.display()));
    let types: Vec<_> = actual["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].clone())
        .collect();
    actual["event_types"] = types.into();
    let file = directory.path().join("actual.json");
    std::fs::write(&file, actual.to_string()).unwrap();
    let judgement = std::process::Command::new("python3")
        .args([comparator, path, &file])
        .output()
        .unwrap();
    assert!(
        judgement.status.success(),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&judgement.stdout)
    );
}

/// The recorded results of tasks as mocks.
fn recorded(case: &Value) -> Value {
    let (mut names, mut responses) = (json!({}), json!({}));
    for result in case["task_results"].as_array().into_iter().flatten() {
        let Some(state) = result["state"]
            .as_str()
            .filter(|_| !result["event"].as_str().unwrap().ends_with("Submitted"))
        else {
            continue;
        };
        names[state] = state.into();
        let call = responses[state]
            .as_object()
            .map_or(0, serde_json::Map::len)
            .to_string();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        responses[state][call] = match result["event"].as_str().unwrap().ends_with("Succeeded") {
            true => json!({ "Return": result["output"] }),
            false => json!({ "Throw": { "Error": text(&result["error"]), "Cause": text(&result["cause"]) } }),
        };
    }
    json!({ "StateMachines": { "machine": { "TestCases": { "only": names } } }, "MockedResponses": responses })
}

#[test]
fn failures_say_why_and_who_took_them() {
    let mut machine = order();
    machine["States"]["Pay"]["Catch"] = json!([
        { "ErrorEquals": ["Other"], "Next": "Rest" }, { "ErrorEquals": ["States.ALL"], "Next": "Rest" },
    ]);
    let directory = files(&[("order.asl.json", machine), ("mocks.json", mocks())]);
    let arguments = [
        "run",
        "order.asl.json",
        "--mocks",
        "mocks.json",
        "--test-case",
        "never",
        "--virtual-time",
    ];
    let (code, out, _) = vend(directory.path(), &arguments);
    assert_eq!(code, 0, "{out}");
    let failures: Vec<&str> = out.lines().filter(|line| line.contains("TaskFailed")).collect();
    let taken: Vec<bool> = ["Retry[0]", "Retry[0]", "Catch[1]"]
        .iter()
        .zip(&failures)
        .map(|(by, line)| line.ends_with(&format!("Pay: Busy, later → {by}")))
        .collect();
    assert_eq!(taken, [true; 3], "{failures:?}");
}

#[test]
fn drawings_of_the_wrong_are_told_apart() {
    let mut wrong = order();
    wrong["States"]["Rest"]["Next"] = "Nowhere".into();
    let other = json!({ "StartAt": "Other", "States": { "Other": { "Type": "Succeed" } } });
    let directory = files(&[
        ("order.asl.json", order()),
        ("wrong.asl.json", wrong),
        ("other.asl.json", other),
        ("mocks.json", mocks()),
    ]);
    let (code, out, err) = vend(directory.path(), &["draw", "wrong.asl.json"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("Pay") && err.contains("wrong.asl.json:"),
        "{out}{err}"
    );
    let (code, history, _) = vend(directory.path(), &["run", "other.asl.json", "--json"]);
    assert_eq!(code, 0);
    std::fs::write(directory.path().join("history.json"), history).unwrap();
    let (code, _, err) = vend(
        directory.path(),
        &["draw", "order.asl.json", "--history", "history.json"],
    );
    assert_eq!(code, 2);
    assert!(
        err.contains("another machine") && err.contains("`Other`"),
        "{err}"
    );
}

#[test]
fn what_test_state_does_not_know_is_named() {
    let directory = files(&[("order.asl.json", order())]);
    let configuration = "{\"retrierRetries\": 1}";
    let arguments = [
        "test-state",
        "--definition",
        "order.asl.json",
        "--state-name",
        "Pay",
        "--state-configuration",
        configuration,
    ];
    let (code, _, err) = vend(directory.path(), &arguments);
    assert_eq!(code, 2);
    assert!(err.contains("retrierRetries"), "{err}");
}
