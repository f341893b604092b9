//! Runs a buildspec in a container. Knows nothing of releases.
//!
//! The node's side ([`Yard`]) makes the container and listens; the runner's side ([`runner`]) is PID 1 in it. Between
//! them are one job and frames ([`protocol`]). What the customer's commands do stays in the container: what comes out
//! is a bounded log without secrets, reports, and one tar that is checked before it is kept.

mod artifact;
mod console;
mod error;
pub mod junit;
pub mod protocol;
mod queue;
pub mod runner;
mod runtime;
mod sandbox;
pub mod shell;

pub use error::Error;

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use camino::Utf8PathBuf;
use model::{
    Digest, Ticket,
    port::{BuildOrder, Builder, Built, Fault, LogRef, PhaseStatus, TestReport},
};
use tracing::info;

use self::{
    console::{Console, Outcome},
    queue::Queue,
};
use crate::{
    bake::Oven,
    cache::Lease,
    container::{Containers, Exit},
    layer::{self, copy::Deletions, io_error},
    logs, objects,
    ticket::Stop,
    tree,
    work::{self, Work},
};

const LOG_BYTES: u64 = 64 << 20;

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
}

impl Builder for Yard {
    async fn build(&self, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
        self.build_until(ticket, order, Stop::never()).await
    }
}

impl Yard {
    /// As [`Builder::build`], until it is to stop.
    pub async fn build_until(&self, ticket: &Ticket, order: &BuildOrder, stop: Stop) -> Result<Built, Fault> {
        let log: LogRef = format!("build/{ticket}")
            .parse()
            .map_err(|_| Fault::order("the ticket cannot name a log"))?;
        let started = Instant::now();
        let built = self.run(ticket, order, log.clone(), stop).await;
        let last = match &built {
            Ok(built) => format!(
                "The build succeeded: artifact {} of {} bytes",
                built.artifact.short(),
                built.size_bytes
            ),
            Err(error) => logs::chain(error),
        };
        // Whatever happened to the log so far.
        if let Ok(console) = self.console(order, &log) {
            console.close(&last);
        }
        let (place, ok, duration_ms) = (&order.place, built.is_ok(), started.elapsed().as_millis());
        info!(%place, %ticket, ok, duration_ms, "a build of {place} ended");
        built.map_err(|error| Fault::from(error).evidence(log))
    }
}

