//! What is said over the agent's socket: JSON of these types.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{
    Secret, Ticket,
    port::{DeployOrder, EventReport},
    secret,
};
use serde::{Deserialize, Serialize};

/// How an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub version: String,
    pub pid: u32,
    /// It holds an environment.
    pub configured: bool,
    pub started_at: Timestamp,
    /// Services that run, and services that do not though they should.
    pub active: usize,
    pub failed: usize,
    /// The host's own disk.
    #[serde(default)]
    pub disk: Option<Disk>,
    /// Of a machine of somebody's own. What a host uses, its node counts.
    #[serde(default)]
    pub usage: Option<Usage>,
}

/// What all processes of a machine use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Of all cores, since it began.
    pub cpu_ms: u64,
    pub cores: u32,
    pub memory_bytes: u64,
    pub memory_total_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub used_bytes: u64,
    pub total_bytes: u64,
}

/// What a host's processes get. Only ever in memory: after a restart of the host it is asked for again.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    #[serde(serialize_with = "secret::all_in_the_clear")]
    pub environment: BTreeMap<String, Secret>,
    /// Names of the variables whose values no log may show.
    #[serde(default)]
    pub secrets: BTreeSet<String>,
    /// Given to every process as `PORT`.
    pub port: u16,
    /// Commands of a Procfile, by process name.
    pub processes: BTreeMap<String, String>,
}

/// A deployment, and the ticket under which it is done once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    pub ticket: Ticket,
    pub order: DeployOrder,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reports {
    pub events: Vec<EventReport>,
}

/// A daemon for the agent to keep running, other than those of unit files.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonOrder {
    /// Its name as a service, and of its log.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Name or number; root when absent.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub directory: Option<String>,
    /// In addition to the host's environment.
    #[serde(default, serialize_with = "secret::all_in_the_clear")]
    pub environment: BTreeMap<String, Secret>,
    /// How long it may take to end when it is stopped.
    pub stop_timeout_ms: u64,
}

/// A command to run once.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RunOrder {
    /// Program and arguments. No secret belongs here: other processes see it.
    pub command: Vec<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub directory: Option<String>,
    /// In addition to the host's environment.
    #[serde(default, serialize_with = "secret::all_in_the_clear")]
    pub environment: BTreeMap<String, Secret>,
    /// Its standard input: where secrets belong.
    #[serde(
        default,
        serialize_with = "maybe_in_the_clear",
        skip_serializing_if = "Option::is_none"
    )]
    pub stdin: Option<Secret>,
    pub timeout_ms: u64,
}

fn maybe_in_the_clear<S: serde::Serializer>(
    secret: &Option<Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => secret::in_the_clear(secret, serializer),
        None => serializer.serialize_none(),
    }
}

/// What a command did. Outputs end after 256 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// As in a shell: 128 and more for a signal. `None`: it was ended at its deadline.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    Inactive,
    Activating,
    Active,
    Deactivating,
    /// It ended in a way that it should not, and is not restarted.
    Failed,
}

impl ServiceState {
    /// systemd's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Activating => "activating",
            Self::Active => "active",
            Self::Deactivating => "deactivating",
            Self::Failed => "failed",
        }
    }
}

/// Where a service comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Procfile,
    Unit,
    Daemon,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub description: String,
    pub origin: Origin,
    pub state: ServiceState,
    /// systemd's finer state: `running`, `exited`, `dead`, `auto-restart`, …
    pub sub: String,
    pub pid: Option<u32>,
    /// How often it was started again because it ended, in a row and without a minute of peace.
    pub crashes: u32,
    /// The same since it was asked to start.
    pub restarts: u32,
    pub last_exit: Option<String>,
    /// When it last ended though it should go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died_at: Option<Timestamp>,
    /// When somebody last asked for its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Timestamp>,
    pub since: Timestamp,
}

/// A call of `systemctl` inside the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlOrder {
    pub verb: String,
    pub units: Vec<String>,
    #[serde(default)]
    pub properties: Vec<String>,
    #[serde(default)]
    pub value_only: bool,
    #[serde(default)]
    pub now: bool,
    /// What is to be started or stopped is not waited for.
    #[serde(default)]
    pub no_block: bool,
    #[serde(default)]
    pub quiet: bool,
    #[serde(default)]
    pub all: bool,
    /// Of `kill`.
    #[serde(default)]
    pub signal: Option<String>,
    #[serde(default)]
    pub only_main: bool,
    /// Which are listed, by kind and by systemd's words for what they do; all when empty.
    #[serde(default)]
    pub types: Vec<String>,
    #[serde(default)]
    pub states: Vec<String>,
    /// Of `preset`.
    #[serde(default)]
    pub preset: Preset,
}

/// What a preset may do to a unit (`systemctl(1)`, "--preset-mode=").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    #[default]
    Full,
    EnableOnly,
    DisableOnly,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlOutcome {
    pub code: u8,
    pub stdout: String,
    pub stderr: String,
}

/// One log of a host, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// The file under `logs` of the run directory.
    pub file: String,
    pub bytes: u64,
}
