//! The newest lines of the access log that are about one tenant, app or environment.
//!
//! Files are read from their ends, the newest first, so that it costs what is looked at and not what there is.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
};

use camino::Utf8Path;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rotate;

/// Bytes that are read at once, and of one answer's looking at all.
const PIECE: u64 = 256 * 1024;
pub const LOOKED_AT: u64 = 64 * 1024 * 1024;
/// Lines of one answer.
const LINES: usize = 10_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Newest {
    /// `TENANT`, `TENANT/APP` or `TENANT/APP/ENVIRONMENT`; empty: whatever it is about.
    pub of: String,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// At most so many lines.
    pub lines: usize,
}

/// The newest lines, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    pub lines: Vec<String>,
    /// There are no older ones in the log.
    pub all: bool,
}

/// Of a log of short lines: of its newest file and those before it.
pub fn newest(path: &Utf8Path, wanted: &Newest) -> io::Result<Lines> {
    let mut search = Search {
        wanted,
        most: wanted.lines.min(LINES),
        budget: LOOKED_AT,
        found: Vec::new(),
    };
    let mut all = true;
    // Those before it are beside what a link leads to.
    let real = path.canonicalize_utf8();
    let path = real.as_deref().unwrap_or(path);
    // Opened before the others are looked for: should it be renamed meanwhile, it is among them, and is not read twice.
    let first = open(path)?;
    let here = first.as_ref().map(File::metadata).transpose()?;
    let here = here.map(|metadata| (metadata.dev(), metadata.ino()));
    let mut files = first.into_iter().collect::<Vec<_>>();
    let mut older = rotate::older(path).or_else(none)?.into_iter();
    loop {
        for mut file in files.drain(..) {
            match search.file(&mut file)? {
                End::Start => {}
                End::Since => older = Vec::new().into_iter(),
                End::Enough => {
                    all = false;
                    older = Vec::new().into_iter();
                }
            }
        }
        let Some(next) = older.next() else { break };
        // One that is gone by now was the oldest.
        let Some(file) = open(&next)? else { break };
        let metadata = file.metadata()?;
        if here != Some((metadata.dev(), metadata.ino())) {
            files.push(file);
        }
    }
    search.found.reverse();
    Ok(Lines {
        all,
        lines: search.found,
    })
}

fn open(path: &Utf8Path) -> io::Result<Option<File>> {
    File::open(path).map(Some).or_else(none)
}

/// What is not there is nothing.
fn none<T: Default>(error: io::Error) -> io::Result<T> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(T::default()),
        _ => Err(error),
    }
}

struct Search<'a> {
    wanted: &'a Newest,
    most: usize,
    /// Bytes that may still be looked at.
    budget: u64,
    /// Newest first.
    found: Vec<String>,
}

/// Where the search of a file ended.
enum End {
    /// All of it was looked at.
    Start,
    /// The rest is older than what is wanted.
    Since,
    /// There is enough, or enough was looked at.
    Enough,
}

impl Search<'_> {
    fn file(&mut self, file: &mut File) -> io::Result<End> {
        let length = file.metadata()?.len();
        let stop = length.saturating_sub(self.budget);
        // Of the piece before, what its first line feed has before it: the end of a line that begins earlier.
        let (mut rest, mut from) = (Vec::new(), length);
        while from > stop && self.found.len() < self.most {
            let to = from;
            from = to.saturating_sub(PIECE).max(stop);
            self.budget -= to - from;
            let mut piece = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
            file.seek(SeekFrom::Start(from))?;
            file.read_exact(&mut piece)?;
            piece.append(&mut rest);
            let begin = match from {
                0 => 0,
                _ => piece
                    .iter()
                    .position(|b| *b == b'\n')
                    .map_or(piece.len(), |at| at + 1),
            };
            if !self.lines(&piece[begin..]) {
                return Ok(End::Since);
            }
            piece.truncate(begin);
            // A line that is longer than any is not gone on with.
            if from > 0 && piece.len() as u64 <= 2 * PIECE {
                rest = piece;
            }
        }
        match from == 0 && self.found.len() < self.most {
            true => Ok(End::Start),
            false => Ok(End::Enough),
        }
    }

    /// Looks at whole lines, the last first. False: the others are too old.
    fn lines(&mut self, piece: &[u8]) -> bool {
        let lines = piece.split(|b| *b == b'\n').rev();
        for line in lines.filter(|line| !line.is_empty()) {
            let Ok(line) = str::from_utf8(line) else { continue };
            let Some((at, place)) = about(line) else { continue };
            if self.wanted.since.is_some_and(|since| at < since) {
                return false;
            }
            if is_of(place, &self.wanted.of) && self.found.len() < self.most {
                self.found.push(line.to_owned());
            }
        }
        true
    }
}

