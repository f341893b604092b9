//! Room for activities: of one tenant so many at a time, and of all tenants so many more that memory stays bounded.
//!
//! A task waits for room only behind tasks of its own tenant that do the same for the same reason: the same stage of
//! the same kind of execution. So hooks that hang keep no other tenant's from beginning, and not their own tenant's way
//! back either, nor its plans, its rollbacks or its heals: those are other stages, or of other kinds. Nothing here has to
//! know which of them are quick.
//!
//! A task's time runs from when it is scheduled, so it runs here, too. Those that wait together have about the same time:
//! nothing short waits behind something long. See decision 104.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::TenantName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Activities of one tenant that run at the same time, in each stage of each kind of execution.
const OF_A_TENANT: usize = 64;
/// Those of all tenants together.
const OF_ALL: usize = 1024;

/// Who waits for the same room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// Of the execution: why it is done.
    pub kind: String,
    pub activity: String,
    /// `None`: of all tenants.
    pub tenant: Option<TenantName>,
}

/// The rooms, and who is in them.
pub struct Rooms {
    of_a_tenant: usize,
    of_all: usize,
    rooms: Mutex<HashMap<Line, Arc<Semaphore>>>,
}

/// Room for one activity, until it is dropped.
pub struct Place {
    _own: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Rooms {
    fn default() -> Self {
        Self::new(OF_A_TENANT, OF_ALL)
    }
}

impl Rooms {
    pub fn new(of_a_tenant: usize, of_all: usize) -> Self {
        Self {
            of_a_tenant,
            of_all,
            rooms: Mutex::default(),
        }
    }

    /// A place, in the order in which they are asked for. Stop waiting by dropping the future.
    pub async fn enter(&self, line: &Line) -> Place {
        // First: so of those that wait for what all share no tenant is more than its own room holds.
        let own = match &line.tenant {
            Some(_) => Some(self.take(line, self.of_a_tenant).await),
            None => None,
        };
        let all = Line {
            tenant: None,
            ..line.clone()
        };
        Place {
            _own: own,
            _of_all: self.take(&all, self.of_all).await,
        }
    }

    async fn take(&self, line: &Line, places: usize) -> OwnedSemaphorePermit {
        let room = {
            let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody is in, and nobody waits for.
            rooms.retain(|_, room| Arc::strong_count(room) > 1);
            let own = rooms.entry(line.clone());
            Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(places))))
        };
        room.acquire_owned().await.expect("nobody closes it")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn line(kind: &str, activity: &str, tenant: &str) -> Line {
        Line {
            kind: kind.into(),
            activity: activity.into(),
            tenant: Some(tenant.parse().unwrap()),
        }
    }

    #[test]
    fn a_tenant_waits_for_its_own_and_only_for_what_does_the_same_for_the_same_reason() {
        let rooms = Rooms::new(2, 9);
        let now = |line: &Line| rooms.enter(line).now_or_never();
        let hooks = line("release", "deploy", "acme");
        let mut taken: Vec<Place> = (0..2).map(|_| now(&hooks).unwrap()).collect();
        assert!(now(&hooks).is_none());
        for other in [
            line("release", "deploy", "other"),
            line("release", "unwind", "acme"),
            line("release", "plan", "acme"),
            line("rollback", "deploy", "acme"),
            line("heal", "deploy", "acme"),
        ] {
            assert!(now(&other).is_some(), "{other:?}");
        }
        // Who came first is next, and who has left is passed over.
        let (mut gone, mut first, mut second) = (
            Box::pin(rooms.enter(&hooks)),
            Box::pin(rooms.enter(&hooks)),
            Box::pin(rooms.enter(&hooks)),
        );
        assert!((&mut gone).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(gone);
        taken.pop();
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_some());
        assert!((&mut second).now_or_never().is_some());
    }

    #[test]
    fn all_tenants_together_have_a_bound_which_none_of_them_fills() {
        let rooms = Rooms::new(2, 5);
        let now = |tenant: &str| rooms.enter(&line("release", "deploy", tenant)).now_or_never();
        let busy: Vec<Option<Place>> = (0..9).map(|_| now("busy")).collect();
        assert_eq!(busy.iter().flatten().count(), 2);
        let calm: Vec<Option<Place>> = (0..9).map(|_| now("calm")).collect();
        assert_eq!(calm.iter().flatten().count(), 2);
        let last = now("late").unwrap();
        assert!(now("late").is_none());
        // Its own room is not held by who gave up waiting for what all share.
        drop(busy);
        assert!(now("late").is_some());
        drop(last);
    }

    #[test]
    fn rooms_that_nobody_is_in_are_forgotten() {
        let rooms = Rooms::new(1, 1);
        for number in 0..100 {
            let own = line("release", "plan", &format!("tenant-{number}"));
            assert!(rooms.enter(&own).now_or_never().is_some());
        }
        assert!(rooms.rooms.lock().unwrap().len() <= 2);
    }
}
