use jiff::Timestamp;
use model::{ExecutionId, Ticket};
use rusqlite::{Row, params};

use crate::{
    Db, Error, Tx,
    sql::{At, Columns as _},
};

/// Which task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    pub execution: ExecutionId,
    pub task: u64,
}

/// A task that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub key: TaskKey,
    pub resource: String,
    pub input: String,
    pub ticket: Ticket,
    pub attempt: u32,
    pub scheduled_at: Timestamp,
    pub not_before: Timestamp,
    pub heartbeat_ms: Option<u64>,
    pub timeout_at: Option<Timestamp>,
    /// Who works on it; `None`: it is only scheduled.
    pub lease: Option<Lease>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub worker: String,
    pub until: Timestamp,
    pub last_heartbeat: Timestamp,
}

/// What time has brought about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Execution, timer, and when it was to go off; earliest first.
    pub timers: Vec<(ExecutionId, u64, Timestamp)>,
    /// Leases that ran out: their workers are gone or silent.
    pub leases: Vec<Task>,
    /// Executions that are past their deadline.
    pub deadlines: Vec<ExecutionId>,
}

const SELECT: &str = "SELECT t.*, x.id AS id FROM tasks t JOIN executions x ON x.key = t.execution";

impl Db<'_> {
    /// A task, unless it has ended.
    pub fn task(&self, key: &TaskKey) -> Result<Option<Task>, Error> {
        let sql = format!("{SELECT} WHERE x.id = ?1 AND t.task = ?2");
        self.one(&sql, params![key.execution.as_str(), key.task], task)
    }

    /// Every task of an execution that has not ended.
    pub fn tasks(&self, execution: &ExecutionId) -> Result<Vec<Task>, Error> {
        self.all(
            &format!("{SELECT} WHERE x.id = ?1 ORDER BY t.task"),
            [execution.as_str()],
            task,
        )
    }

    /// The timers of an execution.
    pub fn timers(&self, execution: &ExecutionId) -> Result<Vec<(u64, Timestamp)>, Error> {
        self.all(
            "SELECT timer, at FROM timers WHERE execution = ?1 ORDER BY at, timer",
            [self.execution_key(execution)?],
            |row| Ok((row.get("timer")?, row.at("at")?)),
        )
    }

    /// What is due at `now`, at most `limit` of each kind. It stays due until a transition changes it.
    pub fn due(&self, now: Timestamp, limit: u32) -> Result<Due, Error> {
        let bounds = params![At(now), limit];
        Ok(Due {
            timers: self.all(
                "SELECT x.id, t.timer, t.at FROM timers t JOIN executions x ON x.key = t.execution
                 WHERE t.at <= ?1 ORDER BY t.at LIMIT ?2",
                bounds,
                |row| Ok((row.parsed("id")?, row.get("timer")?, row.at("at")?)),
            )?,
            leases: self.all(
                &format!("{SELECT} WHERE t.lease_until <= ?1 ORDER BY t.lease_until LIMIT ?2"),
                bounds,
                task,
            )?,
            deadlines: self.all(
                "SELECT id FROM executions WHERE ended_at IS NULL AND deadline_at <= ?1
                 ORDER BY deadline_at LIMIT ?2",
                bounds,
                |row| row.parsed("id"),
            )?,
        })
    }

    /// When there is next something due, or a task to lease that had to wait until then. A time that has passed when
    /// something is due already.
    pub fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        self.one(
            "SELECT min(at) AS at FROM (
                 SELECT min(at) AS at FROM timers
                 UNION ALL SELECT min(lease_until) FROM tasks WHERE lease_until IS NOT NULL
                 UNION ALL SELECT min(deadline_at) FROM executions
                           WHERE ended_at IS NULL AND deadline_at IS NOT NULL
                 UNION ALL SELECT min(not_before) FROM tasks WHERE lease_until IS NULL AND not_before > ?1)",
            [At(now)],
            |row| row.maybe_at("at"),
        )
        .map(Option::flatten)
    }
}

impl Tx<'_> {
    /// Leases up to `limit` scheduled tasks of these resources to `worker` until `until`, those that wait longest
    /// first.
    pub fn lease_tasks(
        &self,
        resources: &[&str],
        worker: &str,
        limit: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Task>, Error> {
        let mut found = Vec::new();
        for resource in resources {
            found.extend(self.all(
                &format!(
                    "{SELECT} WHERE t.resource = ?1 AND t.lease_until IS NULL AND t.not_before <= ?2
                     ORDER BY t.not_before LIMIT ?3"
                ),
                params![resource, At(now), limit],
                task,
            )?);
        }
        found.sort_by_key(|task| task.not_before);
        found.truncate(limit as usize);
        for task in &mut found {
            self.run(
                "UPDATE tasks SET lease_until = ?3, worker = ?4, last_heartbeat = ?5
                 WHERE execution = (SELECT key FROM executions WHERE id = ?1) AND task = ?2",
                params![
                    task.key.execution.as_str(),
                    task.key.task,
                    At(until),
                    worker,
                    At(now)
                ],
            )?;
            task.lease = Some(Lease {
                worker: worker.to_owned(),
                until: crate::sql::kept(until),
                last_heartbeat: crate::sql::kept(now),
            });
        }
        Ok(found)
    }

    /// The worker is alive: its lease goes on until `until`. False: the task is not its any more, and it should stop.
    pub fn heartbeat(
        &self,
        key: &TaskKey,
        worker: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        let kept = self.run(
            "UPDATE tasks SET lease_until = ?4, last_heartbeat = ?5
             WHERE execution = (SELECT key FROM executions WHERE id = ?1) AND task = ?2
             AND worker = ?3 AND lease_until IS NOT NULL",
            params![key.execution.as_str(), key.task, worker, At(until), At(now)],
        )?;
        Ok(kept == 1)
    }

    /// Takes a lease back: the task is scheduled again under the same ticket. False: it was not leased.
    pub fn release_lease(&self, key: &TaskKey) -> Result<bool, Error> {
        let released = self.run(
            "UPDATE tasks SET lease_until = NULL, worker = NULL, last_heartbeat = NULL
             WHERE execution = (SELECT key FROM executions WHERE id = ?1) AND task = ?2
             AND lease_until IS NOT NULL",
            params![key.execution.as_str(), key.task],
        )?;
        Ok(released == 1)
    }

    /// Takes back every lease: after a restart nobody works on anything. Gives how many.
    pub fn release_leases(&self) -> Result<usize, Error> {
        self.run(
            "UPDATE tasks SET lease_until = NULL, worker = NULL, last_heartbeat = NULL
             WHERE lease_until IS NOT NULL",
            [],
        )
    }
}

fn task(row: &Row<'_>) -> rusqlite::Result<Task> {
    let until = row.maybe_at("lease_until")?;
    let lease = until.map(|until| {
        Ok::<_, rusqlite::Error>(Lease {
            worker: row.get("worker")?,
            until,
            last_heartbeat: row.at("last_heartbeat")?,
        })
    });
    Ok(Task {
        key: TaskKey {
            execution: row.parsed("id")?,
            task: row.get("task")?,
        },
        resource: row.get("resource")?,
        input: row.get("input")?,
        ticket: row.parsed("ticket")?,
        attempt: row.get("attempt")?,
        scheduled_at: row.at("scheduled_at")?,
        not_before: row.at("not_before")?,
        heartbeat_ms: row.get("heartbeat_ms")?,
        timeout_at: row.maybe_at("timeout_at")?,
        lease: lease.transpose()?,
    })
}
