//! The record of a build's phases, as CodeBuild keeps it beside the log. Knows nothing of logs and containers.
//!
//! The log has lines of the phases that do something. The record has two more: `SUBMITTED`, when the build was taken, and
//! `COMPLETED`, which has neither a status nor a duration and only says when it ended (CodeBuild, `BuildPhase`).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use model::port::{PhaseReport, PhaseStatus};

/// A build says of itself which phases it has: so many are kept.
pub(super) const PHASES: usize = 100;

/// Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Record {
    taken_at: Timestamp,
    taken: Instant,
    phases: Arc<Mutex<Vec<PhaseReport>>>,
}

impl Record {
    /// The build is taken now.
    pub fn taken() -> Self {
        Self {
            taken_at: crate::now(),
            taken: Instant::now(),
            phases: Arc::default(),
        }
    }

    /// Whether it may be made is known: `refusal` is why not.
    pub fn submitted(&self, refusal: Option<String>) {
        let status = match refusal {
            None => PhaseStatus::Succeeded,
            Some(_) => PhaseStatus::Failed,
        };
        self.add(PhaseReport {
            name: "SUBMITTED".to_owned(),
            status: Some(status),
            started_at: self.taken_at,
            duration_ms: Some(millis(self.taken)),
            message: refusal,
        });
    }

    /// A phase that has ended.
    pub fn add(&self, phase: PhaseReport) {
        let mut phases = self.phases();
        // One place is kept for the end.
        if phases.len() + 1 < PHASES {
            phases.push(phase);
        }
    }

    /// The build is made anew: of a try before, the log stays.
    pub fn anew(&self) {
        self.phases().truncate(1);
    }

    /// The phase that failed first.
    pub fn failed(&self) -> Option<PhaseReport> {
        self.phases().iter().find(|phase| phase.broke()).cloned()
    }

    /// It has ended, however it did. All of it.
    pub fn completed(&self) -> Vec<PhaseReport> {
        let mut phases = self.phases();
        phases.push(PhaseReport {
            name: "COMPLETED".to_owned(),
            status: None,
            started_at: crate::now(),
            duration_ms: None,
            message: None,
        });
        std::mem::take(&mut *phases)
    }

    fn phases(&self) -> MutexGuard<'_, Vec<PhaseReport>> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since then.
pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, status: PhaseStatus) -> PhaseReport {
        PhaseReport {
            name: name.to_owned(),
            status: Some(status),
            started_at: Timestamp::UNIX_EPOCH,
            duration_ms: Some(1),
            message: None,
        }
    }

    fn names(phases: &[PhaseReport]) -> Vec<&str> {
        phases.iter().map(|phase| phase.name.as_str()).collect()
    }

    #[test]
    fn a_record_begins_and_ends_as_codebuild_s() {
        let record = Record::taken();
        record.submitted(None);
        record.add(phase("QUEUED", PhaseStatus::Succeeded));
        record.add(phase("BUILD", PhaseStatus::Failed));
        assert_eq!(record.failed().unwrap().name, "BUILD");
        record.anew();
        assert_eq!(record.failed(), None);
        record.add(phase("QUEUED", PhaseStatus::Succeeded));
        let all = record.completed();
        assert_eq!(names(&all), ["SUBMITTED", "QUEUED", "COMPLETED"]);
        assert_eq!(all[0].status, Some(PhaseStatus::Succeeded));
        assert_eq!((all[2].status, all[2].duration_ms), (None, None));

        let refused = Record::taken();
        refused.submitted(Some("no".to_owned()));
        let all = refused.completed();
        assert_eq!(names(&all), ["SUBMITTED", "COMPLETED"]);
        assert_eq!(all[0].message.as_deref(), Some("no"));
    }

    #[test]
    fn a_record_has_an_end_whatever_a_build_says_of_itself() {
        let record = Record::taken();
        for _ in 0..1000 {
            record.add(phase("BUILD", PhaseStatus::Succeeded));
        }
        let all = record.completed();
        assert_eq!(all.len(), PHASES);
        assert_eq!(all.last().unwrap().name, "COMPLETED");
    }
}
