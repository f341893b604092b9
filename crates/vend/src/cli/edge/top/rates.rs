//! What came between two looks. Pure.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
};

use edge::{GroupLoad, Load, RuleLoad};
use serde::Serialize;

use super::Sort;
use crate::flow::quantile_ms;

/// Everything is a second, but for what is so now.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rates {
    /// How long it was between the looks.
    pub seconds: f64,
    pub requests: f64,
    /// Answers of targets, 1xx to 5xx.
    pub classes: [f64; 5],
    /// What the load balancer answered in the place of targets.
    pub edge_5xx: f64,
    pub bytes: f64,
    pub connections: f64,
    pub connections_open: u32,
    pub unmatched: f64,
    pub malformed: f64,
    /// Connections that ended before they came to speak.
    pub handshakes: f64,
    pub limited: f64,
    pub retries: f64,
    pub waking: u32,
    /// Of all groups, asked for or not.
    pub targets: u32,
    pub unhealthy: u32,
    /// Sockets at which nothing can be had.
    pub unbound: u32,
    pub groups: Vec<Group>,
    pub rules: Vec<Rule>,
    /// Of which the busiest are shown.
    pub groups_asked: usize,
    pub rules_asked: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Group {
    pub group: String,
    pub requests: f64,
    pub classes: [f64; 5],
    pub edge_5xx: f64,
    /// Requests that went to any target because none was healthy.
    pub panics: f64,
    pub bytes: f64,
    /// Requests under way.
    pub active: u32,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub targets: u32,
    pub healthy: u32,
    pub unhealthy: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rule {
    pub priority: u32,
    pub host: String,
    pub place: String,
    pub requests: f64,
}

impl Rates {
    pub fn between(before: &Load, now: &Load) -> Self {
        let seconds = now.at_ms.saturating_sub(before.at_ms).max(1) as f64 / 1000.0;
        // An edge that has started anew counts from nothing.
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let old: HashMap<&str, &GroupLoad> = before
            .groups
            .iter()
            .map(|group| (group.stats.group.as_str(), group))
            .collect();
        let none = GroupLoad::default();
        let groups: Vec<Group> = now
            .groups
            .iter()
            .map(|group| {
                let old = old.get(group.stats.group.as_str()).copied().unwrap_or(&none);
                Group::between(old, group, rate)
            })
            .collect();
        let old: HashMap<(u32, &str), &RuleLoad> = before
            .rules
            .iter()
            .map(|rule| ((rule.priority, rule.place.as_str()), rule))
            .collect();
        let rules = now.rules.iter().map(|rule| Rule {
            priority: rule.priority,
            host: rule.host.clone(),
            place: rule.place.clone(),
            requests: rate(
                old.get(&(rule.priority, rule.place.as_str()))
                    .map_or(0, |old| old.requests),
                rule.requests,
            ),
        });
        let (was, is) = (&before.totals, &now.totals);
        let sum = |value: &dyn Fn(&Group) -> f64| groups.iter().map(value).sum::<f64>();
        Self {
            seconds,
            requests: sum(&|group| group.requests),
            classes: std::array::from_fn(|class| sum(&|group| group.classes[class])),
            edge_5xx: sum(&|group| group.edge_5xx),
            bytes: sum(&|group| group.bytes),
            connections: rate(was.connections, is.connections),
            connections_open: is.open,
            unmatched: rate(was.unmatched, is.unmatched),
            malformed: rate(was.malformed, is.malformed),
            handshakes: rate(was.handshakes, is.handshakes),
            limited: rate(was.limited, is.limited),
            retries: rate(was.retries, is.retries),
            waking: is.waking,
            targets: is.targets,
            unhealthy: is.unhealthy,
            unbound: is.unbound,
            groups_asked: groups.len(),
            rules_asked: now.rules.len(),
            rules: rules.collect(),
            groups,
        }
    }

    /// Leaves only groups with this in their names, and rules with it in their hosts or places.
    pub fn only(&mut self, text: &str) {
        self.groups.retain(|group| group.group.contains(text));
        self.rules
            .retain(|rule| rule.host.contains(text) || rule.place.contains(text));
        (self.groups_asked, self.rules_asked) = (self.groups.len(), self.rules.len());
    }

    /// The first lines in some order.
    pub fn arrange(&mut self, sort: Sort, lines: usize) {
        let most = |a: f64, b: f64| b.total_cmp(&a);
        let order = |a: &Group, b: &Group| match sort {
            Sort::Requests => most(a.requests, b.requests),
            Sort::Errors => most(a.errors(), b.errors()),
            Sort::P50 => most(a.p50_ms.unwrap_or(0.0), b.p50_ms.unwrap_or(0.0)),
            Sort::P99 => most(a.p99_ms.unwrap_or(0.0), b.p99_ms.unwrap_or(0.0)),
            Sort::Active => b.active.cmp(&a.active),
            Sort::Bytes => most(a.bytes, b.bytes),
            Sort::Unhealthy => b.unhealthy.cmp(&a.unhealthy),
            Sort::Name => Ordering::Equal,
        };
        self.groups
            .sort_by(|a, b| order(a, b).then_with(|| a.group.cmp(&b.group)));
        self.groups.truncate(lines);
        match sort {
            Sort::Name => self
                .rules
                .sort_by(|a, b| (&a.host, a.priority).cmp(&(&b.host, b.priority))),
            _ => self
                .rules
                .sort_by_key(|rule| (Reverse((rule.requests * 1000.0) as u64), rule.priority)),
        }
        self.rules.truncate(lines);
    }
}

impl Group {
    fn between(old: &GroupLoad, now: &GroupLoad, rate: impl Fn(u64, u64) -> f64) -> Self {
        let times = now.stats.times.iter().enumerate();
        let before = |bucket: usize| old.stats.times.get(bucket).copied().unwrap_or(0);
        let times: Vec<u64> = times
            .map(|(bucket, count)| count.saturating_sub(before(bucket)))
            .collect();
        Self {
            group: now.stats.group.clone(),
            requests: rate(old.stats.requests, now.stats.requests),
            classes: std::array::from_fn(|class| rate(old.classes[class], now.classes[class])),
            edge_5xx: rate(old.stats.edge_5xx, now.stats.edge_5xx),
            panics: rate(old.panics, now.panics),
            bytes: rate(old.sent, now.sent),
            active: now.stats.active,
            p50_ms: quantile_ms(&times, 0.50),
            p99_ms: quantile_ms(&times, 0.99),
            targets: now.targets,
            healthy: now.healthy,
            unhealthy: now.unhealthy,
        }
    }

    fn errors(&self) -> f64 {
        self.classes[4] + self.edge_5xx
    }
}

#[cfg(test)]
pub mod tests {
    use edge::{GroupStats, TotalStats};

    use super::*;

    pub fn load(at_ms: u64, of: u64) -> Load {
        let group = |name: &str, requests: u64, slow: u64| GroupLoad {
            stats: GroupStats {
                group: name.into(),
                requests,
                target_5xx: of,
                edge_5xx: 2 * of,
                active: 3,
                times: vec![requests - slow, 0, 0, 0, slow],
            },
            classes: [0, requests - of, 0, 0, of],
            sent: requests * 1000,
            panics: 0,
            targets: 4,
            healthy: 3,
            unhealthy: 1,
        };
        Load {
            at_ms,
            totals: TotalStats {
                connections: 10 * of,
                open: 7,
                limited: of,
                handshakes: 4 * of,
                // One target is of a group that nobody has asked for.
                targets: 9,
                unhealthy: 2,
                ..TotalStats::default()
            },
            groups: vec![
                group("a/shop/dev/v1", 100 * of, 50 * of),
                group("b/blog/dev/v2", 900 * of, 0),
            ],
            rules: vec![RuleLoad {
                priority: 4,
                place: "a/shop/dev".into(),
                host: "shop.test".into(),
                requests: 100 * of,
            }],
        }
    }

    #[test]
    fn rates_are_what_came_between_two_looks() {
        let mut rates = Rates::between(&load(1_000, 1), &load(3_000, 3));
        assert_eq!(
            (rates.seconds, rates.requests, rates.edge_5xx),
            (2.0, 1_000.0, 4.0)
        );
        assert_eq!(
            (rates.connections, rates.limited, rates.connections_open),
            (10.0, 1.0, 7)
        );
        assert_eq!((rates.targets, rates.unhealthy, rates.handshakes), (9, 2, 4.0));
        rates.arrange(Sort::Requests, 1);
        let first = &rates.groups[0];
        assert_eq!(
            (first.group.as_str(), first.requests, first.bytes),
            ("b/blog/dev/v2", 900.0, 900_000.0)
        );
        assert_eq!((rates.groups.len(), rates.groups_asked), (1, 2));
        assert_eq!(rates.rules[0].requests, 100.0);
    }

    #[test]
    fn lines_are_sorted_by_what_was_asked() {
        let first = |sort| {
            let mut rates = Rates::between(&Load::default(), &load(1_000, 2));
            rates.groups[0].active = 9;
            rates.groups[1].unhealthy = 2;
            rates.arrange(sort, 9);
            rates.groups[0].group.clone()
        };
        for (sort, expected) in [
            (Sort::Requests, "b/blog/dev/v2"),
            (Sort::P50, "a/shop/dev/v1"),
            (Sort::P99, "a/shop/dev/v1"),
            (Sort::Active, "a/shop/dev/v1"),
            (Sort::Bytes, "b/blog/dev/v2"),
            (Sort::Unhealthy, "b/blog/dev/v2"),
            (Sort::Name, "a/shop/dev/v1"),
            (Sort::Errors, "a/shop/dev/v1"),
        ] {
            assert_eq!(first(sort), expected, "{sort:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_left() {
        let left = |text: &str| {
            let mut rates = Rates::between(&load(1_000, 1), &load(3_000, 3));
            rates.only(text);
            (rates.groups_asked, rates.rules_asked, rates.requests)
        };
        // The sums stay: they are the load balancer's.
        assert_eq!(left(""), (2, 1, 1_000.0));
        assert_eq!(left("blog"), (1, 0, 1_000.0));
        assert_eq!(left("shop.test"), (0, 1, 1_000.0));
        assert_eq!(left("a/shop/dev"), (1, 1, 1_000.0));
    }

    #[test]
    fn an_edge_that_started_anew_counts_from_nothing() {
        let rates = Rates::between(&load(9_000, 5), &load(100, 1));
        assert_eq!((rates.requests, rates.connections), (0.0, 0.0));
    }
}
