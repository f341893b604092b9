//! Who works on the tasks of releases, in this process: whatever is offered is done, and answered by its token.
//!
//! The process is the lease. What it had begun when it ended is offered again by the engine, to the next process, and
//! done again under the same ticket.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use engine::{Handle, Offer, PLATFORM};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use model::{Ticket, port::Fault};
use store::Store;
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{
    Attempt, Outcome, Pokes, World, cancel, definition,
    room::{Line, Rooms},
    runs, stored,
};

/// What waits for an answer from elsewhere is looked at again after this, should the news of it have been lost.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How often deadlines are looked at. They are weeks away.
const LOOK: Duration = Duration::from_secs(15);
const WORKER: &str = "serve";

/// Works until cancelled. Activities that run then are dropped; they are done again after the next start.
pub async fn run(world: Arc<World>, cancel: CancellationToken) {
    if let Err(fault) = cancel::again(&world.store, &world.engine).await {
        warn!("cannot look for what was cancelled: {fault}");
    }
    let own = Arc::clone(&world);
    let crew = Arc::new(Crew {
        store: world.store.clone(),
        engine: world.engine.clone(),
        pokes: Arc::clone(&world.pokes),
        rooms: Rooms::default(),
        act: Box::new(move |activity, attempt| {
            let world = Arc::clone(&own);
            Box::pin(async move { super::run(&world, activity, attempt).await })
        }),
    });
    tokio::select! {
        () = cancel.cancelled() => {}
        () = work(crew) => {}
        () = watch(&world) => {}
    }
}

/// Runs the activity of this name.
type Act = Box<dyn for<'a> Fn(&'a str, &'a Attempt) -> BoxFuture<'a, Result<Outcome, Fault>> + Send + Sync>;

/// Who does what is offered.
struct Crew {
    store: Store,
    engine: Handle,
    pokes: Arc<Pokes>,
    rooms: Rooms,
    act: Act,
}

/// Does what is offered until the engine ends. Every task is taken at once, and waits for room by itself: what there is
/// no room for keeps nothing else from being taken. As many wait as there are open tasks, of which the engine knows all.
async fn work(crew: Arc<Crew>) {
    let polls = definition::resources()
        .into_iter()
        .map(|resource| poll(&crew.engine, resource));
    let mut polls: FuturesUnordered<_> = polls.collect();
    let mut jobs = JoinSet::new();
    loop {
        tokio::select! {
            offered = polls.next() => {
                let Some((resource, Ok(offer))) = offered else { return };
                polls.push(poll(&crew.engine, resource.clone()));
                let job = Job { crew: Arc::clone(&crew), resource, offer };
                jobs.spawn(job.run());
            }
            Some(_) = jobs.join_next(), if !jobs.is_empty() => {}
        }
    }
}

/// Waits for a task of a resource.
async fn poll(engine: &Handle, resource: String) -> (String, Result<Offer, engine::Error>) {
    let offer = engine.poll(&resource, Some(WORKER.into())).await;
    (resource, offer)
}

/// A task that somebody works on.
struct Job {
    crew: Arc<Crew>,
    resource: String,
    offer: Offer,
}

impl Job {
    /// Works on the task until it is answered, or nobody wants the answer any more.
    async fn run(self) {
        let engine = &self.crew.engine;
        let outcome = tokio::select! {
            // What nobody wants any more does no further step: what undoes it begins in the same moment.
            biased;
            () = engine.over(&self.offer.token) => return,
            outcome = self.work() => outcome,
        };
        let token = &self.offer.token;
        let answered = match outcome {
            Ok(output) => engine.succeed(PLATFORM, token, output).await,
            Err(fault) => {
                let (error, cause) = runs::failure(&fault);
                engine.fail(PLATFORM, token, Some(error), Some(cause)).await
            }
        };
        match answered {
            Ok(()) => {}
            Err(engine::Error::TaskGone | engine::Error::Closed) => debug!("nobody wants an answer any more"),
            // The engine reads what is kept, and offers the task again.
            Err(error) => warn!(error = &error as &dyn std::error::Error, "an answer was not kept"),
        }
    }

