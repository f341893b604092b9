//! What is read from the store: everything at a start, and executions that something happens to after a long time.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use asl::Machine;
use jiff::Timestamp;
use store::{Db, Logged, Run, Snapshot, Store, Waiting};
use tracing::error;

use crate::{
    Engine, Error, Order, Recovered, Started,
    desk::Place,
    handle::{Answer, Input, Start},
    live::Live,
    lost::is_lost,
    recover,
    timers::Due,
};

/// Definitions that are kept parsed.
const MACHINES: usize = 256;

/// What was read while the loop went on.
pub(crate) struct Read {
    executions: Result<Vec<Row>, Error>,
    wanted: Vec<u64>,
    named: Vec<Named>,
    waking: Option<Waking>,
}

/// An execution with its definition, and its snapshot, as far as they are there.
type Row = (u64, Option<(Run, Arc<str>)>, Option<Snapshot>);

/// Somebody who starts an execution under a name, and whether it is taken.
struct Named {
    start: Box<Start>,
    answer: Answer<Started>,
    taken: Result<bool, Error>,
}

/// Executions with a timer in a stretch of time.
struct Waking {
    after: Option<Timestamp>,
    until: Timestamp,
    rows: Result<Vec<(u64, Timestamp)>, Error>,
}

/// All that is open.
pub(crate) struct Opened {
    pub seq: u64,
    pub key: u64,
    /// Executions that the log has events of.
    pub moving: Vec<(u64, Recovered)>,
    /// Open tasks of the others.
    pub waiting: Vec<(Waiting, Vec<Order>)>,
    pub runs: Vec<store::MapRun>,
    /// Open children of Map runs that are over.
    pub strays: Vec<u64>,
    /// Open executions of tenants that cannot be read.
    pub lost: Vec<Run>,
    /// The first event of another execution that cannot be read: neither it nor what follows may be dropped.
    pub unread: Option<u64>,
}

