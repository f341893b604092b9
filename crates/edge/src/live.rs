//! The table in force and its change: checked whole, written to disk, swapped for all workers at once.
//!
//! One task, the `Keeper`, makes every change, so that changes never overlap. Workers only ever read. A change is
//! written, in force, and then safe from a power cut; whoever asked for it hears of it after that.

use std::{
    borrow::Borrow,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use model::route::{Delta, Invalid};
use tokio::sync::{mpsc, oneshot};

use crate::{
    answer::Answer,
    away,
    book::{Book, Turn},
    clock, dns,
    draft::Gap,
    head::Ask,
    health, lines, login,
    metrics::Totals,
    own,
    quota::Quota,
    secure::Secure,
    snapshot::{self, Log},
    table::Rules,
    tls::Failures,
    udp, wake,
    worker::Order,
};

/// Why a table was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the table cannot be written to disk, so the old one stays in force")]
    Snapshot(#[source] std::io::Error),
    #[error(
        "the table is in force, but a power cut now would bring an older one back: the disk does not confirm it"
    )]
    Sync(#[source] std::io::Error),
    #[error("the edge is shutting down")]
    Closing,
}

/// One table in force, as workers see it.
#[derive(Default)]
pub struct Live {
    pub version: u64,
    pub rules: Rules,
}

/// What all threads of the edge share.
#[derive(Default)]
pub struct Shared {
    pub live: ArcSwap<Live>,
    pub totals: Totals,
    /// Connections that came to nothing.
    pub failures: Failures,
    /// Ids of requests start here, so that those of two edges or two starts differ.
    pub seed: AtomicU64,
    /// Connections and requests of sources and of tenants.
    pub sources: Arc<Quota<u128>>,
    pub tenants: Arc<Quota<Box<str>>>,
    /// `Limits::tenant_connections`, for datagrams: no worker has them.
    pub tenant_connections: AtomicU32,
    /// Where requests wait for hosts to wake.
    pub wanted: wake::Wanted,
    /// Names that are answered beside those of the table.
    pub names: dns::Held,
    pub datagrams: udp::Held,
    /// Sockets that rules have for themselves.
    pub own: own::Held,
    /// Where the edge itself is.
    pub zone: OnceLock<String>,
    /// Where TLS is spoken, and who is sent there.
    pub secure: OnceLock<Secure>,
    /// How targets that are elsewhere are reached.
    pub away: away::Trust,
    /// Where people sign in; none when its keys cannot be read.
    pub desk: OnceLock<login::Desk>,
    book: Mutex<Book>,
    /// Answers to challenges of an authority (HTTP-01), by token.
    challenges: ArcSwap<HashMap<String, String>>,
}

impl Shared {
    /// What is done with a request before any rule is asked.
    pub fn first(&self, ask: &Ask) -> Option<Answer> {
        self.secure.get()?.first(ask)
    }

    /// What is done with a request that no rule is for.
    pub fn last(&self, ask: &Ask) -> Answer {
        let sent = self.secure.get().and_then(|secure| secure.last(ask));
        sent.unwrap_or_else(Answer::not_found)
    }

    /// The control side's record. Workers never ask for it.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a challenge of HTTP-01, or no longer.
    pub fn answer_challenge(&self, token: &str, answer: Option<&str>) {
        self.challenges.rcu(|held| {
            let mut next = HashMap::clone(held);
            match answer {
                Some(answer) => _ = next.insert(token.to_owned(), answer.to_owned()),
                None => _ = next.remove(token),
            }
            next
        });
    }

    /// The answer to a request for this path, if it is a challenge.
    pub fn challenge(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix("/.well-known/acme-challenge/")?;
        self.challenges.load().get(token).cloned()
    }
}

/// What is wished for.
pub enum Wish {
    /// A whole table, in the place of the one in force.
    Table(Box<Book>),
    Delta(Delta),
}

impl Wish {
    fn rules(&self) -> usize {
        match self {
            Self::Table(next) => next.rules().len(),
            Self::Delta(delta) => delta.rules.len() + delta.without_rules.len(),
        }
    }
}

pub struct Change {
    pub wish: Wish,
    pub done: oneshot::Sender<Result<u64, Error>>,
}

/// Makes the changes, one after the other.
pub struct Keeper {
    pub shared: Arc<Shared>,
    pub log: Log,
    pub workers: Vec<mpsc::UnboundedSender<Order>>,
    pub prober: mpsc::UnboundedSender<health::Admissions>,
    pub tidy: fn(),
}

/// Rules of a change after which memory is given back.
const LARGE: usize = 1_000;

