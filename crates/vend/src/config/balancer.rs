//! What `platform.toml` (`[edge]`, `[access_log]`) and `edge.yaml` both say of a load balancer, with the same names and
//! units. What a value may be is looked at while it is read, so that an error says where it stands.

use std::{fmt, net::SocketAddr, time::Duration};

use camino::Utf8PathBuf;
use edge::{Clients, Limits, Version};
use jiff::SignedDuration;
use serde::{
    Deserialize, Deserializer,
    de::{self, Error as _},
};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::Rotate;

/// The load balancer of a platform.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edge {
    /// Where Prometheus asks; `false` for nowhere.
    pub metrics: Metrics,
    pub limits: Limited,
    /// Who comes to `listen.http` is served there too, in the place of being sent to `listen.https`. Whatever it says, names
    /// without a certificate are served there, and so are domains at listeners of their own.
    pub plain_http: bool,
    /// Of `listen.https`: the oldest TLS that is spoken, 1.2 or 1.3.
    pub minimum: Minimum,
    /// Of `listen.https`: cipher suites as rustls names them; its own choice when there are none.
    pub ciphers: Vec<Cipher>,
    /// Of `listen.https`: all visitors must show a certificate.
    pub clients: Option<Trusted>,
    /// Connections at `listen.http` and `listen.https` begin with the word of a proxy, which is believed.
    pub proxied: bool,
    /// Threads that serve; one per core when nothing is said.
    pub workers: Option<Workers>,
}

/// An address, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics(pub Option<SocketAddr>);

impl Default for Metrics {
    /// Only this machine reaches it.
    fn default() -> Self {
        Self(Some(([127, 0, 0, 1], 9180).into()))
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl de::Visitor<'_> for Read {
            type Value = Metrics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"127.0.0.1:9180\", or false")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Metrics, E> {
                match on {
                    true => Err(E::invalid_value(de::Unexpected::Bool(on), &self)),
                    false => Ok(Metrics(None)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Metrics, E> {
                let address = text.parse();
                let address = address.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self));
                address.map(|address| Metrics(Some(address)))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// Limits of who asks, where 0 is none, and of what is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limited {
    /// Open connections of one address.
    pub connections_per_source: u32,
    /// Requests of one address a second, twice that at once.
    pub requests_per_source: u32,
    /// The same for all requests that one tenant gets.
    pub requests_per_tenant: u32,
    /// What one tenant has open at the same time: requests under way, WebSockets until they end, connections that pass
    /// through and flows of datagrams, all together. Of these flows a tenant has 4096 at most in any case. A stand-alone
    /// balancer, which has no tenants, has no such limit unless it is given one.
    #[schema(default = 16384)]
    pub connections_per_tenant: Option<u32>,
    /// Bytes of a request's body.
    pub body: u64,
    /// Bytes of a request's head, 1024 to 1048576.
    #[schema(value_type = Option<u32>, default = 65536)]
    pub head: Option<Head>,
    /// How long a request's head may take to arrive, `1s` to `1h`.
    #[schema(value_type = Option<String>, default = "15s")]
    pub head_time: Option<Span>,
    /// How long a connection may wait for its next request, `1s` to `1h`.
    #[schema(value_type = Option<String>, default = "60s")]
    pub idle: Option<Span>,
    /// How long a WebSocket or a connection of bytes may be silent, `1s` to `1h`. AWS's balancers end WebSockets after
    /// 60 s and bytes after 350 s.
    #[schema(value_type = Option<String>, default = "10m")]
    pub tunnel: Option<Span>,
}

/// No tenant has all of a worker.
const TENANT: u32 = 16_384;

impl Limited {
    pub fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            source_connections: self.connections_per_source,
            source_requests: self.requests_per_source,
            tenant_requests: self.requests_per_tenant,
            tenant_connections: self.connections_per_tenant.unwrap_or(TENANT),
            body: self.body,
            head: self.head.map_or(usual.head, |head| head.0),
            head_time: self.head_time.map_or(usual.head_time, |span| span.0),
            idle: self.idle.map_or(usual.idle, |span| span.0),
            tunnel: self.tunnel.map_or(usual.tunnel, |span| span.0),
            ..usual
        }
    }
}

