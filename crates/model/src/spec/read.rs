//! Walking a YAML tree while collecting everything that is wrong with it.
//!
//! A reader never stops at the first problem: a value that cannot be read is reported and taken as absent.

use jiff::SignedDuration;

use super::yaml::{self, Document, Node, Value};
use crate::Problem;

/// The start of every message about something that the platform knows and does not build yet, after the name of the
/// thing: `` `canary` is not available yet``. What a message without it says is invalid.
pub const LATER: &str = "is not available yet";

/// Does the problem say that something is not built yet, rather than that the file is wrong?
pub fn is_later(problem: &Problem) -> bool {
    problem.message.contains(LATER)
}

/// Collects the problems of one file.
#[derive(Debug)]
pub struct Reader<'f> {
    pub file: &'f str,
    pub problems: Vec<Problem>,
}

impl<'f> Reader<'f> {
    pub fn new(file: &'f str) -> Self {
        Self {
            file,
            problems: Vec::new(),
        }
    }

    /// The root mapping of `text`; what stands in the way is a problem.
    pub fn document(&mut self, text: &str) -> Option<Node> {
        self.root(yaml::parse(self.file, text))
    }

    /// The same of a file that may have aliases.
    pub fn document_with_aliases(&mut self, text: &str) -> Option<Node> {
        self.root(yaml::parse_with_aliases(self.file, text))
    }

    fn root(&mut self, document: Result<Document, Problem>) -> Option<Node> {
        let Document {
            root,
            duplicates,
            second,
        } = match document {
            Ok(document) => document,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        for key in &duplicates {
            let name = quoted(key.text().unwrap_or_default());
            self.error(key, format!("{name} stands twice in the same mapping"));
        }
        if let Some((line, column)) = second {
            let message = "a second document starts here, and only one is read";
            self.problems
                .push(Problem::error(self.file, line, column, message));
        }
        root
    }

    pub fn error(&mut self, at: &Node, message: impl Into<String>) -> &mut Problem {
        self.problems
            .push(Problem::error(self.file, at.line, at.column, message));
        self.problems.last_mut().expect("one was pushed")
    }

    pub fn warn(&mut self, at: &Node, message: impl Into<String>) -> &mut Problem {
        self.problems
            .push(Problem::warning(self.file, at.line, at.column, message));
        self.problems.last_mut().expect("one was pushed")
    }

    /// Refuses what is known and not built.
    pub fn later(&mut self, at: &Node, what: &str) -> &mut Problem {
        self.error(at, format!("{} {LATER}", quoted(what)))
    }

    /// The entries of a mapping; nothing for an absent value; a problem for anything else.
    pub fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(Node, Node)] {
        match &node.value {
            Value::Mapping(entries) => entries,
            _ if node.is_null() => &[],
            _ => {
                self.error(
                    node,
                    format!("{} must be a mapping, not {}", quoted(what), node.kind()),
                );
                &[]
            }
        }
    }