impl Keeper {
    /// Puts the snapshot in force, without waiting for workers: there are none yet. One that cannot be read whole is not
    /// put in force at all.
    pub fn start(&mut self) -> Result<(), snapshot::Error> {
        let mut book = Book::default();
        let mut probed = Vec::new();
        self.log.read(|delta| {
            book.check(&delta)?;
            let turn = book.apply(&delta, 0);
            turn.rejoin();
            // Nothing of theirs is under way in this process.
            for (target, _) in turn.left {
                target.leave(1);
            }
            probed.extend(turn.probed);
            Ok(())
        })?;
        let live = Live {
            version: book.version,
            rules: book.index(),
        };
        // What came and went again before the last line is not asked: nobody is there any more.
        probed.retain(|(target, _)| !target.is_leaving());
        *self.shared.book() = book;
        self.shared.live.store(Arc::new(live));
        let _ = self.prober.send(probed);
        Ok(())
    }

    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { return };
                    let rules = change.wish.rules();
                    let answer = self.apply(change.wish).await;
                    if rules > LARGE {
                        (self.tidy)();
                    }
                    // Who asked may have gone away; the change stands.
                    let _ = change.done.send(answer);
                }
                () = self.log.rewritten() => {}
            }
        }
    }

    async fn apply(&mut self, wish: Wish) -> Result<u64, Error> {
        let started = Instant::now();
        let (version, rules) = match wish {
            Wish::Delta(delta) => self.change(&delta)?,
            Wish::Table(next) => self.replace(*next).await?,
        };
        let took_us = started.elapsed().as_micros();
        self.settle().await;
        self.log.sync().await.map_err(Error::Sync)?;
        if self.log.is_long() {
            let (version, rules, groups) = {
                let book = self.shared.book();
                (book.version, book.rules(), book.groups())
            };
            self.log.rewrite(version, rules, groups);
        }
        tracing::info!(
            table.version = version,
            rules.new = rules,
            took_us,
            "table {version} in force: {rules} rules are new or changed"
        );
        Ok(version)
    }

    /// Gives the version in force, and how many rules are new in it.
    fn change(&mut self, delta: &Delta) -> Result<(u64, usize), Error> {
        let version = delta.version;
        {
            let book = self.shared.book();
            book.check(delta)?;
            if version == book.version && version != 0 {
                // The table in force may be sent again, and nothing else under its number.
                return match delta.is_empty() {
                    true => Ok((version, 0)),
                    false => Err(stale(version, version)),
                };
            }
        }
        self.log.append(delta).map_err(Error::Snapshot)?;
        self.switch(std::iter::once(delta), false);
        Ok((version, delta.rules.len()))
    }

    /// The same for a whole table. One that is much like the one in force is a change of it.
    async fn replace(&mut self, next: Book) -> Result<(u64, usize), Error> {
        let (have, gap) = {
            let book = self.shared.book();
            (book.version, Gap::between(&book, &next))
        };
        if next.version < have {
            return Err(stale(next.version, have));
        }
        if gap.len() <= LARGE {
            drop(next);
            return self.change(&gap.delta());
        }
        if next.version == have && have != 0 {
            return Err(stale(have, have));
        }
        let (version, rules, groups) = (next.version, next.rules(), next.groups());
        drop(next);
        let count = rules.len();
        let synced = self
            .log
            .write(version, rules, groups)
            .await
            .map_err(Error::Snapshot)?;
        self.switch(gap.deltas(lines::PIECE), true);
        synced.map_err(Error::Sync)?;
        Ok((version, count))
    }

    /// Puts changes in force, all of them in one step. `anew`: they are most of the table.
    fn switch(&self, deltas: impl Iterator<Item: Borrow<Delta>>, anew: bool) {
        let tick = clock::ticks();
        let (turn, live) = {
            let mut book = self.shared.book();
            let mut turn = Turn::default();
            deltas.for_each(|delta| turn.extend(book.apply(delta.borrow(), tick)));
            let rules = match anew {
                true => book.index(),
                false => {
                    let mut rules = self.shared.live.load().rules.clone();
                    rules.change(&turn.gone, &turn.new);
                    rules
                }
            };
            let version = book.version;
            (turn, Live { version, rules })
        };
        turn.rejoin();
        self.shared.live.store(Arc::new(live));
        self.shared.wanted.stir();
        // Only now: a worker that finds a target leaving looks again, and must then find the new table.
        for (target, drain) in turn.left {
            target.leave(tick.saturating_add(drain).max(1));
        }
        if turn.gone.iter().chain(&turn.new).any(|rule| rule.has_own()) {
            self.shared.own.changed.notify_one();
        }
        // The prober ends with the edge.
        let _ = self.prober.send(turn.probed);
    }

    /// Waits until every worker has been between two steps since the switch: from then on none of them can begin a
    /// request to a target that has left. A worker that does not answer in time is busy or gone, and no reason to hold
    /// the change up.
    async fn settle(&self) {
        let mut seen = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            if worker.send(Order::Sweep(done)).is_ok() {
                seen.push(answer);
            }
        }
        let all = async {
            for answer in seen {
                let _ = answer.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    }
}

fn stale(got: u64, have: u64) -> Error {
    Invalid::Stale { got, have }.into()
}

#[cfg(test)]
mod tests {
    use model::route;

    use super::*;

    fn change(version: u64, ports: &[u16]) -> Delta {
        let target = |port: &u16| route::Target {
            id: format!("h-{port}"),
            address: ([127, 0, 0, 1], *port).into(),
        };
        let group = route::TargetGroup {
            targets: ports.iter().map(target).collect(),
            ..route::TargetGroup::default()
        };
        Delta {
            from: Some(version - 1),
            version,
            target_groups: [("shop".to_owned(), group)].into(),
            ..Delta::default()
        }
    }

    #[test]
    fn a_start_asks_no_target_that_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(folder.path())
            .unwrap()
            .join("table.log");
        let mut log = Log::new(path);
        // The second went, came back and went; the third went and came back.
        let tables: [&[u16]; 5] = [&[1, 2, 3], &[1], &[1, 2], &[1], &[1, 3]];
        for (version, ports) in (1..).zip(tables) {
            log.append(&change(version, ports)).unwrap();
        }
        let (prober, mut admissions) = mpsc::unbounded_channel();
        let mut keeper = Keeper {
            shared: Arc::default(),
            log,
            workers: Vec::new(),
            prober,
            tidy: || (),
        };
        keeper.start().unwrap();
        let asked = admissions.try_recv().unwrap();
        let mut asked: Vec<u16> = asked.iter().map(|(target, _)| target.address().port()).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, [1, 3]);
    }
}
