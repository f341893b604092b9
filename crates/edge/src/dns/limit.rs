//! How many answers a network gets over UDP. The address of a query can be forged, and the answer goes to whoever has it.
//!
//! A table of fixed size: a flood of forged addresses takes no memory. Two networks in one place share what one has.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

const PLACES: usize = 1 << 16;
/// So many seconds of answers may go at once.
const BURST: f32 = 2.0;

pub struct Limit {
    rate: f32,
    hasher: RandomState,
    places: Mutex<Box<[Place]>>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// Answers that may not go yet: it shrinks by `rate` a second.
    owed: f32,
    /// The tick, in its low 32 bits, at which that was so.
    at: u32,
    refused: u32,
}

/// What becomes of one query.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Answer,
    /// A short answer that says: ask over TCP.
    Defer,
    Drop,
}

impl Limit {
    /// `rate` a second; 0 is no limit.
    pub fn new(rate: u32) -> Self {
        Self {
            rate: rate as f32,
            hasher: RandomState::new(),
            places: Mutex::new(vec![Place::default(); PLACES].into()),
        }
    }

    pub fn ask(&self, source: IpAddr, tick: u64) -> Verdict {
        if self.rate == 0.0 {
            return Verdict::Answer;
        }
        let index = self.hasher.hash_one(network(source)) as usize % PLACES;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut places[index];
        let since = (tick as u32).wrapping_sub(place.at) as f32 / 1000.0;
        place.owed = (place.owed - since * self.rate).max(0.0);
        place.at = tick as u32;
        if place.owed + 1.0 <= self.rate * BURST {
            place.owed += 1.0;
            return Verdict::Answer;
        }
        place.refused = place.refused.wrapping_add(1);
        match place.refused % 2 {
            1 => Verdict::Defer,
            _ => Verdict::Drop,
        }
    }
}

/// The network that one customer has.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => ip.to_bits() >> 72 << 72 | 1 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_gets_so_many_answers_and_then_is_sent_to_tcp() {
        let limit = Limit::new(10);
        let ask = |ip: &str, tick| limit.ask(ip.parse().unwrap(), tick);
        let count = |n: usize, ip: &str, tick| {
            let got: Vec<_> = (0..n).map(|_| ask(ip, tick)).collect();
            let of = |what: Verdict| got.iter().filter(|got| **got == what).count();
            (of(Verdict::Answer), of(Verdict::Defer), of(Verdict::Drop))
        };
        assert_eq!(count(30, "192.0.2.1", 5_000), (20, 5, 5));
        assert_eq!(
            count(10, "192.0.2.77", 5_000),
            (0, 5, 5),
            "its neighbour is the same network"
        );
        assert_eq!(count(10, "192.0.2.1", 5_500), (5, 3, 2));
        assert_eq!(count(1, "192.0.3.1", 5_000), (1, 0, 0), "another network");
        assert_eq!(count(30, "192.0.2.1", 60_000).0, 20);
        assert_eq!(
            network("::ffff:192.0.2.9".parse().unwrap()),
            network("192.0.2.1".parse().unwrap())
        );
        assert_eq!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8:0:ff::2".parse().unwrap())
        );
        assert_ne!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8:0:100::1".parse().unwrap())
        );
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let limit = Limit::new(0);
        assert!((0..1000).all(|_| limit.ask([192, 0, 2, 1].into(), 0) == Verdict::Answer));
    }
}
