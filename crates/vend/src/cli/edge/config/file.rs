//! What may stand in `edge.yaml`. What is said of a key here is said of it in the reference.

use std::{collections::BTreeMap, net::SocketAddr};

use camino::Utf8PathBuf;
use jiff::SignedDuration;
use model::route::{
    Algorithm, Authenticate, Conditions, Ejection, HealthCheck, Protocol, ProxyWord, Redirect, Stickiness,
    Transforms,
};
use serde::Deserialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::config::{Cipher, Dns, Limited, Minimum, Rotate, Shape, Trusted, Workers};

/// The file as a whole.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens, one at least.
    pub listeners: Vec<Listens>,
    /// Asked in the order of the file: the first whose conditions all hold decides. None: 503 for everybody.
    #[serde(default)]
    pub rules: Vec<Written>,
    /// By name.
    #[serde(default)]
    pub target_groups: BTreeMap<String, Group>,
    /// The authority from which certificates come; it needs an `https` listener, whose folder they go to.
    #[serde(default)]
    pub acme: Option<Authority>,
    /// Where it runs, for groups whose targets have zones.
    pub zone: Option<String>,
    /// The folder of the secrets that rules name. When nothing is said, `edge/secrets` of the data.
    #[schema(value_type = Option<String>)]
    pub secrets: Option<Utf8PathBuf>,
    /// PEM: who may have signed the certificates of providers of identities. When nothing is said, the machine's authorities.
    #[schema(value_type = Option<String>)]
    pub roots: Option<Utf8PathBuf>,
    /// The built-in name server.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// None is written when nothing is said.
    #[serde(default)]
    pub access_log: Option<Logged>,
    /// IP and port where Prometheus asks, over HTTP. Nowhere when nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub metrics: Option<SocketAddr>,
    /// Hold at once when the file changes, as rules and target groups do.
    #[serde(default)]
    pub limits: Limited,
    /// Threads that serve, 1 to 1024. One per core when nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub workers: Option<Workers>,
}

/// A listener. Where somebody else has the address the others serve, and it is tried again; where no listener can be had,
/// it does not start.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Listens {
    /// IP and port.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// What is spoken there.
    pub speaks: Spoken,
    /// Of `https`, which must have it: the folder of certificates.
    #[schema(value_type = Option<String>)]
    pub certificates: Option<Utf8PathBuf>,
    /// Of `https`: the oldest TLS that is spoken, `1.2` or `1.3`. When nothing is said, `1.2`.
    #[schema(value_type = Option<String>)]
    pub minimum: Option<Minimum>,
    /// Of `https`: cipher suites, named as in RFC 8446 and 5246. When nothing is said, all that are safe.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub ciphers: Vec<Cipher>,
    /// Of `https`: only clients with a certificate are let in.
    pub clients: Option<Trusted>,
    /// Of `tcp` and `udp`, which must have it: the host whose rule says where connections go.
    pub host: Option<String>,
    /// Connections begin with the PROXY protocol, and whoever connects is believed. Not of `udp`.
    #[serde(default)]
    pub proxied: bool,
}

/// `http`: HTTP/1.1, and HTTP/2 by prior knowledge. `https`: the same in TLS, HTTP/2 by ALPN. `tcp`: bytes. `udp`:
/// datagrams. `sni`: TLS that targets end, by the host that the client names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spoken {
    Http,
    Https,
    Tcp,
    Udp,
    Sni,
}

/// An authority of certificates (ACME, RFC 8555).
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The URL of its directory.
    pub directory: String,
    /// Whom it may write to: `mailto:ops@example.com`.
    #[serde(default)]
    pub contact: Vec<String>,
    /// PEM: who may have signed the authority's own certificate. When nothing is said, the machine's authorities.
    #[schema(value_type = Option<String>)]
    pub roots: Option<Utf8PathBuf>,
    /// How it is shown that a host is ours.
    #[serde(default)]
    pub challenge: Way,
    /// By name, the hosts of each certificate. A wildcard needs `challenge: dns`.
    pub certificates: BTreeMap<String, Vec<String>>,
}

/// `http` is answered by every `http` listener, `tls` by the `https` listener, `dns` by the built-in name server. `http` when
/// nothing is said.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    #[default]
    Http,
    Tls,
    Dns,
}

/// The access log.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// Its file, whose folder is made.
    #[schema(value_type = String)]
    pub path: Utf8PathBuf,
    /// What its lines look like.
    #[serde(default)]
    pub format: Shape,
    /// One request in so many is written. Every one when nothing is said.
    #[serde(default)]
    pub one_in: u32,
    /// When a file gives way to a new one.
    #[serde(default)]
    pub rotate: Rotate,
}

/// A rule, with exactly one of `forward`, `redirect` and `answer`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Case aside, without port; `*` stands for any characters and `?` for one. Any host when there are none.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// With case, without the query; `*` and `?` as in hosts. Any path when there are none.
    #[serde(default)]
    pub paths: Vec<String>,
    /// All other conditions.
    #[serde(default)]
    pub conditions: Conditions,
    /// What is changed in a request before it is forwarded.
    #[serde(default)]
    pub transforms: Transforms,
    /// Who must have signed in before the action.
    pub authenticate: Option<Authenticate>,
    /// Target groups by name, with weights, 0 to 999. A group of weight 0 gets nothing.
    pub forward: Option<BTreeMap<String, u32>>,
    /// Of `forward`: how long a client stays with the group that it first got, as `1h`. Not at all when nothing is said.
    #[schema(value_type = Option<String>)]
    pub stickiness: Option<SignedDuration>,
    /// Where clients are sent instead.
    pub redirect: Option<Redirect>,
    /// What clients are answered instead.
    pub answer: Option<Fixed>,
}

/// An answer of the load balancer's own.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// 200 to 599.
    pub status: u16,
    /// What the body is.
    #[serde(default = "plain_text")]
    #[schema(default = plain_text)]
    pub content_type: String,
    /// Nothing when nothing is said.
    #[serde(default)]
    pub body: String,
}

fn plain_text() -> String {
    "text/plain; charset=utf-8".into()
}

/// A target group.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// IP and port of each.
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<SocketAddr>,
    /// How targets are asked whether they are well.
    #[serde(default)]
    pub health: HealthCheck,
    /// How long a target that has left may finish what it has.
    #[serde(default = "five_minutes")]
    #[schema(value_type = String, default = "5m")]
    pub deregistration_delay: SignedDuration,
    /// Which target gets the next request.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// What targets speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// How long the share of a new target grows; with `round-robin`. Not at all when nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub slow_start: SignedDuration,
    /// How a client stays with a target.
    pub stickiness: Option<Stickiness>,
    /// When a target is left out because of what requests met.
    pub ejection: Option<Ejection>,
    /// The version of the PROXY protocol in which targets are told where a connection came from.
    pub proxy: Option<ProxyWord>,
    /// Names lead to the targets themselves, for so long.
    #[schema(value_type = Option<String>)]
    pub direct: Option<SignedDuration>,
    /// By address, the zone in which each target is.
    #[serde(default)]
    pub zones: BTreeMap<String, String>,
}

/// ALB's.
fn five_minutes() -> SignedDuration {
    SignedDuration::from_mins(5)
}

/// All types of the file by name, the file itself first.
pub fn keys() -> Vec<(String, RefOr<Schema>)> {
    let mut all = vec![(Config::name().into_owned(), Config::schema())];
    Config::schemas(&mut all);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(name, _)| seen.insert(name.clone()));
    all
}
