//! The names of the platform: an authoritative DNS server for its zones, over UDP and TCP.
//!
//! The room exists so that a platform needs no other name server: what is routed has a name the moment it is routed, what
//! an authority asks for (ACME, DNS-01) is answered at once, and all of it works with every other role dead. Messages are
//! read and written by hickory; what is answered comes from the table in force. It must not know how to ask anybody
//! else: there is no recursion, no forwarding and no transfer of zones.
//!
//! `names` knows what stands where, `answer` turns a query into an answer without waiting for anything, `serve` owns the
//! sockets, and `limit` keeps the answers from being aimed at somebody.

mod answer;
mod limit;
mod names;
mod serve;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};

use crate::metrics;

pub use answer::{Server, Way};
pub use names::seen;
pub use serve::run;

/// The zones that are served, and where they are asked for.
#[derive(Debug)]
pub struct Dns {
    pub zones: Vec<Zone>,
    /// Already bound, each pair at the same address.
    pub sockets: Vec<(UdpSocket, TcpListener)>,
    /// Where none could be bound: it is tried again for as long as the edge runs.
    pub unbound: Vec<SocketAddr>,
    /// Answers over UDP to one network (24 bits of IPv4, 56 of IPv6) a second, twice that at once. What is above it is
    /// dropped, or sent to TCP every other time, where addresses cannot be forged. 0 is no limit.
    pub rate: u32,
}

/// One zone: everything below its apex is answered here, and by nobody else.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    apex: Name,
    /// Lower case, without the last dot.
    text: String,
    servers: Vec<Name>,
    addresses: Vec<IpAddr>,
    contact: Name,
    /// Seconds.
    ttl: u32,
}

/// A zone as its operator writes it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `apps.example.com`
    pub apex: &'a str,
    /// Names of the servers that its parent names; those inside of the zone have `addresses`. None: `ns1.` and the apex.
    pub servers: &'a [String],
    /// Where the load balancer is reached.
    pub addresses: &'a [IpAddr],
    /// A mail address. None: `hostmaster@` and the apex.
    pub contact: Option<&'a str>,
    /// Seconds for which answers may be kept.
    pub ttl: u32,
}

impl Zone {
    /// # Errors
    ///
    /// What is wrong with it, as a sentence.
    pub fn new(wanted: Wanted<'_>) -> Result<Self, String> {
        let text = wanted.apex.trim_end_matches('.').to_ascii_lowercase();
        let apex = host(&text)?;
        let contact = match wanted.contact {
            None => apex.prepend_label("hostmaster").map_err(|e| e.to_string())?,
            Some(mail) => mailbox(mail)?,
        };
        let mut servers = Vec::new();
        for server in wanted.servers {
            servers.push(host(&server.trim_end_matches('.').to_ascii_lowercase())?);
        }
        if servers.is_empty() {
            servers.push(apex.prepend_label("ns1").map_err(|e| e.to_string())?);
        }
        if wanted.addresses.is_empty() {
            return Err(format!(
                "the zone `{text}` has no addresses: its names would lead nowhere"
            ));
        }
        if let Some(bad) = wanted
            .addresses
            .iter()
            .find(|a| a.is_unspecified() || a.is_multicast())
        {
            return Err(format!("`{bad}` cannot be the address of a load balancer"));
        }
        if wanted.ttl > 86_400 {
            return Err("names change with their apps: the TTL is a day at most".into());
        }
        Ok(Self {
            apex,
            text,
            servers,
            addresses: wanted.addresses.to_vec(),
            contact,
            ttl: wanted.ttl,
        })
    }

    /// `apps.example.com`
    pub fn apex(&self) -> &str {
        &self.text
    }

    /// Is a host, in lower case, the apex or below it?
    pub fn holds(&self, host: &str) -> bool {
        host.strip_suffix(self.text.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// Can it be read as a message? For fuzzing.
pub fn reads(bytes: &[u8]) -> bool {
    hickory_proto::op::Message::from_vec(bytes).is_ok()
}

/// A name of labels that hosts have.
fn host(text: &str) -> Result<Name, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    let wrong = || format!("`{text}` is not a domain name, such as apps.example.com");
    if text.len() > 200 || !text.split('.').all(label) {
        return Err(wrong());
    }
    let mut name = Name::from_ascii(text).map_err(|_| wrong())?;
    name.set_fqdn(true);
    Ok(name)
}

/// `ops@example.com` as SOA has it (RFC 1035, section 3.3.13).
fn mailbox(mail: &str) -> Result<Name, String> {
    let wrong = || format!("`{mail}` is not a mail address");
    let (person, at) = mail.split_once('@').ok_or_else(wrong)?;
    if !(1..=63).contains(&person.len()) || !person.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong());
    }
    host(&at.to_ascii_lowercase())
        .and_then(|at| at.prepend_label(person.as_bytes()).map_err(|e| e.to_string()))
        .map_err(|_| wrong())
}

/// One set of records as it is answered now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSeen {
    pub name: String,
    /// `A`, `AAAA`, `NS`, `SOA`, `TXT`; empty for a name that is not answered.
    pub kind: String,
    /// Seconds.
    pub ttl: u32,
    pub values: Vec<String>,
    /// What it comes from, or why it is not answered.
    pub why: String,
}

/// What the names share with the rest of the edge: texts that an authority asks for, and counts.
#[derive(Default)]
pub struct Held {
    /// Set once, when the edge starts.
    pub zones: OnceLock<Vec<Zone>>,
    /// By name in lower case, without the last dot.
    texts: ArcSwap<BTreeMap<String, BTreeSet<String>>>,
    /// Answers by their code, and packets that got none.
    codes: [AtomicU64; CODES.len()],
    limited: AtomicU64,
    dropped: AtomicU64,
}

/// Codes that are answered, and their names in Prometheus.
const CODES: [(u16, &str); 7] = [
    (0, "noerror"),
    (1, "formerr"),
    (2, "servfail"),
    (3, "nxdomain"),
    (4, "notimp"),
    (5, "refused"),
    (16, "badvers"),
];

impl Held {
    pub fn zones(&self) -> &[Zone] {
        self.zones.get().map_or(&[], Vec::as_slice)
    }

    /// Answers a TXT query for this name with this text too, or no longer. Two orders for one name can be under way.
    pub fn text(&self, name: &str, text: &str, there: bool) {
        self.texts.rcu(|held| {
            let mut next = BTreeMap::clone(held);
            let texts = next.entry(name.to_ascii_lowercase()).or_default();
            match there {
                true => _ = texts.insert(text.to_owned()),
                false => _ = texts.remove(text),
            }
            next.retain(|_, texts| !texts.is_empty());
            next
        });
    }

    fn count(&self, code: u16) {
        if let Some(at) = CODES.iter().position(|(known, _)| *known == code) {
            self.codes[at].fetch_add(1, Relaxed);
        }
    }

    /// As Prometheus text.
    pub fn write(&self, out: &mut String) {
        let name = "vend_edge_names_answers_total";
        metrics::head(out, name, "counter", "Answers to queries for names, by code.");
        for ((_, code), count) in CODES.iter().zip(&self.codes) {
            let count = count.load(Relaxed);
            let _ = writeln!(out, "{name}{{code=\"{code}\"}} {count}");
        }
        for (what, help, count) in [
            (
                "limited",
                "Answers that were cut or left out because a source asked too much.",
                &self.limited,
            ),
            ("dropped", "Datagrams that were no query.", &self.dropped),
        ] {
            let name = format!("vend_edge_names_{what}_total");
            metrics::single(out, &name, help, count.load(Relaxed));
        }
    }
}
