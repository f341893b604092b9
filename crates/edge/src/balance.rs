//! Which target gets the next request: weights between groups, the algorithm within one.
//!
//! It decides from atomics alone and waits for nothing. Who is healthy is written by `health`.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
};

use model::route::{self, Algorithm, HealthCheck, TargetHealth, TargetState};

use crate::metrics::Counters;

/// One target of one group, shared by the tables in which it stays.
pub struct Target {
    /// Never used twice in a process: the key of connection pools.
    pub serial: u64,
    pub spec: route::Target,
    state: AtomicU8,
    reason: Mutex<Option<String>>,
    /// 0 while it is in the table, else the tick at which its last requests are cut.
    leaves: AtomicU64,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub active: AtomicU32,
}

impl Target {
    pub fn new(spec: route::Target) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: SERIAL.fetch_add(1, Relaxed),
            spec,
            state: AtomicU8::new(TargetState::Initial as u8),
            reason: Mutex::new(None),
            leaves: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            active: AtomicU32::new(0),
        }
    }

    pub fn state(&self) -> TargetState {
        if self.is_leaving() {
            return TargetState::Draining;
        }
        match self.state.load(Relaxed) {
            s if s == TargetState::Healthy as u8 => TargetState::Healthy,
            s if s == TargetState::Unhealthy as u8 => TargetState::Unhealthy,
            _ => TargetState::Initial,
        }
    }

    pub fn judge(&self, state: TargetState, reason: Option<String>) {
        self.state.store(state as u8, Relaxed);
        if let Ok(mut held) = self.reason.lock() {
            *held = reason;
        }
    }

    /// The target has left the table; `until` is the tick at which what is under way is cut.
    pub fn leave(&self, until: u64) {
        self.leaves.store(until.max(1), SeqCst);
    }

    /// A target that comes back before it is gone is probed afresh.
    pub fn rejoin(&self) {
        self.judge(TargetState::Initial, None);
        self.leaves.store(0, SeqCst);
    }

    pub fn is_leaving(&self) -> bool {
        self.leaves.load(SeqCst) != 0
    }

    /// Its time to finish is over.
    pub fn is_gone(&self, tick: u64) -> bool {
        let leaves = self.leaves.load(Relaxed);
        leaves != 0 && leaves <= tick
    }

    pub fn seen(&self, group: &str) -> TargetHealth {
        let state = self.state();
        let reason = match state {
            TargetState::Healthy | TargetState::Draining => None,
            _ => self.reason.lock().map_or(None, |reason| reason.clone()),
        };
        TargetHealth {
            group: group.to_owned(),
            target: self.spec.clone(),
            state,
            reason,
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            active: self.active.load(Relaxed),
        }
    }
}

/// One target group of one table.
pub struct Group {
    pub name: Box<str>,
    pub targets: Box<[Arc<Target>]>,
    pub health: Arc<HealthCheck>,
    pub algorithm: Algorithm,
    pub counters: Arc<Counters>,
    /// Ticks that requests under way have when their target leaves.
    pub drain: u64,
    turn: AtomicU64,
}

impl Group {
    pub fn new(
        name: &str,
        targets: Box<[Arc<Target>]>,
        spec: &route::TargetGroup,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            name: name.into(),
            targets,
            health: Arc::new(spec.health.clone()),
            algorithm: spec.algorithm,
            counters,
            drain: crate::clock::signed(spec.deregistration_delay),
            turn: AtomicU64::new(0),
        }
    }

    /// The next target that is not in `tried`. Healthy ones first; when there is none, any: nothing is gained by
    /// refusing everybody, as ALB says.
    pub fn pick(&self, tried: &[u64]) -> Option<&Arc<Target>> {
        let open = |target: &&Arc<Target>| !tried.contains(&target.serial);
        let healthy = |target: &&Arc<Target>| open(target) && target.state() == TargetState::Healthy;
        match self.targets.iter().filter(healthy).count() {
            0 => self.among(self.targets.iter().filter(open).count(), open),
            count => self.among(count, healthy),
        }
    }

    fn among(&self, count: usize, fits: impl Fn(&&Arc<Target>) -> bool) -> Option<&Arc<Target>> {
        if count == 0 {
            return None;
        }
        let turn = (self.turn.fetch_add(1, Relaxed) % count as u64) as usize;
        // A state may change between the count and now: then the turn starts over.
        let in_turn = || {
            let mut fitting = self.targets.iter().filter(&fits);
            fitting
                .nth(turn)
                .or_else(|| self.targets.iter().find(&fits))
                .or_else(|| self.targets.first())
        };
        match self.algorithm {
            Algorithm::RoundRobin => in_turn(),
            Algorithm::LeastOutstanding => {
                let first = in_turn()?;
                let least = self
                    .targets
                    .iter()
                    .filter(&fits)
                    .min_by_key(|target| target.active.load(Relaxed))?;
                let tie = first.active.load(Relaxed) <= least.active.load(Relaxed);
                Some(if tie { first } else { least })
            }
        }
    }
}

/// Groups by weight.
pub struct Weights {
    /// Each with the sum of the weights up to and including its own; those of weight 0 are left out.
    groups: Box<[(u32, Arc<Group>)]>,
    total: u32,
    stride: u32,
    turn: AtomicU64,
}

impl Weights {
    pub fn new(groups: impl Iterator<Item = (u32, Arc<Group>)>) -> Self {
        let mut total = 0;
        let groups = groups
            .filter(|(weight, _)| *weight > 0)
            .map(|(weight, group)| {
                total += weight;
                (total, group)
            })
            .collect();
        Self {
            groups,
            total,
            stride: stride(total),
            turn: AtomicU64::new(0),
        }
    }

