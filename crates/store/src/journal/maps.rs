//! Runs of distributed Maps and their children.

use jiff::Timestamp;
use rusqlite::{Row, params};

use super::Status;
use crate::{
    Db, Error, Tx,
    sql::{At, Columns as _, Word},
};

/// Whose child an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kin {
    /// Key of the Map run.
    pub run: u64,
    /// The execution that the run is in, and its number among the tasks of that one.
    pub execution: u64,
    pub task: u64,
    /// From 0, in the order of the items.
    pub child: u64,
    /// The number under which the run counts it: another one after a redrive.
    pub place: u64,
    /// Items in it.
    pub items: u64,
}

/// A run of a distributed Map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRun {
    pub key: u64,
    pub execution: u64,
    pub task: u64,
    pub arn: String,
    /// Number of the tenant.
    pub owner: u64,
    pub status: Status,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// `None` until they are made.
    pub children: Option<u64>,
    pub items: u64,
    /// A ResultWriter has written the results.
    pub written: bool,
    /// JSON; the store does not read it.
    pub bounds: String,
    pub redrives: u32,
    pub redriven_at: Option<Timestamp>,
}

/// A change of the Map run `task` of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    pub execution: u64,
    pub task: u64,
    pub at: Timestamp,
    pub change: RunChange,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunChange {
    /// `key` was never given before; `bounds` is JSON that the store does not read.
    Begin {
        key: u64,
        arn: String,
        bounds: String,
    },
    /// The children are made.
    Open {
        children: u64,
        items: u64,
    },
    /// What it may do is another thing now.
    Bound(String),
    Redrive,
    End {
        status: Status,
        written: bool,
    },
}

/// The end of an express child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEnd {
    pub run: u64,
    pub child: u64,
    pub items: u64,
    pub status: Status,
    pub output: Option<String>,
    pub error: Option<String>,
    pub cause: Option<String>,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

/// A child as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapChild {
    pub child: u64,
    pub place: u64,
    pub items: u64,
    pub input: String,
    /// `None`: it was not begun, or only in memory.
    pub status: Option<Status>,
    /// Its execution, if it has one.
    pub execution: Option<u64>,
    /// It has an execution that may be tried again.
    pub redrivable: bool,
    /// It has an execution that ended before its run was tried again, and is to be tried again too.
    pub waits: bool,
    pub output: Option<String>,
    pub error: Option<String>,
    pub cause: Option<String>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// How many children, and items in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Children {
    pub children: u64,
    pub items: u64,
}

const RUN: &str = "SELECT r.*, x.tenant_id FROM map_runs r JOIN state_executions x ON x.key = r.execution";

const CHILD: &str = "SELECT c.child, c.items, c.input, x.key, coalesce(x.status, c.status) AS status,
    coalesce(x.output, c.output) AS output, coalesce(x.error, c.error) AS error,
    coalesce(x.cause, c.cause) AS cause, coalesce(x.started_at, c.started_at) AS started_at,
    coalesce(x.ended_at, c.ended_at) AS ended_at,
    x.ended_at IS NOT NULL AND EXISTS (SELECT 1 FROM snapshots s WHERE s.execution = x.key) AS redrivable,
    x.key IS NOT NULL AND x.place IS NULL AS waits";

/// Children of which a list for a redrive takes notice at once.
const PAGE: u32 = 512;

