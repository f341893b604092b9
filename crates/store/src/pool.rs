//! Connections that only read, each used by one piece of work at a time on a blocking thread.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use camino::Utf8PathBuf;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::{Db, Error, keys::Keys, schema};

/// So many reads at once; further ones wait. Each connection has a page cache of its own.
const READERS: usize = 8;

pub(crate) struct Pool {
    path: Utf8PathBuf,
    keys: Arc<Keys>,
    free: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub fn new(path: Utf8PathBuf, keys: Arc<Keys>) -> Self {
        Self {
            path,
            keys,
            free: Semaphore::new(READERS),
            idle: Mutex::new(Vec::new()),
        }
    }

    pub async fn run<T, E>(
        self: Arc<Self>,
        work: impl FnOnce(&Db<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let pool = Arc::clone(&self);
        let permit = self.free.acquire().await.map_err(|_| Error::Closed)?;
        let outcome = tokio::task::spawn_blocking(move || pool.run_here(work)).await;
        drop(permit);
        outcome.unwrap_or_else(|_| Err(Error::Panicked.into()))
    }

    fn run_here<T, E: From<Error>>(&self, work: impl FnOnce(&Db<'_>) -> Result<T, E>) -> Result<T, E> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| schema::open_reader(&self.path), Ok)?;
        connection.execute_batch("BEGIN").map_err(Error::from)?;
        let db = Db::new(&connection, &self.keys);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&db)));
        if connection.execute_batch("ROLLBACK").is_ok() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
        outcome.unwrap_or_else(|_| Err(Error::Panicked.into()))
    }
}