    /// The items of a list; a single scalar is a list of one when `lenient`.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str, lenient: bool) -> &'n [Node] {
        match &node.value {
            Value::Sequence(items) => items,
            _ if node.is_null() => &[],
            Value::Scalar { .. } if lenient => std::slice::from_ref(node),
            _ => {
                self.error(
                    node,
                    format!("{} must be a list, not {}", quoted(what), node.kind()),
                );
                &[]
            }
        }
    }

    /// The text of a scalar as the file writes it: `3.10` stays `3.10`.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match node.text() {
            Some(text) if !node.is_null() => Some(text.to_owned()),
            _ => {
                self.error(
                    node,
                    format!("{} must be text, not {}", quoted(what), node.kind()),
                );
                None
            }
        }
    }

    /// Every item as text; a single scalar is a list of one.
    pub fn texts(&mut self, node: &Node, what: &str) -> Vec<String> {
        let items = self.list(node, what, true);
        items.iter().filter_map(|item| self.text(item, what)).collect()
    }

    /// `true` or `false`, and with `old` what YAML 1.1 takes for them too: `yes`, `no`, `on`, `off`.
    pub fn flag(&mut self, node: &Node, what: &str, old: bool) -> Option<bool> {
        let text = node.text().unwrap_or_default();
        match truth(text) {
            Some(value) if old || matches!(text, "true" | "false") => Some(value),
            _ => {
                let found = if node.text().is_some() && !node.is_null() {
                    quoted(text)
                } else {
                    node.kind().to_owned()
                };
                self.error(
                    node,
                    format!("{} must be true or false, not {found}", quoted(what)),
                );
                None
            }
        }
    }

    pub fn number(&mut self, node: &Node, what: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let found = node
            .text()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|value| range.contains(value));
        if found.is_none() {
            let (low, high) = range.into_inner();
            let found = shown(node);
            self.error(
                node,
                format!(
                    "{} must be a number from {low} to {high}, not {found}",
                    quoted(what)
                ),
            );
        }
        found
    }

    /// A length of time with its units: `90s`, `1h30m`, `500ms`.
    pub fn duration(
        &mut self,
        node: &Node,
        what: &str,
        range: std::ops::RangeInclusive<SignedDuration>,
    ) -> Option<SignedDuration> {
        let Some(value) = node.text().and_then(duration) else {
            let number = node
                .text()
                .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
            let found = shown(node);
            let problem = self.error(
                node,
                format!(
                    "{} must be a time with its unit, such as `10m`, not {found}",
                    quoted(what)
                ),
            );
            problem.help = number.map(|text| format!("write `{text}s` for seconds"));
            return None;
        };
        if !range.contains(&value) {
            let (low, high) = (written(*range.start()), written(*range.end()));
            self.error(
                node,
                format!(
                    "{} must be from {low} to {high}, not {}",
                    quoted(what),
                    shown(node)
                ),
            );
            return None;
        }
        Some(value)
    }

    /// One of a few words.
    pub fn word<'w>(&mut self, node: &Node, what: &str, words: &[&'w str]) -> Option<&'w str> {
        let found = node
            .text()
            .and_then(|text| words.iter().find(|word| **word == text));
        if found.is_none() {
            let near = node.text().and_then(|text| nearest(text, words.iter().copied()));
            let message = format!(
                "{} must be {}, not {}",
                quoted(what),
                words
                    .iter()
                    .map(|word| format!("`{word}`"))
                    .collect::<Vec<_>>()
                    .join(" or "),
                shown(node)
            );
            self.error(node, message).help = near.map(|near| format!("did you mean `{near}`?"));
        }
        found.copied()
    }

    /// Says that nobody knows `key`, and which known key is nearest.
    pub fn unknown<'w>(&mut self, key: &Node, of: &str, known: impl IntoIterator<Item = &'w str> + Clone) {
        let name = key.text().unwrap_or_default();
        let message = match of {
            "" => format!("{} is not a known key", quoted(name)),
            of => format!("{} is not a known key of `{of}`", quoted(name)),
        };
        let help = match nearest(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.error(key, message).help = Some(help);
    }

    /// Warns of keys that the file's own reader on AWS passes over without a word.
    pub fn ignored(&mut self, entries: &[(Node, Node)], of: &str, known: &[&str]) {
        for (key, _) in entries {
            let name = key.text().unwrap_or_default();
            if known.contains(&name) {
                continue;
            }
            let place = if of.is_empty() {
                String::new()
            } else {
                format!(" of `{of}`")
            };
            let message = format!(
                "{} is not a known key{place}: AWS ignores it without a word, and so does a push",
                quoted(name)
            );
            self.warn(key, message).help = Some(match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("take it out, or use one of: {}", known.join(", ")),
            });
        }
    }

    /// Value and warnings, or every problem; in the order of the file.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<(T, Vec<Problem>), Vec<Problem>> {
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
        self.problems.dedup();
        let failed = self.problems.iter().any(Problem::is_error);
        let problems = few(self.file, self.problems);
        match value {
            Some(value) if !failed => Ok((value, problems)),
            _ => Err(problems),
        }
    }
}

/// As many problems as a person reads; the number of the rest.
pub fn few(file: &str, mut problems: Vec<Problem>) -> Vec<Problem> {
    const MOST: usize = 100;
    if problems.len() > MOST {
        let rest = problems.split_off(MOST);
        let message = format!("{} more problems are not shown", rest.len());
        problems.push(match rest.iter().any(Problem::is_error) {
            true => Problem::error(file, 0, 0, message),
            false => Problem::warning(file, 0, 0, message),
        });
    }
    problems
}

/// The known word that `text` was most likely meant to be.
pub fn nearest<'w>(text: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let text: String = text.chars().take(64).collect();
    let folded = text.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|word| {
            (
                strsim::damerau_levenshtein(&folded, &word.to_lowercase().replace('-', "_")),
                word,
            )
        })
        .filter(|(distance, word)| *distance <= 1 + word.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A piece of the file in a message: in backticks, cut, without control characters.
pub fn quoted(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(61)
        .collect();
    match clean.chars().count() {
        61 => format!("`{}…`", clean.chars().take(60).collect::<String>()),
        _ => format!("`{clean}`"),
    }
}

/// A node in a message: its text if it has one, else what it is.
pub fn shown(node: &Node) -> String {
    match node.text() {
        Some(text) if !node.is_null() => quoted(text),
        _ => node.kind().to_owned(),
    }
}

/// What YAML 1.1 takes for a boolean (without the single letters, as libyaml's users do).
pub fn truth(text: &str) -> Option<bool> {
    let cased = |word: &str| {
        let mut capital = word.to_owned();
        capital[..1].make_ascii_uppercase();
        text == word || text == capital || text == word.to_uppercase()
    };
    match () {
        () if ["true", "yes", "on"].into_iter().any(cased) => Some(true),
        () if ["false", "no", "off"].into_iter().any(cased) => Some(false),
        () => None,
    }
}

/// `1h30m`, `500ms`, `7d`: whole numbers, each with its unit, largest first.
pub fn duration(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, i64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let (mut rest, mut total, mut last) = (text.trim(), 0i64, None);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = UNITS
            .iter()
            .position(|(unit, _)| *unit == &rest[digits..digits + letters])?;
        if last.is_some_and(|last| last >= unit) {
            return None;
        }
        last = Some(unit);
        total = total.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        rest = &rest[digits + letters..];
    }
    Some(SignedDuration::from_millis(total))
}

/// The way back: `90m` is written `1h30m`. Days are written from two on, and only whole ones: `24h`, `36h`, `7d`.
pub fn written(duration: SignedDuration) -> String {
    const DAY: i128 = 86_400_000;
    let mut rest = duration.as_millis();
    if rest >= 2 * DAY && rest % DAY == 0 {
        return format!("{}d", rest / DAY);
    }
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= size {
            text += &format!("{}{unit}", rest / size);
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
