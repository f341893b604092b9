use jiff::Timestamp;
use model::{AppName, Digest, EnvironmentName, ExecutionId, Place, TenantName};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::{
    Db, Error, Tx,
    sql::{At, Columns as _},
};

/// As Step Functions says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Running,
    Succeeded,
    Failed,
    TimedOut,
    Aborted,
}

/// What a list shows of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionSummary {
    /// Grows with time: the cursor of a list.
    pub key: u64,
    pub id: ExecutionId,
    pub place: Option<Place>,
    /// `release`, `rollback`, `environment-destroy`.
    pub kind: String,
    pub status: Status,
    pub error: Option<String>,
    pub cause: Option<String>,
    pub started_at: Timestamp,
    pub started_by: String,
    pub ended_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
}

/// All of an execution but its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    pub summary: ExecutionSummary,
    /// The machine's definition.
    pub machine: String,
    pub input: String,
    pub output: Option<String>,
    /// What a transition must name, and raises.
    pub version: u64,
    pub state: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// From 1 in its execution.
    pub id: u64,
    /// 0 for the first.
    pub previous: u64,
    pub at: Timestamp,
    /// AWS's type: `TaskStateEntered`.
    pub kind: String,
    /// JSON.
    pub details: String,
}

/// Which executions to list. `None` does not choose.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    pub tenant: Option<TenantName>,
    pub app: Option<AppName>,
    pub environment: Option<EnvironmentName>,
    pub kind: Option<String>,
    /// Only those under way, or only those that ended.
    pub open: Option<bool>,
    /// Only those with a smaller key.
    pub before: Option<u64>,
    /// So many at most; 0 stands for 100.
    pub limit: u32,
}

impl Db<'_> {
    pub fn execution(&self, id: &ExecutionId) -> Result<Execution, Error> {
        self.one(
            "SELECT x.*, m.definition, s.version, s.state FROM executions x
             JOIN machines m ON m.digest = x.machine JOIN execution_states s ON s.execution = x.key
             WHERE x.id = ?1",
            [id.as_str()],
            execution,
        )?
        .ok_or_else(|| Error::missing("execution", id))
    }

    pub fn execution_summary(&self, id: &ExecutionId) -> Result<ExecutionSummary, Error> {
        self.one("SELECT * FROM executions WHERE id = ?1", [id.as_str()], summary)?
            .ok_or_else(|| Error::missing("execution", id))
    }

    /// Version and state: what changes from one transition to the next.
    pub fn execution_state(&self, id: &ExecutionId) -> Result<(u64, String), Error> {
        self.one(
            "SELECT s.version, s.state FROM execution_states s JOIN executions x ON x.key = s.execution
             WHERE x.id = ?1",
            [id.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?
        .ok_or_else(|| Error::missing("execution", id))
    }

    /// Every execution under way, oldest first: what a restart resumes.
    pub fn open_executions(&self) -> Result<Vec<ExecutionSummary>, Error> {
        self.all(
            "SELECT * FROM executions WHERE ended_at IS NULL ORDER BY key",
            [],
            summary,
        )
    }

    /// Newest first.
    pub fn executions(&self, filter: &ExecutionFilter) -> Result<Vec<ExecutionSummary>, Error> {
        let mut sql = String::from("SELECT * FROM executions WHERE key < ?1");
        let chosen = [
            ("tenant", filter.tenant.as_ref().map(TenantName::as_str)),
            ("app", filter.app.as_ref().map(AppName::as_str)),
            (
                "environment",
                filter.environment.as_ref().map(EnvironmentName::as_str),
            ),
            ("kind", filter.kind.as_deref()),
        ];
        for (n, (column, value)) in chosen.iter().enumerate() {
            let n = n + 2;
            sql.push_str(&match value {
                Some(_) => format!(" AND {column} = ?{n}"),
                None => format!(" AND ?{n} IS NULL"),
            });
        }
        sql.push_str(match filter.open {
            Some(true) => " AND ended_at IS NULL",
            Some(false) => " AND ended_at IS NOT NULL",
            None => "",
        });
        sql.push_str(" ORDER BY key DESC LIMIT ?6");
        let before = filter.before.unwrap_or(i64::MAX as u64);
        let limit = if filter.limit == 0 { 100 } else { filter.limit };
        let [tenant, app, environment, kind] = chosen.map(|(_, value)| value);
        self.all(
            &sql,
            params![before, tenant, app, environment, kind, limit],
            summary,
        )
    }

    /// Is an execution of this environment under way?
    pub fn is_busy(&self, place: &Place) -> Result<bool, Error> {
        self.value(
            "SELECT EXISTS (SELECT 1 FROM executions
             WHERE tenant = ?1 AND app = ?2 AND environment = ?3 AND ended_at IS NULL)",
            [
                place.tenant.as_str(),
                place.app.as_str(),
                place.environment.as_str(),
            ],
        )
    }

    /// Is an execution of this environment under way that does more than wait in a task of `waiting` (a resource that
    /// people answer)?
    pub fn is_moving(&self, place: &Place, waiting: &str) -> Result<bool, Error> {
        self.value(
            "SELECT EXISTS (SELECT 1 FROM executions x
             WHERE x.tenant = ?1 AND x.app = ?2 AND x.environment = ?3 AND x.ended_at IS NULL
             AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.execution = x.key AND t.resource = ?4))",
            [
                place.tenant.as_str(),
                place.app.as_str(),
                place.environment.as_str(),
                waiting,
            ],
        )
    }

    /// Rows with an id above `after`, in their order.
    pub fn history(&self, id: &ExecutionId, after: u64, limit: u32) -> Result<Vec<HistoryRow>, Error> {
        self.all(
            "SELECT id, previous, at, kind, details FROM history WHERE execution = ?1 AND id > ?2
             ORDER BY id LIMIT ?3",
            params![self.execution_key(id)?, after, limit],
            |row| {
                Ok(HistoryRow {
                    id: row.get("id")?,
                    previous: row.get("previous")?,
                    at: row.at("at")?,
                    kind: row.get("kind")?,
                    details: row.get("details")?,
                })
            },
        )
    }

    pub(crate) fn execution_key(&self, id: &ExecutionId) -> Result<i64, Error> {
        self.one("SELECT key FROM executions WHERE id = ?1", [id.as_str()], |row| {
            row.get(0)
        })?
        .ok_or_else(|| Error::missing("execution", id))
    }
}

