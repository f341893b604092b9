use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Place;
use crate::{
    DeploymentId, Digest, ExecutionId, HostId, Secret, TenantName,
    port::{HostRole, HostState, LogTime, PhaseReport},
    route::TargetState,
    secret,
};

/// One run of a state machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Execution {
    #[schema(value_type = String)]
    pub id: ExecutionId,
    /// `release`, `rollback`, `environment-destroy`, …
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub state: ExecutionState,
    /// The state of the machine that it is in, or ended in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// What it waits for, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// As the ledger writes who started it.
    pub started_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutionState {
    Running,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
}

impl ExecutionState {
    pub fn ended(self) -> bool {
        self != Self::Running
    }
}

/// An execution with all that happened in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExecutionDetail {
    #[serde(flatten)]
    pub execution: Execution,
    pub history: Vec<HistoryEvent>,
    /// Names of the logs that it wrote.
    pub logs: Vec<String>,
    /// What its builds went through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<BuildRun>,
}

/// One build of an execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BuildRun {
    /// From 1 in its app.
    pub number: u64,
    /// Which build of its batch it is, as the buildspec calls it. Absent: it is of no batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// The machine that has it or had it: `this machine`, which is the platform's own, or what its builder is called. Absent: it
    /// has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// CodeBuild's, from `SUBMITTED` to `COMPLETED`. Known when it has ended; none when its machine never said.
    pub phases: Vec<PhaseReport>,
    /// The buildspec's `exported-variables`, as they were at its end; one that holds a secret is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exported: BTreeMap<String, String>,
    /// Its secondary artifacts, tars that are kept as long as its main one, by identifier: `executions.artifact` gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub secondary: BTreeMap<String, Digest>,
}

/// What a picture of an execution is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Drawing {
    /// The machine, in Amazon States Language.
    #[schema(value_type = Object)]
    pub definition: serde_json::Value,
    /// In the shape of GetExecutionHistory, without payloads.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<serde_json::Value>,
}

/// One thing that happened in an execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryEvent {
    /// From 1, in order.
    pub id: u64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// AWS's name of the event's type, such as `TaskStateEntered`.
    pub kind: String,
    /// The state that it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What there is to say: the reason of a wait, the error of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// One virtual host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    #[schema(value_type = String)]
    pub id: HostId,
    pub place: Place,
    pub role: HostRole,
    /// What the catalogue wants of it: `starting`, `serving`, `kept`, `stopping`, …
    pub wanted: String,
    /// Why, where that is not obvious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the machine has; none when the host does not exist there, or the node cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<HostState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub image: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Of its own disk, as its agent says: in use, and in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_total_bytes: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A machine of a tenant's own, on which releases are deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    #[schema(value_type = String)]
    pub id: HostId,
    #[schema(value_type = String)]
    pub tenant: TenantName,
    /// What it calls itself.
    pub name: String,
    /// From its invitation.
    pub labels: BTreeMap<String, String>,
    /// `connected`, `away`, or `leaving`.
    pub state: String,
    /// The environment that has it, and the release that is on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
    /// So many times in a row the platform began by itself to bring it the live release, which it has missed.
    #[serde(default)]
    pub tries: u32,
    /// When it is tried again. Absent: not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<Timestamp>,
    /// Why the last deployment failed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Where it is or was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the whole machine uses, while it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub seen_at: Option<Timestamp>,
}

/// What all processes of a machine use together, as its agent says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Of all its cores, in the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u8>,
    /// Of all its cores, since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Of the file system of its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_total_bytes: Option<u64>,
}

/// Let one machine in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// What the machine is for: environments name these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Seconds until nobody is let in with it any more; an hour when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
}

/// What lets one machine in, once. Its text is shown here and nowhere else.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    #[serde(serialize_with = "secret::in_the_clear")]
    #[schema(value_type = String)]
    pub token: Secret,
    /// What the machine dials.
    pub url: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// A log that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// `build/t-…`, `host/h-…/service`
    pub log: String,
    /// `build`, `bake`, `deploy`, `service`, `console`
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Of which deployment it is, of those of kind `deploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment: Option<DeploymentId>,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// Some text of a log. Ask again with `offset` set to `next` until it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogText {
    pub log: String,
    pub text: String,
    /// In bytes.
    pub next: u64,
    pub ended: bool,
    /// When the text came: of builds, bakes and deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<LogTime>,
}

/// The newest lines of the access log about somebody, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessLog {
    /// Time, client, request, status, bytes, duration, target group (or whose it is), target, its address, request id.
    pub lines: Vec<String>,
    /// There are no older ones.
    pub all: bool,
}

/// An immutable root file system that hosts start from, as the releases of one environment use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    #[schema(value_type = String)]
    pub digest: Digest,
    pub place: Place,
    /// What it stands on, as the newest of them says.
    pub base: String,
    /// Its base has become another one since.
    pub stale: bool,
    /// Releases that stand on it, newest first.
    pub releases: Vec<u64>,
    /// Of the first of them.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// What the load balancer sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EdgeStatus {
    pub targets: Vec<EdgeTarget>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EdgeTarget {
    pub group: String,
    pub host: String,
    pub address: String,
    pub state: TargetState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub requests: u64,
    pub errors: u64,
    pub active: u32,
}
