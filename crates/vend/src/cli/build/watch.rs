//! A build's log as it comes: each line with its time and its phase.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use host::{build::local::Workshop, logs};
use indicatif::{ProgressBar, ProgressStyle};
use model::port::{Built, LogRef, PhaseReport, PhaseStatus, TestReport};

use crate::{
    cli::lines::{Kind, Line, Lines},
    output::{Output, Tone, clean, size},
};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(40);
/// How often what is no terminal hears how far a long wait is.
const WORD: Duration = Duration::from_secs(10);

/// Writes a log to the terminal while it grows. It goes to standard error when standard output is for a program.
pub struct Watch {
    shop: Arc<Workshop>,
    log: LogRef,
    offset: u64,
    /// The build of a batch that it is about.
    name: Option<String>,
    output: Output,
    lines: Lines,
    /// What the build waits for.
    image: Option<Image>,
    bar: Option<ProgressBar>,
}

/// An image that is being made.
struct Image {
    log: LogRef,
    /// How far its log was read, and its last line.
    offset: u64,
    line: String,
    since: Instant,
    told: Instant,
}

impl Image {
    fn new(log: LogRef, now: Instant) -> Self {
        Self {
            log,
            offset: 0,
            line: String::new(),
            since: now,
            told: now,
        }
    }

    /// What is said of it now and then, where nothing moves.
    fn word(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.told) < WORD {
            return None;
        }
        self.told = now;
        let seconds = now.duration_since(self.since).as_secs();
        Some(format!(
            "still waiting for the build image after {seconds} s: {}",
            clean(&self.line)
        ))
    }
}

/// The log of an image in a line that says it, and that line with where the log is on this machine: there is nobody to ask for it.
fn image(text: &str, logs: &logs::Directory) -> Option<(LogRef, String)> {
    let (before, rest) = text.split_once("(its log is ")?;
    let log: LogRef = rest.strip_suffix(')')?.parse().ok()?;
    let text = format!("{before}(its log is {})", logs.told(&log));
    Some((log, text))
}

impl Watch {
    pub fn new(shop: Arc<Workshop>, log: LogRef, name: Option<String>, output: Output) -> Self {
        Self {
            shop,
            log,
            offset: 0,
            name,
            output,
            lines: Lines::default(),
            image: None,
            bar: None,
        }
    }

    pub async fn tick(&mut self) {
        tokio::time::sleep(LOOK).await;
        self.look();
        self.progress();
    }

    /// What is left after the end.
    pub fn rest(&mut self) {
        self.look();
        let last = self.lines.end();
        self.write(&last);
        self.bar = None;
    }

    fn look(&mut self) {
        while let Ok(chunk) = self.shop.read(&self.log, self.offset) {
            let more = chunk.next > self.offset;
            let at = std::mem::replace(&mut self.offset, chunk.next);
            let lines = self.lines.feed(&chunk.text, at, &chunk.times);
            self.write(&lines);
            if !more {
                return;
            }
        }
    }

    fn write(&mut self, lines: &[Line]) {
        for line in lines {
            let (log, said) = image(&line.text, self.shop.logs()).unzip();
            self.image = log.map(|log| Image::new(log, Instant::now()));
            if self.image.is_none() {
                self.bar = None;
            }
            let text = self.shown(line, said.as_deref().unwrap_or(&line.text));
            match (&self.bar, self.output.json) {
                (Some(bar), _) => bar.suspend(|| eprintln!("{text}")),
                (None, true) => eprintln!("{text}"),
                (None, false) => self.output.text(&format!("{text}\n")),
            }
        }
    }

    fn shown(&self, line: &Line, text: &str) -> String {
        let name = self
            .name
            .as_ref()
            .map_or(String::new(), |name| format!("{} ", clean(name)));
        let time = line
            .at
            .map_or(String::new(), |at| at.strftime("%H:%M:%S").to_string());
        let head = format!("{name}{time:<8} {:<16}", clean(&line.phase));
        let tone = match line.kind {
            Kind::Output => Tone::Plain,
            Kind::Platform => Tone::Strong,
            Kind::Failure => Tone::Bad,
        };
        format!(
            "{} {}",
            self.output.tone(Tone::Faint, &head),
            self.output.tone(tone, &clean(text))
        )
    }

