//! Puts a revision on a host through its agent.
//!
//! The room exists so that the node's side of a deployment is one thing: the revision goes in, the log comes out and
//! stays when the host is gone, and a ticket is done once even when the node dies in the middle, because the agent
//! remembers it too. What an agent answers is from inside a host, so it is bounded and never trusted further. It
//! knows nothing of what lifecycle events do.

use std::{collections::BTreeSet, io::Read as _, time::Duration};

use axum::body::{Body, Bytes};
use jiff::Timestamp;
use model::{
    DeploymentId, Digest, HostId, Ticket,
    port::{
        CheckOrder, Death, DeployOrder, Deployed, Deployer as Port, EventReport, EventStatus, Fault,
        LifecycleEvent, LogRef, Verdict,
    },
};
use tokio::sync::mpsc;

use crate::{
    agent::{self, api::Deploy},
    hosts::Hosts,
    logs::{self, Mask},
    objects,
    ticket::Tickets,
};

/// Between two looks at a deployment's log.
const LOOK: Duration = Duration::from_millis(300);

/// For bringing a revision into a host.
const UPLOAD: Duration = Duration::from_secs(600);

/// The most that is kept of a deployment's log, in bytes.
const LOG: u64 = 32 << 20;

/// The most characters of one text that a host says.
const TEXT: usize = 4096;

/// The most processes that a failure names.
const HOLDERS: usize = 3;

/// All checks of a host together may take so long.
const CHECKS: Duration = Duration::from_secs(1800);

/// Deploys to the hosts of one data directory.
#[derive(Clone)]
pub struct Deployer {
    hosts: Hosts,
    objects: objects::Directory,
    logs: logs::Directory,
    tickets: Tickets,
}

impl Deployer {
    pub fn new(hosts: Hosts, objects: objects::Directory, logs: logs::Directory, tickets: Tickets) -> Self {
        Self {
            hosts,
            objects,
            logs,
            tickets,
        }
    }

    async fn run(self, ticket: Ticket, order: DeployOrder) -> Result<Deployed, Fault> {
        let agent = self.hosts.agent(&order.host);
        let failed = |error| fault(&order.host, error);
        let known = agent.knows(&ticket).await.map_err(failed)?;
        if !known && order.events.contains(&LifecycleEvent::DownloadBundle) {
            self.bring(&agent, &order.revision).await.map_err(failed)?;
        }
        let deploy = Deploy {
            ticket: ticket.clone(),
            order: order.clone(),
        };
        let mut copy = Copy::begin(&self, &order.host, &ticket)?;
        let reports = {
            let deploying = agent.deploy(&deploy);
            tokio::pin!(deploying);
            loop {
                tokio::select! {
                    outcome = &mut deploying => break outcome,
                    () = tokio::time::sleep(LOOK) => copy.more().await,
                }
            }
        };
        copy.more().await;
        let log = copy.end();
        let reports = reports.map_err(|error| failed(error).evidence(log.clone()))?;
        let events = believable(reports.events, &order.events, &log).ok_or_else(|| {
            Fault::platform(format!(
                "the agent of {} reported other events than ordered",
                order.host
            ))
        })?;
        Ok(Deployed { events, log })
    }

    /// Streams a revision from the objects into the host. The agent keeps it only when its digest is right.
    async fn bring(&self, agent: &agent::Client, revision: &Digest) -> Result<(), agent::Error> {
        const PIECE: usize = 64 << 10;
        let mut object = self
            .objects
            .open_object(revision)
            .map_err(|error| agent::Error::Fault(error.into()))?;
        let (pieces, inbox) = mpsc::channel::<std::io::Result<Bytes>>(8);
        let reading = tokio::task::spawn_blocking(move || {
            loop {
                let mut piece = vec![0; PIECE];
                let read = object.read(&mut piece).map(|count| {
                    piece.truncate(count);
                    Bytes::from(piece)
                });
                let last = read.as_ref().map_or(true, Bytes::is_empty);
                if matches!(&read, Ok(piece) if piece.is_empty())
                    || pieces.blocking_send(read).is_err()
                    || last
                {
                    return;
                }
            }
        });
        let stream =
            futures_util::stream::unfold(inbox, |mut inbox| async { Some((inbox.recv().await?, inbox)) });
        let sent = agent
            .put_revision(revision, Body::from_stream(stream), UPLOAD)
            .await;
        // The reader ends with its channel.
        let _ = reading.await;
        sent
    }
}

