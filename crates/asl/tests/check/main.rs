//! What is said of definitions before they run: AWS's recorded answers, statelint's verdicts, and which variables are
//! read. `cargo test -p asl --test check -- --nocapture` prints the counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use asl::{Flavour, Severity, Validation, Verdict};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Cases that do not pass, and why; CONFORMANCE.md has the same list.
const KNOWN: [(&str, &str); 1] = [(
    "task-with-credentials",
    "statelint takes any object as Credentials; AWS wants RoleArn in it, as two recorded refusals show",
)];

fn cases(folder: &str) -> Option<Vec<Value>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance/asl");
    let folder = PathBuf::from(root).join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: {} is not there", folder.display());
        return None;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    Some(paths.iter().map(read).collect())
}

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
    let Some(cases) = cases(folder) else { return };
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
