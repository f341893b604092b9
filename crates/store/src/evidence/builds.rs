use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    AppName, Digest, ExecutionId, HostId, Place, TenantName, Ticket,
    port::{Built, Commit, Fault, LogRef, PhaseReport, TestReport},
};
use rusqlite::{Row, params};
use serde_json::json;

use super::{WorkState, is_tried_again};
use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash, Json, Word},
};

/// The machine that has a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunsOn {
    /// The platform's own.
    Own,
    Builder(HostId),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    pub ticket: Ticket,
    pub place: Place,
    /// From 1 in its app.
    pub number: u64,
    /// Which build of its batch it is; `None`: of no batch.
    pub identifier: Option<String>,
    pub execution: Option<ExecutionId>,
    pub commit: Commit,
    pub source: Digest,
    pub state: WorkState,
    pub built: Option<Built>,
    pub fault: Option<Fault>,
    pub log: Option<LogRef>,
    /// `None`: it has no place yet.
    pub runs_on: Option<RunsOn>,
    /// Why it does not go on yet, for people.
    pub waits: Option<String>,
    /// So often it was given to a builder.
    pub given: u32,
    /// Where what its builder says begins in its log, in bytes; `None`: it has not been asked yet.
    pub log_from: Option<u64>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

impl Build {
    /// The ticket under which its builder has it: another one each time, as what was given up is not to be found again.
    pub fn ticket_there(&self) -> Ticket {
        match self.given {
            0 | 1 => self.ticket.clone(),
            again => self.ticket.part(&format!("b{again}")),
        }
    }

    /// The builder that has it.
    pub fn builder(&self) -> Option<&HostId> {
        match &self.runs_on {
            Some(RunsOn::Builder(id)) => Some(id),
            Some(RunsOn::Own) | None => None,
        }
    }

    /// What it went through, as far as its machine said.
    pub fn phases(&self) -> &[PhaseReport] {
        let built = self.built.as_ref().map(|built| &built.phases);
        let phases = built.or(self.fault.as_ref().map(|fault| &fault.phases));
        phases.map_or(&[], Vec::as_slice)
    }
}

/// What a build went through, without all that came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    pub place: Place,
    /// From 1 in its app.
    pub number: u64,
    /// Which build of its batch it is; `None`: of no batch.
    pub identifier: Option<String>,
    /// Who has it or had it; `None`: it has no place yet.
    pub runs_on: Option<RunsOn>,
    /// What people call its builder, while that is known.
    pub builder: Option<String>,
    /// Why it does not go on yet, for people.
    pub waits: Option<String>,
    pub phases: Vec<PhaseReport>,
    pub log: Option<LogRef>,
    /// The buildspec's `exported-variables`, as they were at its end.
    pub exported: BTreeMap<String, String>,
    /// Tars of its secondary artifacts, by identifier.
    pub secondary: BTreeMap<String, Digest>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// A build that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// From 1 in its app.
    pub number: u64,
    /// Which build of its batch it is; `None`: of no batch.
    pub identifier: Option<String>,
    /// Why it does not go on yet, for people; `None`: it does.
    pub why: Option<String>,
}

/// A build to be numbered.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBuild {
    pub ticket: Ticket,
    pub place: Place,
    pub execution: Option<ExecutionId>,
    pub commit: Commit,
    pub source: Digest,
    /// Which build of its batch it is; `None`: of no batch.
    pub identifier: Option<String>,
    /// Where its log will be.
    pub log: Option<LogRef>,
}

