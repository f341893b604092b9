//! One build on a machine that builds elsewhere: what it needs goes there, and what it says and leaves comes here.
//!
//! Everything is asked again under the same ticket until it is known what became of it: the connection may break, this
//! process may end, the machine may start anew. Only a machine that says nothing for long is given up.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use futures_util::StreamExt as _;
use model::{
    Digest, HostId, Ticket,
    port::{Blame, BuildOrder, Builder, Built, Fault, LogChunk, LogRef, Logs as _, Objects as _, Work as _},
};
use tracing::warn;

use super::Machines;
use crate::{build::claims, client::Client, logs::Piece};

/// Between two looks at a log that has nothing new, and at a machine that is not there.
const LOOK: Duration = Duration::from_millis(500);
/// One that goes away so often while it has one build is given up.
const LOSSES: u32 = 5;
/// For a builder to say whether it has a source.
const HAS: Duration = Duration::from_secs(5);
/// For the last words of a build that has ended.
const LAST: Duration = Duration::from_secs(20);

/// A builder elsewhere, for one build.
pub struct Away<'a> {
    pub machines: &'a Machines,
    pub machine: &'a HostId,
    /// What people call it.
    pub name: &'a str,
    /// The platform's own node, where sources, artifacts and logs are.
    pub here: &'a Client,
    /// The log of the build here, and from where on what the builder says is in it, in bytes.
    pub log: &'a LogRef,
    pub log_from: u64,
    /// A builder that says nothing for so long is given up.
    pub silent: Duration,
}

/// Why a build has not come to its end.
enum Lost {
    /// Nobody knows what became of it: it is asked again.
    Connection,
    Fault(Fault),
}

impl Builder for Away<'_> {
    /// # Errors
    ///
    /// What the build itself comes to, or that the builder was given up, which is the platform's fault.
    async fn build(&self, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
        let own = own_log(ticket)?;
        let told = AtomicU64::new(self.copied().await?);
        let built = tokio::select! {
            built = self.until_known(ticket, order) => built,
            () = self.listen(&own, &told) => Err(Fault::platform("the log's copy ended")),
        };
        match &built {
            Err(fault) if is_silent(fault) => self.end(&fault.message).await,
            _ => self.finish(&own, &told).await,
        }
        let log = self.log.clone();
        match built {
            Ok(built) => Ok(Built { log, ..built }),
            Err(fault) => Err(fault.evidence(log)),
        }
    }
}

/// What the builder calls the log.
fn own_log(ticket: &Ticket) -> Result<LogRef, Fault> {
    let log = format!("build/{ticket}").parse();
    log.map_err(|_| Fault::order("the ticket cannot name a log"))
}

/// Was the builder given up?
fn is_silent(fault: &Fault) -> bool {
    fault.blame == Blame::Platform && fault.message.ends_with(SILENT)
}

const SILENT: &str = "and is given up";

