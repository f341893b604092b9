use std::sync::Arc;

use camino::Utf8PathBuf;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no {what} `{name}`")]
    Missing { what: &'static str, name: String },
    #[error("{what} `{name}` is there already")]
    Exists { what: &'static str, name: String },
    /// A rule forbids it. Says which, and what to do about it.
    #[error("{message}")]
    Refused { message: String, next: Option<String> },
    #[error("no {what} is left")]
    Exhausted { what: &'static str },
    /// A sealed value does not open: it was altered or moved, or its key is another one.
    #[error(
        "the sealed {what} cannot be opened: it was altered, or the key is not the one it was sealed with"
    )]
    Sealed { what: &'static str },
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the database could not be brought to this version's schema")]
    Migration(#[from] rusqlite_migration::Error),
    #[error("the commit failed: nothing of it was kept")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// Another piece of work in the same commit made SQLite undo the whole of it.
    #[error("the commit was undone because the disk or the memory failed: nothing of it was kept")]
    Undone,
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error("another process has the store at {0} open")]
    Locked(Utf8PathBuf),
    #[error("{action} {path} failed")]
    Io {
        action: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the export could not be written")]
    Export(#[source] std::io::Error),
    #[error("the key {path} {problem}")]
    Key {
        path: Utf8PathBuf,
        problem: &'static str,
    },
    #[error("the system gave no random bytes: {0}")]
    Random(String),
    #[error("a piece of work on the database panicked: what it did was undone")]
    Panicked,
    #[error("the store is closed")]
    Closed,
}

impl Error {
    pub(crate) fn missing(what: &'static str, name: impl ToString) -> Self {
        Self::Missing {
            what,
            name: name.to_string(),
        }
    }

    pub(crate) fn exists(what: &'static str, name: impl ToString) -> Self {
        Self::Exists {
            what,
            name: name.to_string(),
        }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            next: None,
        }
    }

    pub(crate) fn refused_with(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            next: Some(next.into()),
        }
    }

    pub(crate) fn io(action: &'static str, path: &camino::Utf8Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
