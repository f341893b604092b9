//! What scripts say: the last whole lines for the report, and every line for the files.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use jiff::Timestamp;

use crate::agent::log::Log;

/// The report holds fewer characters than this.
const TAIL: usize = 2048;

/// What was said of a line at once. A line that is too long to be held comes in parts.
pub(super) struct Part {
    /// `stdout` or `stderr`.
    pub source: &'static str,
    /// With the line's break at its end, if it had one.
    pub text: String,
    /// Whether it is where the line begins, and where it ends.
    pub begins: bool,
    pub ends: bool,
}

/// One deployment's log. Lines go to every file with their time; a file that cannot be written is left alone.
#[derive(Default)]
pub struct ScriptLog {
    tail: VecDeque<String>,
    length: usize,
    scripts: Option<File>,
    stream: Option<File>,
    deployments: Option<(Log, String)>,
    /// Whose line has begun in the files and not ended.
    open: Option<&'static str>,
}

impl ScriptLog {
    /// A log that is also written to a file that is read while it grows.
    pub fn streaming(path: &Path) -> io::Result<Self> {
        Ok(Self {
            stream: Some(open(path)?),
            ..Self::default()
        })
    }

    /// Every line goes to the log of all deployments too, where people's log collectors look for it.
    pub fn also_in(mut self, root: &Path, deployment: &str) -> Self {
        let directory = root.join("deployment-logs");
        // Without the directory there is no such log, and scripts run all the same.
        let _ = fs::create_dir_all(&directory);
        let log = Log::new(&directory, "codedeploy-agent-deployments");
        self.deployments = Some((log, deployment.to_owned()));
        self
    }

    /// Begins an event: an empty report, and the `scripts.log` of the revision whose scripts run.
    pub fn begin(&mut self, scripts: &Path) -> io::Result<()> {
        self.end_line();
        self.tail.clear();
        self.length = 0;
        if let Some(parent) = scripts.parent() {
            fs::create_dir_all(parent)?;
        }
        self.scripts = Some(open(scripts)?);
        Ok(())
    }

    /// One line, with its line break if it had one.
    pub fn append(&mut self, line: String, at: Timestamp) {
        self.end_line();
        self.begin_line(&line, "\n", at);
        self.length += line.chars().count();
        self.tail.push_back(line);
        while self.length >= TAIL
            && let Some(oldest) = self.tail.pop_front()
        {
            self.length -= oldest.chars().count();
        }
    }

    /// What a script says. A line that came in parts is one line of the files, unless another output speaks meanwhile;
    /// no report holds any of it, nor what was said before it.
    pub(super) fn append_part(&mut self, part: &Part, at: Timestamp) {
        let (source, text) = (part.source, &part.text);
        if part.begins && part.ends {
            return self.append(format!("[{source}]{text}"), at);
        }
        if part.begins || self.open != Some(source) {
            self.end_line();
            self.begin_line(&format!("[{source}]{text}"), "", at);
        } else {
            self.write(text.strip_suffix('\n').unwrap_or(text));
        }
        self.open = Some(source);
        if part.ends {
            self.end_line();
            self.tail.clear();
            self.length = 0;
        }
    }

    /// Ends a line that was begun, of which no more comes now.
    pub(super) fn end_line(&mut self) {
        if self.open.take().is_some() {
            self.write("\n");
        }
    }

    /// `end`: its break, or nothing where it goes on.
    fn begin_line(&mut self, line: &str, end: &str, at: Timestamp) {
        let moment = at.strftime("%Y-%m-%d %H:%M:%S");
        let line = line.strip_suffix('\n').unwrap_or(line);
        for file in [&mut self.scripts, &mut self.stream].into_iter().flatten() {
            // A full disk must not fail a script that works.
            let _ = write!(file, "{moment} {line}{end}");
        }
        if let Some((log, deployment)) = &mut self.deployments {
            let moment = at.strftime("%Y-%m-%d %H:%M:%S%.3f");
            let line = if end.is_empty() { line } else { line.trim() };
            log.append(format!("[{moment}] [{deployment}]{line}{end}").as_bytes());
        }
    }

    fn write(&mut self, text: &str) {
        for file in [&mut self.scripts, &mut self.stream].into_iter().flatten() {
            let _ = file.write_all(text.as_bytes());
        }
        if let Some((log, _)) = &mut self.deployments {
            log.append(text.as_bytes());
        }
    }

    /// A line for people, not part of any report.
    pub fn note(&mut self, text: &str, at: Timestamp) {
        self.end_line();
        if let Some(file) = &mut self.stream {
            let _ = writeln!(file, "{} {text}", at.strftime("%Y-%m-%d %H:%M:%S"));
        }
    }

    /// The last whole lines.
    pub fn lines(&self) -> Vec<&str> {
        self.tail.iter().map(String::as_str).collect()
    }

    pub fn text(&self) -> String {
        self.tail.iter().map(String::as_str).collect()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_whole_lines() {
        let mut log = ScriptLog::default();
        for number in 0..300 {
            log.append(format!("line {number:03} äöü\n"), Timestamp::UNIX_EPOCH);
        }
        assert!(log.text().chars().count() < TAIL);
        assert!(log.text().starts_with("line ") && log.text().ends_with("line 299 äöü\n"));
        log.append("x".repeat(5000), Timestamp::UNIX_EPOCH);
        assert_eq!(log.text(), "");
    }

    #[test]
    fn a_line_in_parts_is_one_line_and_in_no_report() {
        let scratch = tempfile::tempdir().unwrap();
        let (stream, root) = (scratch.path().join("stream"), scratch.path());
        let mut log = ScriptLog::streaming(&stream).unwrap().also_in(root, "d-1");
        let mut say = |source, text: &str, begins, ends| {
            let text = text.to_owned();
            let part = Part {
                source,
                text,
                begins,
                ends,
            };
            log.append_part(&part, Timestamp::UNIX_EPOCH);
            log.text()
        };
        say("stdout", "before\n", true, true);
        say("stdout", "one ", true, false);
        assert_eq!(
            say("stdout", "line", false, false),
            "[stdout]before\n",
            "it may never end"
        );
        assert_eq!(say("stdout", " ends\n", false, true), "");
        // Another output that speaks meanwhile has lines of its own.
        say("stdout", "a ", true, false);
        say("stderr", "other\n", true, true);
        assert_eq!(say("stdout", "b", false, true), "");
        // What nobody goes on with is ended by what comes next.
        say("stderr", "open", true, false);
        assert_eq!(say("stdout", "last\n", true, true), "[stdout]last\n");
        let deployments = root.join("deployment-logs/codedeploy-agent-deployments.log");
        for (path, stamp) in [
            (stream, "1970-01-01 00:00:00 "),
            (deployments, "[1970-01-01 00:00:00.000] [d-1]"),
        ] {
            let text = fs::read_to_string(&path).unwrap();
            let expected = [
                "stdout]before",
                "stdout]one line ends",
                "stdout]a",
                "stderr]other",
                "stdout]b",
                "stderr]open",
                "stdout]last",
            ];
            let found: Vec<_> = text
                .lines()
                .map(|line| line.strip_prefix(stamp).unwrap().trim_end())
                .collect();
            assert_eq!(
                found,
                expected.map(|line| format!("[{line}")),
                "{}",
                path.display()
            );
        }
    }
}
