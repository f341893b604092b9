//! What the fuzz targets outside of this crate can reach of its parsers. No interface: it is hidden, and only asserts.

use std::{
    collections::BTreeMap,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use jiff::Timestamp;
use model::route;
use rustls::pki_types::CertificateDer;

use crate::{
    balance::Group,
    book::Book,
    dns,
    draft::{Draft, Gap},
    head::{Ask, CONFUSING},
    http1::{
        frame::{Bad, Body, Chunks, Framing},
        parse,
    },
    lines,
    live::Shared,
    proxy,
    table::{Action, Rule, Rules},
    tls::{check_staple, facts},
    worker::Ends,
};

/// Reads a request's head from any bytes. What is written for the target must be one whole head, and must be read by
/// the same reader as the same request: else two readers could disagree about where it ends.
///
/// # Panics
/// When it is not so.
pub fn request(bytes: &[u8]) {
    let Some(length) = find(bytes) else { return };
    let mut first = Ask::default();
    let Ok(read) = parse::request(&bytes[..length], &ends(), (7, 11), &mut first) else {
        return;
    };
    assert_eq!(find(&first.wire), Some(first.wire.len()), "it writes one head");
    let mut second = Ask::default();
    let again = match parse::request(&first.wire, &ends(), (7, 11), &mut second) {
        Ok(again) => again,
        // The lines that are added can be more than the reader takes.
        Err(Bad("there are too many header fields")) => return,
        Err(bad) => panic!("what is written cannot be read: {bad}"),
    };
    assert_eq!(left(&read.body), left(&again.body), "the body ends elsewhere");
    assert_eq!(
        (first.method_name(), first.target()),
        (second.method_name(), second.target())
    );
    assert!(first.host.is_empty() || first.host == second.host, "another host");
    assert!(!again.http10, "targets get HTTP/1.1");
    assert!(!read.upgrade || read.body.is_over(), "an upgrade has a body");
}

/// Reads an answer's head from any bytes; the first says whether the request was HEAD.
///
/// # Panics
/// When fields pass that must not.
pub fn reply(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else {
        return;
    };
    let Some(length) = find(bytes) else { return };
    let to_head = first & 1 == 1;
    let sink = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
        assert!(
            !name.eq_ignore_ascii_case("transfer-encoding"),
            "framing is our own"
        );
        assert!(
            !value.contains(&b'\n') && !value.contains(&b'\r'),
            "a value has lines"
        );
        out.extend_from_slice(value);
    };
    let Ok((reply, _)) = parse::reply(&bytes[..length], to_head, |_, _| Vec::new(), sink) else {
        return;
    };
    assert!(!to_head || reply.body.is_over(), "an answer to HEAD has a body");
    let until_close = matches!(reply.body, Body::UntilClose);
    assert!(!(until_close && reply.keep), "the connection's end is the body's");
    let _ = (reply.is_interim(), reply.framing(first & 2 == 2));
}

/// Reads a chunked body from any bytes, cut in two where the first byte says: it must read alike in any pieces, and
/// what was read, written anew, must read the same.
///
/// # Panics
/// When it does not.
pub fn chunked(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let cut = usize::from(*cut).min(bytes.len());
    let whole = decode(&[bytes]);
    assert_eq!(whole, decode(&[&bytes[..cut], &bytes[cut..]]), "cut at {cut}");
    let Ok(Some((body, used))) = whole else { return };
    assert!(used <= bytes.len());
    let mut wire = Vec::new();
    Framing::Chunked.data(&mut wire, &body);
    Framing::Chunked.end(&mut wire, None);
    let length = wire.len();
    assert_eq!(decode(&[&wire]), Ok(Some((body, length))));
}

/// The body and the bytes that it took, once it is over.
fn decode(pieces: &[&[u8]]) -> Result<Option<(Vec<u8>, usize)>, Bad> {
    let (mut chunks, mut body, mut used) = (Chunks::default(), Vec::new(), 0);
    for piece in pieces {
        let (count, over) = chunks.decode(piece, |data| body.extend_from_slice(data))?;
        used += count;
        if over {
            return Ok(Some((body, used)));
        }
        assert_eq!(count, piece.len(), "a reader that wants more has used all");
    }
    Ok(None)
}

