//! Whether a build that failed is made again, and what its tries have in common.
//!
//! `on-failure: RETRY` is said of a phase, and what it retries is the build: CodeBuild begins another one, so that
//! nothing of the failed one is in the way of the next. Here that is another container for the same ticket.

use std::time::{Duration, Instant};

use model::spec::{Buildspec, build::OnFailure};

use super::Error;

/// So much of the end of what a phase says is searched for the pattern of `on-failure`.
pub(super) const SAID_BYTES: usize = 64 << 10;

/// What came before one try of a build. All tries share the build's time limit: who waits for the build does not know
/// how many there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Before {
    /// How often it was made before, and failed in a way that is tried again.
    pub retried: u32,
    /// When the commands of the first try began, and why the last one failed.
    pub last: Option<(Instant, String)>,
}

impl Before {
    /// What is left of the limit.
    pub fn left(&self, limit: Duration, now: Instant) -> Duration {
        limit.saturating_sub(now.saturating_duration_since(self.began(now)))
    }

    /// Waits until the limit is over. That of the first try has not begun.
    pub async fn over(&self, limit: Duration) {
        match self.last {
            Some(_) => tokio::time::sleep(self.left(limit, Instant::now())).await,
            None => std::future::pending().await,
        }
    }

    pub fn began(&self, now: Instant) -> Instant {
        self.last.as_ref().map_or(now, |(began, _)| *began)
    }

    /// What comes before the next try, after this one failed.
    pub fn next(&self, began: Instant, failed: Error) -> Self {
        let why = match failed {
            Error::Failed { phase, message, .. } => format!("{phase} failed: {message}"),
            other => other.to_string(),
        };
        Self {
            retried: self.retried + 1,
            last: Some((began, why)),
        }
    }

    /// The end of a build whose time is over.
    pub fn timed_out(&self, timeout: Duration, doing: String, last: String) -> Error {
        let before = self.last.as_ref().map(|(_, why)| {
            let retried = self.retried;
            format!(" (this was retry {retried}, and all tries share the time; the one before failed: {why})")
        });
        Error::TimedOut {
            timeout,
            doing,
            before: before.unwrap_or_default(),
            last,
        }
    }
}

/// Which of how many times it is that a build is made again, after a phase failed with this message; `said` is what its
/// commands wrote. The message of a command that failed has but its text and status: what people look for is in what it
/// wrote. `None` when the build has failed for good.
pub(super) fn next(
    on_failure: &OnFailure,
    retried: u32,
    message: &str,
    said: &str,
) -> Result<Option<(u32, u32)>, regex::Error> {
    let OnFailure::Retry { times, pattern } = on_failure else {
        return Ok(None);
    };
    if retried >= *times {
        return Ok(None);
    }
    let matches = match pattern {
        None => true,
        Some(pattern) => {
            let pattern = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build()?;
            pattern.is_match(message) || pattern.is_match(said)
        }
    };
    Ok(matches.then_some((retried + 1, *times)))
}

/// Whether some phase may ask for another build, whatever the runner says.
pub(super) fn may(buildspec: &Buildspec, retried: u32) -> bool {
    buildspec
        .phases
        .iter()
        .any(|phase| matches!(phase.on_failure, OnFailure::Retry { times, .. } if retried < times))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str =
        "COMMAND_EXECUTION_ERROR: Error while executing command: make. Reason: exit status 2";

    fn spec(on_failure: &str) -> Buildspec {
        let text =
            format!("version: 0.2\nphases: {{ build: {{ on-failure: '{on_failure}', commands: [make] }} }}");
        Buildspec::parse(&text, "b").unwrap().0
    }

    #[track_caller]
    fn check(on_failure: &str, said: &str, expected: &[Option<(u32, u32)>]) {
        let spec = spec(on_failure);
        for (retried, expected) in (0..).zip(expected) {
            let found = next(&spec.phases[0].on_failure, retried, MESSAGE, said).unwrap();
            assert_eq!(found, *expected, "{on_failure} after {retried}");
            assert!(
                found.is_none() || may(&spec, retried),
                "{on_failure} after {retried}"
            );
        }
    }

    #[test]
    fn a_build_is_made_again_as_often_as_the_phase_says() {
        check("ABORT", "", &[None]);
        check("CONTINUE", "", &[None]);
        check("RETRY", "", &[Some((1, 3)), Some((2, 3)), Some((3, 3)), None]);
        check("RETRY-0", "", &[None]);
        check("RETRY-1", "", &[Some((1, 1)), None]);
        check("Retry-2", "", &[Some((1, 2)), Some((2, 2)), None]);
    }

    #[test]
    fn only_what_matches_is_tried_again() {
        let said = "connecting\nError: Unable to connect to database db\nbye\n";
        for matching in [
            "Retry-.*Error: Unable to connect to database.*",
            "RETRY-Unable",
            "RETRY-exit status [23]",
            "RETRY-.*",
            "RETRY-3-.*connect.*",
        ] {
            check(matching, said, &[Some((1, 3)), Some((2, 3)), Some((3, 3)), None]);
        }
        check("RETRY-8-invalid+", "invaliddd", &[Some((1, 8))]);
        for other in ["RETRY-invalid+", "RETRY-3-.*timed out.*", "RETRY-exit status 1"] {
            check(other, said, &[None]);
        }
    }

    #[test]
    fn all_tries_share_one_limit() {
        let limit = Duration::from_secs(60);
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let text = |before: &Before| {
            let ended = before.timed_out(limit, "in phase BUILD".to_owned(), String::new());
            ended.to_string()
        };
        let first = Before::default();
        assert_eq!(first.left(limit, after(1000)), limit);
        assert_eq!(
            text(&first),
            "the build was stopped after 60 seconds, in phase BUILD"
        );
        let failed = Error::Failed {
            phase: "BUILD".to_owned(),
            message: MESSAGE.to_owned(),
            last: String::new(),
            tests: String::new(),
        };
        let second = first.next(began, failed);
        assert_eq!((second.retried, second.began(after(9))), (1, began));
        assert_eq!(second.left(limit, after(25)), Duration::from_secs(35));
        assert_eq!(second.left(limit, after(61)), Duration::ZERO);
        assert_eq!(
            text(&second),
            format!(
                "the build was stopped after 60 seconds, in phase BUILD (this was retry 1, and all tries share the time; \
                 the one before failed: BUILD failed: {MESSAGE})"
            )
        );
    }

    #[test]
    fn nobody_else_asks_for_another_build() {
        assert!(!may(&spec("ABORT"), 0));
        assert!(may(&spec("RETRY-100"), 99));
        assert!(!may(&spec("RETRY-100"), 100));
    }
}
