//! How many hosts of a fleet may be taken out next: CodeDeploy's minimum healthy hosts, in place.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/instances-health.html>
//!
//! Pure. At least one host must succeed. As hosts are only taken out while more are healthy than must be, the failure of
//! the last one alone fails nothing.

use std::fmt;

use model::spec::MinimumHealthy;

/// Where a deployment in place is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Hosts when it began: what percentages are of.
    pub total: u32,
    /// Hosts that were not touched yet and serve.
    pub left: u32,
    /// How many of them are not healthy: they go first, and nobody misses them.
    pub ill: u32,
    /// Hosts that have the new release and serve.
    pub done: u32,
    pub failed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wave {
    /// So many at once.
    Next(u32),
    /// All that can be done is done, and it is enough.
    Done,
    /// Too many failed.
    Failed(Short),
}

/// Why nothing more is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    pub healthy: u32,
    /// So many must be.
    pub needed: u32,
    /// It is about one zone, and not about all hosts.
    pub in_zone: bool,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { healthy, needed, .. } = *self;
        let of = if self.in_zone { " in its zone" } else { "" };
        let are = if healthy == 1 { "is" } else { "are" };
        match healthy < needed {
            true => write!(f, "{healthy}{of} {are} healthy, and {needed} must be"),
            // Another one would be missed while the release is put on it.
            false => write!(
                f,
                "{healthy}{of} {are} healthy, and as {needed} must be, no other is taken out"
            ),
        }
    }
}

/// Can a fleet of so many hosts ever be deployed to? Gives how many had to stay healthy when not
/// (`HEALTH_CONSTRAINTS_INVALID`).
pub fn impossible(rule: MinimumHealthy, total: u32) -> Option<u32> {
    let needed = rule.minimum(total);
    (!rule.is_preset() && needed >= total).then_some(needed)
}

/// What comes next.
pub fn next(rule: MinimumHealthy, standing: Standing) -> Wave {
    let Standing {
        total,
        left,
        ill,
        done,
        failed,
    } = standing;
    let needed = needed(rule, total);
    if left == 0 {
        return match done > 0 && done >= needed.min(total) {
            true => Wave::Done,
            // Whatever the rule: at least one must succeed.
            false => short(done, needed.max(1)),
        };
    }
    if ill > 0 {
        return Wave::Next(ill.min(left));
    }
    let healthy = left + done;
    if failed > 0 && healthy <= needed {
        return short(healthy, needed);
    }
    let at_once = match rule {
        MinimumHealthy::OneAtATime => 1,
        MinimumHealthy::AllAtOnce => left,
        // Half of them as long as none has failed: those that did are out already.
        MinimumHealthy::HalfAtATime | MinimumHealthy::Percent(_) | MinimumHealthy::Count(_) => {
            healthy.saturating_sub(needed)
        }
    };
    // Hosts may have died by themselves: with one at a time it still comes to an end.
    Wave::Next(at_once.clamp(1, left))
}

pub(super) fn short(healthy: u32, needed: u32) -> Wave {
    Wave::Failed(Short {
        healthy,
        needed,
        in_zone: false,
    })
}

