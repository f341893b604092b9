//! What people and programs read: aligned tables and one-line answers, or JSON exactly as the platform said it.
//!
//! Nothing that came from somebody else reaches a terminal with its control characters: a commit message must not be
//! able to move the cursor of who reads it.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// How to write.
#[derive(Debug, Clone)]
pub struct Output {
    pub json: bool,
    color: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
    /// What every command that is suggested must repeat to reach the same platform: ` --data DIR`, or nothing.
    again: String,
}

/// What a word means for who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Wait,
    Faint,
    Strong,
}

impl Output {
    /// `again`: the options that lead to the platform, where the person who asked gave some.
    pub fn new(json: bool, again: String) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            color: terminal && !plain,
            terminal,
            again,
        }
    }

    /// Shows `value`: as JSON, or as `people` says it.
    pub fn show<T: Serialize>(&self, value: &T, people: impl FnOnce(&T) -> String) {
        if self.json {
            let text = serde_json::to_string_pretty(value).expect("wire types are plain data");
            self.text(&format!("{text}\n"));
        } else {
            self.say(&people(value));
        }
    }

    /// Writes text as it is. A reader that has gone ends the program, quietly, as in every other tool.
    pub fn text(&self, text: &str) {
        if write(text).is_err() {
            std::process::exit(0);
        }
    }

    pub fn line(&self, line: &str) {
        self.say(&format!("{line}\n"));
    }

    /// Says something beside the answer, which alone is what `--json` writes.
    pub fn beside(&self, line: &str) {
        match self.json {
            true => tracing::warn!("{line}"),
            false => self.line(line),
        }
    }

    /// The same, which people see by its label.
    pub fn note(&self, said: &str) {
        match self.json {
            true => self.beside(said),
            false => self.line(&format!("{} {said}", self.tone(Tone::Wait, "note"))),
        }
    }

    /// Writes what the program itself says: the commands that it suggests lead to the platform that was asked.
    pub fn say(&self, text: &str) {
        self.text(&self.suggested(text));
    }

    /// The text with the options that lead to the platform in every command that it suggests.
    fn suggested(&self, text: &str) -> String {
        const LABELS: [&str; 5] = ["next:", "undo:", "log:", "waits:", "changing"];
        let line = |line: &str| {
            let labelled = LABELS.iter().any(|label| line.contains(label));
            match labelled {
                true => self.command(line),
                false => line.replace("(vend ", &format!("(vend{} ", self.again)),
            }
        };
        text.split_inclusive('\n').map(line).collect()
    }

    /// A line of commands as they must be typed to reach the platform that was asked.
    pub fn command(&self, line: &str) -> String {
        if self.again.is_empty() || line.contains("--data ") || line.contains("--url ") {
            return line.to_owned();
        }
        let mut typed = String::with_capacity(line.len() + self.again.len());
        let mut rest = line;
        while let Some(at) = rest.find("vend ") {
            let (before, after) = rest.split_at(at + "vend".len());
            let starts = before[..at]
                .chars()
                .next_back()
                .is_none_or(|c| " (`'/".contains(c));
            let named = after[1..].starts_with(|c: char| c.is_ascii_lowercase());
            typed.push_str(before);
            typed.push_str(if starts && named { &self.again } else { "" });
            rest = after;
        }
        typed + rest
    }

    pub fn tone(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.color => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Wait => "33",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Writes a line of what goes on whether anybody reads it or not: a reader that has gone does not stop the work.
pub fn aloud(line: impl std::fmt::Display) {
    let _ = write(&format!("{line}\n"));
}

/// Columns that line up. Cells are cleaned.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        let head = head
            .iter()
            .map(|cell| ((*cell).to_owned(), Tone::Faint))
            .collect();
        Self { rows: vec![head] }
    }

    pub fn row<const N: usize>(&mut self, cells: [(String, Tone); N]) -> &mut Self {
        let cells = cells.into_iter().map(|(text, tone)| (clean(&text), tone));
        self.rows.push(cells.collect());
        self
    }

    /// The table, or `nothing` when it has no rows.
    pub fn render(&self, output: &Output, nothing: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{nothing}\n");
        }
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, tone)) in row.iter().enumerate() {
                line.push_str(&output.tone(*tone, cell));
                if column + 1 < row.len() {
                    let pad = widths[column] - cell.chars().count() + 2;
                    line.extend(std::iter::repeat_n(' ', pad));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell without a meaning of its own.
pub fn cell(text: impl ToString) -> (String, Tone) {
    (text.to_string(), Tone::Plain)
}

/// A cell for what may not be there.
pub fn maybe(text: Option<impl ToString>) -> (String, Tone) {
    match text {
        Some(text) => cell(text),
        None => ("-".into(), Tone::Faint),
    }
}

/// One line of text without control characters.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Text of a few lines without other control characters; each line but the first begins with `indent`.
pub fn lines(text: &str, indent: &str) -> String {
    let lines: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| clean(line.trim_end()))
        .collect();
    lines.join(&format!("\n{indent}"))
}

/// Text of many lines for a terminal: lines, tabs and colours stay, every other control character goes.
pub fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
        tamed.push_str(&rest[..at]);
        rest = &rest[at..];
        let code = rest.strip_prefix("\x1b[").and_then(|tail| {
            let end = tail.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            (tail[end..].starts_with('m')).then_some(end + 3)
        });
        match code {
            Some(length) => {
                tamed.push_str(&rest[..length]);
                rest = &rest[length..];
            }
            None => {
                let skip = rest.chars().next().map_or(0, char::len_utf8);
                rest = &rest[skip..];
            }
        }
    }
    tamed + rest
}

