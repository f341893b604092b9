//! Copies of logs that another machine writes, piece by piece while they grow.
//!
//! The length of the copy says how far it came: a piece that comes again changes nothing, and whoever copies can begin
//! anew at any time. The times are those of the original.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use model::port::{LogChunk, LogRef};
use serde::{Deserialize, Serialize};

use super::{Directory, Error, Mask, io_error, kept};

/// One copy at a time: two that know of the same length would both add to it.
static TURN: Mutex<()> = Mutex::new(());

/// A piece of a log that is written elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// Where the original begins in the copy, in bytes: before it stands what was said here.
    pub base: u64,
    /// Where the piece begins in the original, in bytes.
    pub from: u64,
    pub chunk: LogChunk,
}

impl Directory {
    /// How long a log is, in bytes; 0 when there is none.
    pub fn length(&self, log: &LogRef) -> u64 {
        let path = self.path(log);
        match path.metadata() {
            Ok(metadata) => metadata.len(),
            Err(_) => kept::Kept::open(&path).map_or(0, |kept| kept.length),
        }
    }

    /// Adds a piece to the copy, which is never longer than `most`. Gives where to go on in the original: behind the piece,
    /// or before it when the copy is not that far.
    pub fn copy(&self, log: &LogRef, piece: &Piece, most: u64) -> Result<u64, Error> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let Piece { base, from, chunk } = piece;
        let length = self.length(log);
        let there = length.saturating_sub(*base);
        if there < *from && length < most {
            return Ok(there);
        }
        let bytes = fitted(&chunk.text, chunk.next.saturating_sub(*from));
        let known = usize::try_from(there.saturating_sub(*from)).unwrap_or(usize::MAX);
        let room = usize::try_from(most.saturating_sub(length)).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        let new = &new[..new.len().min(room)];
        if new.is_empty() && (!chunk.ended || self.has_ended(log)) {
            return Ok(chunk.next);
        }
        let mut writer = self.append(log, Mask::default(), u64::MAX)?;
        let mut at = from + known as u64;
        for (until, time) in spans(chunk, at, at + new.len() as u64) {
            let start = usize::try_from(at - from).unwrap_or(usize::MAX);
            let end = usize::try_from(until - from).unwrap_or(usize::MAX);
            let part = bytes.get(start..end).unwrap_or_default();
            let added = writer.add_at(part, time);
            added.map_err(io_error("write", &self.path(log)))?;
            at = until;
        }
        if chunk.ended {
            writer.end()?;
        }
        Ok(chunk.next)
    }

    /// One line of the platform's own in a log that goes on. Gives how long the log is then, in bytes.
    pub fn say(&self, log: &LogRef, line: &str) -> Result<u64, Error> {
        let mut writer = self.append(log, Mask::default(), u64::MAX)?;
        let now = crate::now().strftime("%Y/%m/%d %H:%M:%S%.6f");
        writer.line(format!("[Container] {now} {line}"))?;
        Ok(writer.position())
    }

    fn has_ended(&self, log: &LogRef) -> bool {
        self.chunk(log, self.length(log)).is_ok_and(|chunk| chunk.ended)
    }
}

/// The text as so many bytes as it was. What was no text had other bytes, and has as many `?`.
fn fitted(text: &str, bytes: u64) -> Vec<u8> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if text.len() == bytes {
        return text.as_bytes().to_vec();
    }
    let mut plain = text.replace('\u{FFFD}', "?").into_bytes();
    let last = plain
        .iter()
        .rposition(|byte| *byte == b'?')
        .unwrap_or(plain.len());
    // A piece of a log has an end, and who says another one gets no more than was said.
    let lacking = bytes.saturating_sub(plain.len()).min(2 * text.len());
    plain.splice(last..last, std::iter::repeat_n(b'?', lacking));
    plain.truncate(bytes);
    plain
}

