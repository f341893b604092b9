//! A table as lines, each with its own checksum: first how many the table has, then the table in pieces, groups before
//! the rules that name them, then every change since.
//!
//! So it lies on disk, and so a whole one comes and goes over the admin socket. Neither end ever has more of it as text
//! or as plain values than one piece.

use std::io::{self, Read};

use model::route::{Delta, Invalid, Rule, TargetGroup};
use serde::{Deserialize, Serialize};

/// Rules or groups in one line of the table.
pub const PIECE: usize = 256;
/// Bytes of one line. A change of everything at once has room.
pub const LINE: usize = 256 * 1024 * 1024;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u64,
    /// Lines of the table that follow.
    lines: usize,
}

/// The lines of a whole table.
pub fn table(
    version: u64,
    groups: impl ExactSizeIterator<Item = (String, TargetGroup)>,
    rules: impl ExactSizeIterator<Item = Rule>,
) -> impl Iterator<Item = serde_json::Result<Vec<u8>>> {
    let lines = groups.len().div_ceil(PIECE) + rules.len().div_ceil(PIECE);
    let head = std::iter::once_with(move || line(&Head { version, lines }));
    let groups = pieces(groups, PIECE).map(|piece| {
        line(&Delta {
            target_groups: piece.into_iter().collect(),
            ..Delta::default()
        })
    });
    let rules = pieces(rules, PIECE).map(|rules| {
        line(&Delta {
            rules,
            ..Delta::default()
        })
    });
    head.chain(groups).chain(rules)
}

/// So many at a time.
pub fn pieces<T>(all: impl Iterator<Item = T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    let mut all = all;
    std::iter::from_fn(move || {
        let piece: Vec<T> = all.by_ref().take(size).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

/// One line with its checksum and its end.
pub fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = vec![b' '; 9];
    serde_json::to_writer(&mut line, value)?;
    let sum = format!("{:08x}", crc32fast::hash(&line[9..]));
    line[..8].copy_from_slice(sum.as_bytes());
    line.push(b'\n');
    Ok(line)
}

/// The content of a line that is as it was written.
fn whole(line: &[u8]) -> Option<&[u8]> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let sum = u32::from_str_radix(str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    (crc32fast::hash(json) == sum).then_some(json)
}

/// What was read, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Length {
    pub all: u64,
    pub table: u64,
}

/// What stopped the reading.
#[derive(Debug)]
pub enum Bad {
    Read(io::Error),
    /// Lines count from 1.
    Line(usize),
    Invalid(usize, Invalid),
}

/// Reads lines as they come, in any pieces.
#[derive(Default)]
pub struct Reader {
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    /// Lines that were read.
    read: usize,
    head: Option<Head>,
    length: Length,
    /// A line of a change is not as it was written: it must have been the last one.
    torn: bool,
}

impl Reader {
    /// Gives the table and every change since to `sink`, in order. Pieces of the table belong to no version but the last
    /// one, which has the table's.
    pub fn take(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Delta) -> Result<(), Invalid>,
    ) -> Result<(), Bad> {
        let mut bytes = bytes;
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, later) = bytes.split_at(end + 1);
            bytes = later;
            if self.rest.is_empty() {
                self.line(line, sink)?;
                continue;
            }
            let mut begun = std::mem::take(&mut self.rest);
            begun.extend_from_slice(line);
            self.line(&begun, sink)?;
            begun.clear();
            self.rest = begun;
        }
        let is_more = !bytes.is_empty() && self.torn;
        if is_more || self.rest.len() + bytes.len() > LINE {
            return Err(Bad::Line(self.next()));
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn line(&mut self, line: &[u8], sink: &mut impl FnMut(Delta) -> Result<(), Invalid>) -> Result<(), Bad> {
        let (number, in_table) = (self.next(), self.is_in_table());
        let Some(json) = whole(line).filter(|_| !self.torn && line.len() <= LINE) else {
            // The table was safe before it was acknowledged; a change may have been cut off.
            return match in_table || std::mem::replace(&mut self.torn, true) {
                true => Err(Bad::Line(number)),
                false => Ok(()),
            };
        };
        let damaged = |_| Bad::Line(number);
        let mut delta = Delta::default();
        match &self.head {
            None => self.head = Some(serde_json::from_slice(json).map_err(damaged)?),
            Some(_) => delta = serde_json::from_slice(json).map_err(damaged)?,
        }
        if let Some(head) = self.head.as_ref().filter(|_| in_table) {
            (delta.from, delta.version) = (Some(0), 0);
            if number == head.lines.saturating_add(1) {
                delta.version = head.version;
            }
        }
        sink(delta).map_err(|source| Bad::Invalid(number, source))?;
        self.read = number;
        self.length.all += line.len() as u64;
        if in_table {
            self.length.table = self.length.all;
        }
        Ok(())
    }

    /// Belongs the next line to the table?
    fn is_in_table(&self) -> bool {
        self.head.as_ref().is_none_or(|head| self.read <= head.lines)
    }

    /// The number of the next line.
    pub fn next(&self) -> usize {
        self.read + 1
    }

    /// Was a table read, and nothing after it?
    pub fn is_table(&self) -> bool {
        let nothing = self.rest.is_empty() && !self.torn && self.length.all == self.length.table;
        nothing && !self.is_in_table()
    }

    /// There is no more. A last line that is not whole is left out, but for one of the table.
    pub fn end(self) -> Result<Length, Bad> {
        match self.is_in_table() {
            true => Err(Bad::Line(self.next())),
            false => Ok(self.length),
        }
    }
}

