//! What follows the end of a service: whether it is started again, when, and how often.

use std::time::Duration;

use tokio::time::Instant;

use super::{AGAIN, Phase, Supervisor};
use crate::agent::{
    api::ServiceState,
    reaper::Exit,
    unit::{Restart, Unit},
};

/// A service that runs this long has recovered from its crashes.
const PEACE: Duration = Duration::from_secs(60);

/// Longest wait between two starts.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

impl Supervisor {
    pub(super) fn after_end(&mut self, exit: Exit, lived: Duration) {
        let unit = &self.definition.unit;
        let good = unit.ends_well(exit);
        let again = match (
            unit.never_after.contains(&exit),
            unit.always_after.contains(&exit),
        ) {
            (true, _) => false,
            (_, true) => true,
            _ => restarts(unit.restart, exit, good),
        };
        if !again {
            let (state, sub) = if good {
                (ServiceState::Inactive, "dead")
            } else {
                (ServiceState::Failed, "failed")
            };
            self.enter(state, sub, None);
            return self.died(!good);
        }
        let crashes = if lived >= PEACE {
            0
        } else {
            self.status.borrow().crashes
        };
        let wait = delay(unit, crashes);
        let next = Instant::now() + wait;
        let may = self.starts.another(unit.starts, next.into_std());
        self.publish(|status| status.crashes = crashes + 1);
        if unit.gives_up && !may {
            let why = format!(
                "Start request repeated too quickly: StartLimitBurst= is {}",
                unit.starts
            );
            self.surroundings.note(&why);
            self.enter(ServiceState::Failed, "failed", None);
        } else {
            self.surroundings
                .note(&format!("starts again in {} ms", wait.as_millis()));
            self.phase = Phase::Waiting(next);
            self.enter(ServiceState::Activating, AGAIN, None);
        }
        self.died(true);
    }
}

/// Is a service that ended started again?
fn restarts(policy: Restart, exit: Exit, good: bool) -> bool {
    match policy {
        Restart::Never => false,
        Restart::Always => true,
        Restart::OnSuccess => good,
        Restart::OnFailure => !good,
        Restart::OnAbnormal => !good && !matches!(exit, Exit::Code(_)),
        Restart::OnAbort => !good && matches!(exit, Exit::Signal(_)),
    }
}

/// How long to wait before the next start: twice as long for each crash in a row. Of one that is to be given up, not so
/// long that it never were, where its own delay is not.
fn delay(unit: &Unit, crashes: u32) -> Duration {
    let base = unit.restart_delay;
    let pause = unit.starts.pause().filter(|_| unit.gives_up);
    let longest = base.max(pause.unwrap_or(LONGEST_DELAY).min(LONGEST_DELAY));
    base.saturating_mul(1_u32.checked_shl(crashes).unwrap_or(u32::MAX))
        .min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::unit::parse;

    #[test]
    fn waits_double_and_end() {
        let of = |text: &str| parse("a", &format!("[Service]\nExecStart=/bin/a\n{text}")).unit;
        let (plain, base) = (of(""), Duration::from_millis(100));
        assert_eq!(delay(&plain, 0), base);
        assert_eq!(delay(&plain, 3), base * 8);
        assert_eq!(delay(&plain, 31), LONGEST_DELAY);
        assert_eq!(delay(&plain, 99), LONGEST_DELAY);
        assert_eq!(delay(&of("RestartSec=300"), 9), Duration::from_secs(300));
        for crashes in [0, 1, 99] {
            assert_eq!(delay(&of("RestartSec=0"), crashes), Duration::ZERO);
        }
        // Four starts fit into a minute.
        let limited = of("StartLimitBurst=3\nStartLimitInterval=60\nRestartSec=4");
        assert_eq!(
            [0, 1, 2, 9].map(|crashes| delay(&limited, crashes).as_secs()),
            [4, 8, 15, 15]
        );
        let patient = of("StartLimitBurst=3\nStartLimitInterval=60\nRestartSec=30");
        assert_eq!(delay(&patient, 9), Duration::from_secs(30));
    }

    /// As systemd does it for all units; here only for those that say so, or that would start without a pause.
    #[test]
    fn who_is_given_up() {
        for (text, gives_up) in [
            ("[Service]\nRestartSec=5\n", false),
            ("[Service]\nRestartSec=0\n", true),
            ("[Service]\nRestartSec=1\n[Unit]\nStartLimitBurst=2\n", true),
            ("[Service]\nStartLimitInterval=1min\n", true),
            ("[Service]\nStartLimitAction=none\n", false),
        ] {
            assert_eq!(parse("a", text).unit.gives_up, gives_up, "{text}");
        }
    }

    #[test]
    fn policies() {
        let killed = Exit::Signal(9);
        for (policy, clean, one, kill, late) in [
            (Restart::Never, false, false, false, false),
            (Restart::Always, true, true, true, true),
            (Restart::OnSuccess, true, false, false, false),
            (Restart::OnFailure, false, true, true, true),
            (Restart::OnAbnormal, false, false, true, true),
            (Restart::OnAbort, false, false, true, false),
        ] {
            assert_eq!(restarts(policy, Exit::Unknown, false), late, "{policy:?}");
            assert_eq!(restarts(policy, Exit::Code(0), true), clean, "{policy:?}");
            assert_eq!(restarts(policy, Exit::Code(1), false), one, "{policy:?}");
            assert_eq!(restarts(policy, killed, false), kill, "{policy:?}");
        }
    }
}
