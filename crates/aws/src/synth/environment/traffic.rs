//! Target groups, and the load balancer of one environment alone.

use model::{
    route::{Algorithm, HealthProtocol, Protocol, Stickiness},
    spec::{self, Health, Traffic},
};
use serde_json::{Value, json};

use super::{Half, Scope};
use crate::synth::{
    config::Runtime,
    foundation::{attributes, protection, redirect, to_providers, unknown, unprotected},
    template::{Resource, Template, att, re, sub},
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>, notes: &mut Vec<String>) {
    for half in scope.halves() {
        template.add(targets(scope, *half));
        template.output(
            &half.id("TargetsArn"),
            "The target group, for flows",
            re(half.id(scope.targets())),
        );
    }
    health_notes(scope, notes);
    if let Some(own) = scope.outpost() {
        notes.push(format!(
            "`placement.outpost`: the load balancer takes two machines of the rack and has addresses of the network only, which {} reaches by \
             the local gateway; a release needs slots for both halves' hosts at once; what stands there is paid with the rack, whatever price is \
             said here",
            own.local.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
        ));
    }
    if scope.options.dedicated_balancer {
        balancer(template, scope);
    }
}

/// Seconds between checks: a load balancer takes 5 to 300, and needs the time-out to be shorter.
pub(super) fn interval(scope: &Scope<'_>) -> i64 {
    scope.spec.host.health.interval.as_secs().clamp(5, 300)
}

pub(super) fn timeout(scope: &Scope<'_>) -> i64 {
    scope
        .spec
        .host
        .health
        .timeout
        .as_secs()
        .clamp(2, 120)
        .min(interval(scope) - 1)
}

fn health_notes(scope: &Scope<'_>, notes: &mut Vec<String>) {
    let health = &scope.spec.host.health;
    for (what, wanted, got) in [
        ("interval", health.interval, interval(scope)),
        ("timeout", health.timeout, timeout(scope)),
    ] {
        if wanted.as_millis() != i128::from(got) * 1_000 {
            notes.push(format!(
                "host.health.{what} is {got} s on AWS instead of {} s: a load balancer checks in whole seconds, at most every 5",
                wanted.as_secs_f64()
            ));
        }
    }
}

/// `200-299,302`
pub(super) fn codes(scope: &Scope<'_>) -> String {
    let range = |(low, high): &(u16, u16)| match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
    };
    scope
        .spec
        .host
        .health
        .codes
        .iter()
        .map(range)
        .collect::<Vec<_>>()
        .join(",")
}

fn version(traffic: &Traffic) -> &'static str {
    match traffic.protocol {
        Protocol::Http1 => "HTTP1",
        Protocol::Http2 => "HTTP2",
        Protocol::Grpc => "GRPC",
    }
}

fn matcher(health: &Health) -> &'static str {
    match health.protocol {
        HealthProtocol::Grpc => "GrpcCode",
        HealthProtocol::Http | HealthProtocol::Tcp => "HttpCode",
    }
}

