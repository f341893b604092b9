//! Logs that a host writes, read by the node. The host's root may put anything in their place: links, pipes, endless
//! files.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::fd::{AsRawFd as _, OwnedFd},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::port::LogChunk;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// The most that one read gives.
const CHUNK: u64 = 256 * 1024;

/// The most that is kept of one log of a host that is removed: its end, in bytes.
const KEPT: u64 = 16 * 1024 * 1024;

/// The most that is kept of all of them: what a host leaves must not fill the machine's disk.
const KEPT_TOGETHER: u64 = 64 * 1024 * 1024;

/// The most logs that are kept of a host that is removed.
const FILES: usize = 100;

/// Where the logs of services are, in the directory that a host shares.
const SERVICES: &str = "logs";

/// Some bytes of a log in the directory that a host shares: `console`, or `logs/SERVICE.log`. A log that is not there
/// yet is empty.
pub fn chunk(run: &Utf8Path, name: &str, offset: u64) -> io::Result<LogChunk> {
    let mut bytes = Vec::new();
    match open(&directory(run)?, name) {
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
        times: Vec::new(),
    })
}

/// The log of the app: of the service that wrote last. Deployments have logs of their own.
pub fn app(run: &Utf8Path) -> Option<String> {
    let run = directory(run).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let services = rustix::fs::openat2(&run, SERVICES, flags, Mode::empty(), WITHIN).ok()?;
    let listed = Utf8PathBuf::from(format!("/proc/self/fd/{}", services.as_raw_fd()))
        .read_dir_utf8()
        .ok()?;
    let written = listed.flatten().take(FILES).filter_map(|entry| {
        let name = entry.file_name().to_owned();
        let is_service = name.ends_with(".log") && !name.starts_with("deploy-");
        let file = open(&services, &name).ok().filter(|_| is_service)?;
        Some((file.metadata().ok()?.modified().ok()?, name))
    });
    written.max().map(|(_, name)| format!("{SERVICES}/{name}"))
}

/// The names that logs of a host have, `console` and `service` included, if there is none of this name.
pub fn unless_known(run: &Utf8Path, name: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> = ["console", "service"].map(str::to_owned).to_vec();
    if names.iter().any(|known| known == name) {
        return None;
    }
    let run = directory(run).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(services) = rustix::fs::openat2(&run, SERVICES, flags, Mode::empty(), WITHIN) {
        if open(&services, &format!("{name}.log")).is_ok() {
            return None;
        }
        let listed = Utf8PathBuf::from(format!("/proc/self/fd/{}", services.as_raw_fd())).read_dir_utf8();
        let files = listed.into_iter().flatten().flatten().take(FILES);
        names.extend(files.filter_map(|entry| listable(entry.file_name().strip_suffix(".log")?)));
    }
    Some(names)
}

/// The same of a host that was removed, whose logs were kept. `service` is the app's only one.
pub fn kept_unless_known(kept: &Utf8Path, name: &str) -> Option<Vec<String>> {
    if kept.join(name).exists() {
        return None;
    }
    let files = kept.read_dir_utf8().ok()?.flatten().take(FILES);
    Some(files.filter_map(|entry| listable(entry.file_name())).collect())
}

/// A name that can be a part of a log's name. Logs of deployments are listed elsewhere, under their own.
fn listable(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_one = !name.is_empty() && !name.starts_with(['.']) && name.chars().all(plain);
    (is_one && !name.starts_with("deploy-")).then(|| name.to_owned())
}

