//! Keys that stand twice in one object of a definition. A reader of JSON keeps the last of them and says nothing.

use crate::check::{Code, Report, join};
use std::collections::BTreeSet;

/// A key that was there before.
pub struct Twice {
    key: String,
    pointer: String,
    /// Where it stands in the text.
    byte: usize,
}

/// Finds them in a text that is JSON, in its order; `most` at most.
pub fn find(text: &str, most: usize) -> Vec<Twice> {
    let mut scan = Scan {
        text,
        open: Vec::new(),
        found: Vec::new(),
    };
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at)
        && scan.found.len() < most
    {
        match byte {
            b'"' => {
                let end = end(bytes, at);
                scan.string(at, end);
                at = end;
                continue;
            }
            b'{' => scan.open.push(Open::Object {
                keys: BTreeSet::new(),
                key: None,
            }),
            b'[' => scan.open.push(Open::Array(0)),
            b'}' | b']' => drop(scan.open.pop()),
            b',' => scan.next(),
            _ => {}
        }
        at += 1;
    }
    scan.found
}

/// The states' names are errors, for which AWS has a code; others are doubtful.
pub fn report(all: &[Twice], states: bool, report: &mut Report) {
    for twice in all.iter().filter(|twice| is_state(&twice.pointer) == states) {
        let key = &twice.key;
        let (code, message) = match states {
            true => (Code::DuplicateStateName, format!("Duplicate State name: {key}")),
            false => (
                Code::DuplicateKey,
                format!("The key '{key}' stands twice in this object. The last one counts."),
            ),
        };
        report.add(&twice.pointer, code, message);
        report.byte(twice.byte);
    }
}

/// Whether a pointer is that of a state of the machine, a branch or an item processor.
fn is_state(pointer: &str) -> bool {
    let mut tokens = pointer.split('/').skip(1);
    loop {
        let (Some("States"), Some(_)) = (tokens.next(), tokens.next()) else {
            return false;
        };
        match tokens.next() {
            None => return true,
            Some("ItemProcessor" | "Iterator") => {}
            Some("Branches") => drop(tokens.next()),
            Some(_) => return false,
        }
    }
}

/// An object or array that the scan is in.
enum Open<'a> {
    Object {
        keys: BTreeSet<&'a str>,
        /// The one whose value is read.
        key: Option<&'a str>,
    },
    Array(usize),
}

struct Scan<'a> {
    text: &'a str,
    open: Vec<Open<'a>>,
    found: Vec<Twice>,
}

impl<'a> Scan<'a> {
    fn string(&mut self, start: usize, end: usize) {
        let Some(Open::Object {
            keys,
            key: key @ None,
        }) = self.open.last_mut()
        else {
            return;
        };
        // As it is written: a key that is written in two ways is not found, and nobody does that by mistake.
        let written = self
            .text
            .get(start + 1..end.saturating_sub(1))
            .unwrap_or_default();
        *key = Some(written);
        if !keys.insert(written) {
            self.found.push(Twice {
                key: plain(written),
                pointer: self.pointer(),
                byte: start,
            });
        }
    }

    fn next(&mut self) {
        match self.open.last_mut() {
            Some(Open::Object { key, .. }) => *key = None,
            Some(Open::Array(at)) => *at += 1,
            None => {}
        }
    }

    fn pointer(&self) -> String {
        self.open.iter().fold(String::new(), |pointer, open| match open {
            Open::Object { key, .. } => join(&pointer, &plain(key.unwrap_or_default())),
            Open::Array(at) => join(&pointer, &at.to_string()),
        })
    }
}

/// What a key says, of its text between the quotes.
fn plain(written: &str) -> String {
    serde_json::from_str(&format!("\"{written}\"")).unwrap_or_else(|_| written.to_owned())
}

/// Behind the string that begins at `at`.
fn end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        at += if *byte == b'\\' { 2 } else { 1 };
        if *byte == b'"' {
            break;
        }
    }
    at.min(bytes.len())
}
