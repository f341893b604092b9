//! The health check of HTTP/1.1: the first line of the answer to a GET.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of an answer that are looked at for its status.
const HEAD: usize = 1024;

/// The status of the answer to one GET on a connection of its own.
pub async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> io::Result<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: vend-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut head, mut length) = ([0; HEAD], 0);
    loop {
        match stream.read(&mut head[length..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => length += count,
        }
        if let Some(status) = status_of(&head[..length])? {
            return Ok(status);
        }
    }
}

/// The status, once the first line is there.
fn status_of(head: &[u8]) -> io::Result<Option<u16>> {
    let nonsense = || io::ErrorKind::InvalidData.into();
    let Some(end) = head.iter().position(|b| *b == b'\n') else {
        return match head.len() {
            HEAD => Err(nonsense()),
            _ => Ok(None),
        };
    };
    let line = str::from_utf8(&head[..end]).map_err(|_| nonsense())?;
    let mut words = line.split_ascii_whitespace();
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let status = words.next().filter(|word| word.len() == 3);
    match (version, status.and_then(|status| status.parse().ok())) {
        (Some(_), Some(status)) => Ok(Some(status)),
        _ => Err(nonsense()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_once_their_line_is_there() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(Some(200))),
            ("HTTP/1.0 404 Not Found\n", Some(Some(404))),
            ("HTTP/1.1 20", Some(None)),
            ("", Some(None)),
            ("SSH-2.0-x\r\n", None),
            ("HTTP/1.1 abc\r\n", None),
            ("HTTP/1.1\r\n", None),
        ] {
            assert_eq!(status_of(head.as_bytes()).ok(), expected, "{head:?}");
        }
    }
}
