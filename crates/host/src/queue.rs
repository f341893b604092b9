//! Who builds or bakes next: so many at a time, and no tenant before another only because it asked more often.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{TenantName, Ticket};
use tokio::sync::oneshot;

/// `None`: the platform's own, which waits as one more tenant would.
type Whose = Option<TenantName>;

/// Clones share the places.
#[derive(Debug, Clone)]
pub(crate) struct Queue(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    running: HashMap<Whose, usize>,
    /// How many places had been given when a tenant got its last one. One number for each tenant that ever had one.
    served: HashMap<Whose, u64>,
    given: u64,
    /// In the order of arrival.
    waiting: Vec<Entry>,
}

/// A build or a bake that waits for its turn.
#[derive(Debug)]
struct Entry {
    tenant: Whose,
    /// `None`: that it waits is noted elsewhere.
    ticket: Option<Ticket>,
    turn: oneshot::Sender<Place>,
}

/// The right to go on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    queue: Queue,
    tenant: Whose,
    held: bool,
}

/// How it stands when somebody has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub running: usize,
    pub before: usize,
}

impl Queue {
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: places.max(1),
            running: HashMap::new(),
            served: HashMap::new(),
            given: 0,
            waiting: Vec::new(),
        })))
    }

    /// A place, as soon as there is one. `told` hears when that is not at once.
    pub async fn enter(
        &self,
        tenant: Option<&TenantName>,
        ticket: Option<&Ticket>,
        told: impl FnOnce(Waiting),
    ) -> Place {
        let (turn, waiting) = {
            let mut state = self.lock();
            let waiting = Waiting {
                running: state.running.values().sum(),
                before: state.waiting.len(),
            };
            let (sender, turn) = oneshot::channel();
            state.waiting.push(Entry {
                tenant: tenant.cloned(),
                ticket: ticket.cloned(),
                turn: sender,
            });
            self.give(&mut state);
            (turn, waiting)
        };
        let mut turn = turn;
        if let Ok(place) = turn.try_recv() {
            return place;
        }
        told(waiting);
        turn.await.expect("the queue keeps what waits until its turn")
    }

    /// Does the build under this ticket wait for its turn?
    pub fn waits(&self, ticket: &Ticket) -> bool {
        let waiting = &self.lock().waiting;
        waiting
            .iter()
            .any(|entry| entry.ticket.as_ref() == Some(ticket) && !entry.turn.is_closed())
    }

    /// Gives free places: to the tenant that has the fewest, of those to whose last turn is the longest ago, and of its
    /// builds to the one that came first. Where one builds at a time nobody who waits has any place, so that the turns
    /// alone are what is fair.
    fn give(&self, state: &mut State) {
        while state.free > 0 {
            let turn = |entry: &Entry| {
                let running = state.running.get(&entry.tenant).copied().unwrap_or(0);
                (running, state.served.get(&entry.tenant).copied().unwrap_or(0))
            };
            let next = (0..state.waiting.len()).min_by_key(|index| turn(&state.waiting[*index]));
            let Some(next) = next else {
                return;
            };
            let Entry { tenant, turn, .. } = state.waiting.remove(next);
            let place = Place {
                queue: self.clone(),
                tenant: tenant.clone(),
                held: true,
            };
            match turn.send(place) {
                Ok(()) => {
                    state.free -= 1;
                    state.given += 1;
                    *state.running.entry(tenant.clone()).or_default() += 1;
                    state.served.insert(tenant, state.given);
                }
                // Nobody waits there any more. The place was never counted, so it is not given back.
                Err(mut place) => place.held = false,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Others may have the place while `meanwhile` goes on, and then there is a turn anew, for which this waits under
    /// `ticket`. What failed needs none.
    pub async fn lend<T, E>(
        &mut self,
        ticket: Option<&Ticket>,
        meanwhile: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.leave();
        let done = meanwhile.await?;
        let (queue, tenant) = (self.queue.clone(), self.tenant.clone());
        *self = queue.enter(tenant.as_ref(), ticket, |_| ()).await;
        Ok(done)
    }

    fn leave(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let mut state = self.queue.lock();
        state.free += 1;
        if let Some(count) = state.running.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                state.running.remove(&self.tenant);
            }
        }
        self.queue.give(&mut state);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        name.parse().unwrap()
    }

    fn ticket(name: &str) -> Ticket {
        name.parse().unwrap()
    }

    async fn enter(queue: &Queue, own: &(TenantName, Ticket), told: impl FnOnce(Waiting)) -> Place {
        queue.enter(Some(&own.0), Some(&own.1), told).await
    }

    /// In which order these tenants build, which came in this one while the first of them was building, so many at a time.
    async fn turns(places: usize, names: &[&'static str]) -> Vec<&'static str> {
        let queue = Queue::new(places);
        let mut held = Vec::new();
        for _ in 0..places {
            let own = (tenant(names[0]), ticket("t-0"));
            held.push(enter(&queue, &own, |_| panic!("there is a place")).await);
        }
        let (order, mut entered) = tokio::sync::mpsc::unbounded_channel();
        for (number, name) in names.iter().copied().enumerate() {
            let (entrance, order) = (queue.clone(), order.clone());
            tokio::spawn(async move {
                let told = |waiting| {
                    let (running, before) = (places, number);
                    assert_eq!(waiting, Waiting { running, before });
                };
                let place = enter(&entrance, &(tenant(name), ticket("t-1")), told).await;
                order.send(name).unwrap();
                drop(place);
            });
            while queue.lock().waiting.len() <= number {
                tokio::task::yield_now().await;
            }
        }
        // The others go on: what frees is one place, as beside a build of hours.
        drop(held.pop());
        let mut turns = Vec::new();
        for _ in names {
            turns.push(entered.recv().await.unwrap());
        }
        turns
    }

    #[tokio::test]
    async fn a_tenant_with_many_builds_does_not_hold_up_the_others() {
        let names = ["busy", "busy", "busy", "calm", "calm", "late"];
        let fair = ["calm", "late", "busy", "calm", "busy", "busy"];
        assert_eq!(turns(1, &names).await, fair);
        // Who holds a place of two is after those who have none.
        let fair = ["calm", "late", "calm", "busy", "busy", "busy"];
        assert_eq!(turns(2, &names).await, fair);
    }

    #[tokio::test]
    async fn who_leaves_gives_way() {
        let queue = Queue::new(1);
        let first = enter(&queue, &(tenant("a"), ticket("t-a")), |_| ()).await;
        let gone = tokio::time::timeout(
            std::time::Duration::from_millis(5),
            enter(&queue, &(tenant("b"), ticket("t-b")), |_| ()),
        )
        .await;
        assert!(gone.is_err());
        drop(first);
        let third = (tenant("c"), ticket("t-c"));
        let _third = enter(&queue, &third, |_| panic!("there is a place")).await;
        assert_eq!(queue.lock().free, 0);
    }

    #[tokio::test]
    async fn a_place_that_is_lent_is_others_until_the_next_turn() {
        let queue = Queue::new(1);
        let own = ticket("t-a");
        let mut first = enter(&queue, &(tenant("a"), own.clone()), |_| ()).await;
        let (done, meanwhile) = oneshot::channel::<()>();
        {
            let mut lent = Box::pin(first.lend(Some(&own), meanwhile));
            assert!(futures_util::poll!(&mut lent).is_pending());
            let second = (tenant("b"), ticket("t-b"));
            let second = enter(&queue, &second, |_| panic!("it is lent")).await;
            done.send(()).unwrap();
            assert!(futures_util::poll!(&mut lent).is_pending() && queue.waits(&own));
            drop(second);
            lent.await.unwrap();
        }
        assert_eq!(queue.lock().free, 0, "it is its own again");
        // Whoever stops meanwhile has no place to give back.
        let gone = std::time::Duration::from_millis(5);
        let gone =
            tokio::time::timeout(gone, first.lend(None, std::future::pending::<Result<(), ()>>())).await;
        assert!(gone.is_err() && queue.lock().free == 1);
        drop(first);
        assert_eq!(queue.lock().free, 1);
    }

    #[tokio::test]
    async fn a_build_waits_from_when_it_comes_until_its_turn_or_until_it_leaves() {
        let queue = Queue::new(1);
        let first = enter(&queue, &(tenant("a"), ticket("t-a")), |_| ()).await;
        let (second, third) = ((tenant("b"), ticket("t-b")), (tenant("c"), ticket("t-c")));
        let mut turn = Box::pin(enter(&queue, &second, |_| ()));
        let mut left = Box::pin(enter(&queue, &third, |_| ()));
        assert!(futures_util::poll!(&mut turn).is_pending());
        assert!(futures_util::poll!(&mut left).is_pending());
        let waits = |name| queue.waits(&ticket(name));
        assert_eq!(["t-a", "t-b", "t-c"].map(waits), [false, true, true]);
        drop(left);
        assert_eq!(["t-a", "t-b", "t-c"].map(waits), [false, true, false]);
        drop(first);
        assert!(!waits("t-b"), "it is its turn");
        drop(turn.await);
    }
}