impl Port for Deployer {
    async fn deploy(&self, ticket: &Ticket, order: &DeployOrder) -> Result<Deployed, Fault> {
        // A serve that is newer says more of the same order.
        let known = DeployOrder {
            commit: None,
            ..order.clone()
        };
        let json =
            serde_json::to_vec(&known).map_err(|error| Fault::order(format!("not an order: {error}")))?;
        let work = self.clone().run(ticket.clone(), order.clone());
        self.tickets.once(ticket, Digest::of(json), work).await
    }

    async fn progress(&self, host: &HostId, ticket: &Ticket) -> Result<Vec<EventReport>, Fault> {
        let progress = self.hosts.agent(host).progress(ticket).await;
        let reports = progress.map_err(|error| fault(host, error))?;
        Ok(bearable(reports.events, &log_of(ticket)?))
    }

    async fn stop_deployment(
        &self,
        host: &HostId,
        deployment: &DeploymentId,
        reason: &str,
    ) -> Result<(), Fault> {
        let agent = self.hosts.agent(host);
        let stopped = agent.stop_deployment(deployment, reason).await;
        stopped.map_err(|error| fault(host, error))
    }

    async fn watch(&self, host: &HostId, since: Timestamp) -> Result<Option<Death>, Fault> {
        let death = self.hosts.agent(host).death(since).await;
        let mut death = death.map_err(|error| fault(host, error))?;
        for text in death
            .iter_mut()
            .flat_map(|death| [&mut death.service, &mut death.exit, &mut death.last])
        {
            bound(text);
        }
        Ok(death)
    }

    async fn check(&self, order: &CheckOrder) -> Result<Verdict, Fault> {
        let agent = self.hosts.agent(&order.host);
        let mut verdict = agent
            .check(&order.checks, CHECKS)
            .await
            .map_err(|error| fault(&order.host, error))?;
        bound_verdict(&mut verdict);
        Ok(verdict)
    }
}

/// A host's log of a deployment, into the logs that stay.
struct Copy {
    hosts: Hosts,
    from: LogRef,
    to: LogRef,
    offset: u64,
    writer: Option<logs::Writer>,
}

impl Copy {
    /// From the beginning: what a dead node copied already is copied again.
    fn begin(deployer: &Deployer, host: &HostId, ticket: &Ticket) -> Result<Self, Fault> {
        let to = log_of(ticket)?;
        let failed = |error: logs::Error| Fault::platform(logs::chain(&error));
        deployer.logs.remove(&to).map_err(failed)?;
        let writer = deployer.logs.append(&to, Mask::default(), LOG).map_err(failed)?;
        Ok(Self {
            hosts: deployer.hosts.clone(),
            from: named(&format!("host/{host}/deploy-{ticket}"))?,
            to,
            offset: 0,
            writer: Some(writer),
        })
    }

    /// What was added since. A log that cannot be read is missed, but nothing fails because of it.
    async fn more(&mut self) {
        use std::io::Write as _;
        while let Some(Ok(chunk)) = self.hosts.log(&self.from, self.offset).await {
            let Some(writer) = self
                .writer
                .as_mut()
                .filter(|_| !chunk.text.is_empty() && self.offset < LOG)
            else {
                return;
            };
            if let Err(error) = writer.write_all(chunk.text.as_bytes()) {
                tracing::warn!(log = %self.to, "cannot keep a deployment's log: {error}");
                return;
            }
            self.offset = chunk.next;
        }
    }

    fn end(mut self) -> LogRef {
        if let Some(Err(error)) = self.writer.take().map(logs::Writer::end) {
            tracing::warn!(log = %self.to, "cannot end a deployment's log: {error}");
        }
        self.to
    }
}

/// Where all is that the scripts of a ticket say.
fn log_of(ticket: &Ticket) -> Result<LogRef, Fault> {
    named(&format!("deploy/{ticket}"))
}

fn named(text: &str) -> Result<LogRef, Fault> {
    text.parse().map_err(|_| Fault::order("the ticket names no log"))
}

