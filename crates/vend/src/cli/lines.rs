//! The lines of a log as people read them: each with when it came and, of a build, its phase.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use model::port::LogTime;

/// What the platform's own lines in the log of a build begin with, as on CodeBuild.
const PREFIX: &str = "[Container] ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Output,
    Platform,
    Failure,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// To the second; `None` where nobody noted it.
    pub at: Option<Timestamp>,
    /// Empty where there are none.
    pub phase: String,
    pub kind: Kind,
    pub text: String,
}

/// Cuts a log into lines, and keeps which phase goes on and what time it is there.
#[derive(Debug, Default)]
pub struct Lines {
    partial: String,
    /// When the beginning of `partial` came, where that was noted.
    began: Option<Timestamp>,
    phase: String,
    at: Option<Timestamp>,
}

impl Lines {
    /// The lines that end in the next piece of the log, which begins `from` bytes after the log's beginning.
    pub fn feed(&mut self, text: &str, from: u64, times: &[LogTime]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut offset = from;
        for piece in text.split_inclusive('\n') {
            if self.partial.is_empty() {
                let next = times.partition_point(|time| time.from <= offset);
                self.began = next.checked_sub(1).map(|last| times[last].at);
            }
            self.partial.push_str(piece);
            offset += piece.len() as u64;
            if piece.ends_with('\n') {
                let line = std::mem::take(&mut self.partial);
                lines.push(self.line(line.trim_end()));
            }
        }
        lines
    }

    /// What is left after the end.
    pub fn end(&mut self) -> Vec<Line> {
        let rest = std::mem::take(&mut self.partial);
        match rest.is_empty() {
            true => Vec::new(),
            false => vec![self.line(&rest)],
        }
    }

    fn line(&mut self, line: &str) -> Line {
        let mut kind = Kind::Output;
        let mut text = line;
        let mut own = None;
        // `[Container] 2026/11/21 07:00:00.123456 words`
        if let Some((time, words)) = line.strip_prefix(PREFIX).and_then(platform) {
            own = Some(time);
            (kind, text) = (Kind::Platform, words);
            if let Some(phase) = words.strip_prefix("Entering phase ") {
                self.phase = phase.to_owned();
            }
            if words.contains("State: FAILED") || words.starts_with("Command did not exit") {
                kind = Kind::Failure;
            }
        }
        // Without a note of when it came, a line is as old as the last that says it itself.
        self.at = own.or(self.began).or(self.at);
        Line {
            at: self.at,
            phase: self.phase.clone(),
            kind,
            text: text.to_owned(),
        }
    }
}

/// The time and the words of a line of the platform's.
fn platform(line: &str) -> Option<(Timestamp, &str)> {
    let (date, rest) = line.split_once(' ')?;
    let (time, words) = rest.split_once(' ')?;
    let at = DateTime::strptime("%Y/%m/%d %H:%M:%S%.f", format!("{date} {time}")).ok()?;
    Some((at.to_zoned(TimeZone::UTC).ok()?.timestamp(), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time of the day, phase, kind and text of each.
    fn shown(lines: &[Line]) -> Vec<(String, &str, Kind, &str)> {
        let shown = |line: &Line| {
            line.at
                .map_or(String::new(), |at| at.strftime("%H:%M:%S").to_string())
        };
        lines
            .iter()
            .map(|line| (shown(line), line.phase.as_str(), line.kind, line.text.as_str()))
            .collect()
    }

    #[test]
    fn lines_know_their_phase_and_when_they_came() {
        let begin = "[Container] 2026/11/21 07:00:01.5 Entering phase BUILD\nfirst\nhel";
        let end = "lo\nlast\n[Container] 2026/11/21 07:09:00.9 Command did not exit successfully x exit status 1\nend";
        let time = |from: usize, at: &str| LogTime {
            from: from as u64,
            at: format!("2026-11-21T{at}Z").parse().unwrap(),
        };
        let middle = begin.len();
        let first = begin.find("first").unwrap();
        let mut lines = Lines::default();
        let noted = [time(0, "07:00:01"), time(first + 6, "07:03:20")];
        let mut found = lines.feed(begin, 0, &noted);
        let noted = [
            time(first + 6, "07:03:20"),
            time(middle, "07:05:00"),
            time(middle + 3, "07:08:59"),
        ];
        found.extend(lines.feed(end, middle as u64, &noted));
        found.extend(lines.end());
        let expected = [
            ("07:00:01", Kind::Platform, "Entering phase BUILD"),
            ("07:00:01", Kind::Output, "first"),
            ("07:03:20", Kind::Output, "hello"),
            ("07:08:59", Kind::Output, "last"),
            (
                "07:09:00",
                Kind::Failure,
                "Command did not exit successfully x exit status 1",
            ),
            ("07:08:59", Kind::Output, "end"),
        ];
        let expected = expected.map(|(time, kind, text)| (time.to_owned(), "BUILD", kind, text));
        assert_eq!(shown(&found), expected);
    }

    #[test]
    fn a_log_without_times_has_those_of_the_platform_s_lines() {
        let mut lines = Lines::default();
        let mut found = lines.feed("before\n[Container] 2026/11/21 07:00:01.5 words\nafter\n", 0, &[]);
        found.extend(lines.feed(
            "[Container] no time\n[Container] 2026/99/99 25:00:00 x\n",
            60,
            &[],
        ));
        let times: Vec<String> = shown(&found).into_iter().map(|(time, ..)| time).collect();
        assert_eq!(times, ["", "07:00:01", "07:00:01", "07:00:01", "07:00:01"]);
        assert_eq!(
            found[4].kind,
            Kind::Output,
            "what only looks like one is the program's"
        );
    }
}
