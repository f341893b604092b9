//! How the database file is opened, and the steps that bring it to this version.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    time::Duration,
};

use camino::Utf8Path;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use crate::Error;

pub(crate) const FILE: &str = "store.sqlite3";

/// Applied in this order, each once. A released one is never edited.
const STEPS: &[&str] = &[
    include_str!("../migrations/01-catalogue.sql"),
    include_str!("../migrations/02-journal.sql"),
    include_str!("../migrations/03-ledger.sql"),
    include_str!("../migrations/04-evidence.sql"),
    include_str!("../migrations/05-people.sql"),
    include_str!("../migrations/06-kept-releases.sql"),
    include_str!("../migrations/07-states.sql"),
    include_str!("../migrations/08-releases.sql"),
    include_str!("../migrations/09-map-runs.sql"),
    include_str!("../migrations/10-attestations.sql"),
    include_str!("../migrations/11-children-that-failed.sql"),
    include_str!("../migrations/13-bakes-that-wait.sql"),
    include_str!("../migrations/14-strategies.sql"),
    include_str!("../migrations/15-migrations-and-machines.sql"),
    include_str!("../migrations/23-sleeping.sql"),
    include_str!("../migrations/26-branches.sql"),
    include_str!("../migrations/27-push-events.sql"),
    include_str!("../migrations/29-moves.sql"),
    include_str!("../migrations/28-late-machines.sql"),
    include_str!("../migrations/30-images-of-apps.sql"),
    include_str!("../migrations/35-doors.sql"),
    include_str!("../migrations/31-moves-back.sql"),
    include_str!("../migrations/32-builders.sql"),
    include_str!("../migrations/33-places-of-builds.sql"),
    include_str!("../migrations/34-alarms.sql"),
    include_str!("../migrations/36-origins-of-bakes.sql"),
    include_str!("../migrations/37-alarms-by-teller.sql"),
    include_str!("../migrations/38-indexes-by-execution.sql"),
    include_str!("../migrations/39-open-for-executions.sql"),
    include_str!("../migrations/40-names.sql"),
];

/// Makes the directory if it is not there, and keeps every other process out of it while the file is open.
pub(crate) fn lock(dir: &Utf8Path) -> Result<File, Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| Error::io("making the directory", dir, source))?;
    let path = dir.join("lock");
    let lock = private(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(Error::io("locking", &path, source)),
    }
}

fn private(path: &Utf8Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .truncate(false)
        .write(true)
        .read(true)
        .mode(0o600);
    options
        .open(path)
        .map_err(|source| Error::io("opening", path, source))
}

/// The writer's connection.
pub(crate) fn open(path: &Utf8Path) -> Result<Connection, Error> {
    // SQLite gives its other files the mode of the database.
    drop(private(path)?);
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16384;",
    )?;
    connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Error::Damaged(verdict));
    }
    connection.set_prepared_statement_cache_capacity(256);
    Ok(connection)
}

/// A connection that moves the write-ahead log and does nothing else.
pub(crate) fn open_plain(path: &Utf8Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -256;")?;
    Ok(connection)
}

pub(crate) fn open_reader(path: &Utf8Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch(
        "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024;",
    )?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

pub(crate) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let steps = STEPS.iter().map(|step| M::up(step).foreign_key_check());
    // A table that is made anew under its name must not take with it what refers to it.
    connection.pragma_update(None, "foreign_keys", false)?;
    let migrated = Migrations::from_iter(steps).to_latest(connection);
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(migrated?)
}

#[cfg(test)]
mod tests;
