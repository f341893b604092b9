use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Place;
use crate::{
    AppName, ApprovalId, DeploymentId, Digest, EnvironmentName, ExecutionId, HostId, TenantName,
    plan::Plan,
    port::{Commit, EventReport, LogRef, Verdict},
    release::ReleaseState,
};

/// Commits that arrived on a branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Push {
    pub number: u64,
    #[schema(value_type = String)]
    pub tenant: TenantName,
    #[schema(value_type = String)]
    pub app: AppName,
    pub commit: Commit,
    /// Who pushed.
    pub pusher: String,
    /// What brought it: `git`, a delivery (`w-…`), `redeploy`, or a base that became another one: `refresh`, and
    /// `refresh-automatic` where nobody is asked.
    #[serde(default)]
    pub origin: String,
    pub state: PushState,
    /// Why it is where it is, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The environment that the branch goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub execution: Option<ExecutionId>,
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PushState {
    /// Waits for `vend.yaml` to be read, or for another execution of its environment.
    Waiting,
    /// An execution moves it.
    Running,
    /// A newer push took its place while it waited.
    Superseded,
    /// Its release went live.
    Done,
    Failed,
    /// No environment takes its branch, or its files are wrong: the reason says.
    Ignored,
}

/// Image, revision and configuration, numbered per environment, immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    pub place: Place,
    pub number: u64,
    pub state: ReleaseState,
    /// Why, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub commit: Commit,
    #[schema(value_type = String)]
    pub image: Digest,
    #[schema(value_type = String)]
    pub revision: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub execution: Option<ExecutionId>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// The resolved `vend.yaml` of the environment. Only in the answer for one release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub spec: Option<serde_json::Value>,
    /// What it did to the data. Only in the answer for one release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
}

/// The migration of a release: a script of its revision that ran once, on one host, before traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Migration {
    pub script: String,
    pub state: MigrationState,
    /// Releases from before it do not work with the data that it left.
    pub irreversible: bool,
    #[schema(value_type = String)]
    pub host: HostId,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub log: Option<LogRef>,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationState {
    Running,
    Succeeded,
    /// It may have done a part of its work.
    Failed,
}

/// Go back to a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRollback {
    /// The release to go back to; the one before the live one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Also to before a migration that is marked irreversible.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub across_migrations: bool,
}

/// What would change, and the digest that an approval of it is bound to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanAnswer {
    #[schema(value_type = String)]
    pub digest: Digest,
    pub plan: Plan,
    /// Why it would be refused as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What would have to be done instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A question to people about one exact plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    #[schema(value_type = String)]
    pub id: ApprovalId,
    pub place: Place,
    #[schema(value_type = String)]
    pub execution: ExecutionId,
    pub state: ApprovalState,
    /// Votes that are needed.
    pub required: u32,
    /// Who may vote; empty: every approver of the tenant.
    pub by: Vec<String>,
    /// Who wrote or pushed what the plan brings.
    pub authors: Vec<String>,
    pub author_may_approve: bool,
    pub decisions: Vec<Decision>,
    /// Why it was rejected or is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[schema(value_type = String)]
    pub plan_digest: Digest,
    pub plan: Plan,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    Open,
    Approved,
    Rejected,
    Expired,
    /// The plan changed, or its execution ended.
    Void,
}

/// One person's yes or no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    pub by: String,
    pub approve: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// A yes or no to come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDecision {
    /// Why. A no must say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The digest of the plan that was looked at: the decision is refused when the plan is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub plan: Option<Digest>,
}

/// Putting a release on the hosts of an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    #[schema(value_type = String)]
    pub id: DeploymentId,
    pub place: Place,
    pub release: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub execution: Option<ExecutionId>,
    /// `blue-green`, `in-place`, `canary`, `linear`
    pub strategy: String,
    /// What made the platform begin it by itself: `joined late`, or `rolls back` and the deployment that failed. Absent: somebody wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// As CodeDeploy says it: `Created`, `Queued`, `InProgress`, `Baking`, `Ready`, `Succeeded`, `Failed`, `Stopped`.
    pub state: String,
    /// Why it failed or was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// CodeDeploy's code of the reason: `HEALTH_CONSTRAINTS`, `ALARM_ACTIVE`, `MANUAL_STOP`, `TIMEOUT`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub paused_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// What was done on each host. Only in the answer for one deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<DeployedHost>,
    /// What the load balancer's numbers said after each step. Only in the answer for one deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analyses: Vec<Analysis>,
}

/// New hosts beside old ones, in the same minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Analysis {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// From 1.
    pub step: u32,
    pub steps: u32,
    /// Of the traffic that the new hosts got.
    pub percent: u32,
    /// `as-good`, `worse`, or `unknown` when there were too few requests.
    pub verdict: String,
    /// What is worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub new: Traffic,
    pub old: Traffic,
}

/// What hosts did in a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    pub requests: u64,
    /// 5xx, the load balancer's own included.
    pub failed: u64,
    /// Of a hundred requests ninety-nine took less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// What a deployment did on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeployedHost {
    #[schema(value_type = String)]
    pub host: HostId,
    pub events: Vec<EventReport>,
    /// What its checks found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// Why an app is as it is: the last push of each environment, and what to type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    #[schema(value_type = String)]
    pub tenant: TenantName,
    #[schema(value_type = String)]
    pub app: AppName,
    pub environments: Vec<WhyEnvironment>,
    /// Pushes that no environment took, and webhooks that were refused, newest first.
    pub notes: Vec<String>,
    /// The next command to type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhyEnvironment {
    #[schema(value_type = String)]
    pub environment: EnvironmentName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// The last push is what serves.
    pub up_to_date: bool,
    /// Why, in one sentence.
    pub sentence: String,
    /// The error and its cause, when something failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the script or the app that failed said last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
    /// The name of the log with the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// What stands in the way back to the release before: a migration that cannot be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
