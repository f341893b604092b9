//! Trees of files as tars: out of an archive that nobody vouches for, and into one that is the same for the same files.
//!
//! The room exists so that a hostile archive is stopped in one place: nothing is ever written outside of the directory
//! that it is unpacked into, and never more than was allowed. It knows nothing of what the files mean. A link with an
//! absolute target is kept as it is: whoever unpacks never follows a link.

mod archive;
mod links;
mod pack;
mod unpack;
mod zip;

pub use archive::{Kind, Member, stays_inside, visit};
pub use links::links_out;
pub use pack::{Packer, pack};
pub use unpack::{Format, open_beneath, unpack, unpack_file, unpack_some};

use std::path::PathBuf;

/// The most that an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories and links together.
    pub entries: u64,
    pub total_bytes: u64,
    pub file_bytes: u64,
}

impl Limits {
    /// A customer's source tree or revision.
    pub const SOURCE: Self = Self {
        entries: 300_000,
        total_bytes: 4 << 30,
        file_bytes: 2 << 30,
    };
}

/// How much an archive held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub entries: u64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the archive cannot be read")]
    Archive(#[source] std::io::Error),
    #[error("the archive is {0}; bring a plain tar (other formats are not available yet)")]
    Format(&'static str),
    #[error("the archive is {0}: bring a tar, tgz or zip, and say which it is")]
    Other(&'static str),
    #[error("the archive has an entry `{path}` that is refused: {reason}")]
    Refused { path: String, reason: &'static str },
    #[error("the archive is too large: {0}")]
    TooLarge(String),
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What the archive holds is to blame, and not the machine.
    pub fn is_content(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}

impl From<Error> for model::port::Fault {
    fn from(error: Error) -> Self {
        let text = crate::logs::chain(&error);
        match error.is_content() {
            true => Self::customer(text),
            false => Self::platform(text).next("see whether the data directory's disk is full"),
        }
    }
}

/// File patterns as one matcher: `*` stays in one directory, `**` crosses them. The error is for the pattern's author.
pub fn globs(patterns: &[String]) -> Result<globset::GlobSet, String> {
    let mut set = globset::GlobSetBuilder::new();
    for pattern in patterns {
        let glob = globset::GlobBuilder::new(pattern.trim_start_matches("./"))
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| format!("`{pattern}` is not a file pattern: {}", error.kind()))?;
        set.add(glob);
    }
    set.build().map_err(|error| error.to_string())
}

fn io_error<E: Into<std::io::Error>>(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(E) -> Error {
    let path = path.into();
    move |source| Error::Io {
        doing,
        path,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
