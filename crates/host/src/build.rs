//! Runs a buildspec in a container. Knows nothing of releases.
//!
//! The node's side ([`Yard`]) makes the container and listens; the runner's side ([`runner`]) is PID 1 in it. Between
//! them are one job and frames ([`protocol`]). What the customer's commands do stays in the container: what comes out
//! is a bounded log without secrets, reports, and one tar that is checked before it is kept.

mod again;
mod artifact;
mod ask;
pub mod batch;
mod cache;
mod choice;
pub(crate) mod claims;
pub mod combine;
mod console;
mod demand;
mod error;
pub mod key;
mod left;
pub mod local;
mod over;
pub mod protocol;
mod record;
pub mod report;
pub mod runner;
mod runtime;
mod sandbox;
mod secrets;
pub mod shell;
mod stand;
mod told;
pub mod tools;
mod verdict;

#[cfg(test)]
pub(crate) use choice::tests::order as choice_order;
pub use choice::{image, lacking};
pub use console::Broken;
pub use demand::{Offer, fits, one_has, own_labels, wanted};
pub use error::Error;
pub use left::Left;
pub use verdict::gate;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use camino::Utf8PathBuf;
use model::{
    Digest, Ticket,
    port::{BuildOrder, Builder, Built, Fault, LogRef, PhaseStatus},
    spec::build::Task,
};
use tracing::info;

use self::{
    again::Before,
    ask::Asking,
    cache::Restored,
    console::Console,
    left::{Objects, Shelf},
    record::Record,
    report::History,
};
use crate::{
    bake::{Held, Oven},
    base::proxies,
    container::{Containers, Exit, Net},
    layer::io_error,
    lives::Life,
    logs, objects,
    queue::{Place, Queue},
    ticket::Stop,
    work::{self, Work},
};

const LOG_BYTES: u64 = 64 << 20;
/// A build that waits longer for its turn fails: CodeBuild's usual `queuedTimeoutInMinutes`.
pub const QUEUED: Duration = Duration::from_secs(8 * 3600);
/// The file beside a branch's cache that holds what earlier runs of its tests said.
const HISTORY: &str = "tests.json.zst";

/// Builds, so many at a time. Clones share everything.
#[derive(Debug, Clone)]
pub struct Yard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    home: Utf8PathBuf,
    containers: Containers,
    objects: objects::Directory,
    logs: logs::Directory,
    oven: Oven,
    program: Utf8PathBuf,
    queue: Queue,
    queued: Duration,
    labels: BTreeMap<String, String>,
    apart: bool,
}

/// What a yard stands on.
#[derive(Debug, Clone)]
pub struct Site {
    /// `<data>/node`.
    pub node: Utf8PathBuf,
    pub containers: Containers,
    pub objects: objects::Directory,
    pub logs: logs::Directory,
    /// Makes the image that builds run in.
    pub oven: Oven,
    /// A program that calls [`runner::main`] when its first argument is `build-runner`. It has to run in the image: it is
    /// static, or the image has its libraries.
    pub program: Utf8PathBuf,
    /// How many builds run at a time.
    pub at_once: usize,
    /// How long one may wait for its turn: [`QUEUED`], but for tests.
    pub queued: Duration,
    /// What this machine is beside its `arch` and `os`, for builds that ask for it.
    pub labels: BTreeMap<String, String>,
    /// Who reads what builds say has not the logs of this machine: it builds for a platform elsewhere.
    pub apart: bool,
}

impl Builder for Yard {
    async fn build(&self, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
        self.build_until(ticket, order, Stop::never()).await
    }
}

impl Yard {
    /// Does the build under this ticket wait for its turn?
    pub fn waits(&self, ticket: &Ticket) -> bool {
        self.0.queue.waits(ticket)
    }

    /// As [`Builder::build`], until it is to stop.
    pub async fn build_until(&self, ticket: &Ticket, order: &BuildOrder, stop: Stop) -> Result<Built, Fault> {
        self.build_onto(ticket, order, stop, None).await
    }

