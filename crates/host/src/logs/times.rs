//! When the bytes of a log came, to the second.
//!
//! What programs write stays as they wrote it. Beside a log is a file that says from which byte on what came at which
//! second: pairs of an offset and a time in milliseconds since 1970, little-endian, in order.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::port::LogTime;

/// What the name of a log ends with for this file. No log's own name has a tilde.
pub(super) const SUFFIX: &str = "~.times";
const ENTRY: u64 = 16;

pub(super) fn path(plain: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{plain}{SUFFIX}"))
}

/// Notes when bytes come. A log without times is one all the same: what cannot be noted is not.
#[derive(Debug)]
pub(super) struct Stamps {
    file: Option<File>,
    /// The second that was noted last.
    second: Option<i64>,
}

impl Stamps {
    /// Goes on with a log's times, or begins them.
    pub fn open(plain: &Utf8Path) -> Self {
        let path = path(plain);
        let open = || -> io::Result<File> {
            let file = File::options().create(true).append(true).open(&path)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            // Half of an entry, of a machine that stopped.
            let length = file.metadata()?.len();
            file.set_len(length - length % ENTRY)?;
            Ok(file)
        };
        let file = open().inspect_err(|error| tracing::warn!(%path, %error, "a log has no times"));
        Self {
            file: file.ok(),
            second: None,
        }
    }

    /// What comes at `offset` comes now.
    pub fn note(&mut self, offset: u64, now: Timestamp) {
        if self.second == Some(now.as_second()) {
            return;
        }
        self.second = Some(now.as_second());
        let mut entry = [0; ENTRY as usize];
        entry[..8].copy_from_slice(&offset.to_le_bytes());
        entry[8..].copy_from_slice(&now.as_millisecond().to_le_bytes());
        if self
            .file
            .as_mut()
            .is_some_and(|file| file.write_all(&entry).is_err())
        {
            self.file = None;
        }
    }
}

/// The times of the bytes from `from` to before `to`. The first says when what is at `from` came.
pub(super) fn between(plain: &Utf8Path, from: u64, to: u64) -> Vec<LogTime> {
    let Ok(file) = File::open(path(plain)) else {
        return Vec::new();
    };
    let count = file.metadata().map_or(0, |metadata| metadata.len() / ENTRY);
    let mut next = first(&file, count, from);
    let mut times = Vec::new();
    while let Some(time) = (next < count).then(|| entry(&file, next)).flatten()
        && time.from < to
    {
        times.push(time);
        next += 1;
    }
    times
}

/// The number of the last entry that is not behind an offset; the first of all when there is none.
fn first(file: &File, count: u64, offset: u64) -> u64 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match entry(file, middle) {
            Some(time) if time.from <= offset => low = middle + 1,
            _ => high = middle,
        }
    }
    low.saturating_sub(1)
}

fn entry(file: &File, number: u64) -> Option<LogTime> {
    let mut bytes = [0; ENTRY as usize];
    file.read_exact_at(&mut bytes, number * ENTRY).ok()?;
    let (from, at) = bytes.split_at(8);
    let at = i64::from_le_bytes(at.try_into().ok()?);
    Some(LogTime {
        from: u64::from_le_bytes(from.try_into().ok()?),
        at: Timestamp::from_millisecond(at).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_by_offset() {
        let directory = tempfile::tempdir().unwrap();
        let log = Utf8Path::from_path(directory.path()).unwrap().join("t-1");
        assert_eq!(between(&log, 0, 100), []);
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut stamps = Stamps::open(&log);
        for (offset, at) in [(0, 10), (5, 10), (7, 11), (30, 15), (90, 16)] {
            stamps.note(offset, second(at));
        }
        let found = |from, to| -> Vec<(u64, i64)> {
            let times = between(&log, from, to);
            times
                .iter()
                .map(|time| (time.from, time.at.as_second()))
                .collect()
        };
        assert_eq!(found(0, 100), [(0, 10), (7, 11), (30, 15), (90, 16)]);
        assert_eq!(found(6, 7), [(0, 10)]);
        assert_eq!(found(7, 30), [(7, 11)]);
        assert_eq!(found(29, 31), [(7, 11), (30, 15)]);
        assert_eq!(found(1000, 2000), [(90, 16)]);
        // A machine that stopped in the middle of an entry, and went on.
        File::options()
            .append(true)
            .open(path(&log))
            .unwrap()
            .write_all(&[1, 2, 3])
            .unwrap();
        let mut stamps = Stamps::open(&log);
        stamps.note(95, second(20));
        assert_eq!(found(91, 100), [(90, 16), (95, 20)]);
    }
}
