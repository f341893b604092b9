//! One target: where it is, how it is, and what it has done. All of it atomics, because every worker looks at them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
};

use model::route::{self, Ejection, TargetHealth, TargetState};

use crate::{clock, health::Why};

/// Ticks: as exact as the end of a target's time is kept.
const LEAP: u64 = 64;

/// One target of one group, shared by the tables in which it stays. Its size counts: there may be a hundred thousand.
pub struct Target {
    /// Never used twice in a process: the key of connection pools.
    pub serial: u64,
    id: Box<str>,
    ip: IpAddr,
    port: u16,
    state: AtomicU8,
    /// Probes in a row.
    pub good: AtomicU8,
    pub bad: AtomicU8,
    /// Counts its admissions to the prober: what was asked for an earlier one means nothing.
    pub admission: AtomicU16,
    /// 0 while it is in the table, else when its last requests are cut, in `LEAP`s.
    leaves: AtomicU32,
    /// Why it is not healthy, packed.
    reason: AtomicU32,
    /// The tick of its admission, then of its becoming healthy.
    pub since: AtomicU64,
    /// Only targets that have had requests have them.
    deeds: OnceLock<Box<Deeds>>,
}

/// What a target has done.
#[derive(Default)]
pub struct Deeds {
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

impl Target {
    pub fn new(spec: &route::Target) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: SERIAL.fetch_add(1, Relaxed),
            id: spec.id.as_str().into(),
            ip: spec.address.ip(),
            port: spec.address.port(),
            state: AtomicU8::new(TargetState::Initial as u8),
            good: AtomicU8::new(0),
            bad: AtomicU8::new(0),
            admission: AtomicU16::new(0),
            leaves: AtomicU32::new(0),
            reason: AtomicU32::new(Why::pack(None)),
            since: AtomicU64::new(0),
            deeds: OnceLock::new(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    pub fn deeds(&self) -> &Deeds {
        self.deeds.get_or_init(Box::default)
    }

    /// Requests under way.
    pub fn active(&self) -> u32 {
        self.deeds.get().map_or(0, |deeds| deeds.active.load(Relaxed))
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn is(&self, spec: &route::Target) -> bool {
        *self.id == *spec.id && self.address() == spec.address
    }

    pub fn source(&self) -> route::Target {
        route::Target {
            id: self.id.to_string(),
            address: self.address(),
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

    pub fn judge(&self, state: TargetState, reason: Option<Why>) {
        self.state.store(state as u8, Relaxed);
        self.reason.store(Why::pack(reason), Relaxed);
    }

    /// The target has left the table; `until` is the tick at which what is under way is cut.
    pub fn leave(&self, until: u64) {
        let leaps = u32::try_from(until.div_ceil(LEAP)).unwrap_or(u32::MAX);
        self.leaves.store(leaps.max(1), SeqCst);
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
        match self.leaves.load(Relaxed) {
            0 => false,
            leaps => u64::from(leaps) * LEAP <= tick,
        }
    }

    pub fn is_ejected(&self, tick: u64) -> bool {
        self.deeds
            .get()
            .is_some_and(|deeds| deeds.ejected.load(Relaxed) > tick)
    }

    /// How a request to it ended.
    pub fn met(&self, failed: bool, ejection: Option<&Ejection>, tick: u64) {
        let deeds = self.deeds();
        // An average in which each answer counts for 1/32 when it is new.
        let before = deeds.trouble.load(Relaxed);
        let news = if failed { 65_535 / 32 } else { 0 };
        deeds.trouble.store(before - before / 32 + news, Relaxed);
        if !failed {
            if deeds.failures.load(Relaxed) > 0 {
                deeds.failures.store(0, Relaxed);
            }
            return;
        }
        deeds.errors.fetch_add(1, Relaxed);
        let failures = deeds.failures.fetch_add(1, Relaxed) + 1;
        if let Some(ejection) = ejection.filter(|ejection| failures >= ejection.failures) {
            deeds.failures.store(0, Relaxed);
            deeds
                .ejected
                .store(tick.saturating_add(clock::signed(ejection.time)), Relaxed);
            tracing::info!(target.id = %self.id, failures, "a target is left out: its requests fail");
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
            _ => Why::unpack(self.reason.load(Relaxed)).map(|why| why.to_string()),
        };
        let count = |count: fn(&Deeds) -> u64| self.deeds.get().map_or(0, |deeds| count(deeds));
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
