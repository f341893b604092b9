//! One target: where it is, how it is, and what it has done. All of it atomics, because every worker looks at them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
};

use arc_swap::ArcSwapOption;
use model::route::{self, Ejection, TargetGroup, TargetHealth, TargetState};
use once_cell::race::OnceBox;

use crate::{balance::Group, clock, health::Why, thin::Thin};

/// Ticks: as exact as the end of a target's time is kept.
const LEAP: u64 = 64;

/// One target of one group, shared by the tables in which it stays. Behind the state are its address and its id.
pub type Target = Thin<State>;

/// Its size counts: there may be a hundred thousand.
pub struct State {
    /// Never used twice in a process: the key of connection pools.
    pub serial: u64,
    /// Only targets that have had requests, or have left, have them.
    deeds: OnceBox<Deeds>,
    /// How it is to be probed.
    check: ArcSwapOption<TargetGroup>,
    /// When it was admitted, then when it became healthy, in `LEAP`s.
    since: AtomicU32,
    /// Why it is not healthy, packed.
    reason: AtomicU32,
    port: u16,
    /// Counts its admissions to the prober: what was asked for an earlier one means nothing.
    pub admission: AtomicU16,
    /// Probes in a row.
    pub good: AtomicU8,
    pub bad: AtomicU8,
    /// Of `TargetState`; with `LEAVING`.
    state: AtomicU8,
    is_v6: bool,
}

/// It is not in the table any more.
const LEAVING: u8 = 0x80;

/// What a target has done.
#[derive(Default)]
pub struct Deeds {
    /// When its last requests are cut, in `LEAP`s, once it has left the table.
    leaves: AtomicU32,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub active: AtomicU32,
    /// Requests in a row that failed.
    failures: AtomicU32,
    /// The part of its answers lately that were failures, in 65,536ths.
    trouble: AtomicU32,
    /// It is left out until this tick.
    ejected: AtomicU64,
}

/// Rounded up, so that nobody has less than was granted.
fn leaps(tick: u64) -> u32 {
    u32::try_from(tick.div_ceil(LEAP)).unwrap_or(u32::MAX)
}

