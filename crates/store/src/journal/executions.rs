use jiff::Timestamp;
use model::{AppName, EnvironmentName, ExecutionId, Place, TenantName};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Finish;
use crate::{
    By, Db, Error, Tx,
    catalogue::KEPT,
    sql::{At, Columns as _, Word},
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

/// The kind of an execution that takes an environment down.
pub const DESTROY: &str = "environment-destroy";

/// What a list shows of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionSummary {
    /// Grows with time: the cursor of a list.
    pub key: u64,
    pub id: ExecutionId,
    pub place: Option<Place>,
    /// `release`, `rollback`, `environment-destroy`.
    pub kind: String,
    /// Key of its run: what it does.
    pub run: u64,
    pub status: Status,
    pub error: Option<String>,
    pub cause: Option<String>,
    pub started_at: Timestamp,
    pub started_by: String,
    pub ended_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
}

/// An execution to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewExecution {
    pub id: ExecutionId,
    pub place: Option<Place>,
    pub kind: String,
    /// Key of its run, which is there already.
    pub run: u64,
    pub deadline_at: Option<Timestamp>,
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
    pub fn execution_summary(&self, id: &ExecutionId) -> Result<ExecutionSummary, Error> {
        self.one("SELECT * FROM executions WHERE id = ?1", [id.as_str()], summary)?
            .ok_or_else(|| Error::missing("execution", id))
    }

    /// The execution that has this run.
    pub fn execution_of_run(&self, run: u64) -> Result<Option<ExecutionSummary>, Error> {
        self.one("SELECT * FROM executions WHERE run = ?1", [run], summary)
    }

    /// Executions that are past their deadline, `limit` at most.
    pub fn overdue(&self, now: Timestamp, limit: u32) -> Result<Vec<ExecutionSummary>, Error> {
        self.all(
            "SELECT * FROM executions WHERE ended_at IS NULL AND deadline_at <= ?1 ORDER BY deadline_at LIMIT ?2",
            params![At(now), limit],
            summary,
        )
    }

    /// Every execution under way, oldest first: what a restart resumes.
    pub fn open_executions(&self) -> Result<Vec<ExecutionSummary>, Error> {
        self.all(
            "SELECT * FROM executions WHERE ended_at IS NULL ORDER BY key",
            [],
            summary,
        )
    }

    /// The newest that is under way at a place, of one kind or of any.
    pub fn open_execution(
        &self,
        place: &Place,
        kind: Option<&str>,
    ) -> Result<Option<ExecutionSummary>, Error> {
        let filter = ExecutionFilter {
            tenant: Some(place.tenant.clone()),
            app: Some(place.app.clone()),
            environment: Some(place.environment.clone()),
            kind: kind.map(str::to_owned),
            open: Some(true),
            limit: 1,
            ..ExecutionFilter::default()
        };
        Ok(self.executions(&filter)?.pop())
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
}

impl Db<'_> {
    /// The open execution that takes an environment down.
    pub fn destruction(&self, place: &Place) -> Result<Option<String>, Error> {
        self.one(
            "SELECT id FROM executions
             WHERE tenant = ?1 AND app = ?2 AND environment = ?3 AND kind = ?4 AND ended_at IS NULL",
            [
                place.tenant.as_str(),
                place.app.as_str(),
                place.environment.as_str(),
                DESTROY,
            ],
            |row| row.get(0),
        )
    }
}

impl Tx<'_> {
    /// Writes down what a run is. In the same transaction in which the run begins.
    pub fn start_execution(&self, new: &NewExecution, by: &By) -> Result<(), Error> {
        let place = new.place.as_ref();
        self.insert(
            "INSERT INTO executions (id, tenant, app, environment, kind, run, status, started_at, started_by,
                 deadline_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                new.id.as_str(),
                place.map(|place| place.tenant.as_str()),
                place.map(|place| place.app.as_str()),
                place.map(|place| place.environment.as_str()),
                new.kind,
                new.run,
                Word(Status::Running),
                At(by.at),
                by.actor,
                new.deadline_at.map(At)
            ],
            || Error::exists("execution", &new.id),
        )?;
        let detail = json!({ "kind": new.kind, "place": place.map(ToString::to_string) });
        self.note(
            by,
            "execution.start",
            place.map(|place| &place.tenant),
            &new.id,
            detail,
        )
    }

    /// The run is over, and so is the execution.
    pub(super) fn end_execution(&self, finish: &Finish) -> Result<(), Error> {
        let timed_out = (finish.status == Status::TimedOut).then_some("States.Timeout");
        self.run(
            "UPDATE executions SET status = ?2, error = ?3, cause = ?4, ended_at = ?5 WHERE run = ?1",
            params![
                finish.execution,
                Word(finish.status),
                finish.error.as_deref().or(timed_out),
                finish.cause,
                At(finish.at)
            ],
        )
        .map(drop)
    }

    /// Forgets executions that ended before `ended_before`, the oldest first and `limit` at most, with their
    /// histories. What made a release that can be gone back to stays with it: by its execution its artifacts are got. Gives how
    /// many.
    pub fn prune_executions(&self, ended_before: Timestamp, limit: u32) -> Result<usize, Error> {
        let old = format!(
            "{KEPT} DELETE FROM state_executions WHERE key IN (SELECT x.run FROM executions x
             WHERE x.ended_at IS NOT NULL AND x.ended_at < ?1
                 AND NOT EXISTS (SELECT 1 FROM kept k WHERE k.execution = x.id)
             ORDER BY x.ended_at LIMIT ?2)"
        );
        let pruned = self.run(&old, params![At(ended_before), limit])?;
        if pruned > 0 {
            self.prune_definitions()?;
        }
        Ok(pruned)
    }

    /// Forgets definitions that nothing has any more.
    pub(super) fn prune_definitions(&self) -> Result<(), Error> {
        self.run(
            "DELETE FROM machines WHERE NOT EXISTS (SELECT 1 FROM state_machines m WHERE m.definition = digest)
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
        run: row.get("run")?,
        status: row.word("status")?,
        error: row.get("error")?,
        cause: row.get("cause")?,
        started_at: row.at("started_at")?,
        started_by: row.get("started_by")?,
        ended_at: row.maybe_at("ended_at")?,
        deadline_at: row.maybe_at("deadline_at")?,
    })
}
