//! What the edge does, for who looks at it again and again: only what has been asked for, or is ill.

use std::sync::atomic::Ordering::Relaxed;

use model::route::TargetState;
use serde::{Deserialize, Serialize};

use super::GroupStats;
use crate::{balance::Group, clock, live::Shared, table::Rule};

/// Numbers since the edge started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Milliseconds since then, about.
    pub at_ms: u64,
    pub totals: TotalStats,
    /// Groups that have been asked for, and those with a target that is not well.
    pub groups: Vec<GroupLoad>,
    /// Rules that have decided about something.
    pub rules: Vec<RuleLoad>,
}

/// What belongs to no target group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalStats {
    /// Connections of clients, and those of them that are open now.
    pub connections: u64,
    pub open: u32,
    /// Requests that no rule matched.
    pub unmatched: u64,
    /// Requests refused because they were malformed or too large.
    pub malformed: u64,
    /// Connections, requests and datagrams of sources and tenants that had too many.
    pub limited: u64,
    pub retries: u64,
    /// Bytes that passed through, both ways.
    pub passed: u64,
    /// Requests that wait for hosts to wake, now.
    pub waking: u32,
    /// Connections that ended before they came to speak: in TLS, or without the word of a proxy.
    #[serde(default)]
    pub handshakes: u64,
    /// Targets of all groups now, and those of them that are not well.
    #[serde(default)]
    pub targets: u32,
    #[serde(default)]
    pub unhealthy: u32,
    /// Sockets at which nothing can be had, now.
    #[serde(default)]
    pub unbound: u32,
}

/// A target group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLoad {
    #[serde(flatten)]
    pub stats: GroupStats,
    /// Answers of targets, 1xx to 5xx.
    pub classes: [u64; 5],
    /// Bytes of answers' bodies.
    pub sent: u64,
    /// Requests that went to any target because none was healthy.
    pub panics: u64,
    /// Targets now, by what they are; the others are not known yet.
    pub targets: u32,
    pub healthy: u32,
    pub unhealthy: u32,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLoad {
    pub priority: u32,
    pub place: String,
    /// The first of its patterns.
    pub host: String,
    pub requests: u64,
}

impl Load {
    pub fn of(shared: &Shared) -> Self {
        let (groups, rules) = {
            let book = shared.book();
            (book.groups(), book.rules())
        };
        let totals = &shared.totals;
        Self {
            at_ms: clock::ticks(),
            totals: TotalStats {
                connections: totals.connections.load(Relaxed),
                open: totals.open.load(Relaxed),
                unmatched: totals.unmatched.load(Relaxed),
                malformed: totals.refused.load(Relaxed),
                limited: totals.limited.load(Relaxed),
                retries: totals.retries.load(Relaxed),
                passed: totals.passed.load(Relaxed),
                waking: shared.wanted.waiting(),
                handshakes: shared.failures.sum(),
                targets: groups.iter().map(|group| group.targets().len() as u32).sum(),
                unhealthy: groups
                    .iter()
                    .map(|group| count(group, TargetState::Unhealthy))
                    .sum(),
                unbound: shared.own.closed(),
            },
            groups: groups.iter().filter_map(GroupLoad::of).collect(),
            rules: rules.iter().filter_map(RuleLoad::of).collect(),
        }
    }
}

fn count(group: &Group, state: TargetState) -> u32 {
    let targets = group.targets().iter();
    targets.filter(|target| target.state() == state).count() as u32
}

impl GroupLoad {
    fn of(group: &Group) -> Option<Self> {
        let (counters, unhealthy) = (group.counted(), count(group, TargetState::Unhealthy));
        let stats = counters.stats(group.name());
        if stats.requests == 0 && stats.edge_5xx == 0 && unhealthy == 0 {
            return None;
        }
        Some(Self {
            classes: std::array::from_fn(|class| counters.class(class + 1)),
            sent: counters.bytes(),
            panics: counters.panics.load(Relaxed),
            targets: group.targets().len() as u32,
            healthy: count(group, TargetState::Healthy),
            unhealthy,
            stats,
        })
    }
}

impl RuleLoad {
    fn of(rule: &Rule) -> Option<Self> {
        (rule.hits() > 0).then(|| Self {
            priority: rule.priority,
            place: rule.place().to_owned(),
            host: rule.hosts().next().unwrap_or("any").to_owned(),
            requests: rule.hits(),
        })
    }
}
