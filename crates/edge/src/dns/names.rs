//! What stands where: the names of the rules in force, in the order of the tree that names are.

use std::{
    collections::{BTreeMap, btree_map::Entry as Slot},
    net::IpAddr,
    ops::Bound,
};

use model::route::TargetState;

use super::{NameSeen, Zone};
use crate::{
    balance::Group,
    live::Shared,
    table::{Action, Rule},
    target::Target,
};

/// Addresses of one answer: more do not make it more likely that one of them is reached.
const ADDRESSES: usize = 8;

/// All names of one table, by key.
pub struct Names {
    /// The table's; none is none.
    pub version: Option<u64>,
    pub nodes: BTreeMap<Box<str>, Rule>,
}

/// What is at a name.
pub enum Found<'a> {
    /// The rule of the name, or of the wildcard that stands for it.
    Rule(&'a Rule),
    /// Nothing but names below it.
    Empty,
    Nothing,
}

/// `shop.example.com` as `com\0example\0shop\0`: what begins with the key of a name is the name or below it. `None` for
/// what no name in DNS is.
pub fn key(host: &str) -> Option<String> {
    let mut key = String::with_capacity(host.len() + 1);
    for label in host.rsplit('.') {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let fits = (1..=63).contains(&label.len()) && (label == "*" || label.bytes().all(plain));
        if !fits {
            return None;
        }
        key.push_str(label);
        key.push('\0');
    }
    // `*` stands for whole names, and only at their start (RFC 4592).
    (host.len() <= 250 && !host[1..].contains('*')).then_some(key)
}

impl Names {
    pub fn none() -> Self {
        Self {
            version: None,
            nodes: BTreeMap::new(),
        }
    }

    /// Of the table in force.
    pub fn of(shared: &Shared, zones: &[Zone]) -> Self {
        let (version, rules) = {
            let book = shared.book();
            (book.version, book.rules())
        };
        let mut nodes = BTreeMap::new();
        for rule in &rules {
            for host in rule
                .hosts()
                .filter(|host| zones.iter().any(|zone| zone.holds(host)))
            {
                // The first by priority says what the name is.
                if let Some(key) = key(host)
                    && let Slot::Vacant(free) = nodes.entry(key.into_boxed_str())
                {
                    free.insert(Rule::clone(rule));
                }
            }
        }
        Self {
            version: Some(version),
            nodes,
        }
    }

    /// Is this name there, or one below it?
    pub fn reaches(&self, key: &str) -> bool {
        let mut from = self
            .nodes
            .range::<str, _>((Bound::Included(key), Bound::Unbounded));
        from.next().is_some_and(|(found, _)| found.starts_with(key))
    }

    /// Looks a key up below the apex of its zone, whose key begins it (RFC 4592, section 3.3.1). `also` knows of names
    /// that are not in the table.
    pub fn find(&self, key: &str, apex: &str, also: impl Fn(&str) -> bool) -> Found<'_> {
        if let Some(rule) = self.nodes.get(key) {
            return Found::Rule(rule);
        }
        let there = |key: &str| self.reaches(key) || also(key);
        if key == apex || there(key) {
            return Found::Empty;
        }
        let mut encloser = key;
        while encloser.len() > apex.len() {
            let shorter = encloser[..encloser.len() - 1].rfind('\0').map_or(0, |at| at + 1);
            encloser = &encloser[..shorter];
            if encloser.len() <= apex.len() || there(encloser) {
                let wildcard = format!("{encloser}*\0");
                return self
                    .nodes
                    .get(wildcard.as_str())
                    .map_or(Found::Nothing, Found::Rule);
            }
        }
        Found::Nothing
    }
}

/// What a rule's name leads to: to the load balancer, unless its groups say that it leads to their targets.
pub enum Leads {
    Here,
    /// For so many seconds, to some of these.
    There {
        ttl: u32,
        addresses: Vec<IpAddr>,
    },
}

