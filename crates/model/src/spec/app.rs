//! `vend.yaml`, normalised: defaults filled in, an environment's overrides applied.

mod base;
mod deploy;
mod environment;
mod grammar;
mod host;
mod merge;
mod parse;
mod ports;
mod preview;
mod schema;
mod sign;
mod traffic;

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::{
    AlarmName, AppName, EnvironmentName,
    port::DatabaseEngine,
    route::{Access, Authenticate, HealthProtocol},
};

pub use base::{Base, NotABase, Reference};
pub(crate) use environment::is_branch;
pub use environment::is_label;
pub use host::is_secret;
pub(super) use host::is_variable;
pub use parse::Tree;
pub use preview::{
    Clash, Pattern, Preview, is_apart, matches as matches_branch, name as preview_name, name_apart,
};
pub use schema::schema;
pub use traffic::Traffic;

/// A whole `vend.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    pub app: AppName,
    /// In the order of the file. Each holds all that applies to it.
    pub environments: Vec<Environment>,
    /// What environments of branches are made from, in the order of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<Pattern>,
}

/// One environment with everything that applies to it. Part of every release, so that a rollback restores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    pub name: EnvironmentName,
    /// The branch whose pushes go here.
    pub branch: String,
    pub image: Image,
    pub build: Build,
    pub deploy: Deploy,
    pub host: Host,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// Path of the goss file in the source tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Utf8PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    pub scaling: Scaling,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Port>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<Domain>,
    /// Machines of the customer's own, in the place of hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Its hosts are stopped when nobody has asked for it for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep_after: Option<SignedDuration>,
    /// How it comes and goes with its branch, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// Who must have signed in before a request reaches the app. The client's secret is the name of one of the app's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticate: Option<Box<Authenticate>>,
    /// Who may ask, by where they are.
    #[serde(default, skip_serializing_if = "Access::is_empty")]
    pub access: Access,
}

impl Environment {
    /// The entry of `vend.yaml` that it is from.
    pub fn entry(&self) -> &EnvironmentName {
        self.preview.as_ref().map_or(&self.name, |preview| &preview.of)
    }

    /// Secrets that the load balancer needs, by their names in the vault.
    pub fn secrets_of_the_edge(&self) -> impl Iterator<Item = &str> {
        let client = self.authenticate.iter().map(|login| &*login.client_secret);
        let pairs = self
            .domains
            .iter()
            .filter_map(|domain| match &domain.certificate {
                Certificate::Vault { chain, key } => Some([&**chain, &**key]),
                Certificate::File | Certificate::Acme => None,
            });
        client.chain(pairs.flatten())
    }
}

/// A TCP or UDP port of the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub protocol: Transport,
    /// At the load balancer.
    pub port: u16,
    /// At the hosts.
    pub host_port: u16,
    /// UDP: a flow ends after so long without a datagram.
    pub idle: SignedDuration,
    pub leads: Leads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    Tcp,
    Udp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What the name of a port is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leads {
    Balancer,
    /// The healthy hosts by weight, to be kept for so long.
    Hosts {
        ttl: SignedDuration,
    },
}

/// A name of the customer's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Lower case, without the last dot.
    pub host: String,
    pub certificate: Certificate,
    /// Also at addresses of its own.
    pub dedicated_balancer: bool,
}

/// Where a domain's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certificate {
    File,
    Acme,
    /// PEM in two secrets of the app.
    Vault {
        chain: String,
        key: String,
    },
}

/// Where releases are deployed, when not on hosts of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The labels that a registered machine of the tenant must have.
    pub registered: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// A [`Base`]. Default `debian-12`.
    pub base: String,
    pub scripts: Vec<Utf8PathBuf>,
    pub inputs: Vec<String>,
    /// The secret of the app with which the base's registry is asked: `USER:PASSWORD`, or a token alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// What happens when the base has become another one.
    #[serde(default)]
    pub refresh: Refresh,
}

