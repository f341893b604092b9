//! The recorded executions of AWS Step Functions, run in virtual time. `cargo test -p asl --test conformance -- --nocapture`
//! prints the table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod compare;
mod drive;
#[path = "../recorded/mod.rs"]
mod recorded;
mod world;

use serde_json::Value;
use std::collections::BTreeMap;

const FOLDERS: [&str; 5] = ["core", "activity", "lambda", "other_services", "s3"];

/// The table of cases that cannot pass; one that does must not be in it.
const TABLE: &str = include_str!("../../CONFORMANCE.md");

/// The cases of the table, and why.
fn known() -> BTreeMap<&'static str, &'static str> {
    let executions = TABLE.split("## Checks and commands").next().unwrap();
    let rows = executions.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.trim_end_matches(" |").split_once("` | ").unwrap());
    cells.collect()
}

#[derive(Default)]
struct Row {
    passed: usize,
    failed: usize,
    known: usize,
}

#[test]
fn recorded_executions() {
    let (mut failures, mut stale, mut known) = (Vec::new(), Vec::new(), known());
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut tests = BTreeMap::new();
    for folder in FOLDERS {
        let row = rows.entry(folder).or_default();
        let Some(cases) = recorded::cases(folder) else {
            return;
        };
        for case in cases {
            let id = case["id"].as_str().unwrap().to_owned();
            let differences = check(&case);
            let known = known.remove(id.as_str()).is_some();
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
    println!("{:<16} {:>6} {:>6} {:>6}", "folder", "passed", "failed", "known");
    for (folder, row) in rows {
        println!(
            "{folder:<16} {:>6} {:>6} {:>6}",
            row.passed, row.failed, row.known
        );
    }
    let passed = tests.values().filter(|passed| **passed).count();
    println!("distinct tests: {passed} of {} pass", tests.len());
    for (id, why) in known() {
        println!("known: {id}: {why}");
    }
}
