//! The agents of hosts that run are brought to this node's program. What they supervise goes on.
//!
//! Which program an agent runs is written down here, beside the host's record: what a host says about itself decides
//! nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use model::{
    Digest, HostId,
    port::{Blame, Fault},
};
use tokio_util::io::ReaderStream;
use tracing::{info, warn};

use super::{Hosts, Record, fault};
use crate::agent;

/// For sending a program into a host.
const SEND: Duration = Duration::from_secs(120);

/// From a program that was sent to an agent that answers.
const ANSWER: Duration = Duration::from_secs(30);

/// A host whose agent cannot be brought along is tried again after so many looks, at most.
const PATIENCE: u32 = 64;

/// Hosts whose agents are being replaced. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Changing(Arc<Mutex<BTreeSet<HostId>>>);

impl Changing {
    pub fn has(&self, host: &HostId) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(host)
    }

    fn begin(&self, host: &HostId) -> Change {
        let mut changing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changing.insert(host.clone());
        Change(self.clone(), host.clone())
    }
}

/// One host's agent is being replaced, for as long as this is there.
struct Change(Changing, HostId);

impl Drop for Change {
    fn drop(&mut self) {
        let mut changing = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        changing.remove(&self.1);
    }
}

/// What failed, and when it is tried again.
#[derive(Debug, Default)]
pub(crate) struct Attempts(BTreeMap<HostId, Attempt>);

#[derive(Debug)]
struct Attempt {
    failures: u32,
    wait: u32,
}

impl Attempts {
    /// Is it to be left in peace this time?
    fn waits(&mut self, host: &HostId) -> bool {
        let Some(attempt) = self.0.get_mut(host).filter(|attempt| attempt.wait > 0) else {
            return false;
        };
        attempt.wait -= 1;
        true
    }

    fn failed(&mut self, host: &HostId) {
        let known = self.0.entry(host.clone());
        let attempt = known.or_insert(Attempt { failures: 0, wait: 0 });
        attempt.failures = attempt.failures.saturating_add(1);
        attempt.wait = 1_u32
            .checked_shl(attempt.failures)
            .unwrap_or(PATIENCE)
            .min(PATIENCE);
    }
}

impl Hosts {
    /// Looks after the agents of all hosts that run, one after the other. One that deploys is left alone until the next
    /// look.
    pub(crate) async fn renew_agents(&self, attempts: &mut Attempts) {
        for record in Record::all(&self.node.join("hosts")) {
            let host = &record.host;
            if self.is_current(host) || !self.is_running(host) || attempts.waits(host) {
                continue;
            }
            match self.renew(host).await {
                Ok(()) => {
                    attempts.0.remove(host);
                    info!(%host, "the agent of {host} is of this version now; what it runs went on");
                }
                // It deploys, or does not answer at the moment.
                Err(fault) if fault.blame == Blame::Order => {}
                Err(fault) => {
                    warn!(%host, "the agent of {host} stays as it is: {fault}");
                    attempts.failed(host);
                }
            }
        }
    }

    /// Writes down that the host's agent runs this node's program.
    pub(super) fn note_program(&self, host: &HostId) -> io::Result<()> {
        fs::write(self.dir(host).join("program"), self.version.to_string())
    }

    fn is_current(&self, host: &HostId) -> bool {
        let noted = fs::read_to_string(self.dir(host).join("program"));
        noted.is_ok_and(|noted| noted.parse::<Digest>().ok() == Some(self.version))
    }

    async fn renew(&self, host: &HostId) -> Result<(), Fault> {
        let agent = self.agent(host);
        let told = |error: agent::Error| match error {
            agent::Error::Fault(fault) if fault.blame == Blame::Order => Fault::order(fault.message),
            error => fault("bring along the agent of", host, &error),
        };
        let before = agent.health().await.map_err(told)?.started_at;
        let program = tokio::fs::File::open(&self.program).await;
        let program = program.map_err(|error| fault("read the program for", host, &error))?;
        let _change = self.changing.begin(host);
        let body = Body::from_stream(ReaderStream::with_capacity(program, 64 << 10));
        agent.succeed(&self.version, body, SEND).await.map_err(told)?;
        let another = async {
            while !agent
                .health()
                .await
                .is_ok_and(|health| health.started_at != before)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let silent = || {
            let text = format!(
                "the agent of {host} did not answer as another in {} seconds",
                ANSWER.as_secs()
            );
            Fault::platform(text)
        };
        tokio::time::timeout(ANSWER, another)
            .await
            .map_err(|_| silent())?;
        self.note_program(host)
            .map_err(|error| fault("write down the program of", host, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_more_and_more_seldom() {
        let host: HostId = "h-0123456789abc".parse().unwrap();
        let mut attempts = Attempts::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            attempts.failed(&host);
            let mut pause = 0;
            while attempts.waits(&host) {
                pause += 1;
            }
            pauses.push(pause);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 64, 64]);
    }
}
