//! What the platform does with machines that are there. What they answer is believed no more than what hosts answer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Body;
use camino::Utf8Path;
use hyper::client::conn::http2;
use jiff::Timestamp;
use model::{
    DeploymentId, HostId, Ticket,
    port::{DeployOrder, Deployed, EventReport, Fault, LifecycleEvent, LogChunk, LogRef, Verdict},
    spec::Checks,
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use crate::{
    agent::{
        self,
        api::{Configuration, Deploy, Disk, Health, Usage},
    },
    client, deploy, now,
};

/// For bringing a revision to a machine.
const UPLOAD: Duration = Duration::from_secs(1800);

/// All checks of a machine together may take so long.
const CHECKS: Duration = Duration::from_secs(1800);

/// Machines that are connected. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Machines(Arc<Mutex<HashMap<HostId, Live>>>);

/// A machine's connection.
#[derive(Debug, Clone)]
pub(super) struct Live {
    client: agent::Client,
    address: SocketAddr,
    over: CancellationToken,
    number: u64,
    report: Option<Report>,
}

/// What a machine uses, by its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    at: Timestamp,
    pub usage: Option<Usage>,
    pub disk: Option<Disk>,
    /// Of all its cores, between this report and the one before.
    pub cpu_percent: Option<u8>,
}

/// A machine that is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub address: SocketAddr,
    pub report: Option<Report>,
}

impl Report {
    fn after(before: Option<Self>, health: &Health, at: Timestamp) -> Self {
        let share = |before: Self| {
            let (then, now) = (before.usage?, health.usage?);
            let took = u64::try_from(at.as_millisecond() - before.at.as_millisecond()).ok()?;
            let all = took.checked_mul(now.cores.into()).filter(|all| *all > 0)?;
            // A machine that began anew counts from nothing.
            let busy = now.cpu_ms.checked_sub(then.cpu_ms)?;
            u8::try_from(busy.saturating_mul(100).checked_div(all)?.min(100)).ok()
        };
        Self {
            at,
            usage: health.usage,
            disk: health.disk,
            cpu_percent: before.and_then(share),
        }
    }
}

impl Live {
    /// Ends when the machine is removed.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }
}

impl Machines {
    pub(super) fn enter(&self, machine: &HostId, client: agent::Client, address: SocketAddr) -> Live {
        let mut machines = self.lock();
        let before = machines.get(machine);
        let live = Live {
            client,
            address,
            // What the connection before is asked for goes on there: it ends by itself.
            over: before.map_or_else(CancellationToken::new, |before| before.over.clone()),
            number: before.map_or(0, |before| before.number + 1),
            report: before.and_then(|before| before.report),
        };
        machines.insert(machine.clone(), live.clone());
        live
    }

    /// True when no other connection has taken its place.
    pub(super) fn leave(&self, machine: &HostId, live: &Live) -> bool {
        let mut machines = self.lock();
        let own = machines
            .get(machine)
            .is_some_and(|known| known.number == live.number);
        if own {
            machines.remove(machine);
        }
        own
    }

    /// Ends all connections of a machine, at once.
    pub fn close(&self, machine: &HostId) {
        if let Some(live) = self.lock().remove(machine) {
            live.over.cancel();
        }
    }

    /// Ends the connections of all others.
    pub fn keep_only(&self, is_known: impl Fn(&HostId) -> bool) {
        let strangers: Vec<HostId> = self.lock().keys().filter(|id| !is_known(id)).cloned().collect();
        for stranger in strangers {
            self.close(&stranger);
        }
    }

    /// Where a machine is connected from.
    pub fn address(&self, machine: &HostId) -> Option<SocketAddr> {
        self.lock().get(machine).map(|live| live.address)
    }

    /// A machine as its agent last said that it is.
    pub fn seen(&self, machine: &HostId) -> Option<Seen> {
        self.lock().get(machine).map(|live| Seen {
            address: live.address,
            report: live.report,
        })
    }

    /// The node of a machine that builds.
    pub fn node(&self, machine: &HostId) -> client::Client {
        client::Client::of_machine(self.clone(), machine.clone())
    }

    /// What a machine is asked over, if it is connected.
    pub(crate) fn connection(&self, machine: &HostId) -> Option<http2::SendRequest<Body>> {
        self.lock().get(machine)?.client.connection()
    }

    /// Asks how a machine's agent is, and keeps what the machine uses.
    pub async fn health(&self, machine: &HostId) -> Result<Health, Fault> {
        let health = self.agent(machine)?.health().await;
        let health = health.map_err(|error| deploy::fault(machine, error))?;
        if let Some(live) = self.lock().get_mut(machine) {
            live.report = Some(Report::after(live.report, &health, now()));
        }
        Ok(health)
    }

    /// Gives the machine's agent what its processes get.
    pub async fn configure(&self, machine: &HostId, configuration: &Configuration) -> Result<(), Fault> {
        let configured = self.agent(machine)?.configure(configuration).await;
        configured.map_err(|error| deploy::fault(machine, error))
    }

