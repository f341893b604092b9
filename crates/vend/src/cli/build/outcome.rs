//! What came of the builds of one call: for people a list of a batch, for programs one JSON document, whatever came of it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use camino::Utf8PathBuf;
use host::{build::Left, logs};
use jiff::SignedDuration;
use model::{
    port::{Built, Fault, LogRef, PhaseReport, PhaseStatus},
    spec::{Buildspec, build::Batch},
};
use serde_json::{Value, json};

use crate::{
    cli::Failure,
    output::{Output, Table, Tone, cell, duration, maybe, size},
};

/// How one build ended.
#[derive(Debug, Default)]
pub struct One {
    pub log: Option<LogRef>,
    pub built: Option<Built>,
    /// Of one that failed.
    pub fault: Option<Fault>,
    pub left: Option<Left>,
    /// Where its artifacts were put.
    pub artifacts: Option<Utf8PathBuf>,
    /// It failed, and its batch does not mind.
    pub ignored: bool,
    /// It never began.
    pub skipped: bool,
}

impl One {
    fn phases(&self) -> &[PhaseReport] {
        let built = self.built.as_ref().map(|built| &built.phases);
        let left = self.left.as_ref().map(|left| &left.phases);
        built.or(left).map_or(&[], Vec::as_slice)
    }

    /// As CodeBuild says it, but for what it has no word for: a build that was left out.
    fn status(&self) -> &'static str {
        let broke = self.phases().iter().find(|phase| phase.broke());
        match (&self.built, &self.fault, broke.and_then(|phase| phase.status)) {
            (Some(_), ..) => "SUCCEEDED",
            (None, Some(_), Some(PhaseStatus::TimedOut)) => "TIMED_OUT",
            (None, Some(_), Some(PhaseStatus::Stopped)) => "STOPPED",
            (None, Some(_), _) => "FAILED",
            (None, None, _) if self.skipped => "SKIPPED",
            // Its batch was given up while it ran.
            (None, None, _) => "STOPPED",
        }
    }

    fn duration_ms(&self) -> Option<u64> {
        let times = self.phases().iter().filter_map(|phase| phase.duration_ms);
        (!self.phases().is_empty()).then(|| times.sum())
    }

    /// Where its artifacts are: a directory, or one of the objects that are kept beside images.
    fn left(&self) -> Option<String> {
        let object = |built: &Built| format!("{} of {}", built.artifact.short(), size(built.size_bytes));
        let unpacked = self.artifacts.as_ref().map(ToString::to_string);
        unpacked.or_else(|| self.built.as_ref().map(object))
    }
}

/// The builds of one call, by their names in the batch; a build of the whole has none.
#[derive(Debug, Default)]
pub struct Ends(Mutex<BTreeMap<String, One>>);

impl Ends {
    /// Notes something of a build.
    pub fn note(&self, name: &str, note: impl FnOnce(&mut One)) {
        note(self.all().entry(name.to_owned()).or_default());
    }

    pub fn take(self) -> BTreeMap<String, One> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, One>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The builds of a batch in its order, for people.
pub fn list(batch: &Batch, ends: &BTreeMap<String, One>, output: &Output) -> String {
    let mut table = Table::new(["BUILD", "STATUS", "TIME", "ARTIFACTS"]);
    let none = One::default();
    for task in &batch.tasks {
        let one = ends.get(&task.identifier).unwrap_or(&none);
        let (word, tone) = match one.status() {
            "SUCCEEDED" => ("succeeded", Tone::Good),
            "SKIPPED" => ("skipped", Tone::Wait),
            "STOPPED" => ("stopped", Tone::Bad),
            _ if one.ignored => ("failed (ignored)", Tone::Wait),
            "TIMED_OUT" => ("timed out", Tone::Bad),
            _ => ("failed", Tone::Bad),
        };
        let took = one.duration_ms().and_then(|ms| i64::try_from(ms).ok());
        table.row([
            cell(&task.identifier),
            (word.to_owned(), tone),
            maybe(took.map(|ms| duration(SignedDuration::from_millis(ms)))),
            maybe(one.left()),
        ]);
    }
    table.render(output, "")
}

/// How things are told to programs: logs by the files that they are in, and what to do in this command's words.
pub struct Telling<'a> {
    pub logs: &'a logs::Directory,
    pub next: &'a dyn Fn(&Fault) -> Option<String>,
}

