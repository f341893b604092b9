//! The route table, computed from the catalogue.
//!
//! Pure: what is served where follows from rows alone, so that the same table comes out after every restart, and a
//! change of route is nothing but a change of rows.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use jiff::SignedDuration;
use model::{
    HostId, Place,
    route::{Action, HealthCheck, Rule, Table, Target, TargetGroup, Weighted},
    spec,
};

/// What the table must know of one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    pub place: Place,
    /// The environment's number on the platform: its rule's priority, kept as long as it lives.
    pub number: u32,
    pub hostname: String,
    pub host: spec::Host,
    /// The release that gets the traffic.
    pub live: Option<u64>,
    /// Hosts that take, or may soon take, or lately took traffic, by release.
    pub fleets: BTreeMap<u64, Vec<(HostId, Ipv4Addr)>>,
}

/// How long requests under way may go on after their host has left the table.
const DEREGISTRATION_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// The name of the target group of one release.
pub fn group(place: &Place, release: u64) -> String {
    format!("{place}/v{release}")
}

/// The whole table. A fleet that is not live is in it with weight 0, so that the edge probes it before it gets traffic
/// and a switch back is a change of weights.
pub fn table(version: u64, environments: &[Served]) -> Table {
    let mut table = Table { version, ..Table::default() };
    for served in environments {
        for (release, hosts) in &served.fleets {
            table.target_groups.insert(group(&served.place, *release), target_group(served, hosts));
        }
        table.rules.push(rule(served));
    }
    table.rules.sort_by_key(|rule| rule.priority);
    table
}

fn rule(served: &Served) -> Rule {
    let live = served.live.filter(|release| served.fleets.contains_key(release));
    let weighted = |release: &u64| Weighted {
        group: group(&served.place, *release),
        weight: if Some(*release) == live { 100 } else { 0 },
    };
    let action = match live {
        Some(_) => Action::Forward { groups: served.fleets.keys().map(weighted).collect() },
        None => Action::FixedResponse {
            status: 503,
            content_type: "text/plain; charset=utf-8".into(),
            body: format!("{} has no release yet\n", served.place),
        },
    };
    Rule {
        priority: served.number + 1,
        place: served.place.clone(),
        hosts: vec![served.hostname.clone()],
        paths: Vec::new(),
        action,
    }
}

fn target_group(served: &Served, hosts: &[(HostId, Ipv4Addr)]) -> TargetGroup {
    let health = &served.host.health;
    TargetGroup {
        targets: hosts
            .iter()
            .map(|(host, address)| Target {
                id: host.to_string(),
                address: SocketAddr::from((*address, served.host.port)),
            })
            .collect(),
        health: HealthCheck {
            path: health.path.clone(),
            interval: health.interval,
            timeout: health.timeout,
            healthy: health.healthy,
            unhealthy: health.unhealthy,
            codes: health.codes.clone(),
        },
        deregistration_delay: DEREGISTRATION_DELAY,
    }
}
