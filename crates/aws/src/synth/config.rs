//! What an operator decides about AWS: the foundations, and what `vend.yaml` cannot say about an app there.

use std::collections::BTreeMap;

use model::{AppName, EnvironmentName, spec};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    cidr::Cidr,
    place::{self, Outpost, Placement},
    size::Size,
    value,
    word::{Account, Arn, ChatId, Domain, Label, Mail, NotA, Prefix, Region, Url, Zone},
};

/// All of it: a platform's `aws.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first part of all names. Default `vend`.
    #[serde(default = "platform")]
    pub platform: Prefix,
    pub foundations: BTreeMap<Label, Foundation>,
    /// Size classes beside the built-in ones, or instead of them: `host.size` of any app's vend.yaml may name them.
    #[serde(default)]
    pub sizes: BTreeMap<String, Size>,
    #[serde(default)]
    pub apps: BTreeMap<AppName, App>,
}

fn platform() -> Prefix {
    "vend".parse().expect("`vend` is a prefix")
}

/// What all environments of one kind share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foundation {
    pub region: Region,
    /// The account; needed only where another foundation deploys into it.
    #[serde(default)]
    pub account: Option<Account>,
    /// How this foundation's account is reached. Default: the credentials of who calls.
    #[serde(default)]
    pub access: Access,
    /// Hosts are named below this domain.
    pub domain: Domain,
    /// The domain's zone, if it is there; else one is made.
    #[serde(default)]
    pub zone: Option<Zone>,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub mail: Mails,
    #[serde(default)]
    pub slack: Option<Slack>,
    #[serde(default)]
    pub retention: Retention,
    /// US dollars a month; 80 % spent and 100 % expected raise an alarm. 0 for none. Default 500.
    #[serde(default = "budget")]
    pub budget: u32,
    /// An audit trail of the whole account. Switch it off where one is there already: the second costs money.
    #[serde(default = "yes")]
    pub trail: bool,
    /// A web application firewall in front of the load balancer, with AWS's own rules. It costs money.
    #[serde(default)]
    pub firewall: bool,
    /// The load balancer cannot be deleted by mistake.
    #[serde(default = "yes")]
    pub protected: bool,
    /// The foundation whose pipelines deploy into this one. Default: itself.
    #[serde(default)]
    pub deploys_from: Option<Label>,
}

/// Whose credentials reach an account. Templates do not depend on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// A profile of `~/.aws`.
    pub profile: Option<String>,
    /// A role to take there.
    pub role: Option<Arn>,
    /// What the role's owner wants to hear.
    pub external_id: Option<String>,
}