impl Db<'_> {
    pub fn map_run(&self, arn: &str) -> Result<Option<MapRun>, Error> {
        self.one(&format!("{RUN} WHERE r.arn = ?1"), [arn], map_run)
    }

    /// The Map run `task` of an execution.
    pub fn map_run_of(&self, execution: u64, task: u64) -> Result<Option<MapRun>, Error> {
        self.one(
            &format!("{RUN} WHERE r.execution = ?1 AND r.task = ?2"),
            [execution, task],
            map_run,
        )
    }

    /// Map runs of an execution with a key below `before`, newest first.
    pub fn map_runs(&self, execution: u64, before: Option<u64>, limit: u32) -> Result<Vec<MapRun>, Error> {
        self.all(
            &format!("{RUN} WHERE r.execution = ?1 AND r.key < ?2 ORDER BY r.key DESC LIMIT ?3"),
            params![execution, before.unwrap_or(i64::MAX as u64), limit],
            map_run,
        )
    }

    /// The Map runs that are open: what a start goes on with.
    pub fn open_map_runs(&self) -> Result<Vec<MapRun>, Error> {
        self.all(
            &format!("{RUN} WHERE r.ended_at IS NULL ORDER BY r.key"),
            [],
            map_run,
        )
    }

    /// How many children of a run have ended, by how they did.
    pub fn map_counts(&self, run: u64) -> Result<Vec<(Status, Children)>, Error> {
        self.all("SELECT * FROM map_counts WHERE run = ?1", [run], |row| {
            let counted = Children {
                children: row.get("children")?,
                items: row.get("items")?,
            };
            Ok((row.word("status")?, counted))
        })
    }

    /// Items in children, by the number under which the run counts them.
    pub fn map_items(&self, run: u64, redriven: bool, places: &[u64]) -> Result<u64, Error> {
        let child = match redriven {
            true => "(SELECT child FROM map_redrives WHERE run = ?1 AND place = ?2)",
            false => "?2",
        };
        let sql = format!("SELECT items FROM map_children WHERE run = ?1 AND child = {child}");
        let mut items = 0;
        for place in places {
            items += self
                .one(&sql, params![run, place], |row| row.get::<_, u64>("items"))?
                .unwrap_or_default();
        }
        Ok(items)
    }

    /// Children with an execution that did not succeed and cannot be tried again.
    pub fn map_lost(&self, run: u64) -> Result<Children, Error> {
        let found = self.one(
            "SELECT count(*) AS children, ifnull(sum(c.items), 0) AS items FROM state_executions x
             JOIN map_children c ON c.run = x.run AND c.child = x.child
             WHERE x.run = ?1 AND x.run IS NOT NULL AND x.ended_at IS NOT NULL AND x.status <> 'SUCCEEDED'
             AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.execution = x.key)",
            [run],
            |row| {
                Ok(Children {
                    children: row.get("children")?,
                    items: row.get("items")?,
                })
            },
        );
        Ok(found?.unwrap_or_default())
    }

    /// Children by the number under which the run counts them, with their inputs.
    pub fn map_places(&self, run: u64, redriven: bool, places: &[u64]) -> Result<Vec<MapChild>, Error> {
        let of = match redriven {
            true => {
                "FROM map_redrives p JOIN map_children c ON c.run = p.run AND c.child = p.child
                 LEFT JOIN state_executions x ON x.run = c.run AND x.child = c.child
                 WHERE p.run = ?1 AND p.place = ?2"
            }
            false => {
                "FROM map_children c LEFT JOIN state_executions x ON x.run = c.run AND x.child = c.child
                 WHERE c.run = ?1 AND c.child = ?2"
            }
        };
        let sql = format!("{CHILD} {of}");
        let mut found = Vec::with_capacity(places.len());
        for place in places {
            let child = self.one(&sql, params![run, place], |row| child(row, *place))?;
            found.extend(child);
        }
        Ok(found)
    }

    /// Children with a number of at least `from`, in the order of the items.
    pub fn map_children(&self, run: u64, from: u64, limit: u32) -> Result<Vec<MapChild>, Error> {
        self.all(
            &format!(
                "{CHILD} FROM map_children c LEFT JOIN state_executions x ON x.run = c.run AND x.child = c.child
                 WHERE c.run = ?1 AND c.child >= ?2 ORDER BY c.child LIMIT ?3"
            ),
            params![run, from, limit],
            |row| child(row, 0),
        )
    }

    /// Keys of open executions that are children of this run.
    pub fn open_children(&self, run: u64) -> Result<Vec<u64>, Error> {
        self.all(
            "SELECT key FROM state_executions WHERE run = ?1 AND ended_at IS NULL",
            [run],
            |row| row.get(0),
        )
    }

    /// Open children of runs that are over: they were to be stopped.
    pub fn stray_children(&self) -> Result<Vec<u64>, Error> {
        self.all(
            "SELECT x.key FROM state_executions x JOIN map_runs r ON r.key = x.run
             WHERE x.run IS NOT NULL AND x.ended_at IS NULL AND r.ended_at IS NOT NULL",
            [],
            |row| row.get(0),
        )
    }
}

