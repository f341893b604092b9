//! Objects that are too large for one call: fetched piece by piece, so that no more than a piece is ever in memory, and one
//! that breaks off is fetched again.

use hyper::{Method, body::Bytes};

use crate::{
    call,
    client::{Client, Error, Rest},
    sign::encoded,
    upload::PIECE,
};

/// One version of an object, as far as it was fetched.
pub struct Download<'c> {
    client: &'c Client,
    bucket: &'c str,
    key: &'c str,
    version: &'c str,
    at: u64,
    /// Known from the first piece on.
    bytes: Option<u64>,
}

impl<'c> Download<'c> {
    pub fn new(client: &'c Client, bucket: &'c str, key: &'c str, version: &'c str) -> Self {
        Self {
            client,
            bucket,
            key,
            version,
            at: 0,
            bytes: None,
        }
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.bytes.is_some_and(|bytes| self.at >= bytes) {
            return Ok(None);
        }
        let end = self.at + PIECE as u64 - 1;
        let rest = Rest {
            method: Method::GET,
            bucket: Some(self.bucket),
            path: format!("/{}", encoded(self.key, "/")),
            query: format!("versionId={}", encoded(self.version, "")),
            headers: vec![("range".into(), format!("bytes={}-{end}", self.at))],
            body: Bytes::new(),
        };
        let answer = self.client.rest(&call::GET_PIECE, rest).await?;
        let range = answer.headers.get("content-range");
        let range = range.and_then(|range| range.to_str().ok()).and_then(range_of);
        match range {
            Some((first, bytes))
                if first == self.at
                    && self.bytes.is_none_or(|known| known == bytes)
                    && answer.body.len() as u64 == bytes.min(end + 1) - first =>
            {
                self.at += answer.body.len() as u64;
                self.bytes = Some(bytes);
                Ok(Some(answer.body))
            }
            _ => Err(Error::Answer {
                service: call::GET_PIECE.service,
                operation: call::GET_PIECE.operation,
            }),
        }
    }
}

/// The first byte and the length of the whole: `bytes 0-15/120`.
fn range_of(text: &str) -> Option<(u64, u64)> {
    let (range, bytes) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let (first, bytes) = (first.parse().ok()?, bytes.parse().ok()?);
    (first < bytes).then_some((first, bytes))
}

#[cfg(test)]
mod tests {
    use super::range_of;

    #[test]
    fn a_range_says_where_it_begins_and_of_how_much() {
        assert_eq!(range_of("bytes 0-15/120"), Some((0, 120)));
        assert_eq!(range_of("bytes 112-119/120"), Some((112, 120)));
        for bad in ["bytes */0", "0-1/2", "bytes 120-130/120", "bytes 0-1/*"] {
            assert_eq!(range_of(bad), None, "{bad}");
        }
    }
}
