//! Unix sockets under paths of any length, and without following what a host put in their place.
//!
//! `sun_path` has 108 bytes and data directories may be longer: the directory is opened and the socket is named
//! through `/proc/self/fd`.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
};

use camino::Utf8Path;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

/// Listens at `path`, in the place of what was there. The socket has `mode` before anybody can connect.
pub fn bind(path: &Utf8Path, mode: u32) -> io::Result<UnixListener> {
    let (dir, name) = split(path)?;
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // Nobody connects to a name that is not listened at yet, and it gets its mode before it gets its name.
    let fresh = format!(".{name}.{}", std::process::id());
    let _ = rustix::fs::unlinkat(&dir, fresh.as_str(), AtFlags::empty());
    let short = format!("/proc/self/fd/{}/{fresh}", dir.as_raw_fd());
    let listener = UnixListener::bind(&short)?;
    std::fs::set_permissions(&short, std::fs::Permissions::from_mode(mode))?;
    rustix::fs::renameat(&dir, fresh.as_str(), &dir, name)?;
    Ok(listener)
}

/// Connects to the socket at `path`. A symbolic link or another file in its place is refused: it may have been put
/// there by a host to reach a socket of the machine.
pub async fn connect(path: &Utf8Path) -> io::Result<UnixStream> {
    let (dir, name) = split(path)?;
    let socket = rustix::fs::openat(
        &dir,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&socket)?.st_mode);
    if kind != FileType::Socket {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{path} is not a socket"),
        ));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

fn split(path: &Utf8Path) -> io::Result<(OwnedFd, &str)> {
    let invalid = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path} does not name a socket"),
        )
    };
    let dir = path.parent().ok_or_else(invalid)?;
    let name = path.file_name().ok_or_else(invalid)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::open(dir.as_str(), flags, Mode::empty())?, name))
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

    #[tokio::test]
    async fn long_paths_work_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep = Utf8PathBuf::from_path_buf(dir.path().join("d".repeat(150))).unwrap();
        std::fs::create_dir(&deep).unwrap();
        let socket = deep.join("node.sock");
        let _first = bind(&socket, 0o600).unwrap();
        let listener = bind(&socket, 0o660).unwrap();
        let (client, server) = tokio::join!(connect(&socket), listener.accept());
        assert!(client.is_ok() && server.is_ok());
        assert_eq!(
            std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
            0o660
        );

        let link = deep.join("link.sock");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        assert!(connect(&link).await.is_err());
        assert!(connect(&deep.join("none.sock")).await.is_err());
    }
}
