//! Requests for what sleeps: they wait, so many and for so long, and whoever starts hosts hears where they are wanted.
//!
//! The edge itself starts nothing. Without a control side requests wait for their time, and are told to come again.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::timeout,
};

use crate::{head::Ask, live::Live, metrics, table::Action, upstream::Limits, worker::Worker};

/// Where somebody still waits is told again after this, if nobody comes elsewhere.
const AGAIN: Duration = Duration::from_millis(50);
/// Who waits looks this often, whatever it hears.
const LOOK: Duration = Duration::from_secs(1);

/// Where hosts are wanted, by the place of the rule.
#[derive(Default)]
pub struct Wanted {
    places: Mutex<HashMap<Box<str>, Wish>>,
    news: Notify,
    turned_away: AtomicU64,
    /// Something that was waited for may be awake.
    stir: Notify,
}

#[derive(Default)]
struct Wish {
    /// Requests that wait now.
    waiting: u32,
    /// Somebody has come since the control side last looked, and may not wait.
    asked: bool,
}

impl Wanted {
    /// Somebody has come who does not wait, as datagrams do not.
    pub fn note(&self, place: &str) {
        self.places().entry(place.into()).or_default().asked = true;
        self.news.notify_one();
    }

    /// Whoever waits looks again: the table is another, or a target of a group that wakes is well.
    pub fn stir(&self) {
        self.stir.notify_waiters();
    }

    pub fn stirred(&self) -> Notified<'_> {
        self.stir.notified()
    }

    /// Waits until what is waited for is awake.
    async fn until(&self, is_awake: impl Fn() -> bool) {
        loop {
            let mut stirred = std::pin::pin!(self.stirred());
            // From here on nothing is missed, so that it is enough to look once.
            stirred.as_mut().enable();
            if is_awake() {
                return;
            }
            let _ = timeout(LOOK, stirred).await;
        }
    }

    /// A seat to wait in, or none when too many wait already.
    fn enter(&self, place: &str, limits: &Limits) -> Option<Seat<'_>> {
        let mut places = self.places();
        let all: u32 = places.values().map(|wish| wish.waiting).sum();
        let wish = places.entry(place.into()).or_default();
        wish.asked = true;
        let free = all < limits.sleepers && wish.waiting < limits.sleepers_each;
        wish.waiting += u32::from(free);
        drop(places);
        self.news.notify_one();
        if !free {
            self.turned_away.fetch_add(1, Relaxed);
        }
        free.then(|| Seat {
            wanted: self,
            place: place.into(),
        })
    }

    /// Where hosts are wanted now: at once when somebody has come since it was told last, after a pause where somebody
    /// only waits still, and in any case after `patience`.
    pub async fn places_within(&self, patience: Duration) -> Vec<String> {
        let wait = async {
            loop {
                let (waits, is_new) = {
                    let places = self.places();
                    (!places.is_empty(), places.values().any(|wish| wish.asked))
                };
                match (is_new, waits) {
                    (true, _) => return,
                    (false, true) if timeout(AGAIN, self.news.notified()).await.is_err() => return,
                    (false, true) => {}
                    (false, false) => self.news.notified().await,
                }
            }
        };
        let _ = timeout(patience, wait).await;
        self.take()
    }

    fn take(&self) -> Vec<String> {
        let mut places = self.places();
        let mut wanted: Vec<String> = places.keys().map(ToString::to_string).collect();
        wanted.sort_unstable();
        places.retain(|_, wish| {
            wish.asked = false;
            wish.waiting > 0
        });
        wanted
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> u32 {
        self.places().values().map(|wish| wish.waiting).sum()
    }

    /// Prometheus' text.
    pub fn write(&self, out: &mut String) {
        let requests = "Requests that wait for hosts to wake.";
        metrics::single(out, "vend_edge_waking_requests", requests, self.waiting().into());
        let refused = "Requests that found no place to wait in.";
        let turned_away = self.turned_away.load(Relaxed);
        metrics::single(out, "vend_edge_waking_refused_total", refused, turned_away);
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Box<str>, Wish>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that waits.
struct Seat<'a> {
    wanted: &'a Wanted,
    place: Box<str>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut places = self.wanted.places();
        if let Some(wish) = places.get_mut(&self.place) {
            wish.waiting = wish.waiting.saturating_sub(1);
            if wish.waiting == 0 && !wish.asked {
                places.remove(&self.place);
            }
        }
    }
}

