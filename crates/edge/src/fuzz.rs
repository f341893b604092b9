//! What the fuzz targets outside of this crate can reach of its parsers. No interface: it is hidden, and only asserts.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{
    head::Ask,
    http1::{
        frame::{Bad, Body, Chunks, Framing},
        parse,
    },
    worker::Ends,
};

/// Reads a request's head from any bytes. What is written for the target must be one whole head, and must be read by
/// the same reader as the same request: else two readers could disagree about where it ends.
///
/// # Panics
/// When it is not so.
pub fn request(bytes: &[u8]) {
    let Some(length) = find(bytes) else { return };
    let mut first = Ask::default();
    let Ok(read) = parse::request(&bytes[..length], &ends(), (7, 11), &mut first) else {
        return;
    };
    assert_eq!(find(&first.wire), Some(first.wire.len()), "it writes one head");
    let mut second = Ask::default();
    let again = match parse::request(&first.wire, &ends(), (7, 11), &mut second) {
        Ok(again) => again,
        // The lines that are added can be more than the reader takes.
        Err(Bad("there are too many header fields")) => return,
        Err(bad) => panic!("what is written cannot be read: {bad}"),
    };
    assert_eq!(left(&read.body), left(&again.body), "the body ends elsewhere");
    assert_eq!(
        (first.method_name(), first.target()),
        (second.method_name(), second.target())
    );
    assert!(first.host.is_empty() || first.host == second.host, "another host");
    assert!(!again.http10, "targets get HTTP/1.1");
    assert!(!read.upgrade || read.body.is_over(), "an upgrade has a body");
}

/// Reads an answer's head from any bytes; the first says whether the request was HEAD.
///
/// # Panics
/// When fields pass that must not.
pub fn reply(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let Some(length) = find(bytes) else { return };
    let to_head = first & 1 == 1;
    let sink = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
        assert!(
            !name.eq_ignore_ascii_case("transfer-encoding"),
            "framing is our own"
        );
        assert!(
            !value.contains(&b'\n') && !value.contains(&b'\r'),
            "a value has lines"
        );
        out.extend_from_slice(value);
    };
    let Ok((reply, _)) = parse::reply(&bytes[..length], to_head, |_, _| Vec::new(), sink) else {
        return;
    };
    assert!(!to_head || reply.body.is_over(), "an answer to HEAD has a body");
    let until_close = matches!(reply.body, Body::UntilClose);
    assert!(!(until_close && reply.keep), "the connection's end is the body's");
    let _ = (reply.is_interim(), reply.framing(first & 2 == 2));
}

/// Reads a chunked body from any bytes, cut in two where the first byte says: it must read alike in any pieces, and
/// what was read, written anew, must read the same.
///
/// # Panics
/// When it does not.
pub fn chunked(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let cut = usize::from(*cut).min(bytes.len());
    let whole = decode(&[bytes]);
    assert_eq!(whole, decode(&[&bytes[..cut], &bytes[cut..]]), "cut at {cut}");
    let Ok(Some((body, used))) = whole else { return };
    assert!(used <= bytes.len());
    let mut wire = Vec::new();
    Framing::Chunked.data(&mut wire, &body);
    Framing::Chunked.end(&mut wire, None);
    let length = wire.len();
    assert_eq!(decode(&[&wire]), Ok(Some((body, length))));
}

/// The body and the bytes that it took, once it is over.
fn decode(pieces: &[&[u8]]) -> Result<Option<(Vec<u8>, usize)>, Bad> {
    let (mut chunks, mut body, mut used) = (Chunks::default(), Vec::new(), 0);
    for piece in pieces {
        let (count, over) = chunks.decode(piece, |data| body.extend_from_slice(data))?;
        used += count;
        if over {
            return Ok(Some((body, used)));
        }
        assert_eq!(count, piece.len(), "a reader that wants more has used all");
    }
    Ok(None)
}

/// The length of the head, which is the same when it arrives byte by byte.
fn find(bytes: &[u8]) -> Option<usize> {
    let whole = parse::Scan::default().find(bytes);
    let mut scan = parse::Scan::default();
    let step = 1 + bytes.len() / 64;
    let mut ends: Vec<usize> = (0..bytes.len()).step_by(step).collect();
    ends.push(bytes.len());
    let parts = ends
        .into_iter()
        .map(|end| scan.find(&bytes[..end]))
        .find(|found| !matches!(found, Ok(None)));
    match (whole, parts) {
        (Ok(found), parts) => {
            assert_eq!(
                parts.unwrap_or(Ok(None)),
                Ok(found),
                "bit by bit it ends elsewhere"
            );
            found
        }
        (Err(_), parts) => {
            assert!(matches!(parts, Some(Err(_))), "bit by bit it is taken");
            None
        }
    }
}

fn left(body: &Body) -> Option<u64> {
    match body {
        Body::Empty => Some(0),
        Body::Length(left) => Some(*left),
        Body::Chunked(_) | Body::UntilClose => None,
    }
}

fn ends() -> Ends {
    Ends {
        peer: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4_000)),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        tls: false,
        identity: None,
    }
}