/// The parts of `from..to` that came in one second each: where each ends, and when it came.
fn spans(chunk: &LogChunk, from: u64, to: u64) -> Vec<(u64, Timestamp)> {
    if from >= to {
        return Vec::new();
    }
    let before = chunk.times.iter().rev().find(|time| time.from <= from);
    let mut at = before.map_or_else(crate::now, |time| time.at);
    let mut spans = Vec::new();
    for time in chunk
        .times
        .iter()
        .filter(|time| time.from > from && time.from < to)
    {
        spans.push((time.from, at));
        at = time.at;
    }
    // Whoever sends them may send them in any order.
    spans.sort_by_key(|(until, _)| *until);
    spans.push((to, at));
    spans
}

#[cfg(test)]
mod tests {
    use camino::Utf8Path;
    use model::port::LogTime;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_copy_has_what_the_original_has_with_its_times_whatever_comes_twice() {
        let temporary = tempfile::tempdir().unwrap();
        let logs = Directory::open(Utf8Path::from_path(temporary.path()).unwrap()).unwrap();
        let log: LogRef = "build/t-1".parse().unwrap();
        let base = logs.say(&log, "Waiting").unwrap();
        let said = logs.chunk(&log, 0).unwrap().text;
        let piece = |from: u64, text: &str, ended, times: &[(u64, i64)]| Piece {
            base,
            from,
            chunk: LogChunk {
                text: text.to_owned(),
                next: from + text.len() as u64,
                ended,
                times: times
                    .iter()
                    .map(|(from, at)| LogTime {
                        from: *from,
                        at: second(*at),
                    })
                    .collect(),
            },
        };
        let copy = |piece: &Piece| logs.copy(&log, piece, 1000).unwrap();
        let one = piece(0, "one\n", false, &[(0, 10)]);
        assert_eq!(copy(&one), 4);
        assert_eq!(copy(&one), 4);
        // Half of it is known.
        assert_eq!(
            copy(&piece(2, "e\ntwo\nend\n", false, &[(0, 10), (4, 20), (8, 30)])),
            12
        );
        // What is before it is not there.
        assert_eq!(copy(&piece(20, "later\n", false, &[])), 12);
        let chunk = logs.chunk(&log, 0).unwrap();
        assert_eq!(chunk.text, format!("{said}one\ntwo\nend\n"));
        let times: Vec<_> = chunk.times.iter().map(|time| (time.from, time.at)).collect();
        let own = [(base, second(10)), (base + 4, second(20)), (base + 8, second(30))];
        assert_eq!(times[1..], own);
        assert!(!chunk.ended);
        let last = piece(12, "", true, &[]);
        assert_eq!((copy(&last), copy(&last)), (12, 12));
        assert!(logs.chunk(&log, chunk.next).unwrap().ended);
        // One that was ended goes on, as a build that is tried again does.
        assert_eq!(copy(&piece(12, "again\n", false, &[])), 18);
        assert!(!logs.chunk(&log, 0).unwrap().ended);
    }

    #[test]
    fn a_copy_is_bounded_and_what_is_no_text_has_its_bytes() {
        let temporary = tempfile::tempdir().unwrap();
        let logs = Directory::open(Utf8Path::from_path(temporary.path()).unwrap()).unwrap();
        let log: LogRef = "build/t-1".parse().unwrap();
        let piece = |from, text: &str, next| Piece {
            base: 0,
            from,
            chunk: LogChunk {
                text: text.to_owned(),
                next,
                ended: false,
                times: Vec::new(),
            },
        };
        // Of two bytes that were no text one was shown.
        assert_eq!(logs.copy(&log, &piece(0, "a\u{FFFD}b\n", 5), 8).unwrap(), 5);
        assert_eq!(logs.chunk(&log, 0).unwrap().text, "a??b\n");
        assert_eq!(logs.copy(&log, &piece(5, "12345", 10), 8).unwrap(), 10);
        assert_eq!(logs.copy(&log, &piece(10, "12345", 15), 8).unwrap(), 15);
        assert_eq!(logs.chunk(&log, 0).unwrap().text, "a??b\n123");
        assert_eq!(fitted("abc", u64::MAX).len(), 9);
    }
}
