//! What a deployment has come to on the hosts that were made for it, over all of its stages.
//!
//! It is counted in rows: an attempt that was cut off is followed by one that finds its hosts done, and their failures
//! count no less; nor do they in the stages that follow.

use jiff::Timestamp;
use model::{
    DeploymentId, HostId, Place,
    port::{Fault, HostRole},
    spec::MinimumHealthy,
};
use store::{Host, HostState};

use super::{World, healthy, stored};
use crate::reconcile::fleet::DIED;

#[derive(Debug, PartialEq, Eq)]
pub struct Tally {
    pub well: u32,
    pub failed: u32,
    /// Of the first that failed.
    reason: Option<String>,
}

impl Tally {
    /// Of the hosts of a release but `others`, in a deployment that began at `since`.
    pub async fn read(
        world: &World,
        place: &Place,
        release: u64,
        since: Timestamp,
        others: &[HostId],
    ) -> Result<Self, Fault> {
        let place = place.clone();
        // Also those that were retired: who died meanwhile is one of them.
        let hosts = world.store.read(move |db| db.hosts(Some(&place)));
        let mut hosts = hosts.await.map_err(stored)?;
        hosts.retain(|host| host.release == Some(release) && !others.contains(&host.id));
        Ok(Self::of(&hosts, since))
    }

    /// What failed before `since` was another deployment's, and so is a host that was there before and died.
    pub fn of(hosts: &[Host], since: Timestamp) -> Self {
        let own = || hosts.iter().filter(|host| host.role == HostRole::App);
        let has_failed = |host: &&Host| match host.state {
            HostState::Failed => host.changed_at >= since,
            HostState::Retired => host.created_at >= since && host.reason.as_deref() == Some(DIED),
            _ => false,
        };
        let failed: Vec<&Host> = own().filter(has_failed).collect();
        Self {
            well: own().filter(|host| host.state == HostState::Ready).count() as u32,
            failed: failed.len() as u32,
            reason: failed.first().and_then(|host| match host.reason.as_deref() {
                Some(DIED) => Some(format!("host {} died after it got the release", host.id)),
                reason => reason.map(str::to_owned),
            }),
        }
    }

    /// Are so many of those that had not failed enough? What had failed counts as no less of the fleet.
    pub fn is_enough(&self, rule: MinimumHealthy, standing: u32, well: u32) -> bool {
        healthy::is_enough(rule, standing + self.failed, well)
    }

    pub fn fault(self, deployment: &DeploymentId) -> Fault {
        let reason = self.reason.unwrap_or_else(|| "a host did not get ready".into());
        Fault::customer(reason).next(format!("vend deployments show {deployment}"))
    }
}

#[cfg(test)]
mod tests {
    use model::port::Blame;

    use super::*;
    use crate::fixtures;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn host(number: u64, state: HostState, changed: i64) -> Host {
        Host {
            reason: (state == HostState::Failed).then(|| format!("{number} failed")),
            changed_at: at(changed),
            ..fixtures::host(number, 2, state)
        }
    }

    #[test]
    fn what_failed_in_one_stage_is_missed_in_the_next() {
        use MinimumHealthy::{Count, HalfAtATime, OneAtATime, Percent};
        // Two of four failed before; of the others none, one or both fail now.
        let hosts = [
            host(1, HostState::Failed, 20),
            host(2, HostState::Failed, 21),
            host(3, HostState::Ready, 20),
            host(4, HostState::Ready, 20),
        ];
        let tally = Tally::of(&hosts, at(10));
        for (rule, both, one) in [
            (Percent(50), true, false),
            (HalfAtATime, true, false),
            (Count(1), true, true),
            (OneAtATime, false, false),
        ] {
            let enough = [2, 1, 0].map(|well| tally.is_enough(rule, 2, well));
            assert_eq!(enough, [both, one, false], "{rule:?}");
        }
    }

    #[test]
    fn hosts_that_were_ready_and_died_have_failed() {
        let retired = |number, created, reason: &str| Host {
            reason: Some(reason.to_owned()),
            created_at: at(created),
            ..host(number, HostState::Retired, 30)
        };
        let hosts = [
            host(1, HostState::Ready, 20),
            host(2, HostState::Ready, 20),
            retired(3, 11, DIED),
            retired(4, 11, DIED),
            // One of before, and one that was not wanted any more.
            retired(5, 1, DIED),
            retired(6, 11, "its time has come"),
        ];
        let tally = Tally::of(&hosts, at(10));
        assert_eq!((tally.well, tally.failed), (2, 2));
        let rule = MinimumHealthy::Percent(75);
        assert!(!healthy::is_enough(rule, tally.well + tally.failed, tally.well));
        let reason = tally.reason.unwrap();
        assert!(reason.ends_with("died after it got the release"), "{reason}");
    }

    #[test]
    fn what_failed_in_an_attempt_that_was_cut_off_counts() {
        let hosts = [
            host(1, HostState::Failed, 5),
            host(2, HostState::Serving, 20),
            host(3, HostState::Ready, 20),
            host(4, HostState::Failed, 20),
            host(5, HostState::Failed, 21),
        ];
        let tally = Tally::of(&hosts, at(10));
        assert_eq!((tally.well, tally.failed), (1, 2));
        let fault = tally.fault(&DeploymentId::from_bits(1));
        assert_eq!(
            (fault.blame, fault.message.as_str()),
            (Blame::Customer, "4 failed")
        );
    }
}
