//! Decide, commit, act: what moves executions.
//!
//! One loop takes events (an activity answered, a timer is due, a person decided), lets `asl::step` decide, commits
//! event, state and tasks in one transaction, and only then starts what was committed. Starting again after a crash is
//! reading: there is no second code path. The loop knows nothing of what activities do.

use std::{collections::HashMap, sync::Arc, time::Duration};

use asl::{Command, Event, Machine};
use jiff::SignedDuration;
use model::{ExecutionId, Place, port::Fault};
use store::{Task, TaskKey};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Attempt, Outcome, World, definition, journal};

/// A task whose worker is gone is taken up again after this.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// A task that waits for a person is looked at again after this, should the news of the decision have been lost.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// Activities that run at the same time.
const AT_ONCE: u32 = 64;
const WORKER: &str = "serve";

/// News for the engine.
#[derive(Debug)]
pub enum News {
    /// Something happened to an execution.
    Happened(ExecutionId, Event),
    /// Somebody stops an execution, for this reason: its open tasks fail, and what it made is unwound.
    Cancel(ExecutionId, String),
    /// Executions were started: there is work.
    Wake,
}

/// How the rest of the platform reaches the engine. News may be lost in a crash; nothing depends on it arriving.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<News>);

impl Handle {
    pub async fn tell(&self, news: News) {
        // The engine is gone only when the process ends.
        let _ = self.0.send(news).await;
    }
}

struct Loaded {
    machine: Machine,
    execution: asl::Execution,
    version: u64,
    place: Option<Place>,
}

pub struct Engine {
    world: Arc<World>,
    news: mpsc::Receiver<News>,
    loaded: HashMap<ExecutionId, Loaded>,
    jobs: JoinSet<(TaskKey, Result<Outcome, Fault>)>,
    running: HashMap<TaskKey, tokio::task::AbortHandle>,
}

pub fn new(world: Arc<World>) -> (Engine, Handle) {
    let (sender, news) = mpsc::channel(1024);
    (
        Engine {
            world,
            news,
            loaded: HashMap::new(),
            jobs: JoinSet::new(),
            running: HashMap::new(),
        },
        Handle(sender),
    )
}