/// What happens to an environment whose image stands on an older base.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refresh {
    /// It is shown as stale.
    Manual,
    /// Its release is made again, and goes the way of any other, approvals included.
    #[default]
    Release,
    /// The same, and nobody is asked.
    Automatic,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// `None`: nothing to build, the revision is the source tree. Default: `buildspec.yml` if the file is there.
    pub buildspec: Option<Utf8PathBuf>,
    pub timeout: SignedDuration,
    /// Percent of tests that must pass. Default 100.
    pub pass_rate: f64,
    /// `pass_rate` is written, and so a report that tells of no test is not enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pass_rate_asked: bool,
    /// Percent of lines that tests must reach. `None`: nobody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// What builds run in: `standard` when absent, else a base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The secret that the registry of `image` is asked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The buildspec's `batch` is run, rather than one build of the whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
    /// The revision is what all builds of the batch leave, and not what the last of them does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub combine_artifacts: bool,
    /// How long all builds of a batch may take together, with what they wait for: CodeBuild's `timeoutInMins` of a batch.
    #[serde(default = "Build::usual_batch_timeout")]
    pub batch_timeout: SignedDuration,
    /// Variables of every build, which replace the buildspec's: those of CodeBuild's project.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Variable>,
}

impl Build {
    /// As long as one build may wait for its turn.
    pub(crate) const fn usual_batch_timeout() -> SignedDuration {
        SignedDuration::from_hours(8)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    /// Default `appspec.yml` if the file is there; else the app must have a `Procfile`.
    pub appspec: Option<Utf8PathBuf>,
    pub strategy: Strategy,
    pub minimum_healthy: MinimumHealthy,
    /// How long the old hosts stay after a switch.
    pub keep_old: SignedDuration,
    /// How long requests under way may go on after their host was taken out: ALB's deregistration delay.
    #[serde(default = "Deploy::usual_drain")]
    pub drain: SignedDuration,
    /// Of canary and linear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
    /// One zone after the other, in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Zones>,
    /// What brings the data to where the release needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate: Option<Migrate>,
    /// A script of the revision before that fails to stop it fails no host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_stop_failures: bool,
    /// What ends a deployment that somebody's monitoring is not content with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarms: Option<Alarms>,
}

impl Deploy {
    pub const DRAIN: SignedDuration = SignedDuration::from_secs(30);

    fn usual_drain() -> SignedDuration {
        Self::DRAIN
    }
}

/// Alarms that keep a deployment from beginning and from going on: CodeDeploy's `AlarmConfiguration`. What was deployed goes
/// back. <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_AlarmConfiguration.html>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarms {
    /// Each once, one at least.
    pub names: Vec<AlarmName>,
    /// One of which nobody knows how it is hinders nothing: CodeDeploy's `ignorePollAlarmFailure`.
    pub ignore_unknown: bool,
    /// What was told longer ago is not known any more. `None`: it holds until something else is told.
    pub stale_after: Option<SignedDuration>,
}

impl Alarms {
    /// As many as CodeDeploy takes.
    pub const MOST: usize = 50;
}

/// Hosts get a release one zone after the other: CodeDeploy's `ZonalConfig`.
/// <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_ZonalConfig.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zones {
    /// How many hosts of each zone stay healthy, a percentage or a number. Default 0 %.
    pub minimum_healthy: MinimumHealthy,
    /// How long a finished zone is watched before the next is begun.
    pub monitor: SignedDuration,
    /// The same for the first one.
    pub first_monitor: SignedDuration,
}

/// How traffic moves to new hosts by and by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Canary: the share of the only step before all. Linear: what each step adds. 1 to 99.
    pub percent: u32,
    /// How long a step is watched.
    pub interval: SignedDuration,
    pub analysis: Analysis,
}

impl Steps {
    /// What a strategy does where nothing else is said; none for one that moves all traffic at once.
    pub fn usual(strategy: Strategy) -> Option<Self> {
        let interval = match strategy {
            Strategy::Canary => SignedDuration::from_mins(10),
            Strategy::Linear => SignedDuration::from_mins(1),
            Strategy::BlueGreen | Strategy::InPlace => return None,
        };
        Some(Self {
            percent: 10,
            interval,
            analysis: Analysis::default(),
        })
    }
}