const SELECT: &str = "SELECT b.*, t.name AS tenant, a.name AS app FROM builds b
    JOIN apps a ON a.id = b.app_id JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    pub fn build(&self, tenant: &TenantName, app: &AppName, number: u64) -> Result<Build, Error> {
        let sql = format!("{SELECT} WHERE b.app_id = ?1 AND b.number = ?2");
        self.one(&sql, params![self.app_key(tenant, app)?, number], build)?
            .ok_or_else(|| Error::missing("build", format!("{tenant}/{app} #{number}")))
    }

    /// Of an app; newest first, below `before`.
    pub fn builds(
        &self,
        tenant: &TenantName,
        app: &AppName,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Build>, Error> {
        let sql = format!("{SELECT} WHERE b.app_id = ?1 AND b.number < ?2 ORDER BY b.number DESC LIMIT ?3");
        let before = before.unwrap_or(i64::MAX as u64);
        self.all(&sql, params![self.app_key(tenant, app)?, before, limit], build)
    }

    pub fn builds_of_execution(&self, execution: &ExecutionId) -> Result<Vec<Build>, Error> {
        self.all(
            &format!("{SELECT} WHERE b.execution = ?1 ORDER BY b.number"),
            [execution.as_str()],
            build,
        )
    }

    /// All that go on, oldest first.
    pub fn running_builds(&self) -> Result<Vec<Build>, Error> {
        let sql = format!("{SELECT} WHERE b.state = 'running' ORDER BY b.started_at, b.ticket");
        self.all(&sql, [], build)
    }

    /// Those of them that a builder has.
    pub fn running_builds_of(&self, builder: &HostId) -> Result<Vec<Build>, Error> {
        let sql =
            format!("{SELECT} WHERE b.state = 'running' AND b.builder = ?1 ORDER BY b.started_at, b.ticket");
        self.all(&sql, [builder.as_str()], build)
    }

    /// How many builds each builder has that has any.
    pub fn busy_builders(&self) -> Result<BTreeMap<HostId, usize>, Error> {
        let sql = "SELECT builder, count(*) AS builds FROM builds
             WHERE state = 'running' AND builder IS NOT NULL GROUP BY builder";
        let counted = self.all(sql, [], |row| Ok((row.parsed("builder")?, row.get("builds")?)));
        Ok(counted?.into_iter().collect())
    }

    /// The builds of an execution that have not ended, and why they do not go on: whoever lists executions reads nothing else.
    pub fn waits_in_execution(&self, execution: &ExecutionId) -> Result<Vec<Waits>, Error> {
        self.all(
            "SELECT number, identifier, waits FROM builds WHERE execution = ?1 AND ended_at IS NULL ORDER BY number",
            [execution.as_str()],
            |row| {
                Ok(Waits {
                    number: row.get("number")?,
                    identifier: row.get("identifier")?,
                    why: row.get("waits")?,
                })
            },
        )
    }

    /// What the builds of an execution went through: whoever looks every second reads no reports and no lists of files.
    pub fn ran_in_execution(&self, execution: &ExecutionId) -> Result<Vec<Ran>, Error> {
        self.all(
            "SELECT b.number, b.identifier, b.environment, b.log, b.started_at, b.ended_at, b.builder, b.here, b.waits,
                 t.name AS tenant, a.name AS app, d.name AS called,
                 coalesce(b.built -> '$.phases', b.fault -> '$.phases') AS phases,
                 b.built -> '$.exported' AS exported, b.built -> '$.secondary' AS secondary
             FROM builds b JOIN apps a ON a.id = b.app_id JOIN tenants t ON t.id = a.tenant_id
             LEFT JOIN builders d ON d.id = b.builder
             WHERE b.execution = ?1 ORDER BY b.number",
            [execution.as_str()],
            ran,
        )
    }

    /// What the builds of a release said of its tests; nothing for a release that was not built.
    pub fn reports_of_release(&self, place: &Place, number: u64) -> Result<Vec<TestReport>, Error> {
        let execution: Option<Option<String>> = self.one(
            "SELECT r.execution FROM releases r WHERE r.environment_id = ?1 AND r.number = ?2",
            params![self.environment_key(place)?, number],
            |row| row.get(0),
        )?;
        let Some(execution) = execution.flatten().and_then(|id| id.parse::<ExecutionId>().ok()) else {
            return Ok(Vec::new());
        };
        let builds = self.builds_of_execution(&execution)?;
        Ok(builds
            .into_iter()
            .filter_map(|build| build.built)
            .flat_map(|built| built.reports)
            .collect())
    }

    /// `None`: it was never begun.
    pub fn build_of_ticket(&self, ticket: &Ticket) -> Result<Option<Build>, Error> {
        self.one(&format!("{SELECT} WHERE b.ticket = ?1"), [ticket.as_str()], build)
    }
}

