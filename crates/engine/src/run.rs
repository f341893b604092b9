//! The loop.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use asl::HistoryEvent;
use jiff::{SignedDuration, Timestamp};
use model::{Digest, ledger::Deed};
use store::{Batch, Begin, Seen, Store};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};
use tracing::{error, warn};

use crate::{
    Also, Error, Handle, Objects, Own,
    act::Act,
    chores::Chore,
    commit::InFlight,
    desk::Desk,
    handle::{Answer, Input, Start},
    live::Live,
    lost,
    maps::{Done, Open},
    news::Telling,
    read::{self, Opened},
    timers::{Due, Timers},
    turns::Turns,
};

/// What the engine must not grow beyond.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events of the log that are not folded: what a start replays, and a reader of an open execution passes over.
    pub log: u64,
    /// Executions in memory. Those that wait longest are read again when something happens to them.
    pub live: usize,
    /// Bytes of history in memory.
    pub history: usize,
    /// Inputs that wait for the engine; those who bring more wait.
    pub inbox: usize,
    /// How long an express execution may take.
    pub express: SignedDuration,
    /// Express executions of one tenant at a time, children of Maps aside; further ones are refused.
    pub express_open: usize,
    /// Express children of distributed Maps of one tenant in memory; further ones wait.
    pub children: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log: 32_768,
            live: 16_384,
            history: 64 << 20,
            inbox: 4096,
            express: SignedDuration::from_mins(5),
            express_open: 4096,
            children: 1024,
        }
    }
}

/// Why nobody will work on tasks of a resource in an execution of a tenant, by its number.
pub type Refuses = Arc<dyn Fn(u64, &str) -> Option<String> + Send + Sync>;

/// The owner of executions that no tenant has.
pub const PLATFORM: u64 = 0;

/// Who is told what the platform's own executions do.
pub trait Witness: Send + Sync {
    /// Lines of the ledger for what happened, which are written in the same transaction.
    fn deeds(&self, own: &Own, events: &[HistoryEvent]) -> Vec<Deed>;

    /// It is on record that the execution is over.
    fn ended(&self, own: &Own, status: &str);
}

/// What the engine is given.
pub struct Setup {
    pub store: Store,
    pub clock: fn() -> Timestamp,
    /// 64 bits that nobody can guess.
    pub bits: fn() -> u64,
    /// Tasks that are refused fail at once, for that cause. `None`: somebody works on them, or may yet come.
    pub refuses: Refuses,
    /// Did the workers of this resource end with the process? What they had begun is then offered again.
    pub own: fn(&str) -> bool,
    /// Where distributed Maps read and write objects. `None`: those that want to fail.
    pub objects: Option<Arc<dyn Objects>>,
    pub witness: Option<Arc<dyn Witness>>,
    pub limits: Limits,
}

pub struct Engine {
    pub(crate) setup: Setup,
    inbox: mpsc::Receiver<Input>,
    pub(crate) live: HashMap<u64, Live>,
    /// Executions in memory by when they were used last.
    pub(crate) used: BTreeMap<u64, u64>,
    /// Executions by their first event that is not folded.
    pub(crate) dirty: BTreeMap<u64, u64>,
    pub(crate) history: usize,
    pub(crate) desk: Desk,
    pub(crate) timers: Timers,
    pub(crate) machines: HashMap<Arc<str>, asl::Machine>,
    /// Definitions of children of open runs.
    pub(crate) definitions: HashMap<Digest, Seen>,
    /// What happens next to executions that are being read.
    pub(crate) parked: HashMap<u64, Vec<Input>>,
    pub(crate) wanted: Vec<u64>,
    pub(crate) naming: Vec<(Box<Start>, Answer<crate::Started>)>,
    pub(crate) names: HashSet<String>,
    pub(crate) reading: Option<Pin<Box<dyn Future<Output = read::Read> + Send>>>,
    pub(crate) batch: Batch,
    /// Executions that begin with the batch, each with what else is in the transaction.
    pub(crate) alsos: Vec<(Begin, Also)>,
    pub(crate) acts: Vec<Act>,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) seq: u64,
    pub(crate) key: u64,
    pub(crate) express: u64,
    pub(crate) touch: u64,
    /// Numbers of the last commit that was sent, and of the last that is done.
    pub(crate) sent: u64,
    pub(crate) done: u64,
    /// Events that were committed, times executions that were to be folded then.
    pub(crate) owed: u64,
    /// Every event before it is dropped from the log.
    pub(crate) dropped: u64,
    /// Map runs that are open, by execution and task.
    pub(crate) runs: HashMap<(u64, u64), Open>,
    /// Runs that may have children to start.
    pub(crate) callers: Turns<(u64, u64)>,
    /// What happens next to executions, in memory or not.
    pub(crate) agenda: VecDeque<(u64, asl::Event)>,
    pub(crate) chores: Turns<Chore>,
    /// Chores, and other work beside the loop.
    pub(crate) jobs: JoinSet<Done>,
    /// Chores under way.
    pub(crate) busy: usize,
    /// Chores whose execution is being read for them.
    pub(crate) waking: usize,
    /// Express executions in memory that are nobody's children, by owner.
    pub(crate) quick: HashMap<u64, usize>,
    /// Express children of Map runs in memory, by owner.
    pub(crate) brood: HashMap<u64, usize>,
    /// Children are being looked up.
    pub(crate) fetching: bool,
    /// Executions that are hearing of an activity, or being looked for.
    pub(crate) telling: Option<Telling>,
    pub(crate) asking: bool,
    /// There may be news that were not there when they were last looked for.
    pub(crate) more_news: bool,
    /// No event from here on is dropped.
    pub(crate) unread: Option<u64>,
    pub(crate) settling: Vec<Answer<()>>,
    /// Executions whose end is not committed yet, by the commit that it is in.
    pub(crate) ending: HashMap<u64, u64>,
    /// Who waits for the end of an execution; dropped then.
    pub(crate) awaited: HashMap<u64, Vec<oneshot::Sender<()>>>,
    last: Timestamp,
}