impl Tx<'_> {
    pub(super) fn run_step(&self, step: &RunStep) -> Result<(), Error> {
        let (execution, task, at) = (step.execution, step.task, At(step.at));
        match &step.change {
            RunChange::Begin { key, arn, bounds } => self.run(
                "INSERT INTO map_runs (key, execution, task, arn, status, started_at, bounds)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![key, execution, task, arn, Word(Status::Running), at, bounds],
            ),
            RunChange::Open { children, items } => self.run(
                "UPDATE map_runs SET children = ?3, items = ?4 WHERE execution = ?1 AND task = ?2",
                params![execution, task, children, items],
            ),
            RunChange::Bound(bounds) => self.run(
                "UPDATE map_runs SET bounds = ?3 WHERE execution = ?1 AND task = ?2",
                params![execution, task, bounds],
            ),
            RunChange::Redrive => self.run(
                "UPDATE map_runs SET status = ?3, ended_at = NULL, redrives = redrives + 1, redriven_at = ?4
                 WHERE execution = ?1 AND task = ?2",
                params![execution, task, Word(Status::Running), at],
            ),
            RunChange::End { status, written } => self.run(
                "UPDATE map_runs SET status = ?3, written = ?4, ended_at = ?5 WHERE execution = ?1 AND task = ?2",
                params![execution, task, Word(*status), written, at],
            ),
        }
        .map(drop)
    }

    pub(super) fn child_ended(&self, end: &ChildEnd) -> Result<(), Error> {
        self.run(
            "UPDATE map_children SET status = ?3, started_at = ?4, ended_at = ?5, error = ?6, cause = ?7, output = ?8
             WHERE run = ?1 AND child = ?2",
            params![
                end.run,
                end.child,
                Word(end.status),
                At(end.started_at),
                At(end.ended_at),
                end.error,
                end.cause,
                end.output
            ],
        )?;
        self.count(end.run, end.status, 1, end.items)
    }

    /// A child that had ended goes on: it does not count any more.
    pub(super) fn place(&self, execution: u64, kin: &Kin) -> Result<(), Error> {
        let status: Word<Status> = Word(
            self.one(
                "SELECT status FROM state_executions WHERE key = ?1",
                [execution],
                |row| row.word("status"),
            )?
            .ok_or_else(|| Error::missing("execution", execution))?,
        );
        self.run(
            "UPDATE state_executions SET place = ?2 WHERE key = ?1",
            params![execution, kin.place],
        )?;
        self.count(kin.run, status.0, -1, kin.items)
    }

    /// Adds a child, or takes one away.
    pub(super) fn count(&self, run: u64, status: Status, sign: i64, items: u64) -> Result<(), Error> {
        let items = sign * i64::try_from(items).unwrap_or(i64::MAX);
        self.run(
            "INSERT INTO map_counts VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
             SET children = children + excluded.children, items = items + excluded.items",
            params![run, Word(status), sign, items],
        )
        .map(drop)
    }

    /// Keeps children of a run that is not open yet, the first with the number `first`: items and input. Those of a
    /// number that is there already are replaced.
    pub fn make_children(&self, run: u64, first: u64, children: &[(u64, String)]) -> Result<(), Error> {
        let opened: Option<u64> = self.value("SELECT children FROM map_runs WHERE key = ?1", [run])?;
        if opened.is_some() {
            return Ok(());
        }
        for (child, (items, input)) in (first..).zip(children) {
            self.run(
                "INSERT OR REPLACE INTO map_children (run, child, items, input) VALUES (?1, ?2, ?3, ?4)",
                params![run, child, items, input],
            )?;
        }
        Ok(())
    }

    /// Forgets children with a number of at least `from`.
    pub fn drop_children(&self, run: u64, from: u64) -> Result<(), Error> {
        self.run(
            "DELETE FROM map_children WHERE run = ?1 AND child >= ?2",
            [run, from],
        )
        .map(drop)
    }

    /// Lists children that are to be tried again, from the number `child` on: the next of them has the number `place` in
    /// the redrive. Gives where to go on, if there are more, and the items in children that cannot be tried again.
    ///
    /// None of the run's children may be open.
    pub fn list_redrive(
        &self,
        run: u64,
        from: u64,
        mut place: u64,
    ) -> Result<(Option<u64>, u64, u64), Error> {
        let page = self.map_children(run, from, PAGE)?;
        let next = page.last().filter(|_| page.len() == PAGE as usize);
        let (next, mut failed) = (next.map(|last| last.child + 1), 0);
        for child in page {
            match child.status {
                Some(Status::Succeeded) => continue,
                Some(_) if child.execution.is_some() && !child.redrivable => {
                    failed += child.items;
                    continue;
                }
                Some(status) if child.execution.is_none() => {
                    self.run(
                        "UPDATE map_children SET status = NULL WHERE run = ?1 AND child = ?2",
                        [run, child.child],
                    )?;
                    self.count(run, status, -1, child.items)?;
                }
                _ => {}
            }
            self.run(
                "UPDATE state_executions SET place = NULL WHERE run = ?1 AND child = ?2",
                [run, child.child],
            )?;
            self.run(
                "INSERT OR REPLACE INTO map_redrives VALUES (?1, ?2, ?3)",
                params![run, place, child.child],
            )?;
            place += 1;
        }
        if next.is_none() {
            self.run(
                "DELETE FROM map_redrives WHERE run = ?1 AND place >= ?2",
                [run, place],
            )?;
        }
        Ok((next, place, failed))
    }

    /// Deletes about `limit` rows, at most, of what belongs to the Map runs of an execution. Gives how many.
    pub(super) fn forget_children(&self, execution: u64, limit: usize) -> Result<usize, Error> {
        let runs: Vec<u64> = self.all(
            "SELECT key FROM map_runs WHERE execution = ?1",
            [execution],
            |row| row.get(0),
        )?;
        let mut gone = 0;
        for run in runs {
            let children: Vec<u64> = self.all(
                "SELECT key FROM state_executions WHERE run = ?1 LIMIT ?2",
                params![run, limit],
                |row| row.get(0),
            )?;
            for child in children {
                gone += self.forget_children(child, limit.saturating_sub(gone))?;
                if gone >= limit {
                    return Ok(gone);
                }
                gone += self.run("DELETE FROM state_executions WHERE key = ?1", [child])?;
            }
            gone += self.run(
                "DELETE FROM map_children WHERE run = ?1 AND child IN
                     (SELECT child FROM map_children WHERE run = ?1 LIMIT ?2)",
                params![run, limit.saturating_sub(gone)],
            )?;
            gone += self.run(
                "DELETE FROM map_redrives WHERE run = ?1 AND place IN
                     (SELECT place FROM map_redrives WHERE run = ?1 LIMIT ?2)",
                params![run, limit.saturating_sub(gone)],
            )?;
            if gone >= limit {
                return Ok(gone);
            }
        }
        Ok(gone)
    }
}

