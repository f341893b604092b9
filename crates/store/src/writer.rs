//! The one thread that writes. Group commit: everything that is queued when a transaction begins, or arrives while it
//! is filled, shares one commit and one fsync. Each piece of work has a savepoint, so that it fails alone.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use camino::Utf8Path;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::{Error, Tx, checkpoint::Checkpoint, keys::Keys};

/// A piece of work. Called with an error, it only passes that on.
pub(crate) type Job = Box<dyn FnOnce(Result<&mut Tx<'_>, Error>) -> Done + Send>;

/// What a piece of work leaves: whether its changes stay, and how to answer once the commit is known.
pub(crate) struct Done {
    pub keep: bool,
    pub finish: Finish,
}

pub(crate) type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// So many pieces of work share a commit at most, which bounds how long the first of them waits.
const BATCH: usize = 512;
/// So many may wait; further callers wait to be queued.
const QUEUE: usize = 1024;

pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    commits: watch::Receiver<u64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// `lock` is held until the thread has ended.
    pub fn start(
        connection: Connection,
        path: &Utf8Path,
        keys: Arc<Keys>,
        lock: File,
    ) -> Result<Self, Error> {
        let checkpoint = Checkpoint::start(&connection, path)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                run(&connection, &checkpoint, &keys, queue, &committed);
                // The last connection that closes leaves one file.
                drop(checkpoint);
                if let Err((_, error)) = connection.close() {
                    error!(%error, "the database did not close cleanly; nothing is lost");
                }
                drop(lock);
            })
            .map_err(|source| Error::io("starting a thread for", "the writer".into(), source))?;
        Ok(Self {
            jobs: Some(jobs),
            commits,
            thread: Some(thread),
        })
    }

    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    pub async fn queue(&self, job: Job) -> Result<(), Error> {
        let jobs = self.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(job).await.map_err(|_| Error::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        // The last handle may have been owned by a piece of work.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

fn run(
    connection: &Connection,
    checkpoint: &Checkpoint,
    keys: &Keys,
    mut queue: mpsc::Receiver<Job>,
    committed: &watch::Sender<u64>,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut tx = Tx::new(connection, keys);
        batch(&mut tx, first, &mut queue);
        committed.send_modify(|count| *count += 1);
        checkpoint.committed(connection);
        if tx.scrub.get() {
            scrub(connection);
        }
    }
}

fn batch(tx: &mut Tx<'_>, first: Job, queue: &mut mpsc::Receiver<Job>) {
    let connection = tx.connection;
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        let done = first(Err(error.into()));
        return answer(done.finish, Ok(()));
    }
    let mut finishes = Vec::new();
    let mut next = Some(first);
    while let Some(job) = next {
        finishes.push(step(tx, job));
        // SQLite ends the transaction by itself when the disk is full or broken.
        if connection.is_autocommit() {
            error!("the database undid a whole commit; is the disk full?");
            return finishes
                .into_iter()
                .for_each(|finish| answer(finish, Err(Error::Undone)));
        }
        next = (finishes.len() < BATCH).then(|| queue.try_recv().ok()).flatten();
    }
    let committed = connection.execute_batch("COMMIT").map_err(Arc::new);
    if let Err(error) = &committed {
        error!(%error, "a commit failed");
        let _ = connection.execute_batch("ROLLBACK");
    }
    for finish in finishes {
        answer(finish, committed.clone().map_err(Error::Commit));
    }
}

/// Runs one piece of work between savepoint and release.
fn step(tx: &mut Tx<'_>, job: Job) -> Finish {
    let connection = tx.connection;
    let control = |sql| {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute([]))
    };
    if let Err(error) = control("SAVEPOINT work") {
        return job(Err(error.into())).finish;
    }
    let done = job(Ok(tx));
    let undone = if done.keep || connection.is_autocommit() {
        Ok(0)
    } else {
        control("ROLLBACK TO work")
    };
    let released = undone.and_then(|_| match connection.is_autocommit() {
        true => Ok(0),
        false => control("RELEASE work"),
    });
    if let Err(error) = released {
        // What should be undone might stay: the whole commit must not happen.
        error!(%error, "a savepoint could not be ended");
        let _ = connection.execute_batch("ROLLBACK");
    }
    done.finish
}

/// Foreign conversions and drops run in here; theirs is not the writer's fate.
fn answer(finish: Finish, committed: Result<(), Error>) {
    let _ = catch_unwind(AssertUnwindSafe(|| finish(committed)));
}

/// Moves what was overwritten out of the write-ahead log, so that no old copy of it stays there.
fn scrub(connection: &Connection) {
    // A checkpoint beside this one makes SQLite refuse at once; a reader, only after the connection's patience.
    let began = Instant::now();
    while began.elapsed() < SCRUB {
        let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        if matches!(moved, Ok(false)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    tracing::warn!("the write-ahead log is in use: a destroyed key leaves it with a later checkpoint");
}

/// How long a log that is in use is tried again.
const SCRUB: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::schema;

    fn insert(name: String, answers: mpsc::Sender<(String, bool)>, bytes: usize) -> Job {
        Box::new(move |tx| {
            let value = "x".repeat(bytes);
            let outcome = tx.and_then(|tx| tx.put_setting(&name, Some(&value)));
            Done {
                keep: outcome.is_ok(),
                finish: Box::new(move |commit| {
                    answers.send((name, outcome.and(commit).is_ok())).unwrap();
                }),
            }
        })
    }

    /// Whatever SQLite undoes when the disk is full, no answer says otherwise.
    #[test]
    fn a_full_disk_answers_what_is_true_and_ends_when_there_is_room() {
        let held = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(held.path()).unwrap();
        let keys = Keys::open(dir, true).unwrap();
        let mut connection = schema::open(&dir.join("db")).unwrap();
        schema::migrate(&mut connection).unwrap();
        // No page is free within the file.
        connection.execute_batch("VACUUM").unwrap();
        let pages: u32 = connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        let limit = |pages: u32| connection.pragma_update(None, "max_page_count", pages).unwrap();
        limit(pages + 20);
        let (send, answers) = mpsc::channel();
        let run = |round: &str| {
            let (jobs, mut queue) = tokio::sync::mpsc::channel(8);
            for (n, bytes) in [10, 30_000, 10, 90_000, 10].into_iter().enumerate() {
                jobs.try_send(insert(format!("{round}/{n}"), send.clone(), bytes))
                    .unwrap_or_else(|_| panic!());
            }
            drop(jobs);
            while let Some(first) = queue.blocking_recv() {
                batch(&mut Tx::new(&connection, &keys), first, &mut queue);
            }
            let there = |name: &String| Tx::new(&connection, &keys).setting(name).unwrap().is_some();
            let answered: Vec<_> = answers.try_iter().collect();
            assert_eq!(answered.len(), 5);
            answered
                .iter()
                .for_each(|(name, ok)| assert_eq!(there(name), *ok, "{name}"));
            answered.iter().filter(|(_, ok)| *ok).count()
        };
        assert!(run("full") < 5);
        limit(1_000_000);
        assert_eq!(run("room"), 5);
    }
}
