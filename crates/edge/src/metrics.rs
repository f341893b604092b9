//! What is counted, per target group and for the balancer itself.
//!
//! Everything is a sum of atomics, so that counters of several workers, edges or times can be added up.

mod load;

use std::{
    fmt::Write,
    sync::OnceLock,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use model::route::TargetState;
use serde::{Deserialize, Serialize};

use crate::{balance::Group, table::Rule};
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

/// All groups as Prometheus text, metric by metric as the format wants it. Names are escaped already.
pub fn write(out: &mut String, groups: &[(String, &Counters)]) {
    let mut metric = |name: &str, kind: &str, value: &dyn Fn(&Counters) -> u64| {
        let _ = writeln!(out, "# TYPE vend_edge_{name} {kind}");
        for (group, counters) in groups {
            let _ = writeln!(out, "vend_edge_{name}{{group=\"{group}\"}} {}", value(counters));
        }
    };
    metric("requests_total", "counter", &|c| c.requests.load(Relaxed));
    metric("failures_total", "counter", &|c| c.failures.load(Relaxed));
    metric("panics_total", "counter", &|c| c.panics.load(Relaxed));
    metric("sent_bytes_total", "counter", &Counters::bytes);
    metric("requests_active", "gauge", &|c| u64::from(c.active.load(Relaxed)));
    let _ = writeln!(out, "# TYPE vend_edge_target_responses_total counter");
    for (group, counters) in groups {
        for class in 1..=5 {
            let count = counters.class(class);
            let _ = writeln!(
                out,
                "vend_edge_target_responses_total{{group=\"{group}\",class=\"{class}xx\"}} {count}"
            );
        }
    }
    let _ = writeln!(out, "# TYPE vend_edge_latency_seconds histogram");
    for (group, counters) in groups {
        if let Some(answers) = counters.answers.get() {
            answers.latency.write(out, group);
        }
    }
}

/// Rules and targets as Prometheus text.
pub fn write_table(out: &mut String, rules: &[Rule], groups: &[Group], escape: impl Fn(&str) -> String) {
    let _ = writeln!(out, "# TYPE vend_edge_rule_requests_total counter");
    for rule in rules {
        let (priority, place, hits) = (rule.priority, escape(rule.place()), rule.hits());
        let _ = writeln!(
            out,
            "vend_edge_rule_requests_total{{rule=\"{priority}\",place=\"{place}\"}} {hits}"
        );
    }
    let _ = writeln!(out, "# TYPE vend_edge_targets gauge");
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
    /// Connections and requests refused with 429.
    pub limited: AtomicU64,
    /// Bytes that passed through, both ways.
    pub passed: AtomicU64,
    pub log_dropped: AtomicU64,
}

impl Totals {
    pub fn write(&self, out: &mut String) {
        for (name, value) in [
            ("connections_total", self.connections.load(Relaxed)),
            ("connections_open", u64::from(self.open.load(Relaxed))),
            ("unmatched_total", self.unmatched.load(Relaxed)),
            ("malformed_total", self.refused.load(Relaxed)),
            ("retries_total", self.retries.load(Relaxed)),
            ("limited_total", self.limited.load(Relaxed)),
            ("passed_bytes_total", self.passed.load(Relaxed)),
            ("access_log_dropped_total", self.log_dropped.load(Relaxed)),
        ] {
            let kind = if name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            let _ = writeln!(out, "# TYPE vend_edge_{name} {kind}\nvend_edge_{name} {value}");
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
