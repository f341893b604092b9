//! Logs of a host's services: appended, rotated, never in the way of who writes them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{io::AsyncReadExt as _, net::unix::pipe};

use crate::logs::Mask;

/// A log is rotated when it is this long.
const LIMIT: u64 = 10 << 20;

/// How many rotated files stay beside it.
const KEEP: usize = 2;

/// One log file that rotates: `web.log`, `web.log.1`, `web.log.2`.
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    limit: u64,
}

impl Log {
    /// The log of a service in a directory. Nothing is opened before the first line.
    pub fn new(directory: &Path, service: &str) -> Self {
        Self {
            path: directory.join(format!("{}.log", file_name(service))),
            file: None,
            length: 0,
            limit: LIMIT,
        }
    }

    #[cfg(test)]
    fn limited(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Appends. A log that cannot be written is not worth stopping a service: the loss is silent.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.write(bytes).is_err() {
            self.file = None;
        }
    }

    /// A line of the agent's own among those of the service.
    pub fn note(&mut self, text: &str) {
        self.append(format!("[vend] {text}\n").as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.file.is_some() && self.length > 0 && self.length + length > self.limit {
            self.rotate()?;
        }
        if self.file.is_none() {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                .open(&self.path)?;
            self.length = file.metadata()?.len();
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
            self.length += length;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let numbered = |number: usize| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..KEEP).rev() {
            if numbered(number).symlink_metadata().is_ok() {
                fs::rename(numbered(number), numbered(number + 1))?;
            }
        }
        fs::rename(&self.path, numbered(1))
    }
}

/// Copies what a process writes into its log, without secrets, until it closes its end or the log's owner drops this.
pub async fn collect(mut from: pipe::Receiver, log: Option<Arc<Mutex<Log>>>, mut mask: Mask) {
    let append = |bytes: &[u8]| {
        if let Some(log) = &log {
            log.lock().unwrap_or_else(PoisonError::into_inner).append(bytes);
        }
    };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        append(&mask.feed(&buffer[..count]));
    }
    append(&mask.finish());
}

/// How the agent's remarks on the end of a process begin.
const ENDED: &str = "[vend] ended with";
const STOPPED: &str = "[vend] stopped,";

/// What a service said last, without the agent's own remarks: some lines of the last 2,048 bytes of its log.
pub fn last_words(directory: &Path, service: &str) -> String {
    const BYTES: u64 = 2048;
    const LINES: usize = 10;
    let path = directory.join(format!("{}.log", file_name(service)));
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(BYTES);
        file.seek(io::SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        if from > 0 {
            let whole = bytes.iter().position(|byte| *byte == b'\n');
            bytes.drain(..whole.map_or(0, |at| at + 1));
        }
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let ended = |line: &&str| line.starts_with(ENDED) || line.starts_with(STOPPED);
    let end = lines.iter().rposition(ended).unwrap_or(lines.len());
    // Not what it said in an earlier life.
    let begin = lines[..end].iter().rposition(ended).map_or(0, |at| at + 1);
    let own = |line: &&&str| !line.trim().is_empty() && !line.starts_with("[vend]");
    let lines: Vec<&str> = lines[begin..end].iter().filter(own).copied().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// A file name for any service name: also a part of a `LogRef`.
pub fn file_name(service: &str) -> String {
    let service = service.strip_suffix(".service").unwrap_or(service);
    let name: String = service
        .chars()
        .take(80)
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect();
    if name.is_empty() || name.starts_with('.') {
        format!("_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_two_rotated_files_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::new(directory.path(), "web.service").limited(10);
        for line in ["one-----\n", "two-----\n", "three---\n", "four----\n"] {
            log.append(line.as_bytes());
        }
        let text = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(text("web.log"), "four----\n");
        assert_eq!(text("web.log.1"), "three---\n");
        assert_eq!(text("web.log.2"), "two-----\n");
        assert!(!directory.path().join("web.log.3").exists());
    }

    #[test]
    fn last_words_are_of_the_last_life() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::new(directory.path(), "web");
        assert_eq!(last_words(directory.path(), "web"), "");
        log.append(&[b'x'; 3000]);
        log.append(b"\nold\n[vend] stopped, exit code 0\n[vend] started, pid 2\n");
        for number in 0..20 {
            log.append(format!("new {number}\n\n").as_bytes());
        }
        let ten: Vec<String> = (10..20).map(|number| format!("new {number}")).collect();
        log.note("ended with exit code 1");
        log.note("started, pid 3");
        assert_eq!(last_words(directory.path(), "web"), ten.join("\n"));
        log.append(b"alone\n[vend] ended with exit code 2\n");
        assert_eq!(last_words(directory.path(), "web"), "alone");
    }

    #[test]
    fn a_service_name_cannot_leave_the_directory() {
        assert_eq!(file_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(file_name("getty@tty1.service"), "getty_tty1");
        assert_eq!(file_name(""), "_");
    }
}