fn budget() -> u32 {
    500
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// /16 to /20. Default: 10.1, 10.2 or 10.3.0.0/16 for `integration`, `staging` and `production`.
    pub cidr: Option<Cidr>,
    pub zones: Zones,
    pub nat: Nat,
    /// Local Zones in which environments may stand, such as `us-west-2-lax-1a`. A new one goes to the end: the place in this list
    /// is the place in the network.
    pub local_zones: Vec<String>,
    /// Wavelength Zones in which environments may stand, such as `eu-central-1-wl1-ber-wlz-1`. A new one goes to the end.
    pub wavelength_zones: Vec<String>,
    /// Outposts on which environments may stand. A new one goes to the end.
    pub outposts: Vec<Outpost>,
    /// Services that are reached without leaving the network, such as `ssm`; S3 and DynamoDB always are, for nothing.
    pub endpoints: Vec<Endpoint>,
    /// Ports beside 80 and 443 that hosts may call on the internet.
    pub egress: Vec<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Count")]
pub enum Zones {
    #[default]
    #[serde(rename = "2")]
    Two,
    #[serde(rename = "3")]
    Three,
}

/// A number, with quotes or without.
#[derive(Deserialize)]
#[serde(untagged, expecting = "2 or 3 is wanted")]
enum Count {
    Number(i64),
    Word(String),
}

impl TryFrom<Count> for Zones {
    type Error = NotA;

    fn try_from(count: Count) -> Result<Self, NotA> {
        let text = match count {
            Count::Number(number) => number.to_string(),
            Count::Word(text) => text,
        };
        match text.as_str() {
            "2" => Ok(Self::Two),
            "3" => Ok(Self::Three),
            _ => Err(NotA {
                text,
                wanted: "2 or 3",
            }),
        }
    }
}

/// How hosts reach the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nat {
    /// A gateway in each zone: a zone's failure is its own.
    PerZone,
    /// One gateway: half the price, and all zones hang on one.
    #[default]
    One,
    /// A small instance: a tenth of the price, for what may stand still for minutes.
    Instance,
    /// Not at all: everything that hosts call needs an endpoint.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    Codedeploy,
    CodedeployCommandsSecure,
    EcrApi,
    EcrDkr,
    Ec2messages,
    Kms,
    Logs,
    Monitoring,
    Secretsmanager,
    Ssm,
    Ssmmessages,
    Sts,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mails {
    pub operations: Vec<Mail>,
    pub builds: Vec<Mail>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    pub workspace: ChatId,
    pub channel: ChatId,
}

/// Days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Logs of hosts, builds and the network. Default 90.
    pub logs: u32,
    /// Sources, and earlier versions of what was made again. What releases go by stays: a host that starts next year fetches
    /// its revision then. Default 90.
    pub artifacts: u32,
    /// The audit trail and access logs. Default 400.
    pub trail: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            logs: 90,
            artifacts: 90,
            trail: 400,
        }
    }
}

/// What `vend.yaml` cannot say about an app on AWS.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Whose the app is, for who divides the bill: a tag of its stacks.
    #[serde(default)]
    pub tenant: Option<Label>,
    /// The foundation where its pipeline lives. Default: that of the only environment, or the only foundation.
    #[serde(default)]
    pub pipeline: Option<Label>,
    /// Where the source is. Default: `source/APP/COMMIT.zip` in the bucket of artifacts, put there by whoever pushes.
    #[serde(default)]
    pub repository: Option<Repository>,
    /// Run against an environment when its traffic has moved; a failure moves it back.
    #[serde(default)]
    pub tests: Vec<Test>,
    #[serde(default)]
    pub environments: BTreeMap<EnvironmentName, Environment>,
}

/// A buildspec that tests an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    pub name: Label,
    /// Path in the source tree.
    pub buildspec: String,
}

/// A repository that CodeBuild fetches itself, by a connection that was made once in AWS's console.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    pub kind: Forge,
    /// `https://…/OWNER/NAME.git`
    pub url: Url,
    pub connection: Arn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forge {
    Github,
    Gitlab,
    Bitbucket,
}

