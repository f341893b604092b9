//! Ports of the app's own, TCP and UDP: a Network Load Balancer of the environment, which shares connections and flows between
//! the halves by the same weights that the rules of HTTP have. In a Wavelength Zone hosts are reached without one.
//!
//! Sources: "Listeners", "Target groups", "Health checks" and "Security groups" of the Network Load Balancer guide, and
//! "Network Load Balancers now support Weighted Target Groups" of AWS's blog on networks; 2026-11-22.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use model::{
    route::HealthProtocol,
    spec::{self, Leads, Transport},
};
use serde_json::{Value, json};

use super::{Half, Scope, names, traffic};
use crate::synth::{
    Error,
    foundation::{closed, protection, unprotected},
    template::{Resource, Template, att, re, sub},
};

/// Target groups of an ECS service, of which one is that of HTTP.
const MAX_OF_CONTAINERS: usize = 4;
/// How long a UDP flow is kept without a datagram; nobody can change it.
const IDLE: SignedDuration = SignedDuration::from_secs(120);
/// How long it may take until all machines of such a load balancer know new weights: ECS waits as long for its own.
/// Source: "Network Load Balancer resources for blue/green deployments" of the ECS guide.
const SLOWEST: SignedDuration = SignedDuration::from_mins(10);

/// A port at which visitors are let in. One listener serves both protocols of a port.
pub(in crate::synth) struct Door {
    pub port: u16,
    host_port: u16,
    tcp: bool,
    udp: bool,
}

impl Door {
    /// `Port5514Listener`: by the number alone, so that one that gets a second protocol is changed. No load balancer has two of a number.
    pub fn id(&self, what: &str) -> String {
        format!("Port{}{what}", self.port)
    }

    /// The output of a half's target group: `BluePort5514TargetsArn`.
    pub fn targets(&self) -> String {
        self.id("TargetsArn")
    }

    fn protocol(&self) -> &'static str {
        match (self.tcp, self.udp) {
            (true, true) => "TCP_UDP",
            (_, true) => "UDP",
            _ => "TCP",
        }
    }

    fn transports(&self) -> impl Iterator<Item = &'static str> {
        let both = [("tcp", self.tcp), ("udp", self.udp)];
        both.into_iter().filter(|(_, own)| *own).map(|(word, _)| word)
    }
}

/// What is open, by number.
pub(in crate::synth) fn doors(spec: &spec::Environment) -> Vec<Door> {
    let mut doors: BTreeMap<u16, Door> = BTreeMap::new();
    for own in &spec.listeners {
        let door = doors.entry(own.port).or_insert(Door {
            port: own.port,
            host_port: own.host_port,
            tcp: false,
            udp: false,
        });
        match own.protocol {
            Transport::Tcp => door.tcp = true,
            Transport::Udp => door.udp = true,
        }
    }
    doors.into_values().collect()
}

/// Refuses what no load balancer does with them.
pub(super) fn refuse(scope: &Scope<'_>) -> Result<(), Error> {
    let (spec, doors) = (scope.spec, doors(scope.spec));
    let said = |why: String| {
        let at = format!("environments.{}.listeners", spec.entry());
        Err(Error::config(at, why))
    };
    for own in &spec.listeners {
        let first = doors.iter().find(|door| door.port == own.port);
        if first.is_some_and(|door| door.host_port != own.host_port) {
            return said(format!(
                "TCP and UDP of port {} lead to two ports of a host, and a load balancer has one listener for both: say one `host_port`",
                own.port
            ));
        }
        if scope.wave().is_some() && own.port != own.host_port {
            return said(format!(
                "visitors reach hosts themselves in a Wavelength Zone, so nobody turns port {} into {}: leave `host_port` out",
                own.port, own.host_port
            ));
        }
    }
    if !scope.is_container() {
        return Ok(());
    }
    if doors.len() > MAX_OF_CONTAINERS {
        return said(format!(
            "a service of containers has room for {MAX_OF_CONTAINERS} ports beside that of HTTP, and there are {}",
            doors.len()
        ));
    }
    let pairs = pairs(scope);
    let twice = pairs
        .iter()
        .find(|(word, port)| *word == "tcp" && pairs.contains(&("udp", *port)));
    match twice {
        None => Ok(()),
        Some((_, port)) => said(format!(
            "a service of containers is led to a port by its number alone, and {port} would be one of TCP and one of UDP: say another `host_port`"
        )),
    }
}

