//! The rules of `compare.py`, and beyond them the ids, causes and details of the events.

use crate::drive::Outcome;
use asl::{HistoryEvent, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Values that the recording replaced; nothing can be said about them.
const PLACEHOLDERS: [&str; 10] = [
    "activity_arn",
    "date",
    "entered-time",
    "executionSucceededEventDetails.output",
    "generated-uuid",
    "map_run_arn",
    "RandomNumberGenerated",
    "snf_role_arn",
    "start-time",
    "stateExitedEventDetails.output",
];

pub fn differences(case: &Value, outcome: &Outcome) -> Vec<String> {
    let expected = &case["expected"];
    let mut comparison = Comparison {
        volatile: case["volatile"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
        found: Vec::new(),
    };
    let status = outcome.status.as_str();
    if expected["status"] != status {
        return vec![format!(
            "/status: {} but was {status} {:?}",
            expected["status"], outcome.status
        )];
    }
    match &outcome.status {
        Status::Succeeded { output } => comparison.equal(&expected["output"], output, "/output"),
        Status::Failed { error, cause } | Status::Aborted { error, cause } => {
            comparison.equal(&expected["error"], &json!(error), "/error");
            comparison.equal(
                &expected["cause"],
                &parsed(&json!(cause), &expected["cause"]),
                "/cause",
            );
        }
        Status::Running | Status::TimedOut => {}
    }
    let interleaved = case["interleaved"] == true;
    if let Some(types) = expected["event_types"].as_array() {
        comparison.types(types, &outcome.history, interleaved);
    }
    if let Some(events) = expected["events"].as_array() {
        comparison.events(events, &outcome.history);
    }
    comparison.found
}

struct Comparison<'a> {
    volatile: Vec<&'a str>,
    found: Vec<String>,
}

impl Comparison<'_> {
    fn equal(&mut self, want: &Value, is: &Value, place: &str) {
        if self.volatile.contains(&place) || placeholder(want) {
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
                        (Some(want), Some(is)) => self.equal(want, is, &place),
                        _ if self.volatile.contains(&place.as_str()) => {}
                        (want, is) => self.found.push(format!("{place}: {want:?} but was {is:?}")),
                    }
                }
            }
            (Value::Array(want), Value::Array(is)) if want.len() == is.len() => {
                for (at, (want, is)) in want.iter().zip(is).enumerate() {
                    self.equal(want, is, &format!("{place}/{at}"));
                }
            }
            (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => {}
            _ if want == is => {}
            _ => self.found.push(format!("{place}: {want} but was {is}")),
        }
    }

    fn types(&mut self, want: &[Value], history: &[HistoryEvent], interleaved: bool) {
        let want: Vec<_> = want.iter().filter_map(Value::as_str).collect();
        let mut is: Vec<_> = history.iter().map(|event| event.kind.as_str()).collect();
        if !interleaved {
            if want != is {
                self.found.push(format!("/event_types: {want:?} but was {is:?}"));
            }
            return;
        }
        // The recordings sorted the events of a Parallel state and lost its last one, whose id is missing in them.
        if want.len() < is.len() {
            for last in ["ParallelStateSucceeded", "ParallelStateFailed"] {
                if !want.contains(&last) {
                    is.retain(|kind| *kind != last);
                }
            }
        }
        if count(&want) != count(&is) {
            self.found
                .push(format!("/event_types (any order): {want:?} but was {is:?}"));
        }
    }

    /// Events that kept their ids are compared with theirs.
    fn events(&mut self, want: &[Value], history: &[HistoryEvent]) {
        for want in want {
            let Some(id) = want["id"].as_u64() else { continue };
            let Some(is) = history.iter().find(|event| event.id == id) else {
                self.found.push(format!("/events/{id}: missing"));
                continue;
            };
            let place = format!("/events/{id}");
            // A distributed Map is left after its run succeeded or, in one recording of five, after that started.
            let run = |id: u64| {
                history
                    .iter()
                    .any(|event| event.id == id && event.kind.as_str().starts_with("MapRun"))
            };
            let either =
                want["type"] == "MapStateExited" && want["previousEventId"].as_u64().is_some_and(run);
            if want["type"] != is.kind.as_str() || (want["previousEventId"] != is.previous && !either) {
                let is = format!("{} after {}", is.kind, is.previous);
                self.found.push(format!(
                    "{place}: {} after {} but was {is}",
                    want["type"], want["previousEventId"]
                ));
            }
            let name = is.kind.details();
            let want = want
                .as_object()
                .and_then(|want| want.iter().find(|(key, _)| key.ends_with("EventDetails")));
            let Some((key, want)) = want else { continue };
            if *key != name {
                self.found
                    .push(format!("{place}: details are {key} but were {name}"));
            }
            self.details(want, &is.details, &place);
        }
    }

    fn details(&mut self, want: &Value, is: &Value, place: &str) {
        let empty = json!({});
        let is = if is.is_null() { &empty } else { is };
        let (Some(want), Some(is)) = (want.as_object(), is.as_object()) else {
            return;
        };
        for key in want
            .keys()
            .chain(is.keys().filter(|key| !want.contains_key(*key)))
        {
            match (want.get(key), is.get(key)) {
                (Some(want), Some(is)) if !recorded_loosely(want) => {
                    let place = format!("{place}/{key}");
                    if key == "assignedVariables" {
                        let read = |value: &Value| -> BTreeMap<String, Value> {
                            value
                                .as_object()
                                .into_iter()
                                .flatten()
                                .map(|(key, value)| (key.clone(), parse(value)))
                                .collect()
                        };
                        if read(want) != read(is) && !recorded_loosely(want) {
                            self.found.push(format!("{place}: {want} but was {is}"));
                        }
                    } else {
                        self.equal(&parse(want), &parse(is), &place);
                    }
                }
                (Some(_), Some(_)) => {}
                (want, is) => self.found.push(format!("{place}/{key}: {want:?} but was {is:?}")),
            }
        }
    }
}

/// JSON text as what it says; the recordings did the same to most of it.
fn parse(value: &Value) -> Value {
    value
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| value.clone())
}

fn parsed(is: &Value, want: &Value) -> Value {
    if want.is_object() || want.is_array() {
        parse(is)
    } else {
        is.clone()
    }
}

fn placeholder(value: &Value) -> bool {
    value.as_str().is_some_and(|text| PLACEHOLDERS.contains(&text))
}

/// Whether some part was replaced by a placeholder; then the whole is not compared.
fn recorded_loosely(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            text.contains('<') || text.contains("arn:aws:") || placeholder(value) || text.contains("\"date\"")
        }
        Value::Array(items) => items.iter().any(recorded_loosely),
        Value::Object(members) => members.values().any(recorded_loosely),
        _ => false,
    }
}

fn count<'a>(kinds: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for kind in kinds {
        *counts.entry(*kind).or_default() += 1;
    }
    counts
}
