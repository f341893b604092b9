//! A repeated ticket returns the first answer, also after a crash. Knows nothing of what the answers mean.
//!
//! An answer is in a file before anybody gets it, where the end of the node does not reach it. It is not forced to the
//! disk: a machine that lost its power has lost its hosts and builds as well, and does them again. A fault that blames
//! the platform is no answer: the same ticket tries again.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest, Ticket,
    port::{Blame, Fault},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::sync::watch;
use tracing::{error, warn};

/// Who stops work hears how it ended, when that is within this time.
const ENDING: Duration = Duration::from_secs(5);
/// Answers are repeated for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// An outcome as it is kept: of any order.
type Outcome = Result<Value, Fault>;

/// The answers of one data directory. Clones are the same.
#[derive(Debug, Clone)]
pub struct Tickets {
    dir: Utf8PathBuf,
    running: Arc<Mutex<HashMap<Ticket, Work>>>,
}

/// Work that is being done under a ticket.
#[derive(Debug, Clone)]
struct Work {
    /// `None`: of any order, because it was stopped before it was ordered.
    order: Option<Digest>,
    done: watch::Receiver<Option<Outcome>>,
    stop: watch::Sender<Option<String>>,
}

/// Tells work that nobody wants it any more, and why. Clones hear the same.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Option<String>>);

impl Stop {
    /// For work that nobody stops.
    pub fn never() -> Self {
        Self(watch::channel(None).1)
    }

    /// Waits until the work is to stop. Gives the reason.
    pub async fn asked(&mut self) -> String {
        let asked = self
            .0
            .wait_for(Option::is_some)
            .await
            .map(|reason| reason.clone());
        match asked {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// The reason, when it was asked already.
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// `None`: whatever was ordered.
    order: Option<Digest>,
    outcome: Outcome,
}

impl Tickets {
    /// The answers under `<data>/node`, without those that are older than seven days.
    pub fn open(node: &Utf8Path, now: Timestamp) -> io::Result<Self> {
        let dir = node.join("tickets");
        fs::create_dir_all(&dir)?;
        let tickets = Self {
            dir,
            running: Arc::default(),
        };
        tickets.expire(now)?;
        Ok(tickets)
    }

    /// Does the work once per ticket. It goes on when the caller goes away; a second caller waits for the same
    /// answer. `order` is the digest of what was ordered, without secrets: another order under a ticket is refused.
    pub async fn once<T, F>(&self, ticket: &Ticket, order: Digest, work: F) -> Result<T, Fault>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let work = Box::pin(work);
        self.until_stopped(ticket, order, |_| work).await
    }

    /// As [`Tickets::once`], for work that ends early when it is asked to.
    pub async fn until_stopped<T, F>(
        &self,
        ticket: &Ticket,
        order: Digest,
        work: impl FnOnce(Stop) -> F,
    ) -> Result<T, Fault>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let outcome = match self.kept(ticket) {
            Some(answer) => checked(ticket, answer.order, order).and(answer.outcome),
            None => self.shared(ticket, order, work).await,
        };
        let value = outcome?;
        serde_json::from_value(value)
            .map_err(|error| Fault::platform(format!("a kept answer is unreadable: {error}")))
    }