/// Reads all lines.
pub fn parse(input: impl Read, sink: impl FnMut(Delta) -> Result<(), Invalid>) -> Result<Length, Bad> {
    const AT_ONCE: usize = 256 * 1024;
    let (mut input, mut sink) = (input, sink);
    let (mut reader, mut bytes) = (Reader::default(), vec![0; AT_ONCE]);
    loop {
        match input.read(&mut bytes) {
            Ok(0) => return reader.end(),
            Ok(count) => reader.take(&bytes[..count], &mut sink)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Bad::Read(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(version: u64) -> Vec<u8> {
        let from = Some(version - 1);
        line(&Delta {
            from,
            version,
            ..Delta::default()
        })
        .unwrap()
    }

    fn rule(priority: u32) -> Rule {
        let rule = serde_json::json!({
            "priority": priority, "place": {"tenant": "acme", "app": "shop", "environment": "dev"}, "hosts": [],
            "action": {"fixed-response": {"status": 200, "content_type": "text/plain", "body": ""}},
        });
        serde_json::from_value(rule).unwrap()
    }

    fn whole_table(rules: u32) -> Vec<u8> {
        let groups = [("a".to_owned(), TargetGroup::default())];
        let rules: Vec<Rule> = (0..rules).map(rule).collect();
        let lines = table(7, groups.into_iter(), rules.into_iter());
        lines.map(Result::unwrap).collect::<Vec<_>>().concat()
    }

    /// What comes out of bytes that come in pieces, and whether it is a table and nothing else.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<Delta>, bool, Length), Bad> {
        let (mut reader, mut deltas) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.take(piece, &mut |delta| {
                deltas.push(delta);
                Ok(())
            })?;
        }
        let is_table = reader.is_table();
        Ok((deltas, is_table, reader.end()?))
    }

    #[test]
    fn a_table_comes_in_pieces_of_which_the_last_has_its_version() {
        let bytes = whole_table(600);
        let (deltas, is_table, length) = read(&[&bytes]).unwrap();
        assert!(is_table && length.all == length.table && length.all == bytes.len() as u64);
        let versions: Vec<u64> = deltas.iter().map(|delta| delta.version).collect();
        assert_eq!(
            versions,
            [0, 0, 0, 0, 7],
            "a head, groups, and three pieces of rules"
        );
        assert!(deltas.iter().all(|delta| delta.from == Some(0)));
        let rules = deltas.iter().flat_map(|delta| &delta.rules);
        assert!(rules.map(|rule| rule.priority).eq(0..600));
    }

    #[test]
    fn what_is_behind_a_table_makes_it_none() {
        let table = whole_table(1);
        for more in [&change(8)[..], b"x", b"x\n", b"\n"] {
            let (_, is_table, length) = read(&[&table, more]).unwrap();
            assert!(!is_table);
            assert_eq!(length.table, table.len() as u64);
        }
        // Half a change at the end was never acknowledged; in front of another it is damage.
        let torn = &change(8)[..20];
        assert_eq!(read(&[&table, &change(8), torn]).unwrap().0.len(), 4);
        for bad in [b"x\n", b"\n\n"] {
            assert!(matches!(read(&[&table, bad, &change(8)]), Err(Bad::Line(4))));
        }
    }

    proptest! {
        #[test]
        fn cut_anywhere_it_reads_the_same(at in any::<prop::sample::Index>(), rules in 0..600u32) {
            let bytes = [whole_table(rules), change(8), change(9)].concat();
            let at = at.index(bytes.len());
            let (deltas, _, length) = read(&[&bytes]).unwrap();
            prop_assert_eq!(length.all, bytes.len() as u64);
            let (again, _, _) = read(&[&bytes[..at], &bytes[at..]]).unwrap();
            prop_assert_eq!(&again, &deltas);
            // And cut off, it is what came before, or damage of the table.
            match read(&[&bytes[..at]]) {
                Ok((before, _, cut)) => prop_assert!(cut.table <= at as u64 && deltas.starts_with(&before)),
                Err(Bad::Line(_)) => prop_assert!((at as u64) < length.table),
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
