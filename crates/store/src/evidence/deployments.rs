use jiff::Timestamp;
use model::{
    DeploymentId, ExecutionId, HostId, Place,
    port::{EventReport, LifecycleEvent, LogRef, Verdict},
    spec::Strategy,
};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Json, Word},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    pub id: DeploymentId,
    pub place: Place,
    pub release: u64,
    pub execution: Option<ExecutionId>,
    pub strategy: Strategy,
    /// What made the platform begin it by itself. `None`: somebody wanted it.
    pub cause: Option<String>,
    pub state: DeploymentState,
    /// Why it failed or was stopped.
    pub reason: Option<String>,
    /// CodeDeploy's code of that reason, where it has one.
    pub code: Option<String>,
    /// Somebody holds it, since then.
    pub paused: Option<(String, Timestamp)>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// With CodeDeploy's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentState {
    /// Hosts are being made for it.
    Created,
    /// It waits for something else in its environment.
    Queued,
    InProgress,
    /// Its hosts get a part of the traffic, and are watched.
    Baking,
    /// Its hosts are well, and wait for the word to go on.
    Ready,
    Succeeded,
    Failed,
    Stopped,
}

impl DeploymentState {
    /// As CodeDeploy writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Queued => "Queued",
            Self::InProgress => "InProgress",
            Self::Baking => "Baking",
            Self::Ready => "Ready",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
        }
    }

    pub fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDeployment {
    pub id: DeploymentId,
    pub place: Place,
    pub release: u64,
    pub execution: Option<ExecutionId>,
    pub strategy: Strategy,
    pub cause: Option<String>,
}

/// What the checks found on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedHost {
    pub host: HostId,
    pub release: u64,
    pub verdict: Verdict,
    pub at: Timestamp,
}

const SELECT: &str = "SELECT d.*, t.name AS tenant, a.name AS app, e.name AS environment FROM deployments d
    JOIN environments e ON e.id = d.environment_id JOIN apps a ON a.id = e.app_id
    JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    pub fn deployment(&self, id: &DeploymentId) -> Result<Deployment, Error> {
        self.one(&format!("{SELECT} WHERE d.id = ?1"), [id.as_str()], deployment)?
            .ok_or_else(|| Error::missing("deployment", id))
    }

    /// Of an environment, newest first.
    pub fn deployments(&self, place: &Place, limit: u32) -> Result<Vec<Deployment>, Error> {
        let sql =
            format!("{SELECT} WHERE d.environment_id = ?1 ORDER BY d.started_at DESC, d.rowid DESC LIMIT ?2");
        self.all(&sql, params![self.environment_key(place)?, limit], deployment)
    }

    /// The newest that somebody wanted and that went well.
    pub fn settled_deployment(&self, place: &Place) -> Result<Option<Deployment>, Error> {
        let sql = format!(
            "{SELECT} WHERE d.environment_id = ?1 AND d.state = ?2 AND d.cause IS NULL
             ORDER BY d.started_at DESC, d.rowid DESC LIMIT 1"
        );
        let wanted = params![self.environment_key(place)?, Word(DeploymentState::Succeeded)];
        self.one(&sql, wanted, deployment)
    }

    /// By host, and for each in the order of the events.
    pub fn deployment_events(&self, id: &DeploymentId) -> Result<Vec<(HostId, EventReport)>, Error> {
        self.all(
            "SELECT host, report FROM deployment_events WHERE deployment = ?1 ORDER BY host, ordinal",
            [id.as_str()],
            |row| Ok((row.parsed("host")?, row.json("report")?)),
        )
    }

    /// Where all is that scripts of an execution's deployments said, with when that began, in this order, and of which
    /// deployment it is.
    pub fn deployment_logs(
        &self,
        execution: &ExecutionId,
    ) -> Result<Vec<(LogRef, Timestamp, DeploymentId)>, Error> {
        self.all(
            "SELECT e.report ->> '$.log' AS log, min(e.report ->> '$.started_at') AS at, d.id AS deployment
             FROM deployments d JOIN deployment_events e ON e.deployment = d.id
             WHERE d.execution = ?1 AND e.report ->> '$.log' IS NOT NULL
             GROUP BY log ORDER BY at, log",
            [execution.as_str()],
            |row| Ok((row.parsed("log")?, row.parsed("at")?, row.parsed("deployment")?)),
        )
    }

    /// What the numbers said of each step, in their order.
    pub fn analyses(&self, id: &DeploymentId) -> Result<Vec<(Timestamp, Value)>, Error> {
        self.all(
            "SELECT analysis, at FROM analyses WHERE deployment = ?1 ORDER BY id",
            [id.as_str()],
            |row| Ok((row.at("at")?, row.json("analysis")?)),
        )
    }

    /// The one of an execution that has not ended, if any.
    pub fn open_deployment(
        &self,
        place: &Place,
        execution: &ExecutionId,
    ) -> Result<Option<Deployment>, Error> {
        let sql = format!(
            "{SELECT} WHERE d.environment_id = ?1 AND d.execution = ?2 AND d.ended_at IS NULL ORDER BY d.rowid LIMIT 1"
        );
        self.one(
            &sql,
            params![self.environment_key(place)?, execution.as_str()],
            deployment,
        )
    }

    /// All of an execution, in the order in which they were begun.
    pub fn deployments_of_execution(&self, execution: &ExecutionId) -> Result<Vec<Deployment>, Error> {
        let sql = format!("{SELECT} WHERE d.execution = ?1 ORDER BY d.rowid");
        self.all(&sql, [execution.as_str()], deployment)
    }

    /// The one under way that undoes what the execution's own deployment did.
    pub fn open_undo(&self, execution: &ExecutionId) -> Result<Option<Deployment>, Error> {
        let all = self.deployments_of_execution(execution)?.into_iter();
        Ok(all.skip(1).find(|own| !own.state.has_ended()))
    }

    /// Of one release, in their order.
    pub fn verdicts(&self, place: &Place, release: u64) -> Result<Vec<JudgedHost>, Error> {
        self.all(
            "SELECT * FROM verdicts WHERE environment_id = ?1 AND release = ?2 ORDER BY id",
            params![self.environment_key(place)?, release],
            |row| {
                Ok(JudgedHost {
                    host: row.parsed("host")?,
                    release: row.get("release")?,
                    verdict: row.json("verdict")?,
                    at: row.at("at")?,
                })
            },
        )
    }
}

