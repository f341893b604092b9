//! Heads of answers.

use super::find;
use crate::http1::{frame::Body, parse};

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