    /// Asks the work under a ticket to end early. What was not ordered yet has its answer with that. Gives the fault that
    /// it ended with; `None` when it goes on for now, or had done its work.
    pub async fn stop(&self, ticket: &Ticket, reason: &str) -> Result<Option<Fault>, Fault> {
        if let Some(mut done) = self.ask(ticket, reason) {
            let ended = tokio::time::timeout(ENDING, done.wait_for(Option::is_some)).await;
            let outcome = ended.ok().and_then(Result::ok).and_then(|done| done.clone());
            return Ok(outcome.and_then(Result::err));
        }
        let stopped = Err(Fault::order(reason));
        let _forget = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(work) = running.get(ticket) {
                work.stop.send_replace(Some(reason.to_owned()));
                return Ok(None);
            }
            if let Some(answer) = self.kept(ticket) {
                return Ok(answer.outcome.err());
            }
            // An order that comes while the answer is written gets it from here.
            let work = Work {
                order: None,
                done: watch::channel(Some(stopped.clone())).1,
                stop: watch::channel(None).0,
            };
            running.insert(ticket.clone(), work);
            Forget(self.clone(), ticket.clone())
        };
        match self.keep(ticket, None, stopped).await {
            Err(fault) if fault.blame == Blame::Platform => Err(fault),
            _ => Ok(None),
        }
    }

    /// Asks work that goes on to end. Where its outcome will be.
    fn ask(&self, ticket: &Ticket, reason: &str) -> Option<watch::Receiver<Option<Outcome>>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let work = running.get(ticket)?;
        work.stop.send_replace(Some(reason.to_owned()));
        Some(work.done.clone())
    }

    /// What goes on.
    pub fn running(&self) -> Vec<Ticket> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.keys().cloned().collect()
    }

    /// Forgets answers that are older than seven days.
    pub fn expire(&self, now: Timestamp) -> io::Result<()> {
        for entry in self.dir.read_dir_utf8()?.flatten() {
            let written = entry
                .metadata()?
                .modified()
                .ok()
                .and_then(|time| Timestamp::try_from(time).ok());
            if written.is_some_and(|written| now.duration_since(written) > KEPT) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    async fn shared<T, F>(&self, ticket: &Ticket, order: Digest, work: impl FnOnce(Stop) -> F) -> Outcome
    where
        T: Serialize,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let mut done = match self.begin(ticket, order) {
            Begun::Running(work) => {
                checked(ticket, work.order, order)?;
                work.done
            }
            Begun::Mine(sender, done, stop) => {
                let work = work(stop);
                let (this, ticket) = (self.clone(), ticket.clone());
                // Ends with the work, which has its own deadlines.
                tokio::spawn(async move {
                    let forget = Forget(this.clone(), ticket.clone());
                    let outcome = work.await.and_then(|answer| {
                        serde_json::to_value(answer).map_err(|error| Fault::platform(error.to_string()))
                    });
                    let kept = this.keep(&ticket, Some(order), outcome).await;
                    drop(forget);
                    sender.send_replace(Some(kept));
                });
                done
            }
        };
        match done.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("it was waited for"),
            Err(_) => Err(Fault::platform("the work stopped half-way").next("do it again")),
        }
    }

    fn begin(&self, ticket: &Ticket, order: Digest) -> Begun {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = running.get(ticket) {
            return Begun::Running(work.clone());
        }
        // It may have been finished since the caller looked.
        let kept = self.kept(ticket);
        let first = kept.as_ref().map_or(Some(order), |answer| answer.order);
        let (sender, done) = watch::channel(kept.map(|answer| answer.outcome));
        let (stop, stopped) = watch::channel(None);
        let work = Work {
            order: first,
            done: done.clone(),
            stop,
        };
        if done.borrow().is_some() {
            return Begun::Running(work);
        }
        running.insert(ticket.clone(), work);
        Begun::Mine(sender, done, Stop(stopped))
    }

    fn path(&self, ticket: &Ticket) -> Utf8PathBuf {
        self.dir.join(ticket.as_str())
    }

    fn kept(&self, ticket: &Ticket) -> Option<Answer> {
        let bytes = fs::read(self.path(ticket)).ok()?;
        let answer = serde_json::from_slice(&bytes);
        answer
            .inspect_err(
                |error| warn!(%ticket, %error, "a kept answer is unreadable; the work is done again"),
            )
            .ok()
    }

    async fn keep(&self, ticket: &Ticket, order: Option<Digest>, outcome: Outcome) -> Outcome {
        if outcome
            .as_ref()
            .is_err_and(|fault| fault.blame == Blame::Platform)
        {
            return outcome;
        }
        let path = self.path(ticket);
        let written = tokio::task::spawn_blocking(move || {
            let answer = Answer { order, outcome };
            write(&path, &answer).map(|()| answer.outcome)
        });
        match written.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                error!(%ticket, %error, "cannot keep an answer");
                Err(Fault::platform(format!(
                    "the work was done but its answer cannot be kept: {error}"
                ))
                .next("make room on the disk; the work is done again"))
            }
            Err(_) => Err(Fault::platform("the writer of answers stopped")),
        }
    }
}

enum Begun {
    Running(Work),
    Mine(
        watch::Sender<Option<Outcome>>,
        watch::Receiver<Option<Outcome>>,
        Stop,
    ),
}

/// Also when the work panics, the ticket can be used again.
struct Forget(Tickets, Ticket);

impl Drop for Forget {
    fn drop(&mut self) {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
    }
}

fn checked(ticket: &Ticket, first: Option<Digest>, now: Digest) -> Result<(), Fault> {
    match first.is_none_or(|first| first == now) {
        true => Ok(()),
        false => Err(Fault::order(format!(
            "the ticket {ticket} was used for another order"
        ))),
    }
}