/// How many hosts must be healthy at any time and in the end.
fn needed(rule: MinimumHealthy, total: u32) -> u32 {
    match rule {
        // 99 %, rounded up, is all: what is taken out for a moment is not meant.
        MinimumHealthy::OneAtATime => total.saturating_sub(1).max(1),
        rule => rule.minimum(total),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use MinimumHealthy::{AllAtOnce, Count, HalfAtATime, OneAtATime, Percent};
    use proptest::prelude::*;

    use super::*;

    /// Untouched, not healthy among them, with the release, failed.
    pub fn standing(left: u32, ill: u32, done: u32, failed: u32) -> Standing {
        Standing {
            total: left + done + failed,
            left,
            ill,
            done,
            failed,
        }
    }

    impl Standing {
        /// So many get the release, each as fate will have it.
        pub fn fares(&mut self, count: u32, fate: &mut impl Iterator<Item = bool>) {
            for good in fate.chain(std::iter::repeat(true)).take(count as usize) {
                self.left -= 1;
                self.done += u32::from(good);
                self.failed += u32::from(!good);
            }
        }
    }

    #[test]
    fn waves() {
        for (rule, at, expected) in [
            (OneAtATime, standing(4, 0, 0, 0), Wave::Next(1)),
            (OneAtATime, standing(3, 0, 0, 1), short(3, 3)),
            (OneAtATime, standing(0, 0, 3, 1), Wave::Done),
            (OneAtATime, standing(0, 0, 2, 2), short(2, 3)),
            (OneAtATime, standing(1, 0, 0, 0), Wave::Next(1)),
            (OneAtATime, standing(0, 0, 0, 1), short(0, 1)),
            (HalfAtATime, standing(5, 0, 0, 0), Wave::Next(2)),
            (HalfAtATime, standing(3, 0, 1, 1), Wave::Next(1)),
            (HalfAtATime, standing(3, 0, 1, 2), Wave::Next(1)),
            (HalfAtATime, standing(3, 0, 3, 0), Wave::Next(3)),
            (HalfAtATime, standing(3, 0, 0, 2), short(3, 3)),
            (HalfAtATime, standing(1, 0, 0, 0), Wave::Next(1)),
            (AllAtOnce, standing(9, 0, 0, 0), Wave::Next(9)),
            (AllAtOnce, standing(0, 0, 1, 8), Wave::Done),
            (AllAtOnce, standing(0, 0, 0, 9), short(0, 1)),
            (Percent(75), standing(4, 0, 0, 0), Wave::Next(1)),
            (Percent(50), standing(10, 0, 0, 0), Wave::Next(5)),
            (Percent(50), standing(5, 0, 4, 1), Wave::Next(4)),
            (Count(2), standing(2, 0, 0, 1), short(2, 2)),
            (Count(0), standing(3, 0, 0, 0), Wave::Next(3)),
        ] {
            assert_eq!(next(rule, at), expected, "{rule:?} {at:?}");
        }
        assert_eq!(
            next(OneAtATime, standing(4, 2, 0, 0)),
            Wave::Next(2),
            "those that serve nobody go first"
        );
        // 95 % of 10 is all ten.
        assert_eq!(impossible(Percent(95), 10), Some(10));
        assert_eq!(impossible(Count(3), 3), Some(3));
        assert_eq!(impossible(Percent(75), 4), None);
        assert_eq!(impossible(OneAtATime, 1), None);
    }

    #[test]
    fn what_is_short_is_said_in_numbers() {
        for (healthy, needed, in_zone, expected) in [
            (
                1,
                1,
                false,
                "1 is healthy, and as 1 must be, no other is taken out",
            ),
            (1, 2, false, "1 is healthy, and 2 must be"),
            (0, 1, true, "0 in its zone are healthy, and 1 must be"),
        ] {
            let short = Short {
                healthy,
                needed,
                in_zone,
            };
            assert_eq!(short.to_string(), expected);
        }
    }

    pub fn rules() -> impl Strategy<Value = MinimumHealthy> {
        prop_oneof![
            Just(OneAtATime),
            Just(HalfAtATime),
            Just(AllAtOnce),
            (0..=100_u32).prop_map(Percent),
            (0..60_u32).prop_map(Count),
        ]
    }

    proptest! {
        /// Whatever fails, a deployment ends, and hosts that the rule wants healthy are never taken out.
        #[test]
        fn every_deployment_ends_and_keeps_to_its_rule(
            rule in rules(), total in 1..60_u32, fate in prop::collection::vec(any::<bool>(), 60)
        ) {
            prop_assume!(impossible(rule, total).is_none());
            let mut at = standing(total, 0, 0, 0);
            let mut fate = fate.into_iter();
            for _ in 0..=total {
                match next(rule, at) {
                    Wave::Next(count) => {
                        prop_assert!((1..=at.left).contains(&count));
                        // Of one host half is that one.
                        let keeps = !rule.is_preset() || (rule == HalfAtATime && total > 1);
                        if keeps {
                            prop_assert!(at.left + at.done - count >= rule.minimum(total));
                        }
                        at.fares(count, &mut fate);
                    }
                    Wave::Done => {
                        prop_assert!(at.done > 0 && at.left == 0);
                        return Ok(());
                    }
                    Wave::Failed(_) => {
                        prop_assert!(at.failed > 0);
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "it does not end: {at:?}");
        }
    }
}
