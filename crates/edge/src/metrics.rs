//! What is counted, per target group and for the balancer itself.
//!
//! Everything is a sum of atomics, so that counters of several workers, edges or times can be added up.

mod load;

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::OnceLock,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use model::route::TargetState;
use serde::{Deserialize, Serialize};

use crate::{balance::Group, table::Rule, target::Target};
pub use load::{GroupLoad, Load, RuleLoad, TotalStats};

/// Upper ends of the latency buckets: 2^8 µs (0.256 ms) to 2^26 µs (67 s), and one for what took longer.
const FIRST: u32 = 8;
const BUCKETS: usize = 20;

/// Times in buckets that double.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - us.leading_zeros()).saturating_sub(FIRST) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn counts(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect()
    }

    fn write(&self, out: &mut String, group: &str) {
        let mut sum = 0;
        let mut line = |suffix: &str, bound: &str, value: f64| {
            let _ = writeln!(
                out,
                "vend_edge_latency_seconds{suffix}{{group=\"{group}\"{bound}}} {value}"
            );
        };
        for (index, bucket) in self.buckets.iter().enumerate() {
            sum += bucket.load(Relaxed);
            let bound = match index {
                i if i == BUCKETS - 1 => "+Inf".to_owned(),
                i => format!("{}", (1u64 << (FIRST as usize + i)) as f64 / 1e6),
            };
            line("_bucket", &format!(",le=\"{bound}\""), sum as f64);
        }
        line("_sum", "", self.sum_us.load(Relaxed) as f64 / 1e6);
        line("_count", "", sum as f64);
    }
}

/// One target group's counters. They outlive tables: a group that stays keeps its own.
#[derive(Default)]
pub struct Counters {
    pub requests: AtomicU64,
    /// Answers that the balancer had to make because no target gave a good one: 502, 503, 504.
    pub failures: AtomicU64,
    /// Requests that went to any target because none was healthy.
    pub panics: AtomicU64,
    pub active: AtomicU32,
    /// Only groups that have answered have one.
    answers: OnceLock<Box<Answers>>,
}

#[derive(Default)]
struct Answers {
    /// Bytes of answers' bodies.
    sent: AtomicU64,
    /// Of targets, by class: 1xx to 5xx.
    classes: [AtomicU64; 5],
    latency: Histogram,
}

impl Counters {
    /// What groups have that were never asked for.
    pub const fn none() -> Self {
        Self {
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            active: AtomicU32::new(0),
            answers: OnceLock::new(),
        }
    }

    pub fn answered(&self, status: u16, took: Duration) {
        let answers = self.answers.get_or_init(Box::default);
        if let Some(class) = answers.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        answers.latency.record(took);
    }

    /// So many bytes of an answer's body have gone to a client.
    pub fn sent(&self, bytes: u64) {
        self.answers
            .get_or_init(Box::default)
            .sent
            .fetch_add(bytes, Relaxed);
    }

    /// Answers of targets in a class, 1 to 5.
    fn class(&self, class: usize) -> u64 {
        self.answers
            .get()
            .map_or(0, |answers| answers.classes[class - 1].load(Relaxed))
    }

    /// Bytes of answers' bodies.
    fn bytes(&self) -> u64 {
        self.answers.get().map_or(0, |answers| answers.sent.load(Relaxed))
    }

    pub fn stats(&self, group: &str) -> GroupStats {
        GroupStats {
            group: group.to_owned(),
            requests: self.requests.load(Relaxed),
            target_5xx: self.class(5),
            edge_5xx: self.failures.load(Relaxed),
            active: self.active.load(Relaxed),
            times: self
                .answers
                .get()
                .map_or_else(Vec::new, |answers| answers.latency.counts()),
        }
    }
}

/// What comes before the values of a metric. `help` is one line, and `kind` one of Prometheus'.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A metric of one value; its kind is that of its name.
pub fn single(out: &mut String, name: &str, help: &str, value: u64) {
    let kind = if name.ends_with("_total") {
        "counter"
    } else {
        "gauge"
    };
    head(out, name, kind, help);
    let _ = writeln!(out, "{name} {value}");
}

