//! CodeDeploy's minimum-healthy arithmetic for a fleet.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/instances-health.html>

use model::spec::MinimumHealthy;

/// Is a replacement fleet good enough to take the traffic? At least one success is always needed, and with one host
/// that one.
pub fn is_enough(rule: MinimumHealthy, total: u32, healthy: u32) -> bool {
    // OneAtATime lets the last host fail (99 % of n, rounded up, is n); a fleet of one has no last but its only host.
    let needed = match rule {
        MinimumHealthy::OneAtATime if total > 1 => total - 1,
        _ => rule.minimum(total).min(total),
    };
    healthy >= needed.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_of_the_presets() {
        use MinimumHealthy::*;
        for (rule, total, healthy, expected) in [
            (OneAtATime, 1, 1, true),
            (OneAtATime, 1, 0, false),
            (OneAtATime, 4, 3, true),
            (OneAtATime, 4, 2, false),
            (HalfAtATime, 5, 3, true),
            (HalfAtATime, 5, 2, false),
            (AllAtOnce, 9, 1, true),
            (AllAtOnce, 9, 0, false),
            (Percent(75), 4, 3, true),
            (Percent(95), 10, 9, false),
            (Count(2), 3, 2, true),
            (Count(5), 3, 3, true),
        ] {
            assert_eq!(
                is_enough(rule, total, healthy),
                expected,
                "{rule:?} {healthy} of {total}"
            );
        }
    }
}
