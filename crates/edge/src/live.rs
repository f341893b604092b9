//! The table in force and its change: checked whole, written to disk, swapped for all workers at once.
//!
//! One task, the `Keeper`, makes every change, so that changes never overlap. Workers only ever read.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::Hasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use camino::Utf8PathBuf;
use model::route::{self, Invalid, TargetHealth};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    balance::{Group, Target},
    clock,
    metrics::{GroupStats, Totals},
    snapshot,
    table::Rules,
    worker::Order,
};

/// Why a table was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the table cannot be written to disk, so the old one stays in force")]
    Snapshot(#[source] std::io::Error),
    #[error("the edge is shutting down")]
    Closing,
}

/// One table in force.
#[derive(Default)]
pub struct Live {
    pub version: u64,
    pub rules: Rules,
    pub groups: HashMap<Box<str>, Arc<Group>>,
    /// Targets that have left this table or one before it and may still have requests, with their groups.
    pub leaving: Vec<(Box<str>, Arc<Target>)>,
}

impl Live {
    /// The next table. Targets and counters that stay are the same objects; those that go are told so by `switch`.
    fn next(&self, table: &route::Table, tick: u64) -> Self {
        let mut leaving: Vec<_> = self
            .leaving
            .iter()
            .filter(|(_, target)| !target.is_gone(tick))
            .cloned()
            .collect();
        let mut groups = HashMap::with_capacity(table.target_groups.len());
        for (name, spec) in &table.target_groups {
            let before = self.groups.get(name.as_str());
            let known = |wanted: &route::Target| {
                before
                    .into_iter()
                    .flat_map(|group| &group.targets)
                    .find(|target| target.spec == *wanted)
                    .cloned()
            };
            let targets = spec.targets.iter().map(|wanted| {
                known(wanted)
                    .or_else(|| take(&mut leaving, name, wanted))
                    .unwrap_or_else(|| Arc::new(Target::new(wanted.clone())))
            });
            let targets = targets.collect();
            let counters = before.map_or_else(Arc::default, |group| Arc::clone(&group.counters));
            let group = Group::new(name, targets, spec, counters);
            groups.insert(Box::from(name.as_str()), Arc::new(group));
        }
        Self {
            version: table.version,
            rules: Rules::new(table, &groups),
            groups,
            leaving,
        }
    }

    /// The targets of `self` that are not in `next`, with the tick at which their requests are cut.
    fn left(&self, next: &Self, tick: u64) -> Vec<(Box<str>, Arc<Target>, u64)> {
        let mut left = Vec::new();
        for (name, group) in &self.groups {
            let stays = |target: &Arc<Target>| {
                let group = next.groups.get(name);
                group.is_some_and(|group| group.targets.iter().any(|t| t.serial == target.serial))
            };
            let delay = next.groups.get(name).unwrap_or(group).drain;
            for target in group.targets.iter().filter(|target| !stays(target)) {
                left.push((name.clone(), Arc::clone(target), tick.saturating_add(delay)));
            }
        }
        left
    }

    pub fn health(&self, tick: u64) -> Vec<TargetHealth> {
        let mut health: Vec<TargetHealth> = self
            .groups
            .values()
            .flat_map(|group| group.targets.iter().map(|target| target.seen(&group.name)))
            .collect();
        let busy = self
            .leaving
            .iter()
            .filter(|(_, target)| target.active.load(Relaxed) > 0 && !target.is_gone(tick));
        health.extend(busy.map(|(group, target)| target.seen(group)));
        health.sort_by(|a, b| (&a.group, &a.target.id).cmp(&(&b.group, &b.target.id)));
        health
    }

    pub fn stats(&self) -> Vec<GroupStats> {
        let mut stats: Vec<GroupStats> = self
            .groups
            .values()
            .map(|group| group.counters.stats(&group.name))
            .collect();
        stats.sort_by(|a, b| a.group.cmp(&b.group));
        stats
    }
}

/// A target on its way out that is wanted again.
fn take(
    leaving: &mut Vec<(Box<str>, Arc<Target>)>,
    group: &str,
    wanted: &route::Target,
) -> Option<Arc<Target>> {
    let index = leaving
        .iter()
        .position(|(name, target)| **name == *group && target.spec == *wanted)?;
    Some(leaving.swap_remove(index).1)
}

/// What all threads of the edge share.
#[derive(Default)]
pub struct Shared {
    pub live: ArcSwap<Live>,
    pub totals: Totals,
    /// The health prober looks at the table again.
    pub changed: Notify,
    /// Ids of requests start here, so that those of two edges or two starts differ.
    pub seed: AtomicU64,
}

/// One wish for another table.
pub struct Change {
    pub table: route::Table,
    pub done: oneshot::Sender<Result<u64, Error>>,
}

/// Makes the changes, one after the other.
pub struct Keeper {
    pub shared: Arc<Shared>,
    pub snapshot: Utf8PathBuf,
    pub workers: Vec<mpsc::UnboundedSender<Order>>,
    /// Of the table in force, as bytes.
    pub digest: u64,
}

impl Keeper {
    /// Puts the snapshot in force, without waiting for workers: there are none yet.
    pub fn start(&mut self) -> Result<(), snapshot::Error> {
        if let Some(table) = snapshot::read(&self.snapshot)? {
            self.digest = digest(&bytes(&table));
            self.switch(&table);
        }
        Ok(())
    }

    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        while let Some(change) = changes.recv().await {
            let answer = self.apply(change.table).await;
            // Who asked may have gone away; the change stands.
            let _ = change.done.send(answer);
        }
    }

    async fn apply(&mut self, table: route::Table) -> Result<u64, Error> {
        table.check()?;
        let have = self.shared.live.load().version;
        let bytes = bytes(&table);
        let digest = digest(&bytes);
        if table.version < have || (table.version == have && have != 0 && digest != self.digest) {
            return Err(Invalid::Stale {
                got: table.version,
                have,
            }
            .into());
        }
        let path = self.snapshot.clone();
        tokio::task::spawn_blocking(move || snapshot::write(&path, &bytes))
            .await
            .map_err(|_| Error::Closing)?
            .map_err(Error::Snapshot)?;
        self.digest = digest;
        self.switch(&table);
        self.settle().await;
        tracing::info!(
            table.version = table.version,
            rules = table.rules.len(),
            "table in force"
        );
        Ok(table.version)
    }

    fn switch(&self, table: &route::Table) {
        let tick = clock::ticks();
        let old = self.shared.live.load_full();
        let mut next = old.next(table, tick);
        let left = old.left(&next, tick);
        next.leaving.extend(
            left.iter()
                .map(|(group, target, _)| (group.clone(), Arc::clone(target))),
        );
        for target in next.groups.values().flat_map(|group| &group.targets) {
            if target.is_leaving() {
                target.rejoin();
            }
        }
        self.shared.live.store(Arc::new(next));
        // Only now: a worker that finds a target leaving looks again, and must then find the new table.
        for (_, target, until) in left {
            target.leave(until);
        }
        self.shared.changed.notify_one();
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

fn bytes(table: &route::Table) -> Vec<u8> {
    serde_json::to_vec(table).expect("a table has only text keys")
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
