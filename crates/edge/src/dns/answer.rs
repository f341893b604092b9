//! From the bytes of a query to the bytes of its answer. Nothing waits here, and nothing is remembered.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, HINFO, NS, SOA, TXT},
    },
};

use super::{
    Zone,
    names::{Found, Leads, Names, key, leads},
};
use crate::{clock, live::Shared};

/// Bytes over UDP at most, whatever the asker says: so much goes through any network in one piece (RFC 9715).
const UDP: usize = 1232;
/// Bytes over UDP to whoever says nothing (RFC 1035, section 4.2.1).
const SMALL: usize = 512;
/// Bytes of a query. A question with all options that are in use has some hundred.
pub const QUERY: usize = 4096;
/// Seconds for which it may be kept that something is not there: it may be there soon.
const NEGATIVE: u32 = 30;
/// Texts for authorities change from one check to the next.
const TEXT: u32 = 0;

/// What is answered from.
pub struct Server {
    zones: Vec<(Zone, String)>,
    shared: Arc<Shared>,
    names: ArcSwap<Names>,
    making: std::sync::Mutex<()>,
}

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Udp,
    /// Too many came from there: it is only told to ask over TCP.
    Deferred,
    Tcp,
}

impl Server {
    pub fn new(zones: Vec<Zone>, shared: Arc<Shared>) -> Self {
        let keyed = |zone: Zone| {
            let key = key(&zone.text).expect("an apex was found to be a name");
            (zone, key)
        };
        Self {
            zones: zones.into_iter().map(keyed).collect(),
            shared,
            names: ArcSwap::from_pointee(Names::none()),
            making: std::sync::Mutex::default(),
        }
    }

    /// The answer to a packet, or none to what is no query at all.
    pub fn answer(&self, packet: &[u8], way: Way) -> Option<Vec<u8>> {
        let answered = self.answered(packet, way);
        match &answered {
            // The low bits of the code stand in the header; the others are only BADVERS's.
            Some((_, code)) => self.shared.names.count(*code),
            None => _ = self.shared.names.dropped.fetch_add(1, Relaxed),
        }
        answered.map(|(bytes, _)| bytes)
    }

    fn answered(&self, packet: &[u8], way: Way) -> Option<(Vec<u8>, u16)> {
        let head: &[u8; 12] = packet.first_chunk()?;
        // An answer is never answered: two servers would talk for ever.
        if head[2] & 0x80 != 0 {
            return None;
        }
        let refused = |code| Some((bare(head, code), u16::from(code)));
        if (head[2] >> 3) & 15 != u8::from(OpCode::Query) {
            return refused(ResponseCode::NotImp);
        }
        let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        // Looked at before anything is read: a count is no reason to make room.
        if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 2 || packet.len() > QUERY {
            return refused(ResponseCode::FormErr);
        }
        let Ok(query) = Message::from_vec(packet) else {
            return refused(ResponseCode::FormErr);
        };
        let Some(question) = query.queries.first() else {
            return refused(ResponseCode::FormErr);
        };
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&query.metadata);
        answer.metadata.checking_disabled = false;
        answer.queries = vec![question.clone()];
        let version = query.edns.as_ref().map(|edns| {
            let mut ours = Edns::new();
            ours.set_max_payload(UDP as u16).set_version(0);
            ours.set_dnssec_ok(edns.flags().dnssec_ok);
            answer.edns = Some(ours);
            edns.version()
        });
        match (version, way) {
            (Some(1..), _) => answer.metadata.response_code = ResponseCode::BADVERS,
            (_, Way::Deferred) => answer.metadata.truncation = true,
            _ => self.fill(&mut answer, question),
        }
        let room = match (way, &query.edns) {
            (Way::Tcp, _) => usize::from(u16::MAX),
            (_, Some(edns)) => usize::from(edns.max_payload()).clamp(SMALL, UDP),
            (_, None) => SMALL,
        };
        let code = u16::from(answer.metadata.response_code);
        Some((written(answer, room)?, code))
    }

    fn fill(&self, answer: &mut Message, question: &Query) {
        let (name, kind) = (question.name(), question.query_type());
        let zone = self.zones.iter().filter(|(zone, _)| zone.apex.zone_of(name));
        // A zone in another one is asked first.
        let zone = zone.max_by_key(|(zone, _)| zone.apex.num_labels());
        let transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR);
        let (Some((zone, apex)), DNSClass::IN, false) = (zone, question.query_class(), transfer) else {
            answer.metadata.response_code = ResponseCode::Refused;
            return;
        };
        answer.metadata.authoritative = true;
        let names = self.names();
        let records = match key(&plain(name)) {
            None => None,
            Some(key) => self.records(&names, (zone, apex), &key, name, kind),
        };
        match records {
            Some(records) if !records.is_empty() => answer.answers = records,
            found => {
                if found.is_none() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                answer.authorities = vec![soa(zone, &names, NEGATIVE.min(zone.ttl))];
            }
        }
        if kind == RecordType::NS && !answer.answers.is_empty() {
            answer.additionals = glue(zone);
        }
    }

    /// Records of a name; none when there is no such name, and an empty list when it has others.
    fn records(
        &self,
        names: &Names,
        (zone, apex): (&Zone, &str),
        key: &str,
        name: &Name,
        kind: RecordType,
    ) -> Option<Vec<Record>> {
        let record = |ttl, data| Record::from_rdata(name.clone(), ttl, data);
        let texts = self.shared.names.texts.load();
        let beside = |key: &str| {
            let servers = zone.servers.iter().map(plain);
            let mut all = texts.keys().cloned().chain(servers);
            all.any(|name| super::names::key(&name).is_some_and(|name| name.starts_with(key)))
        };
        let found = names.find(key, apex, beside);
        let own = texts.get(&plain(name));
        let server = zone.servers.iter().any(|server| server == name);
        if matches!(found, Found::Nothing) {
            return None;
        }
        if kind == RecordType::ANY {
            // Everything at once is only good for floods (RFC 8482, section 4.2).
            let data = HINFO::new("RFC8482".into(), String::new());
            return Some(vec![record(zone.ttl, RData::HINFO(data))]);
        }
        if kind == RecordType::TXT {
            let text = |text: &String| record(TEXT, RData::TXT(TXT::new(vec![text.clone()])));
            return Some(own.into_iter().flatten().map(text).collect());
        }
        if key == apex && kind == RecordType::SOA {
            return Some(vec![soa(zone, names, zone.ttl)]);
        }
        if key == apex && kind == RecordType::NS {
            let servers = zone.servers.iter();
            return Some(
                servers
                    .map(|server| record(zone.ttl, RData::NS(NS(server.clone()))))
                    .collect(),
            );
        }
        let leads = match found {
            // Whatever a wildcard says: this server is here.
            _ if server => Leads::Here,
            Found::Rule(rule) => leads(rule, clock::ticks()),
            _ if key == apex => Leads::Here,
            _ => return Some(Vec::new()),
        };
        let (ttl, addresses) = match &leads {
            Leads::Here => (zone.ttl, &zone.addresses),
            Leads::There { ttl, addresses } => (*ttl, addresses),
        };
        let fitting = addresses.iter().filter_map(|address| of_kind(address, kind));
        Some(fitting.map(|data| record(ttl, data)).collect())
    }

    /// The names of the table in force.
    fn names(&self) -> Arc<Names> {
        let wanted = Some(self.shared.live.load().version);
        let held = self.names.load_full();
        if held.version == wanted {
            return held;
        }
        // One makes them, the others wait for that: they would do the same.
        let _made = self
            .making
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let held = self.names.load_full();
        if held.version == wanted {
            return held;
        }
        let zones: Vec<Zone> = self.zones.iter().map(|(zone, _)| zone.clone()).collect();
        let made = Arc::new(Names::of(&self.shared, &zones));
        self.names.store(Arc::clone(&made));
        made
    }
}

