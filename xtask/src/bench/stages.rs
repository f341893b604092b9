//! Where the time of an execution goes, from its history.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::table::median;

/// Milliseconds by stage, of several executions.
#[derive(Default)]
pub struct Stages(BTreeMap<String, Vec<f64>>);

impl Stages {
    pub fn add(&mut self, execution: &Value) {
        let mut entered = BTreeMap::new();
        for event in execution["history"].as_array().into_iter().flatten() {
            let (Some(at), Some(state), Some(kind)) = (
                time(&event["at"]),
                event["state"].as_str(),
                event["kind"].as_str(),
            ) else {
                continue;
            };
            if kind.ends_with("StateEntered") {
                entered.insert(state.to_owned(), at);
            } else if kind.ends_with("StateExited")
                && let Some(since) = entered.remove(state)
            {
                self.0.entry(state.to_owned()).or_default().push(ms(since, at));
            }
        }
        if let (Some(from), Some(to)) = (time(&execution["started_at"]), time(&execution["ended_at"])) {
            self.0.entry("whole".to_owned()).or_default().push(ms(from, to));
        }
    }

    pub fn of(&self, stage: &str) -> &[f64] {
        self.0.get(stage).map_or(&[], Vec::as_slice)
    }

    /// One line of medians.
    pub fn line(&self) -> String {
        let mut stages: Vec<(&str, f64)> = self
            .0
            .iter()
            .filter_map(|(name, values)| Some((name.as_str(), median(values)?)))
            .collect();
        stages.sort_by(|one, other| other.1.total_cmp(&one.1));
        let text: Vec<String> = stages
            .iter()
            .map(|(name, ms)| format!("{name} {ms:.0}"))
            .collect();
        text.join(", ")
    }
}

/// When a state of an execution was first entered.
pub fn entered(execution: &Value, state: &str) -> Option<Timestamp> {
    let history = execution["history"].as_array()?;
    let event = history.iter().find(|event| {
        event["state"] == state
            && event["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("StateEntered"))
    })?;
    time(&event["at"])
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

pub fn ms(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stages_are_read_from_the_history() {
        let event = |at: &str, kind: &str| json!({ "at": at, "kind": kind, "state": "Plan" });
        let execution = json!({
            "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:02Z",
            "history": [
                event("2026-01-01T00:00:00.100Z", "TaskStateEntered"),
                event("2026-01-01T00:00:00.150Z", "TaskStarted"),
                event("2026-01-01T00:00:00.350Z", "TaskStateExited"),
            ],
        });
        let mut stages = Stages::default();
        stages.add(&execution);
        assert_eq!(stages.line(), "whole 2000, Plan 250");
        assert_eq!(stages.of("Plan").len(), 1);
        assert!(entered(&execution, "Deploy").is_none());
    }
}
