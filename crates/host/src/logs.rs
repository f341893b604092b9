//! Logs that stay, by name, read by offset while they grow. One that has ended is compressed.
//!
//! The room exists so that everything that customers' programs say is kept in one way: bounded, and without the
//! secrets that they were given. It knows nothing of builds or hosts.

mod copy;
mod kept;
mod mask;
mod sweep;
mod times;

pub use copy::Piece;
pub use kept::probe;
pub use mask::Mask;
pub use sweep::{Limits, Swept};

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt as _,
};

use camino::{Utf8Path, Utf8PathBuf};
use model::port::{Fault, LogChunk, LogRef, Logs};

/// What the platform may say of its own beyond the cap of a log, in bytes, and one line of it.
const RESERVE_BYTES: u64 = 1 << 20;
const LINE_BYTES: usize = 16 << 10;
/// How much of the end of a log is remembered, whether it is beyond the cap or not.
const LAST_BYTES: usize = 4096;

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

    /// The file that a log is in: its bytes, or those compressed by zstd when the name ends in `.zst`. `None`: nobody has
    /// written to it.
    pub fn file(&self, log: &LogRef) -> Option<Utf8PathBuf> {
        let plain = self.path(log);
        [kept::path(&plain), plain]
            .into_iter()
            .find(|path| path.is_file())
    }

    /// Where a log is, for people on this machine.
    pub fn told(&self, log: &LogRef) -> String {
        let plain = self.path(log);
        format!("{plain}, or {} once it has ended (zstd -dc)", kept::path(&plain))
    }

    /// Goes on with a log, or begins it. `cap_bytes` bounds the whole log: what comes after is dropped, with a note, but for
    /// the platform's own lines, which have a reserve.
    pub fn append(&self, log: &LogRef, mask: Mask, cap_bytes: u64) -> Result<Writer, Error> {
        let path = self.path(log);
        let parent = path.parent().expect("a log is in the directory of logs");
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        kept::expand(&path).map_err(io_error("go on with", &path))?;
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
            stamps: times::Stamps::open(&path),
            offset: used,
            path,
            mask,
            cap_bytes,
            cut: used > cap_bytes,
            last: Vec::new(),
        })
    }

    /// Up to [`CHUNK_BYTES`] from `offset`. Invalid UTF-8 becomes U+FFFD; a character is never split between two reads.
    pub fn chunk(&self, log: &LogRef, offset: u64) -> Result<LogChunk, Error> {
        let path = self.path(log);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return ended(&path, offset),
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
        Ok(piece(&path, bytes, offset, over && at_end))
    }

    /// The last lines of a log from `offset` on, as far as 4 KiB hold them.
    pub fn tail(&self, log: &LogRef, offset: u64, lines: usize) -> String {
        let from = offset.max(self.length(log).saturating_sub(LAST_BYTES as u64));
        let text = self.chunk(log, from).map(|chunk| chunk.text).unwrap_or_default();
        last_lines(&text, lines)
    }

    /// Removes a log. One that is not there is removed.
    pub fn remove(&self, log: &LogRef) -> Result<(), Error> {
        let path = self.path(log);
        for path in [kept::path(&path), times::path(&path), path] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The last lines of a text that say something.
fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A piece of a log that is not there, or is compressed.
fn ended(path: &Utf8Path, offset: u64) -> Result<LogChunk, Error> {
    let read = kept::Kept::open(path).and_then(|kept| Ok((kept.read(offset, CHUNK_BYTES)?, kept.length)));
    match read {
        Ok((bytes, length)) => {
            let at_end = offset.saturating_add(bytes.len() as u64) >= length;
            Ok(piece(path, bytes, offset, at_end))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(piece(path, Vec::new(), offset, false)),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Invalid UTF-8 becomes U+FFFD; a character is not split unless nothing follows.
fn piece(path: &Utf8Path, mut bytes: Vec<u8>, offset: u64, last: bool) -> LogChunk {
    if !last {
        bytes.truncate(bytes.len() - unfinished(&bytes));
    }
    let next = offset.saturating_add(bytes.len() as u64);
    LogChunk {
        next,
        times: match bytes.is_empty() {
            true => Vec::new(),
            false => times::between(path, offset, next),
        },
        text: String::from_utf8_lossy(&bytes).into_owned(),
        ended: last,
    }
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
    stamps: times::Stamps,
    /// How long the log is.
    offset: u64,
    mask: Mask,
    cap_bytes: u64,
    cut: bool,
    /// The end of what was added since it was last forgotten, also of what is beyond the cap.
    last: Vec<u8>,
}

impl Writer {
    /// One line of the platform's own. It stands by itself: no secret begins before it and goes on in it.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Error> {
        self.release()?;
        let line = self.mask.conceal(&format!("{}\n", text.as_ref()));
        self.add_own(line).map_err(io_error("write", &self.path))
    }

    /// From here on [`Writer::last_lines`] begin.
    pub fn forget(&mut self) {
        self.last.clear();
    }

    /// The last lines that were added, as far as 4 KiB hold them, also those beyond the cap.
    pub fn last_lines(&self, lines: usize) -> String {
        last_lines(&String::from_utf8_lossy(&self.last), lines)
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
            .map_err(io_error("end", &path))?;
        // One that stays plain is read all the same.
        if let Err(error) = kept::compress(&path) {
            tracing::warn!(%path, %error, "a log is not compressed");
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.add_at(bytes, crate::now())
    }

    /// What came at this time.
    fn add_at(&mut self, bytes: &[u8], at: jiff::Timestamp) -> io::Result<()> {
        self.remember(bytes);
        let left = self.cap_bytes.saturating_sub(self.offset);
        let fits = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if !self.cut {
            self.put(&bytes[..fits], at)?;
        }
        match fits < bytes.len() {
            true => self.cut(at),
            false => Ok(()),
        }
    }

    /// A line of the platform's own: of a log that is cut, it goes on in the reserve.
    fn add_own(&mut self, mut line: String) -> io::Result<()> {
        let at = crate::now();
        self.remember(line.as_bytes());
        if self.offset.saturating_add(line.len() as u64) > self.cap_bytes {
            self.cut(at)?;
        }
        if self.cut {
            if line.len() > LINE_BYTES {
                line.truncate(line.floor_char_boundary(LINE_BYTES));
                line.push_str("…\n");
            }
            // The line that it would end is not there.
            line.drain(..line.len() - line.trim_start_matches('\n').len());
            let most = self.cap_bytes.saturating_add(RESERVE_BYTES);
            if self.offset.saturating_add(line.len() as u64) > most {
                return Ok(());
            }
        }
        self.put(line.as_bytes(), at)
    }

    /// From here on there are only the platform's own lines.
    fn cut(&mut self, at: jiff::Timestamp) -> io::Result<()> {
        if std::mem::replace(&mut self.cut, true) {
            return Ok(());
        }
        let note = format!(
            "\n[vend] the log is cut here: it is longer than {} bytes; the platform's own lines follow\n",
            self.cap_bytes
        );
        self.put(note.as_bytes(), at)
    }

    fn put(&mut self, bytes: &[u8], at: jiff::Timestamp) -> io::Result<()> {
        if !bytes.is_empty() {
            self.stamps.note(self.offset, at);
        }
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.last
            .extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_BYTES)..]);
        self.last.drain(..self.last.len().saturating_sub(LAST_BYTES));
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
    use std::collections::BTreeSet;

    use jiff::SignedDuration;

    use super::{sweep::NOTE, *};

    fn logs() -> (tempfile::TempDir, Directory, LogRef) {
        let temporary = tempfile::tempdir().unwrap();
        let logs = Directory::open(Utf8Path::from_path(temporary.path()).unwrap()).unwrap();
        (temporary, logs, "build/t-1".parse().unwrap())
    }

    #[test]
    fn a_log_is_read_while_it_grows_and_ends_once() {
        let (_temporary, logs, log) = logs();
        let empty = LogChunk::default();
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
    fn a_log_that_has_ended_is_compressed_and_read_as_before() {
        let (_temporary, logs, log) = logs();
        let text = "a line that is said again and again\n".repeat(10_000);
        let mut writer = logs.append(&log, Mask::default(), 1 << 20).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        let live = logs.chunk(&log, 0).unwrap();
        let told = logs.told(&log);
        let said = |file: Utf8PathBuf| told.split(' ').any(|word| word.trim_end_matches(',') == file);
        assert!(said(logs.file(&log).unwrap()), "{told}");
        writer.end().unwrap();
        assert!(said(logs.file(&log).unwrap()), "{told}");
        assert!(!logs.path(&log).exists() && kept::path(&logs.path(&log)).metadata().unwrap().len() < 4096);
        let (mut read, mut offset) = (String::new(), 0);
        loop {
            let chunk = logs.chunk(&log, offset).unwrap();
            (read, offset) = (read + &chunk.text, chunk.next);
            if chunk.ended {
                break;
            }
        }
        let kept = logs.chunk(&log, 0).unwrap();
        assert!(read == text && kept.text == live.text);
        assert!(!live.times.is_empty() && kept.times == live.times);
        assert_eq!(logs.tail(&log, 0, 1), "a line that is said again and again");
        let mut again = logs.append(&log, Mask::default(), 1 << 20).unwrap();
        again.line("and once more").unwrap();
        let last = logs.chunk(&log, offset).unwrap();
        assert_eq!((last.text.as_str(), last.ended), ("and once more\n", false));
        again.end().unwrap();
        let limits = Limits {
            age: SignedDuration::from_hours(1),
            bytes: 0,
            grace: SignedDuration::ZERO,
        };
        let later = crate::now() + SignedDuration::from_mins(30);
        assert_eq!(logs.sweep(&BTreeSet::new(), later, limits).unwrap().logs, 1);
        let emptied = logs.chunk(&log, 0).unwrap();
        assert_eq!((emptied.text.as_str(), emptied.times), (NOTE, Vec::new()));
        logs.remove(&log).unwrap();
        assert!(!logs.chunk(&log, 0).unwrap().ended);
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
