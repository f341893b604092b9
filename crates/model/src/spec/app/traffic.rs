//! The section `host.traffic`, how the load balancer speaks to hosts, and the section `access`, who may ask.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::environment::{Fields, section, value};
use crate::{
    route::{
        Access, Algorithm, Ejection, HealthProtocol, NETWORKS, Network, Protocol, Stickiness, is_cookie,
    },
    spec::{
        read::{Reader, quoted},
        yaml::{Node, Value},
    },
};

/// How requests are given to hosts. As in [`crate::route::TargetGroup`], where what is not said here is said too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    pub protocol: Protocol,
    pub algorithm: Algorithm,
    pub slow_start: SignedDuration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stickiness: Option<Stickiness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
}

impl Traffic {
    /// What is said where nothing is.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Words of `vend.yaml`, in the order of the values that they stand for.
pub(super) const PROTOCOLS: &[&str] = &["http1", "http2", "grpc"];
pub(super) const ALGORITHMS: &[&str] = &[
    "round-robin",
    "least-outstanding",
    "weighted-random",
    "anomaly-mitigation",
];
pub(super) const HEALTH_PROTOCOLS: &[&str] = &["http", "tcp", "grpc"];

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) fn traffic(reader: &mut Reader<'_>, fields: Fields<'_>) -> Traffic {
    let protocol = match value(fields, "protocol").and_then(Node::text) {
        Some("http2") => Protocol::Http2,
        Some("grpc") => Protocol::Grpc,
        _ => Protocol::Http1,
    };
    let algorithm = match value(fields, "algorithm").and_then(Node::text) {
        Some("least-outstanding") => Algorithm::LeastOutstanding,
        Some("weighted-random") => Algorithm::WeightedRandom,
        Some("anomaly-mitigation") => Algorithm::AnomalyMitigation,
        _ => Algorithm::RoundRobin,
    };
    // ALB's range.
    let slow_start = value(fields, "slow_start").and_then(|node| {
        let range = SECOND * 30..=SECOND * 900;
        reader.duration(node, "host.traffic.slow_start", range)
    });
    Traffic {
        protocol,
        algorithm,
        slow_start: slow_start.unwrap_or_default(),
        stickiness: value(fields, "stickiness")
            .and_then(|node| stickiness(reader, node, section(fields, "stickiness"))),
        ejection: value(fields, "ejection").map(|_| ejection(reader, section(fields, "ejection"))),
    }
}

fn stickiness(reader: &mut Reader<'_>, node: &Node, fields: Fields<'_>) -> Option<Stickiness> {
    let Some(at) = value(fields, "duration") else {
        if matches!(node.value, Value::Mapping(_)) {
            reader
                .error(node, "`host.traffic.stickiness` needs a `duration`")
                .help = Some("write `stickiness: { duration: 1d }`".to_owned());
        }
        return None;
    };
    let duration = reader.duration(at, "host.traffic.stickiness.duration", SECOND..=WEEK)?;
    let Some(at) = value(fields, "cookie") else {
        return Some(Stickiness::Duration(duration));
    };
    let cookie = reader.text(at, "host.traffic.stickiness.cookie")?;
    if !is_cookie(&cookie) {
        let message = format!(
            "{} is not the name of a cookie, or one of the load balancer's own",
            quoted(&cookie)
        );
        reader.error(at, message);
        return None;
    }
    Some(Stickiness::Application { cookie, duration })
}

fn ejection(reader: &mut Reader<'_>, fields: Fields<'_>) -> Ejection {
    let failures = value(fields, "failures")
        .and_then(|node| reader.number(node, "host.traffic.ejection.failures", 1..=1_000));
    let time = value(fields, "time")
        .and_then(|node| reader.duration(node, "host.traffic.ejection.time", SECOND..=SECOND * 3600));
    Ejection {
        failures: failures.and_then(|count| u32::try_from(count).ok()).unwrap_or(5),
        time: time.unwrap_or(SECOND * 30),
    }
}

/// How hosts are asked whether they are well: as they are spoken to, where nothing is said.
pub(super) fn health_protocol(fields: Fields<'_>, traffic: &Traffic) -> HealthProtocol {
    match value(fields, "protocol").and_then(Node::text) {
        Some("tcp") => HealthProtocol::Tcp,
        Some("grpc") => HealthProtocol::Grpc,
        None if traffic.protocol == Protocol::Grpc => HealthProtocol::Grpc,
        _ => HealthProtocol::Http,
    }
}

pub(super) fn access(reader: &mut Reader<'_>, fields: Fields<'_>) -> Access {
    let fields = section(fields, "access");
    let mut networks = |name: &str| {
        let what = format!("access.{name}");
        let Some(node) = value(fields, name) else {
            return Vec::new();
        };
        let items = reader.list(node, &what, true);
        if items.len() > NETWORKS {
            reader.error(node, format!("`{what}` may have {NETWORKS} networks"));
            return Vec::new();
        }
        let read = |item: &Node| {
            let text = reader.text(item, &what)?;
            let network = Network::exact(&text);
            if network.is_none() {
                reader
                    .error(item, format!("{} is not an address or a network", quoted(&text)))
                    .help = Some("write `192.0.2.7` or `192.0.2.0/24`".to_owned());
            }
            network
        };
        items.iter().filter_map(read).collect()
    };
    Access {
        allow: networks("allow"),
        deny: networks("deny"),
    }
}