/// Picks a group by weight, as the load balancer does, and then those of its targets that may get something.
pub fn leads(rule: &Rule, tick: u64) -> Leads {
    let Action::Forward(weights) = &rule.action else {
        return Leads::Here;
    };
    match weights.pick().and_then(|group| Some((group, direct(group)?))) {
        None => Leads::Here,
        Some((group, ttl)) => {
            let mut addresses: Vec<IpAddr> = open(group, tick).iter().map(|t| t.address().ip()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            if !addresses.is_empty() {
                // Whoever takes the first of them does not always take the same.
                let turn = group.turn() as usize % addresses.len();
                addresses.rotate_left(turn);
                addresses.truncate(ADDRESSES);
            }
            Leads::There { ttl, addresses }
        }
    }
}

/// Seconds for which answers with a group's targets may be kept.
fn direct(group: &Group) -> Option<u32> {
    let ttl = group.policy.direct?.as_secs();
    Some(u32::try_from(ttl).unwrap_or(0))
}

/// Healthy targets; when there is none, all, as the load balancer itself does and Route 53 too.
fn open(group: &Group, tick: u64) -> Vec<&Target> {
    let fits = |target: &&Target| target.state() == TargetState::Healthy && !target.is_ejected(tick);
    let healthy: Vec<_> = group.targets().iter().filter(fits).collect();
    match healthy.is_empty() {
        true => group.targets().iter().collect(),
        false => healthy,
    }
}

/// Everything that is answered, and every name of a rule that is not, with the reason.
pub fn seen(shared: &Shared, tick: u64) -> Vec<NameSeen> {
    let zones = shared.names.zones();
    let mut seen = Vec::new();
    for zone in zones {
        of_zone(zone, &mut seen);
    }
    let rules = shared.book().rules();
    let names = Names::of(shared, zones);
    for rule in &rules {
        for host in rule.hosts() {
            seen.extend(of_host(rule, host, &names, zones, tick));
        }
    }
    for (name, texts) in &**shared.names.texts.load() {
        let served = zones.iter().any(|zone| zone.holds(name));
        seen.push(NameSeen {
            name: name.clone(),
            kind: if served { "TXT".into() } else { String::new() },
            ttl: 0,
            values: texts.iter().cloned().collect(),
            why: if served {
                "an authority checks whose name it is (ACME)".into()
            } else {
                "an authority asks for it, but it is in no zone of this platform".into()
            },
        });
    }
    seen
}

fn of_zone(zone: &Zone, seen: &mut Vec<NameSeen>) {
    let servers: Vec<String> = zone.servers.iter().map(|name| plain(&name.to_ascii())).collect();
    let record = |name: &str, kind: &str, values: Vec<String>, why: &str| NameSeen {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ttl: zone.ttl,
        values,
        why: why.to_owned(),
    };
    let contact = plain(&zone.contact.to_ascii());
    seen.push(record(
        &zone.text,
        "SOA",
        vec![servers[0].clone(), contact],
        "the zone",
    ));
    let inside = servers.iter().filter(|name| zone.holds(name)).cloned();
    let inside: Vec<String> = inside.chain([zone.text.clone()]).collect();
    seen.push(record(&zone.text, "NS", servers, "the zone's servers"));
    for name in inside {
        let why = match name == zone.text {
            true => "the zone's own name leads to the load balancer",
            false => "a name server of the zone: this one",
        };
        for (kind, values) in by_family(&zone.addresses) {
            seen.push(record(&name, kind, values, why));
        }
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_owned()
}

fn by_family(addresses: &[IpAddr]) -> impl Iterator<Item = (&'static str, Vec<String>)> {
    let of = |four: bool| {
        let those = addresses.iter().filter(|address| address.is_ipv4() == four);
        those.map(ToString::to_string).collect::<Vec<_>>()
    };
    let kinds = [("A", of(true)), ("AAAA", of(false))];
    kinds.into_iter().filter(|(_, values)| !values.is_empty())
}

fn of_host(rule: &Rule, host: &str, names: &Names, zones: &[Zone], tick: u64) -> Vec<NameSeen> {
    let from = format!("rule {} of {}", rule.priority, rule.place());
    let silent = |why: &str| {
        vec![NameSeen {
            name: host.to_owned(),
            kind: String::new(),
            ttl: 0,
            values: Vec::new(),
            why: format!("{from}: {why}"),
        }]
    };
    let Some(zone) = zones.iter().find(|zone| zone.holds(host)) else {
        return silent("in no zone of this platform; whoever has the name must point it here");
    };
    let holder = key(host).and_then(|key| names.nodes.get(key.as_str()));
    match holder {
        None => return silent("a pattern that DNS does not know"),
        Some(holder) if !Rule::same(holder, rule) => return Vec::new(),
        Some(_) => {}
    }
    let record = |ttl, why: String, (kind, values): (&str, Vec<String>)| NameSeen {
        name: host.to_owned(),
        kind: kind.to_owned(),
        ttl,
        values,
        why,
    };
    let Action::Forward(weights) = &rule.action else {
        let why = format!("{from}, answered by the load balancer");
        return by_family(&zone.addresses)
            .map(|found| record(zone.ttl, why.clone(), found))
            .collect();
    };
    let all: u32 = weights.weighted().map(|(weight, _)| weight).sum();
    let mut seen = Vec::new();
    for (weight, group) in weights.weighted().filter(|(weight, _)| *weight > 0) {
        let Some(ttl) = direct(group) else {
            let why = format!("{from}, through the load balancer");
            seen.extend(by_family(&zone.addresses).map(|found| record(zone.ttl, why.clone(), found)));
            // Once is enough: all such groups are behind the same addresses.
            break;
        };
        let targets = open(group, tick);
        let addresses: Vec<IpAddr> = targets.iter().map(|target| target.address().ip()).collect();
        let well = group
            .targets()
            .iter()
            .filter(|t| t.state() == TargetState::Healthy)
            .count();
        let why = format!(
            "{from}, group {} with {weight} of {all}: {well} of {} healthy",
            group.name(),
            group.targets().len()
        );
        seen.extend(by_family(&addresses).map(|found| record(ttl, why.clone(), found)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use model::route::{Action, Conditions, Own, Rule as Spec, Transforms};

    use super::*;

    fn names(hosts: &[&str]) -> Names {
        let rule = |host: &&str| {
            let spec = Spec {
                priority: 1,
                place: "acme/shop/dev".parse().unwrap(),
                hosts: vec![(*host).to_owned()],
                paths: Vec::new(),
                conditions: Conditions::default(),
                transforms: Transforms::default(),
                access: Vec::new(),
                own: Own::default(),
                authenticate: None,
                action: Action::FixedResponse {
                    status: 200,
                    content_type: "text/plain".into(),
                    body: String::new(),
                },
            };
            (key(host).unwrap().into_boxed_str(), Rule::new(&spec, |_| None))
        };
        Names {
            version: Some(1),
            nodes: hosts.iter().map(rule).collect(),
        }
    }

    /// The examples of RFC 4592, section 2.2.1, and what lies between names.
    #[test]
    fn wildcards_stand_for_what_is_not_there() {
        let names = names(&["*.example", "host1.example", "a.b.c.example"]);
        let look = |host: &str| match names.find(&key(host).unwrap(), "example\0", |_| false) {
            Found::Rule(rule) => rule.hosts().next().unwrap().to_owned(),
            Found::Empty => "empty".to_owned(),
            Found::Nothing => "nothing".to_owned(),
        };
        for (host, expected) in [
            ("host1.example", "host1.example"),
            ("host3.example", "*.example"),
            ("foo.bar.example", "*.example"),
            ("x.host1.example", "nothing"),
            ("c.example", "empty"),
            ("b.c.example", "empty"),
            ("x.c.example", "nothing"),
            ("x.b.c.example", "nothing"),
            ("example", "empty"),
            ("host1x.example", "*.example"),
            ("*.example", "*.example"),
            ("hos.example", "*.example"),
        ] {
            assert_eq!(look(host), expected, "{host}");
        }
    }

    #[test]
    fn a_key_is_of_a_name() {
        assert_eq!(key("a.b").as_deref(), Some("b\0a\0"));
        assert_eq!(key("*.b").as_deref(), Some("b\0*\0"));
        for bad in ["a*.b", "b.*", "a..b", ".", "a b", "A.b", &"a".repeat(64)] {
            assert_eq!(key(bad), None, "{bad}");
        }
    }
}
