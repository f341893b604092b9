//! What is said of definitions before they run: AWS's recorded answers, statelint's verdicts, and which variables are
//! read. `cargo test -p asl --test check -- --nocapture` prints the counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../recorded/mod.rs"]
mod recorded;

use asl::{Flavour, Severity, Validation, Verdict};
use serde_json::{Value, json};

/// Cases that do not pass, and why; CONFORMANCE.md has the same list.
const KNOWN: [(&str, &str); 1] = [(
    "task-with-credentials",
    "statelint takes any object as Credentials; AWS wants RoleArn in it, as two recorded refusals show",
)];

fn validate(text: &str, flavour: Flavour) -> Validation {
    asl::validate(text, flavour, Severity::Error, 100)
}

fn flavour(case: &Value) -> Flavour {
    match case["type"] == "EXPRESS" {
        true => Flavour::Express,
        false => Flavour::Standard,
    }
}

fn agree(folder: &str, differs: impl Fn(&Value) -> Option<String>) {
    let Some(cases) = recorded::cases(folder) else {
        return;
    };
    let (mut wrong, mut stale) = (Vec::new(), Vec::new());
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let known = KNOWN.iter().any(|known| known.0 == id);
        match (differs(case), known) {
            (Some(why), false) => wrong.push(format!("{id}\n    {why}")),
            (None, true) => stale.push(id),
            _ => {}
        }
    }
    println!("{folder}: {} cases, {} differ", cases.len(), wrong.len());
    assert!(stale.is_empty(), "listed as known but passing: {stale:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn aws_validates() {
    agree("validation", |case| {
        let is = validate(case["definition_string"].as_str().unwrap(), flavour(case));
        let expected = &case["expected"]["response"];
        let want = expected["Error"]["Message"].as_str();
        match want.filter(|message| message.starts_with("Invalid State Machine Definition")) {
            Some(want) => {
                let is = asl::refusal(&is.diagnostics);
                (is != want).then(|| format!("{want}\n    {is}"))
            }
            // Refused for its name, not for what it says.
            None if want.is_some() => (is.result == Verdict::Fail).then(|| format!("{is:?}")),
            None => (is.answer() != *expected).then(|| format!("{expected}\n    {}", is.answer())),
        }
    });
}

#[test]
fn statelint_agrees() {
    agree("lint_statelint", |case| {
        let is = validate(case["definition_string"].as_str().unwrap(), Flavour::Standard);
        let expected = &case["expected"];
        let said = serde_json::to_value(&is.diagnostics).unwrap();
        let texts: Vec<_> = is
            .diagnostics
            .iter()
            .map(|problem| {
                format!(
                    "{} {}",
                    problem.message,
                    problem.detail.clone().unwrap_or_default()
                )
            })
            .collect();
        let mut fragments = expected["message_contains"].as_array().unwrap().iter();
        let fragments = fragments.all(|part| texts.iter().any(|text| text.contains(part.as_str().unwrap())));
        let counted = expected["problem_count"] == is.diagnostics.len();
        (!counted || !fragments).then(|| format!("{expected}\n    {said}"))
    });
}

#[test]
fn variables_that_are_read() {
    agree("variable_references", |case| {
        let is = json!(asl::references(&case["definition"]));
        let want = match &case["expected"]["variableReferences"] {
            Value::Null => json!({}),
            want => want.clone(),
        };
        (is != want).then(|| format!("{want}\n    {is}"))
    });
}

#[test]
fn what_is_known_is_told() {
    let told = include_str!("../../CONFORMANCE.md");
    for (id, why) in KNOWN {
        assert!(
            told.contains(&format!("| `{id}` | {why} |")),
            "{id} is not in CONFORMANCE.md"
        );
    }
}

/// Every definition that AWS ran has no problem.
#[test]
fn what_ran_is_sound() {
    for folder in ["core", "activity", "lambda", "other_services", "s3"] {
        agree(folder, |case| {
            let is = validate(&case["definition"].to_string(), flavour(case));
            (case["expected"]["status"] != "REJECTED" && is.result == Verdict::Fail).then(|| {
                is.diagnostics
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n    ")
            })
        });
    }
}

