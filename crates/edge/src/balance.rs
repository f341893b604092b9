//! Which target gets the next request: weights between groups, the algorithm within one.
//!
//! It decides from atomics alone and waits for nothing. Who is healthy is written by `health`.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use jiff::SignedDuration;
use model::route::{self, Algorithm, TargetState};
use once_cell::race::OnceBox;

use crate::{clock, metrics::Counters, sticky::token, target::Target, thin::Thin};

/// One target group of one table. Behind the rest is its name.
pub type Group = Thin<Members>;

/// Its size counts: there may be a hundred thousand.
pub struct Members {
    targets: Targets,
    /// The group as it was written, but for its targets; shared by groups that are written alike.
    pub policy: Arc<route::TargetGroup>,
    /// Only groups that have been asked for have them.
    counters: OnceBox<Arc<Counters>>,
    turn: AtomicU32,
    /// The rule that forwards to it, for `book` alone.
    pub user: AtomicU32,
}

/// Most groups have one target.
enum Targets {
    One(Target),
    Other(Box<[Target]>),
}

impl Group {
    pub fn new(
        name: &str,
        targets: Vec<Target>,
        policy: Arc<route::TargetGroup>,
        counters: Option<Arc<Counters>>,
    ) -> Self {
        let members = Members {
            targets: match <[_; 1]>::try_from(targets) {
                Ok([one]) => Targets::One(one),
                Err(other) => Targets::Other(other.into()),
            },
            policy,
            counters: OnceBox::new(),
            turn: AtomicU32::new(0),
            user: AtomicU32::new(0),
        };
        if let Some(counters) = counters {
            // It is new, so there are none yet.
            let _ = members.counters.set(Box::new(counters));
        }
        Self::of(members, name.as_bytes())
    }

    pub fn name(&self) -> &str {
        Self::text(Self::bytes(self))
    }

    pub fn targets(&self) -> &[Target] {
        match &self.targets {
            Targets::One(one) => std::slice::from_ref(one),
            Targets::Other(targets) => targets,
        }
    }

    pub fn counters(&self) -> &Counters {
        self.counters.get_or_init(Box::default)
    }

    /// The same, to look at only.
    pub fn counted(&self) -> &Counters {
        static NONE: Counters = Counters::none();
        self.counters.get().map_or(&NONE, |counters| counters)
    }

    /// The same, for the group in whose place this one was.
    pub fn shared_counters(&self) -> Arc<Counters> {
        Arc::clone(self.counters.get_or_init(Box::default))
    }

    /// What it was made from.
    pub fn source(&self) -> route::TargetGroup {
        route::TargetGroup {
            targets: self.targets().iter().map(|target| target.source()).collect(),
            ..route::TargetGroup::clone(&self.policy)
        }
    }

    /// Ticks that requests under way have when their target leaves.
    pub fn drain(&self) -> u64 {
        clock::signed(self.policy.deregistration_delay)
    }

    /// Counts the turns of whoever takes the targets in turn.
    pub fn turn(&self) -> u32 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// Does it get hosts when somebody asks for it, and has none now?
    pub fn sleeps(&self) -> bool {
        self.policy.waking && !self.has_healthy()
    }

    pub fn has_healthy(&self) -> bool {
        self.targets()
            .iter()
            .any(|target| target.state() == TargetState::Healthy)
    }

    /// The next target that is not in `tried`. Healthy ones that are not left out first; then healthy ones; when there is
    /// none, any: nothing is gained by refusing everybody, as ALB says. `wanted` is the token of the target that the
    /// client has stayed with. Of those that are as good, one in `zone`.
    pub fn pick_near(
        &self,
        zone: Option<&str>,
        tried: &[u64],
        wanted: Option<u64>,
        tick: u64,
    ) -> Option<&Target> {
        let open = |target: &Target| !tried.contains(&target.serial);
        let healthy = |target: &Target| open(target) && target.state() == TargetState::Healthy;
        let good = |target: &Target| healthy(target) && !target.is_ejected(tick);
        if let Some(wanted) = wanted
            && let Some(same) = self
                .targets()
                .iter()
                .find(|t| healthy(t) && token(self.name(), t) == wanted)
        {
            return Some(same);
        }
        let count = |fits: &dyn Fn(&Target) -> bool| self.targets().iter().filter(|t| fits(t)).count();
        let zones = &self.policy.zones;
        if let Some(zone) = zone.filter(|_| !zones.is_empty()) {
            let near = |target: &Target| good(target) && zones.get(target.id()).is_some_and(|of| of == zone);
            match count(&near) {
                0 => {}
                n => return self.among(n, tick, near),
            }
        }
        match count(&good) {
            0 => {}
            n => return self.among(n, tick, good),
        }
        match count(&healthy) {
            0 => {
                self.counters().panics.fetch_add(1, Relaxed);
                self.among(count(&open), tick, open)
            }
            n => self.among(n, tick, healthy),
        }
    }