/// What `vend.yaml` says of a target group that a load balancer cannot do there: the key, and why.
pub(super) fn refused(spec: &spec::Environment) -> Option<(&'static str, &'static str)> {
    let spec::Host { traffic, health, .. } = &spec.host;
    let grpc = (
        traffic.protocol == Protocol::Grpc,
        health.protocol == HealthProtocol::Grpc,
    );
    if !spec.access.is_empty() {
        Some((
            "access",
            "an Application Load Balancer knows no lists to `allow` or `deny`: AWS WAF does",
        ))
    } else if traffic.ejection.is_some() {
        Some((
            "host.traffic.ejection",
            "an Application Load Balancer leaves out nobody for a `time` after so many `failures`: `algorithm: anomaly-mitigation` sends them less",
        ))
    } else if health.protocol == HealthProtocol::Tcp {
        Some((
            "host.health.protocol",
            "an Application Load Balancer asks by HTTP or gRPC",
        ))
    } else if grpc.0 != grpc.1 {
        Some((
            "host.health.protocol",
            "an Application Load Balancer asks hosts that speak gRPC by gRPC, and no others",
        ))
    } else if !traffic.slow_start.is_zero() && traffic.algorithm != Algorithm::RoundRobin {
        Some((
            "host.traffic.slow_start",
            "an Application Load Balancer has it with `algorithm: round-robin` alone",
        ))
    } else {
        None
    }
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetGroupAttribute.html>
fn attributes_of(scope: &Scope<'_>) -> Vec<Value> {
    let traffic = &scope.spec.host.traffic;
    let one = |key: &str, value: String| json!({ "Key": key, "Value": value });
    let algorithm = match traffic.algorithm {
        Algorithm::RoundRobin => "round_robin",
        Algorithm::LeastOutstanding => "least_outstanding_requests",
        Algorithm::WeightedRandom | Algorithm::AnomalyMitigation => "weighted_random",
    };
    let mut all = vec![
        one("deregistration_delay.timeout_seconds", scope.drain().to_string()),
        one("load_balancing.algorithm.type", algorithm.into()),
    ];
    if traffic.algorithm == Algorithm::AnomalyMitigation {
        all.push(one("load_balancing.algorithm.anomaly_mitigation", "on".into()));
    }
    if !traffic.slow_start.is_zero() {
        all.push(one(
            "slow_start.duration_seconds",
            traffic.slow_start.as_secs().to_string(),
        ));
    }
    let sticky = |kind: &str, duration: &jiff::SignedDuration| {
        [
            one("stickiness.enabled", "true".into()),
            one("stickiness.type", kind.into()),
            one(
                &format!("stickiness.{kind}.duration_seconds"),
                duration.as_secs().to_string(),
            ),
        ]
    };
    match &traffic.stickiness {
        None => {}
        Some(Stickiness::Duration(duration)) => all.extend(sticky("lb_cookie", duration)),
        Some(Stickiness::Application { cookie, duration }) => {
            all.extend(sticky("app_cookie", duration));
            all.push(one("stickiness.app_cookie.cookie_name", cookie.clone()));
        }
    }
    all
}

/// Who is in target groups: hosts, or the addresses of containers.
pub(super) fn kind(scope: &Scope<'_>) -> &'static str {
    match scope.options.runtime {
        Runtime::Host => "instance",
        _ => "ip",
    }
}

fn targets(scope: &Scope<'_>, half: Half) -> Resource {
    let health = &scope.spec.host.health;
    let properties = json!({
        "VpcId": scope.shared("Vpc"),
        "TargetType": kind(scope),
        "Protocol": "HTTP",
        "ProtocolVersion": version(&scope.spec.host.traffic),
        "Port": scope.spec.host.port,
        "HealthCheckEnabled": true,
        "HealthCheckProtocol": "HTTP",
        "HealthCheckPort": "traffic-port",
        "HealthCheckPath": health.path,
        "HealthCheckIntervalSeconds": interval(scope),
        "HealthCheckTimeoutSeconds": timeout(scope),
        "HealthyThresholdCount": health.healthy,
        "UnhealthyThresholdCount": health.unhealthy,
        "Matcher": { matcher(health): codes(scope) },
        "TargetGroupAttributes": attributes_of(scope),
    });
    let about = format!(
        "The hosts of the {} half, and how the load balancer asks whether they are well.",
        half.word().to_lowercase()
    );
    Resource::new(half.id(scope.targets()), "AWS::ElasticLoadBalancingV2::TargetGroup", about, properties)
        .skip("CKV_AWS_378", "TLS ends at the load balancer; from there to the hosts the way is inside the network, between two groups.")
}

/// Where a rule, or a listener, sends what it takes: to these target groups of the halves, by their weights.
pub(super) fn forward(scope: &Scope<'_>, targets: &str) -> Value {
    let one = |half: &Half| {
        let mut target = json!({ "TargetGroupArn": re(half.id(targets)) });
        if scope.halves().len() > 1 {
            target["Weight"] = re(half.id("Weight"));
        }
        target
    };
    let targets: Vec<Value> = scope.halves().iter().map(one).collect();
    json!({ "Type": "forward", "ForwardConfig": { "TargetGroups": targets } })
}

/// Who reaches the environment's own load balancer, in ranges and in words: on an Outpost, who is behind its local gateway.
fn visitors(scope: &Scope<'_>) -> (Vec<String>, &'static str) {
    match scope.outpost() {
        None => (
            vec!["0.0.0.0/0".to_owned()],
            "The load balancer: from everywhere, to the hosts of this environment",
        ),
        Some(own) => (
            own.local.iter().map(ToString::to_string).collect(),
            "The load balancer: from the building, to the hosts of this environment",
        ),
    }
}

fn balancer(template: &mut Template, scope: &Scope<'_>) {
    let (from, about) = visitors(scope);
    let open = |port: u16, about: &str| {
        let one = move |range: &String| json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": range, "Description": about });
        from.iter().map(one).collect::<Vec<_>>()
    };
    let properties = json!({
        "GroupDescription": about,
        "VpcId": scope.shared("Vpc"),
        "SecurityGroupIngress": ([open(80, "HTTP, redirected"), open(443, "HTTPS")].concat()),
        "SecurityGroupEgress": [crate::synth::foundation::closed()],
        "Tags": [{ "Key": "Name", "Value": sub("${AWS::StackName}-balancer") }],
    });
    let group = Resource::new(
        "BalancerGroup",
        "AWS::EC2::SecurityGroup",
        "What the world reaches of this environment.",
        properties,
    )
    .skip("CKV_AWS_260", "Port 80 is open so that it can redirect to 443.");
    template.add(group);
    let port = scope.spec.host.port;
    let properties = json!({
        "GroupId": att("BalancerGroup.GroupId"), "IpProtocol": "tcp", "FromPort": port, "ToPort": port,
        "DestinationSecurityGroupId": att("HostGroup.GroupId"), "Description": "Hosts",
    });
    template.add(Resource::new(
        "BalancerToHosts",
        "AWS::EC2::SecurityGroupEgress",
        "To the hosts, and nowhere else.",
        properties,
    ));
    if scope.spec.authenticate.is_some() {
        template.add(to_providers());
    }
    let protected = scope.is_production();
    let protection = protection(template, protected);
    let prefix = format!("balancer/{}-{}", scope.app, scope.spec.name);
    let properties = json!({
        "Type": "application",
        "Scheme": if scope.outpost().is_some() { "internal" } else { "internet-facing" },
        "IpAddressType": "ipv4",
        "Subnets": scope.subnets("Public"),
        "SecurityGroups": [att("BalancerGroup.GroupId")],
        "LoadBalancerAttributes": attributes(scope.shared("LogsBucket"), &prefix, protection),
        "Tags": [{ "Key": "Name", "Value": sub("${AWS::StackName}") }],
    });
    let about = "This environment's own load balancer.";
    let resource = Resource::new(
        "Balancer",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        about,
        properties,
    );
    template.add(unprotected(resource, protected));
    let http = json!({ "LoadBalancerArn": re("Balancer"), "Port": 80, "Protocol": "HTTP", "DefaultActions": redirect() });
    template.add(Resource::new(
        "HttpListener",
        "AWS::ElasticLoadBalancingV2::Listener",
        "Sends everybody to HTTPS.",
        http,
    ));
    let https = json!({
        "LoadBalancerArn": re("Balancer"),
        "Port": 443,
        "Protocol": "HTTPS",
        "SslPolicy": crate::synth::foundation::TLS,
        "Certificates": [{ "CertificateArn": re("Certificate") }],
        "DefaultActions": unknown(),
    });
    template.add(Resource::new(
        "HttpsListener",
        "AWS::ElasticLoadBalancingV2::Listener",
        "Knows this environment's names.",
        https,
    ));
}
