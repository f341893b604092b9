//! Target groups: who gets requests, how they are shared out, and how it is known who is well.

use std::{collections::BTreeMap, net::SocketAddr};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TargetGroup {
    pub targets: Vec<Target>,
    pub health: HealthCheck,
    /// How long requests under way may go on after a target has left.
    pub deregistration_delay: SignedDuration,
    #[serde(default, skip_serializing_if = "is_default")]
    pub algorithm: Algorithm,
    /// What targets speak. `http1` when nothing is said; `http2` without TLS, by prior knowledge; `grpc`: the same, with gRPC's own
    /// failures.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// How long the share of a target grows after it became healthy; zero is not at all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub slow_start: SignedDuration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stickiness: Option<Stickiness>,
    /// A target that fails requests is left out for a while, before its health check finds out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// Connections that pass through as bytes begin with who they are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyWord>,
    /// The zones of targets by their ids. An edge that knows its own zone prefers targets of it, as long as one of them is
    /// healthy; without any, all are alike.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<String, String>,
    /// Its hosts sleep or are starting: requests wait for the first healthy one, for a bounded time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub waking: bool,
    /// Its names are answered with the addresses of its healthy targets, to be kept for so long, and not with the load
    /// balancer's: what Route 53's weighted records are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<SignedDuration>,
    /// It is elsewhere: a load balancer that is reached by this name, over TLS, at the port of its target, whose address
    /// means nothing. Requests have the name as their host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Which healthy target of a group gets the next request. `round-robin` when nothing is said; `least-outstanding`: the one
/// with the fewest requests under way; `weighted-random`: by chance; `anomaly-mitigation`: by chance, and less to a target that
/// fails much more often than the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastOutstanding,
    /// By chance.
    WeightedRandom,
    /// By chance, and less to a target that fails much more often than the others (ALB's anomaly mitigation).
    AnomalyMitigation,
}

/// What targets speak. `http1` when nothing is said; `http2` without TLS, by prior knowledge, for clients that speak HTTP/2; `grpc`:
/// the same, for calls of gRPC alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge. Clients that do not speak HTTP/2 get 464.
    Http2,
    /// The same; what is not gRPC gets 464, too.
    Grpc,
}

/// How a client stays with the target that it first got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stickiness {
    /// By a cookie of the balancer's own, for 1 s to 7 days after the last request.
    #[schema(value_type = String)]
    Duration(SignedDuration),
    /// For as long as the application's own cookie of this name lasts, and so long at most.
    Application {
        /// Its name.
        cookie: String,
        /// 1 s to 7 days.
        #[schema(value_type = String)]
        duration: SignedDuration,
    },
}

/// The version of the PROXY protocol in which targets are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyWord {
    V1,
    V2,
}

/// When a target is left out because of what requests met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ejection {
    /// Failures in a row: connections refused or lost, answers that did not come or were 5xx.
    pub failures: u32,
    /// How long it is left out.
    #[schema(value_type = String)]
    pub time: SignedDuration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The host's id.
    pub id: String,
    pub address: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(default)]
pub struct HealthCheck {
    /// How it is asked.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: HealthProtocol,
    /// Where it is asked; else where it gets traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// For gRPC the method: `/grpc.health.v1.Health/Check`.
    pub path: String,
    /// From one time it is asked to the next.
    #[schema(value_type = String)]
    pub interval: SignedDuration,
    /// For its answer.
    #[schema(value_type = String)]
    pub timeout: SignedDuration,
    /// Successes in a row that make an unhealthy target healthy, 2 to 10.
    pub healthy: u32,
    /// Failures in a row that make a healthy target unhealthy, 2 to 10.
    pub unhealthy: u32,
    /// Status codes that count as success, both ends included: HTTP's, or gRPC's 0 to 99.
    pub codes: Vec<(u16, u16)>,
}

impl Default for HealthCheck {
    /// ALB's.
    fn default() -> Self {
        Self {
            protocol: HealthProtocol::Http,
            port: None,
            path: "/".into(),
            interval: SignedDuration::from_secs(30),
            timeout: SignedDuration::from_secs(5),
            healthy: 5,
            unhealthy: 2,
            codes: vec![(200, 200)],
        }
    }
}

/// How a target is asked whether it is well. `http`: one GET in the version of HTTP that targets speak, as the group's `protocol`
/// says, whose status decides. `tcp`: it accepts a connection. `grpc`: one unary call with an empty message over HTTP/2, whatever
/// targets speak, whose gRPC status decides. `http` when nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthProtocol {
    /// One GET in HTTP/1.1, or in HTTP/2 where the group's `Protocol` is that or gRPC; the status decides.
    #[default]
    Http,
    /// It accepts a connection.
    Tcp,
    /// One unary gRPC call with an empty message, over HTTP/2 whatever the group's `Protocol` is; the gRPC status decides.
    Grpc,
}

/// What the edge sees of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetHealth {
    pub group: String,
    pub target: Target,
    pub state: TargetState,
    /// Why, when it is not healthy: `connection refused`, `status 500`.
    pub reason: Option<String>,
    pub requests: u64,
    pub errors: u64,
    pub active: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// Not probed often enough yet. Gets traffic only when nothing is healthy.
    Initial,
    Healthy,
    Unhealthy,
    /// Left the table; finishes its requests.
    Draining,
}
