//! Logs of a host's services: appended, rotated, never in the way of who writes them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
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
    fn a_service_name_cannot_leave_the_directory() {
        assert_eq!(file_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(file_name("getty@tty1.service"), "getty_tty1");
        assert_eq!(file_name(""), "_");
    }
}
