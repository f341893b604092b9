//! The `host` section: size, port, environment variables, health.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{
    Health, Host, Variable,
    environment::{Fields, section, value},
    traffic::{Traffic, health_protocol, traffic},
};
use crate::{
    route::HealthProtocol,
    spec::{
        read::{Reader, quoted, shown, written},
        yaml::{Node, Value},
    },
};

pub(super) fn host(reader: &mut Reader<'_>, fields: Fields<'_>, database: bool) -> Host {
    let size = value(fields, "size").and_then(|node| {
        let text = reader.text(node, "host.size")?;
        let shape = text.len() <= 40
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !shape || text.is_empty() {
            reader.error(node, format!("{} is not the name of a size", quoted(&text)));
            return None;
        }
        Some(text)
    });
    let port = value(fields, "port").and_then(|node| reader.number(node, "host.port", 1..=65_535));
    let traffic = traffic(reader, section(fields, "traffic"));
    let health = health(reader, section(fields, "health"), &traffic);
    let env = match value(fields, "env") {
        Some(node) => {
            let of_platform = |name: &str| {
                let from = match name {
                    "PORT" => "host.port",
                    _ if database && OF_DATABASE.contains(&name) => "database",
                    _ => return None,
                };
                Some(format!("`{name}` is set by the platform, from `{from}`"))
            };
            variables(reader, node, "host.env", &of_platform)
        }
        None => BTreeMap::new(),
    };
    Host {
        size: size.unwrap_or_else(|| "small".to_owned()),
        port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(8080),
        health,
        traffic,
        env,
    }
}

/// The method of gRPC's own health service, which asks for the server as a whole.
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Variables that the platform itself gives to an app with a database.
const OF_DATABASE: [&str; 6] = [
    "DATABASE_URL",
    "DATABASE_HOST",
    "DATABASE_PORT",
    "DATABASE_NAME",
    "DATABASE_USER",
    "DATABASE_PASSWORD",
];