/// How much worse than the old hosts the new ones may be in the same minutes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Percentage points of requests that fail.
    pub errors: f64,
    /// Percent by which the 99th percentile of times may be longer.
    pub slower: u32,
    /// So many requests to the new hosts at least are needed to judge.
    pub sample: u64,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            errors: 1.0,
            slower: 100,
            sample: 100,
        }
    }
}

/// A script of the revision that runs once for each release, on one of its hosts, before any of them gets traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrate {
    /// Path in the revision.
    pub script: Utf8PathBuf,
    /// Its time as a whole. Default 10 minutes.
    pub timeout: SignedDuration,
    /// Who runs it; root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runas: Option<String>,
    /// Releases from before it do not work with the data that it leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub irreversible: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// New hosts, and the traffic at once.
    BlueGreen,
    /// On the hosts that are there, some at a time.
    InPlace,
    /// New hosts; a small share of the traffic first, then all.
    Canary,
    /// New hosts; the same share more with every step.
    Linear,
}

impl Strategy {
    /// As `vend.yaml` writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::BlueGreen => "blue-green",
            Self::InPlace => "in-place",
            Self::Canary => "canary",
            Self::Linear => "linear",
        }
    }
}

/// How many hosts must be healthy for a deployment to go on and to have succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinimumHealthy {
    /// CodeDeploy's OneAtATime: 99 %, rounded up.
    OneAtATime,
    HalfAtATime,
    AllAtOnce,
    Percent(u32),
    Count(u32),
}

impl MinimumHealthy {
    /// How many of `total` hosts must be healthy: a percentage is rounded up.
    /// <https://docs.aws.amazon.com/codedeploy/latest/userguide/instances-health.html>
    pub fn minimum(self, total: u32) -> u32 {
        let percent = |percent: u32| (u64::from(total) * u64::from(percent)).div_ceil(100) as u32;
        match self {
            Self::OneAtATime => percent(99),
            Self::HalfAtATime => percent(50),
            Self::AllAtOnce => 0,
            Self::Percent(share) => percent(share),
            Self::Count(count) => count,
        }
    }

    /// The presets say how many at a time, and are never impossible.
    pub fn is_preset(self) -> bool {
        matches!(self, Self::OneAtATime | Self::HalfAtATime | Self::AllAtOnce)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// A size class of the platform. Default `small`.
    pub size: String,
    /// Default 8080. Given to the app as `PORT`.
    pub port: u16,
    pub health: Health,
    #[serde(default, skip_serializing_if = "Traffic::is_usual")]
    pub traffic: Traffic,
    pub env: BTreeMap<String, Variable>,
}

fn is_http(protocol: &HealthProtocol) -> bool {
    *protocol == HealthProtocol::Http
}

/// A value, or the name of the secret that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variable {
    Plain(String),
    /// `{{secret:NAME}}`
    Secret(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    #[serde(default, skip_serializing_if = "is_http")]
    pub protocol: HealthProtocol,
    pub path: String,
    pub interval: SignedDuration,
    pub timeout: SignedDuration,
    pub healthy: u32,
    pub unhealthy: u32,
    pub codes: Vec<(u16, u16)>,
    /// How long an app may take from its start to being healthy.
    #[serde(default = "Health::usual_within")]
    pub within: SignedDuration,
}

impl Health {
    pub const WITHIN: SignedDuration = SignedDuration::from_secs(90);

    fn usual_within() -> SignedDuration {
        Self::WITHIN
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    pub engine: DatabaseEngine,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who may approve; empty: anybody with the approver's role.
    pub by: Vec<String>,
    pub required: u32,
    pub author_may_approve: bool,
    pub expires: SignedDuration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    pub min: u32,
    pub max: u32,
}