    /// The last line of the log of an image that is being made: on a terminal all the time, elsewhere now and then.
    fn progress(&mut self) {
        let Some(image) = &mut self.image else {
            return;
        };
        if let Ok(chunk) = self.shop.read(&image.log, image.offset) {
            image.offset = chunk.next;
            if let Some(line) = chunk.text.lines().rfind(|line| !line.trim().is_empty()) {
                line.clone_into(&mut image.line);
            }
        }
        if !self.output.terminal {
            if let Some(word) = image.word(Instant::now()) {
                eprintln!("{word}");
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
                .expect("the template is one of indicatif's");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(clean(&image.line));
    }
}

/// The phases with their times. The last only says when it was.
pub fn phases(phases: &[PhaseReport], output: &Output) -> String {
    let line = |phase: &PhaseReport| {
        let ended = match phase.status {
            None | Some(PhaseStatus::Succeeded) => String::new(),
            Some(PhaseStatus::Failed) => format!("  {}", output.tone(Tone::Bad, "failed")),
            Some(PhaseStatus::TimedOut) => format!("  {}", output.tone(Tone::Bad, "timed out")),
            Some(PhaseStatus::Stopped) => format!("  {}", output.tone(Tone::Bad, "stopped")),
        };
        let took = match phase.duration_ms {
            Some(duration_ms) => format!("{:.2} s", duration_ms as f64 / 1000.0),
            None => phase.started_at.strftime("%H:%M:%S").to_string(),
        };
        format!("  {:<18} {took:>11}{ended}\n", clean(&phase.name))
    };
    phases.iter().map(line).collect()
}

/// The phases with their times, and the tests.
pub fn parts(name: &str, phases: &[PhaseReport], reports: &[TestReport], output: &Output) -> String {
    let mut text = String::new();
    if !name.is_empty() {
        text.push_str(&format!("{}\n", output.tone(Tone::Strong, &clean(name))));
    }
    text.push_str(&self::phases(phases, output));
    for report in reports {
        let mut line = format!(
            "  {}  {} of {} passed",
            clean(&report.group),
            report.passed,
            report.passed + report.failed
        );
        if let Some(percent) = report
            .coverage
            .as_ref()
            .and_then(|coverage| coverage.lines_percent())
        {
            line = format!("  {}  {percent:.1} % of lines reached", clean(&report.group));
        }
        if let Some(changes) = &report.changes {
            line.push_str(&format!(", {}", changes.summary()));
        }
        text.push_str(&format!("{line}\n"));
    }
    text
}

/// Tests that failed and were not enough to fail the build: a failure names them itself.
fn failed(reports: &[TestReport], output: &Output) -> String {
    const NAMED: usize = 25;
    let failed: u32 = reports
        .iter()
        .fold(0, |sum, report| sum.saturating_add(report.failed));
    let names = reports.iter().flat_map(|report| &report.failures).take(NAMED);
    let mut text = String::new();
    let mut named = 0;
    for (name, _) in names {
        text.push_str(&format!(
            "  {} {}\n",
            output.tone(Tone::Bad, "failed"),
            clean(name)
        ));
        named += 1;
    }
    match failed.saturating_sub(named) {
        0 => text,
        more => format!("{text}  and {more} more\n"),
    }
}

/// All that there is to say of a build that succeeded.
pub fn summary(name: &str, built: &Built, output: &Output) -> String {
    let mut text = parts(name, &built.phases, &built.reports, output);
    text.push_str(&failed(&built.reports, output));
    for (name, value) in &built.exported {
        text.push_str(&format!("  {}={}\n", clean(name), clean(value)));
    }
    let total: u64 = built.phases.iter().filter_map(|phase| phase.duration_ms).sum();
    let done = format!("built in {:.1} s", total as f64 / 1000.0);
    let size = format!("{} of {}", built.artifact.short(), size(built.size_bytes));
    text.push_str(&format!("{}, artifact {size}\n", output.tone(Tone::Good, &done)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_made_is_named_by_a_file_and_told_of_now_and_then() {
        let directory = tempfile::tempdir().unwrap();
        let home = camino::Utf8Path::from_path(directory.path()).unwrap();
        let logs = logs::Directory::open(home).unwrap();
        let line = "Waiting for the build image with standard, which is made once (its log is bake/platform-standard)";
        let (log, text) = image(line, &logs).unwrap();
        assert!(text.starts_with("Waiting") && text.ends_with(')'), "{text}");
        let path = text
            .split_once("(its log is ")
            .unwrap()
            .1
            .split(',')
            .next()
            .unwrap();
        let mut writer = logs.append(&log, logs::Mask::default(), 99).unwrap();
        writer.line("x").unwrap();
        assert!(std::path::Path::new(path).is_file(), "{text}");
        assert_eq!(image("Running command true", &logs), None);

        let now = Instant::now();
        let mut image = Image::new(log, now);
        image.line = "Setting up git".to_owned();
        assert_eq!(image.word(now + WORD / 2), None);
        let word = image.word(now + WORD * 2).unwrap();
        assert!(
            word.contains("after 20 s") && word.ends_with("Setting up git"),
            "{word}"
        );
        assert_eq!(image.word(now + WORD * 2), None, "once");
    }

    #[test]
    fn a_record_is_shown_with_its_ends() {
        let phase = |name: &str, status, duration_ms| PhaseReport {
            name: name.to_owned(),
            status,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            duration_ms,
            message: None,
        };
        let all = [
            phase("SUBMITTED", Some(PhaseStatus::Succeeded), Some(0)),
            phase("BUILD", Some(PhaseStatus::Stopped), Some(12_340)),
            phase("COMPLETED", None, None),
        ];
        let text = phases(&all, &Output::new(false, String::new()));
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines,
            [
                vec!["SUBMITTED", "0.00", "s"],
                vec!["BUILD", "12.34", "s", "stopped"],
                vec!["COMPLETED", "00:00:00"],
            ]
        );
    }
}
