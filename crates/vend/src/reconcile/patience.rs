//! How long a fleet that could not be brought to its size is left alone before it is tried again.
//!
//! Read from the executions on record, so that a restart forgets nothing and everybody who asks gets the same answer.

use jiff::{SignedDuration, Timestamp};
use model::{ExecutionId, Place};
use store::{Db, Error, ExecutionFilter, ExecutionSummary, Status};

/// The kind of an execution that brings an environment back to its size.
pub const HEAL: &str = "heal";

const FIRST: SignedDuration = SignedDuration::from_secs(60);
const LONGEST: SignedDuration = SignedDuration::from_hours(1);
/// Failures beyond these make nothing longer.
const LOOKED_AT: u32 = 8;

/// Heals of an environment that failed one after the other, with nothing else since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// At most as many as are looked at.
    pub times: u32,
    pub last: ExecutionId,
    pub cause: Option<String>,
    /// Not tried again before.
    pub next: Timestamp,
}

/// `None`: nothing failed, or something else has happened since.
pub fn failing(db: &Db<'_>, place: &Place) -> Result<Option<Failing>, Error> {
    failing_in(db, place, HEAL)
}

/// The same of executions of another kind.
pub fn failing_in(db: &Db<'_>, place: &Place, kind: &str) -> Result<Option<Failing>, Error> {
    let filter = ExecutionFilter {
        tenant: Some(place.tenant.clone()),
        app: Some(place.app.clone()),
        environment: Some(place.environment.clone()),
        open: Some(false),
        limit: LOOKED_AT,
        ..ExecutionFilter::default()
    };
    Ok(judge(&db.executions(&filter)?, kind))
}

/// `ended`: newest first.
fn judge(ended: &[ExecutionSummary], kind: &str) -> Option<Failing> {
    let failed =
        |one: &&ExecutionSummary| one.kind == kind && matches!(one.status, Status::Failed | Status::TimedOut);
    let times = u32::try_from(ended.iter().take_while(failed).count()).unwrap_or(LOOKED_AT);
    let last = ended.first().filter(failed)?;
    Some(Failing {
        times,
        last: last.id.clone(),
        cause: last.cause.clone().or_else(|| last.error.clone()),
        next: last.ended_at? + pause(times),
    })
}

/// A minute, two, four, … an hour.
pub fn pause(failures: u32) -> SignedDuration {
    let doubled = 1_i32.checked_shl(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    FIRST.saturating_mul(doubled).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(kind: &str, status: Status, second: i64) -> ExecutionSummary {
        let at = Timestamp::from_second(second).unwrap();
        ExecutionSummary {
            key: second.unsigned_abs(),
            id: ExecutionId::from_bits(second.unsigned_abs()),
            run: second.unsigned_abs(),
            kind: kind.into(),
            place: None,
            status,
            error: Some("Vend.Platform".into()),
            cause: Some("no disk".into()),
            started_at: at,
            started_by: "platform".into(),
            ended_at: Some(at),
            deadline_at: None,
        }
    }

    #[test]
    fn every_failure_doubles_the_pause_up_to_an_hour() {
        let heals: Vec<ExecutionSummary> = (0..8)
            .rev()
            .map(|second| ended(HEAL, Status::Failed, second))
            .collect();
        for (count, minutes) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60)] {
            let failing = judge(&heals[heals.len() - count..], HEAL).unwrap();
            let newest = i64::try_from(count).unwrap() - 1;
            assert_eq!(failing.next.as_second(), newest + minutes * 60, "{count}");
            assert_eq!(failing.cause.as_deref(), Some("no disk"));
        }
        assert_eq!(pause(u32::MAX), LONGEST);
    }

    #[test]
    fn whatever_happens_in_between_makes_it_patient_again() {
        let failed = |second| ended(HEAL, Status::Failed, second);
        assert_eq!(judge(&[], HEAL), None);
        for other in [
            ended(HEAL, Status::Succeeded, 5),
            ended("release", Status::Succeeded, 5),
            ended("release", Status::Failed, 5),
        ] {
            assert_eq!(judge(&[other.clone(), failed(1)], HEAL), None);
            assert_eq!(judge(&[failed(6), other, failed(1)], HEAL).unwrap().times, 1);
        }
    }
}
