//! Deployments: the lifecycle events of one order, done once for each ticket.
//!
//! What a ticket came to is kept in memory while it runs and in a file after each event, so that asking again, also
//! after a restart of whoever asked or of the host, gives the same answer and runs no script twice.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use model::{
    DeploymentId, Ticket,
    port::{Blame, Death, DeployOrder, EventReport, EventStatus, Fault, LifecycleEvent, ScriptFailure},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use super::{
    api::{Deploy, Reports},
    files::Files,
    layout::Layout,
    reaper::Reaper,
    services::Services,
    trace::Trace,
};
use crate::{appspec::ScriptLog, now};

mod record;
mod stage;

use record::Record;
use stage::Stage;

type Outcome = Result<Reports, Fault>;

#[derive(Clone)]
pub struct Deployments {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    reaper: Reaper,
    services: Services,
    files: Files,
    running: Mutex<Running>,
    /// One deployment at a time in one host.
    turn: Arc<Semaphore>,
    /// When the last one began.
    begun_at: Mutex<Timestamp>,
    /// The last one that nobody wants any more, and why.
    unwanted: watch::Sender<Option<(DeploymentId, String)>>,
}

#[derive(Default)]
struct Running {
    tickets: HashMap<String, watch::Receiver<Option<Outcome>>>,
    tasks: JoinSet<()>,
}

impl Deployments {
    /// Finishes the records of deployments that a restart of the host cut off.
    pub fn begin(layout: Layout, reaper: Reaper, services: Services, files: Files) -> Self {
        record::recover(&layout.tickets());
        let this = Self {
            inner: Arc::new(Inner {
                layout,
                reaper,
                services,
                files,
                running: Mutex::default(),
                turn: Arc::new(Semaphore::new(1)),
                begun_at: Mutex::new(now()),
                unwanted: watch::channel(None).0,
            }),
        };
        this.end_script();
        this
    }

    /// Ends the script that an agent left which was killed. Its deployment has failed; the next one waits for its end.
    fn end_script(&self) {
        let path = self.inner.layout.traces.as_deref().map(Trace::of_script);
        let (Some(path), Some(turn)) = (path, self.rest()) else {
            return;
        };
        self.lock().tasks.spawn(async move {
            if let Some(left) = Trace::read(&path) {
                left.end_group().await;
            }
            discard(&path);
            drop(turn);
        });
    }

    /// Does the order, or waits for the one of this ticket that runs already, or repeats its answer.
    pub async fn deploy(&self, deploy: Deploy) -> Outcome {
        let broken = |_| Fault::order("the ticket or the deployment's id is not one");
        deploy.ticket.as_str().parse::<Ticket>().map_err(broken)?;
        deploy
            .order
            .deployment
            .as_str()
            .parse::<DeploymentId>()
            .map_err(broken)?;
        let mut outcome = match self.join_or_begin(deploy) {
            Ok(running) => running,
            Err(known) => return Ok(known),
        };
        let interrupted = |_| Fault::platform("the deployment was interrupted");
        let done = outcome.wait_for(Option::is_some).await.map_err(interrupted)?;
        done.clone()
            .unwrap_or_else(|| Err(Fault::platform("the deployment was interrupted")))
    }