    async fn build_onto(
        &self,
        ticket: &Ticket,
        order: &BuildOrder,
        stop: Stop,
        shelf: Option<&Shelf>,
    ) -> Result<Built, Fault> {
        let log: LogRef = format!("build/{ticket}")
            .parse()
            .map_err(|_| Fault::order("the ticket cannot name a log"))?;
        let started = Instant::now();
        let record = Record::taken();
        // Before it waits for anything: whoever has the name when it is done may be somebody else.
        let life = self.0.oven.life_of(&order.place).map_err(Error::from)?;
        let once = Once {
            ticket,
            order,
            life,
            log: &log,
            shelf,
            before: &Before::default(),
            record: &record,
        };
        let built = self.run(once, stop).await;
        let last = match &built {
            Ok(built) => format!(
                "The build succeeded: artifact {} of {} bytes",
                built.artifact.short(),
                built.size_bytes
            ),
            Err(error) => logs::chain(error),
        };
        // Whatever happened to the log so far.
        if let Ok(console) = self.console(once) {
            console.close(&last);
        }
        let (place, ok, duration_ms) = (&order.place, built.is_ok(), started.elapsed().as_millis());
        info!(%place, %ticket, ok, duration_ms, "a build of {place} ended");
        let phases = record.completed();
        match built {
            Ok(built) => Ok(Built { phases, ..built }),
            Err(error) => {
                let fault = Fault::from(error).evidence(log);
                Err(Fault {
                    phases,
                    message: secrets::mask(&order.secrets, &proxies()).conceal(&fault.message),
                    ..fault
                })
            }
        }
    }
}

/// One build of those that an order may come to.
#[derive(Clone, Copy)]
struct Once<'a> {
    ticket: &'a Ticket,
    order: &'a BuildOrder,
    /// Whose it is, of those who had the place's names.
    life: Life,
    log: &'a LogRef,
    /// For what it leaves when it fails.
    shelf: Option<&'a Shelf>,
    before: &'a Before,
    record: &'a Record,
}

/// How one build ended that did not fail for good.
enum End {
    Built(Built),
    Again(Before),
}

/// What a container stands on.
struct Ground {
    /// From the top down.
    lowers: Vec<Utf8PathBuf>,
    uid_base: u32,
}

/// What a container is made from.
struct Prepared {
    /// No sweep takes it from below the build.
    image: Held,
    /// From the top down.
    lowers: Vec<Utf8PathBuf>,
    caches: Restored,
}

/// What is left of a container that has ended.
struct Ran {
    exit: Exit,
    console: Console,
    followed: io::Result<()>,
    /// Why, when it was stopped.
    stopped: Option<String>,
}

impl Yard {
    /// What a node that was killed left behind is removed.
    pub fn open(site: Site) -> Result<Self, Error> {
        let home = site.node.join("builds");
        work::clean(&home)?;
        Ok(Self(Arc::new(Inner {
            home,
            containers: site.containers,
            objects: site.objects,
            logs: site.logs,
            oven: site.oven,
            program: site.program,
            queue: Queue::new(site.at_once),
            queued: site.queued,
            labels: own_labels(site.labels),
            apart: site.apart,
        })))
    }

    async fn run(&self, first: Once<'_>, stop: Stop) -> Result<Built, Error> {
        let Once { order, record, .. } = first;
        let allowed = demand::secrets(order).and_then(|()| demand::labels(order, &self.0.labels));
        record.submitted(allowed.as_ref().err().map(ToString::to_string));
        allowed?;
        let mut before = Before::default();
        loop {
            record.anew();
            let once = Once {
                before: &before,
                ..first
            };
            match self.once(once, stop.clone()).await? {
                End::Built(built) => return Ok(built),
                End::Again(next) => before = next,
            }
        }
    }

    /// One build in one container, when it is its turn.
    async fn once(&self, once: Once<'_>, mut stop: Stop) -> Result<End, Error> {
        let mut console = self.console(once)?;
        console.began("QUEUED");
        let tenant = &once.order.place.tenant;
        let place = self.0.queue.enter(Some(tenant), Some(once.ticket), |waiting| {
            console.line(&format!(
                "Waiting: {} builds run, {} wait before this one",
                waiting.running, waiting.before
            ));
        });
        let turn = tokio::select! {
            place = place => Ok(place),
            reason = stop.asked() => Err(Error::Stopped(reason)),
            () = tokio::time::sleep(self.0.queued) => Err(Error::Queued(self.0.queued)),
            () = once.before.over(timeout(once.order)) => {
                Err(once.before.timed_out(timeout(once.order), console.doing(), String::new()))
            }
        };
        let mut place = match turn {
            Ok(place) => place,
            Err(error) => {
                console.ended(error.status(), Some(error.to_string()));
                return Err(error);
            }
        };
        console.ended(PhaseStatus::Succeeded, None);
        let id = format!("build-{}", Digest::of(once.ticket.as_str()).short());
        let work = Work::open(&self.0.containers, &self.0.home, id).await?;
        let end = self.build_in(&work, once, &mut place, console, stop).await;
        work.close().await?;
        end
    }

