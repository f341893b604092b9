use jiff::Timestamp;
use model::{ExecutionId, HostId, Place, port::LogRef, spec::Migrate};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Word},
};

/// What brought an environment's data to where one release needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub release: u64,
    pub execution: ExecutionId,
    /// Where it runs or ran, and since when there is a host of that name.
    pub host: HostId,
    pub born_at: Timestamp,
    pub script: String,
    pub irreversible: bool,
    pub state: MigrationState,
    /// Why it failed.
    pub reason: Option<String>,
    pub log: Option<LogRef>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationState {
    Running,
    Succeeded,
    /// It may have done a part of its work.
    Failed,
}

/// A migration that is about to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMigration {
    pub place: Place,
    pub release: u64,
    pub execution: ExecutionId,
    pub host: HostId,
    pub born_at: Timestamp,
}

impl Db<'_> {
    /// Of a release; `None` when none was ever begun.
    pub fn migration(&self, place: &Place, release: u64) -> Result<Option<Migration>, Error> {
        self.one(
            "SELECT * FROM migrations WHERE environment_id = ?1 AND release = ?2",
            params![self.environment_key(place)?, release],
            migration,
        )
    }

    /// The one that an execution runs or ran.
    pub fn migration_of(&self, place: &Place, execution: &ExecutionId) -> Result<Option<Migration>, Error> {
        self.one(
            "SELECT * FROM migrations WHERE environment_id = ?1 AND execution = ?2 ORDER BY release DESC LIMIT 1",
            params![self.environment_key(place)?, execution.as_str()],
            migration,
        )
    }

    /// Those of later releases that earlier ones do not work with, oldest first. One that failed may have done its work,
    /// or a part of it.
    pub fn irreversible_after(&self, place: &Place, release: u64) -> Result<Vec<Migration>, Error> {
        self.all(
            "SELECT * FROM migrations WHERE environment_id = ?1 AND release > ?2 AND irreversible = 1 ORDER BY release",
            params![self.environment_key(place)?, release],
            migration,
        )
    }
}

impl Tx<'_> {
    /// Writes down that a release's migration is about to run, before it does. One that was begun is begun once: it
    /// stays as it is.
    pub fn begin_migration(&self, new: &NewMigration, what: &Migrate, by: &By) -> Result<Migration, Error> {
        if let Some(known) = self.migration(&new.place, new.release)? {
            return Ok(known);
        }
        self.run(
            "INSERT INTO migrations (environment_id, release, execution, host, born_at, script, irreversible, state,
                 started_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                self.environment_key(&new.place)?,
                new.release,
                new.execution.as_str(),
                new.host.as_str(),
                At(new.born_at),
                what.script.as_str(),
                what.irreversible,
                Word(MigrationState::Running),
                At(by.at)
            ],
        )?;
        let detail = json!({
            "release": new.release, "host": new.host, "script": what.script, "irreversible": what.irreversible,
        });
        self.note(by, "migration.start", Some(&new.place.tenant), &new.place, detail)?;
        let begun = self.migration(&new.place, new.release)?;
        begun.ok_or_else(|| Error::missing("migration", &new.place))
    }

    /// What came of it: `reason` says why it failed. One that has ended stays as it is.
    pub fn end_migration(
        &self,
        place: &Place,
        release: u64,
        reason: Option<&str>,
        log: Option<&LogRef>,
        by: &By,
    ) -> Result<(), Error> {
        let running = |found: &Migration| found.state == MigrationState::Running;
        if !self.migration(place, release)?.as_ref().is_some_and(running) {
            return Ok(());
        }
        let (state, action) = match reason {
            None => (MigrationState::Succeeded, "migration.succeed"),
            Some(_) => (MigrationState::Failed, "migration.fail"),
        };
        self.run(
            "UPDATE migrations SET state = ?3, reason = ?4, log = ?5, ended_at = ?6
             WHERE environment_id = ?1 AND release = ?2",
            params![
                self.environment_key(place)?,
                release,
                Word(state),
                reason,
                log.map(LogRef::as_str),
                At(by.at)
            ],
        )?;
        let detail = json!({ "release": release, "reason": reason, "log": log });
        self.note(by, action, Some(&place.tenant), place, detail)
    }
}

fn migration(row: &Row<'_>) -> rusqlite::Result<Migration> {
    Ok(Migration {
        release: row.get("release")?,
        execution: row.parsed("execution")?,
        host: row.parsed("host")?,
        born_at: row.at("born_at")?,
        script: row.get("script")?,
        irreversible: row.get("irreversible")?,
        state: row.word("state")?,
        reason: row.get("reason")?,
        log: row.maybe_parsed("log")?,
        started_at: row.at("started_at")?,
        ended_at: row.maybe_at("ended_at")?,
    })
}
