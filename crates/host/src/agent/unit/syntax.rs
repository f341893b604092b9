//! Lines, quotes, specifiers, variables and times of unit files.
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.syntax.html>

use std::time::Duration;

use super::Line;
use crate::agent::units::kind;

/// Lines with continuations joined, without comments and empty ones.
pub fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && open.is_none()) {
            continue;
        }
        let mut joined = open.take().unwrap_or_default();
        match trimmed.strip_suffix('\\') {
            Some(start) => {
                joined.push_str(start);
                joined.push(' ');
                open = Some(joined);
            }
            None => {
                joined.push_str(trimmed);
                lines.push(joined);
            }
        }
    }
    lines.extend(open);
    lines
}

/// Words, with quotes and backslashes as in a unit file. An open quote ends with the text.
pub fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') => word.get_or_insert_default().extend(chars.next().map(unescape)),
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn unescape(c: char) -> char {
    match c {
        'n' => '\n',
        't' => '\t',
        's' => ' ',
        c => c,
    }
}

/// One `Exec…=` value with its prefixes. `None` when there is nothing to execute.
pub fn command(value: &str, unit: &str) -> Option<Line> {
    let mut line = Line {
        arguments: Vec::new(),
        ignore_failure: false,
        named: false,
        literal: false,
        privileged: false,
    };
    let mut rest = value;
    while let Some(prefix) = rest.chars().next() {
        match prefix {
            '-' => line.ignore_failure = true,
            '@' => line.named = true,
            ':' => line.literal = true,
            '+' | '!' => line.privileged = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    line.arguments = split(rest).iter().map(|word| expand(word, unit)).collect();
    (!line.arguments.is_empty() && (!line.named || line.arguments.len() > 1)).then_some(line)
}

/// Specifiers: `%n`, `%N`, `%p`, `%i`, `%I`, the usual directories, `%%`. Others stay as they are.
pub fn expand(text: &str, unit: &str) -> String {
    let stem = match kind(unit) {
        Some(_) => unit.rsplit_once('.').map_or(unit, |(stem, _)| stem),
        None => unit,
    };
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') if kind(unit).is_some() => out.push_str(unit),
            Some('n') => out.extend([unit, ".service"]),
            Some('N') => out.push_str(stem),
            Some('p') => out.push_str(prefix),
            Some('i') => out.push_str(instance),
            Some('I') => out.push_str(&unescaped(instance)),
            Some('t') => out.push_str("/run"),
            Some('S') => out.push_str("/var/lib"),
            Some('C') => out.push_str("/var/cache"),
            Some('L') => out.push_str("/var/log"),
            Some('E') => out.push_str("/etc"),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// The path or text that an instance's name stands for: `-` is `/`, and `\xNN` a byte.
fn unescaped(instance: &str) -> String {
    let mut bytes = Vec::with_capacity(instance.len());
    let mut rest = instance.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'\\', b'x', high, low, ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                digit(*high)
                    .zip(digit(*low))
                    .and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            }
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(if *first == b'-' { b'/' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Variables of a command line: `${NAME}` anywhere in a word, `$NAME` as a word of its own, which is split again.
pub fn expand_line<'a>(line: &Line, value: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
    if line.literal {
        return line.arguments.clone();
    }
    let mut words = Vec::new();
    for word in &line.arguments {
        match word.strip_prefix('$') {
            Some(name) if is_name(name) => {
                words.extend(
                    value(name)
                        .unwrap_or_default()
                        .split_whitespace()
                        .map(str::to_owned),
                );
            }
            _ => words.push(braces(word, &value)),
        }
    }
    words
}

fn braces<'a>(word: &str, value: &impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let name = tail
            .strip_prefix('{')
            .and_then(|tail| tail.split_once('}'))
            .map(|(name, _)| name);
        match name {
            Some(name) if is_name(name) => {
                out.push_str(value(name).unwrap_or_default());
                rest = &tail[name.len() + 2..];
            }
            _ => {
                out.push('$');
                rest = tail.strip_prefix('$').unwrap_or(tail);
            }
        }
    }
    out.push_str(rest);
    out
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A time span: `90`, `2s`, `1min 30s`, `500ms`, `infinity` (which is a day here).
pub fn time(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        let tail = rest[digits..].trim_start();
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let unit = match &tail[..letters] {
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "ms" | "msec" => 0.001,
            "us" | "usec" => 0.000_001,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            // As systemd has them: 30.44 and 365.25 days.
            "M" | "month" | "months" => 2_629_800.0,
            "y" | "year" | "years" => 31_557_600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = tail[letters..].trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let value = |name: &str| match name {
            "PORT" => Some("8080"),
            "OPTS" => Some("-a -b"),
            _ => None,
        };
        let line = command("/bin/x --port=${PORT} $OPTS $NONE ${NONE} $$x a$b", "u").unwrap();
        assert_eq!(
            expand_line(&line, value),
            ["/bin/x", "--port=8080", "-a", "-b", "", "$x", "a$b"]
        );
        assert_eq!(
            expand_line(&command(":/bin/x ${PORT}", "u").unwrap(), value)[1],
            "${PORT}"
        );
    }

    #[test]
    fn specifiers() {
        assert_eq!(
            expand("%p %i %I %n %%", "db@15-main"),
            "db 15-main 15/main db@15-main.service %"
        );
        assert_eq!(expand("%I", r"a@x\x2dy"), "x-y");
        assert_eq!(expand("%n %N %i", "php8.2@a.timer"), "php8.2@a.timer php8.2@a a");
        assert_eq!(expand("%n", "php8.2"), "php8.2.service");
    }

    #[test]
    fn times() {
        for (text, milliseconds) in [
            ("90", 90_000),
            ("1min 30s", 90_000),
            ("500ms", 500),
            ("1.5", 1500),
            ("2w 1d", 1_296_000_000),
            ("1month", 2_629_800_000),
        ] {
            assert_eq!(time(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "x", "1 fortnight", "-1", "."] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