    /// Keeps deployments from beginning; `None` when one runs.
    pub fn rest(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.turn).try_acquire_owned().ok()
    }

    /// Ends the script that a deployment runs; its next events do nothing.
    pub fn stop(&self, deployment: DeploymentId, reason: String) {
        self.inner.unwanted.send_replace(Some((deployment, reason)));
    }

    /// Waits for a process of the app to end though it should go on.
    pub async fn death(&self, since: Timestamp) -> Death {
        let begun_at = *self.inner.begun_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.services.death(since, begun_at).await
    }

    /// Runs it, or has it an answer?
    pub fn knows(&self, ticket: &Ticket) -> bool {
        self.lock().tickets.contains_key(ticket.as_str())
            || Record::read(&self.inner.layout.tickets(), ticket).is_some()
    }

    /// How far a ticket has come: see [`Record::progress`].
    pub fn progress(&self, ticket: &Ticket) -> Vec<EventReport> {
        Record::progress(&self.inner.layout.tickets(), ticket)
    }

    fn join_or_begin(&self, deploy: Deploy) -> Result<watch::Receiver<Option<Outcome>>, Reports> {
        let key = deploy.ticket.as_str().to_owned();
        let mut running = self.lock();
        // One whose task broke off has closed its end: its record says how far it came.
        if let Some(known) = running.tickets.get(&key)
            && known.has_changed().is_ok()
        {
            return Ok(known.clone());
        }
        if let Some(record) = Record::read(&self.inner.layout.tickets(), &deploy.ticket) {
            return Err(Reports {
                events: record.reports,
            });
        }
        let (sender, outcome) = watch::channel(None);
        running.tickets.insert(key.clone(), outcome.clone());
        let this = self.clone();
        while running.tasks.try_join_next().is_some() {}
        running.tasks.spawn(async move {
            let outcome = this.inner.all(&deploy).await;
            this.lock().tickets.remove(&key);
            sender.send_replace(Some(outcome));
        });
        Ok(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    async fn all(&self, deploy: &Deploy) -> Outcome {
        let Deploy { ticket, order } = deploy;
        let platform =
            |error: std::io::Error| Fault::platform(format!("cannot keep the deployment's record: {error}"));
        let _turn = self
            .turn
            .acquire()
            .await
            .map_err(|_| Fault::platform("the agent ends"))?;
        let stage = Stage::new(&self.layout, order);
        *self.begun_at.lock().unwrap_or_else(PoisonError::into_inner) = stage.begun_at;
        self.check(order, &stage)?;
        let log = self.layout.shared_logs().join(format!("deploy-{ticket}.log"));
        let mut log = ScriptLog::streaming(&log)
            .map_err(platform)?
            .also_in(&self.layout.deployments, order.deployment.as_str());
        let mut record = Record::new(ticket, &order.events);
        for event in &order.events {
            record.begin(*event, now());
            record.write(&self.layout.tickets()).map_err(platform)?;
            let failed = order.failure(&record.reports).is_some();
            let report = self.event(&stage, *event, failed, &mut log).await;
            record.end(report);
        }
        record.write(&self.layout.tickets()).map_err(platform)?;
        record::prune(&self.layout.tickets(), &self.layout.shared_logs());
        Ok(Reports {
            events: record.reports,
        })
    }

    /// What must be there before anything is done.
    fn check(&self, order: &DeployOrder, stage: &Stage) -> Result<(), Fault> {
        let needs = order.events.contains(&LifecycleEvent::DownloadBundle);
        let there = stage.bundle(&self.layout).is_file() || stage.current.archive().is_dir();
        if needs && !there {
            return Err(Fault {
                blame: Blame::Platform,
                ..Fault::platform(format!(
                    "the revision {} is not in the host",
                    order.revision.short()
                ))
            });
        }
        Ok(())
    }

    async fn event(
        &self,
        stage: &Stage,
        event: LifecycleEvent,
        failed: bool,
        log: &mut ScriptLog,
    ) -> EventReport {
        let started_at = now();
        let mut report = EventReport::only(event, EventStatus::Skipped, started_at);
        // Nothing is done for a deployment that has failed.
        if failed {
            return report;
        }
        match self.act(stage, event, log).await {
            Ok(true) => report.status = EventStatus::Succeeded,
            Ok(false) => {}
            Err(failure) => {
                log.note(&format!("{event} failed: {}", failure.message), now());
                report.status = EventStatus::Failed;
                report.failure = Some(failure);
            }
        }
        let took = now().as_millisecond().saturating_sub(started_at.as_millisecond());
        report.duration_ms = u64::try_from(took).unwrap_or(0);
        report
    }

    /// True when something was done.
    async fn act(
        &self,
        stage: &Stage,
        event: LifecycleEvent,
        log: &mut ScriptLog,
    ) -> Result<bool, ScriptFailure> {
        if let Some(reason) = stage.unwanted_by(self.unwanted.borrow().as_ref()) {
            return Err(unknown(reason, log));
        }
        match event {
            LifecycleEvent::BlockTraffic | LifecycleEvent::AllowTraffic => Ok(false),
            LifecycleEvent::DownloadBundle => self.download(stage, log).await,
            LifecycleEvent::Install => self.install(stage, log).await,
            LifecycleEvent::Migrate => self.migrate(stage, log).await,
            LifecycleEvent::ApplicationStart if stage.appspec.is_none() => self.start(log).await,
            LifecycleEvent::ApplicationStop => self.stop_app(stage, log).await,
            event => self.hooks(stage, event, log).await,
        }
    }
}

fn unknown(message: String, log: &ScriptLog) -> ScriptFailure {
    ScriptFailure::unknown(message, log.text())
}

/// Removes a file that may be gone.
fn discard(path: &std::path::Path) {
    let _ = fs::remove_file(path);
}