fn of_kind(address: &IpAddr, kind: RecordType) -> Option<RData> {
    match (address, kind) {
        (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(*ip))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
        _ => None,
    }
}

/// A name as hosts are written: lower case, without the last dot. Labels with other bytes come out as no host has them.
fn plain(name: &Name) -> String {
    let mut text = String::new();
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        // A dot within a label is not one between labels.
        text.extend(label.iter().map(|byte| match byte {
            b'.' => ' ',
            byte => char::from(byte.to_ascii_lowercase()),
        }));
    }
    text
}

fn soa(zone: &Zone, names: &Names, ttl: u32) -> Record {
    // Grows with the table; zones are not transferred, so that people alone look at it.
    let serial = names.version.unwrap_or_default() as u32;
    let (first, contact) = (zone.servers[0].clone(), zone.contact.clone());
    let soa = SOA::new(
        first,
        contact,
        serial.max(1),
        3_600,
        600,
        604_800,
        NEGATIVE.min(zone.ttl),
    );
    Record::from_rdata(zone.apex.clone(), ttl, RData::SOA(soa))
}

/// Addresses of the servers that are in the zone itself.
fn glue(zone: &Zone) -> Vec<Record> {
    let inside = zone.servers.iter().filter(|server| zone.apex.zone_of(server));
    let kinds = [RecordType::A, RecordType::AAAA];
    inside
        .flat_map(|server| {
            let data = kinds.iter().flat_map(|kind| {
                zone.addresses
                    .iter()
                    .filter_map(|address| of_kind(address, *kind))
            });
            data.map(|data| Record::from_rdata(server.clone(), zone.ttl, data))
        })
        .collect()
}

/// The bytes of an answer; what does not fit says so instead, and is asked for over TCP.
fn written(answer: Message, room: usize) -> Option<Vec<u8>> {
    let mut answer = answer;
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    // Addresses of servers are a courtesy.
    answer.additionals.clear();
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    answer.answers.clear();
    answer.authorities.clear();
    answer.metadata.truncation = true;
    answer.to_vec().ok()
}

/// An answer of a header alone, to what could not be read further.
fn bare(query: &[u8; 12], code: ResponseCode) -> Vec<u8> {
    let mut metadata = Metadata::new(
        u16::from_be_bytes([query[0], query[1]]),
        MessageType::Response,
        OpCode::from_u8((query[2] >> 3) & 15),
    );
    metadata.recursion_desired = query[2] & 1 == 1;
    metadata.response_code = code;
    let mut answer = Message::response(metadata.id, metadata.op_code);
    answer.metadata = metadata;
    answer.to_vec().expect("a header has room")
}