/// All groups as Prometheus text, metric by metric as the format wants it. Names are escaped already.
pub fn write(out: &mut String, groups: &[(String, &Counters)]) {
    type Value = fn(&Counters) -> u64;
    let metrics: [(&str, &str, &str, Value); 5] = [
        (
            "requests_total",
            "counter",
            "Requests that went to a target group.",
            |c| c.requests.load(Relaxed),
        ),
        (
            "failures_total",
            "counter",
            "Answers of the load balancer because no target gave a good one (502, 503, 504).",
            |c| c.failures.load(Relaxed),
        ),
        (
            "panics_total",
            "counter",
            "Requests that went to any target because none was healthy.",
            |c| c.panics.load(Relaxed),
        ),
        (
            "sent_bytes_total",
            "counter",
            "Bytes of answers' bodies, and of connections that pass through, that went to clients.",
            Counters::bytes,
        ),
        ("requests_active", "gauge", "Requests under way.", |c| {
            u64::from(c.active.load(Relaxed))
        }),
    ];
    for (name, kind, help, value) in metrics {
        head(out, &format!("vend_edge_{name}"), kind, help);
        for (group, counters) in groups {
            let _ = writeln!(out, "vend_edge_{name}{{group=\"{group}\"}} {}", value(counters));
        }
    }
    head(
        out,
        "vend_edge_target_responses_total",
        "counter",
        "Answers of targets by class of their status.",
    );
    for (group, counters) in groups {
        for class in 1..=5 {
            let count = counters.class(class);
            let _ = writeln!(
                out,
                "vend_edge_target_responses_total{{group=\"{group}\",class=\"{class}xx\"}} {count}"
            );
        }
    }
    head(
        out,
        "vend_edge_latency_seconds",
        "histogram",
        "From the choice of a target to the end of its answer.",
    );
    for (group, counters) in groups {
        if let Some(answers) = counters.answers.get() {
            answers.latency.write(out, group);
        }
    }
}

/// Rules and targets as Prometheus text.
pub fn write_table(
    out: &mut String,
    rules: &[Rule],
    groups: &[Group],
    leaving: &[(Box<str>, Target)],
    escape: impl Fn(&str) -> String,
) {
    let name = "vend_edge_rule_requests_total";
    head(
        out,
        name,
        "counter",
        "Requests that a rule decided about, by its priority, place and first host.",
    );
    for rule in rules {
        let (priority, place, hits) = (rule.priority, escape(rule.place()), rule.hits());
        let host = escape(rule.hosts().next().unwrap_or("any"));
        let _ = writeln!(
            out,
            "{name}{{rule=\"{priority}\",place=\"{place}\",host=\"{host}\"}} {hits}"
        );
    }
    let asked: Vec<_> = rules.iter().filter(|rule| rule.hits() > 0).collect();
    let name = "vend_edge_rule_responses_total";
    head(
        out,
        name,
        "counter",
        "Answers to clients of a rule that was asked for, by class of their status.",
    );
    for rule in &asked {
        let (priority, place) = (rule.priority, escape(rule.place()));
        for (class, count) in (1..).zip(rule.answers().classes) {
            let _ = writeln!(
                out,
                "{name}{{rule=\"{priority}\",place=\"{place}\",class=\"{class}xx\"}} {count}"
            );
        }
    }
    let name = "vend_edge_rule_sent_bytes_total";
    head(
        out,
        name,
        "counter",
        "Bytes of answers' bodies to clients of a rule that was asked for.",
    );
    for rule in &asked {
        let (priority, place) = (rule.priority, escape(rule.place()));
        let _ = writeln!(
            out,
            "{name}{{rule=\"{priority}\",place=\"{place}\"}} {}",
            rule.answers().sent
        );
    }
    head(out, "vend_edge_targets", "gauge", "Targets by state.");
    for group in groups {
        let name = escape(group.name());
        for (state, word) in [
            (TargetState::Healthy, "healthy"),
            (TargetState::Unhealthy, "unhealthy"),
            (TargetState::Initial, "initial"),
        ] {
            let count = group
                .targets()
                .iter()
                .filter(|target| target.state() == state)
                .count();
            let _ = writeln!(
                out,
                "vend_edge_targets{{group=\"{name}\",state=\"{word}\"}} {count}"
            );
        }
    }
    // They are in no group any more, and the group may be gone as well.
    let mut draining = BTreeMap::<&str, u32>::new();
    for (group, _) in leaving {
        *draining.entry(group).or_default() += 1;
    }
    for (group, count) in draining {
        let name = escape(group);
        let _ = writeln!(
            out,
            "vend_edge_targets{{group=\"{name}\",state=\"draining\"}} {count}"
        );
    }
}