/// One environment. Everything has a default but the foundation, where there are several.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Environment {
    /// Default: the foundation of the environment's own name, or the only one.
    pub foundation: Option<Label>,
    /// More foundations into which the same release goes, in this order.
    pub also: Vec<Label>,
    /// Do the foundations get the release at the same time?
    pub parallel: bool,
    pub placement: Placement,
    pub runtime: Runtime,
    /// Default: as `vend.yaml` says, with the steps that it says.
    pub strategy: Option<spec::Strategy>,
    pub scaling: Scaling,
    pub database: Option<Database>,
    pub domains: Vec<Custom>,
    /// Is it also `APP.DOMAIN`, without the environment's name? Default: when it is named as its foundation is.
    pub bare: Option<bool>,
    /// Answer on port 80 too, instead of redirecting.
    pub plain_http: bool,
    /// A load balancer of its own.
    pub dedicated_balancer: bool,
    pub alarms: Alarms,
    /// GiB of a host's disk. Default 20; 30 below containers (`ec2`).
    pub disk: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    #[default]
    Host,
    /// Containers without hosts.
    Fargate,
    /// Containers on hosts of their own.
    Ec2,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scaling {
    /// Percent of the processor that hosts are kept at.
    pub cpu: Option<u32>,
    /// Requests a minute for each host.
    pub requests: Option<u32>,
    /// Percent of the processor from which hosts are added in steps: one, and two from 15 % more.
    pub step: Option<u32>,
    pub schedule: Vec<Schedule>,
    /// Hosts are bought on the spot market, but for this many.
    pub spot: Option<u32>,
    /// Stopped hosts that are ready to go.
    pub warm: Option<u32>,
    /// Seconds for a host to finish what it does before it goes. Default: `deploy.drain` of `vend.yaml`.
    pub drain: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Five fields of cron, UTC.
    pub cron: String,
    pub min: u32,
    #[serde(default)]
    pub max: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// Default: what `vend.yaml` names.
    pub engine: Option<Engine>,
    /// Default: the newest that was tried.
    pub version: Option<String>,
    /// An instance class without `db.`. Default `t4g.small`, `t4g.medium` for Aurora.
    pub size: Option<String>,
    /// GiB to begin with; it grows up to four times as much by itself. Default 20.
    pub storage: Option<u32>,
    /// Default: where the foundation or the environment is called `production`.
    pub multi_az: Option<bool>,
    /// Days. Default 14, in production 35.
    pub backup: Option<u32>,
    /// Default: in production.
    pub protected: Option<bool>,
    /// Days after which the password changes. Default 30.
    pub rotate: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    Mariadb,
    Mysql,
    Postgres,
    AuroraMysql,
    AuroraPostgres,
}

/// A host name that a customer brings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    pub host: Domain,
    /// Its zone, if the account holds it: then record and certificate are made. Without, `certificate` must be there.
    #[serde(default)]
    pub zone: Option<Zone>,
    #[serde(default)]
    pub certificate: Option<Arn>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alarms {
    /// Answers of 5xx in five minutes. Default 10.
    pub errors: u32,
    /// Milliseconds that 95 of 100 requests may take. Default 2,000.
    pub latency: u32,
    /// Lines with ERROR in five minutes. Default 10.
    pub log_errors: u32,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            errors: 10,
            latency: 2_000,
            log_errors: 10,
        }
    }
}

