//! The file of the log and those before it. A full or old file is renamed and a new one begun; of the old ones the oldest
//! go, so that all together are bounded.
//!
//! A file is renamed once and never again: whoever reads opens the newest first and then looks which others there are,
//! and misses nothing whatever is renamed meanwhile.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::LOOK;
use crate::clock;

/// When a file of the log gives way to a new one, and how much stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of one file; 0 is no limit.
    pub size: u64,
    /// How old a file gets; zero is no limit.
    pub age: Duration,
    /// Bytes of all files together, of which the oldest go; 0 is no limit. The newest of the full ones stays however long it
    /// is, until there is another: a log from before it was rotated may be longer than all this.
    pub keep: u64,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            size: 64 * 1024 * 1024,
            age: Duration::from_secs(24 * 3600),
            keep: 1024 * 1024 * 1024,
        }
    }
}

/// The file that is written now.
pub struct Current {
    path: Utf8PathBuf,
    rotation: Rotation,
    file: File,
    born: Timestamp,
    /// No new file is begun before: it could not be done.
    barred: Option<Instant>,
}

/// How a block fared.
#[derive(Debug)]
pub struct Written {
    /// Whether a new file was begun, if it was to be. The lines are in the one before if it could not.
    pub turned: io::Result<()>,
    pub written: io::Result<()>,
}

impl Current {
    pub fn open(path: &Utf8Path, rotation: Rotation) -> io::Result<Self> {
        let (file, born) = append(path)?;
        let current = Self {
            // A link would be renamed in the place of what it leads to.
            path: path.canonicalize_utf8()?,
            rotation,
            file,
            born,
            barred: None,
        };
        current.prune();
        Ok(current)
    }

    /// Whole lines: they are never in two files. They are written whether or not a new file can be begun.
    pub fn write(&mut self, lines: &[u8]) -> Written {
        Written {
            turned: self.turn(lines.len() as u64),
            written: self.file.write_all(lines),
        }
    }

    /// Begins a new file when this one has had its time, or has no room for so many bytes. What fails is tried again
    /// when `LOOK` is over.
    pub fn turn(&mut self, more: u64) -> io::Result<()> {
        if self.barred.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let turned = self.try_turn(more);
        self.barred = turned.is_err().then(|| Instant::now() + LOOK);
        turned
    }

