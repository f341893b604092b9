//! Names under which clients of AWS ask for the API: they put `sync-` before the host of an endpoint for
//! `StartSyncExecution` and `TestState`, and no name server knows `sync-localhost`. One line of `/etc/hosts` does.

use std::{
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

pub const HOSTS: &str = "/etc/hosts";
const NAMES: [&str; 2] = ["sync-localhost", "sync-127.0.0.1"];
/// How our line ends; no other line is touched.
const MARK: &str = "# kept by vend doctor";

/// The names that no line gives an address of this machine.
pub fn missing(hosts: &[u8]) -> Vec<&'static str> {
    let text = String::from_utf8_lossy(hosts);
    let known = |name: &&str| {
        text.lines().any(|line| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let address = words
                .next()
                .and_then(|word| word.parse::<std::net::IpAddr>().ok());
            address.is_some_and(|address| address.is_loopback()) && words.any(|word| word == *name)
        })
    };
    NAMES.into_iter().filter(|name| !known(name)).collect()
}

/// Adds our line, or takes it away. Whether that changed the file.
pub fn keep(path: &Path, wanted: bool) -> std::io::Result<bool> {
    // Where it is a link, the file that it names is changed.
    let path = path.canonicalize()?;
    let old = std::fs::read(&path)?;
    let new = with(&without(&old), wanted);
    if new == old {
        return Ok(false);
    }
    replace(&path, &new)?;
    Ok(true)
}

fn without(hosts: &[u8]) -> Vec<u8> {
    let lines = hosts.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.trim_ascii_end().ends_with(MARK.as_bytes()))
        .flatten()
        .copied()
        .collect()
}

fn with(hosts: &[u8], wanted: bool) -> Vec<u8> {
    let lacking = missing(hosts);
    if !wanted || lacking.is_empty() {
        return hosts.to_vec();
    }
    let end: &[u8] = if hosts.is_empty() || hosts.ends_with(b"\n") {
        b""
    } else {
        b"\n"
    };
    let line = format!("127.0.0.1 {} {MARK}\n", lacking.join(" "));
    [hosts, end, line.as_bytes()].concat()
}

/// All or nothing, with the owner and the mode that it had.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let about = std::fs::metadata(path)?;
    let draft = path.with_file_name(".hosts.vend");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(text)?;
    file.set_permissions(std::fs::Permissions::from_mode(about.mode() & 0o7777))?;
    std::os::unix::fs::fchown(&file, Some(about.uid()), Some(about.gid()))?;
    file.sync_all()?;
    std::fs::rename(&draft, path).or_else(|error| {
        std::fs::remove_file(&draft)?;
        match error.kind() {
            // In a container the file is a mount, and nothing can take its place.
            std::io::ErrorKind::ResourceBusy => std::fs::write(path, text),
            _ => Err(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "127.0.0.1 sync-localhost sync-127.0.0.1 # kept by vend doctor\n";

    #[test]
    fn one_line_comes_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("hosts"), directory.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for before in [
            "",
            "127.0.0.1 localhost\n",
            "# \u{e9}\r\n::1 a b\n\n\n",
            "10.0.0.1 sync-localhost\n",
        ] {
            std::fs::write(&path, before).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            assert!(keep(&link, true).unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{before}{LINE}"));
            assert!(!keep(&link, true).unwrap(), "once is enough");
            assert_eq!(missing(&std::fs::read(&path).unwrap()), [""; 0]);
            assert!(keep(&link, false).unwrap());
            assert!(!keep(&link, false).unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        }
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn lines_of_others_stay_and_count() {
        let own = b"127.0.0.1 localhost sync-localhost # mine\n::1 sync-127.0.0.1";
        assert_eq!(with(own, true), own);
        assert_eq!(
            missing(b"# 127.0.0.1 sync-localhost\n127.0.0.1 sync-127.0.0.1\n"),
            ["sync-localhost"]
        );
        assert_eq!(with(b"\xff", true), [b"\xff\n", LINE.as_bytes()].concat());
        let old = [
            b"a\n",
            b"127.0.0.1 sync-other # kept by vend doctor\r\n".as_slice(),
            b"b\n",
        ]
        .concat();
        assert_eq!(with(&without(&old), true), [b"a\nb\n", LINE.as_bytes()].concat());
    }
}
