//! Work on many files, away from the thread that reaps and answers. One thread that exists from the beginning, because
//! a host out of pids could not give one later.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
pub struct Files {
    jobs: mpsc::Sender<Job>,
}

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("the work on files broke off")]
pub struct Broken;

impl Files {
    pub fn begin() -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::Builder::new().name("files".to_owned()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Does the work, one after another with all other work.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Broken> {
        let (answer, outcome) = oneshot::channel();
        let job = Box::new(move || {
            // Whoever asked may have left.
            let _ = answer.send(work());
        });
        self.jobs.send(job).map_err(|_| Broken)?;
        outcome.await.map_err(|_| Broken)
    }
}
