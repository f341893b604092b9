//! The file of the log and those before it. A full or old file is renamed and a new one begun; of the old ones the oldest
//! go, so that all together are bounded.
//!
//! A file is renamed once and never again: whoever reads opens the newest first and then looks which others there are,
//! and misses nothing whatever is renamed meanwhile.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::clock;

/// When a file of the log gives way to a new one, and how much stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of one file; 0 is no limit.
    pub size: u64,
    /// How old a file gets; zero is no limit.
    pub age: Duration,
    /// Bytes of all files together, of which the oldest go; 0 is no limit.
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
}

impl Current {
    pub fn open(path: &Utf8Path, rotation: Rotation) -> io::Result<Self> {
        let (file, born) = append(path)?;
        let current = Self {
            path: path.to_owned(),
            rotation,
            file,
            born,
        };
        current.prune();
        Ok(current)
    }

    /// Whole lines: they are never in two files.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.turn(lines.len() as u64)?;
        self.file.write_all(lines)
    }

    /// Begins a new file when this one has had its time, or has no room for so many bytes.
    pub fn turn(&mut self, more: u64) -> io::Result<()> {
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

    /// Removes the oldest files, so that the others have room together with this one.
    fn prune(&self) {
        let Rotation { size, keep, .. } = self.rotation;
        if keep == 0 {
            return;
        }
        let mut room = keep.saturating_sub(size);
        for path in older(&self.path).unwrap_or_default() {
            let length = path.metadata().map_or(0, |metadata| metadata.len());
            match room.checked_sub(length) {
                Some(left) => room = left,
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
            current.write(format!("line{n}\n").as_bytes()).unwrap();
        }
        // A line is five bytes and its end: one fits into ten, and three files beside the current one into twenty.
        assert_eq!(texts(&path), ["line5\n", "line6\n", "line7\n", "line8\n"]);
        // What is larger than a file is written whole all the same, and less is kept from then on.
        current.write(&[b'x'; 25]).unwrap();
        current.write(b"end\n").unwrap();
        assert_eq!(texts(&path), ["end\n"]);
        // The clock is set back: what is new has a later name all the same.
        let late = path.with_file_name("access.log.29991231T235959998Z");
        std::fs::write(&late, "late\n").unwrap();
        current.write(b"more\nmore\n").unwrap();
        assert_eq!(texts(&path), ["late\n", "end\n", "more\nmore\n"]);
        std::fs::remove_file(&late).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(current);
        let mut again = Current::open(&path, rotation(10, 30)).unwrap();
        again.write(b"more\n").unwrap();
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
        current.write(b"one\n").unwrap();
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
        current.write(b"one\n").unwrap();
        std::fs::rename(&path, path.with_file_name("taken")).unwrap();
        current.write(b"two\n").unwrap();
        assert_eq!(texts(&path), ["two\n"]);
    }
}
