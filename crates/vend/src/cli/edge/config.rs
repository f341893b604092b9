//! `edge.yaml`: listeners, rules and target groups of a load balancer without a platform. A file that changes is put in
//! force at once, but for its listeners; one that is wrong is named and changes nothing.

mod alone;
mod file;

use std::net::{SocketAddr, TcpListener, UdpSocket};

use camino::Utf8Path;
use edge::{Acme, Challenge, Datagrams, Dns, Listener, Speaks, Tls, Unbound};
use model::{
    Place,
    route::{Action, Own, Rule, Table, Target, TargetGroup, Weighted, matches},
};

use super::Failure;
use crate::config::{Data, Trusted};

use file::{Config, Group, Listens, Spoken, Way, Written};

pub use alone::run;
pub use file::keys;

fn read(file: &Utf8Path) -> Result<Config, Failure> {
    let bad = |why: String| Failure {
        cause: Some(why),
        ..Failure::usage(format!("{file} cannot be used"))
    };
    let bytes = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let name = file.as_str();
    // What programs write may be larger than what people do.
    if file.extension() == Some("json") {
        return serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()));
    }
    let text = model::spec::decode(name, &bytes).map_err(|problem| bad(problem.to_string()))?;
    let value = model::spec::plain(name, text).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        bad(problems.join("\n"))
    })?;
    written_as(value).map_err(|(steps, why)| {
        let key = steps.join(".");
        let place = model::spec::place(text, &steps);
        let place = place.map_or(String::new(), |(line, column)| format!("{line}:{column}: "));
        bad(format!(
            "{place}{}{why}",
            if key.is_empty() { key } else { format!("`{key}`: ") }
        ))
    })
}

/// What a value says; else where in it something is wrong, step by step, and what.
fn written_as(value: serde_json::Value) -> Result<Config, (Vec<String>, String)> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        use serde_path_to_error::Segment;
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let steps = error.path().iter().filter_map(step).collect();
        (steps, error.into_inner().to_string())
    })
}

