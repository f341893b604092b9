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
use model::{
    DeploymentId, HostId, Ticket,
    port::{DeployOrder, Deployed, Fault, LifecycleEvent, LogChunk, LogRef, Verdict},
    spec::Checks,
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use crate::{
    agent::{
        self,
        api::{Configuration, Deploy, Health},
    },
    client, deploy,
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

    /// The node of a machine that builds.
    pub fn node(&self, machine: &HostId) -> client::Client {
        client::Client::of_machine(self.clone(), machine.clone())
    }

    /// What a machine is asked over, if it is connected.
    pub(crate) fn connection(&self, machine: &HostId) -> Option<http2::SendRequest<Body>> {
        self.lock().get(machine)?.client.connection()
    }

    pub async fn health(&self, machine: &HostId) -> Result<Health, Fault> {
        let health = self.agent(machine)?.health().await;
        health.map_err(|error| deploy::fault(machine, error))
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
        Ok(Deployed {
            events: deploy::believable(reports.events, &order.events).ok_or_else(strange)?,
            log: format!("machine/{machine}/deploy-{ticket}")
                .parse()
                .expect("an id and a ticket make the name of a log"),
        })
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