impl Away<'_> {
    /// Ends the build, and hears its last words. Gives the fault that it ended with, when that is soon.
    pub async fn stop(&self, ticket: &Ticket, cause: &str) -> Result<Option<Fault>, Fault> {
        let stopped = self.machines.node(self.machine).stop_work(ticket, cause).await;
        if stopped.is_err() {
            self.end(&format!("The build was stopped: {cause}")).await;
        }
        let fault = stopped?.map(claims::fault);
        let (own, told) = (own_log(ticket)?, AtomicU64::new(self.copied().await?));
        self.finish(&own, &told).await;
        Ok(fault)
    }

    /// Asks until there is an answer, or the builder is given up.
    async fn until_known(&self, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Fault> {
        let (mut heard, mut losses) = (Instant::now(), 0);
        loop {
            if self.machines.address(self.machine).is_some() {
                match self.ask(ticket, order).await {
                    Ok(built) => return Ok(built),
                    Err(Lost::Fault(fault)) => return Err(fault),
                    Err(Lost::Connection) => losses += 1,
                }
                if losses == LOSSES {
                    // The build may be what brings it down.
                    return Err(self.given_up(&format!("has gone away {LOSSES} times")));
                }
                heard = Instant::now();
            }
            tokio::time::sleep(LOOK).await;
            if self.machines.address(self.machine).is_none() && heard.elapsed() >= self.silent {
                let silent = self.silent.as_secs();
                return Err(self.given_up(&format!("has said nothing for {silent} seconds")));
            }
        }
    }

    fn given_up(&self, why: &str) -> Fault {
        Fault::platform(format!(
            "the builder {} {why} while it had the build, {SILENT}",
            self.name
        ))
        .next("vend builders list")
    }

    async fn ask(&self, ticket: &Ticket, order: &BuildOrder) -> Result<Built, Lost> {
        let there = self.machines.node(self.machine);
        let lost = |fault| match there.has_lost() {
            true => Lost::Connection,
            false => Lost::Fault(claims::fault(fault)),
        };
        let has = tokio::time::timeout(HAS, there.has(&order.source)).await;
        // One that is slow to say it keeps its build: it is asked again.
        if !has.map_err(|_| Lost::Connection)?.map_err(lost)? {
            bring(&order.source, self.here, &there).await.map_err(lost)?;
        }
        let built = there.build(ticket, order).await.map_err(lost)?;
        let built = claims::built(built).map_err(Lost::Fault)?;
        // A tar that was checked and made anew may be longer than what a build wrote.
        let left = Arc::new(AtomicU64::new(order.limits.disk_mib.saturating_mul(2 << 20)));
        // Also what is here already: a builder that only knows the digest of somebody else's object has not built it.
        for digest in built.secondary.values().chain([&built.artifact]) {
            let bytes = there
                .give(digest)
                .await
                .map_err(|fault| self.lacks(fault))
                .map_err(lost)?;
            keep(digest, within(bytes, &left), self.here)
                .await
                .map_err(lost)?;
        }
        Ok(built)
    }

    /// It has not got what it has built, or does not give it: nobody who pushed can mend that.
    fn lacks(&self, fault: Fault) -> Fault {
        match fault.blame {
            Blame::Platform => fault,
            _ => Fault::platform(format!(
                "the builder {} does not give what it says it has built: {fault}",
                self.name
            )),
        }
    }

    /// Copies what the build says while it goes on.
    async fn listen(&self, own: &LogRef, told: &AtomicU64) {
        loop {
            match self.copy(own, told).await {
                Ok(Heard::Something) => {}
                // What goes on after it has ended is another try.
                Ok(Heard::Nothing | Heard::End) | Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// How far the copy of what the builder says has come.
    async fn copied(&self) -> Result<u64, Fault> {
        let piece = Piece {
            base: self.log_from,
            from: u64::MAX,
            chunk: LogChunk::default(),
        };
        self.here.copy_log(self.log, piece).await
    }

    /// The log of a build that has ended, to its end. What it is about does not fail for want of its last words.
    async fn finish(&self, own: &LogRef, told: &AtomicU64) {
        if tokio::time::timeout(LAST, self.last_words(own, told)).await != Ok(true) {
            let why = format!(
                "The last words of the build did not come from the builder {}",
                self.name
            );
            self.end(&why).await;
        }
    }

    /// Whether all came.
    async fn last_words(&self, own: &LogRef, told: &AtomicU64) -> bool {
        loop {
            match self.copy(own, told).await {
                Ok(Heard::End) => return true,
                Ok(Heard::Something) => {}
                Ok(Heard::Nothing) => tokio::time::sleep(LOOK).await,
                Err(_) => return false,
            }
        }
    }

    /// Ends the log of a build of which nothing more is heard. It goes on where another builder takes the build.
    async fn end(&self, why: &str) {
        if let Err(fault) = self.here.end_log(self.log, why).await {
            warn!(log = %self.log, "a log was not ended: {fault}");
        }
    }

    /// The next piece.
    async fn copy(&self, own: &LogRef, told: &AtomicU64) -> Result<Heard, Fault> {
        let from = told.load(Ordering::Relaxed);
        let chunk = self.machines.node(self.machine).read(own, from).await?;
        let heard = match (chunk.ended, chunk.text.is_empty()) {
            (true, _) => Heard::End,
            (false, true) => return Ok(Heard::Nothing),
            (false, false) => Heard::Something,
        };
        let base = self.log_from;
        let piece = Piece { base, from, chunk };
        let next = self.here.copy_log(self.log, piece).await?;
        told.store(next, Ordering::Relaxed);
        // A piece that brings nothing, or that was not due yet, is not asked for at once again.
        Ok(match heard {
            Heard::Something if next <= from => Heard::Nothing,
            heard => heard,
        })
    }
}

enum Heard {
    Something,
    Nothing,
    End,
}

/// An object from one node to another, as it comes.
async fn bring(digest: &Digest, from: &Client, to: &Client) -> Result<(), Fault> {
    keep(digest, from.give(digest).await?, to).await
}

/// Keeps an object as it comes. A builder could send another one than it was asked for.
async fn keep(digest: &Digest, bytes: Body, to: &Client) -> Result<(), Fault> {
    let kept = to.take(bytes).await?;
    match kept == *digest {
        true => Ok(()),
        false => Err(Fault::platform(format!(
            "the object {} arrived as another one",
            digest.short()
        ))),
    }
}

/// Bytes that break where no more are left.
fn within(bytes: Body, left: &Arc<AtomicU64>) -> Body {
    let left = Arc::clone(left);
    let pieces = bytes.into_data_stream().map(move |piece| {
        let piece = piece.map_err(io::Error::other)?;
        let length = piece.len() as u64;
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(length)
        });
        match taken {
            Ok(_) => Ok(piece),
            Err(_) => Err(io::Error::other(
                "the artifacts have more bytes than the build may write",
            )),
        }
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests;