/// Keys of express executions: above those that the store has.
pub(crate) const EXPRESS: u64 = 1 << 62;
/// Events of one commit, at most; further inputs wait.
const BATCH: usize = 2048;
/// After this without an event, what is left is folded.
const IDLE: Duration = Duration::from_millis(250);
/// After a commit that failed.
const PAUSE: Duration = Duration::from_millis(250);

/// An engine that is yet to run, and how it will be reached.
pub fn new(setup: Setup) -> (Engine, Handle) {
    let (sender, inbox) = mpsc::channel(setup.limits.inbox);
    let engine = Engine {
        setup,
        inbox,
        live: HashMap::new(),
        used: BTreeMap::new(),
        dirty: BTreeMap::new(),
        history: 0,
        desk: Desk::default(),
        timers: Timers::default(),
        machines: HashMap::new(),
        definitions: HashMap::new(),
        parked: HashMap::new(),
        wanted: Vec::new(),
        naming: Vec::new(),
        names: HashSet::new(),
        reading: None,
        batch: Batch::default(),
        alsos: Vec::new(),
        acts: Vec::new(),
        in_flight: None,
        seq: 0,
        key: 0,
        express: EXPRESS,
        touch: 0,
        sent: 0,
        done: 0,
        owed: 0,
        dropped: 0,
        runs: HashMap::new(),
        callers: Turns::default(),
        agenda: VecDeque::new(),
        chores: Turns::default(),
        jobs: JoinSet::new(),
        busy: 0,
        waking: 0,
        quick: HashMap::new(),
        brood: HashMap::new(),
        fetching: false,
        telling: None,
        asking: false,
        more_news: false,
        unread: None,
        settling: Vec::new(),
        ending: HashMap::new(),
        awaited: HashMap::new(),
        last: Timestamp::MIN,
    };
    (engine, Handle(sender))
}

impl Engine {
    /// Runs until `cancel` or until the last handle is gone. What was committed goes on with the next start.
    pub async fn run(mut self, cancel: impl Future<Output = ()>) -> Result<(), Error> {
        self.resume().await?;
        tokio::pin!(cancel);
        let mut inputs = Vec::with_capacity(256);
        loop {
            self.ring();
            self.go_on();
            self.send();
            self.read();
            let due_in = self.due_in();
            let room = self.has_room();
            let idle = !self.dirty.is_empty() && self.in_flight.is_none();
            tokio::select! {
                biased;
                () = &mut cancel => break,
                done = maybe(&mut self.in_flight) => self.committed(done).await,
                read = maybe(&mut self.reading) => self.was_read(read),
                Some(done) = self.jobs.join_next(), if room && !self.jobs.is_empty() => match done {
                    Ok(done) => self.done(done),
                    Err(error) => error!("work beside the loop was cut off: {error}"),
                },
                count = self.inbox.recv_many(&mut inputs, 256), if room => {
                    if count == 0 {
                        break;
                    }
                    inputs.drain(..).for_each(|input| self.take(input));
                }
                () = sleep(due_in) => {}
                () = sleep(IDLE), if idle => self.fold_oldest(BATCH),
            }
        }
        self.end().await;
        Ok(())
    }