impl Tx<'_> {
    /// Forgets executions that ended before `ended_before`, the oldest first and `limit` at most, with their
    /// histories. Gives how many.
    pub fn prune_executions(&self, ended_before: Timestamp, limit: u32) -> Result<usize, Error> {
        let pruned = self.run(
            "DELETE FROM executions WHERE key IN (SELECT key FROM executions
             WHERE ended_at IS NOT NULL AND ended_at < ?1 ORDER BY ended_at LIMIT ?2)",
            params![At(ended_before), limit],
        )?;
        if pruned > 0 {
            self.prune_definitions()?;
        }
        Ok(pruned)
    }

    /// Forgets definitions that nothing has any more.
    pub(super) fn prune_definitions(&self) -> Result<(), Error> {
        self.run(
            "DELETE FROM machines WHERE NOT EXISTS (SELECT 1 FROM executions x WHERE x.machine = digest)
             AND NOT EXISTS (SELECT 1 FROM state_machines m WHERE m.definition = digest)
             AND NOT EXISTS (SELECT 1 FROM state_machine_versions v WHERE v.definition = digest)
             AND NOT EXISTS (SELECT 1 FROM state_executions s WHERE s.definition = digest)",
            [],
        )
        .map(drop)
    }

    /// The deadline has done its work: it is not due any more.
    pub fn forget_deadline(&self, id: &ExecutionId) -> Result<(), Error> {
        self.run(
            "UPDATE executions SET deadline_at = NULL WHERE id = ?1",
            [id.as_str()],
        )
        .map(drop)
    }

    pub(super) fn keep_machine(&self, definition: &str) -> Result<Digest, Error> {
        let digest = Digest::of(definition);
        self.run(
            "INSERT INTO machines VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![crate::sql::Hash(digest), definition],
        )?;
        Ok(digest)
    }
}

fn summary(row: &Row<'_>) -> rusqlite::Result<ExecutionSummary> {
    let tenant: Option<TenantName> = row.maybe_parsed("tenant")?;
    let app = row.maybe_parsed("app")?;
    let environment = row.maybe_parsed("environment")?;
    let place = tenant.zip(app).zip(environment);
    Ok(ExecutionSummary {
        key: row.get("key")?,
        id: row.parsed("id")?,
        place: place.map(|((tenant, app), environment)| Place {
            tenant,
            app,
            environment,
        }),
        kind: row.get("kind")?,
        status: row.word("status")?,
        error: row.get("error")?,
        cause: row.get("cause")?,
        started_at: row.at("started_at")?,
        started_by: row.get("started_by")?,
        ended_at: row.maybe_at("ended_at")?,
        deadline_at: row.maybe_at("deadline_at")?,
    })
}

fn execution(row: &Row<'_>) -> rusqlite::Result<Execution> {
    Ok(Execution {
        summary: summary(row)?,
        machine: row.get("definition")?,
        input: row.get("input")?,
        output: row.get("output")?,
        version: row.get("version")?,
        state: row.get("state")?,
    })
}