    async fn work(&self) -> Result<serde_json::Value, Fault> {
        let activity = definition::activity(&self.resource).unwrap_or_default();
        let (attempt, line) = self.attempt(activity).await?;
        loop {
            let place = self.crew.rooms.enter(&line).await;
            let done = AssertUnwindSafe((self.crew.act)(activity, &attempt))
                .catch_unwind()
                .await;
            // What only waits has no place.
            drop(place);
            let pause = match done {
                Ok(Ok(Outcome::Done(output))) => return Ok(output),
                Ok(Ok(Outcome::Later)) => ASK_AGAIN,
                Ok(Ok(Outcome::Until(then))) => ASK_AGAIN.min(left(then)),
                Ok(Err(fault)) => return Err(fault),
                Err(_) => {
                    error!(activity, "an activity panicked");
                    return Err(Fault::platform(format!("the activity {activity} broke off")));
                }
            };
            let _ = timeout(pause, self.crew.pokes.held.notified()).await;
        }
    }

    /// What is to be done, and where it waits for room.
    async fn attempt(&self, activity: &str) -> Result<(Attempt, Line), Fault> {
        let Offer {
            execution,
            task,
            attempt,
            ..
        } = self.offer;
        let found = self
            .crew
            .store
            .read(move |db| db.execution_of_run(execution))
            .await;
        let nobodys = || Fault::order("the task is of no execution that is known");
        let execution = found.map_err(stored)?.ok_or_else(nobodys)?;
        let line = Line {
            kind: execution.kind,
            activity: activity.to_owned(),
            tenant: execution.place.map(|place| place.tenant),
        };
        let execution = execution.id;
        let steady = format!("t-{}-{activity}", &execution.as_str()[2..]);
        let attempt = Attempt {
            ticket: Ticket::of(&execution, task, attempt),
            steady: steady
                .parse()
                .expect("an execution's id and an activity's name make a ticket"),
            execution,
            task,
            input: self.offer.input.clone(),
        };
        Ok((attempt, line))
    }
}

/// How long it is until then.
fn left(then: Timestamp) -> Duration {
    let left = then.duration_since(crate::clock::now());
    left.try_into().unwrap_or_default()
}

/// Looks at deadlines, for ever.
async fn watch(world: &World) {
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        end_overdue(world).await;
    }
}

/// Fails what has taken longer than it may. What undoes it has its own time.
async fn end_overdue(world: &World) {
    let now = crate::clock::now();
    let overdue = world.store.read(move |db| db.overdue(now, 1000)).await;
    let overdue = overdue.unwrap_or_else(|error| {
        warn!(error = &error as &dyn std::error::Error, "cannot read deadlines");
        Vec::new()
    });
    for execution in overdue {
        let cause = "the execution took longer than it may";
        let told = interrupt(&world.engine, execution.run, "Vend.Deadline", cause).await;
        // It is told once. Only then: a crash in between tells it again.
        let id = execution.id.clone();
        let forgotten = match told {
            Ok(()) => world
                .store
                .write(move |tx| tx.forget_deadline(&id))
                .await
                .map_err(stored),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = forgotten {
            warn!(execution.id = %execution.id, "cannot end what is overdue: {fault}");
        }
    }
}

/// Fails what an execution does. What undoes or destroys is never stopped half way: nothing else would finish it.
pub async fn interrupt(engine: &Handle, run: u64, error: &str, cause: &str) -> Result<(), Fault> {
    interrupt_sparing(engine, run, error, cause, definition::is_final).await
}

/// Fails what an execution does, but what works on these resources.
pub async fn interrupt_sparing(
    engine: &Handle,
    run: u64,
    error: &str,
    cause: &str,
    spared: fn(&str) -> bool,
) -> Result<(), Fault> {
    match engine.interrupt(run, error, cause, spared).await {
        // It has ended meanwhile.
        Ok(()) | Err(engine::Error::NotOpen(_)) => Ok(()),
        Err(error) => Err(Fault::platform(format!(
            "the engine did not do its part: {error}"
        ))),
    }
}

#[cfg(test)]
mod tests;
