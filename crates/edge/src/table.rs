//! The route table, compiled for looking up: one hash look-up for an exact host, one per label for `*.domain`,
//! and a walk only over rules whose hosts are freer patterns or that name no host.
//!
//! Pure: it knows of no socket, no clock and no health.

use std::{collections::HashMap, sync::Arc};

use model::route::{self, matches};

use crate::balance::{Group, Weights};

/// What to do with a request.
pub enum Action {
    Forward(Weights),
    Fixed {
        status: u16,
        content_type: Box<str>,
        body: Box<str>,
    },
    Redirect {
        status: u16,
        location: Box<str>,
    },
}

struct Rule {
    /// The host has been answered by an index when these are asked.
    paths: Box<[Box<str>]>,
    action: Action,
}

/// Rule numbers in priority order.
type Ranks = Vec<u32>;

/// Compiled rules.
#[derive(Default)]
pub struct Rules {
    /// In priority order.
    rules: Vec<Rule>,
    exact: HashMap<Box<str>, Ranks>,
    /// `*.example.com` by `example.com`.
    suffix: HashMap<Box<str>, Ranks>,
    /// Other patterns, in priority order.
    free: Vec<(Box<str>, u32)>,
    /// Rules without a host condition.
    any: Ranks,
}

impl Rules {
    /// From a table that `check` found good.
    pub fn new(table: &route::Table, groups: &HashMap<Box<str>, Arc<Group>>) -> Self {
        let mut sorted: Vec<&route::Rule> = table.rules.iter().collect();
        sorted.sort_by_key(|rule| rule.priority);
        let mut rules = Self::default();
        for (rank, rule) in (0..).zip(sorted) {
            rules.index(rank, &rule.hosts);
            rules.rules.push(Rule {
                paths: rule.paths.iter().map(|path| path.as_str().into()).collect(),
                action: compile(&rule.action, groups),
            });
        }
        rules
    }

    fn index(&mut self, rank: u32, hosts: &[String]) {
        if hosts.is_empty() {
            self.any.push(rank);
        }
        for host in hosts {
            let plain = |text: &str| !text.contains(['*', '?']);
            match host.strip_prefix("*.") {
                _ if plain(host) => note(&mut self.exact, host, rank),
                Some(domain) if plain(domain) && !domain.is_empty() => note(&mut self.suffix, domain, rank),
                _ => self.free.push((host.as_str().into(), rank)),
            }
        }
    }

    /// The action of the first rule, by priority, whose conditions all hold. `host` is in lower case, without port.
    pub fn find(&self, host: &str, path: &str) -> Option<&Action> {
        let mut best = u32::MAX;
        self.best_of(self.exact.get(host), path, &mut best);
        if !self.suffix.is_empty() {
            for (dot, _) in host.match_indices('.') {
                self.best_of(self.suffix.get(&host[dot + 1..]), path, &mut best);
            }
        }
        let free = self
            .free
            .iter()
            .find(|(pattern, rank)| *rank >= best || (matches(pattern, host) && self.path_fits(*rank, path)));
        if let Some((_, rank)) = free {
            best = best.min(*rank);
        }
        self.best_of(Some(&self.any), path, &mut best);
        self.rules.get(best as usize).map(|rule| &rule.action)
    }

    fn best_of(&self, ranks: Option<&Ranks>, path: &str, best: &mut u32) {
        let found = ranks
            .into_iter()
            .flatten()
            .find(|rank| **rank >= *best || self.path_fits(**rank, path));
        if let Some(rank) = found {
            *best = (*best).min(*rank);
        }
    }

    fn path_fits(&self, rank: u32, path: &str) -> bool {
        let paths = &self.rules[rank as usize].paths;
        paths.is_empty() || paths.iter().any(|pattern| matches(pattern, path))
    }
}

fn note(index: &mut HashMap<Box<str>, Ranks>, host: &str, rank: u32) {
    let ranks = index.entry(host.into()).or_default();
    if ranks.last() != Some(&rank) {
        ranks.push(rank);
    }
}

