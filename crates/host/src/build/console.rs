//! What a build says: into its log, in CodeBuild's words, and into its report. Nothing of it holds a secret.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    time::Instant,
};

use camino::Utf8PathBuf;
use jiff::Timestamp;
use model::port::{LogRef, PhaseReport, PhaseStatus, TestReport};

use super::protocol::{Event, Frame, read_frame};
use crate::logs::{self, Mask};

const REPORTS: usize = 50;
const PHASES: usize = 100;
const LAST_LINES: usize = 15;
const FAILURES: usize = 50;
/// Characters of one text that a build says about itself. Its log may say more.
const TEXT: usize = 4096;

/// The log and the report of a build that goes on.
pub(super) struct Console {
    logs: logs::Directory,
    log: LogRef,
    writer: logs::Writer,
    secrets: Vec<String>,
    fresh_line: bool,
    current: Option<(String, Timestamp, Instant)>,
    command: Option<(String, u64)>,
    pub outcome: Outcome,
}

/// What is known of a build.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub phases: Vec<PhaseReport>,
    pub reports: Vec<TestReport>,
    pub exported: BTreeMap<String, String>,
    /// The last lines of the first command that failed.
    pub last: Option<String>,
    /// The runner came to its end.
    pub succeeded: Option<bool>,
    pub artifact_bytes: u64,
}

impl Outcome {
    /// The phase that failed first.
    pub fn failed(&self) -> Option<&PhaseReport> {
        self.phases
            .iter()
            .find(|phase| phase.status != PhaseStatus::Succeeded)
    }
}

impl Console {
    pub fn open(
        logs: &logs::Directory,
        log: LogRef,
        secrets: Vec<String>,
        cap: u64,
    ) -> Result<Self, logs::Error> {
        let writer = logs.append(&log, Mask::new(secrets.iter().map(String::as_str)), cap)?;
        Ok(Self {
            logs: logs.clone(),
            log,
            writer,
            secrets,
            fresh_line: true,
            current: None,
            command: None,
            outcome: Outcome::default(),
        })
    }

    /// A line of the platform's.
    pub fn line(&mut self, text: &str) {
        let now = crate::now().strftime("%Y/%m/%d %H:%M:%S%.6f");
        let start = if self.fresh_line { "" } else { "\n" };
        self.fresh_line = true;
        // A log that cannot be written does not stop what it is about.
        let _ = writeln!(self.writer, "{start}[Container] {now} {text}");
    }

    pub fn began(&mut self, phase: &str) {
        self.line(&format!("Entering phase {phase}"));
        self.current = Some((phase.to_owned(), crate::now(), Instant::now()));
    }

    /// Ends the phase that goes on.
    pub fn ended(&mut self, status: PhaseStatus, message: Option<String>) {
        let Some((name, started_at, started)) = self.current.take() else {
            return;
        };
        let state = match status {
            PhaseStatus::Succeeded => "SUCCEEDED",
            PhaseStatus::Failed => "FAILED",
            PhaseStatus::TimedOut => "TIMED_OUT",
            PhaseStatus::Stopped => "STOPPED",
        };
        self.line(&format!("Phase complete: {name} State: {state}"));
        let text = message.as_deref().unwrap_or_default();
        let (code, text) = text.split_once(": ").unwrap_or(("", text));
        self.line(&format!("Phase context status code: {code} Message: {text}"));
        if self.outcome.phases.len() < PHASES {
            self.outcome.phases.push(PhaseReport {
                name,
                status,
                started_at,
                duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                message,
            });
        }
    }

    /// What is being done, for a build that is stopped meanwhile.
    pub fn doing(&self) -> String {
        let phase = self.current.as_ref().map_or("no phase", |(phase, ..)| phase);
        match &self.command {
            Some((command, _)) => format!("in phase {phase}, while it ran: {command}"),
            None => format!("in phase {phase}"),
        }
    }

    /// The last lines of what the command that runs wrote.
    pub fn last_lines(&self) -> String {
        let from = self.command.as_ref().map_or(0, |(_, from)| *from);
        self.logs.tail(&self.log, from, LAST_LINES)
    }

