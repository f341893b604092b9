//! The reference's own cases, where they are there: `shared/conformance/jsonata` next to the checkout.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, path::Path};

use jiff::Timestamp;
use jsonata::{Error, Expression, Scope};
use serde_json::Value;

const TABLE: &str = include_str!("../CONFORMANCE.md");

fn evaluate(case: &Value, datasets: &Value) -> Result<Option<Value>, Error> {
    let expression = Expression::parse(case["expr"].as_str().unwrap())?;
    let mut scope = Scope::new(Timestamp::UNIX_EPOCH);
    scope.eval = true;
    scope.input = match case["dataset"].as_str() {
        Some(name) => Some(&datasets[name]),
        None => case.get("data"),
    };
    for (name, value) in case["bindings"].as_object().into_iter().flatten() {
        scope = scope.bind(name, value);
    }
    if let Some(depth) = case["depth"].as_u64() {
        scope.limits.depth = depth as usize;
    }
    expression.evaluate(&scope)
}

/// Why the outcome is not the expected one.
fn difference(case: &Value, outcome: &Result<Option<Value>, Error>) -> Option<String> {
    let error = if case["error"].is_object() {
        &case["error"]
    } else {
        case
    };
    let fits = match (outcome, error["code"].as_str()) {
        (Err(outcome), Some(code)) => {
            let same =
                |key: &str, own: Option<&str>| error.get(key).is_none_or(|wanted| wanted.as_str() == own);
            outcome.code == code
                && same("message", Some(&outcome.message))
                && same("token", outcome.token.as_deref())
        }
        (Ok(None), None) => case["undefinedResult"] == true,
        (Ok(Some(value)), None) if case["unordered"] == true => sorted(value) == sorted(&case["result"]),
        (Ok(Some(value)), None) => case.get("result").is_some_and(|result| same_value(value, result)),
        _ => false,
    };
    (!fits).then(|| format!("{outcome:?}"))
}

fn sorted(value: &Value) -> Vec<String> {
    let mut items: Vec<String> = value
        .as_array()
        .into_iter()
        .flatten()
        .map(Value::to_string)
        .collect();
    items.sort();
    items
}

/// Equality in which 1 and 1.0 are one number, as in JavaScript.
fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same_value(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same = |(key, value): (&String, &Value)| {
                right.get(key).is_some_and(|other| same_value(value, other))
            };
            left.len() == right.len() && left.iter().all(same)
        }
        _ => left == right,
    }
}

#[test]
fn the_cases_of_the_reference_hold() {
    let directory = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/conformance/jsonata"
    ));
    let Ok(cases) = std::fs::read_to_string(directory.join("cases.jsonl")) else {
        return eprintln!("skipped: {} is not there", directory.display());
    };
    let datasets = std::fs::read_to_string(directory.join("datasets.json")).unwrap();
    let datasets: Value = serde_json::from_str(&datasets).unwrap();
    let listed: BTreeSet<&str> = TABLE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(id, _)| id)
        .collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        count += 1;
        match difference(&case, &evaluate(&case, &datasets)) {
            Some(found) if !listed.contains(id) => wrong.push(format!("{id}: {} gave {found}", case["expr"])),
            None if listed.contains(id) => wrong.push(format!("{id} is listed, but it passes")),
            _ => {}
        }
    }
    eprintln!(
        "{} of {count} cases pass, {} are listed",
        count - wrong.len() - listed.len(),
        listed.len()
    );
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