impl Telling<'_> {
    /// All that came of a call. `fault`: why it failed as a whole.
    pub fn all(&self, fault: Option<&Fault>, batch: Option<&Batch>, ends: &BTreeMap<String, One>) -> Value {
        let none = One::default();
        let mut value = match batch {
            None => self.one(ends.get("").unwrap_or(&none)),
            Some(batch) => {
                let build = |task: &model::spec::build::Task| {
                    let one = ends.get(&task.identifier).unwrap_or(&none);
                    let mut value = self.one(one);
                    value["identifier"] = json!(task.identifier);
                    value["ignored"] = one.ignored.into();
                    if let Some(fault) = &one.fault {
                        value["fault"] = self.fault(fault);
                    }
                    value
                };
                json!({ "builds": batch.tasks.iter().map(build).collect::<Vec<_>>() })
            }
        };
        value["ok"] = fault.is_none().into();
        match fault {
            None => value["status"] = "SUCCEEDED".into(),
            Some(fault) => {
                // What a build came to that succeeded, and whose artifacts could not be put anywhere.
                if batch.is_some() || value["status"] == "SUCCEEDED" {
                    value["status"] = "FAILED".into();
                }
                value["fault"] = self.fault(fault);
            }
        }
        value
    }

    fn file(&self, log: Option<&LogRef>) -> Option<Utf8PathBuf> {
        log.and_then(|log| self.logs.file(log))
    }

    fn fault(&self, fault: &Fault) -> Value {
        let mut value = json!(fault);
        value["next"] = json!((self.next)(fault));
        value["evidence"] = json!(self.file(fault.evidence.as_ref()));
        value
    }

    /// One build: what it came to, or where it failed: its phase, and the command that it came no further than with its
    /// last lines.
    fn one(&self, one: &One) -> Value {
        let mut value = json!({
            "status": one.status(),
            "duration_ms": one.duration_ms(),
            "artifacts": one.artifacts,
            "log": self.file(one.log.as_ref()),
        });
        if let Some(built) = &one.built {
            value["built"] = json!(built);
            value["built"]["log"] = value["log"].clone();
        }
        if let Some(left) = &one.left {
            let phase = left.phases.iter().find(|phase| phase.broke());
            let command = left.broken.as_ref();
            let lines = command.map_or(Vec::new(), |broken| broken.last.lines().collect());
            value["phase"] = json!(phase.map(|phase| &phase.name));
            value["command"] = json!(command.map(|broken| &broken.command));
            value["exit_code"] = json!(command.and_then(|broken| broken.exit_code));
            value["last_lines"] = json!(lines);
            value["phases"] = json!(left.phases);
            value["reports"] = json!(left.reports);
        }
        value
    }
}

/// A command that came to no build, for programs. One whose buildspec is missing or not valid is told of as CodeBuild tells of
/// its build, which finds that out when it has the source.
pub fn refused(failure: &Failure) -> Value {
    let message = match &failure.cause {
        Some(cause) => format!("{}: {cause}", failure.what),
        None => failure.what.clone(),
    };
    let mut value = json!({
        "ok": false,
        "status": "FAILED",
        "fault": { "message": message, "next": failure.next, "evidence": null },
    });
    if message.starts_with(Buildspec::FILE_ERROR) {
        value["phase"] = "DOWNLOAD_SOURCE".into();
        value["command"] = Value::Null;
        value["exit_code"] = Value::Null;
        value["last_lines"] = json!([]);
        value["phases"] = json!(unread(&message));
        value["reports"] = json!([]);
    }
    value
}

/// The phases of a build whose buildspec cannot be read.
fn unread(message: &str) -> Vec<PhaseReport> {
    let now = crate::clock::now();
    let phase = |name: &str, status, message| PhaseReport {
        name: name.to_owned(),
        status,
        started_at: now,
        duration_ms: status.map(|_| 0),
        message,
    };
    let done = |name| phase(name, Some(PhaseStatus::Succeeded), None);
    vec![
        done("SUBMITTED"),
        done("QUEUED"),
        done("PROVISIONING"),
        phase(
            "DOWNLOAD_SOURCE",
            Some(PhaseStatus::Failed),
            Some(message.to_owned()),
        ),
        done("FINALIZING"),
        phase("COMPLETED", None, None),
    ]
}

#[cfg(test)]
mod tests {
    use host::build::Broken;

    use super::*;

    fn failed(status: PhaseStatus, exit_code: Option<i32>) -> One {
        let phase = |name: &str, status| PhaseReport {
            name: name.to_owned(),
            status: Some(status),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration_ms: Some(1500),
            message: None,
        };
        One {
            fault: Some(Fault::customer("broke").next("push again")),
            left: Some(Left {
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
            }),
            ..One::default()
        }
    }

