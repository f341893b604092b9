//! The recorded executions of AWS Step Functions, run in virtual time. `cargo test -p asl --test conformance -- --nocapture`
//! prints the table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod compare;
mod drive;
mod world;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDERS: [&str; 5] = ["core", "activity", "lambda", "other_services", "s3"];

/// Cases of what this crate does, that do not pass, and why. A case that passes must not be here.
const KNOWN: [(&str, &str); 1] = [(
    "task-with-credentials",
    "statelint takes any object as Credentials; AWS wants RoleArn in it, as two recorded refusals show",
)];

fn root() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/conformance/asl"
    ))
}

fn cases(folder: &Path) -> Vec<Value> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    let json = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect()
}

/// Why a case is not for this crate today.
fn out_of_scope(case: &Value) -> Option<&'static str> {
    (case["expected"]["status"] == "REJECTED").then_some("refused by the API, not by the language")
}

#[derive(Default)]
struct Row {
    passed: usize,
    failed: usize,
    known: usize,
    out: BTreeMap<&'static str, usize>,
}

#[test]
fn recorded_executions() {
    if !root().is_dir() {
        println!("skipped: {} is not there", root().display());
        return;
    }
    let (mut failures, mut stale) = (Vec::new(), Vec::new());
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut tests = BTreeMap::new();
    for folder in FOLDERS {
        let row = rows.entry(folder).or_default();
        for case in cases(&root().join(folder)) {
            let id = case["id"].as_str().unwrap().to_owned();
            if let Some(reason) = out_of_scope(&case) {
                *row.out.entry(reason).or_default() += 1;
                continue;
            }
            let differences = check(&case);
            let known = KNOWN.iter().any(|known| known.0 == id);
            let passed = tests
                .entry(case["source"]["test"].as_str().unwrap().to_owned())
                .or_insert(true);
            *passed &= differences.is_empty();
            match (differences.is_empty(), known) {
                (true, false) => row.passed += 1,
                (true, true) => stale.push(id),
                (false, true) => row.known += 1,
                (false, false) => {
                    row.failed += 1;
                    failures.push(format!("{id}\n    {}", differences.join("\n    ")));
                }
            }
        }
    }
    print(&rows, &tests);
    assert!(stale.is_empty(), "listed as known but passing: {stale:#?}");
    assert!(
        failures.is_empty(),
        "{} cases fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn check(case: &Value) -> Vec<String> {
    match drive::run(case) {
        Ok(outcome) => compare::differences(case, &outcome),
        Err(problem) => vec![problem],
    }
}

fn print(rows: &BTreeMap<&str, Row>, tests: &BTreeMap<String, bool>) {
    println!(
        "{:<16} {:>6} {:>6} {:>6} {:>6}  why out of scope",
        "folder", "passed", "failed", "known", "out"
    );
    for (folder, row) in rows {
        let out: usize = row.out.values().sum();
        println!(
            "{folder:<16} {:>6} {:>6} {:>6} {out:>6}  {:?}",
            row.passed, row.failed, row.known, row.out
        );
    }
    let passed = tests.values().filter(|passed| **passed).count();
    println!("distinct tests in scope: {passed} of {} pass", tests.len());
    for (id, why) in KNOWN {
        println!("known: {id}: {why}");
    }
}

/// What statelint, the checker of the language's authors, says of definitions; and what AWS answers to
/// `ValidateStateMachineDefinition`.
#[test]
fn checked_definitions() {
    if !root().is_dir() {
        println!("skipped: {} is not there", root().display());
        return;
    }
    let mut failures = Vec::new();
    let (mut passed, mut out) = (0, 0);
    for case in cases(&root().join("lint_statelint"))
        .iter()
        .chain(&cases(&root().join("validation")))
    {
        let text = case["definition_string"]
            .as_str()
            .map_or_else(|| case["definition"].to_string(), str::to_owned);
        let problems = asl::Machine::parse(&text).err().unwrap_or_default();
        let unavailable = problems
            .iter()
            .any(|problem| problem.code == asl::Code::NotAvailableYet);
        if case["type"] == "EXPRESS" || case["op"].is_string() || unavailable {
            out += 1;
            continue;
        }
        let known = KNOWN.iter().any(|known| case["id"] == known.0);
        if agrees(&case["expected"], &problems) == known {
            let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
            failures.push(format!(
                "{}: {}\n    {found:#?}\n    {text}",
                case["id"], case["expected"]
            ));
        } else {
            passed += 1;
        }
    }
    println!(
        "checked definitions: {passed} passed or known, {} failed, {out} out of scope",
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn agrees(expected: &Value, problems: &[asl::Diagnostic]) -> bool {
    let Some(want) = expected["response"]["diagnostics"].as_array() else {
        return expected["problem_count"] == problems.len();
    };
    let same = |want: &Value, is: &asl::Diagnostic| {
        want["code"] == is.code.as_str() && want["location"] == is.pointer && want["message"] == is.message
    };
    want.len() == problems.len() && want.iter().zip(problems).all(|(want, is)| same(want, is))
}