/// When a short line was written, and what it is about: a place, with the rest of a group's name after it.
pub fn about(line: &str) -> Option<(Timestamp, &str)> {
    let (at, rest) = line.split_once(' ')?;
    let quoted = rest.split_once(" \"")?.1;
    let mut escaped = false;
    let end = quoted.bytes().position(|b| {
        let end = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        end
    })?;
    // After the request: status, bytes, time, place.
    let place = quoted[end + 1..].split(' ').nth(4)?;
    Some((at.parse().ok()?, place))
}

fn is_of(place: &str, of: &str) -> bool {
    of.is_empty()
        || place
            .strip_prefix(of)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, place: &str, path: &str) -> String {
        let at = Timestamp::from_second(second).unwrap();
        format!("{at:.3} 127.0.0.1:9 \"GET a.test{path} HTTP/1.1\" 200 2 9us {place} h 10.0.0.1:80 id")
    }

    fn ask(text: &str, of: &str, since: Option<i64>, lines: usize) -> Lines {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("log");
        std::fs::write(&path, text).unwrap();
        let since = since.map(|since| Timestamp::from_second(since).unwrap());
        newest(
            &path,
            &Newest {
                of: of.into(),
                since,
                lines,
            },
        )
        .unwrap()
    }

    #[test]
    fn only_lines_of_the_place_are_given_newest_last() {
        let text = [
            line(1, "acme/shop/dev/v1", "/1"),
            line(2, "acme/shop/dev", "/2"),
            line(3, "acmeX/shop/dev/v1", "/3"),
            line(4, "other/shop/dev/v1", "/4"),
            line(5, "-", "/5"),
            line(6, "acme/blog/dev/v1", "/6 acme/shop/dev\\\" 200 2 9us other/x"),
        ];
        let lines =
            |numbers: &[usize]| -> Vec<String> { numbers.iter().map(|n| text[n - 1].clone()).collect() };
        let whole = text.join("\n") + "\n";
        for (of, since, most, numbers) in [
            ("acme", None, 9, &[1, 2, 6][..]),
            ("acme/shop", None, 9, &[1, 2]),
            ("acme/shop/dev", None, 1, &[2]),
            ("acme", Some(2), 9, &[2, 6]),
            ("other", None, 9, &[4]),
            ("", None, 9, &[1, 2, 3, 4, 5, 6]),
            ("nobody", None, 9, &[]),
        ] {
            let found = ask(&whole, of, since, most);
            assert_eq!(found.lines, lines(numbers), "{of} {since:?}");
            assert_eq!(found.all, numbers.len() < most, "{of} {since:?}");
        }
    }

    #[test]
    fn files_before_are_looked_at_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("log");
        let lines: Vec<String> = (1..=6).map(|n| line(n, "a/b/c/v1", &format!("/{n}"))).collect();
        let write = |name: &str, lines: &[String]| {
            std::fs::write(path.with_file_name(name), lines.join("\n") + "\n").unwrap();
        };
        write("log.20260101T000000000Z", &lines[..2]);
        write("log.20260102T000000000Z", &lines[2..4]);
        write("log", &lines[4..]);
        let ask = |since: Option<i64>, most| {
            let since = since.map(|since| Timestamp::from_second(since).unwrap());
            let of = "a".into();
            newest(
                &path,
                &Newest {
                    of,
                    since,
                    lines: most,
                },
            )
            .unwrap()
        };
        for (since, most, from, all) in [
            (None, 9, 0, true),
            (None, 3, 3, false),
            (Some(2), 9, 1, true),
            (Some(5), 9, 4, true),
        ] {
            let found = ask(since, most);
            assert_eq!(found.lines, lines[from..], "{since:?} {most}");
            assert_eq!(found.all, all, "{since:?} {most}");
        }
        // It was renamed after it had been opened: it is the newest of the others then, and nothing is said twice.
        std::fs::hard_link(&path, path.with_file_name("log.20260103T000000000Z")).unwrap();
        assert_eq!(ask(None, 9).lines, lines);
        // Between two files.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(ask(None, 9).lines, lines);
    }

    #[test]
    fn lines_go_over_the_seams_of_pieces() {
        let lines: Vec<String> = (0..9_000)
            .map(|n| line(n, "a/b/c/v1", &format!("/{n}/{}", "x".repeat(n as usize % 97))))
            .collect();
        let text = lines.join("\n") + "\n";
        assert!(text.len() as u64 > 3 * PIECE);
        assert_eq!(
            ask(&text, "a", None, 10_000),
            Lines {
                lines: lines.clone(),
                all: true
            }
        );
        assert_eq!(ask(&text, "a", None, 7).lines, lines[8_993..]);
        // What is no line of ours is passed over, however long it is.
        let text = format!("{}\n{}\n{}\n", lines[0], "y".repeat(900_000), lines[1]);
        assert_eq!(ask(&text, "a", None, 9).lines, lines[..2]);
    }
}