fn compile(action: &route::Action, groups: &HashMap<Box<str>, Arc<Group>>) -> Action {
    match action {
        route::Action::Forward { groups: weighted } => Action::Forward(Weights::new(
            weighted
                .iter()
                .filter_map(|w| Some((w.weight, Arc::clone(groups.get(w.group.as_str())?)))),
        )),
        route::Action::FixedResponse {
            status,
            content_type,
            body,
        } => Action::Fixed {
            status: *status,
            content_type: content_type.as_str().into(),
            body: body.as_str().into(),
        },
        route::Action::Redirect { status, location } => Action::Redirect {
            status: *status,
            location: location.as_str().into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(priority: u32, hosts: &[&str], paths: &[&str]) -> route::Rule {
        route::Rule {
            priority,
            place: "acme/shop/dev".parse().unwrap(),
            hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            action: route::Action::FixedResponse {
                status: 200,
                content_type: "text/plain".into(),
                body: priority.to_string(),
            },
        }
    }

    fn compiled(rules: Vec<route::Rule>) -> (route::Table, Rules) {
        let table = route::Table {
            version: 1,
            rules,
            ..Default::default()
        };
        table.check().unwrap();
        let rules = Rules::new(&table, &HashMap::new());
        (table, rules)
    }

    fn found(rules: &Rules, host: &str, path: &str) -> Option<u32> {
        match rules.find(host, path) {
            Some(Action::Fixed { body, .. }) => Some(body.parse().unwrap()),
            _ => None,
        }
    }

    fn naive(table: &route::Table, host: &str, path: &str) -> Option<u32> {
        let any =
            |patterns: &[String], text| patterns.is_empty() || patterns.iter().any(|p| matches(p, text));
        table
            .rules
            .iter()
            .filter(|rule| any(&rule.hosts, host) && any(&rule.paths, path))
            .map(|rule| rule.priority)
            .min()
    }

    #[test]
    fn the_first_rule_by_priority_decides() {
        let (_, rules) = compiled(vec![
            rule(50, &[], &["/status"]),
            rule(30, &["shop.example.com"], &[]),
            rule(20, &["shop.example.com", "*.example.com"], &["/api/*", "/v?"]),
            rule(40, &["*.example.com"], &[]),
            rule(35, &["s*p.example.com"], &[]),
            rule(10, &["*"], &["/first/*"]),
        ]);
        for (host, path, expected) in [
            ("shop.example.com", "/", Some(30)),
            ("shop.example.com", "/api/x", Some(20)),
            ("shop.example.com", "/v1", Some(20)),
            ("shop.example.com", "/v12", Some(30)),
            ("shop.example.com", "/first/", Some(10)),
            ("a.b.example.com", "/", Some(40)),
            ("step.example.com", "/", Some(35)),
            ("example.com", "/", None),
            ("", "/status", Some(50)),
            ("other.org", "/Status", None),
        ] {
            assert_eq!(found(&rules, host, path), expected, "{host}{path}");
        }
    }

    fn pattern(letters: &'static str) -> impl Strategy<Value = String> {
        proptest::string::string_regex(letters).unwrap()
    }

    proptest! {
        #[test]
        fn lookup_is_the_naive_model(
            rules in prop::collection::vec(
                (prop::collection::vec(pattern("(\\*\\.)?[ab*?]{1,2}(\\.[ab*]{1,2}){0,2}"), 0..3),
                 prop::collection::vec(pattern("/[ab*?]{0,3}"), 0..3)), 0..12),
            priorities in Just((1..=12u32).collect::<Vec<_>>()).prop_shuffle(),
            asked in prop::collection::vec((pattern("[ab]{1,2}(\\.[ab]{1,2}){0,3}"), pattern("/[ab]{0,3}")), 1..20),
        ) {
            let rules = rules.into_iter().zip(priorities).map(|((hosts, paths), priority)| {
                route::Rule { hosts, paths, ..rule(priority, &[], &[]) }
            }).collect();
            let (table, compiled) = compiled(rules);
            for (host, path) in asked {
                prop_assert_eq!(found(&compiled, &host, &path), naive(&table, &host, &path), "{}{}", host, path);
            }
        }
    }
}