    /// Reads frames to their end. The artifact goes to a new file, up to `most` bytes.
    pub fn follow(&mut self, mut from: impl Read, artifact: &Utf8PathBuf, most: u64) -> io::Result<()> {
        let mut file = std::fs::File::create_new(artifact)?;
        while let Some(frame) = read_frame(&mut from)? {
            match frame {
                Frame::Output(bytes) => {
                    self.fresh_line = bytes.last().is_none_or(|byte| *byte == b'\n');
                    let _ = self.writer.write_all(&bytes);
                }
                Frame::Artifact(bytes) => {
                    self.outcome.artifact_bytes += bytes.len() as u64;
                    if self.outcome.artifact_bytes > most {
                        return Err(io::Error::new(
                            io::ErrorKind::FileTooLarge,
                            "the artifact is too large",
                        ));
                    }
                    file.write_all(&bytes)?;
                }
                Frame::Event(event) => self.event(event),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Began { phase } => {
                let phase = bounded(self.conceal(phase));
                self.began(&phase);
            }
            Event::Command { text } => {
                let text = self.conceal(text);
                self.line(&format!("Running command {text}"));
                self.command = Some((text, self.writer.position()));
            }
            Event::CommandFailed { text, code } => {
                let text = self.conceal(text);
                let last = self.last_lines();
                self.outcome.last.get_or_insert(last);
                self.line(&format!(
                    "Command did not exit successfully {text} exit status {code}"
                ));
            }
            Event::Ended { status, message, .. } => {
                self.command = None;
                let message = message.map(|message| bounded(self.conceal(message)));
                self.ended(status, message);
            }
            Event::Note { text } => self.line(&text),
            Event::Report(report) => self.report(report),
            Event::Exported(variables) => self.exported(variables),
            Event::Finished { succeeded } => self.outcome.succeeded = Some(succeeded),
        }
    }

    fn report(&mut self, mut report: TestReport) {
        report.group = bounded(self.conceal(report.group));
        report.failures.truncate(FAILURES);
        report.failures.shrink_to_fit();
        for (name, message) in &mut report.failures {
            *name = bounded(self.conceal(std::mem::take(name)));
            *message = bounded(self.conceal(std::mem::take(message)));
        }
        self.line(&format!(
            "Report {}: {} tests, {} passed, {} failed, {} skipped",
            report.group, report.total, report.passed, report.failed, report.skipped
        ));
        if self.outcome.reports.len() < REPORTS {
            self.outcome.reports.push(report);
        }
    }

    /// Told once, at the end: what was told before is forgotten, so that one frame bounds what is held.
    fn exported(&mut self, variables: BTreeMap<String, String>) {
        self.outcome.exported.clear();
        for (name, value) in variables {
            let shown = self.conceal(value.clone());
            if shown == value {
                self.outcome.exported.insert(name, value);
            } else {
                self.line(&format!("The variable {name} is not exported: it holds a secret"));
            }
        }
    }

    fn conceal(&self, text: String) -> String {
        let mut mask = Mask::new(self.secrets.iter().map(String::as_str));
        let mut shown = mask.feed(text.as_bytes());
        shown.extend(mask.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// The log stays open for who writes the last line.
    pub fn end(mut self) -> Outcome {
        if let Err(error) = self.writer.release() {
            tracing::warn!(log = %self.log, error = logs::chain(&error), "the end of a log is lost");
        }
        self.outcome
    }

    /// The last line of a build that may have ended anywhere, and the end of its log.
    pub fn close(mut self, last: &str) {
        self.line(last);
        if let Err(error) = self.writer.end() {
            tracing::warn!(log = %self.log, error = logs::chain(&error), "the end of a log is not marked");
        }
    }
}

fn bounded(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text.shrink_to_fit();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::protocol::Frames;

    #[test]
    fn what_a_build_says_of_itself_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let directory = camino::Utf8Path::from_path(directory.path()).unwrap();
        let logs = logs::Directory::open(directory).unwrap();
        let mut console = Console::open(&logs, "build/t".parse().unwrap(), Vec::new(), 1 << 20).unwrap();
        let mut frames = Frames(Vec::new());
        for number in 0..20 {
            let value = "v".repeat(100_000);
            let variables = BTreeMap::from([(format!("NAME_{number}"), value)]);
            frames.event(&Event::Exported(variables)).unwrap();
        }
        let phase = "p".repeat(100_000);
        let message = Some("m".repeat(100_000));
        let status = PhaseStatus::Failed;
        frames.event(&Event::Began { phase: phase.clone() }).unwrap();
        frames
            .event(&Event::Ended {
                phase,
                status,
                message,
            })
            .unwrap();
        console
            .follow(&frames.0[..], &directory.join("artifact"), 1)
            .unwrap();
        let outcome = console.end();
        assert_eq!(outcome.exported.len(), 1);
        let phase = &outcome.phases[0];
        assert!(phase.name.chars().count() <= TEXT + 1);
        assert!(phase.message.as_ref().unwrap().chars().count() <= TEXT + 1);
    }
}