impl Tx<'_> {
    /// Numbers a build. A repeated ticket gets the same one. One that is tried again has no place until it is given one: until
    /// then it is on record where it failed.
    pub fn begin_build(&self, new: &NewBuild, by: &By) -> Result<Build, Error> {
        if let Some(found) = self.build_of_ticket(&new.ticket)? {
            if !is_tried_again(found.state, found.fault.as_ref()) {
                return Ok(found);
            }
            self.run_again("builds", &new.ticket)?;
            self.take_build(&new.ticket)?;
            let detail = json!({ "ticket": new.ticket, "again": true });
            self.note(by, "build.start", Some(&new.place.tenant), &new.place, detail)?;
            let again = self.build_of_ticket(&new.ticket)?;
            return again.ok_or_else(|| Error::missing("build", &new.ticket));
        }
        let app = self.app_key(&new.place.tenant, &new.place.app)?;
        let number: u64 = self.value(
            "UPDATE apps SET builds = builds + 1 WHERE id = ?1 RETURNING builds",
            [app],
        )?;
        self.run(
            "INSERT INTO builds (ticket, app_id, environment, number, execution, commit_json, source, state, log,
                 identifier, started_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                new.ticket.as_str(),
                app,
                new.place.environment.as_str(),
                number,
                new.execution.as_ref().map(ExecutionId::as_str),
                Json(&new.commit),
                Hash(new.source),
                Word(WorkState::Running),
                new.log.as_ref().map(LogRef::as_str),
                new.identifier,
                At(by.at)
            ],
        )?;
        let detail = json!({ "build": number, "commit": new.commit.id, "ticket": new.ticket });
        self.note(by, "build.start", Some(&new.place.tenant), &new.place, detail)?;
        self.build_of_ticket(&new.ticket)?
            .ok_or_else(|| Error::missing("build", &new.ticket))
    }

    /// Notes why a build does not go on yet, or that it does.
    pub fn build_waits(&self, ticket: &Ticket, why: Option<&str>) -> Result<(), Error> {
        let sql = "UPDATE builds SET waits = ?2 WHERE ticket = ?1";
        match self.run(sql, params![ticket.as_str(), why])? {
            0 => Err(Error::missing("build", ticket)),
            _ => Ok(()),
        }
    }

    /// Keeps what came of it. The first answer stays.
    pub fn finish_build(
        &self,
        ticket: &Ticket,
        outcome: Result<&Built, &Fault>,
        by: &By,
    ) -> Result<(), Error> {
        let found = self
            .build_of_ticket(ticket)?
            .ok_or_else(|| Error::missing("build", ticket))?;
        if found.state != WorkState::Running {
            return Ok(());
        }
        let (built, fault) = (outcome.ok(), outcome.err());
        let state = if fault.is_none() {
            WorkState::Succeeded
        } else {
            WorkState::Failed
        };
        let log = built
            .map(|built| &built.log)
            .or(fault.and_then(|fault| fault.evidence.as_ref()));
        self.run(
            "UPDATE builds SET state = ?2, built = ?3, artifact = ?4, fault = ?5, log = coalesce(?6, log),
                 ended_at = ?7
             WHERE ticket = ?1",
            params![
                ticket.as_str(),
                Word(state),
                built.map(Json),
                built.map(|built| Hash(built.artifact)),
                fault.map(Json),
                log.map(LogRef::as_str),
                At(by.at)
            ],
        )?;
        let action = if fault.is_none() {
            "build.succeed"
        } else {
            "build.fail"
        };
        let detail = json!({
            "build": found.number, "artifact": built.map(|built| built.artifact),
            "reason": fault.map(|fault| &fault.message),
        });
        self.note(by, action, Some(&found.place.tenant), &found.place, detail)
    }
}

fn ran(row: &Row<'_>) -> rusqlite::Result<Ran> {
    Ok(Ran {
        place: crate::catalogue::place(row, "environment")?,
        number: row.get("number")?,
        identifier: row.get("identifier")?,
        runs_on: runs_on(row)?,
        builder: row.get("called")?,
        waits: row.get("waits")?,
        phases: row.maybe_json("phases")?.unwrap_or_default(),
        log: row.maybe_parsed("log")?,
        exported: row.maybe_json("exported")?.unwrap_or_default(),
        secondary: row.maybe_json("secondary")?.unwrap_or_default(),
        started_at: row.at("started_at")?,
        ended_at: row.maybe_at("ended_at")?,
    })
}

fn runs_on(row: &Row<'_>) -> rusqlite::Result<Option<RunsOn>> {
    let here: bool = row.get("here")?;
    Ok(match row.maybe_parsed("builder")? {
        Some(builder) => Some(RunsOn::Builder(builder)),
        None => here.then_some(RunsOn::Own),
    })
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        ticket: row.parsed("ticket")?,
        place: crate::catalogue::place(row, "environment")?,
        number: row.get("number")?,
        identifier: row.get("identifier")?,
        execution: row.maybe_parsed("execution")?,
        commit: row.json("commit_json")?,
        source: row.digest("source")?,
        state: row.word("state")?,
        built: row.maybe_json("built")?,
        fault: row.maybe_json("fault")?,
        log: row.maybe_parsed("log")?,
        runs_on: runs_on(row)?,
        waits: row.get("waits")?,
        given: row.get("given")?,
        log_from: row.get("log_from")?,
        started_at: row.at("started_at")?,
        ended_at: row.maybe_at("ended_at")?,
    })
}