    fn try_turn(&mut self, more: u64) -> io::Result<()> {
        if self.has_moved() {
            // Somebody else who rotates logs has renamed it, and expects a new one.
            self.begin()?;
        }
        let length = self.file.metadata()?.len();
        let Rotation { size, age, .. } = self.rotation;
        let full = size > 0 && length + more > size;
        let old = SignedDuration::try_from(age)
            .is_ok_and(|age| age > SignedDuration::ZERO && clock::now().duration_since(self.born) >= age);
        if length > 0 && (full || old) {
            rename(&self.path)?;
            self.begin()?;
            self.prune();
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        (self.file, self.born) = append(&self.path)?;
        Ok(())
    }

    fn has_moved(&self) -> bool {
        match (self.path.metadata(), self.file.metadata()) {
            (Ok(there), Ok(here)) => (there.dev(), there.ino()) != (here.dev(), here.ino()),
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Removes the oldest files, so that the others have room together with this one. Never the newest: nobody may have
    /// had the time to look at it.
    fn prune(&self) {
        let Rotation { size, keep, .. } = self.rotation;
        if keep == 0 {
            return;
        }
        let mut room = keep.saturating_sub(size);
        for (age, path) in older(&self.path).unwrap_or_default().into_iter().enumerate() {
            let length = path.metadata().map_or(0, |metadata| metadata.len());
            match room.checked_sub(length) {
                Some(left) => room = left,
                None if age == 0 => room = 0,
                None => {
                    room = 0;
                    if let Err(error) = std::fs::remove_file(&path) {
                        tracing::warn!(%error, %path, "an old access log cannot be removed");
                    }
                }
            }
        }
    }
}

/// Opens for more, and says since when there is something in it.
fn append(path: &Utf8Path) -> io::Result<(File, Timestamp)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let metadata = file.metadata()?;
    let born = match metadata.len() {
        0 => None,
        // Not every file system knows when a file was made; none forgets when it was changed.
        _ => metadata.created().or_else(|_| metadata.modified()).ok(),
    };
    let born = born.and_then(|born| Timestamp::try_from(born).ok());
    Ok((file, born.unwrap_or_else(clock::now)))
}

/// `access.log.20261121T170501123Z`: when it was full. Never takes the place of another.
fn rename(path: &Utf8Path) -> io::Result<()> {
    // Names are in the order of time even when the clock is set back.
    let newest = older(path)?.into_iter().next();
    let after = newest.as_deref().and_then(stamp).map(next);
    let mut now = after.map_or(clock::now(), |after| after.max(clock::now()));
    loop {
        let name = format!("{path}.{}", now.strftime(STAMP));
        match renameat_with(CWD, path.as_std_path(), CWD, &*name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => now = next(now),
            // A file system that cannot say no.
            Err(Errno::INVAL) if !Utf8Path::new(&name).exists() => return std::fs::rename(path, name),
            Err(error) => return Err(error.into()),
        }
    }
}

const STAMP: &str = "%Y%m%dT%H%M%S%3fZ";

fn next(at: Timestamp) -> Timestamp {
    at.saturating_add(SignedDuration::from_millis(1)).unwrap_or(at)
}

/// When a file of this name was full.
fn stamp(path: &Utf8Path) -> Option<Timestamp> {
    let at = DateTime::strptime(STAMP, path.extension()?).ok()?;
    at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

/// The files before this one, newest first.
pub fn older(path: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let folder = path.parent().filter(|folder| !folder.as_str().is_empty());
    let folder = folder.unwrap_or(Utf8Path::new("."));
    let own = path.file_name().unwrap_or_default();
    let mut names = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let name = entry?.file_name().to_owned();
        let stamp = name.strip_prefix(own).and_then(|rest| rest.strip_prefix('.'));
        if stamp.is_some_and(is_stamp) {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn is_stamp(text: &str) -> bool {
    let shape = text.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b });
    shape.eq(*b"00000000T000000000Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(size: u64, keep: u64) -> Rotation {
        Rotation {
            size,
            age: Duration::ZERO,
            keep,
        }
    }

    fn put(current: &mut Current, lines: &str) {
        let Written { turned, written } = current.write(lines.as_bytes());
        turned.and(written).unwrap();
    }

    /// All files, oldest first.
    fn texts(path: &Utf8Path) -> Vec<String> {
        let mut files = vec![path.to_owned()];
        files.extend(older(path).unwrap());
        files
            .iter()
            .rev()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    }

    #[test]
    fn a_full_file_gives_way_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("access.log");
        // Files of others stay what they are.
        for other in ["access.log.1", "access.log.bak", "other.log.20200101T000000000Z"] {
            std::fs::write(path.with_file_name(other), "not ours").unwrap();
        }
        let mut current = Current::open(&path, rotation(10, 30)).unwrap();
        for n in 0..9 {
            put(&mut current, &format!("line{n}\n"));
        }
        // A line is five bytes and its end: one fits into ten, and three files beside the current one into twenty.
        assert_eq!(texts(&path), ["line5\n", "line6\n", "line7\n", "line8\n"]);
        // What is larger than a file is written whole all the same, and stays until there is another.
        let long = "x".repeat(25);
        put(&mut current, &long);
        put(&mut current, "end\n");
        assert_eq!(texts(&path), [long.as_str(), "end\n"]);
        // The clock is set back: what is new has a later name all the same.
        let late = path.with_file_name("access.log.29991231T235959998Z");
        std::fs::write(&late, "late\n").unwrap();
        put(&mut current, "more\nmore\n");
        assert_eq!(texts(&path), ["late\n", "end\n", "more\nmore\n"]);
        std::fs::remove_file(&late).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(current);
        let mut again = Current::open(&path, rotation(10, 30)).unwrap();
        put(&mut again, "more\n");
        assert_eq!(texts(&path), ["end\n", "more\n"]);
        assert!(path.with_file_name("access.log.1").exists());
    }

    #[test]
    fn an_old_file_gives_way_even_when_nothing_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("access.log");
        let age = Rotation {
            size: 0,
            age: Duration::from_secs(3600),
            keep: 0,
        };
        let mut current = Current::open(&path, age).unwrap();
        put(&mut current, "one\n");
        current.turn(0).unwrap();
        assert_eq!(texts(&path), ["one\n"], "it is young");
        current.born = clock::now() - SignedDuration::from_hours(1);
        current.turn(0).unwrap();
        assert_eq!(texts(&path), ["one\n", ""]);
        current.born = clock::now() - SignedDuration::from_hours(1);
        current.turn(0).unwrap();
        assert_eq!(texts(&path), ["one\n", ""], "nothing is in it");
    }

    #[test]
    fn who_renames_the_file_gets_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("access.log");
        let mut current = Current::open(&path, Rotation::default()).unwrap();
        put(&mut current, "one\n");
        std::fs::rename(&path, path.with_file_name("taken")).unwrap();
        put(&mut current, "two\n");
        assert_eq!(texts(&path), ["two\n"]);
    }