/// The place of the request's rule, when all sleeps that the rule leads to. Whoever is given a group that sleeps must be of
/// the same mind, or nobody would wait for it.
pub fn asleep<'a>(live: &'a Live, ask: &Ask) -> Option<&'a str> {
    let rule = live.rules.find(ask).filter(|rule| rule.lets_in(ask.peer))?;
    let Action::Forward(weights) = &rule.action else {
        return None;
    };
    weights.sleep().then(|| rule.place())
}

/// Waits until what the request is for is awake. False: too long, or too many wait.
pub async fn until_awake(worker: &Worker, ask: &Ask, patience: Duration) -> bool {
    let shared = &worker.shared;
    let seat = {
        let live = shared.live.load();
        let Some(place) = asleep(&live, ask) else {
            return true;
        };
        shared.wanted.enter(place, &worker.limits())
    };
    let Some(_seat) = seat else { return false };
    let awake = shared.wanted.until(|| asleep(&shared.live.load(), ask).is_none());
    timeout(patience, awake).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(sleepers: u32, sleepers_each: u32) -> Limits {
        Limits {
            sleepers,
            sleepers_each,
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn who_waits_is_told_again_and_who_left_once() {
        let wanted = Wanted::default();
        let soon = Duration::from_millis(1);
        assert!(wanted.places_within(soon).await.is_empty());
        let seat = wanted.enter("a/b/c", &limits(9, 9)).unwrap();
        wanted.note("a/b/d");
        assert_eq!(wanted.places_within(soon).await, ["a/b/c", "a/b/d"]);
        assert_eq!(wanted.places_within(soon).await, ["a/b/c"]);
        drop(seat);
        assert!(wanted.places_within(soon).await.is_empty());
        assert!(wanted.places().is_empty());
        // One that gave up before anybody looked is told all the same.
        drop(wanted.enter("a/b/c", &limits(9, 9)));
        assert_eq!(wanted.places_within(soon).await, ["a/b/c"]);
    }

    #[tokio::test]
    async fn who_comes_is_told_at_once_though_others_wait() {
        let wanted = Wanted::default();
        let _seat = wanted.enter("a/b/c", &limits(9, 9));
        let long = Duration::from_secs(600);
        assert_eq!(wanted.places_within(long).await, ["a/b/c"]);
        // It is not news any more, but it is not forgotten either.
        let mut told = std::pin::pin!(wanted.places_within(long));
        assert!(timeout(Duration::ZERO, told.as_mut()).await.is_err());
        wanted.note("a/b/d");
        assert_eq!(told.await, ["a/b/c", "a/b/d"]);
        assert_eq!(wanted.places_within(long).await, ["a/b/c"]);
    }

    #[tokio::test]
    async fn who_waits_looks_even_when_nobody_stirs() {
        let (wanted, awake) = (Wanted::default(), std::cell::Cell::new(false));
        let waiting = wanted.until(|| awake.get());
        let waking = async {
            tokio::task::yield_now().await;
            awake.set(true);
        };
        let both = async { tokio::join!(waiting, waking) };
        assert!(timeout(30 * LOOK, both).await.is_ok());
    }

    #[tokio::test]
    async fn one_place_does_not_take_the_seats_of_all() {
        let wanted = Wanted::default();
        let limits = limits(3, 2);
        let one = wanted.enter("a/b/c", &limits);
        let two = wanted.enter("a/b/c", &limits);
        assert!(one.is_some() && two.is_some() && wanted.enter("a/b/c", &limits).is_none());
        let other = wanted.enter("z/b/c", &limits);
        assert!(other.is_some() && wanted.enter("z/b/c", &limits).is_none());
        // Who was turned away wakes all the same.
        assert!(wanted.enter("y/b/c", &limits).is_none());
        let soon = Duration::from_millis(1);
        assert_eq!(wanted.places_within(soon).await, ["a/b/c", "y/b/c", "z/b/c"]);
        let mut text = String::new();
        wanted.write(&mut text);
        assert!(text.contains("vend_edge_waking_requests 3\n"), "{text}");
        assert!(text.contains("vend_edge_waking_refused_total 3\n"), "{text}");
    }
}
