//! What is committed, and when it is folded.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use store::{Batch, Begin, Status, Tx};

use tokio::sync::oneshot;

use crate::{
    Also, Engine, Error, act::Act, desk::SWEEP, handle::Answer, maps::told, run::EXPRESS, timers::Due,
};

/// What is to be done, and what was kept: all but executions that were refused.
pub(crate) type Done = (Vec<Act>, Result<Refused, store::Error>);
pub(crate) type Refused = Vec<(u64, store::Error)>;
pub(crate) type InFlight = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Executions that one commit folds beside its events.
const FOLDS: usize = 8;
/// Events are dropped from the log when there are so many to drop.
const DROP: u64 = 1024;

/// Keeps a batch whole, but for executions whose start is refused by what comes with it, and those whose tenant was deleted
/// after their start, or their being tried again, was decided.
fn keep(tx: &mut Tx<'_>, mut batch: Batch, alsos: Vec<(Begin, Also)>) -> Result<Refused, store::Error> {
    let mut refused = Vec::new();
    for (begin, also) in alsos {
        let key = begin.key;
        let first = Batch {
            begins: vec![begin],
            ..Batch::default()
        };
        let begun = tx.attempt(|tx| {
            tx.append(&first)?;
            also(tx, key)
        })?;
        if let Err(error) = begun {
            batch.forget(key);
            refused.push((key, error));
        }
    }
    for (key, error) in tx.homeless(&batch)? {
        batch.forget(key);
        refused.push((key, error));
    }
    tx.append(&batch)?;
    Ok(refused)
}

