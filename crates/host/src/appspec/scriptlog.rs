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

/// One deployment's log. Lines go to every file with their time; a file that cannot be written is left alone.
#[derive(Default)]
pub struct ScriptLog {
    tail: VecDeque<String>,
    length: usize,
    scripts: Option<File>,
    stream: Option<File>,
    deployments: Option<(Log, String)>,
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
        let moment = at.strftime("%Y-%m-%d %H:%M:%S");
        let end = if line.ends_with('\n') { "" } else { "\n" };
        for file in [&mut self.scripts, &mut self.stream].into_iter().flatten() {
            // A full disk must not fail a script that works.
            let _ = write!(file, "{moment} {line}{end}");
        }
        if let Some((log, deployment)) = &mut self.deployments {
            let moment = at.strftime("%Y-%m-%d %H:%M:%S%.3f");
            log.append(format!("[{moment}] [{deployment}]{}\n", line.trim()).as_bytes());
        }
        self.length += line.chars().count();
        self.tail.push_back(line);
        while self.length >= TAIL
            && let Some(oldest) = self.tail.pop_front()
        {
            self.length -= oldest.chars().count();
        }
    }

    /// A line for people, not part of any report.
    pub fn note(&mut self, text: &str, at: Timestamp) {
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
}