/// All of it, or nothing.
fn write(path: &Utf8Path, answer: &Answer) -> io::Result<()> {
    let fresh = Utf8PathBuf::from(format!("{path}.new"));
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&serde_json::to_vec(answer)?)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct World {
        _dir: tempfile::TempDir,
        node: Utf8PathBuf,
        runs: Arc<AtomicU32>,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let node = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
            Self {
                _dir: dir,
                node,
                runs: Arc::default(),
            }
        }

        fn tickets(&self) -> Tickets {
            Tickets::open(&self.node, crate::now()).unwrap()
        }

        fn work(&self, outcome: Result<u32, Fault>) -> impl Future<Output = Result<u32, Fault>> + use<> {
            let runs = self.runs.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                runs.fetch_add(1, Ordering::SeqCst);
                outcome
            }
        }
    }

    fn ticket() -> Ticket {
        "t-1".parse().unwrap()
    }

    #[tokio::test]
    async fn the_first_answer_is_repeated_also_after_a_restart() {
        let world = World::new();
        let tickets = world.tickets();
        let (order, ticket) = (Digest::of("order"), ticket());
        let (a, b) = tokio::join!(
            tickets.once(&ticket, order, world.work(Ok(1))),
            tickets.once(&ticket, order, world.work(Ok(2))),
        );
        assert_eq!((a, b), (Ok(1), Ok(1)));
        assert_eq!(
            world.tickets().once(&ticket, order, world.work(Ok(3))).await,
            Ok(1)
        );
        assert_eq!(world.runs.load(Ordering::SeqCst), 1);
        let other = world
            .tickets()
            .once(&ticket, Digest::of("other"), world.work(Ok(4)))
            .await;
        assert_eq!(other.unwrap_err().blame, Blame::Order);
    }

    #[tokio::test]
    async fn only_the_platforms_faults_are_tried_again() {
        let world = World::new();
        let (tickets, order, ticket) = (world.tickets(), Digest::of("order"), ticket());
        let once = |outcome| tickets.once(&ticket, order, world.work(outcome));
        assert!(once(Err(Fault::platform("no disk"))).await.is_err());
        let test = Fault::customer("a test fails");
        assert_eq!(once(Err(test.clone())).await, Err(test.clone()));
        assert_eq!(once(Ok(1)).await, Err(test));
    }

    #[tokio::test]
    async fn work_goes_on_without_its_caller_and_panics_are_tried_again() {
        let world = World::new();
        let (tickets, order, ticket) = (world.tickets(), Digest::of("order"), ticket());
        let short = Duration::from_millis(1);
        let gone = tokio::time::timeout(short, tickets.once(&ticket, order, world.work(Ok(1)))).await;
        assert!(gone.is_err());
        assert_eq!(tickets.once(&ticket, order, world.work(Ok(2))).await, Ok(1));

        let second: Ticket = "t-2".parse().unwrap();
        let broken = tickets
            .once(&second, order, async {
                panic!("on purpose") as Result<u32, Fault>
            })
            .await;
        assert_eq!(broken.unwrap_err().blame, Blame::Platform);
        assert_eq!(tickets.once(&second, order, world.work(Ok(2))).await, Ok(2));
    }

    #[tokio::test]
    async fn work_is_stopped_before_during_and_after() {
        let world = World::new();
        let (tickets, order) = (world.tickets(), Digest::of("order"));
        let until_stopped = |ticket: Ticket| {
            let tickets = tickets.clone();
            async move {
                let work = |mut stop: Stop| async move { Err::<u32, _>(Fault::order(stop.asked().await)) };
                tickets.until_stopped(&ticket, order, work).await
            }
        };
        let during: Ticket = "t-during".parse().unwrap();
        let waiting = tokio::spawn(until_stopped(during.clone()));
        while !tickets.running.lock().unwrap().contains_key(&during) {
            tokio::task::yield_now().await;
        }
        let ended = tickets.stop(&during, "it was cancelled").await.unwrap();
        let stopped = Err(Fault::order("it was cancelled"));
        assert_eq!(
            ended.map(Err::<u32, _>),
            Some(stopped.clone()),
            "who stops it hears it"
        );
        assert_eq!(waiting.await.unwrap(), stopped);
        assert_eq!(
            until_stopped(during).await,
            stopped,
            "the first answer is repeated"
        );

        let before: Ticket = "t-before".parse().unwrap();
        tickets.stop(&before, "never mind").await.unwrap();
        let never = Err(Fault::order("never mind"));
        assert_eq!(tickets.once(&before, order, world.work(Ok(1))).await, never);
        let later = world.tickets();
        assert_eq!(
            later.once(&before, order, world.work(Ok(1))).await,
            never,
            "after a restart"
        );
        assert_eq!(world.runs.load(Ordering::SeqCst), 0);

        let after: Ticket = "t-after".parse().unwrap();
        assert_eq!(tickets.once(&after, order, world.work(Ok(1))).await, Ok(1));
        tickets.stop(&after, "too late").await.unwrap();
        assert_eq!(tickets.once(&after, order, world.work(Ok(2))).await, Ok(1));
    }

    #[tokio::test]
    async fn old_answers_are_forgotten() {
        let world = World::new();
        let (tickets, ticket) = (world.tickets(), ticket());
        assert_eq!(
            tickets.once(&ticket, Digest::of("o"), world.work(Ok(1))).await,
            Ok(1)
        );
        tickets
            .expire(crate::now() + SignedDuration::from_hours(6 * 24))
            .unwrap();
        assert!(tickets.kept(&ticket).is_some());
        tickets
            .expire(crate::now() + SignedDuration::from_hours(8 * 24))
            .unwrap();
        assert!(tickets.kept(&ticket).is_none());
    }
}