impl Target {
    pub fn new(spec: &route::Target) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let state = State {
            serial: SERIAL.fetch_add(1, Relaxed),
            deeds: OnceBox::new(),
            check: ArcSwapOption::empty(),
            since: AtomicU32::new(0),
            reason: AtomicU32::new(Why::pack(None)),
            port: spec.address.port(),
            admission: AtomicU16::new(0),
            good: AtomicU8::new(0),
            bad: AtomicU8::new(0),
            state: AtomicU8::new(TargetState::Initial as u8),
            is_v6: spec.address.is_ipv6(),
        };
        let id = spec.id.as_bytes();
        let behind = match spec.address.ip() {
            IpAddr::V4(ip) => [&ip.octets(), id].concat(),
            IpAddr::V6(ip) => [&ip.octets(), id].concat(),
        };
        Self::of(state, &behind)
    }

    /// Its address and its id.
    fn behind(&self) -> (IpAddr, &[u8]) {
        let bytes = Self::bytes(self);
        let (v4, v6) = (bytes.split_first_chunk::<4>(), bytes.split_first_chunk::<16>());
        match (self.is_v6, v4, v6) {
            (true, _, Some((ip, id))) => (IpAddr::from(*ip), id),
            (false, Some((ip, id)), _) => (IpAddr::from(*ip), id),
            _ => unreachable!("an address is in front of the id"),
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.behind().0, self.port)
    }

    /// The tick of its admission, then of its becoming healthy.
    pub fn since(&self) -> u64 {
        u64::from(self.since.load(Relaxed)) * LEAP
    }

    pub fn begin(&self, tick: u64) {
        self.since.store(leaps(tick), Relaxed);
    }

    /// How it is to be probed from now on.
    pub fn probe(&self, policy: &Arc<TargetGroup>) {
        self.check.store(Some(Arc::clone(policy)));
    }

    /// The group as it is written.
    pub fn policy(&self) -> Option<Arc<TargetGroup>> {
        self.check.load_full()
    }

    pub fn deeds(&self) -> &Deeds {
        self.deeds.get_or_init(Box::default)
    }

    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.deeds.get().map_or(0, |deeds| deeds.active.load(Relaxed))
    }

    pub fn id(&self) -> &str {
        Self::text(self.behind().1)
    }

    pub fn is(&self, spec: &route::Target) -> bool {
        self.behind().1 == spec.id.as_bytes() && self.address() == spec.address
    }

    pub fn source(&self) -> route::Target {
        route::Target {
            id: self.id().to_owned(),
            address: self.address(),
        }
    }

    pub fn state(&self) -> TargetState {
        match self.state.load(SeqCst) {
            s if s & LEAVING != 0 => TargetState::Draining,
            s if s == TargetState::Healthy as u8 => TargetState::Healthy,
            s if s == TargetState::Unhealthy as u8 => TargetState::Unhealthy,
            _ => TargetState::Initial,
        }
    }

    pub fn judge(&self, state: TargetState, reason: Option<Why>) {
        // Whether it leaves is not for the prober to say.
        let judged = |before| Some(before & LEAVING | state as u8);
        let _ = self.state.fetch_update(SeqCst, SeqCst, judged);
        self.reason.store(Why::pack(reason), Relaxed);
    }

    /// The target has left the table; `until` is the tick at which what is under way is cut.
    pub fn leave(&self, until: u64) {
        self.deeds().leaves.store(leaps(until).max(1), SeqCst);
        self.state.fetch_or(LEAVING, SeqCst);
    }

    /// A target that comes back before it is gone is probed afresh.
    pub fn rejoin(&self) {
        self.judge(TargetState::Initial, None);
        self.state.fetch_and(!LEAVING, SeqCst);
    }

    pub fn is_leaving(&self) -> bool {
        self.state.load(SeqCst) & LEAVING != 0
    }

    /// Its time to finish is over.
    pub fn is_gone(&self, tick: u64) -> bool {
        self.is_leaving() && u64::from(self.deeds().leaves.load(SeqCst)) * LEAP <= tick
    }

    pub fn is_ejected(&self, tick: u64) -> bool {
        self.deeds
            .get()
            .is_some_and(|deeds| deeds.ejected.load(Relaxed) > tick)
    }

    /// Why it is not healthy, as the last probe said.
    pub fn why(&self) -> Option<Why> {
        Why::unpack(self.reason.load(Relaxed))
    }

    /// How a request to it ended. Gives how many in a row have failed, when it is left out for that from now on.
    pub fn met(&self, failed: bool, ejection: Option<&Ejection>, tick: u64) -> Option<u32> {
        let deeds = self.deeds();
        // An average in which each answer counts for 1/32 when it is new.
        let before = deeds.trouble.load(Relaxed);
        let news = if failed { 65_535 / 32 } else { 0 };
        deeds.trouble.store(before - before / 32 + news, Relaxed);
        if !failed {
            if deeds.failures.load(Relaxed) > 0 {
                deeds.failures.store(0, Relaxed);
            }
            return None;
        }
        deeds.errors.fetch_add(1, Relaxed);
        let failures = deeds.failures.fetch_add(1, Relaxed) + 1;
        let ejection = ejection.filter(|ejection| failures >= ejection.failures)?;
        deeds.failures.store(0, Relaxed);
        deeds
            .ejected
            .store(tick.saturating_add(clock::signed(ejection.time)), Relaxed);
        Some(failures)
    }

    /// The same, as its group says; a target that is left out is named in the log.
    pub fn met_in(&self, group: &Group, failed: bool, tick: u64) {
        let ejection = group.policy.ejection.as_ref();
        if let Some(failures) = self.met(failed, ejection, tick) {
            let (group, id, address) = (group.name(), self.id(), self.address());
            tracing::warn!(
                group, target.id = %id, %address, failures,
                "target {id} of {group} is left out for a while: {failures} requests in a row have failed"
            );
        }
    }

    pub fn trouble(&self) -> u32 {
        self.deeds.get().map_or(0, |deeds| deeds.trouble.load(Relaxed))
    }

    pub fn seen(&self, group: &str) -> TargetHealth {
        let state = self.state();
        let reason = match state {
            TargetState::Draining => None,
            TargetState::Healthy if self.is_ejected(clock::ticks()) => {
                Some("left out: its requests fail".to_owned())
            }
            TargetState::Healthy => None,
            _ => self.why().map(|why| why.to_string()),
        };
        let count = |count: fn(&Deeds) -> u64| self.deeds.get().map_or(0, count);
        TargetHealth {
            group: group.to_owned(),
            target: self.source(),
            state,
            reason,
            requests: count(|deeds| deeds.requests.load(Relaxed)),
            errors: count(|deeds| deeds.errors.load(Relaxed)),
            active: self.active(),
        }
    }
}