/// What a container stands on.
struct Ground {
    /// From the top down.
    lowers: Vec<Utf8PathBuf>,
    uid_base: u32,
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
        })))
    }

    async fn run(
        &self,
        ticket: &Ticket,
        order: &BuildOrder,
        log: LogRef,
        mut stop: Stop,
    ) -> Result<Built, Error> {
        let mut console = self.console(order, &log)?;
        check_secrets(order)?;
        console.began("QUEUED");
        let tenant = &order.place.tenant;
        let place = self.0.queue.enter(tenant, |waiting| {
            console.line(&format!(
                "Waiting: {} builds run, {} wait before this one",
                waiting.running, waiting.before
            ));
        });
        let _place = tokio::select! {
            place = place => place,
            reason = stop.asked() => return Err(Error::Stopped(reason)),
        };
        console.ended(PhaseStatus::Succeeded, None);
        let id = format!("build-{}", Digest::of(ticket.as_str()).short());
        let work = Work::open(&self.0.containers, &self.0.home, id).await?;
        let built = self.build_in(&work, ticket, order, log, console, stop).await;
        work.close().await?;
        built
    }

    fn console(&self, order: &BuildOrder, log: &LogRef) -> Result<Console, Error> {
        let secrets = order
            .secrets
            .values()
            .map(|secret| secret.expose().to_owned())
            .collect();
        Ok(Console::open(&self.0.logs, log.clone(), secrets, LOG_BYTES)?)
    }

    async fn build_in(
        &self,
        work: &Work,
        ticket: &Ticket,
        order: &BuildOrder,
        log: LogRef,
        mut console: Console,
        mut stop: Stop,
    ) -> Result<Built, Error> {
        let (image, lowers, caches) = match self.prepare(work, order, &mut console, &mut stop).await {
            Ok(prepared) => prepared,
            Err(error) => {
                let status = match error {
                    Error::Stopped(_) => PhaseStatus::Stopped,
                    _ => PhaseStatus::Failed,
                };
                console.ended(status, Some(logs::chain(&error)));
                console.end();
                return Err(error);
            }
        };
        let uids = self.0.oven.uids().take().ok_or(Error::Full)?;
        let job = sandbox::job(ticket, order, image);
        let ground = Ground {
            lowers,
            uid_base: uids.base,
        };
        let ran = self.execute(work, order, job, ground, console, stop).await?;
        let upper = work.directory().join("scratch/upper");
        let came_to_its_end = ran.console.outcome.succeeded.is_some();
        let judged = judge(order, ran);
        if came_to_its_end {
            self.harvest(order, &upper, uids.base).await?;
        }
        drop(caches);
        let outcome = judged?;
        let (artifact, size_bytes) = self.keep(work.directory().join("artifact.tar")).await?;
        Ok(Built {
            artifact,
            size_bytes,
            phases: outcome.phases,
            reports: outcome.reports,
            exported: outcome.exported,
            log,
        })
    }

    /// The image and the source tree, as layers from the top down, with the caches at the bottom.
    async fn prepare(
        &self,
        work: &Work,
        order: &BuildOrder,
        console: &mut Console,
        stop: &mut Stop,
    ) -> Result<(Digest, Vec<Utf8PathBuf>, Vec<Lease>), Error> {
        console.began("PROVISIONING");
        let image = match self.0.oven.find_standard()? {
            Some(image) => image,
            None => {
                console
                    .line("Waiting for the build image, which is made once on this machine (its log is bake/platform-standard)");
                let oven = self.0.oven.clone();
                // Every build needs it: it is made to its end, whoever stops waiting.
                let standard = tokio::spawn(async move { oven.standard().await });
                let standard = tokio::select! {
                    standard = standard => standard.map_err(|_| Error::Interrupted)?,
                    reason = stop.asked() => return Err(Error::Stopped(reason)),
                };
                standard.map_err(Error::Image)?.image
            }
        };
        let caches = self.0.oven.caches();
        let names = [
            format!("{}/builds", order.place.tenant),
            sandbox::cache_name(order),
        ];
        let leases: Result<Vec<Option<Lease>>, layer::Error> =
            names.iter().map(|name| caches.lease(name)).collect();
        let leases: Vec<Lease> = leases?.into_iter().flatten().collect();
        console.ended(PhaseStatus::Succeeded, None);
        console.began("DOWNLOAD_SOURCE");
        let source = work.directory().join("source");
        let (objects, order, to) = (self.0.objects.clone(), order.clone(), source.clone());
        // To its end, also when the build is to stop: the directory can be removed when nobody writes there.
        tokio::task::spawn_blocking(move || sandbox::unpack(&objects, &order, &to))
            .await
            .map_err(|_| Error::Interrupted)??;
        if let Some(reason) = stop.reason() {
            return Err(Error::Stopped(reason));
        }
        console.ended(PhaseStatus::Succeeded, None);
        let mut lowers = vec![source];
        lowers.extend(self.0.oven.images().lowers(&image)?);
        lowers.extend(leases.iter().map(|lease| lease.files.clone()));
        Ok((image, lowers, leases))
    }

    /// Runs the container to its end. The job goes in and frames come out by pipes, each with a thread of its own.
    async fn execute(
        &self,
        work: &Work,
        order: &BuildOrder,
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
            stdin,
            output,
        });
        // A runner that never reads its job is stopped by the deadline, which closes the pipe.
        let tell = tokio::task::spawn_blocking(move || job.write(File::from(job_writer)));
        let artifact = work.directory().join("artifact.tar");
        let most = order.limits.disk_mib.saturating_mul(1 << 20);
        let follow = tokio::task::spawn_blocking(move || {
            let followed = console.follow(io::BufReader::new(File::from(frames)), &artifact, most);
            (console, followed)
        });
        let timeout = timeout(order);
        let stopping = async { drop(stop.asked().await) };
        let exit = self.0.containers.run_until(spec, timeout, stopping).await;
        let (console, followed) = follow.await.map_err(|_| Error::Interrupted)?;
        // What matters of it is whether the runner answered.
        let _ = tell.await;
        let exit = exit?;
        Ok(Ran {
            exit,
            console,
            followed,
            stopped: exit.stopped.then(|| stop.reason().unwrap_or_default()),
        })
    }

    async fn harvest(
        &self,
        order: &BuildOrder,
        upper: &camino::Utf8Path,
        uid_base: u32,
    ) -> Result<(), Error> {
        let caches = self.0.oven.caches().clone();
        let (tenant, own) = (
            format!("{}/builds", order.place.tenant),
            sandbox::cache_name(order),
        );
        let (kept, upper) = (sandbox::kept(order), upper.to_owned());
        tokio::task::spawn_blocking(move || {
            let downloads = sandbox::DOWNLOADS.map(str::to_owned);
            caches.harvest(&tenant, &upper, &downloads, uid_base, Deletions::Ignore)?;
            caches.harvest(&own, &upper, &kept, uid_base, Deletions::Apply)
        })
        .await
        .map_err(|_| Error::Interrupted)??;
        Ok(())
    }

    /// Checks the artifact's tar, which the customer's side wrote, and keeps it.
    async fn keep(&self, path: Utf8PathBuf) -> Result<(Digest, u64), Error> {
        let objects = self.0.objects.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let open = || File::open(&path).map_err(io_error("open", &path));
            tree::visit(open()?, &tree::Limits::SOURCE, |_, _| Ok(()))?;
            let file = open()?;
            let size = file.metadata().map_err(io_error("read", &path))?.len();
            Ok::<_, Error>((objects.keep(file, &path)?, size))
        });
        kept.await.map_err(|_| Error::Interrupted)?
    }
}