/// What is done otherwise.
pub(super) fn notes(scope: &Scope<'_>) -> Vec<String> {
    let ports = &scope.spec.listeners;
    if ports.is_empty() {
        return Vec::new();
    }
    let mut notes = Vec::new();
    let mut note = |is_so: bool, text: &str| notes.extend(is_so.then(|| text.to_owned()));
    let (hosts, wave) = (|leads: &Leads| matches!(leads, Leads::Hosts { .. }), scope.wave());
    let has_other_idle = ports
        .iter()
        .any(|own| own.protocol == Transport::Udp && own.idle != IDLE);
    if wave.is_some() {
        note(
            true,
            "`listeners`: no load balancer stands in a Wavelength Zone, so a port's `name` leads to the hosts as the environment's does, to \
             be kept for 10 s, whatever `name`, `ttl` and `idle` say",
        );
        return notes;
    }
    note(
        ports.iter().any(|own| hosts(&own.leads)),
        "`listeners`: a port's `name` leads to the load balancer, whatever `name` and `ttl` say: hosts have no addresses that visitors reach",
    );
    note(
        has_other_idle,
        "`listeners`: `idle` is 120 s for every UDP flow, which a Network Load Balancer lets nobody change",
    );
    note(
        scope.halves().len() > 1 && scope.deploy.keep_old < SLOWEST,
        "`listeners`: all of a Network Load Balancer may know new weights only after 10 minutes: with a shorter `deploy.keep_old` some visitors \
         of these ports are sent to hosts that have stopped",
    );
    note(
        scope.spec.host.health.protocol == HealthProtocol::Grpc,
        "`listeners`: such a load balancer asks nobody by gRPC, so who takes connections at `host.port` is well for it",
    );
    notes
}

/// What reaches hosts: protocol and port, each once. That of HTTP is asked for health.
fn pairs(scope: &Scope<'_>) -> BTreeSet<(&'static str, u16)> {
    let own = doors(scope.spec);
    let all = own
        .iter()
        .flat_map(|door| door.transports().map(|word| (word, door.host_port)));
    all.chain([("tcp", scope.spec.host.port)]).collect()
}

/// What the hosts' security group lets in for them.
pub(super) fn ingress(scope: &Scope<'_>) -> Vec<Value> {
    if scope.spec.listeners.is_empty() {
        return Vec::new();
    }
    let is_wave = scope.wave().is_some();
    let one = |(word, port): (&str, u16)| {
        let mut rule = json!({ "IpProtocol": word, "FromPort": port, "ToPort": port });
        match is_wave {
            true => rule["CidrIp"] = json!("0.0.0.0/0"),
            false => rule["SourceSecurityGroupId"] = att("PortsGroup.GroupId"),
        }
        rule["Description"] = json!(match is_wave {
            true => "The network of the carrier",
            false => "The load balancer of the app's own ports",
        });
        rule
    };
    let is_there = |pair: &(&str, u16)| is_wave && *pair == ("tcp", scope.spec.host.port);
    pairs(scope)
        .into_iter()
        .filter(|pair| !is_there(pair))
        .map(one)
        .collect()
}

/// The target groups of a half.
pub(super) fn groups(scope: &Scope<'_>, half: Half) -> Vec<String> {
    let own = doors(scope.spec);
    own.iter().map(|door| half.id(&door.id("Targets"))).collect()
}