/// Keys with what they say.
type Fixed = [(&'static str, String); 9];

impl Config {
    /// What it says of rules and target groups, which it no longer has afterwards: there may be a hundred thousand.
    fn table(&mut self) -> Result<Table, Failure> {
        let place: Place = "local/edge/main".parse().expect("these are names");
        let rules = std::mem::take(&mut self.rules);
        let rules = (1..)
            .zip(rules)
            .map(|(priority, rule)| rule.made(priority, &place));
        let groups = std::mem::take(&mut self.target_groups).into_iter();
        let table = Table {
            version: 1,
            rules: rules.collect::<Result<_, _>>()?,
            target_groups: groups.map(|(name, group)| (name, group.made())).collect(),
        };
        table
            .check()
            .map_err(|invalid| Failure::usage(invalid.to_string()))?;
        Ok(table)
    }

    /// Refuses what would listen nowhere, or say something that nobody looks at. The table is the file's own.
    fn sound(&self, table: &Table) -> Result<(), Failure> {
        if self.listeners.is_empty() {
            return Err(Failure::usage("`listeners` is empty: nobody could come"));
        }
        let idle = |listens: &Listens| Some((listens.address, listens.idle_key()?));
        match self.listeners.iter().find_map(idle) {
            Some((address, (key, of))) => Err(Failure::usage(format!(
                "the listener {address} has `{key}`, which is of {of}"
            ))),
            None => self.introduces(table),
        }
    }

    /// Refuses groups whose targets are to hear the word of a proxy and never would: it stands before bytes, and nowhere
    /// else.
    fn introduces(&self, table: &Table) -> Result<(), Failure> {
        let wanting = table.target_groups.iter();
        for (name, _) in wanting.filter(|(_, group)| group.proxy.is_some()) {
            let forwards = |rule: &&Rule| match &rule.action {
                Action::Forward { groups, .. } => groups.iter().any(|weighted| weighted.group == *name),
                Action::FixedResponse { .. } | Action::Redirect(_) => false,
            };
            let leads = |spoken: &[Spoken]| {
                let mut these = self.listeners.iter().filter(|one| spoken.contains(&one.speaks));
                these.find(|listens| {
                    table
                        .rules
                        .iter()
                        .filter(forwards)
                        .any(|rule| listens.is_for(rule))
                })
            };
            if leads(&[Spoken::Tcp, Spoken::Sni]).is_none() && table.rules.iter().any(|rule| forwards(&rule))
            {
                return Err(Failure::usage(format!(
                    "the target group `{name}` has `proxy`, which is of connections that pass as bytes: \
                     no listener of `tcp` or `sni` leads to it"
                )));
            }
            if let Some(listens) = leads(&[Spoken::Udp]) {
                let address = listens.address;
                tracing::warn!(
                    group = name, listener = %address,
                    "`proxy` of the target group `{name}` is not said of datagrams, which come to it from {address}"
                );
            }
        }
        Ok(())
    }

    /// Those that could be bound, and those that are tried again: one address that somebody else has takes nobody
    /// down. When nothing can be bound, that is an error.
    fn listeners(&self) -> Result<(Vec<Listener>, Vec<Unbound>), Failure> {
        let (mut bound, mut unbound, mut failure) = (Vec::new(), Vec::new(), None);
        for listens in self.listeners.iter().filter(|one| one.speaks != Spoken::Udp) {
            let wanted = listens.wanted()?;
            match TcpListener::bind(listens.address) {
                Ok(socket) => bound.push(wanted.at(socket)),
                Err(error) => {
                    failure.get_or_insert_with(|| listens.failed(&error));
                    unbound.push(wanted);
                }
            }
        }
        match failure {
            Some(failure) if bound.is_empty() => Err(failure),
            _ => Ok((bound, unbound)),
        }
    }

    fn datagrams(&self) -> Result<Vec<Datagrams>, Failure> {
        let these = self
            .listeners
            .iter()
            .filter(|listens| listens.speaks == Spoken::Udp);
        these.map(Listens::datagrams).collect()
    }

    fn names(&self) -> Result<Option<Dns>, Failure> {
        let Some(dns) = self.dns.as_ref().filter(|dns| !dns.listen.is_empty()) else {
            return Ok(None);
        };
        let bind = |at: &SocketAddr| match (UdpSocket::bind(at), TcpListener::bind(at)) {
            (Ok(udp), Ok(tcp)) => Ok((udp, tcp)),
            (Err(error), _) | (_, Err(error)) => Err(Failure {
                cause: Some(error.to_string()),
                ..Failure::failed(format!("cannot answer for names at {at}"))
            }),
        };
        if dns.zones.is_empty() {
            return Err(Failure::usage("`dns` needs `zones`"));
        }
        Ok(Some(Dns {
            zones: dns
                .ready("")
                .map_err(|why| Failure::usage(format!("`dns`: {why}")))?,
            sockets: dns.listen.iter().map(bind).collect::<Result<_, Failure>>()?,
            unbound: Vec::new(),
            rate: dns.rate,
        }))
    }

    fn log(&self) -> Result<Option<edge::Log>, Failure> {
        let Some(log) = &self.access_log else {
            return Ok(None);
        };
        Ok(Some(edge::Log {
            format: log.format.into(),
            one_in: log.one_in,
            rotation: log.rotate.rotation().map_err(Failure::usage)?,
            // Nobody asks for lines here: there are no tenants.
            ..edge::Log::short(log.path.clone())
        }))
    }

    fn metrics(&self) -> Result<Option<TcpListener>, Failure> {
        let Some(address) = self.metrics else {
            return Ok(None);
        };
        let failed = |error: std::io::Error| Failure {
            cause: Some(error.to_string()),
            ..Failure::failed(format!("cannot listen at {address}"))
        };
        TcpListener::bind(address).map(Some).map_err(failed)
    }

    fn limits(&self) -> edge::Limits {
        edge::Limits {
            tenant_connections: self.limits.connections_per_tenant.unwrap_or(0),
            ..self.limits.limits()
        }
    }

    /// What is read when it starts, and never again.
    fn fixed(&self) -> Fixed {
        [
            ("listeners", format!("{:?}", self.listeners)),
            ("access_log", format!("{:?}", self.access_log)),
            ("metrics", format!("{:?}", self.metrics)),
            ("acme", format!("{:?}", self.acme)),
            ("dns", format!("{:?}", self.dns)),
            ("secrets", format!("{:?}", self.secrets)),
            ("roots", format!("{:?}", self.roots)),
            ("zone", format!("{:?}", self.zone)),
            ("workers", format!("{:?}", self.workers)),
        ]
    }

    /// The keys that differ and have no effect before the next start.
    fn later(&self, started: &Fixed) -> Vec<&'static str> {
        let both = self.fixed().into_iter().zip(started);
        let changed = both.filter(|((_, now), (_, before))| now != before);
        changed.map(|((key, _), _)| key).collect()
    }

    fn acme(&self, data: &Data) -> Result<Option<Acme>, Failure> {
        let Some(authority) = &self.acme else {
            return Ok(None);
        };
        let folder = self
            .listeners
            .iter()
            .find_map(|listens| listens.certificates.clone());
        let certificates =
            folder.ok_or_else(|| Failure::usage("`acme` needs an https listener with `certificates`"))?;
        Ok(Some(Acme {
            directory: authority.directory.clone(),
            contact: authority.contact.clone(),
            roots: authority.roots.clone(),
            account: data.edge().join("acme"),
            certificates,
            challenge: match authority.challenge {
                Way::Http => Challenge::Http,
                Way::Tls => Challenge::Tls,
                Way::Dns => Challenge::Dns,
            },
            wanted: authority.certificates.clone().into_iter().collect(),
        }))
    }
}

impl Written {
    fn made(self, priority: u32, place: &Place) -> Result<Rule, Failure> {
        let mut hosts = self.hosts;
        hosts.iter_mut().for_each(|host| host.make_ascii_lowercase());
        let weighted = |(group, weight)| Weighted { group, weight };
        let action = match (self.forward, self.redirect, self.answer) {
            (Some(groups), None, None) => Action::Forward {
                groups: groups.into_iter().map(weighted).collect(),
                stickiness: self.stickiness,
            },
            (None, Some(redirect), None) => Action::Redirect(redirect),
            (None, None, Some(fixed)) => Action::FixedResponse {
                status: fixed.status,
                content_type: fixed.content_type,
                body: fixed.body,
            },
            _ => {
                return Err(Failure::usage(format!(
                    "rule {priority} must have one of forward, redirect and answer"
                )));
            }
        };
        Ok(Rule {
            priority,
            place: place.clone(),
            hosts,
            paths: self.paths,
            conditions: self.conditions,
            transforms: self.transforms,
            access: Vec::new(),
            own: Own::default(),
            authenticate: self.authenticate.map(Box::new),
            action,
        })
    }
}

impl Group {
    fn made(self) -> TargetGroup {
        let target = |address: SocketAddr| Target {
            id: address.to_string(),
            address,
        };
        TargetGroup {
            targets: self.targets.into_iter().map(target).collect(),
            health: self.health,
            deregistration_delay: self.deregistration_delay,
            algorithm: self.algorithm,
            protocol: self.protocol,
            slow_start: self.slow_start,
            stickiness: self.stickiness,
            ejection: self.ejection,
            proxy: self.proxy,
            zones: self.zones,
            waking: false,
            direct: self.direct,
            away: None,
        }
    }
}

impl Listens {
    /// A key that means nothing at what is spoken there, and where it would.
    fn idle_key(&self) -> Option<(&'static str, &'static str)> {
        let of_https = [
            ("certificates", self.certificates.is_some()),
            ("minimum", self.minimum.is_some()),
            ("ciphers", !self.ciphers.is_empty()),
            ("clients", self.clients.is_some()),
        ];
        let of_bytes = [("host", self.host.is_some())];
        let of_streams = [("proxied", self.proxied)];
        let said = |keys: &[(&'static str, bool)]| keys.iter().find(|(_, said)| *said).map(|(key, _)| *key);
        let https = said(&of_https).filter(|_| self.speaks != Spoken::Https);
        let bytes = said(&of_bytes).filter(|_| !matches!(self.speaks, Spoken::Tcp | Spoken::Udp));
        let streams = said(&of_streams).filter(|_| self.speaks == Spoken::Udp);
        https
            .map(|key| (key, "`https`"))
            .or(bytes.map(|key| (key, "`tcp` and `udp`")))
            .or(streams.map(|key| (key, "what has connections")))
    }

    /// Can what comes there be for this rule?
    fn is_for(&self, rule: &Rule) -> bool {
        let host = self.host.as_ref().map(|host| host.to_ascii_lowercase());
        let named = |pattern: &String| host.as_ref().is_none_or(|host| matches(pattern, host));
        rule.hosts.is_empty() || rule.hosts.iter().any(named)
    }

    fn datagrams(&self) -> Result<Datagrams, Failure> {
        let host = self
            .host
            .clone()
            .ok_or_else(|| Failure::usage(format!("the listener {} needs `host`", self.address)))?;
        let socket = UdpSocket::bind(self.address).map_err(|error| self.failed(&error))?;
        Ok(Datagrams::new(socket, host))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure {
            cause: Some(error.to_string()),
            ..Failure::failed(format!("cannot listen at {}", self.address))
        }
    }

    fn wanted(&self) -> Result<Unbound, Failure> {
        let needs = |what: &str| Failure::usage(format!("the listener {} needs `{what}`", self.address));
        let speaks = match self.speaks {
            Spoken::Http => Speaks::Http,
            Spoken::Sni => Speaks::Sni,
            Spoken::Udp => unreachable!("datagrams have sockets of their own"),
            Spoken::Tcp => Speaks::Tcp {
                host: self.host.clone().ok_or_else(|| needs("host"))?,
            },
            Spoken::Https => Speaks::Https(Box::new(Tls {
                certificates: self.certificates.clone().ok_or_else(|| needs("certificates"))?,
                minimum: self.minimum.unwrap_or_default().0,
                ciphers: self.ciphers.iter().map(|cipher| cipher.0.clone()).collect(),
                clients: self.clients.as_ref().map(Trusted::clients),
            })),
        };
        Ok(Unbound {
            address: self.address,
            speaks,
            proxied: self.proxied,
        })
    }
}

#[cfg(test)]
mod tests;
