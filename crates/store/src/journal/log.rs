//! The log under state machines: events are appended, and folded later into what they led to.
//!
//! The store does not know what an event means. Who wrote it replays it: a snapshot and the events after it give the
//! state, always the same one. Nothing of an execution is ever changed in place while it moves, so that a commit of many
//! executions writes few pages.

use jiff::Timestamp;
use model::{TenantName, ledger::Deed};
use rusqlite::{Row, params};

use super::{ChildEnd, Definition, Kin, RunStep, Status};
use crate::{
    Db, Error, Tx,
    sql::{At, Columns as _, Word},
};

/// An event of an execution, in the order of the whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Grows by one from event to event of the log.
    pub seq: u64,
    pub execution: u64,
    pub at: Timestamp,
    pub event: String,
}

/// An execution's row, made with its first event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Never given before.
    pub key: u64,
    /// `None`: the platform's own.
    pub tenant: Option<TenantName>,
    /// Key of the state machine.
    pub machine: u64,
    pub name: String,
    /// Unique.
    pub arn: String,
    /// JSON; the store does not read it.
    pub origin: String,
    pub definition: Definition,
    pub input: String,
    pub at: Timestamp,
    /// Of a child of a Map run.
    pub kin: Option<Kin>,
}

/// A part of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Id of its first event.
    pub first: u64,
    /// A JSON array.
    pub events: String,
}

/// What the events of an open execution up to `seq` have led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    pub snapshot: Snapshot,
    /// What happened since the fold before.
    pub history: Option<Piece>,
}

/// An open execution as it was after the event `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub execution: u64,
    pub seq: u64,
    pub wake: Option<Timestamp>,
    pub open: String,
    pub orders: String,
    pub state: String,
}

/// What a start needs of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub execution: u64,
    /// Number of its tenant; 0: the platform.
    pub owner: u64,
    pub seq: u64,
    pub open: String,
}

/// The end of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    pub execution: u64,
    pub status: Status,
    pub output: Option<String>,
    pub error: Option<String>,
    pub cause: Option<String>,
    pub at: Timestamp,
    pub history: Option<Piece>,
    /// What it takes to try it again, if it may be.
    pub snapshot: Option<Snapshot>,
    /// Of a child of a Map run.
    pub kin: Option<Kin>,
}

/// What is committed together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub begins: Vec<Begin>,
    pub events: Vec<Logged>,
    /// Executions that had ended and go on.
    pub reopened: Vec<(u64, Timestamp)>,
    /// Children of Map runs that go on under another number: before they are reopened.
    pub placed: Vec<(u64, Kin)>,
    pub runs: Vec<RunStep>,
    /// Express children of Map runs that ended.
    pub ended: Vec<ChildEnd>,
    pub folds: Vec<Fold>,
    pub finishes: Vec<Finish>,
    /// Lines of the ledger, with the execution that they are about.
    pub deeds: Vec<(u64, Deed, Timestamp)>,
    /// Every event before this one is folded or of an execution that ended. The last event of the log is always kept,
    /// because numbers go on from it.
    pub folded_before: Option<u64>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.begins.is_empty()
            && self.events.is_empty()
            && self.reopened.is_empty()
            && self.placed.is_empty()
            && self.runs.is_empty()
            && self.ended.is_empty()
            && self.folds.is_empty()
            && self.finishes.is_empty()
            && self.deeds.is_empty()
            && self.folded_before.is_none()
    }

    /// Takes out what is about one execution.
    pub fn forget(&mut self, execution: u64) {
        self.begins.retain(|begin| begin.key != execution);
        self.events.retain(|logged| logged.execution != execution);
        self.reopened.retain(|(key, _)| *key != execution);
        self.placed.retain(|(key, _)| *key != execution);
        self.runs.retain(|step| step.execution != execution);
        self.folds.retain(|fold| fold.snapshot.execution != execution);
        self.finishes.retain(|finish| finish.execution != execution);
        self.deeds.retain(|(key, ..)| *key != execution);
    }
}

/// See [`Db::progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub status: Status,
    pub redrives: u32,
    /// Number of its last event, while the log or a snapshot knows it.
    pub seq: Option<u64>,
}

