//! Executions of state machines, as lists and descriptions show them.

use jiff::Timestamp;
use model::TenantName;
use rusqlite::{Row, params};

use super::{Kin, Status};
use crate::{
    Db, Error, Tx,
    sql::{At, Columns as _, Word},
};

/// An execution of a state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub key: u64,
    /// `None`: the platform's own.
    pub tenant: Option<TenantName>,
    /// Number of the tenant; 0: the platform.
    pub owner: u64,
    /// Key of the state machine, which may be gone.
    pub machine: u64,
    pub name: String,
    pub arn: String,
    pub origin: String,
    pub input: String,
    pub started_at: Timestamp,
    pub status: Status,
    pub output: Option<String>,
    pub error: Option<String>,
    pub cause: Option<String>,
    pub ended_at: Option<Timestamp>,
    /// How often it was tried again, and when last.
    pub redrives: u32,
    pub redriven_at: Option<Timestamp>,
    /// It is over, and what is needed to try it again is kept.
    pub redrivable: bool,
    /// Of a child of a Map run.
    pub kin: Option<Kin>,
}

/// Which executions of a machine to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub machine: u64,
    /// The children of this Map run, last first, and not the executions of a machine.
    pub run: Option<u64>,
    pub status: Option<Status>,
    /// Only those that were tried again, or only those that were not.
    pub redriven: Option<bool>,
    /// Only those that wait to be tried again with their Map run.
    pub waiting: bool,
    /// Only those with a smaller key; of children: with a smaller number.
    pub before: Option<u64>,
    pub limit: u32,
}

fn tried(filter: &RunFilter) -> &'static str {
    match filter.redriven {
        None => "",
        Some(true) => " AND x.redrives > 0",
        Some(false) => " AND x.redrives = 0",
    }
}

const SELECT: &str =
    "SELECT x.*, t.name AS tenant, r.execution AS parent, r.task AS parent_task, c.items AS child_items,
    x.ended_at IS NOT NULL AND EXISTS (SELECT 1 FROM snapshots s WHERE s.execution = x.key) AS redrivable
    FROM state_executions x LEFT JOIN tenants t ON t.id = x.tenant_id
    LEFT JOIN map_runs r ON r.key = x.run LEFT JOIN map_children c ON c.run = x.run AND c.child = x.child";

impl Db<'_> {
    pub fn run(&self, arn: &str) -> Result<Option<Run>, Error> {
        self.one(&format!("{SELECT} WHERE x.arn = ?1"), [arn], run)
    }

    /// An execution by its key, with its definition.
    pub fn run_by_key(&self, key: u64) -> Result<Option<(Run, String)>, Error> {
        self.one(
            &format!(
                "SELECT y.*, m.definition AS text FROM ({SELECT} WHERE x.key = ?1) y
                 JOIN machines m ON m.digest = y.definition"
            ),
            [key],
            |row| Ok((run(row)?, row.get("text")?)),
        )
    }

    /// How many executions of a machine are open, children of Map runs aside; no more than `most` are counted.
    pub fn count_open_runs(&self, machine: u64, most: u32) -> Result<u32, Error> {
        let sql = "SELECT count(*) AS open FROM (SELECT 1 FROM state_executions
                   WHERE machine = ?1 AND ended_at IS NULL AND run IS NULL LIMIT ?2)";
        Ok(self
            .one(sql, (machine, most), |row| row.get("open"))?
            .unwrap_or_default())
    }

    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>, Error> {
        if let Some(of) = filter.run {
            return self.children_of(of, filter);
        }
        let mut sql = format!("{SELECT} WHERE x.machine = ?1 AND x.run IS NULL AND x.key < ?2");
        sql.push_str(match filter.status {
            Some(Status::Running) => " AND x.ended_at IS NULL AND ?3 IS NOT NULL",
            Some(_) => " AND x.status = ?3",
            None => " AND ?3 IS NULL",
        });
        sql.push_str(tried(filter));
        sql.push_str(" ORDER BY x.key DESC LIMIT ?4");
        let before = filter.before.unwrap_or(i64::MAX as u64);
        self.all(
            &sql,
            params![filter.machine, before, filter.status.map(Word), filter.limit],
            run,
        )
    }

    fn children_of(&self, of: u64, filter: &RunFilter) -> Result<Vec<Run>, Error> {
        let mut sql = format!("{SELECT} WHERE x.run = ?1 AND x.child < ?2");
        sql.push_str(" AND (?3 IS NULL OR x.status = ?3)");
        if filter.waiting {
            sql.push_str(" AND x.place IS NULL");
        }
        sql.push_str(tried(filter));
        sql.push_str(" ORDER BY x.child DESC LIMIT ?4");
        let before = filter.before.unwrap_or(i64::MAX as u64);
        self.all(
            &sql,
            params![of, before, filter.status.map(Word), filter.limit],
            run,
        )
    }

    /// Keys of a machine's open executions; children of Map runs end with those that they belong to.
    pub fn open_runs(&self, machine: u64) -> Result<Vec<u64>, Error> {
        self.all(
            "SELECT key FROM state_executions WHERE machine = ?1 AND ended_at IS NULL AND run IS NULL ORDER BY key",
            [machine],
            |row| row.get(0),
        )
    }
}

