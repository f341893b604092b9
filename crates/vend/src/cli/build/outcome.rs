//! What came of a local build, for programs: one JSON document, whatever came of it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use host::build::Left;
use model::port::{Built, Fault, PhaseStatus};
use serde_json::{Value, json};

/// What the builds of one call that failed have left, by their names in the batch; a build of the whole has none.
#[derive(Debug, Default)]
pub struct Remains(Mutex<BTreeMap<String, Left>>);

impl Remains {
    pub fn put(&self, name: &str, left: Left) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), left);
    }

    pub fn take(self) -> BTreeMap<String, Left> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of builds that succeeded, by their names.
pub fn built(all: &BTreeMap<&str, &Built>) -> Value {
    match all.get("") {
        Some(one) => json!({ "ok": true, "status": "SUCCEEDED", "built": one }),
        None => json!({ "ok": true, "status": "SUCCEEDED", "batch": all }),
    }
}

/// Of a failure, with what the builds that failed have left.
pub fn failed(fault: &Fault, left: &BTreeMap<String, Left>) -> Value {
    let mut value = match left.get("") {
        Some(one) => broken(one),
        None => json!({ "status": "FAILED" }),
    };
    value["ok"] = false.into();
    value["fault"] = json!(fault);
    let builds: BTreeMap<&String, Value> = left
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, left)| (name, broken(left)))
        .collect();
    if !builds.is_empty() {
        value["failed_builds"] = json!(builds);
    }
    value
}

/// Where one build failed: its phase, and the command that it came no further than with its last lines.
fn broken(left: &Left) -> Value {
    let phase = left.phases.iter().find(|phase| phase.broke());
    let command = left.broken.as_ref();
    let lines = command.map_or(Vec::new(), |broken| broken.last.lines().collect());
    json!({
        "status": phase.and_then(|phase| phase.status).unwrap_or(PhaseStatus::Failed),
        "phase": phase.map(|phase| &phase.name),
        "command": command.map(|broken| &broken.command),
        "exit_code": command.and_then(|broken| broken.exit_code),
        "last_lines": lines,
        "phases": left.phases,
        "reports": left.reports,
    })
}

#[cfg(test)]
mod tests {
    use host::build::Broken;
    use model::port::PhaseReport;

    use super::*;

    fn left(status: PhaseStatus, exit_code: Option<i32>) -> Left {
        let phase = |name: &str, status| PhaseReport {
            name: name.to_owned(),
            status: Some(status),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration_ms: Some(1),
            message: None,
        };
        Left {
            phases: vec![phase("INSTALL", PhaseStatus::Succeeded), phase("BUILD", status)],
            broken: Some(Broken {
                phase: "BUILD".to_owned(),
                command: "make".to_owned(),
                exit_code,
                last: "one\ntwo\n".to_owned(),
            }),
            reports: Vec::new(),
            artifact: None,
            secondary: BTreeMap::new(),
        }
    }

    #[test]
    fn a_failure_names_its_phase_and_command() {
        let fault = Fault::customer("broke");
        let one = BTreeMap::from([(String::new(), left(PhaseStatus::Failed, Some(7)))]);
        let value = failed(&fault, &one);
        assert_eq!(
            (
                &value["ok"],
                &value["status"],
                &value["phase"],
                &value["command"],
                &value["exit_code"]
            ),
            (
                &json!(false),
                &json!("FAILED"),
                &json!("BUILD"),
                &json!("make"),
                &json!(7)
            )
        );
        assert_eq!(value["last_lines"], json!(["one", "two"]));
        assert_eq!(value["fault"]["message"], "broke");
        assert_eq!(value.get("failed_builds"), None);
        let batch = BTreeMap::from([("a".to_owned(), left(PhaseStatus::TimedOut, None))]);
        let value = failed(&fault, &batch);
        assert_eq!(value["status"], "FAILED");
        let a = &value["failed_builds"]["a"];
        assert_eq!(
            (&a["status"], &a["exit_code"]),
            (&json!("TIMED_OUT"), &Value::Null)
        );
        assert_eq!(failed(&fault, &BTreeMap::new())["status"], "FAILED");
    }
}
