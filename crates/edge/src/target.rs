//! One target: where it is, how it is, and what it has done. All of it atomics, because every worker looks at them.

use std::sync::{
    Mutex,
    atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
};

use model::route::{self, Ejection, TargetHealth, TargetState};

use crate::clock;

/// One target of one group, shared by the tables in which it stays.
pub struct Target {
    /// Never used twice in a process: the key of connection pools.
    pub serial: u64,
    id: Box<str>,
    pub address: std::net::SocketAddr,
    state: AtomicU8,
    /// Probes in a row.
    pub good: AtomicU8,
    pub bad: AtomicU8,
    /// Counts its admissions to the prober: what was asked for an earlier one means nothing.
    pub admission: AtomicU32,
    /// The tick of its admission, then of its becoming healthy.
    pub since: AtomicU64,
    /// Requests in a row that failed.
    failures: AtomicU32,
    /// The part of its answers lately that were failures, in 65,536ths.
    trouble: AtomicU32,
    /// It is left out until this tick.
    ejected: AtomicU64,
    reason: Mutex<Option<Box<str>>>,
    /// 0 while it is in the table, else the tick at which its last requests are cut.
    leaves: AtomicU64,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub active: AtomicU32,
}

impl Target {
    pub fn new(spec: &route::Target) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: SERIAL.fetch_add(1, Relaxed),
            id: spec.id.as_str().into(),
            address: spec.address,
            state: AtomicU8::new(TargetState::Initial as u8),
            good: AtomicU8::new(0),
            bad: AtomicU8::new(0),
            admission: AtomicU32::new(0),
            since: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            trouble: AtomicU32::new(0),
            ejected: AtomicU64::new(0),
            reason: Mutex::new(None),
            leaves: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            active: AtomicU32::new(0),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn is(&self, spec: &route::Target) -> bool {
        *self.id == *spec.id && self.address == spec.address
    }

    pub fn source(&self) -> route::Target {
        route::Target {
            id: self.id.to_string(),
            address: self.address,
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
            *held = reason.map(String::into_boxed_str);
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

    pub fn is_ejected(&self, tick: u64) -> bool {
        self.ejected.load(Relaxed) > tick
    }

    /// How a request to it ended.
    pub fn met(&self, failed: bool, ejection: Option<&Ejection>, tick: u64) {
        // An average in which each answer counts for 1/32 when it is new.
        let before = self.trouble.load(Relaxed);
        let news = if failed { 65_535 / 32 } else { 0 };
        self.trouble.store(before - before / 32 + news, Relaxed);
        if !failed {
            if self.failures.load(Relaxed) > 0 {
                self.failures.store(0, Relaxed);
            }
            return;
        }
        self.errors.fetch_add(1, Relaxed);
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        if let Some(ejection) = ejection.filter(|ejection| failures >= ejection.failures) {
            self.failures.store(0, Relaxed);
            self.ejected
                .store(tick.saturating_add(clock::signed(ejection.time)), Relaxed);
            tracing::info!(target.id = %self.id, failures, "a target is left out: its requests fail");
        }
    }

    pub fn trouble(&self) -> u32 {
        self.trouble.load(Relaxed)
    }

    pub fn seen(&self, group: &str) -> TargetHealth {
        let state = self.state();
        let reason = match state {
            TargetState::Draining => None,
            TargetState::Healthy if self.is_ejected(clock::ticks()) => {
                Some("left out: its requests fail".to_owned())
            }
            TargetState::Healthy => None,
            _ => self
                .reason
                .lock()
                .map_or(None, |reason| reason.as_deref().map(str::to_owned)),
        };
        TargetHealth {
            group: group.to_owned(),
            target: self.source(),
            state,
            reason,
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            active: self.active.load(Relaxed),
        }
    }
}
