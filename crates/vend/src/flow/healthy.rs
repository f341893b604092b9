//! CodeDeploy's minimum-healthy arithmetic for a fleet.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/instances-health.html>

use model::{
    port::{Code, Fault},
    spec::MinimumHealthy,
};

use super::wave;

/// Can so many new hosts ever be enough? A rule of which none of them may fail is refused, as CodeDeploy refuses it.
pub fn possible(rule: MinimumHealthy, hosts: u32) -> Result<(), Fault> {
    let Some(needed) = wave::impossible(rule, hosts) else {
        return Ok(());
    };
    let message = format!(
        "{needed} of {hosts} new hosts must be healthy: none could ever fail (HEALTH_CONSTRAINTS_INVALID)"
    );
    let next =
        "ask for fewer in `deploy.minimum_healthy` of vend.yaml, say `one-at-a-time`, or have more hosts";
    Err(Fault::customer(message)
        .code(Code::HealthConstraintsInvalid)
        .next(next))
}

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
            // A fleet that gets its size is not kept from it: see `possible`.
            (Count(5), 3, 3, true),
        ] {
            assert_eq!(
                is_enough(rule, total, healthy),
                expected,
                "{rule:?} {healthy} of {total}"
            );
        }
    }

    #[test]
    fn a_rule_of_which_no_new_host_may_fail_is_refused_at_once() {
        use MinimumHealthy::*;
        for (rule, hosts, expected) in [
            (Count(5), 3, false),
            (Count(3), 3, false),
            (Count(2), 3, true),
            (Percent(95), 10, false),
            (Percent(75), 4, true),
            (Percent(50), 1, false),
            (OneAtATime, 1, true),
            (HalfAtATime, 1, true),
            (AllAtOnce, 1, true),
        ] {
            let found = possible(rule, hosts);
            assert_eq!(found.is_ok(), expected, "{rule:?} of {hosts}");
            let code = found.err().map(|fault| fault.code);
            assert!(code.is_none_or(|code| code == Some(Code::HealthConstraintsInvalid)));
        }
    }
}
