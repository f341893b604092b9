//! What a build says: into its log, in CodeBuild's words, and into its report. Nothing of it holds a secret.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    time::Instant,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::port::{LogRef, PhaseReport, PhaseStatus, TestReport};

use super::{
    protocol::{Event, Frame, read_frame},
    record::{self, Record},
    report::{Case, History},
    told::Told,
};
use crate::logs::{self, Mask};

pub(super) const REPORTS: usize = 50;
const LAST_LINES: usize = 15;
pub(super) const FAILURES: usize = 50;
pub(super) const ARTIFACTS: usize = 13;
/// Characters of one text that a build says about itself. Its log may say more.
pub(super) const TEXT: usize = 4096;
/// Said where a part of a fan-out reports coverage.
const PART_COVERAGE: &str =
    "Coverage of one part of a fan-out is not the whole's: that is the sums of all parts";

/// The log and the report of a build that goes on.
pub(super) struct Console {
    log: LogRef,
    writer: logs::Writer,
    mask: Mask,
    record: Record,
    fresh_line: bool,
    current: Option<(String, Timestamp, Instant)>,
    command: Option<String>,
    pub outcome: Outcome,
}

/// What is known of a build.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub reports: Vec<TestReport>,
    pub exported: BTreeMap<String, String>,
    /// The first command that failed, or that ran when the build was ended.
    pub broken: Option<Broken>,
    /// The runner came to its end.
    pub succeeded: Option<bool>,
    /// The runner says that its failure is one to try again.
    pub again: bool,
    pub artifact_bytes: u64,
    pub artifacts: Vec<Kept>,
    cases: Told,
}

/// A command that a build came no further than.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// CodeBuild's name of the phase.
    pub phase: String,
    pub command: String,
    /// `None`: it was ended from outside.
    pub exit_code: Option<i32>,
    /// What it wrote last.
    pub last: String,
}

/// An artifact whose tar lies in the build's directory, not yet checked.
#[derive(Debug)]
pub(super) struct Kept {
    /// `None`: the one that becomes the revision.
    pub identifier: Option<String>,
    pub name: Option<String>,
    pub path: Utf8PathBuf,
}

