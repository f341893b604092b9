//! Moves the write-ahead log into the database, beside the thread that writes: no commit waits for it.
//!
//! SQLite would do it in the commit that makes the log long. A checkpoint of a connection of its own copies what was
//! committed before it began. While commits go on, it never reaches the end, and the log grows; then the writer itself
//! copies the little that is left, and its next commit begins the log anew.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use camino::Utf8Path;
use rusqlite::Connection;

use crate::{Error, schema};

/// Pages of 4 KiB in the log from which on it is copied.
const LONG: i32 = 1000;
/// From which on the writer copies the rest.
const TOO_LONG: i32 = 16 * LONG;

thread_local! {
    /// Pages in the log after this thread's last commit.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

pub(crate) struct Checkpoint {
    wake: Option<SyncSender<()>>,
    busy: Arc<AtomicBool>,
    /// A checkpoint has ended since the writer last copied the rest.
    copied: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Checkpoint {
    /// From now on the commits of `writer` copy nothing.
    pub fn start(writer: &Connection, path: &Utf8Path) -> Result<Self, Error> {
        let connection = schema::open_plain(path)?;
        writer.wal_hook(Some(|_, pages| {
            PAGES.set(pages);
            Ok(())
        }));
        let (wake, woken) = sync_channel::<()>(1);
        let (busy, copied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_busy, has_copied) = (Arc::clone(&busy), Arc::clone(&copied));
        let thread = thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || {
                while woken.recv().is_ok() {
                    copy(&connection);
                    has_copied.store(true, Relaxed);
                    is_busy.store(false, Relaxed);
                }
            })
            .map_err(|source| Error::io("starting a thread for", path, source))?;
        Ok(Self {
            wake: Some(wake),
            busy,
            copied,
            thread: Some(thread),
        })
    }

    /// After a commit, on its thread.
    pub fn committed(&self, writer: &Connection) {
        let pages = PAGES.get();
        if pages >= TOO_LONG && !self.busy.load(Relaxed) && self.copied.swap(false, Relaxed) {
            copy(writer);
        } else if pages >= LONG
            && !self.busy.swap(true, Relaxed)
            && let Some(wake) = &self.wake
        {
            // The thread ends only with this value.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Copies what no reader and no writer keeps from being copied.
fn copy(connection: &Connection) {
    let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = copied {
        // The log keeps everything; it is tried again.
        tracing::warn!(%error, "the write-ahead log could not be moved into the database");
    }
}