    /// Runs lifecycle events on a machine, once for each ticket. `bundle`: the revision's tar.
    pub async fn deploy(
        &self,
        ticket: &Ticket,
        order: &DeployOrder,
        bundle: &Utf8Path,
    ) -> Result<Deployed, Fault> {
        let machine = &order.host;
        let failed = |error| deploy::fault(machine, error);
        let agent = self.agent(machine)?;
        let known = agent.knows(ticket).await.map_err(failed)?;
        if !known && order.events.contains(&LifecycleEvent::DownloadBundle) {
            let file = tokio::fs::File::open(bundle).await;
            let file = file.map_err(|error| Fault::platform(format!("cannot read the revision: {error}")))?;
            let body = Body::from_stream(ReaderStream::with_capacity(file, 64 << 10));
            agent
                .put_revision(&order.revision, body, UPLOAD)
                .await
                .map_err(failed)?;
        }
        let deploying = Deploy {
            ticket: ticket.clone(),
            order: order.clone(),
        };
        let reports = agent.deploy(&deploying).await.map_err(failed)?;
        let strange = || {
            Fault::platform(format!(
                "the agent of {machine} reported other events than ordered"
            ))
        };
        let log = log_of(machine, ticket);
        Ok(Deployed {
            events: deploy::believable(reports.events, &order.events, &log).ok_or_else(strange)?,
            log,
        })
    }

    /// How far the order of a ticket has come there, as on a host.
    pub async fn progress(&self, machine: &HostId, ticket: &Ticket) -> Result<Vec<EventReport>, Fault> {
        let progress = self.agent(machine)?.progress(ticket).await;
        let reports = progress.map_err(|error| deploy::fault(machine, error))?;
        Ok(deploy::bearable(reports.events, &log_of(machine, ticket)))
    }

    /// Ends the script that a deployment runs there, if it does.
    pub async fn stop_deployment(
        &self,
        machine: &HostId,
        deployment: &DeploymentId,
        reason: &str,
    ) -> Result<(), Fault> {
        let stopped = self.agent(machine)?.stop_deployment(deployment, reason).await;
        stopped.map_err(|error| deploy::fault(machine, error))
    }

    pub async fn check(&self, machine: &HostId, checks: &Checks) -> Result<Verdict, Fault> {
        let checked = self.agent(machine)?.check(checks, CHECKS).await;
        let mut verdict = checked.map_err(|error| deploy::fault(machine, error))?;
        deploy::bound_verdict(&mut verdict);
        Ok(verdict)
    }

    /// A log of a machine: `machine/MACHINE/NAME`. `None` when it is a log of something else.
    pub async fn log(&self, log: &LogRef, offset: u64) -> Option<Result<LogChunk, Fault>> {
        let (machine, name) = log.as_str().strip_prefix("machine/")?.split_once('/')?;
        let machine: HostId = machine.parse().ok()?;
        let read = async {
            let read = self.agent(&machine)?.log(name, offset).await;
            read.map_err(|error| deploy::fault(&machine, error))
        };
        Some(read.await)
    }

    fn agent(&self, machine: &HostId) -> Result<agent::Client, Fault> {
        let known = self.lock().get(machine).map(|live| live.client.clone());
        known.ok_or_else(|| {
            Fault::platform(format!("the machine {machine} is not connected"))
                .next("see on the machine whether `vend agent` runs and reaches the platform")
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where all is that the scripts of a ticket say.
fn log_of(machine: &HostId, ticket: &Ticket) -> LogRef {
    format!("machine/{machine}/deploy-{ticket}")
        .parse()
        .expect("an id and a ticket make the name of a log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_cores_is_what_they_did_between_two_reports() {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let health = |cpu_ms: u64, cores: u32| Health {
            version: String::new(),
            pid: 7,
            configured: true,
            started_at: at(0),
            active: 0,
            failed: 0,
            disk: None,
            usage: Some(Usage {
                cpu_ms,
                cores,
                memory_bytes: 1,
                memory_total_bytes: 2,
            }),
        };
        let first = Report::after(None, &health(1_000, 4), at(10_000));
        assert_eq!(first.cpu_percent, None);
        for (cpu_ms, cores, ms, percent) in [
            (2_000, 4, 11_000, Some(25)),
            (1_000, 4, 11_000, Some(0)),
            // Who says more than there can be, or less than before.
            (u64::MAX, 4, 11_000, Some(100)),
            (999, 4, 11_000, None),
            (2_000, 0, 11_000, None),
            (2_000, 4, 10_000, None),
            (2_000, 4, 9_000, None),
            (2_000, u32::MAX, i64::from(u32::MAX) * 1_000, None),
        ] {
            let report = Report::after(Some(first), &health(cpu_ms, cores), at(ms));
            assert_eq!(report.cpu_percent, percent, "{cpu_ms} {cores} {ms}");
        }
    }
}
