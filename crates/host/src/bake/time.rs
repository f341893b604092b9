//! The time that a bake has. What its scripts take counts; what it waits for others does not, and has an end of its own.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use model::Ticket;

use super::Error;

/// Which bakes wait for their turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<HashSet<Ticket>>>);

impl Waiting {
    pub fn has(&self, ticket: &Ticket) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(ticket)
    }
}

/// What is left of one bake's time.
#[derive(Debug)]
pub(super) struct Time {
    /// Of all scripts together.
    pub timeout: Duration,
    left: Duration,
    queued: Duration,
    patience: Duration,
    /// Where it is noted that the bake waits; the platform's own images have no ticket.
    noted: Option<(Ticket, Waiting)>,
}

/// That a bake waits, until this is dropped.
struct Note<'a>(&'a Option<(Ticket, Waiting)>);

impl<'a> Note<'a> {
    fn new(noted: &'a Option<(Ticket, Waiting)>) -> Self {
        if let Some((ticket, waiting)) = noted {
            let mut held = waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.insert(ticket.clone());
        }
        Self(noted)
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if let Some((ticket, waiting)) = self.0 {
            let mut held = waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.remove(ticket);
        }
    }
}

impl Time {
    /// Of a bake whose scripts have `timeout` together, and that waits at most `queued` for all its turns.
    pub fn new(timeout: Duration, queued: Duration, noted: Option<(Ticket, Waiting)>) -> Self {
        Self {
            timeout,
            left: timeout,
            queued,
            patience: queued,
            noted,
        }
    }

    /// Waits for others, as long as the bake may.
    pub async fn wait<T>(&mut self, turn: impl Future<Output = T>) -> Result<T, Error> {
        let began = Instant::now();
        let waited = {
            let _note = Note::new(&self.noted);
            tokio::time::timeout(self.patience, turn).await
        };
        self.patience = self.patience.saturating_sub(began.elapsed());
        waited.map_err(|_| Error::Queued(self.queued))
    }

    /// When a script that begins now is stopped.
    pub fn deadline(&self, now: Instant) -> Instant {
        now + self.left
    }

    /// A script ran from then to now.
    pub fn ran(&mut self, began: Instant, now: Instant) {
        self.left = self.left.saturating_sub(now.duration_since(began));
    }
}