/// Reads a change of the table from any bytes. What is found good is applied; what is then in force must be what the
/// change says, and each rule must be found, or not, as a walk over all rules finds it.
///
/// # Panics
/// When it is not so.
pub fn change(bytes: &[u8]) {
    let Ok(delta) = serde_json::from_slice::<route::Delta>(bytes) else {
        return;
    };
    let mut book = Book::default();
    if book.check(&delta).is_err() {
        return;
    }
    let mut table = route::Table::default();
    table.change(delta.clone());
    book.apply(&delta, 0);
    assert_eq!(book.source(), table, "what is in force is not what was said");
    let rules = book.index();
    let all = book.rules();
    for rule in &table.rules {
        let host = rule
            .hosts
            .first()
            .map_or("a.test", String::as_str)
            .replace(['*', '?'], "x");
        let path = rule
            .paths
            .first()
            .map_or("/", String::as_str)
            .replace(['*', '?'], "y");
        let mut ask = Ask::default();
        ask.start("GET", &path, &ends());
        if !path.starts_with('/') || !ask.name_host(&host) {
            continue;
        }
        ask.end();
        let found = rules.find(&ask).map(|rule| rule.priority);
        let walked = all.iter().find(|rule| rule.is_for(&ask.host) && rule.fits(&ask));
        assert_eq!(found, walked.map(|rule| rule.priority), "{host}{path}");
        if let Some(rest) = rule_of(&all, rule.priority).rest() {
            let _ = (rest.url(&ask).is_ok(), rest.host(&ask).is_ok());
        }
    }
}

fn rule_of(rules: &[Rule], priority: u32) -> &Rule {
    rules
        .iter()
        .find(|rule| rule.priority == priority)
        .expect("it is in force")
}

/// Makes a few rules and requests of any bytes: each request must be decided as a walk over all rules decides it, before
/// and after some of the rules have gone again.
///
/// # Panics
/// When it is not so.
pub fn rules(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let specs: BTreeMap<u32, route::Rule> = (0..dice.up_to(12))
        .map(|_| dice.rule())
        .map(|rule| (rule.priority, rule))
        .collect();
    let mut all: Vec<Rule> = Vec::new();
    for spec in specs.values() {
        // Rules that are refused never come to be asked.
        if spec.check(|_| true).is_ok() {
            all.push(Rule::new(spec, |name| {
                Some(Group::new(name, Vec::new(), Arc::default(), None))
            }));
        }
    }
    let mut rules = Rules::default();
    rules.change(&[], &all);
    for _ in 0..2 {
        for _ in 0..8 {
            let Some(ask) = dice.ask() else { continue };
            let walked = all.iter().find(|rule| rule.is_for(&ask.host) && rule.fits(&ask));
            let (found, walked) = (rules.find(&ask), walked.map(|rule| rule.priority));
            let asked = || format!("{}{}", ask.host, ask.target());
            assert_eq!(found.map(|rule| rule.priority), walked, "{}", asked());
            if let Some(rule) = found {
                decided(rule, ask);
            }
        }
        let half = all.len() / 2;
        let gone: Vec<Rule> = all.drain(..half).collect();
        rules.change(&gone, &[]);
    }
}

/// What a rule does with a request that is its: what is sent is one head still, and a group that is picked has a weight.
fn decided(rule: &Rule, mut ask: Ask) {
    if let Action::Forward(weights) = &rule.action {
        let picked = weights.pick().map(|group| group.name());
        let weighs = |name| {
            weights
                .weighted()
                .any(|(weight, group)| weight > 0 && group.name() == name)
        };
        assert!(picked.is_none_or(weighs), "it has no weight");
    }
    let Some(rest) = rule.rest().filter(|rest| rest.transforms()) else {
        return;
    };
    let (Ok(url), Ok(host)) = (rest.url(&ask), rest.host(&ask)) else {
        return;
    };
    ask.transform(url.as_deref(), host.as_deref(), "");
    assert_eq!(find(&ask.wire), Some(ask.wire.len()), "it writes one head");
    let mut again = Ask::default();
    match parse::request(&ask.wire, &ends(), (7, 11), &mut again) {
        // A path may come to mean another by what is replaced in it; nothing else may be wrong.
        Err(bad) => assert_eq!(bad.0, CONFUSING, "what is written cannot be read"),
        Ok(_) => {
            assert_eq!(again.method_name(), ask.method_name());
            assert_eq!(again.target(), url.as_deref().unwrap_or(ask.target()));
            let host = host.as_deref().unwrap_or(&ask.host);
            assert!(
                again
                    .host
                    .eq_ignore_ascii_case(host.strip_suffix('.').unwrap_or(host))
            );
        }
    }
}

