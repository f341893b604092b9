//! How states stand, as the history of an execution tells it.

use std::collections::BTreeMap;

use serde_json::Value;

/// How a state stands, which is its colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tint {
    /// Not entered.
    #[default]
    None,
    Succeeded,
    /// It failed, and a catcher took it.
    Caught,
    Running,
    Aborted,
    Failed,
}

impl Tint {
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "not entered",
            Self::Succeeded => "succeeded",
            Self::Caught => "caught",
            Self::Running => "running",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}

/// By the name of the state. A state that ran several times shows the worst.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses(BTreeMap<String, Tint>);

/// What is needed of an event.
struct Event<'a> {
    kind: &'a str,
    previous: u64,
    /// The state that it belongs to, by the event that entered it.
    entered: u64,
}

impl Statuses {
    pub fn of(&self, state: &str) -> Tint {
        self.0.get(state).copied().unwrap_or_default()
    }

    /// The states that were entered.
    pub fn known(&self) -> Vec<(&str, Tint)> {
        self.0.iter().map(|(name, tint)| (name.as_str(), *tint)).collect()
    }

    /// Reads events in the shape of GetExecutionHistory. What makes no sense is passed over.
    pub fn read(events: &[Value]) -> Self {
        let mut known: BTreeMap<u64, Event> = BTreeMap::new();
        let mut open: BTreeMap<u64, &str> = BTreeMap::new();
        let mut statuses = Self::default();
        let mut end = None;
        for event in events {
            let (Some(id), Some(kind)) = (event["id"].as_u64(), event["type"].as_str()) else {
                continue;
            };
            let previous = event["previousEventId"].as_u64().unwrap_or_default();
            let mut entered = known.get(&previous).map_or(0, |event| event.entered);
            if kind.ends_with("StateEntered") {
                let name = event["stateEnteredEventDetails"]["name"]
                    .as_str()
                    .unwrap_or_default();
                entered = id;
                open.insert(id, name);
            } else if kind.ends_with("StateExited") {
                let name = event["stateExitedEventDetails"]["name"]
                    .as_str()
                    .unwrap_or_default();
                let failed = known.get(&previous).is_some_and(|event| failure(event.kind));
                statuses.worst(name, if failed { Tint::Caught } else { Tint::Succeeded });
                let own = open.range(..=id).rev().find(|(_, open)| **open == name);
                if let Some(own) = own.map(|(id, _)| *id) {
                    open.remove(&own);
                }
            } else if kind.ends_with("StateAborted") {
                // In a Parallel the branch that failed is closed like those that it takes along.
                let failed = known
                    .get(&previous)
                    .is_some_and(|event| failure(event.kind) && !event.kind.ends_with("Aborted"));
                if let Some(name) = open.remove(&entered) {
                    statuses.worst(name, if failed { Tint::Failed } else { Tint::Aborted });
                }
            } else if kind.starts_with("Execution") && kind != "ExecutionStarted" {
                end = Some((kind, entered));
            }
            let event = Event {
                kind,
                previous,
                entered,
            };
            known.insert(id, event);
        }
        statuses.close(&open, &known, end);
        statuses
    }

    /// What was entered and never left.
    fn close(&mut self, open: &BTreeMap<u64, &str>, known: &BTreeMap<u64, Event>, end: Option<(&str, u64)>) {
        // The states around a failed one failed with it.
        let mut failed = Vec::new();
        let mut at = end.map_or(0, |(_, entered)| entered);
        while at != 0 && !failed.contains(&at) {
            failed.push(at);
            at = known
                .get(&at)
                .and_then(|event| known.get(&event.previous))
                .map_or(0, |event| event.entered);
        }
        for (entered, name) in open {
            self.worst(
                name,
                match end {
                    None => Tint::Running,
                    Some(("ExecutionFailed" | "ExecutionTimedOut", _)) if failed.contains(entered) => {
                        Tint::Failed
                    }
                    Some(_) => Tint::Aborted,
                },
            );
        }
    }

    fn worst(&mut self, name: &str, tint: Tint) {
        let known = self.0.entry(name.to_owned()).or_default();
        *known = (*known).max(tint);
    }
}

fn failure(kind: &str) -> bool {
    ["Failed", "TimedOut", "Aborted"]
        .iter()
        .any(|end| kind.ends_with(end))
}