/// A machine with a state of every type, in both languages.
fn sample() -> Value {
    let inner = |name: &str| json!({ "StartAt": name, "States": { name: { "Type": "Succeed" } } });
    let mut processor = inner("Item");
    processor["ProcessorConfig"] = json!({ "Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS" });
    json!({
        "Comment": "all", "StartAt": "Pass", "TimeoutSeconds": 60, "Version": "1.0",
        "States": {
            "Pass": { "Type": "Pass", "Result": { "a": 1 }, "ResultPath": "$.b", "Assign": { "v.$": "$.a" }, "Next": "Choice" },
            "Choice": { "Type": "Choice", "Choices": [
                { "And": [{ "Variable": "$v", "IsPresent": true }, { "Not": { "Variable": "$.a", "StringMatches": "*" } }], "Next": "Task" },
            ], "Default": "Wait" },
            "Wait": { "Type": "Wait", "SecondsPath": "$.s", "Next": "Parallel" },
            "Task": {
                "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "QueryLanguage": "JSONata",
                "Arguments": { "x": "{% $states.input.x + $v %}" }, "TimeoutSeconds": 9, "Next": "Map",
                "Retry": [{ "ErrorEquals": ["E"], "BackoffRate": 1.5, "MaxDelaySeconds": 9, "JitterStrategy": "FULL" }],
                "Catch": [{ "ErrorEquals": ["States.ALL"], "Output": "{% $states.errorOutput %}", "Next": "Fail" }],
            },
            "Map": {
                "Type": "Map", "ItemProcessor": processor, "ToleratedFailurePercentage": 5, "Next": "Parallel",
                "ItemReader": { "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": { "InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW" },
                    "Parameters": { "Bucket": "b", "Key.$": "$.k" } },
                "ItemBatcher": { "MaxItemsPerBatch": 2 }, "ResultWriter": { "Resource": "arn:aws:states:::s3:putObject" },
            },
            "Parallel": { "Type": "Parallel", "Branches": [inner("Left"), inner("Right")], "Next": "Done" },
            "Done": { "Type": "Succeed" },
            "Fail": { "Type": "Fail", "ErrorPath": "States.Format('{}', $.e)", "Cause": "c" },
        },
    })
}

/// Every place of a value.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(key, value)| places(value, &format!("{here}/{key}"), found)),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, value)| places(value, &format!("{here}/{at}"), found));
        }
        _ => {}
    }
}

/// Whatever stands where it should not, there is an answer, the same for all who ask, and its places exist.
#[test]
fn everything_wrong_anywhere_is_judged() {
    let sample = sample();
    assert_eq!(validate(&sample.to_string(), Flavour::Standard).diagnostics, []);
    let mut all = Vec::new();
    places(&sample, "", &mut all);
    let wrong = [
        json!(null),
        json!(-1),
        json!(1.5),
        json!("{% ( %}"),
        json!("$"),
        json!([]),
        json!({ "": "$x" }),
        json!([[]]),
    ];
    for place in &all {
        for value in &wrong {
            let mut changed = sample.clone();
            *changed.pointer_mut(place).unwrap() = value.clone();
            judge(&changed, place);
        }
        let (parent, key) = place.rsplit_once('/').unwrap_or_default();
        let mut changed = sample.clone();
        if let Some(Value::Object(members)) = changed.pointer_mut(parent) {
            members.remove(key);
            members.insert("Surplus".into(), json!({ "Next": 1 }));
            judge(&changed, place);
        }
    }
}

fn judge(definition: &Value, place: &str) {
    let text = definition.to_string();
    asl::references(definition);
    for flavour in [Flavour::Standard, Flavour::Express] {
        let judged = asl::validate(&text, flavour, Severity::Warning, 100);
        let parsed = asl::Machine::parse_as(flavour, &text);
        assert_eq!(
            judged.result == Verdict::Ok,
            parsed.is_ok(),
            "{place}: {definition}"
        );
        for problem in &judged.diagnostics {
            let exists = problem.pointer == "/" || definition.pointer(&problem.pointer).is_some();
            assert!(exists, "{place}: {problem:?}");
        }
    }
}