/// Bytes as choices; nothing is left: the first of everything.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn up_to(&mut self, most: u32) -> u32 {
        let first = self.0.split_off_first().copied().unwrap_or_default();
        u32::from(first) % (most + 1)
    }

    fn text(&mut self, of: &[&str], most: u32) -> String {
        let pieces = 1 + self.up_to(most);
        (0..pieces)
            .map(|_| of[self.up_to(of.len() as u32 - 1) as usize])
            .collect()
    }

    fn texts(&mut self, of: &[&str], prefix: &str) -> Vec<String> {
        (0..self.up_to(3))
            .map(|_| prefix.to_owned() + &self.text(of, 4))
            .collect()
    }

    fn rule(&mut self) -> route::Rule {
        const HOST: [&str; 7] = ["a", "b", ".", "*", "?", "*.", ".a"];
        const PATH: [&str; 5] = ["a", "b", "/", "*", "?"];
        let pair = |dice: &mut Self| route::Pair {
            key: (dice.up_to(1) == 1).then(|| dice.text(&["a", "*"], 1)),
            value: dice.text(&["a", "b", "?", "*", "\\*"], 2),
        };
        let conditions = route::Conditions {
            methods: self.texts(&["GET", "PUT"], ""),
            queries: (0..self.up_to(1)).map(|_| vec![pair(self)]).collect(),
            headers: (0..self.up_to(1))
                .map(|_| route::HeaderCondition {
                    name: self.text(&["x-a", "x-b"], 0),
                    values: vec![self.text(&["a", "B", "*", "?"], 2)],
                    regexes: self.texts(&["a", "b", "^", "$", "."], ""),
                })
                .collect(),
            sources: (0..self.up_to(1))
                .map(|_| self.text(&["192.0.2.1/32", "192.0.0.0/16", "::/0", "10.0.0.0/8"], 0))
                .filter_map(|network| network.parse().ok())
                .collect(),
            path_regexes: (0..self.up_to(1))
                .map(|_| self.text(&["a", "b", "/", "$", "."], 3))
                .collect(),
            host_regexes: (0..self.up_to(1))
                .map(|_| self.text(&["a", "b", "^", ".", "+"], 3))
                .collect(),
        };
        route::Rule {
            priority: self.up_to(40),
            place: "acme/shop/dev".parse().expect("it is a place"),
            hosts: self.texts(&HOST, ""),
            paths: self.texts(&PATH, "/"),
            conditions,
            transforms: self.transforms(),
            authenticate: None,
            action: self.action(),
            access: Vec::new(),
            own: route::Own::default(),
        }
    }

    fn transforms(&mut self) -> route::Transforms {
        let rewrite = |dice: &mut Self| {
            (dice.up_to(1) == 1).then(|| route::Rewrite {
                regex: dice.text(&["a", "b", "/", "^", "(.)", "\\?", "$"], 3),
                replace: dice.text(&["/", "a", "$1", "$0", "..", "?", " ", "#", "%2e", "."], 3),
            })
        };
        route::Transforms {
            url: rewrite(self),
            host: rewrite(self),
        }
    }

    fn action(&mut self) -> route::Action {
        if self.up_to(3) == 0 {
            return route::Action::Redirect(route::Redirect {
                status: 301,
                host: "x.test".into(),
                ..Default::default()
            });
        }
        let weights = (0..=self.up_to(3)).map(|group| route::Weighted {
            group: group.to_string(),
            weight: self.up_to(20),
        });
        route::Action::Forward {
            groups: weights.collect(),
            stickiness: None,
        }
    }

    fn ask(&mut self) -> Option<Ask> {
        let mut ask = Ask::default();
        let method = if self.up_to(1) == 0 { "GET" } else { "PUT" };
        let query = if self.up_to(1) == 0 { "?" } else { "?a=" };
        let path = "/".to_owned() + &self.text(&["a", "b", "/"], 4) + query + &self.text(&["a", "b", "*"], 2);
        ask.start(method, &path, &ends());
        let named = ask.name_host(&self.text(&["a", "b", ".", ".a", "A"], 5));
        for name in [&b"X-A"[..], b"X-B"] {
            ask.header(name, self.text(&["a", "b", ""], 2).as_bytes());
        }
        ask.end();
        named.then_some(ask)
    }
}

