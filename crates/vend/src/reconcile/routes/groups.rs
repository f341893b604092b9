//! Target groups of fleets: who is in them, how they are asked, and how requests are shared out.

use std::net::SocketAddr;

use model::{
    route::{HealthCheck, Target, TargetGroup},
    spec::{self, Leads},
};

use super::Fleet;

/// The hosts at one of their ports. They are asked how they are where their HTTP is.
pub fn port_group(fleet: &Fleet, port: &spec::Port) -> TargetGroup {
    let mut group = target_group(fleet);
    group.health.port = Some(fleet.spec.port);
    for target in &mut group.targets {
        target.address.set_port(port.host_port);
    }
    group.direct = match port.leads {
        Leads::Balancer => None,
        Leads::Hosts { ttl } => Some(ttl),
    };
    group
}

pub fn target_group(fleet: &Fleet) -> TargetGroup {
    let health = &fleet.spec.health;
    let traffic = &fleet.spec.traffic;
    TargetGroup {
        targets: fleet
            .hosts
            .iter()
            .map(|(host, address)| Target {
                id: host.to_string(),
                address: SocketAddr::from((*address, fleet.spec.port)),
            })
            .collect(),
        health: HealthCheck {
            protocol: health.protocol,
            path: health.path.clone(),
            interval: health.interval,
            timeout: health.timeout,
            healthy: health.healthy,
            unhealthy: health.unhealthy,
            codes: health.codes.clone(),
            ..HealthCheck::default()
        },
        deregistration_delay: fleet.drain,
        algorithm: traffic.algorithm,
        protocol: traffic.protocol,
        slow_start: traffic.slow_start,
        stickiness: traffic.stickiness.clone(),
        ejection: traffic.ejection,
        ..TargetGroup::default()
    }
}