/// Do names that begin with `own` and a dash begin as those of `other` do?
fn is_below(own: &str, other: &str) -> bool {
    let rest = own.strip_prefix(other);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

impl Config {
    /// Refuses what contradicts itself: ranges that overlap, and names that are not there.
    pub fn check(&self) -> Result<(), Error> {
        let mut ranges: Vec<(&Label, Cidr)> = Vec::new();
        for (label, foundation) in &self.foundations {
            let range = foundation.network.range(label)?;
            if let Some((other, _)) = ranges.iter().find(|(_, other)| other.overlaps(range)) {
                let why = format!("its range {range} overlaps that of `{other}`");
                return Err(Error::config(format!("foundations.{label}.network.cidr"), why));
            }
            ranges.push((label, range));
            let zones = &foundation.network.local_zones;
            place::zones(
                &format!("foundations.{label}.network.local_zones"),
                &foundation.region,
                zones,
            )?;
            place::waves(
                &format!("foundations.{label}.network.wavelength_zones"),
                &foundation.region,
                &foundation.network.wavelength_zones,
            )?;
            place::outposts(
                &format!("foundations.{label}.network.outposts"),
                &foundation.region,
                range,
                &foundation.network.outposts,
            )?;
            value::retention(&format!("foundations.{label}"), &foundation.retention)?;
            self.check_source(label, foundation)?;
        }
        Ok(())
    }

    /// Why there shall be no foundation of this name: stacks are told apart by how their names begin, and so do policies. One
    /// that stands already goes on, so of two that do not go together the one that is new is refused.
    pub(super) fn refusal(&self, label: &Label) -> Option<String> {
        let foundation = self.foundations.get(label)?;
        if ["pipeline", "flow"]
            .into_iter()
            .any(|own| is_below(label.as_str(), own))
        {
            return Some("stacks of pipelines are called so: call the foundation otherwise".to_owned());
        }
        let apart = |other: &Foundation| {
            other.account.is_some() && foundation.account.is_some() && other.account != foundation.account
        };
        let others = self.foundations.iter().filter(|(_, other)| !apart(other));
        let mut others = others.map(|(other, _)| other).filter(|other| *other != label);
        others.find_map(|other| {
            // Roles are the account's, whatever the region.
            let (longer, shorter) = match (label.as_str(), other.as_str()) {
                (own, other) if is_below(own, other) => (own, other),
                (own, other) if is_below(other, own) => (other, own),
                _ => return None,
            };
            Some(format!(
                "stacks of `{longer}` begin as those of `{shorter}` do, and the roles of `{shorter}` would reach them: call the foundation \
                 otherwise, or name another `account` for it"
            ))
        })
    }

    fn check_source(&self, label: &Label, foundation: &Foundation) -> Result<(), Error> {
        let Some(from) = &foundation.deploys_from else {
            return Ok(());
        };
        let at = format!("foundations.{label}.deploys_from");
        let Some(source) = self.foundations.get(from) else {
            return Err(Error::config(at, format!("there is no foundation `{from}`")));
        };
        if from != label && (source.account.is_none() || foundation.account.is_none()) {
            let why = format!(
                "both `{label}` and `{from}` must name their `account`: each trusts the other by number"
            );
            return Err(Error::config(at, why));
        }
        Ok(())
    }

    pub(super) fn foundation(&self, label: &Label) -> Result<&Foundation, Error> {
        let none = || {
            Error::config(
                "foundations".to_owned(),
                format!("there is no foundation `{label}`"),
            )
        };
        self.foundations.get(label).ok_or_else(none)
    }
}

impl Environment {
    /// How releases are deployed: as `vend.yaml` says, unless it is said here. A strategy of one's own has its usual steps.
    pub(super) fn deploy(&self, own: &spec::Environment) -> spec::Deploy {
        let mut deploy = own.deploy.clone();
        if let Some(strategy) = self.strategy.filter(|strategy| *strategy != deploy.strategy) {
            deploy.strategy = strategy;
            deploy.steps = spec::Steps::usual(strategy);
        }
        deploy
    }
}

impl Network {
    /// The network's range.
    pub(super) fn range(&self, label: &Label) -> Result<Cidr, Error> {
        let default = match label.as_str() {
            "integration" => "10.1.0.0/16",
            "staging" => "10.2.0.0/16",
            "production" => "10.3.0.0/16",
            _ => "",
        };
        match (self.cidr, default) {
            (Some(range), _) => Ok(range),
            (None, "") => {
                let why = "only `integration`, `staging` and `production` have a default".to_owned();
                Err(Error::config(format!("foundations.{label}.network.cidr"), why))
            }
            (None, text) => Ok(text.parse().expect("the defaults are ranges")),
        }
    }
}

impl Zones {
    /// The letters by which the zones' resources are told apart.
    pub(super) fn letters(self) -> &'static [&'static str] {
        match self {
            Self::Two => &["A", "B"],
            Self::Three => &["A", "B", "C"],
        }
    }
}

impl Endpoint {
    /// The service's name after `com.amazonaws.REGION.`.
    pub(super) fn service(self) -> &'static str {
        match self {
            Self::Codedeploy => "codedeploy",
            Self::CodedeployCommandsSecure => "codedeploy-commands-secure",
            Self::EcrApi => "ecr.api",
            Self::EcrDkr => "ecr.dkr",
            Self::Ec2messages => "ec2messages",
            Self::Kms => "kms",
            Self::Logs => "logs",
            Self::Monitoring => "monitoring",
            Self::Secretsmanager => "secretsmanager",
            Self::Ssm => "ssm",
            Self::Ssmmessages => "ssmmessages",
            Self::Sts => "sts",
        }
    }
}
