//! How much one source, or one tenant, may ask: connections at a time, requests a second. All workers count together.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::clock;

/// Parts of a count, each with a lock of its own, so that workers rarely meet.
const PARTS: usize = 64;
/// Entries of a part before those that mean nothing any more are cleared away.
const ENTRIES: usize = 1024;
/// So many seconds of requests may come at once.
const BURST: f32 = 2.0;

/// Counts by key.
pub struct Quota<K> {
    parts: Vec<Mutex<HashMap<K, Count>>>,
    hasher: RandomState,
}

#[derive(Clone, Copy)]
struct Count {
    open: u32,
    /// Requests that came lately and are not forgiven yet.
    spent: f32,
    /// The tick of the last request.
    at: u64,
}

impl<K> Default for Quota<K> {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl<K: Hash + Eq> Quota<K> {
    /// Counts a connection in, unless there are `most` already.
    pub fn open(&self, key: K, most: u32, tick: u64) -> bool {
        self.with(key, tick, |count| {
            let free = count.open < most;
            count.open += u32::from(free);
            free
        })
    }

    /// Counts a connection out.
    pub fn close(&self, key: K, tick: u64) {
        self.with(key, tick, |count| count.open = count.open.saturating_sub(1));
    }

    /// Counts a request, unless there were more than `rate` a second lately.
    pub fn request(&self, key: K, rate: u32, tick: u64) -> bool {
        self.with(key, tick, |count| {
            let forgiven = tick.saturating_sub(count.at) as f32 / 1000.0 * rate as f32;
            count.spent = (count.spent - forgiven).max(0.0);
            count.at = tick;
            let free = count.spent + 1.0 <= rate as f32 * BURST;
            count.spent += if free { 1.0 } else { 0.0 };
            free
        })
    }

    fn with<T>(&self, key: K, tick: u64, change: impl FnOnce(&mut Count) -> T) -> T {
        let part = &self.parts[self.hasher.hash_one(&key) as usize % PARTS];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.len() >= ENTRIES {
            // A source that was silent for longer than its burst takes to fill is as good as new.
            let silence = (BURST * 1000.0) as u64;
            part.retain(|_, count| count.open > 0 || count.at.saturating_add(silence) > tick);
        }
        change(part.entry(key).or_insert(Count {
            open: 0,
            spent: 0.0,
            at: tick,
        }))
    }
}

/// Somebody has as many as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// One connection that is counted in, until it is dropped.
pub struct Seat<K: Hash + Eq + Clone> {
    quota: Arc<Quota<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Seat<K> {
    /// One of `most`. None where there is no limit, which is 0.
    pub fn take(quota: &Arc<Quota<K>>, key: impl FnOnce() -> K, most: u32) -> Result<Option<Self>, Full> {
        if most == 0 {
            return Ok(None);
        }
        let key = key();
        match quota.open(key.clone(), most, clock::ticks()) {
            true => Ok(Some(Self {
                quota: Arc::clone(quota),
                key,
            })),
            false => Err(Full),
        }
    }
}

impl<K: Hash + Eq + Clone> Drop for Seat<K> {
    fn drop(&mut self) {
        self.quota.close(self.key.clone(), clock::ticks());
    }
}

/// The tenant of a place.
pub fn tenant(place: &str) -> Box<str> {
    place.split('/').next().unwrap_or_default().into()
}

/// Who a source is: an IPv4 address, or the network of an IPv6 address that one customer has.
pub fn source(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_the_second() {
        let quota = Quota::default();
        let come = |n: u32, tick| (0..n).filter(|_| quota.request(7, 10, tick)).count();
        assert_eq!(come(50, 0), 20, "a burst");
        assert_eq!(come(50, 500), 5);
        assert_eq!(come(50, 1_500), 10);
        assert_eq!(come(50, 100_000), 20);
        assert!(quota.request(8, 10, 100_000), "another source");
    }

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let quota = Quota::default();
        assert!(quota.open(7, 2, 0) && quota.open(7, 2, 0) && !quota.open(7, 2, 0));
        quota.close(7, 0);
        assert!(quota.open(7, 2, 0) && quota.open(8, 2, 0));
    }

    #[test]
    fn a_seat_is_free_again_when_it_is_left() {
        let quota = Arc::new(Quota::default());
        let take = |place: &str| Seat::take(&quota, || tenant(place), 2);
        let (one, _two) = (take("acme/shop/dev"), take("acme/blog/dev").unwrap());
        assert_eq!(take("acme/shop/dev").err(), Some(Full));
        assert!(take("acmex/shop/dev").is_ok(), "another tenant");
        drop(one);
        assert!(take("acme/shop/dev").is_ok());
        let unlimited = Seat::take(&quota, || unreachable!("nobody is counted"), 0);
        assert!(unlimited.is_ok_and(|seat| seat.is_none()));
    }

    #[test]
    fn connections_and_requests_of_one_source_are_counted_apart() {
        let quota = Quota::default();
        // Each request on a connection of its own, as most tools come.
        let come = |n: u32, tick| {
            let visit = |_: &u32| {
                assert!(quota.open(7, 2, tick));
                let free = quota.request(7, 10, tick);
                quota.close(7, tick);
                free
            };
            (0..n).filter(visit).count()
        };
        assert_eq!(come(50, 0), 20, "a burst");
        // Connections that ask for nothing do not keep requests from being forgiven.
        for tick in 0..1_000 {
            assert!(quota.open(7, 2, tick));
            quota.close(7, tick);
        }
        assert_eq!(come(50, 1_000), 10);
    }

    #[test]
    fn many_sources_are_forgotten_again_but_not_those_that_are_connected() {
        let quota: Quota<u32> = Quota::default();
        assert!(quota.open(1, 1, 0));
        for key in 2..200_000 {
            quota.request(key, 10, u64::from(key));
        }
        let held: usize = quota.parts.iter().map(|part| part.lock().unwrap().len()).sum();
        assert!(held <= PARTS * (ENTRIES + 1), "{held}");
        assert!(!quota.open(1, 1, 500_000));
    }

    #[test]
    fn an_ipv6_source_is_a_network() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
