//! Logs that a host writes, read by the node. The host's root may put anything in their place: links, pipes, endless
//! files.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
};

use camino::Utf8Path;
use model::port::LogChunk;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// The most that one read gives.
const CHUNK: u64 = 256 * 1024;

/// The most that is kept of one log of a host that is removed: its end, in bytes.
const KEPT: u64 = 16 * 1024 * 1024;

/// The most logs that are kept of a host that is removed.
const FILES: usize = 100;

/// Some bytes of a log. A log that is not there yet is empty.
pub fn chunk(dir: &Utf8Path, name: &str, offset: u64) -> io::Result<LogChunk> {
    let mut bytes = Vec::new();
    match open(dir, name) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(offset))?;
            file.take(CHUNK).read_to_end(&mut bytes)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let length = whole(&bytes);
    Ok(LogChunk {
        text: String::from_utf8_lossy(&bytes[..length]).into_owned(),
        next: offset + length as u64,
        ended: false,
    })
}

/// Copies the ends of a host's logs, read-only: nothing will be added to them.
pub fn keep(from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
    let mut names = vec!["../console".to_owned()];
    let entries = from.read_dir_utf8().into_iter().flatten().flatten().take(FILES);
    names.extend(entries.map(|entry| entry.file_name().to_owned()));
    for name in names {
        let (dir, name) = match name.strip_prefix("../") {
            Some(name) => (from.parent().unwrap_or(from), name),
            None => (from, name.as_str()),
        };
        if let Ok(file) = open(dir, name) {
            copy_end(file, to, name.strip_suffix(".log").unwrap_or(name))?;
        }
    }
    Ok(())
}

fn copy_end(mut file: File, to: &Utf8Path, name: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(to)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(KEPT)))?;
    let fresh = to.join(format!(".{name}.new"));
    let mut copy = File::create(&fresh)?;
    io::copy(&mut file.take(KEPT), &mut copy)?;
    copy.set_permissions(fs::Permissions::from_mode(0o400))?;
    fs::rename(&fresh, to.join(name))
}

/// Opens a plain file of that directory, and nothing else.
fn open(dir: &Utf8Path, name: &str) -> io::Result<File> {
    let at = rustix::fs::open(
        dir.as_str(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(&at, name, flags, Mode::empty(), within)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a plain file"));
    }
    Ok(file.into())
}

/// The length without a character that is cut in two at the end.
fn whole(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_of_the_directory_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        fs::write(dir.join("web"), "aé").unwrap();
        symlink("/etc/passwd", dir.join("link")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(dir.join("pipe"))
                .status()
                .unwrap()
                .success()
        );

        assert_eq!(chunk(dir, "web", 0).unwrap().text, "aé");
        assert_eq!(chunk(dir, "web", 1).unwrap().next, 3);
        assert_eq!(
            chunk(dir, "none", 0).unwrap(),
            LogChunk {
                text: String::new(),
                next: 0,
                ended: false
            }
        );
        for bad in ["link", "pipe", "sub", "../x", "/etc/passwd"] {
            assert!(
                chunk(dir, bad, 0).is_err_and(|error| error.kind() != io::ErrorKind::NotFound),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_ends_of_logs_are_kept() {
        let run = tempfile::tempdir().unwrap();
        let run = Utf8Path::from_path(run.path()).unwrap();
        fs::create_dir(run.join("logs")).unwrap();
        fs::write(run.join("console"), "booted").unwrap();
        fs::write(run.join("logs/web.log"), "served").unwrap();
        symlink("/etc/shadow", run.join("logs/evil")).unwrap();
        let kept = run.join("kept");
        keep(&run.join("logs"), &kept).unwrap();
        assert_eq!(fs::read_to_string(kept.join("console")).unwrap(), "booted");
        assert_eq!(fs::read_to_string(kept.join("web")).unwrap(), "served");
        assert!(!kept.join("evil").exists());
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        assert_eq!(whole("aé".as_bytes()), 3);
        assert_eq!(whole(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole(b"a\xff"), 2);
    }
}