/// What containers open beside the port of HTTP, and which target group gets whom.
pub(super) fn of_containers(scope: &Scope<'_>, half: Half) -> (Vec<Value>, Vec<Value>) {
    let http = ("tcp", scope.spec.host.port);
    let more = pairs(scope).into_iter().filter(|pair| *pair != http);
    let mappings = more.map(|(word, port)| json!({ "ContainerPort": port, "Protocol": word }));
    let targets = doors(scope.spec).into_iter().map(|door| {
        json!({ "ContainerName": "app", "ContainerPort": door.host_port, "TargetGroupArn": re(half.id(&door.id("Targets"))) })
    });
    (mappings.collect(), targets.collect())
}

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let doors = doors(scope.spec);
    if doors.is_empty() {
        return;
    }
    if scope.wave().is_none() {
        group(template, scope, &doors);
        balancer(template, scope);
        for door in &doors {
            listener(template, scope, door);
        }
    }
    records(template, scope, &doors);
}

fn group(template: &mut Template, scope: &Scope<'_>, doors: &[Door]) {
    let open = |door: &Door| {
        let port = door.port;
        let one = |word| json!({ "IpProtocol": word, "FromPort": port, "ToPort": port, "CidrIp": "0.0.0.0/0", "Description": "A port of the app" });
        door.transports().map(one).collect::<Vec<_>>()
    };
    let properties = json!({
        "GroupDescription": "The load balancer of the ports of an app: from everywhere, to the hosts of this environment",
        "VpcId": scope.shared("Vpc"),
        "SecurityGroupIngress": doors.iter().flat_map(open).collect::<Vec<_>>(),
        "SecurityGroupEgress": [closed()],
        "Tags": [{ "Key": "Name", "Value": sub("${AWS::StackName}-ports") }],
    });
    let about = "What the world reaches of this environment beside HTTP: the ports that it declares.";
    template.add(Resource::new(
        "PortsGroup",
        "AWS::EC2::SecurityGroup",
        about,
        properties,
    ));
    for (word, port) in pairs(scope) {
        let properties = json!({
            "GroupId": att("PortsGroup.GroupId"), "IpProtocol": word, "FromPort": port, "ToPort": port,
            "DestinationSecurityGroupId": att("HostGroup.GroupId"), "Description": "Hosts",
        });
        let id = if word == "tcp" { "PortsToTcp" } else { "PortsToUdp" };
        let about = "To the hosts, at a port of the app or where they are asked for their health.";
        template.add(Resource::new(
            format!("{id}{port}"),
            "AWS::EC2::SecurityGroupEgress",
            about,
            properties,
        ));
    }
}

fn balancer(template: &mut Template, scope: &Scope<'_>) {
    let protected = scope.is_production();
    let protection = protection(template, protected);
    let properties = json!({
        "Type": "network",
        "Scheme": "internet-facing",
        "IpAddressType": "ipv4",
        "Subnets": scope.subnets("Public"),
        "SecurityGroups": [att("PortsGroup.GroupId")],
        "LoadBalancerAttributes": [
            { "Key": "deletion_protection.enabled", "Value": protection },
            { "Key": "load_balancing.cross_zone.enabled", "Value": "true" },
        ],
        "Tags": [{ "Key": "Name", "Value": sub("${AWS::StackName}-ports") }],
    });
    let about = "The load balancer of the app's own ports.";
    let resource = Resource::new(
        "PortsBalancer",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        about,
        properties,
    )
    .skip(
        "CKV_AWS_91",
        "It has nothing to write: such a load balancer logs what it decrypts, and here TLS passes through. Flow logs of the network have who came.",
    );
    template.add(unprotected(resource, protected));
}

