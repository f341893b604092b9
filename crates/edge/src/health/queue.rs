//! Who is asked next: whoever is due first, but a tenant has no more probes under way than in proportion to what is left
//! for others, so that targets that hang keep only their own tenant's others waiting. (Dynamic thresholds: Choudhury and
//! Hahne, IEEE/ACM Transactions on Networking 6(2), 1998.)

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::target::Target;

/// When a target is to be asked next. One that has been admitted again since means nothing.
pub struct Due {
    /// The tick, and in its last 16 bits the admission.
    when: u64,
    pub target: Target,
    /// The group, as the book knows it.
    pub group: u64,
}

impl Ord for Due {
    /// The greatest is the one that is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.when.cmp(&self.when)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.when == other.when
    }
}

impl Eq for Due {}

impl Due {
    /// From its next admission on, which is now.
    pub fn new(target: Target, group: u64, tick: u64) -> Self {
        let admission = target.admission.fetch_add(1, Relaxed).wrapping_add(1);
        Self {
            when: tick << 16 | u64::from(admission),
            target,
            group,
        }
    }

    fn tick(&self) -> u64 {
        self.when >> 16
    }

    pub fn at(mut self, tick: u64) -> Self {
        self.when = tick << 16 | self.when & 0xffff;
        self
    }

    pub fn stands(&self) -> bool {
        !self.target.is_leaving() && u64::from(self.target.admission.load(Relaxed)) == self.when & 0xffff
    }
}

/// A tenant may have so many times as many probes under way as are left of those that are for everybody.
const SHARE: usize = 3;
/// This part of all probes is for tenants that have few under way,
const RESERVE: usize = 4;
/// and this part of all is few.
const FEW: usize = 64;

/// One probe of a tenant that is under way, until it is dropped.
pub struct Seat {
    _of_all: Arc<()>,
    _own: Arc<()>,
}

pub struct Queue {
    due: BinaryHeap<Due>,
    /// What is due of tenants that had as many probes under way as they may.
    held: HashMap<u64, BinaryHeap<Due>>,
    /// By tenant; each probe under way has one more of it.
    seats: HashMap<u64, Arc<()>>,
    /// As many more as there are probes under way.
    all: Arc<()>,
    /// Probes at the same time.
    most: usize,
}

impl Queue {
    pub fn new(most: usize) -> Self {
        Self {
            due: BinaryHeap::new(),
            held: HashMap::new(),
            seats: HashMap::new(),
            all: Arc::default(),
            most,
        }
    }

    pub fn push(&mut self, due: Due) {
        self.due.push(due);
    }

    /// An eighth more than is needed: doubling would leave up to half of a long list unused.
    pub fn make_room(&mut self, coming: usize) {
        let needed = self.due.len() + coming;
        if needed > self.due.capacity() {
            self.due.reserve_exact(coming + needed / 8);
        } else if self.due.capacity() > 4 * needed.max(1024) {
            self.due.shrink_to(needed + needed / 8);
        }
    }

    /// The first that is due and whose tenant has a seat. `tenant` knows whose a target is.
    pub fn next(&mut self, now: u64, tenant: impl Fn(&Due) -> u64) -> Option<(Due, Seat)> {
        loop {
            let due = self.due.peek().filter(|due| due.tick() <= now);
            let due = due.map(|due| due.when);
            let (next, of) = match self.held_first() {
                Some((when, of)) if due.is_none_or(|due| when <= due) => (self.release(of)?, of),
                _ => {
                    due?;
                    let next = self.due.pop()?;
                    let of = tenant(&next);
                    (next, of)
                }
            };
            if !next.stands() {
                continue;
            }
            match self.seat(of) {
                Some(seat) => return Some((next, seat)),
                None => self.held.entry(of).or_default().push(next),
            }
        }
    }

    /// In how many ms somebody is due; none when it is the end of a probe or a change of the table that comes first.
    pub fn wait(&self, now: u64) -> Option<u64> {
        let next = self.due.peek()?.tick();
        next.checked_sub(now).filter(|wait| *wait > 0)
    }

    /// When the first was due that was held and may be asked by now, and whose it is.
    fn held_first(&self) -> Option<(u64, u64)> {
        let free = self.held.iter().filter(|(of, _)| self.may(**of));
        free.filter_map(|(of, held)| Some((held.peek()?.when, *of))).min()
    }

    fn release(&mut self, of: u64) -> Option<Due> {
        let held = self.held.get_mut(&of)?;
        let next = held.pop();
        if held.is_empty() {
            self.held.remove(&of);
        }
        next
    }

    fn under_way(&self, of: u64) -> usize {
        self.seats.get(&of).map_or(0, |seat| Arc::strong_count(seat) - 1)
    }

    /// May one more of this tenant be asked?
    fn may(&self, of: u64) -> bool {
        let (own, free) = (
            self.under_way(of),
            self.most.saturating_sub(Arc::strong_count(&self.all) - 1),
        );
        let has_few = own < (self.most / FEW).max(1);
        (has_few && free > 0) || own < SHARE * free.saturating_sub(self.most / RESERVE)
    }

    fn seat(&mut self, of: u64) -> Option<Seat> {
        /// Tenants before those are forgotten that have no probe under way.
        const MANY: usize = 1024;
        if !self.may(of) {
            return None;
        }
        if self.seats.len() >= MANY {
            self.seats.retain(|_, seat| Arc::strong_count(seat) > 1);
        }
        Some(Seat {
            _of_all: Arc::clone(&self.all),
            _own: Arc::clone(self.seats.entry(of).or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(port: u16, group: u64, tick: u64) -> Due {
        let spec = model::route::Target {
            id: format!("h-{port}"),
            address: ([127, 0, 0, 1], port).into(),
        };
        Due::new(Target::new(&spec), group, tick)
    }

    /// The ports of those who are asked next.
    fn asked(queue: &mut Queue, seats: &mut Vec<Seat>) -> Vec<u16> {
        let mut ports = Vec::new();
        while let Some((due, seat)) = queue.next(10, |due| due.group) {
            seats.push(seat);
            ports.push(due.target.address().port());
        }
        ports
    }

    #[test]
    fn one_tenants_others_wait_in_their_order() {
        let (mut queue, mut seats) = (Queue::new(4), Vec::new());
        let leaves = due(4, 7, 4);
        let target = leaves.target.clone();
        queue.push(leaves);
        for (port, group, tick) in [(6, 7, 6), (3, 7, 3), (1, 7, 1), (5, 8, 5), (2, 7, 2), (9, 8, 90)] {
            queue.push(due(port, group, tick));
        }
        assert_eq!(asked(&mut queue, &mut seats), [1, 2, 3, 5]);
        assert_eq!(queue.wait(10), Some(80), "the one that is not due yet");
        // One that waits leaves the table.
        target.leave(1);
        queue.push(due(7, 8, 7));
        seats.clear();
        assert_eq!(asked(&mut queue, &mut seats), [6, 7]);
        assert!(queue.held.is_empty());
    }

    #[test]
    fn however_many_hang_there_is_a_seat_for_who_comes() {
        let (mut queue, mut seats) = (Queue::new(256), Vec::new());
        let mut counts = Vec::new();
        for tenant in 0..19_u64 {
            for port in 1..=400 {
                queue.push(due(port, tenant, 1));
            }
            let before = seats.len();
            asked(&mut queue, &mut seats);
            counts.push(seats.len() - before);
        }
        assert_eq!(counts[..2], [144, 36], "who is alone has the most of them");
        assert!(counts.iter().all(|count| *count >= 4), "{counts:?}");
        assert_eq!(queue.held.len(), 19);
    }
}
