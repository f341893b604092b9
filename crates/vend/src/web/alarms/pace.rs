//! How often somebody may tell of alarms: each token by itself, so that one that goes wild fills neither the ledger nor
//! the one writer of the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use model::{TenantName, alarm::Alarm, policy::Principal};
use tokio::sync::Semaphore;

use crate::web::refusal::{Kind, Refusal};

/// What is told, and each change that goes on record for it, is worth so much time.
const EACH: SignedDuration = SignedDuration::from_secs(1);
/// So much of it may be spent at once: Alertmanager tells of all groups in the same moment.
const AT_ONCE: SignedDuration = SignedDuration::from_secs(600);
/// So many that stay as they are cost as much as one that changes.
const SAME: usize = 50;
/// So much is spent at most: a minute after the largest storm something is taken again, because what begins to fire then matters.
const MOST: SignedDuration = SignedDuration::from_secs(660);
/// Posts of one tenant that are read at once: who sends slowly keeps nobody else waiting.
const READING: usize = 2;
/// Tokens that are remembered although they have nothing to wait for.
const REMEMBERED: usize = 1000;

/// Tokens of two tenants may have the same name.
type Teller = (Option<TenantName>, String);

#[derive(Debug, Default)]
pub struct Pace {
    /// Until when each has spent its time.
    spent: Mutex<HashMap<Teller, Timestamp>>,
    readers: Mutex<HashMap<TenantName, Arc<Semaphore>>>,
}

impl Pace {
    /// Refuses when too much was told of late. As a failure of the platform, after which Alertmanager tries again: it takes
    /// 429 for the last word.
    pub fn admit(&self, who: &Principal, now: Timestamp) -> Result<(), Refusal> {
        let ahead = self.spent(who, now, |until| {
            let over = until.duration_since(now).saturating_sub(AT_ONCE);
            if over < SignedDuration::ZERO {
                *until = until.saturating_add(EACH).unwrap_or(*until);
                return Ok(());
            }
            Err(over)
        });
        ahead.map_err(|wait| {
            let seconds = wait.as_secs().saturating_add(1);
            Refusal::new(
                Kind::Busy,
                format!(
                    "{} tells of alarms too often: nothing of it is taken for {seconds} s",
                    who.actor
                ),
            )
            .next("tell what changes, and repeat the rest every few minutes")
        })
    }

    /// Turns for a tenant's posts to be read.
    pub fn readers(&self, tenant: &TenantName) -> Arc<Semaphore> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of tenants that are gone, too, when nobody has one.
        readers.retain(|_, turns| Arc::strong_count(turns) > 1);
        let own = readers.entry(tenant.clone());
        Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(READING))))
    }

    /// Counts what was changed, of all that was written at that time.
    pub fn pay(&self, who: &Principal, at: Timestamp, written: &[Alarm]) {
        let changes = written.iter().filter(|alarm| alarm.since == at).count();
        let parts = changes + (written.len() - changes) / SAME;
        let cost = EACH.saturating_mul(i32::try_from(parts).unwrap_or(i32::MAX));
        self.spent(who, at, |until| {
            let after = until.saturating_add(cost).unwrap_or(*until);
            *until = after.min(at.saturating_add(MOST).unwrap_or(after));
        });
    }

    /// Looks at, and changes, until when somebody has spent its time: now, at the least.
    fn spent<T>(&self, who: &Principal, now: Timestamp, look: impl FnOnce(&mut Timestamp) -> T) -> T {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() > REMEMBERED {
            spent.retain(|_, until| *until > now);
        }
        let teller = (who.tenant.clone(), who.actor.clone());
        let until = spent.entry(teller).or_insert(now);
        *until = (*until).max(now);
        look(until)
    }
}

#[cfg(test)]
mod tests {
    use model::{alarm::AlarmState, policy::Role};

    use super::*;

    fn who(actor: &str, tenant: &str) -> Principal {
        Principal {
            actor: actor.to_owned(),
            role: Role::Monitor,
            tenant: Some(tenant.parse().unwrap()),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn one_that_tells_all_the_time_waits_and_others_do_not() {
        let (pace, wild) = (Pace::default(), who("token:wild", "acme"));
        for _ in 0..600 {
            assert!(pace.admit(&wild, at(1000)).is_ok());
        }
        let refused = pace.admit(&wild, at(1000)).unwrap_err();
        assert_eq!(refused.kind, Kind::Busy);
        for other in [who("token:other", "acme"), who("token:wild", "other")] {
            assert!(pace.admit(&other, at(1000)).is_ok());
        }
        // A second gives one back.
        assert!(pace.admit(&wild, at(1001)).is_ok());
        assert!(pace.admit(&wild, at(1001)).is_err());
    }

    #[test]
    fn what_goes_on_record_counts_too() {
        let (pace, flaps) = (Pace::default(), who("token:flaps", "acme"));
        let changed = Alarm {
            name: "errors".parse().unwrap(),
            state: AlarmState::Ok,
            reason: None,
            since: at(1000),
            told_at: at(1000),
            told_by: flaps.actor.clone(),
            ignored: None,
        };
        let same = Alarm {
            since: at(0),
            ..changed.clone()
        };
        pace.pay(&flaps, at(1000), &vec![same.clone(); 49]);
        assert!(pace.admit(&flaps, at(1000)).is_ok());
        pace.pay(&flaps, at(1000), &vec![changed.clone(); 599]);
        assert!(pace.admit(&flaps, at(1000)).is_err());
        assert!(pace.admit(&flaps, at(1001)).is_ok());
        // What stays as it is costs less, and is not for nothing. However much it was, a minute later something is taken.
        let repeats = who("token:repeats", "acme");
        pace.pay(&repeats, at(1000), &vec![same; 600 * SAME]);
        assert!(pace.admit(&repeats, at(1000)).is_err());
        pace.pay(&flaps, at(1000), &vec![changed; 9000]);
        assert!(pace.admit(&flaps, at(1060)).is_err());
        assert!(pace.admit(&flaps, at(1061)).is_ok());
    }

    #[test]
    fn a_tenant_s_posts_wait_for_each_other_and_for_nobody_else_s() {
        let pace = Pace::default();
        let [acme, other] = ["acme", "other"].map(|name| name.parse().unwrap());
        let turns = pace.readers(&acme);
        let taken: Vec<_> = (0..READING).map(|_| turns.try_acquire().unwrap()).collect();
        assert!(pace.readers(&acme).try_acquire().is_err());
        assert!(pace.readers(&other).try_acquire().is_ok());
        drop(taken);
        assert!(pace.readers(&acme).try_acquire().is_ok());
    }

    #[test]
    fn those_that_wait_for_nothing_are_forgotten() {
        let pace = Pace::default();
        for number in 0..5000 {
            let one = who(&format!("token:{number}"), "acme");
            pace.admit(&one, at(number * 10)).unwrap();
        }
        assert!(pace.spent.lock().unwrap().len() <= REMEMBERED + 1);
    }
}
