use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Fault;
use crate::Digest;

/// Content-addressed bytes: source trees, revisions, exports.
pub trait Objects {
    /// Keeps the bytes of the file at `path`. Keeping the same bytes twice changes nothing.
    fn put(&self, path: &camino::Utf8Path) -> impl Future<Output = Result<Digest, Fault>> + Send;

    /// The bytes of an object into a new file at `path`.
    fn get(&self, digest: &Digest, path: &camino::Utf8Path)
    -> impl Future<Output = Result<(), Fault>> + Send;

    fn has(&self, digest: &Digest) -> impl Future<Output = Result<bool, Fault>> + Send;
}

/// The name of one kept log: `build/TICKET`, `bake/TICKET`, `host/HOST/console`, `host/HOST/service`,
/// `deploy/TICKET`. At most 5 parts of `[A-Za-z0-9._-]`, none of which starts with a dot: it is also a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogRef(String);

/// A text that is not the name of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a log")]
pub struct NotALog;

impl LogRef {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogRef {
    type Err = NotALog;

    fn from_str(text: &str) -> Result<Self, NotALog> {
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let shape = text.len() <= 200 && text.split('/').count() <= 5 && text.split('/').all(part);
        shape.then(|| Self(text.to_owned())).ok_or(NotALog)
    }
}

impl TryFrom<String> for LogRef {
    type Error = NotALog;

    fn try_from(text: String) -> Result<Self, NotALog> {
        text.parse()
    }
}

impl From<LogRef> for String {
    fn from(log: LogRef) -> Self {
        log.0
    }
}

impl fmt::Display for LogRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Some bytes of a log, from an offset in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    pub text: String,
    /// Where to go on reading, in bytes.
    pub next: u64,
    /// Nothing will be added any more.
    pub ended: bool,
    /// When the text came, in order of offsets; none where nobody noted it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<LogTime>,
}

/// What a log has from this offset on, up to that of the next, came in this second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogTime {
    /// In bytes, from the log's beginning.
    pub from: u64,
    #[schema(value_type = String)]
    pub at: Timestamp,
}

/// Logs that stay. Reading a log that does not exist yet gives an empty chunk that has not ended.
pub trait Logs {
    fn read(&self, log: &LogRef, offset: u64) -> impl Future<Output = Result<LogChunk, Fault>> + Send;
}