impl Tx<'_> {
    /// Forgets executions of tenants' state machines that ended before `ended_before`, and those of a machine beyond
    /// its newest `keep`; `limit` at most. Children of Map runs go before the execution that they belong to, and count
    /// too. Gives how many.
    pub fn prune_runs(&self, ended_before: Timestamp, keep: u32, limit: u32) -> Result<usize, Error> {
        let mut gone = 0;
        let old = self.all(
            "SELECT key FROM state_executions WHERE ended_at IS NOT NULL AND ended_at < ?1
             AND run IS NULL AND tenant_id IS NOT NULL ORDER BY ended_at LIMIT ?2",
            params![At(ended_before), limit],
            |row| row.get(0),
        )?;
        gone += self.forget(old, limit)?;
        let machines: Vec<u64> = self.all(
            "SELECT DISTINCT machine FROM state_executions WHERE run IS NULL AND tenant_id IS NOT NULL",
            [],
            |row| row.get(0),
        )?;
        for machine in machines {
            let many = self.all(
                "SELECT key FROM state_executions WHERE machine = ?1 AND run IS NULL AND ended_at IS NOT NULL AND key <=
                     (SELECT key FROM state_executions WHERE machine = ?1 AND run IS NULL
                      ORDER BY key DESC LIMIT 1 OFFSET ?2)
                 LIMIT ?3",
                params![machine, keep, limit],
                |row| row.get(0),
            )?;
            gone += self.forget(many, limit)?;
        }
        if gone > 0 {
            self.prune_definitions()?;
        }
        Ok(gone)
    }

    /// Deletes executions with what belongs to them: rows of their children first, about `limit` rows at most. An
    /// execution of which something is left stays for the next time.
    fn forget(&self, executions: Vec<u64>, limit: u32) -> Result<usize, Error> {
        let mut gone = 0;
        for key in executions {
            let left = (limit as usize).saturating_sub(gone);
            if left == 0 {
                break;
            }
            gone += self.forget_children(key, left)?;
            if gone < limit as usize {
                gone += self.run("DELETE FROM state_executions WHERE key = ?1", [key])?;
            }
        }
        Ok(gone)
    }
}

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        key: row.get("key")?,
        tenant: row.maybe_parsed("tenant")?,
        owner: row.get::<_, Option<u64>>("tenant_id")?.unwrap_or(0),
        machine: row.get("machine")?,
        name: row.get("name")?,
        arn: row.get("arn")?,
        origin: row.get("origin")?,
        input: row.get("input")?,
        started_at: row.at("started_at")?,
        status: row.word("status")?,
        output: row.get("output")?,
        error: row.get("error")?,
        cause: row.get("cause")?,
        ended_at: row.maybe_at("ended_at")?,
        redrives: row.get("redrives")?,
        redriven_at: row.maybe_at("redriven_at")?,
        redrivable: row.get("redrivable")?,
        kin: match row.get("run")? {
            None => None,
            Some(run) => Some(Kin {
                run,
                execution: row.get("parent")?,
                task: row.get("parent_task")?,
                child: row.get("child")?,
                place: row.get::<_, Option<u64>>("place")?.unwrap_or_default(),
                items: row.get("child_items")?,
            }),
        },
    })
}