/// The variables of `section`. `taken` says why one cannot be set.
pub(super) fn variables(
    reader: &mut Reader<'_>,
    node: &Node,
    section: &str,
    taken: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, Variable> {
    let mut variables = BTreeMap::new();
    for (key, value) in reader.mapping(node, section) {
        let name = key.text().unwrap_or_default();
        if !is_variable(name) {
            let message = format!("{} is not the name of an environment variable", quoted(name));
            reader.error(key, message).help =
                Some("use letters, digits and underscores, not starting with a digit".to_owned());
            continue;
        }
        if let Some(why) = taken(name) {
            reader.error(key, why);
            continue;
        }
        if let Some(variable) = variable(reader, value, &format!("{section}.{name}")) {
            variables.insert(name.to_owned(), variable);
        }
    }
    variables
}

pub(crate) fn is_variable(name: &str) -> bool {
    name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn variable(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Variable> {
    if let Value::Mapping(_) = node.value {
        let problem = reader.error(node, format!("`{path}` must be text, not a mapping"));
        problem.help = Some("quote it: `\"{{secret:NAME}}\"`".to_owned());
        return None;
    }
    let text = match node.is_null() {
        true => String::new(),
        false => reader.text(node, path)?,
    };
    if text.contains('\0') {
        reader.error(node, format!("`{path}` holds a NUL character"));
        return None;
    }
    if !text.contains("{{secret:") {
        return Some(Variable::Plain(text));
    }
    let secret = text
        .trim()
        .strip_prefix("{{secret:")
        .and_then(|rest| rest.strip_suffix("}}"))
        .map(str::trim);
    match secret {
        Some(secret) if is_secret(secret) => Some(Variable::Secret(secret.to_owned())),
        Some(secret) if !secret.contains("{{") => {
            let message = format!("{} is not the name of a secret", quoted(secret));
            reader.error(node, message).help =
                Some("use letters, digits, `-`, `_` and `.`, at most 64".to_owned());
            None
        }
        _ => {
            let message = format!("`{path}`: a secret must be the whole value, not a part of it");
            reader.error(node, message).help =
                Some("put the whole text into the secret, or put it together in the app".to_owned());
            None
        }
    }
}

/// The name of a secret: at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first.
pub fn is_secret(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn health(reader: &mut Reader<'_>, fields: Fields<'_>, traffic: &Traffic) -> Health {
    let protocol = health_protocol(fields, traffic);
    let grpc = protocol == HealthProtocol::Grpc;
    let second = SignedDuration::from_secs(1);
    let path = value(fields, "path").and_then(|node| {
        let text = reader.text(node, "host.health.path")?;
        let shape =
            text.starts_with('/') && text.len() <= 1_000 && text.bytes().all(|b| b.is_ascii_graphic());
        if !shape {
            reader.error(
                node,
                format!(
                    "`host.health.path` must start with `/` and hold no blanks, not {}",
                    quoted(&text)
                ),
            );
            return None;
        }
        Some(text)
    });
    let mut time = |name: &str, usual: SignedDuration, most: i32| {
        value(fields, name)
            .and_then(|node| {
                reader.duration(
                    node,
                    &format!("host.health.{name}"),
                    SignedDuration::from_millis(100)..=second * most,
                )
            })
            .unwrap_or(usual)
    };
    let interval = time("interval", second * 5, 300);
    // Limits of ALB.
    let timeout = time("timeout", interval.min(second * 2), 120);
    let within = value(fields, "within")
        .and_then(|node| reader.duration(node, "host.health.within", second..=second * 600));
    if timeout > interval
        && let Some(node) = value(fields, "timeout")
    {
        let (timeout, interval) = (written(timeout), written(interval));
        reader.error(
            node,
            format!("`host.health.timeout` ({timeout}) must not be more than the interval ({interval})"),
        );
    }
    let mut count = |name: &str, default: u64| {
        let found =
            value(fields, name).and_then(|node| reader.number(node, &format!("host.health.{name}"), 2..=10));
        u32::try_from(found.unwrap_or(default)).unwrap_or(2)
    };
    let (healthy, unhealthy) = (count("healthy", 2), count("unhealthy", 3));
    let codes = value(fields, "codes")
        .map(|node| codes(reader, node, grpc))
        .filter(|codes| !codes.is_empty());
    Health {
        protocol,
        path: path.unwrap_or_else(|| if grpc { GRPC_CHECK } else { "/" }.to_owned()),
        interval,
        timeout,
        healthy,
        unhealthy,
        codes: codes.unwrap_or_else(|| vec![if grpc { (0, 0) } else { (200, 399) }]),
        within: within.unwrap_or(Health::WITHIN),
    }
}

/// `200`, `"200-299"`, `"200,301-302"`, or a list of these; gRPC's are 0 to 99.
fn codes(reader: &mut Reader<'_>, node: &Node, grpc: bool) -> Vec<(u16, u16)> {
    let mut codes = Vec::new();
    for item in reader.list(node, "host.health.codes", true) {
        for part in item.text().unwrap_or_default().split(',') {
            match range(part.trim(), grpc) {
                Some(range) => codes.push(range),
                None => {
                    let found = if item.text().is_some() {
                        quoted(part.trim())
                    } else {
                        shown(item)
                    };
                    let such = if grpc {
                        "`0` or `0-12`"
                    } else {
                        "`200` or `200-399`"
                    };
                    let message =
                        format!("`host.health.codes` must be status codes such as {such}, not {found}");
                    reader.error(item, message);
                }
            }
        }
    }
    codes
}

fn range(text: &str, grpc: bool) -> Option<(u16, u16)> {
    let code = |text: &str| {
        let (length, known) = if grpc { (1..=2, 0..=99) } else { (3..=3, 100..=599) };
        let shape = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>()
            .ok()
            .filter(|code| shape && known.contains(code))
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (code(low.trim())?, code(high.trim())?);
    (low <= high).then_some((low, high))
}