/// Reads the word of a proxy from any bytes. What was read, written anew, must read the same.
///
/// # Panics
/// When it does not.
pub fn proxied(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut input = bytes;
        let mut reading = std::pin::pin!(proxy::read(&mut input));
        // Bytes in memory are never waited for.
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(word) => word,
            Poll::Pending => panic!("it waits for bytes that are there"),
        }
    };
    if let Ok(Some((from, to))) = read(bytes) {
        for again in [proxy::write_first(from, to), proxy::write_second(from, to)] {
            let word = read(&again).expect("what is written can be read");
            let same = |(a, b): (SocketAddr, SocketAddr)| (a.ip().to_canonical(), b.ip().to_canonical());
            assert!(
                word.is_none_or(|word| same(word) == same((from, to))),
                "another word"
            );
        }
    }
}

/// Reads a snapshot from any bytes: as they are, and with the checksums that its lines should have, which hardly any
/// bytes would. What comes of it is no more than what is in it, and as a whole table it is the same or none.
///
/// # Panics
/// When it is not so.
pub fn snapshot(bytes: &[u8]) {
    let lines = bytes
        .split_inclusive(|b| *b == b'\n')
        .map(|line| match line.strip_suffix(b"\n") {
            Some(text) => {
                let json = text.get(9..).unwrap_or_default();
                [format!("{:08x} ", crc32fast::hash(json)).as_bytes(), json, b"\n"].concat()
            }
            None => line.to_vec(),
        });
    let good: Vec<u8> = lines.flatten().collect();
    for bytes in [bytes, &good] {
        let mut book = Book::default();
        let read = lines::parse(bytes, |delta| {
            book.check(&delta)?;
            book.apply(&delta, 0);
            Ok(())
        });
        if let Ok(read) = &read {
            assert!(read.table <= read.all && read.all <= bytes.len() as u64);
        }
        let mut draft = Draft::default();
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let whole = draft
            .take(first)
            .and_then(|()| draft.take(second))
            .and_then(|()| draft.end());
        if let Ok(whole) = whole {
            assert!(
                read.is_ok_and(|read| read.table == bytes.len() as u64),
                "there is more than a table"
            );
            assert!(Gap::between(&book, &whole).len() == 0 && book.version == whole.version);
        }
    }
}

/// Reads a certificate from any bytes.
pub fn certificate(bytes: &[u8]) {
    let _ = facts(bytes);
}

/// Reads an answer of OCSP from any bytes, and looks whether it is of the certificates that stand behind it in them.
pub fn ocsp(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes(*length)).min(bytes.len());
    let (answer, leaf) = bytes.split_at(length);
    for chain in [vec![leaf], vec![leaf, leaf]] {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let _ = check_staple(answer, &chain, Timestamp::UNIX_EPOCH);
    }
}

/// The length of the head, which is the same when it arrives byte by byte.
fn find(bytes: &[u8]) -> Option<usize> {
    let whole = parse::Scan::default().find(bytes);
    let mut scan = parse::Scan::default();
    let step = 1 + bytes.len() / 64;
    let mut ends: Vec<usize> = (0..bytes.len()).step_by(step).collect();
    ends.push(bytes.len());
    let parts = ends
        .into_iter()
        .map(|end| scan.find(&bytes[..end]))
        .find(|found| !matches!(found, Ok(None)));
    match (whole, parts) {
        (Ok(found), parts) => {
            assert_eq!(
                parts.unwrap_or(Ok(None)),
                Ok(found),
                "bit by bit it ends elsewhere"
            );
            found
        }
        (Err(_), parts) => {
            assert!(matches!(parts, Some(Err(_))), "bit by bit it is taken");
            None
        }
    }
}

