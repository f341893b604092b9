use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Fault;
use crate::{Digest, HostId, Place, Secret, Ticket, secret};

/// Starts and stops hosts.
pub trait Hosts {
    /// Makes the host run: from its image, with its address, its agent as PID 1, its environment in the agent's
    /// memory. A host of that id that runs already only gets the environment again.
    fn start(&self, ticket: &Ticket, order: &HostOrder)
    -> impl Future<Output = Result<HostUp, Fault>> + Send;

    /// Stops the host and removes all that it had but its logs. A host that is not there is stopped.
    fn stop(&self, host: &HostId) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Every host that exists on the machine, running or not.
    fn list(&self) -> impl Future<Output = Result<Vec<HostSeen>, Fault>> + Send;

    /// Removes the network of an environment that has no hosts any more. One that is not there is removed.
    fn remove_network(&self, network: &Network) -> impl Future<Output = Result<(), Fault>> + Send;
}

#[derive(Clone, Serialize, Deserialize)]
pub struct HostOrder {
    pub host: HostId,
    pub place: Place,
    pub role: HostRole,
    pub image: Digest,
    pub network: Network,
    pub address: Ipv4Addr,
    /// The first of 65,536 user ids of the machine that the host's own are mapped to. Never shared by two tenants.
    pub uid_base: u32,
    pub resources: Resources,
    /// The port that the app listens on. Nothing else of the host can be reached from outside its network.
    pub port: u16,
    /// Environment of the app, secrets included. Kept in the agent's memory only.
    #[serde(serialize_with = "secret::all_in_the_clear")]
    pub environment: BTreeMap<String, Secret>,
    /// Names of the variables whose values no log may show.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Commands of a `Procfile` that the agent supervises, by process name. Empty when the app has an appspec.
    pub processes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostRole {
    App,
    Database,
}

/// The network of one environment: a bridge of its own and a subnet of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The environment's number on the platform, at most 999,999. The bridge is called `vend`, four digits that tell
    /// the platforms of one machine apart, a hyphen and this number: `vend3fa2-12`.
    pub number: u32,
    pub subnet: Ipv4Addr,
    /// 24: addresses .1 (the bridge) and .2 to .254 (hosts).
    pub prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Cores.
    pub cpu: f64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub pids: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostUp {
    pub host: HostId,
    pub address: Ipv4Addr,
    /// From the order to an agent that answers.
    pub duration_ms: u64,
    /// Isolation that this kernel could not give, and what was done instead. Empty on a full machine.
    pub fallbacks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostSeen {
    pub host: HostId,
    pub place: Place,
    pub role: HostRole,
    pub state: HostState,
    pub address: Ipv4Addr,
    pub image: Digest,
    pub started_at: Timestamp,
    pub memory_bytes: u64,
    pub cpu_ms: u64,
    /// Processes that run in it.
    pub pids: u32,
    /// In use of its own disk, and all of it, as its agent says; `None` when that does not answer.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    #[serde(default)]
    pub disk_total_bytes: Option<u64>,
    /// Its agent holds the environment; false after the agent's memory was lost.
    pub configured: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    Running,
    /// It ended by itself, or the machine was restarted.
    Stopped,
}

/// Databases on hosts of their own.
pub trait Databases {
    /// Makes the environment's database run with these credentials: the image, the host, its data, the user.
    /// Doing it again with other credentials replaces them. Data is never touched.
    fn ensure(
        &self,
        ticket: &Ticket,
        order: &DatabaseOrder,
    ) -> impl Future<Output = Result<DatabaseUp, Fault>> + Send;

    /// Stops the database's host and deletes its data, for ever.
    fn destroy(&self, host: &HostId, place: &Place) -> impl Future<Output = Result<(), Fault>> + Send;
}

#[derive(Clone, Serialize, Deserialize)]
pub struct DatabaseOrder {
    pub host: HostId,
    pub place: Place,
    pub engine: DatabaseEngine,
    pub network: Network,
    pub address: Ipv4Addr,
    pub uid_base: u32,
    pub resources: Resources,
    /// Name of the database and of its user.
    pub name: String,
    #[serde(serialize_with = "secret::in_the_clear")]
    pub password: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseEngine {
    Mariadb,
}

/// Counts what a database holds, as lines of bash: the same lines here and wherever its data goes, so that what they say can
/// be compared.
pub const COUNT: &str = include_str!("count.sh");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseUp {
    pub host: HostId,
    pub address: Ipv4Addr,
    pub port: u16,
    /// The data was there before.
    pub existing_data: bool,
    pub duration_ms: u64,
}
