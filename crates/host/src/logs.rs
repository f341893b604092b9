//! Logs that stay, by name, read by offset while they grow.
//!
//! The room exists so that everything that customers' programs say is kept in one way: bounded, and without the
//! secrets that they were given. It knows nothing of builds or hosts.

mod mask;

pub use mask::Mask;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt as _,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use model::port::{Fault, LogChunk, LogRef, Logs};

/// The most that one read gives.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Logs under `<node>/logs/<name>`. A log that has ended is a read-only file: the mark cannot be lost or be apart from
/// the bytes.
#[derive(Debug, Clone)]
pub struct Directory {
    root: Utf8PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Directory {
    /// The logs under `<data>/node`.
    pub fn open(node: &Utf8Path) -> Result<Self, Error> {
        let root = node.join("logs");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        Ok(Self { root })
    }

    /// Where the bytes of a log are.
    pub fn path(&self, log: &LogRef) -> Utf8PathBuf {
        self.root.join(log.as_str())
    }

    /// Goes on with a log, or begins it. `cap_bytes` bounds the whole log: what comes after is dropped, with a note.
    pub fn append(&self, log: &LogRef, mask: Mask, cap_bytes: u64) -> Result<Writer, Error> {
        let path = self.path(log);
        let parent = path.parent().expect("a log is in the directory of logs");
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        let used = file.metadata().map_err(io_error("read", &path))?.len();
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(io_error("change", &path))?;
        Ok(Writer {
            file,
            path,
            mask,
            left: cap_bytes.saturating_sub(used),
            cap_bytes,
            cut: false,
        })
    }

    /// Up to [`CHUNK_BYTES`] from `offset`. Invalid UTF-8 becomes U+FFFD; a character is never split between two reads.
    pub fn chunk(&self, log: &LogRef, offset: u64) -> Result<LogChunk, Error> {
        let path = self.path(log);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LogChunk {
                    text: String::new(),
                    next: offset,
                    ended: false,
                });
            }
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        // Before the bytes are read: a log that ends in between is not yet reported as ended.
        let metadata = file.metadata().map_err(io_error("read", &path))?;
        let over = metadata.permissions().mode() & 0o222 == 0;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset.min(metadata.len())))
            .and_then(|_| file.take(CHUNK_BYTES as u64).read_to_end(&mut bytes))
            .map_err(io_error("read", &path))?;
        let at_end = offset.saturating_add(bytes.len() as u64) >= metadata.len();
        if !(over && at_end) {
            bytes.truncate(bytes.len() - unfinished(&bytes));
        }
        Ok(LogChunk {
            next: offset + bytes.len() as u64,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            ended: over && at_end,
        })
    }

    /// The last lines of a log from `offset` on, as far as 4 KiB hold them.
    pub fn tail(&self, log: &LogRef, offset: u64, lines: usize) -> String {
        const BYTES: u64 = 4096;
        let length = fs::metadata(self.path(log)).map_or(0, |metadata| metadata.len());
        let from = offset.max(length.saturating_sub(BYTES));
        let text = self.chunk(log, from).map(|chunk| chunk.text).unwrap_or_default();
        let all: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Removes a log. One that is not there is removed.
    pub fn remove(&self, log: &LogRef) -> Result<(), Error> {
        let path = self.path(log);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

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
            let name = path.strip_prefix(&self.root).ok();
            if let Some(name) = name.and_then(|name| name.as_str().parse::<LogRef>().ok()) {
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

const NOTE: &str = "[vend] this log was removed to make room\n";

/// Leaves a note where a log was, as old as its last line.
fn empty(log: &Found) -> Result<(), Error> {
    let note = || -> io::Result<()> {
        let mut file = File::options().write(true).truncate(true).open(&log.path)?;
        file.write_all(NOTE.as_bytes())?;
        file.set_modified(log.written.into())?;
        file.set_permissions(fs::Permissions::from_mode(0o400))
    };
    note().map_err(io_error("empty", &log.path))
}

impl Logs for Directory {
    async fn read(&self, log: &LogRef, offset: u64) -> Result<LogChunk, Fault> {
        let (this, log) = (self.clone(), log.clone());
        tokio::task::spawn_blocking(move || this.chunk(&log, offset))
            .await
            .map_err(|_| Fault::platform("the log's reader stopped"))?
            .map_err(|error| Fault::platform(chain(&error)))
    }
}

/// Adds to one log, without its secrets and not beyond its cap. Writing never fails because of the cap.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: Utf8PathBuf,
    mask: Mask,
    left: u64,
    cap_bytes: u64,
    cut: bool,
}

impl Writer {
    /// One line of the platform's own.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Error> {
        let path = self.path.clone();
        writeln!(self, "{}", text.as_ref()).map_err(io_error("write", &path))
    }

    /// How long the log is now, in bytes.
    pub fn position(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Shows what was held back: it was no beginning of a secret, or one that never came to its end.
    pub fn release(&mut self) -> Result<(), Error> {
        let rest = self.mask.finish();
        self.add(&rest).map_err(io_error("write", &self.path.clone()))
    }

    /// Nothing will be added any more.
    pub fn end(mut self) -> Result<(), Error> {
        let path = self.path.clone();
        let rest = self.mask.finish();
        self.add(&rest)
            .and_then(|()| self.file.set_permissions(fs::Permissions::from_mode(0o400)))
            .map_err(io_error("end", &path))
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.file.write_all(&bytes[..fits])?;
        self.left -= fits as u64;
        if fits < bytes.len() && !self.cut {
            self.cut = true;
            let note = format!(
                "\n[vend] the log is cut here: it is longer than {} bytes\n",
                self.cap_bytes
            );
            self.file.write_all(note.as_bytes())?;
        }
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let clear = self.mask.feed(bytes);
        self.add(&clear)?;
        Ok(bytes.len())
    }

    /// What is held back, because it may be the beginning of a secret, stays held back.
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The last lines of a log, as the end of an error's message; nothing when there are none.
pub(crate) fn said(last: &str) -> String {
    if last.is_empty() {
        String::new()
    } else {
        format!("; its last lines:\n{last}")
    }
}

/// An error with its causes, for a fault's message: `cannot open X: No such file or directory`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// How many bytes at the end are the beginning of a character that is not all there.
fn unfinished(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let needs = match bytes[bytes.len() - back] {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return 0,
        };
        return if back < needs { back } else { 0 };
    }
    0
}

fn io_error(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs() -> (tempfile::TempDir, Directory, LogRef) {
        let temporary = tempfile::tempdir().unwrap();
        let logs = Directory::open(Utf8Path::from_path(temporary.path()).unwrap()).unwrap();
        (temporary, logs, "build/t-1".parse().unwrap())
    }

    #[test]
    fn a_log_is_read_while_it_grows_and_ends_once() {
        let (_temporary, logs, log) = logs();
        let empty = LogChunk {
            text: String::new(),
            next: 0,
            ended: false,
        };
        assert_eq!(logs.chunk(&log, 0).unwrap(), empty);
        let mut writer = logs.append(&log, Mask::default(), 1000).unwrap();
        writer.line("one").unwrap();
        let chunk = logs.chunk(&log, 0).unwrap();
        assert_eq!(
            (chunk.text.as_str(), chunk.next, chunk.ended),
            ("one\n", 4, false)
        );
        writer.line("two").unwrap();
        writer.end().unwrap();
        let chunk = logs.chunk(&log, 4).unwrap();
        assert_eq!((chunk.text.as_str(), chunk.next, chunk.ended), ("two\n", 8, true));
        let mut again = logs.append(&log, Mask::default(), 1000).unwrap();
        again.line("again").unwrap();
        assert!(
            !logs.chunk(&log, 8).unwrap().ended,
            "a repeated build goes on with its log"
        );
    }

    #[test]
    fn a_log_has_a_cap_with_one_note() {
        let (_temporary, logs, log) = logs();
        let mut writer = logs.append(&log, Mask::default(), 10).unwrap();
        for _ in 0..100 {
            writer.write_all(b"0123456").unwrap();
        }
        writer.end().unwrap();
        let text = logs.chunk(&log, 0).unwrap().text;
        assert!(
            text.starts_with("0123456012\n[vend] the log is cut here"),
            "{text}"
        );
        assert_eq!(text.matches("cut here").count(), 1);
    }

    #[test]
    fn characters_are_not_split_and_invalid_bytes_are_shown() {
        let (_temporary, logs, log) = logs();
        let mut writer = logs.append(&log, Mask::default(), 1000).unwrap();
        writer.write_all(b"a\xff\xe2\x82").unwrap();
        let chunk = logs.chunk(&log, 0).unwrap();
        assert_eq!((chunk.text.as_str(), chunk.next), ("a\u{fffd}", 2));
        writer.write_all(b"\xac").unwrap();
        assert_eq!(logs.chunk(&log, 2).unwrap().text, "€");
        writer.write_all(b"\xe2\x82").unwrap();
        writer.end().unwrap();
        let chunk = logs.chunk(&log, 5).unwrap();
        assert_eq!((chunk.text.as_str(), chunk.ended), ("\u{fffd}", true));
    }

    #[test]
    fn old_logs_go_and_the_oldest_make_room() {
        let (_temporary, logs, _) = logs();
        let (now, day) = (crate::now(), SignedDuration::from_hours(24));
        let log = |name: &str, days: i32, text: &str| {
            let log: LogRef = name.parse().unwrap();
            let mut writer = logs.append(&log, Mask::default(), 1 << 20).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            writer.file.set_modified((now - day * days).into()).unwrap();
            log
        };
        let text = "x".repeat(1000);
        let ancient = log("host/h-1/service", 91, &text);
        let wanted = log("deploy/t-wanted", 92, &text);
        let older = log("build/t-older", 9, &text);
        let old = log("build/t-old", 8, &text);
        let fresh = log("bake/t-fresh", 0, &text);
        let limits = Limits {
            age: day * 90,
            bytes: 3100,
            grace: day,
        };
        let keep = BTreeSet::from([wanted.clone()]);
        let left = 1000 - NOTE.len() as u64;
        let swept = logs.sweep(&keep, now, limits).unwrap();
        assert_eq!((swept.logs, swept.bytes), (2, 1000 + left));
        assert!(!logs.path(&ancient).exists());
        assert_eq!(logs.chunk(&older, 0).unwrap().text, NOTE);
        assert!(
            logs.chunk(&older, 0).unwrap().ended,
            "nobody waits for more of it"
        );
        for stays in [&wanted, &old, &fresh] {
            assert_eq!(logs.chunk(stays, 0).unwrap().text, text, "{stays}");
        }
        assert_eq!(logs.sweep(&keep, now, limits).unwrap(), Swept::default());
        let none = Limits { bytes: 0, ..limits };
        assert_eq!(
            logs.sweep(&keep, now, none).unwrap().logs,
            1,
            "the fresh one stays"
        );
        logs.sweep(&BTreeSet::new(), now + day * 200, limits).unwrap();
        assert!(!logs.path(&wanted).exists() && !logs.path(&ancient).parent().unwrap().exists());
    }

    #[test]
    fn a_read_is_bounded() {
        let (_temporary, logs, log) = logs();
        let mut writer = logs.append(&log, Mask::default(), 1 << 20).unwrap();
        writer.write_all(&vec![b'x'; CHUNK_BYTES + 1]).unwrap();
        writer.end().unwrap();
        let first = logs.chunk(&log, 0).unwrap();
        assert_eq!((first.text.len(), first.ended), (CHUNK_BYTES, false));
        let second = logs.chunk(&log, first.next).unwrap();
        assert_eq!((second.text.len(), second.ended), (1, true));
        assert!(logs.chunk(&log, u64::MAX >> 1).unwrap().ended);
    }
}