impl Engine {
    /// Runs until cancelled. Activities that run then are dropped; they are done again after the next start.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), store::Error> {
        let taken_back = self.world.store.write(|tx| tx.release_leases()).await?;
        if taken_back > 0 {
            info!(tasks = taken_back, "going on with {taken_back} tasks of before");
        }
        let mut renew = tokio::time::interval(RENEW_EVERY);
        loop {
            if let Err(error) = self.dispatch().await {
                error!(error = &error as &dyn std::error::Error, "cannot take up tasks");
                sleep(Duration::from_secs(1)).await;
            }
            let due_in = self.due_in().await;
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(news) = self.news.recv() => self.hear(news).await,
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => self.answered(done).await,
                () = sleep(due_in) => self.look_at_the_clock().await,
                _ = renew.tick() => self.renew_leases().await,
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Happened(execution, event) => self.advance(execution, event).await,
            News::Cancel(execution, cause) => self.cancel(execution, "Vend.Cancelled", &cause).await,
            News::Wake => {}
        }
    }

    /// Takes up scheduled tasks.
    async fn dispatch(&mut self) -> Result<(), store::Error> {
        let free = AT_ONCE.saturating_sub(self.running.len() as u32);
        if free == 0 {
            return Ok(());
        }
        let now = crate::clock::now();
        let tasks = self.world.store.write(move |tx| {
            let resources = definition::resources();
            let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
            tx.lease_tasks(&resources, WORKER, free, now, now + LEASE)
        });
        for task in tasks.await? {
            self.take_up(task).await;
        }
        Ok(())
    }

    async fn take_up(&mut self, task: Task) {
        let key = task.key.clone();
        if self.running.contains_key(&key) {
            return;
        }
        let started = Event::TaskStarted {
            task: key.task,
            worker: Some(WORKER.into()),
        };
        self.advance(key.execution.clone(), started).await;
        let world = Arc::clone(&self.world);
        let handle = self.jobs.spawn(async move {
            let key = task.key.clone();
            let done = act(&world, task).await;
            (key, done)
        });
        self.running.insert(key, handle);
    }

    async fn answered(&mut self, done: Result<(TaskKey, Result<Outcome, Fault>), tokio::task::JoinError>) {
        let (key, outcome) = match done {
            Ok(answer) => answer,
            // Cancelled tasks were taken off the list when they were cancelled; one that panicked is found by its lease.
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                error!(%error, "an activity panicked");
                self.running.retain(|_, handle| !handle.is_finished());
                return;
            }
        };
        self.running.remove(&key);
        let event = match outcome {
            Ok(Outcome::Done(output)) => Event::TaskSucceeded {
                task: key.task,
                output,
            },
            Ok(Outcome::Later) => return self.wait_for_person(key).await,
            Err(fault) => failed(key.task, &fault),
        };
        self.advance(key.execution, event).await;
    }

    async fn wait_for_person(&self, key: TaskKey) {
        let now = crate::clock::now();
        let kept = self
            .world
            .store
            .write(move |tx| tx.heartbeat(&key, WORKER, now, now + ASK_AGAIN))
            .await;
        if let Err(error) = kept {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot set when to ask again"
            );
        }
    }

    /// One event through `asl::step` into the journal.
    async fn advance(&mut self, id: ExecutionId, event: Event) {
        for _ in 0..3 {
            match self.try_advance(&id, &event).await {
                Ok(()) => return,
                Err(store::Error::Missing { .. }) => return,
                Err(error) => {
                    // What was decided on what is no more is decided again on what is.
                    self.loaded.remove(&id);
                    warn!(execution.id = %id, error = &error as &dyn std::error::Error, "a step was not kept");
                }
            }
        }
        // Not lost: the task's lease runs out, and it is done again under the same ticket.
        error!(execution.id = %id, "an event could not be committed");
        // A timer stays due: without a pause, a full disk would be asked as fast as the machine can.
        sleep(Duration::from_secs(1)).await;
    }

    async fn try_advance(&mut self, id: &ExecutionId, event: &Event) -> Result<(), store::Error> {
        if !self.loaded.contains_key(id) {
            let loaded = load(&self.world, id).await?;
            self.loaded.insert(id.clone(), loaded);
        }
        let Some(loaded) = self.loaded.get_mut(id) else {
            return Ok(());
        };
        let at = crate::clock::now();
        let before = loaded.execution.clone();
        let step = asl::step(&loaded.machine, before.clone(), event, at);
        if step.execution == before && step.history.is_empty() {
            return Ok(());
        }
        let transition = journal::transition(id, loaded.place.as_ref(), loaded.version, at, &before, &step);
        let is_over = transition.end.is_some();
        loaded.version = self.world.store.write(move |tx| tx.commit(transition)).await?;
        loaded.execution = step.execution;
        for command in step.commands {
            if let Command::CancelTask { task } = command {
                self.stop(TaskKey {
                    execution: id.clone(),
                    task,
                });
            }
        }
        if is_over {
            info!(execution.id = %id, status = self.loaded[id].execution.status().as_str(), "execution {id} is over");
            self.loaded.remove(id);
            self.world.pokes.pushes.notify_one();
            self.world.pokes.fleet.notify_one();
        }
        Ok(())
    }

    fn stop(&mut self, key: TaskKey) {
        if let Some(handle) = self.running.remove(&key) {
            handle.abort();
        }
    }

    async fn due_in(&self) -> Duration {
        let now = crate::clock::now();
        match self.world.store.read(move |db| db.next_due(now)).await {
            Ok(Some(at)) => Duration::try_from(at.duration_since(now))
                .unwrap_or(Duration::ZERO)
                .min(RENEW_EVERY),
            Ok(None) => RENEW_EVERY,
            Err(_) => Duration::from_secs(1),
        }
    }

    async fn look_at_the_clock(&mut self) {
        let now = crate::clock::now();
        let due = match self.world.store.read(move |db| db.due(now, 1000)).await {
            Ok(due) => due,
            Err(error) => {
                return warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read what is due"
                );
            }
        };
        for (execution, timer, _) in due.timers {
            self.advance(execution, Event::TimerFired { timer }).await;
        }
        for task in due
            .leases
            .into_iter()
            .filter(|task| !self.running.contains_key(&task.key))
        {
            if let Err(error) = self
                .world
                .store
                .write(move |tx| tx.release_lease(&task.key))
                .await
            {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot take a lease back"
                );
            }
        }
        for execution in due.deadlines {
            let id = execution.clone();
            // It is told once: what undoes the execution has its own time.
            let told = self.world.store.write(move |tx| tx.forget_deadline(&id)).await;
            if let Err(error) = told {
                warn!(error = &error as &dyn std::error::Error, "cannot end a deadline");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            let cause = "the execution took longer than it may";
            self.cancel(execution, "Vend.Deadline", cause).await;
        }
    }

    async fn cancel(&mut self, execution: ExecutionId, error: &str, cause: &str) {
        let Ok(mut tasks) = self.open_tasks(&execution).await else {
            return;
        };
        if tasks.is_empty() {
            // It waits to try a task again: that is tried now, so that there is something to fail.
            let id = execution.clone();
            let timers = self.world.store.read(move |db| db.timers(&id)).await;
            for (timer, _) in timers.unwrap_or_default() {
                self.advance(execution.clone(), Event::TimerFired { timer }).await;
            }
            tasks = self.open_tasks(&execution).await.unwrap_or_default();
        }
        // What undoes or destroys is never stopped half way: nothing else would finish it.
        for task in tasks
            .into_iter()
            .filter(|task| !definition::is_final(&task.resource))
        {
            let (error, cause) = (Some(error.to_owned()), Some(cause.to_owned()));
            self.stop(task.key.clone());
            self.advance(
                execution.clone(),
                Event::TaskFailed {
                    task: task.key.task,
                    error,
                    cause,
                },
            )
            .await;
        }
    }

    async fn open_tasks(&self, execution: &ExecutionId) -> Result<Vec<Task>, store::Error> {
        let id = execution.clone();
        self.world.store.read(move |db| db.tasks(&id)).await
    }

    async fn renew_leases(&self) {
        let now = crate::clock::now();
        for key in self.running.keys() {
            let key = key.clone();
            let renewed = self
                .world
                .store
                .write(move |tx| tx.heartbeat(&key, WORKER, now, now + LEASE))
                .await;
            if let Err(error) = renewed {
                warn!(error = &error as &dyn std::error::Error, "cannot renew a lease");
            }
        }
    }
}