/// A target group in numbers, since the edge started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStats {
    pub group: String,
    pub requests: u64,
    /// 5xx that targets answered.
    pub target_5xx: u64,
    /// 502, 503 and 504 that the edge answered in their place.
    pub edge_5xx: u64,
    /// Requests under way.
    pub active: u32,
    /// How many answers took how long: see [`upper_us`]. Empty before the first one.
    #[serde(default)]
    pub times: Vec<u64>,
}

/// Below how many microseconds the times of a bucket of [`GroupStats::times`] are; `None`: it takes all that is longer.
pub fn upper_us(bucket: usize) -> Option<u64> {
    (bucket < BUCKETS - 1).then(|| 1 << (FIRST as usize + bucket))
}

/// What belongs to no target group.
#[derive(Default)]
pub struct Totals {
    pub connections: AtomicU64,
    pub open: AtomicU32,
    /// Requests that no rule matched.
    pub unmatched: AtomicU64,
    /// Requests refused because they were malformed or too large.
    pub refused: AtomicU64,
    pub retries: AtomicU64,
    /// Connections, requests and datagrams of sources and tenants that had too many.
    pub limited: AtomicU64,
    /// Bytes that passed through, both ways.
    pub passed: AtomicU64,
    pub log_dropped: AtomicU64,
}

impl Totals {
    pub fn write(&self, out: &mut String) {
        for (name, help, value) in [
            (
                "connections_total",
                "Connections of clients that were accepted.",
                self.connections.load(Relaxed),
            ),
            (
                "connections_open",
                "Connections of clients that are open.",
                self.open.load(Relaxed).into(),
            ),
            (
                "unmatched_total",
                "Requests that no rule matched.",
                self.unmatched.load(Relaxed),
            ),
            (
                "malformed_total",
                "Requests refused because they were malformed, too large or too slow.",
                self.refused.load(Relaxed),
            ),
            (
                "retries_total",
                "Attempts at another target or connection.",
                self.retries.load(Relaxed),
            ),
            (
                "limited_total",
                "Connections, requests and datagrams refused because their source or tenant had too many.",
                self.limited.load(Relaxed),
            ),
            (
                "passed_bytes_total",
                "Bytes of connections that pass through, both ways.",
                self.passed.load(Relaxed),
            ),
            (
                "access_log_dropped_total",
                "Lines of the access log that were lost.",
                self.log_dropped.load(Relaxed),
            ),
        ] {
            single(out, &format!("vend_edge_{name}"), help, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double_and_the_last_takes_all() {
        let histogram = Histogram::default();
        for us in [0, 255, 256, 511, 512, u64::MAX] {
            histogram.record(Duration::from_micros(us));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(|b| b.load(Relaxed)).collect();
        assert_eq!(counts[..3], [2, 2, 1]);
        assert_eq!(counts[BUCKETS - 1], 1);
        let mut text = String::new();
        histogram.write(&mut text, "g");
        assert!(text.contains("bucket{group=\"g\",le=\"0.000256\"} 2\n"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 6\n"), "{text}");
    }
}
