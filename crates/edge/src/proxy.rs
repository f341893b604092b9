//! The word of a proxy before a connection (PROXY protocol, versions 1 and 2): where it really came from. Read from
//! those before us, written for targets behind us.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a version 1 line, its end included.
const LINE: usize = 107;
/// Bytes after the fixed part of version 2. Addresses and what may follow them have room.
const REST: usize = 2048;

/// Source and destination; none when the proxy speaks for itself.
pub type Word = Option<(SocketAddr, SocketAddr)>;

/// The word is none.
fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads the word and not a byte more.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Word> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if length > REST {
            return Err(bad("the word of the proxy is too long"));
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return second(fixed[0], fixed[1], &rest);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE || !line.starts_with(b"PROXY ") {
            return Err(bad("the connection does not begin with the word of a proxy"));
        }
        line.push(stream.read_u8().await?);
    }
    first(&line)
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 4000 443`.
fn first(line: &[u8]) -> io::Result<Word> {
    let wrong = || bad("the line of the proxy is malformed");
    let line = line
        .strip_suffix(b"\r\n")
        .and_then(|line| str::from_utf8(line).ok())
        .ok_or_else(wrong)?;
    let mut words = line.split(' ');
    let (Some("PROXY"), Some(family)) = (words.next(), words.next()) else {
        return Err(wrong());
    };
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut address = || {
        words
            .next()?
            .parse::<IpAddr>()
            .ok()
            .filter(|ip| ip.is_ipv4() == (family == "TCP4"))
    };
    let (Some(from), Some(to)) = (address(), address()) else {
        return Err(wrong());
    };
    let port = |text: Option<&str>| text.filter(|t| !t.starts_with('+'))?.parse::<u16>().ok();
    match (family, port(words.next()), port(words.next()), words.next()) {
        ("TCP4" | "TCP6", Some(source), Some(destination), None) => Ok(Some((
            SocketAddr::new(from, source),
            SocketAddr::new(to, destination),
        ))),
        _ => Err(wrong()),
    }
}

/// Version 2, after its signature.
fn second(version: u8, family: u8, rest: &[u8]) -> io::Result<Word> {
    match version {
        // LOCAL: the proxy itself, for instance asking whether we are well.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(bad("the word of the proxy is of an unknown version")),
    }
    let wrong = || bad("the addresses of the proxy are cut off");
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    match family >> 4 {
        1 => {
            let a: &[u8; 12] = rest.first_chunk().ok_or_else(wrong)?;
            let ip = |b: &[u8]| IpAddr::from(Ipv4Addr::new(b[0], b[1], b[2], b[3]));
            Ok(Some((
                SocketAddr::new(ip(&a[..4]), port(&a[8..])),
                SocketAddr::new(ip(&a[4..]), port(&a[10..])),
            )))
        }
        2 => {
            let a: &[u8; 36] = rest.first_chunk().ok_or_else(wrong)?;
            let ip = |b: &[u8]| <[u8; 16]>::try_from(&b[..16]).map(|b| IpAddr::from(Ipv6Addr::from(b)));
            let (Ok(from), Ok(to)) = (ip(a), ip(&a[16..])) else {
                return Err(wrong());
            };
            Ok(Some((
                SocketAddr::new(from, port(&a[32..])),
                SocketAddr::new(to, port(&a[34..])),
            )))
        }
        _ => Ok(None),
    }
}

/// Writes version 1.
pub fn write_first(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match alike(source.ip(), destination.ip()) {
        Some((from, to)) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!(
                "PROXY {family} {from} {to} {} {}\r\n",
                source.port(),
                destination.port()
            )
            .into_bytes()
        }
        None => b"PROXY UNKNOWN\r\n".to_vec(),
    }
}

/// Writes version 2.
pub fn write_second(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    match alike(source.ip(), destination.ip()) {
        Some((IpAddr::V4(from), IpAddr::V4(to))) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]);
            out.extend_from_slice(&[from.octets(), to.octets()].concat());
            out.extend_from_slice(&ports);
        }
        Some((IpAddr::V6(from), IpAddr::V6(to))) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]);
            out.extend_from_slice(&[from.octets(), to.octets()].concat());
            out.extend_from_slice(&ports);
        }
        _ => out.extend_from_slice(&[0x20, 0, 0, 0]),
    }
    out
}

/// Both addresses as one family, if they are of one.
fn alike(a: IpAddr, b: IpAddr) -> Option<(IpAddr, IpAddr)> {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    (a.is_ipv4() == b.is_ipv4()).then_some((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn word(bytes: &[u8]) -> (io::Result<Word>, usize) {
        let mut input = bytes;
        let word = read(&mut input).await;
        (word, input.len())
    }

    #[tokio::test]
    async fn both_versions_read_back_and_nothing_more_is_taken() {
        for (from, to) in [
            ("192.0.2.1:4000", "198.51.100.1:443"),
            ("[2001:db8::1]:1", "[::1]:65535"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for written in [write_first(from, to), write_second(from, to)] {
                let (read, left) = word(&[&written, &b"GET /"[..]].concat()).await;
                assert_eq!((read.unwrap(), left), (Some((from, to)), 5));
                for cut in 0..written.len() {
                    assert!(word(&written[..cut]).await.0.is_err(), "cut at {cut}");
                }
            }
        }
    }

    #[tokio::test]
    async fn words_that_are_none_are_refused() {
        for bad in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "proxy tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        ] {
            assert!(word(bad.as_bytes()).await.0.is_err(), "{bad}");
        }
        assert!(
            word(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat())
                .await
                .0
                .is_err()
        );
        assert_eq!(word(b"PROXY UNKNOWN\r\n").await.0.unwrap(), None);
        assert_eq!(word(b"PROXY UNKNOWN ::1 ::1 1 2\r\n").await.0.unwrap(), None);
        assert_eq!(
            word(&[&SIGNATURE[..], &[0x20, 0, 0, 0]].concat())
                .await
                .0
                .unwrap(),
            None
        );
        for bad in [[0x11, 0x11, 0, 0], [0x21, 0x11, 0, 0], [0x21, 0x11, 0xff, 0xff]] {
            assert!(word(&[&SIGNATURE[..], &bad].concat()).await.0.is_err());
        }
    }
}