/// What a fault is to the definition: an error name to match, and one text for people.
pub fn failed(task: u64, fault: &Fault) -> Event {
    let mut cause = fault.message.clone();
    if let Some(next) = &fault.next {
        cause.push_str(&format!(" (next: {next})"));
    }
    Event::TaskFailed {
        task,
        error: Some(fault.error_name().into()),
        cause: Some(cause),
    }
}

async fn act(world: &Arc<World>, task: Task) -> Result<Outcome, Fault> {
    let activity = definition::activity(&task.resource)
        .unwrap_or_default()
        .to_owned();
    let input = serde_json::from_str(&task.input)
        .map_err(|error| Fault::order(format!("the task's input is not JSON: {error}")))?;
    let TaskKey {
        execution,
        task: number,
    } = task.key;
    let steady = format!("t-{}-{activity}", &execution.as_str()[2..]);
    let attempt = Attempt {
        execution,
        task: number,
        ticket: task.ticket,
        steady: steady
            .parse()
            .expect("an execution's id and an activity's name make a ticket"),
        input,
    };
    super::run(world, &activity, &attempt).await
}

async fn load(world: &World, id: &ExecutionId) -> Result<Loaded, store::Error> {
    let own = id.clone();
    let row = world.store.read(move |db| db.execution(&own)).await?;
    let damaged = |what: &str| store::Error::Damaged(format!("{what} of execution {id} cannot be read"));
    Ok(Loaded {
        machine: Machine::parse(&row.machine).map_err(|_| damaged("the definition"))?,
        execution: serde_json::from_str(&row.state).map_err(|_| damaged("the state"))?,
        version: row.version,
        place: row.summary.place,
    })
}