/// Has these limits hold from now on, at all that comes next.
pub fn hold(now: Limits, held: &watch::Sender<Limits>) {
    if held.send_if_modified(|held| std::mem::replace(held, now) != now) {
        tracing::info!(limits = ?now, "limits in force");
    }
}

/// Bytes of a request's head, 1 KiB to 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head(usize);

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::deserialize(deserializer)? {
            bytes @ 1_024..=1_048_576 => Ok(Self(bytes)),
            _ => Err(D::Error::custom("a head may have 1024 to 1048576 bytes")),
        }
    }
}

/// `15s`; 1 s to 1 h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let span = SignedDuration::deserialize(deserializer)?;
        let range = SignedDuration::from_secs(1)..=SignedDuration::from_hours(1);
        match range.contains(&span) {
            true => Ok(Self(span.unsigned_abs())),
            false => Err(D::Error::custom("it must be 1s to 1h")),
        }
    }
}

/// Threads, 1 at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers(pub usize);

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::deserialize(deserializer)? {
            count @ 1..=1_024 => Ok(Self(count)),
            _ => Err(D::Error::custom("somebody must serve: 1 to 1024 workers")),
        }
    }
}

impl Workers {
    /// One per core when nothing is said.
    pub fn or_cores(wanted: Option<Self>) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        wanted.map_or_else(cores, |workers| workers.0)
    }
}

/// 1.2 or 1.3, as a number or as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Minimum(pub Version);

impl<'de> Deserialize<'de> for Minimum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl de::Visitor<'_> for Read {
            type Value = Minimum;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("1.2 or 1.3")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Minimum, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Minimum, E> {
                match text {
                    "1.2" => Ok(Minimum(Version::Tls12)),
                    "1.3" => Ok(Minimum(Version::Tls13)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// A cipher suite as rustls names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cipher(pub String);

impl<'de> Deserialize<'de> for Cipher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = edge::ciphers();
        match known.contains(&name) {
            true => Ok(Self(name)),
            false => Err(D::Error::custom(format!(
                "there is no cipher suite `{name}`: there are {}",
                known.join(", ")
            ))),
        }
    }
}

/// Whose certificates are let in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Trusted {
    /// PEM: who may have signed one.
    #[schema(value_type = String)]
    pub trust: Utf8PathBuf,
    /// PEM: lists of what is revoked, in date.
    #[schema(value_type = Option<String>)]
    pub revoked: Option<Utf8PathBuf>,
}

impl Trusted {
    pub fn clients(&self) -> Clients {
        Clients {
            trust: self.trust.clone(),
            revoked: self.revoked.clone(),
        }
    }
}

/// What lines of an access log look like. `short` when nothing is said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    #[default]
    Short,
    Alb,
    Json,
}

impl From<Shape> for edge::Format {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Short => Self::Short,
            Shape::Alb => Self::Alb,
            Shape::Json => Self::Json,
        }
    }
}

/// The access log of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `short` (default), `alb` or `json`. Whatever it is, `vend logs --access` has short lines.
    pub format: Shape,
    /// One request in so many is written.
    pub one_in: u32,
    /// What one file may have; 0 is no limit.
    pub size_mib: u64,
    /// How old a file gets; 0 is no limit.
    pub age_h: u64,
    /// What all files together may have; 0 is no limit.
    pub keep_mib: u64,
}

impl Default for AccessLog {
    fn default() -> Self {
        let Rotate {
            size_mib,
            age_h,
            keep_mib,
        } = Rotate::default();
        Self {
            format: Shape::default(),
            one_in: 1,
            size_mib,
            age_h,
            keep_mib,
        }
    }
}