    fn console(
        &self,
        Once {
            order, log, record, ..
        }: Once<'_>,
    ) -> Result<Console, Error> {
        Ok(Console::open(
            &self.0.logs,
            log.clone(),
            secrets::mask(&order.secrets, &proxies()),
            LOG_BYTES,
            record.clone(),
        )?)
    }

    async fn build_in(
        &self,
        work: &Work,
        once: Once<'_>,
        place: &mut Place,
        mut console: Console,
        mut stop: Stop,
    ) -> Result<End, Error> {
        let (ticket, order, before) = (once.ticket, once.order, once.before);
        let prepared = match self.prepare(work, once, place, &mut console, &mut stop).await {
            Ok(prepared) => prepared,
            Err(error) => {
                let message = match &error {
                    Error::Runtime(why) => why.clone(),
                    error => logs::chain(error),
                };
                // A build that finds no place to run has nothing to finalize.
                let has_begun = console.is_in("DOWNLOAD_SOURCE");
                console.ended(error.status(), Some(message));
                if has_begun {
                    console.finalize();
                }
                let outcome = console.end();
                if let Some(shelf) = once.shelf {
                    self.leave(shelf, outcome).await;
                }
                return Err(error);
            }
        };
        let uids = self.0.oven.uids().take().ok_or(Error::Full)?;
        let job = sandbox::job(ticket, order, prepared.image.digest, before.retried);
        let ground = Ground {
            lowers: prepared.lowers,
            uid_base: uids.base,
        };
        let began = before.began(Instant::now());
        let mut ran = self.execute(work, once, job, ground, console, stop).await?;
        let upper = work.directory().join("scratch/upper");
        let came_to_its_end = ran.console.outcome.succeeded.is_some();
        // What the runner says of itself could be forged; how often a build is made is the file's to say.
        let again = ran.console.outcome.again && again::may(&order.buildspec, before.retried);
        if came_to_its_end && !again {
            self.compare(once, &mut ran.console)?;
        }
        let (mut outcome, judged) = verdict::judge(order, before, ran);
        if came_to_its_end {
            let harvested = self
                .harvest(order, &upper, uids.base, prepared.caches, judged.is_ok())
                .await?;
            // A log that cannot be written does not stop what it is about.
            if let Some(said) = harvested
                && let Ok(mut console) = self.console(once)
            {
                console.line(&said);
            }
        }
        match judged {
            Err(failed @ Error::Failed { .. }) if again => return Ok(End::Again(before.next(began, failed))),
            Err(error) => {
                if let Some(shelf) = once.shelf {
                    self.leave(shelf, outcome).await;
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        let artifacts = std::mem::take(&mut outcome.artifacts);
        let Objects { main, secondary } = self.objects(artifacts).await?;
        let (artifact, size_bytes, name) = main.ok_or(Error::NoArtifact)?;
        Ok(End::Built(Built {
            artifact,
            size_bytes,
            name,
            secondary,
            // Known when it has ended.
            phases: Vec::new(),
            reports: outcome.reports,
            exported: outcome.exported,
            log: once.log.clone(),
        }))
    }

    /// The image and the source tree, as layers from the top down, with the caches at the bottom.
    async fn prepare(
        &self,
        work: &Work,
        once: Once<'_>,
        place: &mut Place,
        console: &mut Console,
        stop: &mut Stop,
    ) -> Result<Prepared, Error> {
        let (ticket, order) = (once.ticket, once.order);
        console.began("PROVISIONING");
        let files = match choice::looks(order) {
            true => {
                let (objects, own) = (self.0.objects.clone(), order.clone());
                let read = tokio::task::spawn_blocking(move || sandbox::telling(&objects, &own));
                read.await.map_err(|_| Error::Interrupted)?
            }
            false => BTreeSet::new(),
        };
        let image = match choice::choose(order, &files) {
            Ok(choice) => Ok(self.image(once, choice, place, console, stop).await?),
            Err(why) => Err(Error::Runtime(why)),
        };
        console.ended(PhaseStatus::Succeeded, None);
        console.began("DOWNLOAD_SOURCE");
        if let Some(said) = sandbox::git_lacks(order) {
            console.line(said);
        }
        for name in secrets::shown(&order.secrets) {
            console.line(&format!(
                "The value of {name} is as short as what everything says: this log does not hide it"
            ));
        }
        // As on CodeBuild: this is where a buildspec is found to be wrong.
        let image = image?;
        let source = work.directory().join("source");
        let (objects, own, to) = (self.0.objects.clone(), order.clone(), source.clone());
        // To its end, also when the build is to stop: the directory can be removed when nobody writes there.
        tokio::task::spawn_blocking(move || sandbox::unpack(&objects, &own, &to))
            .await
            .map_err(|_| Error::Interrupted)??;
        if let Some(reason) = stop.reason() {
            return Err(Error::Stopped(reason));
        }
        let asking = Asking {
            ticket,
            order,
            image: image.digest,
            source: &source,
        };
        let keys = self.keys(asking, stop).await?;
        let caches = self.restore(order, once.life, &keys, console)?;
        // The phase goes on until the runner has seen that the image has the runtimes that are asked for.
        let mut lowers = vec![source];
        lowers.extend(self.0.oven.images().lowers(&image.digest)?);
        lowers.extend(caches.files());
        Ok(Prepared {
            image,
            lowers,
            caches,
        })
    }

    /// Runs the container to its end. The job goes in and frames come out by pipes, each with a thread of its own.
    async fn execute(
        &self,
        work: &Work,
        Once { order, before, .. }: Once<'_>,
        job: protocol::Job,
        ground: Ground,
        mut console: Console,
        mut stop: Stop,
    ) -> Result<Ran, Error> {
        let (stdin, job_writer) = pipe()?;
        let (frames, output) = pipe()?;
        let spec = sandbox::spec(sandbox::Parts {
            id: work.id(),
            order,
            lowers: ground.lowers,
            scratch: work.directory().join("scratch"),
            uid_base: ground.uid_base,
            program: self.0.program.clone(),
            network: Some(Net::Outside),
            stdin,
            output,
        });
        // A runner that never reads its job is stopped by the deadline, which closes the pipe.
        let tell = tokio::task::spawn_blocking(move || job.write(File::from(job_writer)));
        let directory = work.directory().to_owned();
        let most = order.limits.disk_mib.saturating_mul(1 << 20);
        let follow = tokio::task::spawn_blocking(move || {
            let followed = console.follow(io::BufReader::new(File::from(frames)), &directory, most);
            (console, followed)
        });
        let timeout = before.left(timeout(order), Instant::now());
        let stopping = async { drop(stop.asked().await) };
        let exit = self.0.containers.run_until(spec, timeout, stopping).await;
        let (mut console, followed) = follow.await.map_err(|_| Error::Interrupted)?;
        // What matters of it is whether the runner answered.
        let _ = tell.await;
        let exit = exit.map_err(|error| {
            let error = Error::from(error);
            console.ended(error.status(), Some(logs::chain(&error)));
            error
        })?;
        Ok(Ran {
            exit,
            console,
            followed,
            stopped: exit.stopped.then(|| stop.reason().unwrap_or_default()),
        })
    }

    /// Compares the build's tests with those of the branch's builds before.
    fn compare(&self, Once { order, life, .. }: Once<'_>, console: &mut Console) -> Result<(), Error> {
        if order.buildspec.reports.is_empty() {
            return Ok(());
        }
        let caches = self.0.oven.caches();
        let name = cache::tests_name(order, life);
        let past = caches.note(&name, HISTORY, report::PAST_BYTES);
        let mut history = History::read(&past.unwrap_or_default());
        console.compare(&mut history, order.task.as_ref().is_some_and(Task::is_part));
        let written = history.write().unwrap_or_else(|| {
            console.line("What earlier runs of the tests said is forgotten: it is too much");
            Vec::new()
        });
        Ok(caches.write_note(&name, HISTORY, &written)?)
    }
}

fn timeout(order: &BuildOrder) -> Duration {
    order.limits.timeout.try_into().unwrap_or(Duration::ZERO)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| io_error("open", camino::Utf8Path::new("a pipe"))(errno.into()).into())
}
