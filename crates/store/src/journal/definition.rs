//! The text of a state machine, shared by all that begin with it.

use std::sync::{Arc, OnceLock, Weak};

use model::Digest;

use crate::{Db, Error, Tx, sql::Hash};

/// A definition, of which there may be a megabyte. Clones share the text, and its digest once it was computed.
#[derive(Debug, Clone)]
pub struct Definition(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    text: Box<str>,
    digest: OnceLock<Digest>,
}

/// A definition that is there as long as somebody else has it.
#[derive(Debug, Clone)]
pub struct Seen(Weak<Shared>);

impl Definition {
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Computed when it is asked for first.
    pub fn digest(&self) -> Digest {
        *self.0.digest.get_or_init(|| Digest::of(&*self.0.text))
    }

    pub fn seen(&self) -> Seen {
        Seen(Arc::downgrade(&self.0))
    }
}

impl Seen {
    pub fn get(&self) -> Option<Definition> {
        self.0.upgrade().map(Definition)
    }
}

impl From<String> for Definition {
    fn from(text: String) -> Self {
        Self(Arc::new(Shared {
            text: text.into(),
            digest: OnceLock::new(),
        }))
    }
}

impl From<&str> for Definition {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.text() == other.text()
    }
}

impl Eq for Definition {}

impl Tx<'_> {
    /// Keeps a definition unless it is kept.
    pub(super) fn keep_definition(&self, definition: &Definition) -> Result<Digest, Error> {
        let digest = definition.digest();
        if !self.has_definition(digest)? {
            // The text is copied when it is bound.
            self.run(
                "INSERT INTO machines VALUES (?1, ?2)",
                rusqlite::params![Hash(digest), definition.text()],
            )?;
        }
        Ok(digest)
    }
}

impl Db<'_> {
    fn has_definition(&self, digest: Digest) -> Result<bool, Error> {
        self.value(
            "SELECT EXISTS (SELECT 1 FROM machines WHERE digest = ?1)",
            [Hash(digest)],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_there_once_and_as_long_as_somebody_has_it() {
        let first = Definition::from("{}");
        let second = first.clone();
        assert!(std::ptr::eq(first.text(), second.text()));
        assert_eq!(first.digest(), Digest::of("{}"));
        let seen = first.seen();
        drop(first);
        assert_eq!(seen.get(), Some(second.clone()));
        drop(second);
        assert_eq!(seen.get(), None);
    }
}