/// The reports of an order that is done, if they are about the events that were ordered, bearable.
pub(crate) fn believable(
    reports: Vec<EventReport>,
    events: &[LifecycleEvent],
    log: &LogRef,
) -> Option<Vec<EventReport>> {
    let same = reports
        .iter()
        .map(|report| report.event)
        .eq(events.iter().copied());
    let coherent = reports.iter().all(|report| {
        report.status.is_outcome() && (report.status == EventStatus::Failed) == report.failure.is_some()
    });
    (same && coherent).then(|| bearable(reports, log))
}

/// Each event once, with texts of a bearable length, and where the log of all of them is.
pub(crate) fn bearable(mut reports: Vec<EventReport>, log: &LogRef) -> Vec<EventReport> {
    let mut seen = BTreeSet::new();
    reports.retain(|report| seen.insert(report.event));
    for report in &mut reports {
        let has_none = matches!(report.status, EventStatus::Skipped | EventStatus::Pending);
        report.log = (!has_none).then(|| log.clone());
    }
    for failure in reports.iter_mut().filter_map(|report| report.failure.as_mut()) {
        failure.holders.truncate(HOLDERS);
        let texts = [&mut failure.script, &mut failure.message, &mut failure.log];
        texts.into_iter().chain(&mut failure.holders).for_each(bound);
    }
    reports
}

/// Texts of a bearable length.
pub(crate) fn bound_verdict(verdict: &mut Verdict) {
    for result in &mut verdict.results {
        for text in [
            &mut result.kind,
            &mut result.name,
            &mut result.property,
            &mut result.expected,
            &mut result.found,
        ] {
            bound(text);
        }
    }
}

fn bound(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT) {
        text.truncate(end);
        text.push('…');
    }
}

pub(crate) fn fault(host: &HostId, error: agent::Error) -> Fault {
    match error {
        agent::Error::Fault(mut fault) => {
            bound(&mut fault.message);
            fault.next.as_mut().map(bound);
            // Where evidence is, is not for a host to say.
            fault.evidence = None;
            fault
        }
        error => {
            let mut text = format!("the agent of {host} failed: {}", logs::chain(&error));
            bound(&mut text);
            Fault::platform(text).next(format!("see whether the host {host} still runs"))
        }
    }
}

#[cfg(test)]
mod tests {
    use model::port::{ScriptCode, ScriptFailure};

    use super::*;

    fn report(event: LifecycleEvent, status: EventStatus, log: &str) -> EventReport {
        let failure = ScriptFailure {
            code: ScriptCode::ScriptFailed,
            script: String::new(),
            message: String::new(),
            log: log.to_owned(),
            holders: Vec::new(),
        };
        EventReport {
            event,
            status,
            started_at: Timestamp::UNIX_EPOCH,
            duration_ms: 0,
            failure: (status == EventStatus::Failed).then_some(failure),
            log: "host/h-0000000000002/service".parse().ok(),
        }
    }

    #[test]
    fn a_host_cannot_report_what_was_not_ordered() {
        let events = [LifecycleEvent::Install, LifecycleEvent::AfterInstall];
        let log: LogRef = "deploy/t-1".parse().unwrap();
        let good = vec![
            report(events[0], EventStatus::Succeeded, ""),
            report(events[1], EventStatus::Failed, &"ä".repeat(TEXT * 2)),
        ];
        let bounded = believable(good.clone(), &events, &log).unwrap();
        assert_eq!(bounded[1].failure.as_ref().unwrap().log.chars().count(), TEXT + 1);
        // Nor where its log is; and what it did nothing for has none.
        assert!(bounded.iter().all(|report| report.log.as_ref() == Some(&log)));
        let skipped = vec![report(events[0], EventStatus::Skipped, "")];
        assert_eq!(believable(skipped, &events[..1], &log).unwrap()[0].log, None);
        assert_eq!(believable(good[..1].to_vec(), &events, &log), None);
        assert_eq!(believable(good.clone(), &events[..1], &log), None);
        // What has not ended is no answer, and what is told twice or at length is not kept so.
        let mut open = good.clone();
        open[0].status = EventStatus::InProgress;
        assert_eq!(believable(open.clone(), &events, &log), None);
        open.extend(open.clone());
        let told = bearable(open, &log);
        assert_eq!(told.iter().map(|report| report.event).collect::<Vec<_>>(), events);
        assert_eq!(told[1].failure.as_ref().unwrap().log.chars().count(), TEXT + 1);
        let mut silent = good;
        silent[1].failure = None;
        assert_eq!(believable(silent, &events, &log), None);
    }
}
