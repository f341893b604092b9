//! Bodies in chunks.

use crate::http1::frame::{Bad, Chunks, Framing};

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
