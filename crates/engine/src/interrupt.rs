//! An execution takes its way back before its time.

use asl::{Event, Purpose};

use crate::Engine;

impl Engine {
    /// Fails the open tasks of an execution in memory, but those of resources that are spared.
    pub(crate) fn interrupt(&mut self, key: u64, error: &str, cause: &str, spared: fn(&str) -> bool) {
        if self.tasks(key).is_empty() {
            self.hasten(key);
        }
        for task in self.tasks(key) {
            let order = self.live.get(&key).and_then(|live| live.orders.get(&task));
            if order.is_some_and(|order| !spared(&order.resource)) {
                let (error, cause) = (Some(error.to_owned()), Some(cause.to_owned()));
                self.happen(key, Event::TaskFailed { task, error, cause });
            }
        }
    }

    /// What waits for the clock, to be tried again or otherwise, waits no longer.
    fn hasten(&mut self, key: u64) {
        let Some(live) = self.live.get(&key) else { return };
        let waits = |purpose| matches!(purpose, Purpose::Backoff | Purpose::Wait);
        let open = live.state.open_timers();
        let timers: Vec<u64> = open
            .filter(|open| waits(open.purpose))
            .map(|open| open.timer)
            .collect();
        for timer in timers {
            self.happen(key, Event::TimerFired { timer });
        }
    }

    fn tasks(&self, key: u64) -> Vec<u64> {
        let live = self.live.get(&key);
        live.map_or_else(Vec::new, |live| live.orders.keys().copied().collect())
    }
}
