//! What was done for releases, and what came of it: builds, bakes, deployments, verdicts.

mod attestations;
mod bakes;
mod builds;
mod deployments;
mod migrations;
mod origins;

pub use attestations::{Attestation, Predicate};
pub use bakes::{Bake, Image, NewBake};
pub use builds::{Build, NewBuild, Ran, RunsOn, Waits};
pub use deployments::{Deployment, DeploymentState, JudgedHost, NewDeployment};
pub use migrations::{Migration, MigrationState, NewMigration};
pub use origins::Origin;

use std::collections::BTreeMap;

use model::{
    AppName, ExecutionId, TenantName, Ticket,
    port::{Blame, Fault, PhaseReport},
};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Json, Word},
};

/// Whose: a tenant's, or those of one app of it; `None`: anybody's.
pub type Of<'a> = Option<(&'a TenantName, Option<&'a AppName>)>;

/// Of a build or a bake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkState {
    Running,
    Succeeded,
    Failed,
    /// Nobody wanted it any more: its execution was cancelled, ran out of time or failed elsewhere.
    Stopped,
}

impl Db<'_> {
    /// The tickets of the builds and bakes that go on for an execution.
    pub fn work_of_execution(&self, execution: &ExecutionId) -> Result<Vec<Ticket>, Error> {
        let builds = self.builds_of_execution(execution)?.into_iter();
        let bakes = self.bakes_of_execution(execution)?.into_iter();
        let all = builds
            .map(|build| (build.state, build.ticket))
            .chain(bakes.map(|bake| (bake.state, bake.ticket)));
        Ok(all
            .filter(|(state, _)| *state == WorkState::Running)
            .map(|(_, ticket)| ticket)
            .collect())
    }
}

impl Tx<'_> {
    /// What goes on for an execution is stopped, for this reason. What has ended stays as it is. `phases`: what builds went
    /// through, as far as it is known.
    pub fn stop_work(
        &self,
        execution: &ExecutionId,
        why: &Fault,
        phases: &BTreeMap<Ticket, Vec<PhaseReport>>,
        by: &By,
    ) -> Result<(), Error> {
        let running = |state| state == WorkState::Running;
        for build in self.builds_of_execution(execution)? {
            if running(build.state) {
                let why = Fault {
                    phases: phases.get(&build.ticket).cloned().unwrap_or_default(),
                    ..why.clone()
                };
                self.stop_row("builds", &build.ticket, &why, by)?;
                let detail = json!({ "build": build.number, "reason": why.message });
                self.note(by, "build.stop", Some(&build.place.tenant), &build.place, detail)?;
            }
        }
        for bake in self.bakes_of_execution(execution)? {
            if running(bake.state) {
                self.stop_row("bakes", &bake.ticket, why, by)?;
                let detail = json!({ "ticket": bake.ticket, "reason": why.message });
                self.note(by, "bake.stop", Some(&bake.place.tenant), &bake.place, detail)?;
            }
        }
        Ok(())
    }

    fn run_again(&self, table: &str, ticket: &Ticket) -> Result<(), Error> {
        self.run(
            &format!("UPDATE {table} SET state = ?2, fault = NULL, ended_at = NULL WHERE ticket = ?1"),
            params![ticket.as_str(), Word(WorkState::Running)],
        )?;
        Ok(())
    }

    fn stop_row(&self, table: &str, ticket: &Ticket, why: &Fault, by: &By) -> Result<(), Error> {
        self.run(
            &format!("UPDATE {table} SET state = ?2, fault = ?3, ended_at = ?4 WHERE ticket = ?1"),
            params![ticket.as_str(), Word(WorkState::Stopped), Json(why), At(by.at)],
        )?;
        Ok(())
    }
}

/// A fault of the platform is no answer: the same ticket is tried again, and what comes of that is.
fn is_tried_again(state: WorkState, fault: Option<&Fault>) -> bool {
    state == WorkState::Failed && fault.is_some_and(|fault| fault.blame == Blame::Platform)
}