    /// Does the next commit take more events?
    pub(crate) fn has_room(&self) -> bool {
        self.batch.events.len() < BATCH
    }

    /// Time, which does not go back.
    pub(crate) fn now(&mut self) -> Timestamp {
        let now = (self.setup.clock)();
        // As the store keeps it, so that an event that is read again is the same.
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        self.last = self.last.max(now);
        self.last
    }

    fn due_in(&mut self) -> Duration {
        let now = self.now();
        let at = self.timers.next(now);
        Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
    }

    /// Lets what is due happen.
    fn ring(&mut self) {
        let now = self.now();
        for _ in 0..BATCH {
            let Some(due) = self.timers.due(now) else { return };
            match due {
                // Of an execution that is over, or that left the memory and will be woken.
                Due::Timer { execution, .. } if !self.live.contains_key(&execution) => {}
                Due::Timer { execution, timer } => self.happen(execution, asl::Event::TimerFired { timer }),
                Due::Wake { execution } if !self.live.contains_key(&execution) => self.want(execution),
                Due::Wake { .. } => {}
                Due::Heartbeat { execution, task } => self.silent(execution, task),
                Due::Express { execution } => self.express_over(execution, asl::Status::TimedOut),
            }
        }
    }

    /// Reads everything that is open, as if nothing had been there before.
    async fn resume(&mut self) -> Result<(), Error> {
        self.forget_runs();
        self.live.retain(|key, live| *key > EXPRESS && live.kin.is_none());
        self.used.retain(|_, key| self.live.contains_key(key));
        self.dirty.clear();
        self.history = 0;
        self.desk.clear();
        self.timers.clear();
        self.wanted.clear();
        self.names.clear();
        self.ending.clear();
        self.awaited.clear();
        self.reading = None;
        self.batch = Batch::default();
        self.alsos.clear();
        self.offer_kept();
        let opened = self.opened().await?;
        (self.seq, self.key) = (opened.seq, self.key.max(opened.key));
        (self.dropped, self.unread) = (0, opened.unread);
        for (key, recovered) in opened.moving {
            self.revive(key, recovered);
        }
        for (row, orders) in opened.waiting {
            if !self.live.contains_key(&row.execution) {
                self.offer_again(row.execution, row.owner, orders);
            }
        }
        let now = self.now();
        if let Some((after, until)) = self.timers.stretch(now) {
            let waking = self.setup.store.read(move |db| db.waking(after, until, u32::MAX));
            let waking = waking.await?;
            self.timers.read_up_to(until);
            for (execution, at) in waking {
                self.timers.set(at, Due::Wake { execution });
            }
            self.soon(after, until);
        }
        self.resume_runs(opened.runs, opened.strays);
        self.ask_for_news();
        for resource in self.desk.matches() {
            self.hand_out(&resource);
        }
        Ok(())
    }

    /// All that is open, once what is lost of it has been ended.
    async fn opened(&mut self) -> Result<Opened, Error> {
        let opened = self.setup.store.read(read::open).await?;
        if opened.lost.is_empty() {
            return Ok(opened);
        }
        let ends = lost::end(&opened.lost, &opened.runs, self.now());
        let kept = self.setup.store.write(move |tx| tx.append(&ends)).await;
        kept.map_err(|error: store::Error| Error::from(error))?;
        self.setup.store.read(read::open).await
    }

    /// A commit failed: nothing of what was decided since the last one is true.
    pub(crate) async fn again(&mut self, error: Error) {
        error!(
            error = &error as &dyn std::error::Error,
            "a commit failed: reading again what is kept"
        );
        let acts = std::mem::take(&mut self.acts);
        acts.into_iter().for_each(|act| self.undo(act, error.clone()));
        let parked = std::mem::take(&mut self.parked);
        for input in parked.into_values().flatten() {
            self.refuse(input, error.clone());
        }
        for (_, answer) in std::mem::take(&mut self.naming) {
            let _ = answer.send(Err(error.clone()));
        }
        for answer in std::mem::take(&mut self.settling) {
            let _ = answer.send(Err(error.clone()));
        }
        loop {
            sleep(PAUSE).await;
            match self.resume().await {
                Ok(()) => return,
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read what is kept"
                ),
            }
        }
    }
}

/// Waits for a future that may not be there, and takes it away when it is done.
async fn maybe<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        None => std::future::pending().await,
        Some(running) => {
            let value = running.await;
            *future = None;
            value
        }
    }
}
