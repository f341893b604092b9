//! The access log: one line per request, handed on in blocks. When the disk is slower than the requests, lines are
//! dropped and counted; memory is bounded and no request waits for a log.

mod line;
mod newest;
mod rotate;

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use camino::Utf8PathBuf;
use tokio::sync::oneshot;

pub use newest::{Lines, Newest, newest};
pub use rotate::Rotation;

use crate::{head::Ask, live::Shared, upstream::Lease};
use rotate::Current;

/// Bytes that a worker gathers before it hands them on.
const BLOCK: usize = 32 * 1024;
/// Blocks that may wait for the disk.
const WAITING: usize = 64;
/// How often a file to which nothing comes is asked for its age.
const LOOK: Duration = Duration::from_secs(60);

/// What one line says.
pub struct Record<'a> {
    pub peer: SocketAddr,
    pub version: &'static str,
    pub ask: &'a Ask,
    pub lease: Option<&'a Lease>,
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    pub took: Duration,
}

/// Where lines go, and what they look like.
#[derive(Debug, Clone)]
pub struct Log {
    pub path: Utf8PathBuf,
    pub format: Format,
    /// One request in so many is written; 0 counts as 1.
    pub one_in: u32,
    pub rotation: Rotation,
}

impl Log {
    /// Every request, in short.
    pub fn short(path: Utf8PathBuf) -> Self {
        Self {
            path,
            format: Format::Short,
            one_in: 1,
            rotation: Rotation::default(),
        }
    }
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For eyes.
    #[default]
    Short,
    /// The fields of ALB's access logs, in their order; what is not known is `-`.
    Alb,
    /// One JSON object a line.
    Json,
}

/// One worker's end of the log.
pub struct Writer {
    block: RefCell<String>,
    writer: SyncSender<String>,
    format: Format,
    one_in: u32,
    turn: Cell<u32>,
    shared: Arc<Shared>,
}

impl Writer {
    pub fn new(writer: SyncSender<String>, log: &Log, shared: Arc<Shared>) -> Self {
        Self {
            block: RefCell::default(),
            writer,
            format: log.format,
            one_in: log.one_in.max(1),
            turn: Cell::new(0),
            shared,
        }
    }

    pub fn write(&self, record: &Record<'_>) {
        let turn = self.turn.get() + 1;
        self.turn.set(if turn >= self.one_in { 0 } else { turn });
        if turn < self.one_in {
            return;
        }
        let mut block = self.block.borrow_mut();
        match self.format {
            Format::Short => line::short(&mut block, record),
            Format::Alb => line::alb(&mut block, record),
            Format::Json => line::json(&mut block, record),
        }
        block.push('\n');
        if block.len() >= BLOCK {
            drop(block);
            self.flush();
        }
    }

    pub fn flush(&self) {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut *block, String::with_capacity(BLOCK + 1024));
        if let Err(error) = self.writer.try_send(full) {
            let (std::sync::mpsc::TrySendError::Full(lost)
            | std::sync::mpsc::TrySendError::Disconnected(lost)) = error;
            let lines = lost.bytes().filter(|b| *b == b'\n').count();
            self.shared.totals.log_dropped.fetch_add(lines as u64, Relaxed);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Starts the thread that owns the file. It ends when the last sender is gone and all is written; then the receiver is
/// ready.
pub fn open(log: &Log) -> io::Result<(SyncSender<String>, oneshot::Receiver<()>)> {
    let current = Current::open(&log.path, log.rotation)?;
    let (sender, blocks) = sync_channel(WAITING);
    let path = log.path.clone();
    let (ending, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("edge-log".into())
        .spawn(move || {
            keep(&path, current, &blocks);
            drop(ending);
        })?;
    Ok((sender, ended))
}

fn keep(path: &Utf8PathBuf, mut current: Current, blocks: &Receiver<String>) {
    let mut failing = false;
    loop {
        let written = match blocks.recv_timeout(LOOK) {
            Ok(block) => current.write(block.as_bytes()),
            Err(RecvTimeoutError::Timeout) => current.turn(0),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let (Err(error), false) = (&written, failing) {
            tracing::warn!(%error, %path, "cannot write the access log");
        }
        failing = written.is_err();
    }
}