/// A cause and the command that it suggests: causes that a flow keeps end with `(next: COMMAND)`.
pub fn without_next(cause: &str) -> (String, Option<String>) {
    const MARK: &str = " (next: ";
    // The last is the platform's own: what comes before may be words of a customer's program.
    let Some((before, rest)) = cause.rsplit_once(MARK) else {
        return (cause.to_owned(), None);
    };
    let mut depth = 1_u32;
    let end = rest.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    });
    let (next, after) = end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]));
    (format!("{before}{after}"), Some(next.to_owned()))
}

/// The first line of a commit message, at most `width` characters.
pub fn headline(message: &str, width: usize) -> String {
    let line = clean(message.lines().next().unwrap_or_default());
    match line.chars().count() > width {
        true => line.chars().take(width.saturating_sub(1)).collect::<String>() + "…",
        false => line,
    }
}

/// `850 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`
pub fn duration(duration: SignedDuration) -> String {
    let ms = duration.as_millis().max(0);
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// The same to the second, however long: `1 h 0 min 5 s`, `3 d 4 h 0 min 0 s`.
pub fn exact(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    let rest = format!(
        "{} h {} min {} s",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    );
    match seconds {
        0..3600 => duration(length),
        3600..86400 => rest,
        _ => format!("{} d {rest}", seconds / 86400),
    }
}

/// How long ago, in the largest unit that says it.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

/// `512 B`, `3.4 MiB`
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let mut text = String::new();
    let digits = usize::from(unit > 0);
    let _ = write!(text, "{value:.digits$} {}", UNITS[unit]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output {
        json: false,
        color: false,
        terminal: false,
        again: String::new(),
    };

    #[test]
    fn suggested_commands_lead_to_the_platform_that_was_asked() {
        let there = Output {
            again: " --data /srv/v".into(),
            ..PLAIN
        };
        for (said, typed) in [
            ("next: vend why a/b\n", "next: vend --data /srv/v why a/b\n"),
            (
                "next: vend approve x, or vend reject x --why …\n",
                "next: vend --data /srv/v approve x, or vend --data /srv/v reject x --why …\n",
            ),
            (
                "  log:   vend logs build/t-1",
                "  log:   vend --data /srv/v logs build/t-1",
            ),
            (
                "waits: people (vend approve a-1)",
                "waits: people (vend --data /srv/v approve a-1)",
            ),
            (
                "they vend hosts\nvend is a word",
                "they vend hosts\nvend is a word",
            ),
            ("next: vend up --data DIR", "next: vend up --data DIR"),
        ] {
            assert_eq!(there.suggested(said), typed);
            assert_eq!(PLAIN.suggested(said), said);
        }
    }

    #[test]
    fn tables_line_up_and_cells_are_clean() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row([cell("a"), cell("live")]);
        table.row([cell("longer\x1b[2J"), cell("x")]);
        assert_eq!(
            table.render(&PLAIN, "nothing"),
            "NAME        STATE\na           live\nlonger [2J  x\n"
        );
        assert_eq!(Table::new(["A"]).render(&PLAIN, "no apps"), "no apps\n");
    }

    #[test]
    fn lines_stay_lines_and_hold_nothing_else() {
        assert_eq!(
            lines("it failed; its last lines:\none\r\n\x1b[2Jtwo\n", "  "),
            "it failed; its last lines:\n  one\n   [2Jtwo"
        );
        assert_eq!(lines("", "  "), "");
    }

    #[test]
    fn only_colours_reach_a_terminal() {
        for (raw, expected) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
            ("\x1b[2Jgone", "[2Jgone"),
            ("\x1b]0;title\x07x", "]0;titlex"),
            ("a\rb\u{9b}1m", "ab1m"),
            ("\x1b[", "["),
        ] {
            assert_eq!(tame(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn a_cause_gives_up_the_command_that_it_holds() {
        for (cause, text, next) in [
            ("it broke", "it broke", None),
            (
                "it broke (next: vend why a/b) (Vend.Customer)",
                "it broke (Vend.Customer)",
                Some("vend why a/b"),
            ),
            ("x (next: push (or ask) again)", "x", Some("push (or ask) again")),
            ("cut (next: vend", "cut", Some("vend")),
            (
                "it last said: no (next: rm -r /) (next: vend why a/b)",
                "it last said: no (next: rm -r /)",
                Some("vend why a/b"),
            ),
        ] {
            assert_eq!(
                without_next(cause),
                (text.to_owned(), next.map(Into::into)),
                "{cause}"
            );
        }
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(duration(SignedDuration::from_millis(850)), "850 ms");
        assert_eq!(duration(SignedDuration::from_millis(4250)), "4.2 s");
        assert_eq!(duration(SignedDuration::from_secs(7500)), "2 h 5 min");
        assert_eq!(exact(SignedDuration::from_secs(3605)), "1 h 0 min 5 s");
        assert_eq!(exact(SignedDuration::from_secs(90_000)), "1 d 1 h 0 min 0 s");
        assert_eq!(exact(SignedDuration::from_secs(65)), "1 min 5 s");
        assert_eq!(size(512), "512 B");
        assert_eq!(size(3_565_158), "3.4 MiB");
        assert_eq!(headline("one two three\nfour", 8), "one two…");
    }
}
