//! The only SQL of the platform: catalogue, journal, ledger, vault, inbox.
//!
//! The room exists so that every decision is a committed row before it is an effect, and so that nothing else has to
//! know how rows are kept. One thread writes; what is queued at one moment is committed together, for one fsync.
//! Readers see the last commit and never wait for writes.
//!
//! It must not know of HTTP, containers or AWS, nor of the Amazon States Language: what an execution is doing is JSON
//! text to it. Time comes in as values.
//!
//! Every change of the catalogue is a line of the [ledger](Tx::record) in the same transaction. Files:
//! `store.sqlite3` and `keys/` in the directory that [`Store::open`] is given.

mod approvals;
mod catalogue;
mod checkpoint;
mod commands;
mod db;
mod error;
mod evidence;
mod inbox;
mod journal;
mod keys;
mod ledger;
mod pool;
mod schema;
mod secrets;
mod settings;
mod sql;
mod tokens;
mod vault;
mod writer;

pub use approvals::{Approval, ApprovalState, Decision, NewApproval};
pub use catalogue::{
    App, Arriving, Builder, Closure, Door, Environment, Gone, Heard, Host, HostState, Keepers, Machine, Move,
    NewBuilder, NewHost, NewInvitation, NewPush, NewRelease, Owner, Preview, Push, PushState, Release,
    Subnets, Tenant, Told,
};
pub use commands::{Command, of_tenant};
pub use db::{By, Db, Tx};
pub use error::Error;
pub use evidence::{
    Attestation, Bake, Build, Deployment, DeploymentState, Image, JudgedHost, Migration, MigrationState,
    NewBake, NewBuild, NewDeployment, NewMigration, Of, Origin, Predicate, Ran, RunsOn, Waits, WorkState,
};
pub use inbox::{Delivery, DeliveryVerdict, NewDelivery, Received};
pub use journal::{
    Activity, Alias, Batch, Begin, ChildEnd, Children, DESTROY, Definition, ExecutionFilter,
    ExecutionSummary, Finish, Fold, Kin, Logged, MachineFilter, MachineVersion, MapChild, MapRun,
    NewExecution, NewMachine, News, Piece, Progress, Run, RunChange, RunFilter, RunStep, Seen, Snapshot,
    StateMachine, Status, Tags, Waiting,
};
pub use keys::random_bits;
pub use ledger::LedgerFilter;
pub use secrets::{SecretInfo, SecretScope, SecretVersion};
pub use tokens::{NewToken, SigningKey, Token};

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use camino::Utf8Path;
use tokio::sync::{oneshot, watch};

use keys::Keys;
use pool::Pool;
use writer::{Done, Writer};

/// The store. Clones share one writer and one pool of readers; when the last one is dropped, what is queued is
/// still committed.
#[derive(Clone)]
pub struct Store {
    // Readers close before the writer does, so that a clean end leaves one file.
    pool: Arc<Pool>,
    writer: Arc<Writer>,
}

impl Store {
    /// Opens the store in `dir`, and makes it (database and keys, readable by their owner alone) when nothing is
    /// there. Blocks. Fails when another process has it open, when a key is missing or is not the one the database
    /// was made with, and when the database is damaged.
    pub fn open(dir: &Utf8Path) -> Result<Self, Error> {
        let lock = schema::lock(dir)?;
        let path = dir.join(schema::FILE);
        let keys = Arc::new(Keys::open(dir, !path.exists())?);
        let mut connection = schema::open(&path)?;
        schema::migrate(&mut connection)?;
        vault::prepare(&connection, &keys)?;
        Ok(Self {
            writer: Arc::new(Writer::start(connection, &path, Arc::clone(&keys), lock)?),
            pool: Arc::new(Pool::new(path, keys)),
        })
    }

    /// Runs `work` on the writer's thread, in a savepoint of its own, and answers after the commit. An error, or a
    /// panic, undoes what this `work` did and nothing else. The work is done even if the caller stops waiting.
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |tx: Result<&mut Tx<'_>, Error>| {
            let outcome = tx.map_err(E::from).and_then(|tx| {
                catch_unwind(AssertUnwindSafe(|| work(tx))).unwrap_or_else(|_| Err(Error::Panicked.into()))
            });
            Done {
                keep: outcome.is_ok(),
                finish: Box::new(move |commit| {
                    // Nobody may be waiting any more.
                    let _ = answer.send(outcome.and_then(|value| commit.map(|()| value).map_err(E::from)));
                }),
            }
        });
        self.writer.queue(job).await?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Changes after every commit: for those who wait for something to do or to show. What was committed is seen by a
    /// read that begins after the change.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.writer.commits()
    }

    /// Runs `work` on a connection that sees the last commit, and nothing newer, until it ends. Writes fail in it.
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&Db<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        Arc::clone(&self.pool).run(work).await
    }
}