fn map_run(row: &Row<'_>) -> rusqlite::Result<MapRun> {
    Ok(MapRun {
        key: row.get("key")?,
        execution: row.get("execution")?,
        task: row.get("task")?,
        arn: row.get("arn")?,
        owner: row.get("tenant_id")?,
        status: row.word("status")?,
        started_at: row.at("started_at")?,
        ended_at: row.maybe_at("ended_at")?,
        children: row.get("children")?,
        items: row.get("items")?,
        written: row.get("written")?,
        bounds: row.get("bounds")?,
        redrives: row.get("redrives")?,
        redriven_at: row.maybe_at("redriven_at")?,
    })
}

fn child(row: &Row<'_>, place: u64) -> rusqlite::Result<MapChild> {
    let status: Option<String> = row.get("status")?;
    Ok(MapChild {
        child: row.get("child")?,
        place,
        items: row.get("items")?,
        input: row.get("input")?,
        status: match status {
            None => None,
            Some(_) => Some(row.word("status")?),
        },
        execution: row.get("key")?,
        redrivable: row.get("redrivable")?,
        waits: row.get("waits")?,
        output: row.get("output")?,
        error: row.get("error")?,
        cause: row.get("cause")?,
        started_at: row.maybe_at("started_at")?,
        ended_at: row.maybe_at("ended_at")?,
    })
}
