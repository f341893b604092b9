use jiff::Timestamp;
use model::{ExecutionId, Place, Ticket, ledger::Deed};
use rusqlite::params;
use serde_json::json;

use super::{HistoryRow, Status};
use crate::{
    By, Error, Tx,
    sql::{At, Hash, Word},
};

/// An execution to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewExecution {
    pub id: ExecutionId,
    pub place: Option<Place>,
    pub kind: String,
    /// The machine's definition. Kept once, however many executions have it.
    pub machine: String,
    pub input: String,
    pub state: String,
    pub deadline_at: Option<Timestamp>,
}

/// One step of an execution, decided on what version `expected` was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub execution: ExecutionId,
    pub expected: u64,
    pub at: Timestamp,
    pub state: String,
    pub history: Vec<HistoryRow>,
    pub scheduled: Vec<NewTask>,
    /// Tasks that answered, failed or are not wanted any more.
    pub ended: Vec<u64>,
    /// A timer that is set again moves.
    pub timers: Vec<(u64, Timestamp)>,
    pub cleared: Vec<u64>,
    /// The execution is over: nothing of it stays scheduled.
    pub end: Option<End>,
    /// Lines of the ledger for what the step did, its end included. What starts an execution is told by
    /// [`Tx::start_execution`] itself.
    pub deeds: Vec<Deed>,
}

impl Transition {
    /// A step that only changes the state; fill in the rest.
    pub fn new(execution: ExecutionId, expected: u64, at: Timestamp, state: String) -> Self {
        Self {
            execution,
            expected,
            at,
            state,
            history: vec![],
            scheduled: vec![],
            ended: vec![],
            timers: vec![],
            cleared: vec![],
            end: None,
            deeds: vec![],
        }
    }
}

/// A task for whoever works on `resource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// Unique in its execution.
    pub task: u64,
    pub resource: String,
    pub input: String,
    pub ticket: Ticket,
    pub attempt: u32,
    /// Nobody gets it earlier; `None`: at once.
    pub not_before: Option<Timestamp>,
    /// The longest silence between two heartbeats.
    pub heartbeat_ms: Option<u64>,
    pub timeout_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub status: Status,
    pub output: Option<String>,
    pub error: Option<String>,
    pub cause: Option<String>,
}

impl Tx<'_> {
    /// Starts an execution, at version 0. Its first transition may be committed in the same transaction.
    pub fn start_execution(&self, new: &NewExecution, by: &By) -> Result<(), Error> {
        let machine = self.keep_machine(&new.machine)?;
        let place = new.place.as_ref();
        let key = self.insert(
            "INSERT INTO executions (id, tenant, app, environment, kind, machine, input, status, started_at,
                 started_by, deadline_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                new.id.as_str(),
                place.map(|place| place.tenant.as_str()),
                place.map(|place| place.app.as_str()),
                place.map(|place| place.environment.as_str()),
                new.kind,
                Hash(machine),
                new.input,
                Word(Status::Running),
                At(by.at),
                by.actor,
                new.deadline_at.map(At)
            ],
            || Error::exists("execution", &new.id),
        )?;
        self.run(
            "INSERT INTO execution_states VALUES (?1, 0, ?2)",
            params![key, new.state],
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

    /// Commits a step and gives the new version. Refused with [`Error::Version`] when the execution is not at the
    /// expected one: somebody else's step was first, and this one was decided on what is no more.
    pub fn commit(&self, step: Transition) -> Result<u64, Error> {
        let key = self.execution_key(&step.execution)?;
        let moved = self.run(
            "UPDATE execution_states SET version = version + 1, state = ?3 WHERE execution = ?1 AND version = ?2",
            params![key, step.expected, step.state],
        )?;
        if moved == 0 {
            let found = self.value("SELECT version FROM execution_states WHERE execution = ?1", [key])?;
            return Err(Error::Version {
                execution: step.execution,
                expected: step.expected,
                found,
            });
        }
        self.append_history(key, &step.history)?;
        for task in &step.ended {
            self.run(
                "DELETE FROM tasks WHERE execution = ?1 AND task = ?2",
                params![key, task],
            )?;
        }
        self.schedule(key, &step.scheduled, step.at)?;
        for timer in &step.cleared {
            self.run(
                "DELETE FROM timers WHERE execution = ?1 AND timer = ?2",
                params![key, timer],
            )?;
        }
        for (timer, at) in &step.timers {
            self.run(
                "INSERT INTO timers VALUES (?1, ?2, ?3)
                 ON CONFLICT (execution, timer) DO UPDATE SET at = excluded.at",
                params![key, timer, At(*at)],
            )?;
        }
        if let Some(end) = &step.end {
            self.end(key, end, step.at)?;
        }
        for deed in step.deeds {
            self.record(deed, step.at)?;
        }
        Ok(step.expected + 1)
    }

    fn append_history(&self, key: i64, rows: &[HistoryRow]) -> Result<(), Error> {
        for row in rows {
            self.run(
                "INSERT INTO history VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![key, row.id, row.previous, At(row.at), row.kind, row.details],
            )?;
        }
        Ok(())
    }

    fn schedule(&self, key: i64, tasks: &[NewTask], at: Timestamp) -> Result<(), Error> {
        for task in tasks {
            self.run(
                "INSERT INTO tasks (execution, task, resource, input, ticket, attempt, scheduled_at, not_before,
                     heartbeat_ms, timeout_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    key,
                    task.task,
                    task.resource,
                    task.input,
                    task.ticket.as_str(),
                    task.attempt,
                    At(at),
                    At(task.not_before.unwrap_or(at)),
                    task.heartbeat_ms,
                    task.timeout_at.map(At)
                ],
            )?;
        }
        Ok(())
    }

    fn end(&self, key: i64, end: &End, at: Timestamp) -> Result<(), Error> {
        let ended = self.run(
            "UPDATE executions SET status = ?2, output = ?3, error = ?4, cause = ?5, ended_at = ?6
             WHERE key = ?1 AND ended_at IS NULL",
            params![key, Word(end.status), end.output, end.error, end.cause, At(at)],
        )?;
        if ended == 0 {
            return Err(Error::refused("the execution has ended already"));
        }
        self.run("DELETE FROM tasks WHERE execution = ?1", [key])?;
        self.run("DELETE FROM timers WHERE execution = ?1", [key])
            .map(drop)
    }
}
