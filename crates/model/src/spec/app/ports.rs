//! The sections `listeners` and `domains`: what an environment has at the load balancer beside its own name.

use jiff::SignedDuration;

use super::{
    Certificate, Domain, Leads, Port, Transport,
    environment::{Fields, secret, value},
};
use crate::spec::{
    read::{Reader, quoted},
    yaml::{Node, Value},
};

/// Of one environment, each.
pub(super) const MOST: usize = 8;

pub(super) fn listeners(reader: &mut Reader<'_>, node: Option<&Node>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (item, fields) in items(reader, node, "listeners") {
        let Some(port) = port(reader, item, fields) else {
            continue;
        };
        let same = |other: &Port| (other.protocol, other.port) == (port.protocol, port.port);
        if ports.iter().any(same) {
            reader.error(
                item,
                format!("`listeners` has the {} port {} twice", port.protocol, port.port),
            );
        }
        ports.push(port);
    }
    ports
}

fn port(reader: &mut Reader<'_>, item: &Node, fields: Fields<'_>) -> Option<Port> {
    let Some(protocol) = value(fields, "protocol") else {
        reader.error(item, "a listener needs a `protocol`: `tcp` or `udp`");
        return None;
    };
    let protocol = match reader.word(protocol, "protocol", &["tcp", "udp"])? {
        "tcp" => Transport::Tcp,
        _ => Transport::Udp,
    };
    let Some(port) = value(fields, "port") else {
        reader.error(item, "a listener needs a `port`");
        return None;
    };
    let number = |reader: &mut Reader<'_>, node: &Node, what: &str, least: u64| {
        let found = reader.number(node, what, least..=65_535);
        found.and_then(|port| u16::try_from(port).ok())
    };
    // The load balancer has no rights over the ports below; others have them.
    let port = number(reader, port, "listeners.port", 1024)?;
    let host_port = match value(fields, "host_port") {
        Some(node) => number(reader, node, "listeners.host_port", 1)?,
        None => port,
    };
    let second = SignedDuration::from_secs(1);
    let idle = match value(fields, "idle") {
        None => None,
        Some(node) if protocol == Transport::Tcp => {
            reader.error(
                node,
                "`idle` is for `udp`: a TCP connection ends when one side closes it",
            );
            None
        }
        Some(node) => reader.duration(node, "listeners.idle", second..=second * 3600),
    };
    let ttl = value(fields, "ttl")
        .and_then(|node| reader.duration(node, "listeners.ttl", SignedDuration::ZERO..=second * 3600));
    let leads = value(fields, "name").and_then(|node| reader.word(node, "name", &["balancer", "hosts"]));
    Some(Port {
        protocol,
        port,
        host_port,
        idle: idle.unwrap_or(second * 120),
        leads: match leads {
            Some("hosts") => Leads::Hosts {
                ttl: ttl.unwrap_or(second * 10),
            },
            _ => Leads::Balancer,
        },
    })
}

pub(super) fn domains(reader: &mut Reader<'_>, node: Option<&Node>) -> Vec<Domain> {
    let mut domains: Vec<Domain> = Vec::new();
    for (item, fields) in items(reader, node, "domains") {
        let Some(host) = value(fields, "host") else {
            reader.error(item, "a domain needs a `host`");
            continue;
        };
        let Some(text) = reader.text(host, "domains.host") else {
            continue;
        };
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        if !is_domain(&text) {
            let message = format!("{} is not a domain, such as shop.example.com", quoted(&text));
            reader.error(host, message);
            continue;
        }
        if domains.iter().any(|domain| domain.host == text) {
            reader.error(host, format!("`domains` has {} twice", quoted(&text)));
        }
        let certificate = value(fields, "certificate").map(|node| certificate(reader, node));
        let dedicated = value(fields, "dedicated_balancer")
            .and_then(|node| reader.flag(node, "domains.dedicated_balancer", false));
        domains.push(Domain {
            host: text,
            certificate: certificate.unwrap_or(Certificate::File),
            dedicated_balancer: dedicated.unwrap_or(false),
        });
    }
    domains
}

/// Words and keys were checked; one that is wrong counts as the default.
fn certificate(reader: &mut Reader<'_>, node: &Node) -> Certificate {
    if let Value::Mapping(entries) = &node.value {
        let mut secret_of = |name: &str| match value(entries, name) {
            Some(node) => secret(reader, node, &format!("certificate.{name}")),
            None => {
                reader
                    .error(node, format!("a certificate of the vault needs `{name}`"))
                    .help = Some(format!("write `{name}: \"{{{{secret:NAME}}}}\"`"));
                None
            }
        };
        return match (secret_of("chain"), secret_of("key")) {
            (Some(chain), Some(key)) => Certificate::Vault { chain, key },
            _ => Certificate::File,
        };
    }
    match node.text() {
        Some("acme") => Certificate::Acme,
        _ => Certificate::File,
    }
}

/// The mappings of a list. Other items were reported where the keys are checked.
fn items<'n>(reader: &mut Reader<'_>, node: Option<&'n Node>, what: &str) -> Vec<(&'n Node, Fields<'n>)> {
    let Some(Value::Sequence(items)) = node.map(|node| &node.value) else {
        return Vec::new();
    };
    if items.len() > MOST {
        reader.error(&items[MOST], format!("`{what}` may have {MOST} items"));
        return Vec::new();
    }
    let mappings = items.iter().filter_map(|item| match &item.value {
        Value::Mapping(entries) => Some((item, entries.as_slice())),
        _ => None,
    });
    mappings.collect()
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 200 && text.contains('.') && text.split('.').all(label)
}