impl Console {
    pub fn open(
        logs: &logs::Directory,
        log: LogRef,
        mask: Mask,
        cap: u64,
        record: Record,
    ) -> Result<Self, logs::Error> {
        let writer = logs.append(&log, mask.clone(), cap)?;
        Ok(Self {
            log,
            writer,
            mask,
            record,
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
        let _ = self.writer.line(format!("{start}[Container] {now} {text}"));
    }

    /// A phase that another follows has succeeded. One that goes on already goes on: the source is there before the runner
    /// looks whether the image has what the buildspec asks for.
    pub fn began(&mut self, phase: &str) {
        if self.is_in(phase) {
            return;
        }
        self.ended(PhaseStatus::Succeeded, None);
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
        let message = message.map(|message| self.conceal(message));
        let text = message.as_deref().unwrap_or_default();
        let (code, text) = text.split_once(": ").unwrap_or(("", text));
        self.line(&format!("Phase context status code: {code} Message: {text}"));
        self.record.add(PhaseReport {
            name,
            status: Some(status),
            started_at,
            duration_ms: Some(record::millis(started)),
            message,
        });
    }

    /// The last phase of a build that came so far as to its source.
    pub fn finalize(&mut self) {
        self.began("FINALIZING");
        self.ended(PhaseStatus::Succeeded, None);
    }

    /// Is this the phase that goes on?
    pub fn is_in(&self, phase: &str) -> bool {
        self.current.as_ref().is_some_and(|(name, ..)| name == phase)
    }

    /// The phase that failed first.
    pub fn failed(&self) -> Option<PhaseReport> {
        self.record.failed()
    }

    /// What is being done, for a build that is stopped meanwhile.
    pub fn doing(&self) -> String {
        let phase = self.current.as_ref().map_or("no phase", |(phase, ..)| phase);
        match &self.command {
            Some(command) => format!("in phase {phase}, while it ran: {command}"),
            None => format!("in phase {phase}"),
        }
    }

    /// The last lines of what the command that runs wrote.
    pub fn last_lines(&self) -> String {
        self.writer.last_lines(LAST_LINES)
    }

    /// Reads frames to their end. Artifacts go to new files in a directory, up to `most` bytes together.
    pub fn follow(&mut self, mut from: impl Read, directory: &Utf8Path, most: u64) -> io::Result<()> {
        let followed = self.frames(&mut from, directory, most);
        self.release();
        followed
    }

    fn frames(&mut self, from: &mut impl Read, directory: &Utf8Path, most: u64) -> io::Result<()> {
        let mut file = None;
        while let Some(frame) = read_frame(from)? {
            match frame {
                Frame::Output(bytes) => {
                    self.fresh_line = bytes.last().is_none_or(|byte| *byte == b'\n');
                    let _ = self.writer.write_all(&bytes);
                }
                Frame::Event(Event::Artifact { identifier, name }) => {
                    file = Some(self.artifact(directory, identifier, name)?);
                }
                Frame::Artifact(bytes) => {
                    self.outcome.artifact_bytes += bytes.len() as u64;
                    if self.outcome.artifact_bytes > most {
                        return Err(io::Error::new(
                            io::ErrorKind::FileTooLarge,
                            "the artifact is too large",
                        ));
                    }
                    let file = file
                        .as_mut()
                        .ok_or_else(|| io::Error::other("bytes of no artifact"))?;
                    file.write_all(&bytes)?;
                }
                Frame::Event(event) => self.event(event),
            }
        }
        Ok(())
    }

    fn artifact(
        &mut self,
        directory: &Utf8Path,
        identifier: Option<String>,
        name: Option<String>,
    ) -> io::Result<std::fs::File> {
        let plain = identifier.as_deref().is_none_or(is_identifier);
        if self.outcome.artifacts.len() >= ARTIFACTS || !plain {
            return Err(io::Error::other("an artifact that the buildspec cannot name"));
        }
        let path = match &identifier {
            None => directory.join("artifact.tar"),
            Some(identifier) => directory.join(format!("artifact-{identifier}.tar")),
        };
        let file = std::fs::File::create_new(&path)?;
        let name = name.map(|name| bounded(self.mask.conceal(&name), TEXT));
        if let Some(name) = &name {
            self.line(&format!("The artifact's name is {name}"));
        }
        self.outcome.artifacts.push(Kept {
            identifier,
            name,
            path,
        });
        Ok(file)
    }

    /// The command that runs is where the build broke, unless one before was.
    pub fn broke(&mut self, exit_code: Option<i32>) {
        let (None, Some(command)) = (&self.outcome.broken, &self.command) else {
            return;
        };
        let phase = self.current.as_ref().map(|(phase, ..)| phase.clone());
        self.outcome.broken = Some(Broken {
            phase: phase.unwrap_or_default(),
            command: bounded(command.clone(), TEXT),
            exit_code,
            last: self.last_lines(),
        });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Began { phase } => {
                let phase = bounded(self.conceal(phase), TEXT);
                self.began(&phase);
            }
            Event::Command { text } => {
                let text = self.conceal(text);
                self.line(&format!("Running command {text}"));
                self.command = Some(text);
                self.writer.forget();
            }
            Event::CommandFailed { text, code } => {
                let text = self.conceal(text);
                self.release();
                self.broke(Some(code));
                self.line(&format!(
                    "Command did not exit successfully {text} exit status {code}"
                ));
            }
            Event::Ended { status, message, .. } => {
                self.command = None;
                let message = message.map(|message| bounded(self.conceal(message), TEXT));
                self.ended(status, message);
            }
            Event::Note { text } => self.line(&text),
            Event::Report(report) => self.report(*report),
            Event::Cases { group, cases } => self.cases(group, cases),
            // One follows its own frames; of the other, no build tells.
            Event::Artifact { .. } | Event::Expanded(_) => {}
            Event::Exported(variables) => self.exported(variables),
            Event::Finished { succeeded, again } => {
                self.outcome.succeeded = Some(succeeded);
                self.outcome.again = again && !succeeded;
            }
        }
    }

    fn report(&mut self, mut report: TestReport) {
        report.group = bounded(self.conceal(report.group), TEXT);
        report.failures.truncate(FAILURES);
        report.failures.shrink_to_fit();
        for (name, message) in &mut report.failures {
            *name = bounded(self.conceal(std::mem::take(name)), TEXT);
            *message = bounded(self.conceal(std::mem::take(message)), TEXT);
        }
        report.changes = None;
        if report.total > 0 || report.coverage.is_none() {
            self.line(&format!(
                "Report {}: {} tests, {} passed, {} failed, {} skipped",
                report.group, report.total, report.passed, report.failed, report.skipped
            ));
        }
        if let Some(percent) = report.coverage.and_then(|coverage| coverage.lines_percent()) {
            self.line(&format!(
                "Report {}: {percent:.1} % of lines reached",
                report.group
            ));
        }
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

    fn cases(&mut self, group: String, cases: Vec<Case>) {
        let group = self.conceal(group);
        let concealed = cases.into_iter().map(|case| Case {
            name: self.mask.conceal(&case.name),
            ..case
        });
        self.outcome.cases.add(group, concealed);
    }

    /// Compares the reports with the branch's runs before this one, which becomes one of them. `is_part`: of a fan-out.
    pub fn compare(&mut self, history: &mut History, is_part: bool) {
        let cases = std::mem::take(&mut self.outcome.cases);
        let mut lines = Vec::new();
        for report in &mut self.outcome.reports {
            let own = cases.of(&report.group);
            if own.is_empty() && report.coverage.is_none() {
                continue;
            }
            report.changes = history.add(&report.group, own, report.coverage.as_ref());
            if let Some(changes) = &report.changes {
                lines.push(format!("Report {}: {}", report.group, changes.summary()));
            }
        }
        if is_part
            && self
                .outcome
                .reports
                .iter()
                .any(|report| report.coverage.is_some())
        {
            lines.push(PART_COVERAGE.to_owned());
        }
        lines.extend(cases.said());
        lines.iter().for_each(|line| self.line(line));
    }

    fn conceal(&self, text: String) -> String {
        self.mask.conceal(&text)
    }

    /// What a command wrote last is shown when it has ended.
    fn release(&mut self) {
        if let Err(error) = self.writer.release() {
            tracing::warn!(log = %self.log, error = logs::chain(&error), "the end of a log is lost");
        }
    }

    /// The log stays open for who writes the last line.
    pub fn end(mut self) -> Outcome {
        self.release();
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

/// Can a buildspec name a secondary artifact so?
pub(super) fn is_identifier(text: &str) -> bool {
    text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The first characters of a text, so many.
pub(super) fn bounded(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
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

    fn open(logs: &logs::Directory, log: &str) -> Console {
        let log = log.parse().unwrap();
        Console::open(logs, log, Mask::default(), 1 << 20, Record::taken()).unwrap()
    }

    #[test]
    fn what_a_build_says_of_itself_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let logs = logs::Directory::open(directory).unwrap();
        let mut console = open(&logs, "build/t");
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
        console.follow(&frames.0[..], directory, 1).unwrap();
        let phase = console.failed().unwrap();
        let outcome = console.end();
        assert_eq!(outcome.exported.len(), 1);
        assert!(phase.name.chars().count() <= TEXT + 1);
        assert!(phase.message.as_ref().unwrap().chars().count() <= TEXT + 1);
    }

    #[test]
    fn a_phase_of_which_two_tell_is_one() {
        let (well, badly) = (PhaseStatus::Succeeded, PhaseStatus::Failed);
        for (phase, expected) in [
            (
                "DOWNLOAD_SOURCE",
                &[("DOWNLOAD_SOURCE", badly), ("FINALIZING", well)][..],
            ),
            (
                "BUILD",
                &[("DOWNLOAD_SOURCE", well), ("BUILD", badly), ("FINALIZING", well)],
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let directory = Utf8Path::from_path(directory.path()).unwrap();
            let logs = logs::Directory::open(directory).unwrap();
            let mut console = open(&logs, "build/t");
            let record = console.record.clone();
            console.began("DOWNLOAD_SOURCE");
            let mut frames = Frames(Vec::new());
            let phase = phase.to_owned();
            frames.event(&Event::Began { phase: phase.clone() }).unwrap();
            let (status, message) = (badly, None);
            frames
                .event(&Event::Ended {
                    phase,
                    status,
                    message,
                })
                .unwrap();
            console.follow(&frames.0[..], directory, 1).unwrap();
            console.finalize();
            let all = record.completed();
            let ended = all.iter().filter_map(|phase| Some((&*phase.name, phase.status?)));
            assert_eq!(ended.collect::<Vec<_>>(), expected);
            let said = logs.tail(&"build/t".parse().unwrap(), 0, 99);
            assert_eq!(
                said.matches("Entering phase DOWNLOAD_SOURCE").count(),
                1,
                "{said}"
            );
        }
    }

    #[test]
    fn tests_that_are_not_compared_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let logs = logs::Directory::open(directory).unwrap();
        let mut console = open(&logs, "build/t");
        let case = Case {
            name: "one".to_owned(),
            duration_ms: 1,
            outcome: super::super::report::Outcome::Passed,
        };
        console.cases("unit".to_owned(), vec![case; 20_003]);
        console.compare(&mut History::read(&[]), false);
        console.end();
        let said = logs.tail(&"build/t".parse().unwrap(), 0, 99);
        assert!(
            said.contains("3 tests are not compared with earlier runs"),
            "{said}"
        );
    }

    #[test]
    fn a_build_that_fails_beyond_the_cap_of_its_log_says_how() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        let logs = logs::Directory::open(directory).unwrap();
        let log: LogRef = "build/t".parse().unwrap();
        let open = || {
            let mask = Mask::new(["hunter2secret"]);
            Console::open(&logs, log.clone(), mask, 1000, Record::taken()).unwrap()
        };
        let mut frames = Frames(Vec::new());
        let (phase, text, code) = ("BUILD".to_owned(), "make all".to_owned(), 3);
        frames.event(&Event::Began { phase: phase.clone() }).unwrap();
        frames.event(&Event::Command { text: text.clone() }).unwrap();
        for line in 0..500 {
            frames.output(format!("compiling {line}\n").as_bytes()).unwrap();
        }
        frames.output(b"wrong: hunter2").unwrap();
        frames.output(b"secret\nno rule to make it").unwrap();
        frames.event(&Event::CommandFailed { text, code }).unwrap();
        let (status, message) = (PhaseStatus::Failed, Some("CODE: exit status 3".to_owned()));
        let ended = Event::Ended {
            phase,
            status,
            message,
        };
        frames.event(&ended).unwrap();
        let mut console = open();
        console.follow(&frames.0[..], directory, 1).unwrap();
        console.finalize();
        let broken = console.end().broken.unwrap();
        assert!(
            broken
                .last
                .ends_with("\ncompiling 499\nwrong: ***\nno rule to make it"),
            "{}",
            broken.last
        );
        open().line("The cache is not saved");
        open().close(&format!("BUILD failed: {}", "m".repeat(100_000)));
        let said = logs.chunk(&log, 0).unwrap().text;
        let (before, after) = said.split_once("[vend] the log is cut here").unwrap();
        assert!(before.len() <= 1001 && after.len() < 20_000, "{said}");
        for (own, times) in [
            ("Command did not exit successfully make all exit status 3", 1),
            ("Phase complete: BUILD State: FAILED", 1),
            ("Phase context status code: CODE Message: exit status 3", 1),
            ("Entering phase FINALIZING", 1),
            ("The cache is not saved", 1),
            ("BUILD failed: mmm", 1),
            ("cut here", 0),
            ("compiling", 0),
        ] {
            assert_eq!(after.matches(own).count(), times, "`{own}` in {after}");
        }
    }

    #[test]
    fn coverage_of_a_part_is_said_to_be_one() {
        let says = |is_part, lines| {
            let directory = tempfile::tempdir().unwrap();
            let directory = Utf8Path::from_path(directory.path()).unwrap();
            let logs = logs::Directory::open(directory).unwrap();
            let mut console = open(&logs, "build/t");
            let mut report = super::super::report::empty("unit");
            let reached = model::port::Share {
                covered: 1,
                total: lines,
            };
            report.coverage = (lines > 0).then(|| model::port::Coverage {
                lines: reached,
                ..model::port::Coverage::default()
            });
            console.report(report);
            console.compare(&mut History::read(&[]), is_part);
            console.end();
            logs.tail(&"build/t".parse().unwrap(), 0, 99)
                .contains(PART_COVERAGE)
        };
        assert!(says(true, 4));
        assert!(!says(true, 0) && !says(false, 4));
    }
}
