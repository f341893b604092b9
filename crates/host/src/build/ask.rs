//! Has a shell read what only a shell can, before a build: the keys of its cache, which lies below the files of the
//! build's container when that starts.
//!
//! The shell is in a container of its own, made as the build's: the same image, source tree, variables and limits, but no
//! secrets, no network and little time. What it writes is gone with it.

use std::{fs::File, io, time::Duration};

use camino::{Utf8Path, Utf8PathBuf};
use model::{Digest, Ticket, port::BuildOrder};

use super::{
    Error, Yard,
    console::{TEXT, bounded},
    pipe,
    protocol::{Event, Frame, read_frame},
    sandbox,
};
use crate::{ticket::Stop, work::Work};

/// All keys of a build together.
const TIME: Duration = Duration::from_secs(60);

/// What a key came to, or why it cannot be read: `the cache is not used: its key WHY`.
pub(super) type Expanded = Result<String, String>;

/// The build whose keys are read.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub ticket: &'a Ticket,
    pub order: &'a BuildOrder,
    pub image: Digest,
    /// Its source tree, as a layer.
    pub source: &'a Utf8Path,
}

impl Yard {
    /// One answer for each key. An error is the platform's, or that the build is to stop.
    pub(super) async fn ask(
        &self,
        asking: Asking<'_>,
        keys: &[&str],
        stop: &mut Stop,
    ) -> Result<Vec<Expanded>, Error> {
        let id = format!("key-{}", Digest::of(asking.ticket.as_str()).short());
        let work = Work::open(&self.0.containers, &self.0.home, id).await?;
        let answers = self.ask_in(&work, asking, keys, stop).await;
        work.close().await?;
        answers
    }

    async fn ask_in(
        &self,
        work: &Work,
        asking: Asking<'_>,
        keys: &[&str],
        stop: &mut Stop,
    ) -> Result<Vec<Expanded>, Error> {
        let Asking {
            ticket,
            order,
            image,
            source,
        } = asking;
        let mut lowers: Vec<Utf8PathBuf> = vec![source.to_owned()];
        lowers.extend(self.0.oven.images().lowers(&image)?);
        let uids = self.0.oven.uids().take().ok_or(Error::Full)?;
        let mut job = sandbox::job(ticket, order, image, 0);
        job.secrets.clear();
        job.keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let (stdin, job_writer) = pipe()?;
        let (frames, output) = pipe()?;
        let spec = sandbox::spec(sandbox::Parts {
            id: work.id(),
            order,
            lowers,
            scratch: work.directory().join("scratch"),
            uid_base: uids.base,
            program: self.0.program.clone(),
            network: None,
            stdin,
            output,
        });
        // As of a build: each pipe has a thread, and the deadline closes both.
        let tell = tokio::task::spawn_blocking(move || job.write(File::from(job_writer)));
        let hear = tokio::task::spawn_blocking(move || answers(File::from(frames)));
        let stopping = async { drop(stop.asked().await) };
        let exit = self.0.containers.run_until(spec, TIME, stopping).await;
        let heard = hear.await.map_err(|_| Error::Interrupted)?;
        let _ = tell.await;
        let exit = exit?;
        if exit.stopped {
            return Err(Error::Stopped(stop.reason().unwrap_or_default()));
        }
        let silent = match exit.timed_out {
            true => format!("takes longer than {} seconds to be read", TIME.as_secs()),
            false => "ends the container that reads it".to_owned(),
        };
        Ok(heard
            .filter(|answers| answers.len() == keys.len())
            .unwrap_or_else(|| vec![Err(silent); keys.len()]))
    }
}

/// What the runner tells last, which shares its container with the customer's commands.
fn answers(from: File) -> Option<Vec<Expanded>> {
    let mut from = io::BufReader::new(from);
    let mut heard = None;
    while let Ok(Some(frame)) = read_frame(&mut from) {
        if let Frame::Event(Event::Expanded(answers)) = frame {
            heard = Some(answers);
        }
    }
    let short = |answer: Expanded| answer.map_err(|why| bounded(why, TEXT));
    heard.map(|answers| answers.into_iter().map(short).collect())
}