/// A listener, and the target groups of the halves that it leads to by their weights.
fn listener(template: &mut Template, scope: &Scope<'_>, door: &Door) {
    for half in scope.halves() {
        template.add(targets(scope, *half, door));
        template.output(
            &half.id(&door.targets()),
            "The target group, for flows",
            re(half.id(&door.id("Targets"))),
        );
    }
    let properties = json!({
        "LoadBalancerArn": re("PortsBalancer"),
        "Port": door.port,
        "Protocol": door.protocol(),
        "DefaultActions": [traffic::forward(scope, &door.id("Targets"))],
    });
    template.add(Resource::new(
        door.id("Listener"),
        "AWS::ElasticLoadBalancingV2::Listener",
        format!(
            "Port {} goes to the halves, by their weights, as it came.",
            door.port
        ),
        properties,
    ));
}

/// Is the host well? It is asked where its HTTP is, as on a platform.
fn targets(scope: &Scope<'_>, half: Half, door: &Door) -> Resource {
    let health = &scope.spec.host.health;
    let mut properties = json!({
        "VpcId": scope.shared("Vpc"),
        "TargetType": traffic::kind(scope),
        "Protocol": door.protocol(),
        "Port": door.host_port,
        "HealthCheckEnabled": true,
        "HealthCheckPort": scope.spec.host.port.to_string(),
        "HealthCheckIntervalSeconds": traffic::interval(scope),
        "HealthCheckTimeoutSeconds": traffic::timeout(scope),
        "HealthyThresholdCount": health.healthy,
        "UnhealthyThresholdCount": health.unhealthy,
        "TargetGroupAttributes": [
            { "Key": "deregistration_delay.timeout_seconds", "Value": scope.drain().to_string() },
            { "Key": "deregistration_delay.connection_termination.enabled", "Value": "true" },
        ],
    });
    match health.protocol {
        HealthProtocol::Grpc => properties["HealthCheckProtocol"] = json!("TCP"),
        HealthProtocol::Http | HealthProtocol::Tcp => {
            properties["HealthCheckProtocol"] = json!("HTTP");
            properties["HealthCheckPath"] = json!(health.path);
            properties["Matcher"] = json!({ "HttpCode": traffic::codes(scope) });
        }
    }
    let about = format!(
        "The hosts of the {} half behind port {}, and how they are asked whether they are well.",
        half.word().to_lowercase(),
        door.port
    );
    Resource::new(
        half.id(&door.id("Targets")),
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        about,
        properties,
    )
}

/// `udp-5514.` and each of the environment's names.
fn records(template: &mut Template, scope: &Scope<'_>, doors: &[Door]) {
    let own = names::own(scope);
    let mut said = Vec::new();
    for door in doors {
        for word in door.transports() {
            for (name, id) in own.iter().zip(["Record", "BareRecord"]) {
                let below = format!("{word}-{}.{name}", door.port);
                template.add(record(
                    scope,
                    &door.id(&format!("{}{id}", word.to_uppercase())),
                    &below,
                    name,
                    id,
                ));
                said.push(format!("{below}:{}", door.port));
            }
        }
    }
    template.output("Ports", "Where its own ports answer", json!(said.join(" ")));
}

fn record(scope: &Scope<'_>, id: &str, below: &str, name: &str, leads: &str) -> Resource {
    let target = match scope.wave() {
        None => {
            json!({ "DNSName": att("PortsBalancer.DNSName"), "HostedZoneId": att("PortsBalancer.CanonicalHostedZoneID") })
        }
        Some(_) => {
            json!({ "DNSName": name, "HostedZoneId": scope.shared("Zone"), "EvaluateTargetHealth": false })
        }
    };
    let properties =
        json!({ "HostedZoneId": scope.shared("Zone"), "Name": below, "Type": "A", "AliasTarget": target });
    let about = match scope.wave() {
        None => format!("{below} is the load balancer of the app's own ports."),
        Some(_) => format!("{below} is who {name} is."),
    };
    let record = Resource::new(id, "AWS::Route53::RecordSet", about, properties);
    let halves = scope.halves().iter().filter(|_| scope.wave().is_some());
    // A name leads to another that is there.
    halves.fold(record, |record, half| record.after(half.id(leads)))
}