impl Db<'_> {
    /// Number of the last event, and the highest key of an execution.
    pub fn log_ends(&self) -> Result<(u64, u64), Error> {
        let seq: Option<u64> = self.value("SELECT max(seq) FROM events", [])?;
        let row: Option<u64> = self.value("SELECT max(key) FROM state_executions", [])?;
        let logged: Option<u64> = self.value("SELECT max(execution) FROM events", [])?;
        let run: Option<u64> = self.value("SELECT max(key) FROM map_runs", [])?;
        Ok((seq.unwrap_or(0), row.max(logged).max(run).unwrap_or(0)))
    }

    /// Events after `after`, in their order, of one execution or of all.
    pub fn log(&self, execution: Option<u64>, after: u64) -> Result<Vec<Logged>, Error> {
        let read = |row: &Row<'_>| {
            Ok(Logged {
                seq: row.get("seq")?,
                execution: row.get("execution")?,
                at: row.at("at")?,
                event: row.get("event")?,
            })
        };
        match execution {
            Some(key) => self.all(
                "SELECT * FROM events WHERE seq > ?1 AND execution = ?2 ORDER BY seq",
                [after, key],
                read,
            ),
            None => self.all("SELECT * FROM events WHERE seq > ?1 ORDER BY seq", [after], read),
        }
    }

    pub fn snapshot(&self, execution: u64) -> Result<Option<Snapshot>, Error> {
        self.one(
            "SELECT * FROM snapshots WHERE execution = ?1",
            [execution],
            |row| {
                Ok(Snapshot {
                    execution: row.get("execution")?,
                    seq: row.get("seq")?,
                    wake: row.maybe_at("wake")?,
                    open: row.get("open")?,
                    orders: row.get("orders")?,
                    state: row.get("state")?,
                })
            },
        )
    }

    /// How far an execution is: it has not changed as long as this has not. `None`: there is none with this key.
    pub fn progress(&self, execution: u64) -> Result<Option<Progress>, Error> {
        self.one(
            "SELECT x.status, x.redrives, ifnull((SELECT e.seq FROM events e
                 WHERE e.seq > ifnull(s.seq, 0) AND e.execution = x.key ORDER BY e.seq DESC LIMIT 1), s.seq) AS seq
             FROM state_executions x LEFT JOIN snapshots s ON s.execution = x.key WHERE x.key = ?1",
            [execution],
            |row| {
                Ok(Progress {
                    status: row.word("status")?,
                    redrives: row.get("redrives")?,
                    seq: row.get("seq")?,
                })
            },
        )
    }

    /// Snapshots of executions with a key above `after`, in the order of keys.
    pub fn waiting(&self, after: u64, limit: u32) -> Result<Vec<Waiting>, Error> {
        self.all(
            "SELECT s.execution, s.seq, s.open, ifnull(x.tenant_id, 0) AS owner FROM snapshots s
             JOIN state_executions x ON x.key = s.execution
             WHERE s.execution > ?1 ORDER BY s.execution LIMIT ?2",
            params![after, limit],
            |row| {
                Ok(Waiting {
                    execution: row.get("execution")?,
                    owner: row.get("owner")?,
                    seq: row.get("seq")?,
                    open: row.get("open")?,
                })
            },
        )
    }

    /// Executions whose snapshot has a timer that goes off after `after` and not after `until`, earliest first.
    pub fn waking(
        &self,
        after: Option<Timestamp>,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<(u64, Timestamp)>, Error> {
        self.all(
            "SELECT execution, wake FROM snapshots WHERE wake IS NOT NULL AND wake > ?1 AND wake <= ?2
             ORDER BY wake LIMIT ?3",
            params![after.map_or(i64::MIN, |at| at.as_microsecond()), At(until), limit],
            |row| Ok((row.get("execution")?, row.at("wake")?)),
        )
    }

    /// Pieces of a history that hold events from `first` on, in their order.
    pub fn pieces(&self, execution: u64, first: u64, limit: u32) -> Result<Vec<Piece>, Error> {
        self.all(
            "SELECT first, events FROM histories WHERE execution = ?1 AND first >=
               ifnull((SELECT max(first) FROM histories WHERE execution = ?1 AND first <= ?2), 0)
             ORDER BY first LIMIT ?3",
            params![execution, first, limit],
            |row| {
                Ok(Piece {
                    first: row.get("first")?,
                    events: row.get("events")?,
                })
            },
        )
    }
}