    fn batch() -> Batch {
        let task = |name: &str| model::spec::build::Task {
            identifier: name.to_owned(),
            ..model::spec::build::Task::default()
        };
        Batch {
            fast_fail: true,
            tasks: ["a", "b", "c"].map(task).to_vec(),
        }
    }

    #[test]
    fn a_buildspec_that_cannot_be_read_fails_where_codebuild_says() {
        let failure = Failure::usage("YAML_FILE_ERROR: the buildspec is not valid").cause("b.yml:1:1: x");
        let value = refused(&failure);
        let phases = value["phases"].as_array().unwrap();
        let told: Vec<_> = phases
            .iter()
            .map(|phase| (&phase["name"], &phase["status"]))
            .collect();
        assert_eq!(
            json!(told),
            json!([
                ["SUBMITTED", "SUCCEEDED"],
                ["QUEUED", "SUCCEEDED"],
                ["PROVISIONING", "SUCCEEDED"],
                ["DOWNLOAD_SOURCE", "FAILED"],
                ["FINALIZING", "SUCCEEDED"],
                ["COMPLETED", null]
            ])
        );
        let message = "YAML_FILE_ERROR: the buildspec is not valid: b.yml:1:1: x";
        assert_eq!(
            (&phases[3]["message"], &value["phase"]),
            (&json!(message), &json!("DOWNLOAD_SOURCE"))
        );
        assert_eq!(refused(&Failure::usage("a build needs root")).get("phases"), None);
    }

    #[test]
    fn a_failure_names_its_phase_and_command_and_a_log_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs::Directory::open(camino::Utf8Path::from_path(directory.path()).unwrap()).unwrap();
        let log: LogRef = "build/t-1".parse().unwrap();
        let writer = logs.append(&log, logs::Mask::default(), 99);
        writer.unwrap().line("x").unwrap();
        let telling = Telling {
            logs: &logs,
            next: &|_| None,
        };
        let fault = Fault::customer("broke").next("push again").evidence(log.clone());
        let mut one = failed(PhaseStatus::Failed, Some(7));
        (one.log, one.fault) = (Some(log), Some(fault.clone()));
        let value = telling.all(Some(&fault), None, &BTreeMap::from([(String::new(), one)]));
        let told = [
            "ok",
            "status",
            "phase",
            "command",
            "exit_code",
            "last_lines",
            "duration_ms",
        ];
        assert_eq!(
            json!(told.map(|name| &value[name])),
            json!([false, "FAILED", "BUILD", "make", 7, ["one", "two"], 3000])
        );
        assert_eq!(
            (&value["fault"]["message"], &value["fault"]["next"]),
            (&json!("broke"), &Value::Null)
        );
        for path in [&value["log"], &value["fault"]["evidence"]] {
            assert!(std::path::Path::new(path.as_str().unwrap()).is_file(), "{path}");
        }
    }

    #[test]
    fn all_builds_of_a_batch_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs::Directory::open(camino::Utf8Path::from_path(directory.path()).unwrap()).unwrap();
        let telling = Telling {
            logs: &logs,
            next: &|_| None,
        };
        let skipped = One {
            skipped: true,
            ..One::default()
        };
        let mut late = failed(PhaseStatus::TimedOut, None);
        late.artifacts = Some("out/a".into());
        let ends = BTreeMap::from([("a".to_owned(), late), ("b".to_owned(), skipped)]);
        let value = telling.all(Some(&Fault::customer("broke")), Some(&batch()), &ends);
        assert_eq!(
            (&value["ok"], &value["status"]),
            (&json!(false), &json!("FAILED"))
        );
        let told: Vec<Vec<&Value>> = value["builds"]
            .as_array()
            .unwrap()
            .iter()
            .map(|build| vec![&build["identifier"], &build["status"], &build["artifacts"]])
            .collect();
        assert_eq!(
            json!(told),
            json!([
                ["a", "TIMED_OUT", "out/a"],
                ["b", "SKIPPED", null],
                ["c", "STOPPED", null]
            ])
        );
        assert_eq!(value["builds"][0]["fault"]["message"], "broke");
        let list = list(&batch(), &ends, &Output::new(false, String::new()));
        let list: Vec<Vec<&str>> = list
            .lines()
            .skip(1)
            .map(|line| {
                line.split("  ")
                    .filter(|cell| !cell.is_empty())
                    .map(str::trim)
                    .collect()
            })
            .collect();
        assert_eq!(
            list,
            [
                vec!["a", "timed out", "3.0 s", "out/a"],
                vec!["b", "skipped", "-", "-"],
                vec!["c", "stopped", "-", "-"]
            ]
        );
    }
}