impl AccessLog {
    /// At this path. Where its lines are not short, tenants' are in `newest.log` beside it.
    ///
    /// # Errors
    ///
    /// Why it cannot be so.
    pub fn log(&self, path: Utf8PathBuf) -> Result<edge::Log, String> {
        let rotate = Rotate {
            size_mib: self.size_mib,
            age_h: self.age_h,
            keep_mib: self.keep_mib,
        };
        Ok(edge::Log {
            newest: Some(path.with_file_name("newest.log")),
            path,
            format: self.format.into(),
            one_in: self.one_in,
            rotation: rotate.rotation()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Platform;

    use super::*;

    fn read(text: &str) -> Result<Platform, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, place, why) in [
            ("[edge]\nmetrics = 'x'", "line 2, column 11", "an address such as"),
            ("[edge]\nmetrics = true", "line 2", "or false"),
            ("[edge]\n\nminimum = 1.1", "line 3, column 11", "1.2 or 1.3"),
            (
                "[edge]\nciphers = ['TLS_NONE']",
                "line 2",
                "there is no cipher suite `TLS_NONE`: there are TLS13_",
            ),
            ("[edge]\nworkers = 0", "line 2", "somebody must serve"),
            ("[edge.limits]\nhead = 10", "line 2", "1024 to 1048576"),
            ("[edge.limits]\nhead_time = '0s'", "line 2", "1s to 1h"),
            ("[edge.limits]\nrequests = 1", "line 2", "requests_per_tenant"),
            ("[access_log]\nformat = 'clf'", "line 2", "`short`, `alb`, `json`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(why), "{text}: {error}");
        }
    }

    /// The keys of a section, as they are told to who has written another.
    fn keys(section: &str) -> Vec<String> {
        let error = read(&format!("[{section}]\nnobody = 1")).unwrap_err().to_string();
        let (_, known) = error.split_once("expected one of ").unwrap();
        let names = known.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }

    #[test]
    fn the_guide_has_every_key_with_its_default() {
        let guide = include_str!("../../../../docs/guides/operating.md");
        let (_, text) = guide.split_once("```toml\ndomain = ").unwrap();
        let (text, _) = text.split_once("\n```").unwrap();
        let text = format!("domain = {text}\n");
        for section in ["edge", "edge.limits", "access_log"] {
            let (_, own) = text.split_once(&format!("\n[{section}]")).unwrap();
            let own = own.split("\n[").next().unwrap();
            for key in keys(section).iter().filter(|key| *key != "limits") {
                let says = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
                assert!(own.lines().any(says), "[{section}] {key}");
            }
        }
        let (said, usual) = (read(&text).unwrap(), Platform::default());
        assert_eq!(said.edge.limits.limits(), usual.edge.limits.limits());
        let edge = Edge {
            limits: Limited::default(),
            ..said.edge
        };
        assert_eq!((edge, said.access_log), (usual.edge, usual.access_log));
    }

    #[test]
    fn what_is_said_is_what_the_edge_gets() {
        let platform = read(
            "[edge]\nmetrics = false\nminimum = 1.3\nproxied = true\nplain_http = true\n\
             [edge.limits]\nrequests_per_tenant = 7\nconnections_per_tenant = 8\nhead = 2048\nidle = '5s'\ntunnel = '60s'\n\
             [access_log]\nformat = 'json'\none_in = 10\nsize_mib = 1\n",
        )
        .unwrap();
        let (edge, limits) = (&platform.edge, platform.edge.limits.limits());
        assert_eq!(
            (edge.metrics.0, edge.minimum.0, edge.proxied, edge.plain_http),
            (None, Version::Tls13, true, true)
        );
        assert_eq!((limits.tenant_requests, limits.tenant_connections), (7, 8));
        assert_eq!(limits.head, 2048);
        assert_eq!(limits.idle, Duration::from_secs(5));
        assert_eq!(limits.tunnel, Duration::from_secs(60));
        assert_eq!(limits.head_time, Limits::default().head_time);
        let log = platform.access_log.log("log".into()).unwrap();
        assert_eq!(
            (log.format, log.one_in, log.rotation.size),
            (edge::Format::Json, 10, 1 << 20)
        );
        let usual = Platform::default().edge;
        assert_eq!(usual.metrics.0.unwrap().to_string(), "127.0.0.1:9180");
        assert!(!usual.plain_http);
    }
}