    fn among(&self, count: usize, tick: u64, fits: impl Fn(&Target) -> bool) -> Option<&Target> {
        if count == 0 {
            return None;
        }
        let turn = u64::from(self.turn());
        let nth = |n: u64| {
            let n = (n % count as u64) as usize;
            // A state may change between the count and now: then it starts over.
            let mut fitting = self.targets().iter().filter(|target| fits(target));
            fitting
                .nth(n)
                .or_else(|| self.targets().iter().find(|target| fits(target)))
                .or_else(|| self.targets().first())
        };
        match self.policy.algorithm {
            Algorithm::RoundRobin => {
                let first = nth(turn)?;
                match count > 1 && self.is_too_new(first, turn, tick) {
                    true => nth(turn + 1),
                    false => Some(first),
                }
            }
            Algorithm::LeastOutstanding => {
                let first = nth(turn)?;
                let fitting = self.targets().iter().filter(|target| fits(target));
                let least = fitting.min_by_key(|target| target.active())?;
                let tie = first.active() <= least.active();
                Some(if tie { first } else { least })
            }
            Algorithm::WeightedRandom => nth(scatter(turn)),
            Algorithm::AnomalyMitigation => {
                let first = nth(scatter(turn))?;
                // Of the requests that an anomalous target would get, one in eight is enough to see that it is well again.
                match count >= 3 && self.is_anomalous(first, &fits) && !scatter(!turn).is_multiple_of(8) {
                    true => nth(scatter(turn) + 1 + scatter(!turn) % (count as u64 - 1)),
                    false => Some(first),
                }
            }
        }
    }

    /// In slow start the share of a target grows in line with the time since it became healthy, from a sixteenth on.
    fn is_too_new(&self, target: &Target, turn: u64, tick: u64) -> bool {
        let whole = clock::signed(self.policy.slow_start);
        let age = tick.saturating_sub(target.since());
        whole > age && {
            let share = (age * 16 / whole).max(1);
            scatter(turn) % 16 >= share
        }
    }

    /// It fails at least one request in ten, and three times as many as the others do on average.
    fn is_anomalous(&self, target: &Target, fits: impl Fn(&Target) -> bool) -> bool {
        let trouble = target.trouble();
        let others = self
            .targets()
            .iter()
            .filter(|other| other.serial != target.serial && fits(other));
        let (sum, count) = others.fold((0, 0), |(sum, count), other| {
            (sum + u64::from(other.trouble()), count + 1)
        });
        trouble > 65_536 / 10 && u64::from(trouble) * count > 3 * sum
    }
}

/// Numbers that look like chance, in the order of turns.
fn scatter(turn: u64) -> u64 {
    let mixed = turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

/// Groups by weight. Most rules have one group and nothing to decide.
pub enum Weights {
    One { weight: u32, group: Group },
    Many(Box<Ring>),
}

/// Several groups, or one with which clients stay.
pub struct Ring {
    /// Each with the sum of the weights up to and including its own.
    groups: Box<[(u32, Group)]>,
    stride: u32,
    /// Seconds for which a client stays with its group; 0 is not at all.
    sticky: u32,
    turn: AtomicU64,
}

impl Weights {
    pub fn new(groups: impl Iterator<Item = (u32, Group)>, stickiness: Option<SignedDuration>) -> Self {
        let mut total = 0;
        let groups: Box<[_]> = groups
            .map(|(weight, group)| {
                total += weight;
                (total, group)
            })
            .collect();
        match (&*groups, stickiness) {
            ([(weight, group)], None) => Self::One {
                weight: *weight,
                group: group.clone(),
            },
            _ => Self::Many(Box::new(Ring {
                groups,
                stride: stride(total),
                sticky: stickiness.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX)),
                turn: AtomicU64::new(0),
            })),
        }
    }

    /// Groups with their weights.
    pub fn weighted(&self) -> impl Iterator<Item = (u32, &Group)> {
        let (one, many) = match self {
            Self::One { weight, group } => (Some((*weight, group)), &[][..]),
            Self::Many(ring) => (None, &*ring.groups),
        };
        let mut before = 0;
        let many = many
            .iter()
            .map(move |(sum, group)| (sum - std::mem::replace(&mut before, *sum), group));
        one.into_iter().chain(many)
    }

    /// What it was made from.
    pub fn source(&self) -> route::Action {
        let groups = self.weighted().map(|(weight, group)| route::Weighted {
            group: group.name().to_owned(),
            weight,
        });
        route::Action::Forward {
            groups: groups.collect(),
            stickiness: self
                .stickiness()
                .map(|seconds| SignedDuration::from_secs(seconds.into())),
        }
    }

    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.weighted().map(|(_, group)| group)
    }

    /// Seconds for which a client stays with its group.
    pub fn stickiness(&self) -> Option<u32> {
        match self {
            Self::One { .. } => None,
            Self::Many(ring) => (ring.sticky > 0).then_some(ring.sticky),
        }
    }

    /// The group with this name, if it gets anything.
    pub fn named(&self, is: impl Fn(&Group) -> bool) -> Option<&Group> {
        self.weighted()
            .find(|(weight, group)| *weight > 0 && is(group))
            .map(|(_, group)| group)
    }

    /// Does all sleep that gets anything?
    pub fn sleep(&self) -> bool {
        let mut groups = self.weighted().filter(|(weight, _)| *weight > 0).peekable();
        groups.peek().is_some() && groups.all(|(_, group)| group.sleeps())
    }

    /// The next group; while it sleeps, one that does not.
    pub fn pick_awake(&self) -> Option<&Group> {
        let picked = self.pick()?;
        match picked.sleeps() {
            true => self.named(|group| !group.sleeps()).or(Some(picked)),
            false => Some(picked),
        }
    }

    /// The next group.
    pub fn pick(&self) -> Option<&Group> {
        match self {
            Self::One { weight, group } => (*weight > 0).then_some(group),
            Self::Many(ring) => ring.pick(),
        }
    }
}

impl Ring {
    /// In each run of `total` picks every group has exactly its weight, evenly spread: the picks walk
    /// round the circle of weights in steps of nearly the golden ratio, which leaves no gap much wider than another.
    fn pick(&self) -> Option<&Group> {
        let (total, first) = self.groups.last()?;
        match (*total, self.groups.len()) {
            (0, _) => return None,
            (_, 1) => return Some(first),
            _ => {}
        }
        let total = u64::from(*total);
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
mod tests;