/// Copies the ends of a host's logs, read-only: nothing will be added to them. What is no log is left out.
pub fn keep(run: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
    let run = directory(run)?;
    let mut left = KEPT_TOGETHER;
    if let Ok(file) = open(&run, "console") {
        copy_end(file, to, "console", &mut left)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(services) = rustix::fs::openat2(&run, SERVICES, flags, Mode::empty(), WITHIN) else {
        return Ok(());
    };
    let listed = Utf8PathBuf::from(format!("/proc/self/fd/{}", services.as_raw_fd())).read_dir_utf8()?;
    for entry in listed.flatten().take(FILES) {
        let name = entry
            .file_name()
            .strip_suffix(".log")
            .unwrap_or(entry.file_name());
        // The console is no service's, and the copy's name has to fit as well.
        if name != "console"
            && name.len() < 200
            && let Ok(file) = open(&services, entry.file_name())
        {
            copy_end(file, to, name, &mut left)?;
        }
    }
    Ok(())
}

fn copy_end(mut file: File, to: &Utf8Path, name: &str, left: &mut u64) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(to)?;
    let length = file.metadata()?.len();
    let most = KEPT.min(*left);
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let fresh = to.join(format!(".{name}.new"));
    let mut copy = File::create(&fresh)?;
    *left -= io::copy(&mut file.take(most), &mut copy)?;
    copy.set_permissions(fs::Permissions::from_mode(0o400))?;
    fs::rename(&fresh, to.join(name))
}

/// A path that neither leaves its directory nor goes through a link.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The directory that a host shares: the machine's own path, of which the host can replace nothing.
fn directory(run: &Utf8Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(run.as_str(), flags, Mode::empty())?)
}

/// Opens a plain file under that directory, and nothing else.
fn open(dir: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(dir, name, flags, Mode::empty(), WITHIN)?;
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
        assert_eq!(chunk(dir, "none", 0).unwrap(), LogChunk::default());
        for bad in ["link", "pipe", "sub", "../x", "/etc/passwd"] {
            assert!(
                chunk(dir, bad, 0).is_err_and(|error| error.kind() != io::ErrorKind::NotFound),
                "{bad}"
            );
        }
    }

    #[test]
    fn names_of_logs_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let run = Utf8Path::from_path(dir.path()).unwrap();
        assert_eq!(unless_known(run, "console"), None);
        assert_eq!(unless_known(run, "web").unwrap(), ["console", "service"]);
        fs::create_dir(run.join("logs")).unwrap();
        for name in ["web.log", "web.log.1", "deploy-t-1.log", "a b.log"] {
            fs::write(run.join("logs").join(name), "").unwrap();
        }
        assert_eq!(unless_known(run, "web"), None);
        assert_eq!(
            unless_known(run, "deploy-t-1"),
            None,
            "it can be read, under its name"
        );
        assert_eq!(unless_known(run, "wbe").unwrap(), ["console", "service", "web"]);
        let kept = run.join("kept");
        keep(run, &kept).unwrap();
        assert_eq!(kept_unless_known(&kept, "web"), None);
        assert!(
            kept_unless_known(&kept, "wbe")
                .unwrap()
                .contains(&"web".to_owned())
        );
        assert_eq!(
            kept_unless_known(&run.join("none"), "web"),
            None,
            "nothing is known of it"
        );
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
        fs::write(run.join("logs/console.log"), "another").unwrap();
        keep(run, &kept).unwrap();
        assert_eq!(fs::read_to_string(kept.join("console")).unwrap(), "booted");
        assert_eq!(fs::read_to_string(kept.join("web")).unwrap(), "served");
        assert!(!kept.join("evil").exists());
    }

    #[test]
    fn a_link_in_the_place_of_the_logs_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let (run, machine) = (dir.join("run"), dir.join("machine"));
        fs::create_dir(&run).unwrap();
        fs::create_dir(&machine).unwrap();
        fs::write(machine.join("web.log"), "of another tenant").unwrap();
        symlink(&machine, run.join("logs")).unwrap();
        assert!(chunk(&run, "logs/web.log", 0).is_err());
        keep(&run, &dir.join("kept")).unwrap();
        assert!(!dir.join("kept/web").exists());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        fs::create_dir(dir.join("logs")).unwrap();
        for number in 0..8 {
            let file = File::create(dir.join(format!("logs/{number}.log"))).unwrap();
            file.set_len(1 << 40).unwrap();
        }
        keep(dir, &dir.join("kept")).unwrap();
        let kept = fs::read_dir(dir.join("kept")).unwrap();
        let bytes: u64 = kept.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(bytes, KEPT_TOGETHER);
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        assert_eq!(whole("aé".as_bytes()), 3);
        assert_eq!(whole(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole(b"a\xff"), 2);
    }
}