    /// The next group. In each run of `total` picks every group has exactly its weight, evenly spread: the picks walk
    /// round the circle of weights in steps of nearly the golden ratio, which leaves no gap much wider than another.
    pub fn pick(&self) -> Option<&Arc<Group>> {
        if self.total == 0 {
            return None;
        }
        let total = u64::from(self.total);
        let turn = self.turn.fetch_add(1, Relaxed) % total;
        let place = (turn * u64::from(self.stride) % total) as u32;
        let index = self.groups.partition_point(|(sum, _)| *sum <= place);
        self.groups.get(index).map(|(_, group)| group)
    }
}

/// The number nearest to the golden section of `total` that has no divisor in common with it, so that a walk in such
/// steps meets every place once.
fn stride(total: u32) -> u32 {
    let near = (u64::from(total) * 618 / 1000) as u32;
    (near.max(1)..=total.max(1))
        .find(|stride| gcd(*stride, total) == 1)
        .unwrap_or(1)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;

    use super::*;

    fn group(name: &str, targets: usize, algorithm: Algorithm) -> Arc<Group> {
        let targets: Vec<route::Target> = (0..targets)
            .map(|n| route::Target {
                id: format!("h-{n}"),
                address: ([127, 0, 0, 1], 1000 + n as u16).into(),
            })
            .collect();
        let spec = route::TargetGroup {
            targets: targets.clone(),
            health: HealthCheck {
                path: "/".into(),
                interval: SignedDuration::from_secs(1),
                timeout: SignedDuration::from_secs(1),
                healthy: 2,
                unhealthy: 2,
                codes: vec![(200, 399)],
            },
            deregistration_delay: SignedDuration::ZERO,
            algorithm,
        };
        let targets = targets.into_iter().map(|t| Arc::new(Target::new(t))).collect();
        Arc::new(Group::new(name, targets, &spec, Arc::default()))
    }

    fn shares(picks: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
        picks.fold(BTreeMap::new(), |mut shares, name| {
            *shares.entry(name).or_default() += 1;
            shares
        })
    }

    #[test]
    fn weights_are_exact_over_each_round_and_even_within() {
        for weights in [
            vec![1, 99],
            vec![999, 1],
            vec![5, 3, 2],
            vec![0, 7],
            vec![10, 90, 0],
            vec![999; 5],
        ] {
            let total: u32 = weights.iter().sum();
            let ring = Weights::new(
                weights
                    .iter()
                    .enumerate()
                    .map(|(n, w)| (*w, group(&n.to_string(), 0, Algorithm::RoundRobin))),
            );
            for _ in 0..2 {
                let picks: Vec<String> = (0..total)
                    .map(|_| ring.pick().unwrap().name.to_string())
                    .collect();
                let got = shares(picks.iter().cloned());
                for (n, weight) in weights.iter().enumerate() {
                    assert_eq!(
                        got.get(&n.to_string()).copied().unwrap_or(0),
                        *weight as usize,
                        "{weights:?}"
                    );
                }
                // Smooth: half a round gives each group half its share, give or take two.
                let half = shares(picks[..picks.len() / 2].iter().cloned());
                for (n, weight) in weights.iter().enumerate() {
                    let part = half.get(&n.to_string()).copied().unwrap_or(0) as i64;
                    assert!(
                        (part - i64::from(*weight) / 2).abs() <= 3,
                        "{weights:?}: {n} had {part}"
                    );
                }
            }
        }
        assert!(Weights::new(std::iter::empty()).pick().is_none());
    }

    #[test]
    fn only_healthy_targets_get_requests_unless_there_are_none() {
        let group = group("g", 4, Algorithm::RoundRobin);
        let picks = |n: usize| shares((0..n).map(|_| group.pick(&[]).unwrap().spec.id.clone()));
        assert_eq!(picks(8).len(), 4, "all are initial: fail open");
        group.targets[1].judge(TargetState::Healthy, None);
        group.targets[2].judge(TargetState::Healthy, None);
        assert_eq!(picks(8), BTreeMap::from([("h-1".into(), 4), ("h-2".into(), 4)]));
        for target in &group.targets {
            target.judge(TargetState::Unhealthy, Some("connection refused".into()));
        }
        assert_eq!(picks(8).len(), 4, "all are unhealthy: fail open");
    }

    #[test]
    fn what_was_tried_is_not_picked_again() {
        let group = group("g", 3, Algorithm::RoundRobin);
        group.targets[0].judge(TargetState::Healthy, None);
        let mut tried = Vec::new();
        while let Some(target) = group.pick(&tried) {
            tried.push(target.serial);
        }
        assert_eq!(tried.len(), 3);
        assert_eq!(tried[0], group.targets[0].serial, "the healthy one first");
    }

    #[test]
    fn least_outstanding_prefers_the_idle() {
        let group = group("g", 3, Algorithm::LeastOutstanding);
        group.targets[0].active.store(2, Relaxed);
        group.targets[2].active.store(1, Relaxed);
        for _ in 0..5 {
            assert_eq!(group.pick(&[]).unwrap().spec.id, "h-1");
        }
        group.targets[1].active.store(1, Relaxed);
        assert_eq!(
            shares((0..6).map(|_| group.pick(&[]).unwrap().spec.id.clone())).len(),
            2
        );
    }
}
