//! Unix sockets under any data directory: an address holds 108 bytes and a path may be longer, so a socket is bound
//! and connected to through its folder's descriptor.

use std::{io, os::fd::AsRawFd};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

/// The folder, opened, and the path of `name` through it.
fn through(folder: &Utf8Path, name: &str) -> io::Result<(rustix::fd::OwnedFd, Utf8PathBuf)> {
    let folder = match folder.as_str() {
        "" => Utf8Path::new("."),
        _ => folder,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder.as_std_path(), flags, Mode::empty())?;
    let path = Utf8PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    Ok((folder, path))
}

fn split(path: &Utf8Path) -> io::Result<(&Utf8Path, &str)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Listens at `path`. A socket that an earlier process left there is replaced in one step, so that there is always one.
pub fn listen(path: &Utf8Path) -> io::Result<UnixListener> {
    let (folder, name) = split(path)?;
    std::fs::create_dir_all(folder)?;
    let (_open, new) = through(folder, &format!("{name}.{}", std::process::id()))?;
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    // Owner and group: who may speak to the edge decides where all traffic goes.
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

pub async fn connect(path: &Utf8Path) -> io::Result<UnixStream> {
    let (folder, name) = split(path)?;
    let (_open, path) = through(folder, name)?;
    UnixStream::connect(path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_paths_and_leftovers_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path())
            .unwrap()
            .join("x".repeat(120))
            .join("edge.sock");
        drop(listen(&path).unwrap());
        let listener = listen(&path).unwrap();
        let (client, server) = tokio::join!(connect(&path), listener.accept());
        client.unwrap();
        server.unwrap();
    }
}
