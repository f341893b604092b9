//! Which logs go, and when.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use model::port::LogRef;

use super::{Directory, Error, io_error, kept, times};

/// How much is kept of logs that nobody needs any more.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Since their last line.
    pub age: SignedDuration,
    /// Of all logs together. Beyond it the oldest go.
    pub bytes: u64,
    /// One whose last line is younger than this stays in any case.
    pub grace: SignedDuration,
}

/// What [`Directory::sweep`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub logs: u64,
    pub bytes: u64,
}

/// A log as a sweep sees it.
struct Found {
    path: Utf8PathBuf,
    written: Timestamp,
    bytes: u64,
    wanted: bool,
}

impl Directory {
    /// Removes logs that are older than the limits allow, and then the text of the oldest until the rest is within them:
    /// who reads such a one is told. What is in `keep` stays.
    pub fn sweep(&self, keep: &BTreeSet<LogRef>, now: Timestamp, limits: Limits) -> Result<Swept, Error> {
        let mut found = Vec::new();
        self.find(&self.root, keep, now - limits.grace, &mut found)?;
        found.sort_by_key(|log| log.written);
        let mut total: u64 = found.iter().map(|log| log.bytes).sum();
        let mut swept = Swept::default();
        for log in &found {
            let age = now.duration_since(log.written);
            let freed = if log.wanted || age < limits.grace {
                0
            } else if age > limits.age {
                fs::remove_file(&log.path).map_err(io_error("remove", &log.path))?;
                let _ = fs::remove_file(times::path(&plain(log)));
                log.bytes
            } else if total > limits.bytes && log.bytes > NOTE.len() as u64 {
                empty(log)?;
                log.bytes - NOTE.len() as u64
            } else {
                0
            };
            total -= freed;
            swept.bytes += freed;
            swept.logs += u64::from(freed > 0);
        }
        Ok(swept)
    }

    /// Every log below a directory. Empty directories go, unless they are younger than `settled`: somebody may be about to
    /// write there.
    fn find(
        &self,
        dir: &Utf8Path,
        keep: &BTreeSet<LogRef>,
        settled: Timestamp,
        found: &mut Vec<Found>,
    ) -> Result<(), Error> {
        for entry in dir.read_dir_utf8().map_err(io_error("read", dir))? {
            let entry = entry.map_err(io_error("read", dir))?;
            let path = entry.path();
            let metadata = match fs::symlink_metadata(path) {
                Ok(metadata) => metadata,
                // Written under another name first, and renamed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error("read", path)(error)),
            };
            let modified = metadata.modified().map_err(io_error("read", path))?;
            let Ok(written) = Timestamp::try_from(modified) else {
                continue;
            };
            if metadata.is_dir() {
                self.find(path, keep, settled, found)?;
                if written < settled {
                    let _ = fs::remove_dir(path);
                }
                continue;
            }
            let name = path.strip_prefix(&self.root).ok().map(|name| name.as_str());
            let name = name.map(|name| name.strip_suffix(kept::SUFFIX).unwrap_or(name));
            if entry.file_name().starts_with('.') && written < settled {
                // Half of a log that was to be compressed.
                let _ = fs::remove_file(path);
            } else if let Some(log) = path.as_str().strip_suffix(times::SUFFIX) {
                let log = Utf8Path::new(log);
                if written < settled && !log.exists() && !kept::path(log).exists() {
                    let _ = fs::remove_file(path);
                }
            } else if let Some(name) = name.and_then(|name| name.parse::<LogRef>().ok()) {
                found.push(Found {
                    path: path.to_owned(),
                    written,
                    bytes: metadata.len(),
                    wanted: keep.contains(&name),
                });
            }
        }
        Ok(())
    }
}

/// Where the log is as long as it is not compressed.
fn plain(log: &Found) -> Utf8PathBuf {
    let plain = log.path.as_str().strip_suffix(kept::SUFFIX);
    plain.map_or_else(|| log.path.clone(), Utf8PathBuf::from)
}

pub(super) const NOTE: &str = "[vend] this log was removed to make room\n";

/// Leaves a note where a log was, as old as its last line.
fn empty(log: &Found) -> Result<(), Error> {
    let path = plain(log);
    let note = || -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        file.write_all(NOTE.as_bytes())?;
        file.set_modified(log.written.into())?;
        file.set_permissions(fs::Permissions::from_mode(0o400))?;
        // They are of what is gone.
        let _ = fs::remove_file(times::path(&path));
        match path == log.path {
            true => Ok(()),
            false => fs::remove_file(&log.path),
        }
    };
    note().map_err(io_error("empty", &log.path))
}
