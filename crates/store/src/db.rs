//! What work on the database holds in its hands.

use std::{cell::Cell, fmt::Display, ops::Deref};

use jiff::Timestamp;
use model::{TenantName, ledger::Deed};
use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use crate::{Error, keys::Keys};

/// Who does something, and when. The actor is written as in the ledger: `person:ops@acme.example`, `token:ci`,
/// `platform`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    pub actor: String,
    pub at: Timestamp,
}

impl By {
    pub fn new(actor: impl Into<String>, at: Timestamp) -> Self {
        Self {
            actor: actor.into(),
            at,
        }
    }

    /// The platform itself: flows and reconcilers.
    pub fn platform(at: Timestamp) -> Self {
        Self::new("platform", at)
    }
}

/// Everything that can be read.
pub struct Db<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) keys: &'a Keys,
}

/// Everything that can be changed, and read as it will be after the changes.
pub struct Tx<'a> {
    db: Db<'a>,
    /// A key was destroyed: its old copies must leave the write-ahead log.
    pub(crate) scrub: Cell<bool>,
}

impl<'a> Deref for Tx<'a> {
    type Target = Db<'a>;

    fn deref(&self) -> &Db<'a> {
        &self.db
    }
}

impl<'a> Db<'a> {
    pub(crate) fn new(connection: &'a Connection, keys: &'a Keys) -> Self {
        Self { connection, keys }
    }

    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        Ok(self
            .connection
            .prepare_cached(sql)?
            .query_row(params, read)
            .optional()?)
    }

    /// For queries that always have one row: counts, maxima.
    pub(crate) fn value<T: rusqlite::types::FromSql>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<T, Error> {
        Ok(self
            .connection
            .prepare_cached(sql)?
            .query_row(params, |row| row.get(0))?)
    }

    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl<'a> Tx<'a> {
    pub(crate) fn new(connection: &'a Connection, keys: &'a Keys) -> Self {
        Self {
            db: Db::new(connection, keys),
            scrub: Cell::new(false),
        }
    }

    /// Runs `work` so that, when it fails, what it did is undone and what was done before it stays. The outer error is
    /// that nobody knows what stays: the transaction must not be committed.
    pub fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<Result<T, Error>, Error> {
        self.run("SAVEPOINT attempt", [])?;
        let outcome = work(self);
        if outcome.is_err() {
            self.run("ROLLBACK TO attempt", [])?;
        }
        self.run("RELEASE attempt", [])?;
        Ok(outcome)
    }

    /// The number of rows that changed.
    pub(crate) fn run(&self, sql: &str, params: impl Params) -> Result<usize, Error> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    /// Runs an insert; a row that breaks a uniqueness rule is `exists`.
    pub(crate) fn insert(
        &self,
        sql: &str,
        params: impl Params,
        exists: impl FnOnce() -> Error,
    ) -> Result<i64, Error> {
        match self.connection.prepare_cached(sql)?.execute(params) {
            Ok(_) => Ok(self.connection.last_insert_rowid()),
            Err(rusqlite::Error::SqliteFailure(failure, _))
                if matches!(
                    failure.extended_code,
                    rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                        | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                        | rusqlite::ffi::SQLITE_CONSTRAINT_ROWID
                ) =>
            {
                Err(exists())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A line of the ledger about one of this room's own changes.
    pub(crate) fn note(
        &self,
        by: &By,
        action: &str,
        tenant: Option<&TenantName>,
        object: impl Display,
        detail: serde_json::Value,
    ) -> Result<(), Error> {
        let deed = Deed {
            actor: by.actor.clone(),
            action: action.to_owned(),
            tenant: tenant.map(ToString::to_string),
            object: object.to_string(),
            detail,
        };
        self.record(deed, by.at).map(drop)
    }
}