    #[test]
    fn a_log_that_was_never_rotated_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("access.log");
        let before = "a line from long ago\n".repeat(9);
        std::fs::write(&path, &before).unwrap();
        let mut current = Current::open(&path, rotation(10, 30)).unwrap();
        put(&mut current, "line\n");
        assert_eq!(texts(&path), [before.as_str(), "line\n"]);
        drop(current);
        let mut again = Current::open(&path, rotation(10, 30)).unwrap();
        assert_eq!(texts(&path), [before.as_str(), "line\n"], "nor by a new start");
        // It counts all the same, and goes when another is the newest.
        put(&mut again, "second\n");
        assert_eq!(texts(&path), ["line\n", "second\n"]);
    }

    #[test]
    fn lines_are_written_where_no_new_file_can_be_begun() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let path = folder.join("logs/access.log");
        std::fs::create_dir(folder.join("logs")).unwrap();
        let mut current = Current::open(&path, rotation(10, 0)).unwrap();
        put(&mut current, "first\n");
        // Whoever is root may write everywhere, but not into a folder that is not there.
        std::fs::rename(folder.join("logs"), folder.join("away")).unwrap();
        let failed = current.write(b"second\n");
        assert!(failed.turned.is_err() && failed.written.is_ok(), "{failed:?}");
        // It is said once, and not tried with every block.
        put(&mut current, "third\n");
        let there = folder.join("away/access.log");
        assert_eq!(texts(&there), ["first\nsecond\nthird\n"]);
        std::fs::rename(folder.join("away"), folder.join("logs")).unwrap();
        put(&mut current, "fourth\n");
        assert_eq!(texts(&path).len(), 1, "it is not yet time to try again");
        current.barred = Some(Instant::now());
        put(&mut current, "fifth\n");
        assert_eq!(texts(&path), ["first\nsecond\nthird\nfourth\n", "fifth\n"]);
    }

    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let (link, real) = (folder.join("access.log"), folder.join("disk/real.log"));
        std::fs::create_dir(folder.join("disk")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let line = |path| {
            format!(
                "2026-11-21T17:05:01.123Z 127.0.0.1:9 \"GET a.test{path} HTTP/1.1\" 200 2 9us a h 10.0.0.1:80 id\n"
            )
        };
        let lines = ["/1", "/2"].map(line);
        let mut current = Current::open(&link, rotation(10, 0)).unwrap();
        for line in &lines {
            put(&mut current, line);
        }
        assert!(link.is_symlink());
        assert_eq!(texts(&real), lines);
        let all = super::super::Newest {
            of: String::new(),
            since: None,
            lines: 9,
        };
        let found = super::super::newest(&link, &all).unwrap().lines;
        assert_eq!(found, lines.each_ref().map(|line| line.trim_end()));
    }
}