impl Engine {
    /// Commits what has been decided, unless a commit is under way.
    pub(crate) fn send(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        self.make_room();
        self.drop_folded();
        if self.batch.is_empty() {
            // Nothing has to be kept of what is left to do.
            let acts = std::mem::take(&mut self.acts);
            acts.into_iter().for_each(|act| self.act(act));
            self.settled();
            if self.batch.is_empty() {
                return;
            }
        }
        self.sent += 1;
        let (batch, acts) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.acts));
        let (store, alsos) = (self.setup.store.clone(), std::mem::take(&mut self.alsos));
        self.in_flight = Some(Box::pin(async move {
            let kept = store.write(move |tx| keep(tx, batch, alsos)).await;
            (acts, kept)
        }));
    }

    pub(crate) async fn committed(&mut self, (acts, kept): Done) {
        match kept {
            Ok(refused) => self.acted(acts, refused),
            Err(error) => {
                let error = Error::Store(Arc::new(error));
                acts.into_iter().for_each(|act| self.undo(act, error.clone()));
                self.again(error).await;
            }
        }
    }

    fn acted(&mut self, acts: Vec<Act>, refused: Refused) {
        self.done = self.sent;
        let done = self.done;
        self.ending.retain(|key, commit| {
            let open = *commit > done;
            if !open {
                self.awaited.remove(key);
            }
            open
        });
        refused.iter().for_each(|(key, _)| self.forget(*key));
        let mut refused: HashMap<u64, Option<store::Error>> = refused
            .into_iter()
            .map(|(key, error)| (key, Some(error)))
            .collect();
        for act in acts {
            match act.of().and_then(|key| refused.get_mut(&key)) {
                None => self.act(act),
                // Whoever asked for the start has the error to itself; nobody else asked.
                Some(error) => {
                    if let Act::Started(_, _, arn) = &act {
                        self.names.remove(arn);
                    }
                    if let Some(error) = error.take() {
                        self.undo(act, Error::Refused(Arc::new(error)));
                    }
                }
            }
        }
    }

    pub(crate) fn wait_for_end(&mut self, key: u64, answer: Answer<oneshot::Receiver<()>>) {
        let (over, end) = oneshot::channel();
        // Those who found it over already, or stopped waiting.
        if self.awaited.len() >= SWEEP && self.awaited.len().is_power_of_two() {
            self.awaited.retain(|_, waiting| {
                waiting.retain(|over| !over.is_closed());
                !waiting.is_empty()
            });
        }
        self.awaited.entry(key).or_default().push(over);
        let _ = answer.send(Ok(end));
    }

    /// The execution never began.
    fn forget(&mut self, key: u64) {
        self.batch.forget(key);
        self.runs.retain(|(execution, _), _| *execution != key);
        self.ending.remove(&key);
        let Some(live) = self.live.remove(&key) else {
            return;
        };
        self.used.remove(&live.touched);
        if let Some(unfolded) = live.unfolded {
            self.dirty.remove(&unfolded);
        }
        self.history -= live.pending.len();
        for order in live.orders.values() {
            self.desk.forget(&order.token);
            self.timers.over(key, order.task);
        }
    }

    /// Folds and forgets as much as the limits ask for.
    fn make_room(&mut self) {
        let folds = self.batch.events.len() + FOLDS;
        self.fold_in_turn();
        for _ in 0..folds {
            let oldest = self.dirty.first_key_value().map(|(seq, _)| *seq);
            let long = oldest.is_some_and(|seq| self.seq - seq >= self.setup.limits.log);
            if !long && self.history <= self.setup.limits.history {
                break;
            }
            self.fold_oldest(1);
        }
        let Some(mut over) = self
            .live
            .len()
            .checked_sub(self.setup.limits.live)
            .filter(|over| *over > 0)
        else {
            return;
        };
        let longest: Vec<(u64, u64)> = self
            .used
            .iter()
            .filter(|(_, key)| !Self::in_memory(**key))
            .take(folds)
            .map(|(at, key)| (*at, *key))
            .collect();
        for (at, key) in longest {
            let Some(live) = self.live.get(&key).filter(|live| live.express.is_none()) else {
                continue;
            };
            if live.unfolded.is_some() {
                self.fold(key);
            } else if live.folded_in <= self.done && over > 0 {
                over -= 1;
                if let Some(wake) = live.wake() {
                    self.timers.set(wake, Due::Wake { execution: key });
                }
                self.live.remove(&key);
                self.used.remove(&at);
            }
        }
    }

    /// Folds as many executions with this commit as keep the log at three quarters of its length: those that move
    /// together would otherwise all be folded together, and one commit would be much longer than the others.
    fn fold_in_turn(&mut self) {
        let log = self.setup.limits.log;
        let turn = (log - log / 4).max(1);
        self.owed += (self.batch.events.len() * self.dirty.len()) as u64;
        while self.owed >= turn {
            self.owed -= turn;
            let oldest = self.dirty.first_key_value().map(|(seq, _)| *seq);
            if oldest.is_some_and(|seq| self.seq - seq >= log / 4) {
                self.fold_oldest(1);
            }
        }
    }

    pub(crate) fn fold_oldest(&mut self, count: usize) {
        for _ in 0..count {
            let Some((_, key)) = self.dirty.first_key_value() else {
                return;
            };
            self.fold(*key);
        }
    }

    fn fold(&mut self, key: u64) {
        let live = self.live.get_mut(&key).expect("what is not folded is in memory");
        let Some(unfolded) = live.unfolded.take() else {
            return;
        };
        self.dirty.remove(&unfolded);
        self.history -= live.pending.len();
        live.folded_in = self.sent + 1;
        self.batch.folds.push(live.fold(key));
    }

    fn drop_folded(&mut self) {
        let before = self.dirty.first_key_value().map_or(self.seq + 1, |(seq, _)| *seq);
        let before = self.unread.map_or(before, |unread| unread.min(before));
        if before >= self.dropped + DROP || (self.dirty.is_empty() && before > self.dropped + 1) {
            self.dropped = before;
            self.batch.folded_before = Some(before);
        }
    }

    /// The execution is over: what is left of it is written, and it leaves the memory.
    pub(crate) fn finish(&mut self, key: u64) {
        let Some(mut live) = self.live.remove(&key) else {
            return;
        };
        self.used.remove(&live.touched);
        if let Some(unfolded) = live.unfolded {
            self.dirty.remove(&unfolded);
        }
        for order in live.orders.values() {
            self.desk.forget(&order.token);
            self.timers.over(key, order.task);
        }
        let status = live.state.status().clone();
        if let Some(express) = live.express {
            let ended = crate::Ended {
                started_at: express.started_at,
                ended_at: live.at,
                status,
            };
            if let Some(kin) = live.kin {
                return self.express_child_over(
                    live.owner,
                    kin,
                    ended.started_at,
                    ended.ended_at,
                    ended.status,
                );
            }
            self.express_gone(live.owner);
            // Whoever started it may not wait any more.
            if let Some(answer) = express.answer {
                let _ = answer.send(Ok(ended));
            }
            return;
        }
        self.history -= live.pending.len();
        if let Some(own) = live.own.clone() {
            self.acts.push(Act::Over(key, own, status.as_str()));
        }
        let (status, output, error, cause) = told(status);
        if status == Status::Running {
            return;
        }
        self.ending.insert(key, self.sent + 1);
        let piece = live.pending.take();
        // What the platform does is tried again by beginning anew.
        let redrivable = live.own.is_none() && live.state.can_redrive();
        let snapshot = redrivable.then(|| live.fold(key).snapshot);
        self.batch.finishes.push(store::Finish {
            execution: key,
            status,
            output,
            error,
            cause,
            at: live.at,
            history: piece,
            snapshot,
            kin: live.kin,
        });
        if let Some(kin) = live.kin {
            self.child_over(kin, status == Status::Succeeded);
        }
    }

    fn settled(&mut self) {
        if self.settling.is_empty() {
            return;
        }
        if self.dirty.is_empty() {
            for answer in std::mem::take(&mut self.settling) {
                let _ = answer.send(Ok(()));
            }
        } else {
            self.fold_oldest(256);
        }
    }

    /// Commits what is decided, and folds everything: the next start has little to read.
    pub(crate) async fn end(&mut self) {
        loop {
            if let Some(running) = self.in_flight.take() {
                let (acts, kept) = running.await;
                match kept {
                    Ok(refused) => self.acted(acts, refused),
                    Err(error) => {
                        let error = Error::Store(Arc::new(error));
                        return acts.into_iter().for_each(|act| self.undo(act, error.clone()));
                    }
                }
            }
            self.fold_oldest(256);
            self.send();
            if self.in_flight.is_none() {
                return;
            }
        }
    }

    /// Is it an execution that only memory knows?
    pub(crate) fn in_memory(key: u64) -> bool {
        key > EXPRESS
    }
}
