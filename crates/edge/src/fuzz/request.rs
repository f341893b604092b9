//! Heads of requests.

use super::{ends, find};
use crate::{
    head::Ask,
    http1::{
        frame::{Bad, Body},
        parse,
    },
    http2::forward,
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
    said_in_http2(&first);
}

/// The same to a target that speaks HTTP/2: the same method, path and host, and no field that HTTP/2 forbids.
fn said_in_http2(ask: &Ask) {
    let Ok(request) = forward::request(ask, ()) else {
        return;
    };
    assert_eq!(request.method().as_str(), ask.method_name());
    let path = request.uri().path_and_query().map(|target| target.as_str());
    assert_eq!(path, Some(ask.target()), "another path");
    let named = request.uri().authority().map(|authority| authority.host());
    let host = named.map(|host| host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase());
    // HTTP/1.0 may name none, and HTTP/2 must.
    assert!(
        ask.host.is_empty() || host.as_deref() == Some(&*ask.host),
        "another host"
    );
    for forbidden in [
        "connection",
        "transfer-encoding",
        "upgrade",
        "host",
        "keep-alive",
        "proxy-connection",
    ] {
        assert!(!request.headers().contains_key(forbidden), "{forbidden}");
    }
}

fn left(body: &Body) -> Option<u64> {
    match body {
        Body::Empty => Some(0),
        Body::Length(left) => Some(*left),
        Body::Chunked(_) | Body::UntilClose => None,
    }
}
