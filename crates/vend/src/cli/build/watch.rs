//! A build's log as it comes: each line with its time and its phase.

use std::{sync::Arc, time::Duration};

use host::build::local::Workshop;
use indicatif::{ProgressBar, ProgressStyle};
use model::port::{Built, LogRef, PhaseReport, PhaseStatus, TestReport};

use crate::{
    cli::lines::{Kind, Line, Lines},
    output::{Output, Tone, clean, size},
};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(40);

/// Writes a log to the terminal while it grows. It goes to standard error when standard output is for a program.
pub struct Watch {
    shop: Arc<Workshop>,
    log: LogRef,
    offset: u64,
    /// The build of a batch that it is about.
    name: Option<String>,
    output: Output,
    lines: Lines,
    /// The log of the image that the build waits for, and how far it was read.
    image: Option<(LogRef, u64)>,
    bar: Option<ProgressBar>,
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
            if let Some(log) = line
                .text
                .split_once("(its log is ")
                .and_then(|(_, rest)| rest.strip_suffix(')'))
            {
                self.image = log.parse().ok().map(|log| (log, 0));
            } else if self.image.is_some() {
                self.image = None;
                self.bar = None;
            }
            let text = self.shown(line);
            match (&self.bar, self.output.json) {
                (Some(bar), _) => bar.suspend(|| eprintln!("{text}")),
                (None, true) => eprintln!("{text}"),
                (None, false) => self.output.text(&format!("{text}\n")),
            }
        }
    }

    fn shown(&self, line: &Line) -> String {
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
            self.output.tone(tone, &clean(&line.text))
        )
    }

    /// The last line of the log of an image that is being made.
    fn progress(&mut self) {
        let Some((log, offset)) = &mut self.image else {
            return;
        };
        let Ok(chunk) = self.shop.read(log, *offset) else {
            return;
        };
        *offset = chunk.next;
        let Some(line) = chunk.text.lines().rfind(|line| !line.trim().is_empty()) else {
            return;
        };
        if self.output.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
                    .expect("the template is one of indicatif's");
                let bar = ProgressBar::new_spinner().with_style(style);
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            });
            bar.set_message(clean(line));
        }
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