/// What cannot be read stops nobody else.
fn readable<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error @ Error::Damaged(_)) => {
            error!(
                error = &error as &dyn std::error::Error,
                "an execution cannot go on"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn open(db: &Db<'_>) -> Result<Opened, Error> {
    let (seq, key) = db.log_ends()?;
    let mut events: BTreeMap<u64, Vec<Logged>> = BTreeMap::new();
    for logged in db.log(None, 0)? {
        events.entry(logged.execution).or_default().push(logged);
    }
    let mut machines = HashMap::<String, Machine>::new();
    let (mut moving, mut lost, mut unread) = (Vec::new(), Vec::new(), None);
    for (key, events) in events {
        let Some((run, text)) = db.run_by_key(key)?.filter(|(run, _)| run.ended_at.is_none()) else {
            continue;
        };
        let machine = match machines.get(&text) {
            Some(machine) => Ok(machine.clone()),
            None => Machine::kept(&text).map_err(|_| Error::Damaged(key)),
        };
        let snapshot = db.snapshot(key)?;
        let recovered = machine.and_then(|machine| {
            machines.entry(text).or_insert_with(|| machine.clone());
            recover::replay(&run, machine, snapshot, &events)
        });
        match readable(recovered)? {
            Some(recovered) if recovered.unfolded.is_some() => moving.push((key, recovered)),
            Some(_) => {}
            None if is_lost(&run) => lost.push(run),
            None => {
                unread = unread
                    .into_iter()
                    .chain(events.first().map(|first| first.seq))
                    .min()
            }
        }
    }
    let (mut waiting, mut after) = (Vec::new(), 0);
    loop {
        let page = db.waiting(after, 4096)?;
        let Some(last) = page.last() else { break };
        after = last.execution;
        for mut row in page.into_iter().filter(|row| row.open != "[]") {
            let open = std::mem::take(&mut row.open);
            let orders = serde_json::from_str(&open).map_err(|_| Error::Damaged(row.execution));
            match readable(orders)? {
                Some(orders) => waiting.push((row, orders)),
                None => {
                    let run = db.run_by_key(row.execution)?.map(|(run, _)| run);
                    lost.extend(run.filter(is_lost));
                }
            }
        }
    }
    lost.sort_unstable_by_key(|run| run.key);
    lost.dedup_by_key(|run| run.key);
    Ok(Opened {
        seq,
        key,
        moving,
        waiting,
        runs: db.open_map_runs()?,
        strays: db.stray_children()?,
        lost,
        unread,
    })
}

/// Looks whether names are taken.
async fn named(store: &Store, naming: Vec<(Box<Start>, Answer<Started>)>) -> Vec<Named> {
    if naming.is_empty() {
        return Vec::new();
    }
    let arns: Vec<String> = naming.iter().map(|(start, _)| start.arn.clone()).collect();
    let taken: Result<Vec<bool>, Error> = store
        .read(move |db| arns.iter().map(|arn| Ok(db.run(arn)?.is_some())).collect())
        .await;
    let one = |(n, (start, answer)): (usize, (Box<Start>, Answer<Started>))| Named {
        start,
        answer,
        taken: taken.as_ref().map(|taken| taken[n]).map_err(Clone::clone),
    };
    naming.into_iter().enumerate().map(one).collect()
}

/// The text, as those before had it: children of a run have the same, and it may be long.
fn shared(texts: &mut HashSet<Arc<str>>, text: String) -> Arc<str> {
    if let Some(text) = texts.get(text.as_str()) {
        return Arc::clone(text);
    }
    let text = Arc::<str>::from(text);
    texts.insert(Arc::clone(&text));
    text
}

async fn waking(store: &Store, after: Option<Timestamp>, until: Timestamp) -> Waking {
    let rows = store.read(move |db| Ok(db.waking(after, until, u32::MAX)?)).await;
    Waking { after, until, rows }
}

impl Engine {
    /// Keeps an input until the execution has been read.
    pub(crate) fn park(&mut self, key: u64, input: Input) {
        if Self::in_memory(key) || self.ending.contains_key(&key) {
            return self.refuse(input, Error::NotOpen(key));
        }
        self.want(key);
        self.parked.entry(key).or_default().push(input);
    }

    pub(crate) fn want(&mut self, key: u64) {
        // It is over; what is kept does not say so yet.
        if self.ending.contains_key(&key) {
            return;
        }
        if let Entry::Vacant(place) = self.parked.entry(key) {
            place.insert(Vec::new());
            self.wanted.push(key);
        }
    }

    /// Starts to read what is wanted, unless something is being read.
    pub(crate) fn read(&mut self) {
        let now = self.now();
        let stretch = self.timers.stretch(now);
        if self.reading.is_some() || (self.wanted.is_empty() && self.naming.is_empty() && stretch.is_none()) {
            return;
        }
        let wanted = std::mem::take(&mut self.wanted);
        let naming = std::mem::take(&mut self.naming);
        let store = self.setup.store.clone();
        self.reading = Some(Box::pin(async move {
            let keys = wanted.clone();
            let executions = store.read(move |db| {
                let mut texts = HashSet::new();
                let mut row = |key: u64| {
                    let run = db.run_by_key(key)?;
                    let run = run.map(|(run, text)| (run, shared(&mut texts, text)));
                    Ok((key, run, db.snapshot(key)?))
                };
                keys.into_iter().map(&mut row).collect()
            });
            Read {
                executions: executions.await,
                wanted,
                named: named(&store, naming).await,
                waking: match stretch {
                    Some((after, until)) => Some(waking(&store, after, until).await),
                    None => None,
                },
            }
        }));
    }

    pub(crate) fn was_read(&mut self, read: Read) {
        for named in read.named {
            let Named {
                mut start,
                answer,
                taken,
            } = named;
            match taken {
                Ok(false) => {
                    start.fresh = true;
                    self.begin(*start, None, answer);
                }
                Ok(true) => {
                    self.names.remove(&start.arn);
                    drop(answer.send(Err(Error::Exists(start.arn))));
                }
                Err(error) => {
                    self.names.remove(&start.arn);
                    drop(answer.send(Err(error)));
                }
            }
        }
        if let Some(Waking {
            after,
            until,
            rows: Ok(rows),
        }) = read.waking
        {
            self.timers.read_up_to(until);
            for (execution, at) in rows {
                self.timers.set(at, Due::Wake { execution });
            }
            self.soon(after, until);
        }
        match read.executions {
            Ok(rows) => rows
                .into_iter()
                .for_each(|(key, run, snapshot)| self.was_read_one(key, run, snapshot)),
            Err(error) => {
                for key in read.wanted {
                    let parked = self.parked.remove(&key).unwrap_or_default();
                    for input in parked {
                        self.refuse(input, error.clone());
                    }
                }
            }
        }
    }

    fn was_read_one(&mut self, key: u64, run: Option<(Run, Arc<str>)>, snapshot: Option<Snapshot>) {
        let parked = self.parked.remove(&key).unwrap_or_default();
        let (run, text, snapshot) = match (run, snapshot) {
            (Some((run, text)), Some(snapshot)) => (run, text, snapshot),
            _ => return self.over(key, parked, None),
        };
        let has_ended = run.ended_at.is_some();
        let recovered = self
            .machine(key, text)
            .and_then(|machine| recover::replay(&run, machine, Some(snapshot), &[]));
        match recovered {
            Err(error) => self.unreadable(&run, parked, error),
            Ok(recovered) if has_ended => self.over(key, parked, Some(recovered)),
            Ok(recovered) => {
                self.wake(key, &recovered);
                self.insert(key, Live::from(recovered));
                parked.into_iter().for_each(|input| self.take(input));
            }
        }
    }

    fn unreadable(&mut self, run: &Run, parked: Vec<Input>, error: Error) {
        error!(
            error = &error as &dyn std::error::Error,
            "an execution cannot go on"
        );
        let lost = is_lost(run);
        if lost {
            self.give_up(run);
        }
        for input in parked {
            match input {
                // That is what was asked for.
                Input::Stop {
                    key, deed, answer, ..
                } if lost => self.moved(key, deed, answer),
                input => self.refuse(input, error.clone()),
            }
        }
    }

    /// Nothing happens to an execution that has ended, unless it is to be tried again: then the rest does.
    fn over(&mut self, key: u64, parked: Vec<Input>, mut recovered: Option<Recovered>) {
        for input in parked {
            if self.live.contains_key(&key) {
                self.take(input);
                continue;
            }
            let mut redrivable = |is_child: bool| {
                recovered
                    .take_if(|recovered| recovered.kin.is_some() == is_child && recovered.state.can_redrive())
            };
            match input {
                // A child is tried again by its run and by nobody else.
                Input::Redrive { deed, answer, .. } => match redrivable(false) {
                    None => drop(answer.send(Err(Error::NotRedrivable(key)))),
                    Some(recovered) => {
                        self.redrive(key, recovered);
                        self.moved(key, deed, answer);
                    }
                },
                // Its run is over, and tries nothing any more.
                Input::Again { kin, .. } if !self.has_child(kin, key) => {}
                Input::Again { kin, .. } => match redrivable(true) {
                    None => self.child_over(kin, false),
                    Some(recovered) => self.child_again(key, kin, recovered),
                },
                input => self.refuse(input, Error::NotOpen(key)),
            }
        }
    }

    fn redrive(&mut self, key: u64, recovered: Recovered) {
        let (at, count) = (self.now(), recovered.state.redrives() + 1);
        self.insert(key, Live::from(recovered));
        self.batch.reopened.push((key, at));
        self.happen(key, asl::Event::Redrive { count });
    }

    fn machine(&mut self, key: u64, text: Arc<str>) -> Result<Machine, Error> {
        if let Some(machine) = self.machines.get(&text) {
            return Ok(machine.clone());
        }
        let machine = Machine::kept(&text).map_err(|_| Error::Damaged(key))?;
        if self.machines.len() >= MACHINES {
            self.machines.clear();
        }
        self.machines.insert(text, machine.clone());
        Ok(machine)
    }

    /// Sets the timers of an execution that came into memory.
    fn wake(&mut self, key: u64, recovered: &Recovered) {
        for open in recovered.state.open_timers() {
            let due = Due::Timer {
                execution: key,
                timer: open.timer,
            };
            self.timers.set(open.at, due);
        }
    }

    /// Timers of executions in memory that go off in this stretch of time: those the store may not have yet.
    pub(crate) fn soon(&mut self, after: Option<Timestamp>, until: Timestamp) {
        for (key, live) in &self.live {
            for open in live.state.open_timers() {
                if after.is_none_or(|after| open.at > after) && open.at <= until {
                    let due = Due::Timer {
                        execution: *key,
                        timer: open.timer,
                    };
                    self.timers.set(open.at, due);
                }
            }
        }
    }

    /// An execution that was moving when the engine ended.
    pub(crate) fn revive(&mut self, key: u64, recovered: Recovered) {
        let orders = recovered.orders.values().cloned().collect();
        self.offer_again(key, recovered.owner, orders);
        let unfolded = recovered.unfolded;
        let live = Live::from(recovered);
        self.history += live.pending.len();
        if let Some(seq) = unfolded {
            self.dirty.insert(seq, key);
        }
        self.insert(key, live);
    }

    /// Tasks of executions that only memory knows, which a commit that failed takes nothing from.
    pub(crate) fn offer_kept(&mut self) {
        let orders = |live: &Live| live.orders.values().cloned().collect();
        let kept: Vec<(u64, u64, Vec<Order>)> = self
            .live
            .iter()
            .map(|(key, live)| (*key, live.owner, orders(live)))
            .collect();
        for (key, owner, orders) in kept {
            self.offer_again(key, owner, orders);
        }
    }

    /// Tasks that nobody has, or that nobody has any more, are there to be taken.
    pub(crate) fn offer_again(&mut self, key: u64, owner: u64, orders: Vec<Order>) {
        for order in orders {
            let place = Place {
                owner,
                execution: key,
                task: order.task,
            };
            self.desk.know(order.token.clone(), place);
            let is_lost = (self.setup.own)(&order.resource) && !order.is_with_others();
            if !order.started || is_lost {
                self.desk.wait_for_poller(&order.resource, order.token);
            } else {
                self.alive(key, order.task, order.heartbeat);
            }
        }
    }
}