impl Tx<'_> {
    /// Executions that a batch begins or reopens, and whose tenant there is not any more: keeping them would fail.
    pub fn homeless(&self, batch: &Batch) -> Result<Vec<(u64, Error)>, Error> {
        let mut gone = Vec::new();
        let mut known: Option<(&TenantName, bool)> = None;
        for begin in &batch.begins {
            let Some(tenant) = &begin.tenant else { continue };
            // Those that begin together are mostly of one tenant.
            let is_there = match known {
                Some((name, is_there)) if name == tenant => is_there,
                _ => match self.tenant_key(tenant) {
                    Ok(_) => true,
                    Err(Error::Missing { .. }) => false,
                    Err(error) => return Err(error),
                },
            };
            known = Some((tenant, is_there));
            if !is_there {
                gone.push((begin.key, Error::missing("tenant", tenant)));
            }
        }
        for (key, _) in &batch.reopened {
            let row = "SELECT 1 FROM state_executions WHERE key = ?1";
            if self.one(row, [key], |row| row.get::<_, u64>(0))?.is_none() {
                gone.push((*key, Error::missing("execution", key)));
            }
        }
        Ok(gone)
    }

    /// Commits what several executions did.
    pub fn append(&self, batch: &Batch) -> Result<(), Error> {
        for begin in &batch.begins {
            self.begin(begin)?;
        }
        for logged in &batch.events {
            self.run(
                "INSERT INTO events VALUES (?1, ?2, ?3, ?4)",
                params![logged.seq, logged.execution, At(logged.at), logged.event],
            )?;
        }
        for (execution, kin) in &batch.placed {
            self.place(*execution, kin)?;
        }
        for step in &batch.runs {
            self.run_step(step)?;
        }
        for end in &batch.ended {
            self.child_ended(end)?;
        }
        for (execution, at) in &batch.reopened {
            self.run(
                "UPDATE state_executions SET status = ?2, output = NULL, error = NULL, cause = NULL,
                 ended_at = NULL, redrives = redrives + 1, redriven_at = ?3 WHERE key = ?1",
                params![execution, Word(Status::Running), At(*at)],
            )?;
        }
        for fold in &batch.folds {
            self.fold(fold)?;
        }
        for finish in &batch.finishes {
            self.finish(finish)?;
        }
        for (_, deed, at) in &batch.deeds {
            self.record(deed.clone(), *at)?;
        }
        if let Some(before) = batch.folded_before {
            self.run(
                "DELETE FROM events WHERE seq < ?1 AND seq < (SELECT max(seq) FROM events)",
                [before],
            )?;
        }
        Ok(())
    }

    fn begin(&self, begin: &Begin) -> Result<(), Error> {
        let definition = self.keep_definition(&begin.definition)?;
        self.insert(
            "INSERT INTO state_executions
                 (key, tenant_id, machine, name, arn, origin, definition, input, started_at, status, run, child, place)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                begin.key,
                begin
                    .tenant
                    .as_ref()
                    .map(|tenant| self.tenant_key(tenant))
                    .transpose()?,
                begin.machine,
                begin.name,
                begin.arn,
                begin.origin,
                crate::sql::Hash(definition),
                begin.input,
                At(begin.at),
                Word(Status::Running),
                begin.kin.map(|kin| kin.run),
                begin.kin.map(|kin| kin.child),
                begin.kin.map(|kin| kin.place)
            ],
            || Error::exists("execution", &begin.arn),
        )
        .map(drop)
    }

    fn fold(&self, fold: &Fold) -> Result<(), Error> {
        self.keep_snapshot(&fold.snapshot)?;
        self.keep_piece(fold.snapshot.execution, fold.history.as_ref())
    }

    fn keep_snapshot(&self, snapshot: &Snapshot) -> Result<(), Error> {
        self.run(
            "INSERT OR REPLACE INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                snapshot.execution,
                snapshot.seq,
                snapshot.wake.map(At),
                snapshot.open,
                snapshot.orders,
                snapshot.state
            ],
        )
        .map(drop)
    }

    fn keep_piece(&self, execution: u64, piece: Option<&Piece>) -> Result<(), Error> {
        if let Some(piece) = piece {
            self.run(
                "INSERT INTO histories VALUES (?1, ?2, ?3)",
                params![execution, piece.first, piece.events],
            )?;
        }
        Ok(())
    }

    fn finish(&self, finish: &Finish) -> Result<(), Error> {
        let owner: Option<Option<u64>> = self.one(
            "UPDATE state_executions SET status = ?2, output = ?3, error = ?4, cause = ?5, ended_at = ?6
             WHERE key = ?1 RETURNING tenant_id",
            params![
                finish.execution,
                Word(finish.status),
                finish.output,
                finish.error,
                finish.cause,
                At(finish.at)
            ],
            |row| row.get(0),
        )?;
        if let Some(kin) = &finish.kin {
            self.count(kin.run, finish.status, 1, kin.items)?;
        }
        if owner == Some(None) {
            self.end_execution(finish)?;
        }
        match &finish.snapshot {
            Some(snapshot) => self.keep_snapshot(snapshot)?,
            None => drop(self.run("DELETE FROM snapshots WHERE execution = ?1", [finish.execution])?),
        }
        self.keep_piece(finish.execution, finish.history.as_ref())
    }
}
