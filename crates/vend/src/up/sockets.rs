//! The sockets that the supervisor holds: those of the one before it, or new ones.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixListener},
};

use super::{Error, endpoints, replace::Held};
use crate::config::Data;

/// The ports of the last time, because addresses of apps, remotes and webhooks carry them; free ones where there was
/// no last time, or somebody else took them.
pub fn picked(data: &Data, held: bool) -> (SocketAddr, SocketAddr) {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let again = |last: SocketAddr| match held || TcpListener::bind(last).is_ok() {
        true => last,
        false => free,
    };
    endpoints(data).map_or((free, free), |last| (again(last.http), again(last.api)))
}

/// One port for UDP and TCP. A free one (port 0) is looked for until it is free for both.
pub fn listen_names(address: SocketAddr, held: &mut Held) -> Result<(OwnedFd, OwnedFd, SocketAddr), Error> {
    const TRIES: usize = 64;
    let mut tries = 0;
    loop {
        let (tcp, at) = listen("dns-tcp", address, held)?;
        if let Some(udp) = held.udp("dns-udp", at) {
            return Ok((udp, tcp, at));
        }
        match UdpSocket::bind(at) {
            Ok(udp) => return Ok((udp.into(), tcp, at)),
            Err(_) if address.port() == 0 && tries < TRIES => tries += 1,
            Err(source) => {
                return Err(Error::Listen {
                    address: address.to_string(),
                    source,
                });
            }
        }
    }
}

/// The socket that the supervisor before this one held, or a new one.
pub fn listen(
    name: &'static str,
    address: SocketAddr,
    held: &mut Held,
) -> Result<(OwnedFd, SocketAddr), Error> {
    if let Some(socket) = held.tcp(name, address) {
        return Ok(socket);
    }
    let bind = || {
        let listener = TcpListener::bind(address)?;
        let at = listener.local_addr()?;
        Ok((listener.into(), at))
    };
    bind().map_err(|source| Error::Listen {
        address: address.to_string(),
        source,
    })
}

/// Everybody may connect: serve asks the kernel who it is, and refuses all but root and the platform's owner.
pub fn listen_local(path: &camino::Utf8Path) -> Result<OwnedFd, Error> {
    let bind = || {
        let listener: UnixListener = host::socket::bind(path, 0o666)?.into_std()?;
        Ok(listener.into())
    };
    bind().map_err(|source| Error::Listen {
        address: path.to_string(),
        source,
    })
}