fn left(body: &Body) -> Option<u64> {
    match body {
        Body::Empty => Some(0),
        Body::Length(left) => Some(*left),
        Body::Chunked(_) | Body::UntilClose => None,
    }
}

/// Answers any packet as a query of names, in every way.
///
/// # Panics
/// When an answer is answered, is much longer than what was asked without a reason, or cannot be read.
pub fn names(bytes: &[u8]) {
    static SERVER: std::sync::OnceLock<dns::Server> = std::sync::OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let wanted = dns::Wanted {
            apex: "apps.test",
            servers: &[],
            addresses: &[Ipv4Addr::LOCALHOST.into()],
            contact: None,
            ttl: 60,
        };
        let zone = dns::Zone::new(wanted).expect("it is a zone");
        let shared = Arc::new(Shared::default());
        shared
            .names
            .text("_acme-challenge.shop.apps.test", &"x".repeat(250), true);
        shared
            .names
            .text("_acme-challenge.shop.apps.test", &"y".repeat(250), true);
        dns::Server::new(vec![zone], shared)
    });
    for way in [dns::Way::Udp, dns::Way::Deferred, dns::Way::Tcp] {
        let Some(answer) = server.answer(bytes, way) else {
            continue;
        };
        assert!(bytes[2] & 0x80 == 0, "an answer is answered");
        assert!(answer.len() >= 12 && answer[..2] == bytes[..2] && answer[2] & 0x80 != 0);
        assert!(dns::reads(&answer), "it cannot be read");
        match way {
            dns::Way::Udp => assert!(answer.len() <= 1232, "longer than a network carries"),
            // A name that is written short is written out.
            dns::Way::Deferred => assert!(answer.len() <= bytes.len() + 255, "it was to be short"),
            dns::Way::Tcp => {}
        }
    }
}

fn ends() -> Ends {
    Ends {
        peer: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4_000)),
        local: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        tls: false,
        identity: None,
        connection: None,
        only: None,
    }
}

#[cfg(test)]
mod tests {
    use model::route::Delta;
    use proptest::prelude::*;

    use crate::{book::Book, lines};

    type Target = fn(&[u8]);

    /// Seeds of the fuzz targets, whole and with a byte changed: the targets themselves need another toolchain.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = format!("{}/../../fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    }

    /// A seed that is refused at its first word leads nowhere.
    #[test]
    fn seeds_of_tables_are_tables() {
        for seed in seeds("edge_change") {
            let delta: Delta = serde_json::from_slice(&seed).unwrap();
            Book::default().check(&delta).unwrap();
        }
        for seed in seeds("edge_snapshot") {
            let mut book = Book::default();
            let read = lines::parse(&*seed, |delta| {
                book.check(&delta)?;
                book.apply(&delta, 0);
                Ok(())
            });
            assert_eq!(read.unwrap().all, seed.len() as u64);
            assert!(!book.rules().is_empty());
        }
    }

    proptest! {
        #[test]
        fn seeds_and_their_like_hold(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let targets: [(&str, Target); 10] = [
                ("edge_request", super::request), ("edge_reply", super::reply), ("edge_chunked", super::chunked),
                ("edge_change", super::change), ("edge_proxy", super::proxied), ("edge_snapshot", super::snapshot),
                ("edge_certificate", super::certificate), ("edge_names", super::names),
                ("edge_rules", super::rules), ("edge_ocsp", super::ocsp),
            ];
            for (target, run) in targets {
                for mut seed in seeds(target) {
                    run(&seed);
                    if !seed.is_empty() {
                        let at = at.index(seed.len());
                        seed[at] = byte;
                        run(&seed);
                    }
                }
            }
        }
    }
}