fn check_secrets(order: &BuildOrder) -> Result<(), Error> {
    let env = &order.buildspec.env;
    let wanted = env.parameter_store.iter().chain(&env.secrets_manager);
    for (variable, secret) in wanted {
        if !order.secrets.contains_key(variable) {
            return Err(Error::NoSecret {
                variable: variable.clone(),
                secret: secret.clone(),
            });
        }
    }
    Ok(())
}

fn timeout(order: &BuildOrder) -> Duration {
    order.limits.timeout.try_into().unwrap_or(Duration::ZERO)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| io_error("open", camino::Utf8Path::new("a pipe"))(errno.into()).into())
}

/// What a build came to.
fn judge(order: &BuildOrder, ran: Ran) -> Result<Outcome, Error> {
    let Ran {
        exit,
        mut console,
        followed,
        stopped,
    } = ran;
    let judged = match stopped {
        Some(reason) => Err(Error::Stopped(reason)),
        None => verdict(order, exit, &console, followed),
    };
    if let Err(error) = &judged {
        let status = match error {
            Error::Stopped(_) => PhaseStatus::Stopped,
            _ if exit.timed_out => PhaseStatus::TimedOut,
            _ => PhaseStatus::Failed,
        };
        console.ended(status, Some(error.to_string()));
    }
    console.began("FINALIZING");
    console.ended(PhaseStatus::Succeeded, None);
    let outcome = console.end();
    judged.map(|()| outcome)
}

fn verdict(order: &BuildOrder, exit: Exit, console: &Console, followed: io::Result<()>) -> Result<(), Error> {
    let outcome = &console.outcome;
    if exit.timed_out {
        let last = console.last_lines();
        return Err(Error::TimedOut {
            timeout: timeout(order),
            doing: console.doing(),
            last: format!("{last}{}", hint(order, &last)),
        });
    }
    let last = outcome.last.clone().unwrap_or_default();
    if exit.oom && outcome.succeeded != Some(true) {
        return Err(Error::Memory {
            memory_mib: order.limits.memory_mib,
            last,
        });
    }
    match followed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(Error::Artifact(order.limits.disk_mib.saturating_mul(1 << 20)));
        }
        Err(error) => return Err(Error::Disturbed(error)),
    }
    match (outcome.succeeded, outcome.failed()) {
        (None, _) => Err(Error::Silent {
            code: exit.code,
            last: console.last_lines(),
        }),
        (Some(true), None) => check_tests(order, &outcome.reports),
        (Some(_), failed) => Err(Error::Failed {
            phase: failed.map_or_else(|| "the build".to_owned(), |phase| phase.name.clone()),
            message: failed.and_then(|phase| phase.message.clone()).unwrap_or_default(),
            last: format!("{last}{}", hint(order, &last)),
        }),
    }
}

/// A limit that stops a command speaks through the command's own error, which does not name the limit.
fn hint(order: &BuildOrder, last: &str) -> String {
    let limits = &order.limits;
    if last.contains("Resource temporarily unavailable") || last.contains("Cannot fork") {
        format!("\n(a build may have {} processes at a time)", limits.pids)
    } else if last.contains("No space left on device") {
        format!("\n(a build may write {} MiB to its disk)", limits.disk_mib)
    } else {
        String::new()
    }
}

fn check_tests(order: &BuildOrder, reports: &[TestReport]) -> Result<(), Error> {
    let wanted = order.limits.pass_rate_percent;
    if junit::pass_rate_percent(reports) >= wanted {
        return Ok(());
    }
    let passed = reports.iter().map(|report| report.passed).sum();
    let failed: u32 = reports.iter().map(|report| report.failed).sum();
    let failures = reports.iter().flat_map(|report| &report.failures).take(5);
    let failures: String = failures
        .map(|(name, message)| format!("\n{name}: {message}"))
        .collect();
    Err(Error::Tests {
        passed,
        ran: passed + failed,
        wanted,
        failures,
    })
}
