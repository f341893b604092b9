//! What one edge leaves to the next: the sockets that rules have for themselves, which nobody else holds. They stay open
//! from the one to the other, so that whoever connects in between waits and is not refused.
//!
//! The next one asks at a Unix socket beside that of the control side, and gets them as descriptors (unix(7)).

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{own::Key, socket};

/// Bytes of the line that comes with each socket: the longest address and what is spoken, filled up.
const LINE: usize = 64;
/// The next one waits no longer for them: it can open them itself.
const WAIT: Duration = Duration::from_secs(2);

/// Beside the admin socket.
fn door(admin: &Utf8Path) -> Utf8PathBuf {
    admin.with_extension("heir")
}

/// The way to the sockets of an edge that ends.
pub struct Will {
    /// Until somebody has come.
    door: Option<Utf8PathBuf>,
    listener: UnixListener,
}

impl Drop for Will {
    fn drop(&mut self) {
        if let Some(door) = self.door.take() {
            let _ = std::fs::remove_file(door);
        }
    }
}

impl Will {
    pub fn at(admin: &Utf8Path) -> io::Result<Self> {
        let door = door(admin);
        let listener = socket::listen(&door)?;
        let door = Some(door);
        Ok(Self { door, listener })
    }

    /// Gives them to the first who asks as the same user. Does not come back when nobody does.
    pub async fn execute(mut self, sockets: Vec<(Key, OwnedFd)>) -> io::Result<()> {
        let stream = loop {
            let (stream, _) = self.listener.accept().await?;
            if stream.peer_cred()?.uid() == rustix::process::geteuid().as_raw() {
                break stream;
            }
        };
        if let Some(door) = self.door.take() {
            let _ = std::fs::remove_file(door);
        }
        for (key, socket) in &sockets {
            let line = written(key);
            let send = || send(&stream, &line, socket);
            stream.async_io(Interest::WRITABLE, send).await?;
        }
        tracing::info!(sockets = sockets.len(), "the next one has the sockets of rules");
        Ok(())
    }
}

/// What an edge that ends at this moment leaves; nothing, where none does.
pub async fn inherit(admin: &Utf8Path) -> HashMap<Key, OwnedFd> {
    let mut left = HashMap::new();
    let taking = async {
        let Ok(stream) = socket::connect(&door(admin)).await else {
            return Ok(());
        };
        while let Some((key, socket)) = stream.async_io(Interest::READABLE, || receive(&stream)).await? {
            left.insert(key, socket);
        }
        Ok(())
    };
    let taken: io::Result<()> = timeout(WAIT, taking)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = taken {
        tracing::warn!(%error, "some sockets of rules are not left by the edge before");
    }
    left
}

fn written((at, is_udp): &Key) -> [u8; LINE] {
    let text = format!("{} {at}", if *is_udp { "udp" } else { "tcp" });
    let mut line = [b' '; LINE];
    // An address with a scope is the longest, and shorter than that.
    for (to, from) in line.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    line
}

fn read(line: &[u8]) -> Option<Key> {
    let (kind, at) = str::from_utf8(line).ok()?.trim_end().split_once(' ')?;
    let at: SocketAddr = at.parse().ok()?;
    match kind {
        "udp" => Some((at, true)),
        "tcp" => Some((at, false)),
        _ => None,
    }
}

fn send(stream: &UnixStream, line: &[u8; LINE], socket: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    if !with.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(stream, &[IoSlice::new(line)], &mut with, SendFlags::NOSIGNAL)?;
    match sent {
        LINE => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// The next socket; none at the end.
fn receive(stream: &UnixStream) -> io::Result<Option<(Key, OwnedFd)>> {
    let mut line = [0; LINE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let count = recvmsg(stream, &mut [IoSliceMut::new(&mut line)], &mut with, flags)?.bytes;
    if count == 0 {
        return Ok(None);
    }
    let socket = with.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    match read(&line[..count]).zip(socket) {
        Some(left) => Ok(Some(left)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_fits_its_line() {
        for at in [
            "127.0.0.1:80",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535",
        ] {
            for is_udp in [false, true] {
                let key = (at.parse().unwrap(), is_udp);
                assert_eq!(read(&written(&key)), Some(key));
            }
        }
        assert_eq!(read(b"sctp 127.0.0.1:80"), None);
    }
}