impl Tx<'_> {
    /// A deployment that was begun is begun once.
    pub fn begin_deployment(&self, new: &NewDeployment, by: &By) -> Result<Deployment, Error> {
        match self.deployment(&new.id) {
            Err(Error::Missing { .. }) => {}
            other => return other,
        }
        self.run(
            "INSERT INTO deployments (id, environment_id, release, execution, state, started_at, strategy, cause)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                new.id.as_str(),
                self.environment_key(&new.place)?,
                new.release,
                new.execution.as_ref().map(ExecutionId::as_str),
                Word(DeploymentState::Created),
                At(by.at),
                Word(new.strategy),
                new.cause
            ],
        )?;
        let mut detail = json!({ "deployment": new.id, "release": new.release, "strategy": new.strategy });
        if let Some(cause) = &new.cause {
            detail["cause"] = json!(cause);
        }
        self.note(
            by,
            "deployment.start",
            Some(&new.place.tenant),
            &new.place,
            detail,
        )?;
        self.deployment(&new.id)
    }

    /// Keeps what events did on a host: one row for each host and event, the last report stays.
    pub fn record_events(
        &self,
        id: &DeploymentId,
        host: &HostId,
        reports: &[EventReport],
    ) -> Result<(), Error> {
        self.deployment(id)?;
        for report in reports {
            let mut lifecycle = LifecycleEvent::ALL.iter();
            let ordinal = lifecycle.position(|event| *event == report.event);
            self.run(
                "INSERT INTO deployment_events VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (deployment, host, event) DO UPDATE SET report = excluded.report",
                params![
                    id.as_str(),
                    host.as_str(),
                    Word(report.event),
                    // A migration comes before all of them.
                    ordinal.map_or(-1, |ordinal| ordinal as i64),
                    Json(report)
                ],
            )?;
        }
        Ok(())
    }

    /// How far it is. One that has ended stays as it is.
    pub fn set_deployment_state(&self, id: &DeploymentId, state: DeploymentState) -> Result<(), Error> {
        let found = self.deployment(id)?;
        if found.state.has_ended() || state.has_ended() || found.state == state {
            return Ok(());
        }
        self.run(
            "UPDATE deployments SET state = ?2 WHERE id = ?1",
            params![id.as_str(), Word(state)],
        )
        .map(drop)
    }

    /// Holds a deployment before its next step, or lets it go on. One that is held is held by the first who asked.
    pub fn pause_deployment(&self, id: &DeploymentId, paused: bool, by: &By) -> Result<Deployment, Error> {
        let found = self.deployment(id)?;
        if found.state.has_ended() {
            return Err(Error::refused(format!(
                "deployment {id} has ended: it is {}",
                found.state.word()
            )));
        }
        if found.paused.is_some() == paused {
            return Ok(found);
        }
        let (who, at) = match paused {
            true => (Some(by.actor.as_str()), Some(At(by.at))),
            false => (None, None),
        };
        self.run(
            "UPDATE deployments SET paused_by = ?2, paused_at = ?3 WHERE id = ?1",
            params![id.as_str(), who, at],
        )?;
        let action = if paused {
            "deployment.pause"
        } else {
            "deployment.resume"
        };
        let detail = json!({ "deployment": id, "release": found.release });
        self.note(by, action, Some(&found.place.tenant), &found.place, detail)?;
        self.deployment(id)
    }

    /// Keeps what the numbers said of a step, any plain data.
    pub fn record_analysis(&self, id: &DeploymentId, analysis: &Value, by: &By) -> Result<(), Error> {
        let found = self.deployment(id)?;
        self.run(
            "INSERT INTO analyses (deployment, analysis, at) VALUES (?1, ?2, ?3)",
            params![id.as_str(), Json(analysis), At(by.at)],
        )?;
        let detail = json!({ "deployment": id, "analysis": analysis });
        self.note(
            by,
            "deployment.analyse",
            Some(&found.place.tenant),
            &found.place,
            detail,
        )
    }

    /// One that has ended stays as it is. `code`: CodeDeploy's, of a failure.
    pub fn finish_deployment(
        &self,
        id: &DeploymentId,
        state: DeploymentState,
        code: Option<&str>,
        reason: Option<&str>,
        by: &By,
    ) -> Result<(), Error> {
        let found = self.deployment(id)?;
        if found.state.has_ended() || !state.has_ended() {
            return Ok(());
        }
        self.run(
            "UPDATE deployments SET state = ?2, code = ?3, reason = ?4, ended_at = ?5, paused_by = NULL,
                 paused_at = NULL WHERE id = ?1",
            params![id.as_str(), Word(state), code, reason, At(by.at)],
        )?;
        // What a host was told to do and never answered for.
        self.run(
            "UPDATE deployment_events SET report = json_set(report, '$.status', 'Unknown')
             WHERE deployment = ?1 AND report ->> '$.status' IN ('Pending', 'InProgress')",
            [id.as_str()],
        )?;
        let action = match state {
            DeploymentState::Succeeded => "deployment.succeed",
            DeploymentState::Stopped => "deployment.stop",
            _ => "deployment.fail",
        };
        let detail = json!({ "deployment": id, "release": found.release, "code": code, "reason": reason });
        self.note(by, action, Some(&found.place.tenant), &found.place, detail)
    }

    pub fn record_verdict(
        &self,
        place: &Place,
        release: u64,
        host: &HostId,
        verdict: &Verdict,
        by: &By,
    ) -> Result<(), Error> {
        self.run(
            "INSERT INTO verdicts (environment_id, release, host, passed, verdict, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                self.environment_key(place)?,
                release,
                host.as_str(),
                verdict.passed(),
                Json(verdict),
                At(by.at)
            ],
        )?;
        let detail = json!({ "host": host, "release": release, "passed": verdict.passed() });
        self.note(by, "host.judge", Some(&place.tenant), place, detail)
    }
}

fn deployment(row: &Row<'_>) -> rusqlite::Result<Deployment> {
    Ok(Deployment {
        id: row.parsed("id")?,
        place: crate::catalogue::place(row, "environment")?,
        release: row.get("release")?,
        execution: row.maybe_parsed("execution")?,
        strategy: row.word("strategy")?,
        cause: row.get("cause")?,
        state: row.word("state")?,
        reason: row.get("reason")?,
        code: row.get("code")?,
        paused: row
            .get::<_, Option<String>>("paused_by")?
            .zip(row.maybe_at("paused_at")?),
        started_at: row.at("started_at")?,
        ended_at: row.maybe_at("ended_at")?,
    })
}
