//! Whether new hosts are worse than the old ones, by what the load balancer counted of both in the same minutes.
//!
//! Pure.

use edge::{GroupStats, upper_us};
use model::spec::Analysis;
use serde::{Deserialize, Serialize};

/// What one group did in a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub requests: u64,
    /// 5xx of hosts, and what the load balancer had to answer in their place.
    pub failed: u64,
    /// Of a hundred requests ninety-nine took less; `None` when nothing was answered.
    pub p99_ms: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub new: Part,
    pub old: Part,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Outcome {
    AsGood,
    Worse {
        reason: String,
    },
    /// Too few requests to say.
    Unknown {
        needed: u64,
    },
}

/// A difference that nobody notices is none, whatever its share is.
const NOTICED_MS: f64 = 20.0;

/// Compares what both groups did between two looks.
pub fn judge(rule: &Analysis, new: Part, old: Part) -> Verdict {
    let outcome = outcome(rule, &new, &old);
    Verdict { new, old, outcome }
}

fn outcome(rule: &Analysis, new: &Part, old: &Part) -> Outcome {
    if new.requests < rule.sample {
        return Outcome::Unknown { needed: rule.sample };
    }
    let (bad, usual) = (new.failing(), old.failing());
    if bad > usual + rule.errors {
        let reason = format!("{bad:.1} % of its requests fail, and {usual:.1} % of those to the old hosts");
        return Outcome::Worse { reason };
    }
    if let (Some(slow), Some(usual)) = (new.p99_ms, old.p99_ms)
        && slow > usual * (1.0 + f64::from(rule.slower) / 100.0)
        && slow > usual + NOTICED_MS
    {
        let reason = format!("its 99th percentile is {slow:.0} ms, and {usual:.0} ms on the old hosts");
        return Outcome::Worse { reason };
    }
    Outcome::AsGood
}

impl Part {
    /// What a group did between two looks. One that was counted anew in between, because the edge was started again,
    /// did what it says now.
    pub fn between(before: Option<&GroupStats>, now: Option<&GroupStats>) -> Self {
        let Some(now) = now else {
            return Self {
                requests: 0,
                failed: 0,
                p99_ms: None,
            };
        };
        let before = before.filter(|before| before.requests <= now.requests);
        let since = |value: &dyn Fn(&GroupStats) -> u64| value(now).saturating_sub(before.map_or(0, value));
        let count = |bucket: usize| since(&|stats| stats.times.get(bucket).copied().unwrap_or(0));
        let times: Vec<u64> = (0..now.times.len()).map(count).collect();
        Self {
            requests: since(&|stats| stats.requests),
            failed: since(&|stats| stats.target_5xx + stats.edge_5xx),
            p99_ms: quantile_ms(&times, 0.99),
        }
    }

    /// Percent of the requests that failed.
    fn failing(&self) -> f64 {
        match self.requests {
            0 => 0.0,
            requests => self.failed as f64 * 100.0 / requests as f64,
        }
    }
}

/// Where a part of all times ends, as if the times of one bucket were spread over it evenly.
pub fn quantile_ms(times: &[u64], part: f64) -> Option<f64> {
    let total: u64 = times.iter().sum();
    let rank = total as f64 * part;
    let mut below = 0.0;
    for (bucket, count) in times.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= rank {
            let start = bucket.checked_sub(1).and_then(upper_us).unwrap_or(0) as f64;
            // Of what took longer than all bounds, nothing else is known.
            let end = upper_us(bucket).map_or(start * 2.0, |end| end as f64);
            return Some((start + (end - start) * (rank - below) / count) / 1000.0);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(requests: u64, failed: u64, p99_ms: f64) -> Part {
        Part {
            requests,
            failed,
            p99_ms: Some(p99_ms),
        }
    }

    #[test]
    fn new_hosts_are_judged_by_the_old_ones() {
        let rule = Analysis {
            errors: 1.0,
            slower: 100,
            sample: 100,
        };
        let told = |new, old| outcome(&rule, &new, &old);
        let worse = |outcome| matches!(outcome, Outcome::Worse { .. });
        assert_eq!(
            told(part(99, 99, 1.0), part(900, 0, 1.0)),
            Outcome::Unknown { needed: 100 }
        );
        assert_eq!(told(part(100, 1, 30.0), part(900, 0, 20.0)), Outcome::AsGood);
        assert!(worse(told(part(100, 2, 30.0), part(900, 0, 20.0))));
        // What fails on the old ones as well is not the release's.
        assert_eq!(told(part(100, 5, 30.0), part(900, 40, 20.0)), Outcome::AsGood);
        assert!(worse(told(part(100, 0, 130.0), part(900, 0, 60.0))));
        assert_eq!(told(part(100, 0, 119.0), part(900, 0, 60.0)), Outcome::AsGood);
        // Four times as long, and nobody notices.
        assert_eq!(told(part(100, 0, 4.0), part(900, 0, 1.0)), Outcome::AsGood);
        // Nobody asks the old ones: errors count as they are, times do not.
        let none = Part::between(None, None);
        assert!(worse(told(part(100, 2, 4.0), none.clone())));
        assert_eq!(told(part(100, 0, 4000.0), none), Outcome::AsGood);
    }

    #[test]
    fn what_was_counted_is_the_difference_of_two_looks() {
        let stats = |requests, failed, times: &[u64]| GroupStats {
            group: "g".into(),
            requests,
            target_5xx: failed,
            edge_5xx: 1,
            active: 0,
            times: times.to_vec(),
        };
        let before = stats(100, 3, &[100, 0, 0]);
        let now = stats(300, 5, &[200, 98, 2]);
        let told = Part::between(Some(&before), Some(&now));
        assert_eq!((told.requests, told.failed), (200, 2));
        // 198 of 200 took less than the end of the second bucket.
        assert_eq!(told.p99_ms, upper_us(1).map(|us| us as f64 / 1000.0));
        // The edge was started again.
        let told = Part::between(Some(&now), Some(&before));
        assert_eq!((told.requests, told.failed), (100, 4));
        assert_eq!(quantile_ms(&[0, 0], 0.99), None);
    }
}
