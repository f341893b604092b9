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
        let escapes = trimmed.len() - trimmed.trim_end_matches('\\').len();
        match trimmed.strip_suffix('\\').filter(|_| escapes % 2 == 1) {
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

/// A word of a line: what it means, and how it was written.
struct Word<'a> {
    text: String,
    raw: &'a str,
}

/// Words, with quotes and backslashes as in a unit file. An open quote ends with the text.
pub fn split(text: &str) -> Vec<String> {
    words(text).map(|word| word.text).collect()
}

fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text.trim_start();
    std::iter::from_fn(move || {
        let (text, end) = (!rest.is_empty()).then(|| word(rest))?;
        let (raw, tail) = rest.split_at(end);
        rest = tail.trim_start();
        Some(Word { text, raw })
    })
}

/// The first word, and where it ends.
fn word(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (_, '\\') => match escape(chars.as_str()) {
                Some((meant, length)) => {
                    word.push(meant);
                    chars.nth(length - 1);
                }
                // What is no escape stays as it is written: other programs have their own.
                None => word.extend([Some(c), chars.next().map(|(_, c)| c)].into_iter().flatten()),
            },
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => return (word, at),
            (_, c) => word.push(c),
        }
    }
    (word, text.len())
}

/// What the characters behind a backslash stand for, and how many they are. `None` when they are no escape.
fn escape(rest: &str) -> Option<(char, usize)> {
    let number = |skip: usize, digits: usize, radix: u32| {
        let text = rest.get(skip..skip + digits)?;
        let code = text.chars().try_fold(0_u32, |code, c| {
            code.checked_mul(radix)?.checked_add(c.to_digit(radix)?)
        })?;
        let c = char::from_u32(code).filter(|c| *c != '\0')?;
        // A byte beyond ASCII is not a character.
        (digits > 3 || c.is_ascii()).then_some((c, skip + digits))
    };
    let c = match rest.chars().next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        c @ ('\\' | '"' | '\'') => c,
        'x' => return number(1, 2, 16),
        'u' => return number(1, 4, 16),
        'U' => return number(1, 8, 16),
        '0'..='7' => return number(0, 3, 8),
        _ => return None,
    };
    Some((c, 1))
}

/// The command lines of one `Exec…=` value, each with its prefixes: a semicolon that is a word of its own, and neither in
/// quotes nor behind a backslash, stands between two. What cannot be executed is given as it was written.
pub fn commands(value: &str, unit: &str) -> Vec<Result<Line, String>> {
    let all: Vec<Word<'_>> = words(value).collect();
    all.split(|word| word.raw == ";")
        .filter(|part| !part.is_empty())
        .map(|part| {
            let raw = || part.iter().map(|word| word.raw).collect::<Vec<_>>().join(" ");
            command(part, unit).ok_or_else(raw)
        })
        .collect()
}

/// `None` when there is nothing to execute.
fn command(words: &[Word<'_>], unit: &str) -> Option<Line> {
    let (first, rest) = words.split_first()?;
    let program = first.text.trim_start_matches(['-', '@', ':', '+', '!']);
    let prefixes = &first.text[..first.text.len() - program.len()];
    let others = rest.iter().map(|word| match word.raw {
        "\\;" => ";",
        _ => word.text.as_str(),
    });
    let line = Line {
        arguments: [program]
            .into_iter()
            .chain(others)
            .map(|word| expand(word, unit))
            .collect(),
        ignore_failure: prefixes.contains('-'),
        named: prefixes.contains('@'),
        literal: prefixes.contains(':'),
        privileged: prefixes.contains(['+', '!']),
    };
    (!program.is_empty() && (!line.named || line.arguments.len() > 1)).then_some(line)
}

/// Specifiers (`systemd.unit(5)`): of the unit's name, of the host, of the user that it runs for, which is root, and the
/// usual directories. Others stay as they are.
pub fn expand(text: &str, unit: &str) -> String {
    let stem = match kind(unit) {
        Some(_) => unit.rsplit_once('.').map_or(unit, |(stem, _)| stem),
        None => unit,
    };
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let last = prefix.rsplit('-').next().unwrap_or(prefix);
    let uname = rustix::system::uname;
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
            Some('P') => out.push_str(&unescaped(prefix)),
            Some('j') => out.push_str(last),
            Some('J') => out.push_str(&unescaped(last)),
            Some('i') => out.push_str(instance),
            Some('I') => out.push_str(&unescaped(instance)),
            Some('f') => {
                let name = unescaped(if instance.is_empty() { prefix } else { instance });
                out.extend(["/", name.trim_start_matches('/')]);
            }
            Some('H') => out.push_str(&uname().nodename().to_string_lossy()),
            Some('l') => {
                let name = uname().nodename().to_string_lossy().into_owned();
                out.push_str(name.split('.').next().unwrap_or_default());
            }
            Some('v') => out.push_str(&uname().release().to_string_lossy()),
            Some('u' | 'g') => out.push_str("root"),
            Some('U' | 'G') => out.push('0'),
            Some('h') => out.push_str("/root"),
            Some('t') => out.push_str("/run"),
            Some('S') => out.push_str("/var/lib"),
            Some('C') => out.push_str("/var/cache"),
            Some('L') => out.push_str("/var/log"),
            Some('E') => out.push_str("/etc"),
            Some('T') => out.push_str("/tmp"),
            Some('V') => out.push_str("/var/tmp"),
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

/// Variables of a command line: `${NAME}` anywhere in a word, `$NAME` as a word of its own, whose value is split.
pub fn expand_line<'a>(line: &Line, value: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
    if line.literal {
        return line.arguments.clone();
    }
    let mut words = Vec::new();
    for word in &line.arguments {
        match word.strip_prefix('$') {
            Some(name) if is_name(name) => words.extend(split_value(value(name).unwrap_or_default())),
            _ => words.push(braces(word, &value)),
        }
    }
    words
}

/// The words of a variable's value: quotes hold together what is in them and go, and a backslash, which goes too, makes the
/// next character one as any other, in quotes of either kind as well. Unlike in a unit file there are no escapes.
fn split_value(value: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None, None);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_ascii_whitespace() => words.extend(word.take()),
            // A word begins with its quote or its backslash, also where nothing follows.
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_with(String::new);
            }
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => word.get_or_insert_with(String::new).extend(chars.next()),
            (_, c) => word.get_or_insert_with(String::new).push(c),
        }
    }
    words.extend(word);
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
        let words = |line: &str| expand_line(commands(line, "u")[0].as_ref().unwrap(), value);
        assert_eq!(
            words("/bin/x --port=${PORT} $OPTS $NONE ${NONE} $$x a$b"),
            ["/bin/x", "--port=8080", "-a", "-b", "", "$x", "a$b"]
        );
        assert_eq!(words(":/bin/x ${PORT}")[1], "${PORT}");
    }

    #[test]
    fn quotes_in_a_variable_hold_together_what_is_in_them() {
        for (text, expected) in [
            ("-a  -b\t-c\n-d", &["-a", "-b", "-c", "-d"][..]),
            (
                r#"-Dx="y z" 'two two' too 'it'"s"#,
                &["-Dx=y z", "two two", "too", "its"],
            ),
            ("'' a \"\"", &["", "a", ""]),
            (r"a\ b 'c\'d' \n \\", &["a b", "c'd", "n", "\\"]),
            ("'open to the end", &["open to the end"]),
            (r"end\", &["end"]),
            (r"\", &[""]),
            (" \t", &[]),
        ] {
            let line = commands("/bin/x $V ${V}", "u").remove(0).unwrap();
            let words = expand_line(&line, |_| Some(text));
            let (last, split) = words[1..].split_last().unwrap();
            assert_eq!(split, expected, "{text}");
            assert_eq!(last, text);
        }
    }

    #[test]
    fn words_with_quotes_and_escapes() {
        for (text, expected) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            ("'a b' \"c 'd'\" e\"f g\"h", &["a b", "c 'd'", "ef gh"]),
            ("'' \"\"", &["", ""]),
            (r"a\sb \x41\u00fc\101 '\'' \n", &["a b", "A\u{fc}A", "'", "\n"]),
            // Escapes of other programs: regular expressions, sed, the shell.
            (
                r"'\d+' s/\(x\)/y/ \$HOME \xzz \400 \0",
                &[r"\d+", r"s/\(x\)/y/", r"\$HOME", r"\xzz", r"\400", r"\0"],
            ),
            ("'open to the end", &["open to the end"]),
            (r"end\", &[r"end\"]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn a_semicolon_between_commands_stands_alone() {
        for (text, expected) in [
            ("/bin/a x ; /bin/b", &["/bin/a x", "/bin/b"][..]),
            ("/bin/sh -c 'a ; b' ; -/bin/c", &["/bin/sh -c a ; b", "/bin/c"]),
            (r"/bin/find -exec x \; -print", &["/bin/find -exec x ; -print"]),
            ("/bin/a; /bin/b", &["/bin/a; /bin/b"]),
            ("; /bin/a ;", &["/bin/a"]),
        ] {
            let lines: Vec<String> = commands(text, "u")
                .into_iter()
                .map(|line| line.unwrap().arguments.join(" "))
                .collect();
            assert_eq!(lines, expected, "{text}");
        }
        assert!(
            commands("/bin/sh -c 'a ; b' ; -/bin/c", "u")[1]
                .as_ref()
                .unwrap()
                .ignore_failure
        );
        let line = commands("-@!!\"/opt/my app\" name", "u").remove(0).unwrap();
        assert_eq!(line.arguments, ["/opt/my app", "name"]);
        assert!(line.ignore_failure && line.named && line.privileged && !line.literal);
        for nothing in ["-", "@/bin/a", "/bin/a ; -"] {
            assert!(commands(nothing, "u").iter().any(Result::is_err), "{nothing}");
        }
    }

    #[test]
    fn a_line_goes_on_behind_a_backslash_of_its_own() {
        assert_eq!(logical_lines("a \\\n# no\n  b\\\\\nc\n"), ["a  b\\\\", "c"]);
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
        assert_eq!(
            expand("%j %J %P %f", r"a\x2db-c\x2dd@srv-www"),
            r"c\x2dd c-d a-b/c-d /srv/www"
        );
        assert_eq!(expand("%u%U %h %T %V %z%", "a"), "root0 /root /tmp /var/tmp %z%");
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(expand("%H", "a"), host);
        assert!(host.starts_with(&expand("%l", "a")) && !expand("%l", "a").contains(['.', '%']));
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
