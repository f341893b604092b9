//! The access log: one line per request, handed on in blocks. When the disk is slower than the requests, lines are
//! dropped and counted; memory is bounded and no request waits for a log.

use std::{
    cell::RefCell,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::oneshot;

use crate::{clock, head::Ask, live::Shared, upstream::Lease};

/// Bytes that a worker gathers before it hands them on.
const BLOCK: usize = 32 * 1024;
/// Blocks that may wait for the disk.
const WAITING: usize = 64;

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

/// One worker's end of the log.
pub struct Log {
    block: RefCell<String>,
    writer: SyncSender<String>,
    shared: Arc<Shared>,
}

impl Log {
    pub fn new(writer: SyncSender<String>, shared: Arc<Shared>) -> Self {
        Self {
            block: RefCell::default(),
            writer,
            shared,
        }
    }

    pub fn write(&self, record: &Record<'_>) {
        let mut block = self.block.borrow_mut();
        let ask = record.ask;
        let _ = write!(block, "{:.3} {} \"", clock::now(), record.peer);
        push_quoted(&mut block, ask.method_name());
        block.push(' ');
        push_quoted(&mut block, &ask.host);
        push_quoted(&mut block, ask.target());
        let (status, bytes, us) = (record.status, record.bytes, record.took.as_micros());
        let _ = write!(block, " {}\" {status} {bytes} {us}us ", record.version);
        match record.lease {
            Some(lease) => {
                let target = &lease.target;
                let _ = write!(block, "{} {} {} ", lease.group.name, target.id(), target.address);
            }
            None => block.push_str("- - - "),
        }
        push_quoted(&mut block, &ask.id);
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

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What a client sent, so that it can neither end the quotation nor the line. At most 1 KiB of it.
fn push_quoted(out: &mut String, text: &str) {
    for c in text.chars().take(1024) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
}

/// Starts the thread that owns the file. It ends when the last sender is gone and all is written; then the receiver is
/// ready.
pub fn open(path: &Utf8Path) -> io::Result<(SyncSender<String>, oneshot::Receiver<()>)> {
    let file = append(path)?;
    let (sender, blocks) = sync_channel(WAITING);
    let path = path.to_owned();
    let (ending, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("edge-log".into())
        .spawn(move || {
            keep(&path, file, &blocks);
            drop(ending);
        })?;
    Ok((sender, ended))
}

fn append(path: &Utf8Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn keep(path: &Utf8PathBuf, file: File, blocks: &Receiver<String>) {
    let mut file = file;
    let mut failing = false;
    while let Ok(block) = blocks.recv() {
        if has_moved(path, &file) {
            // Whoever rotates logs renames the file and expects a new one.
            file = append(path).unwrap_or(file);
        }
        let written = file.write_all(block.as_bytes());
        if let (Err(error), false) = (&written, failing) {
            tracing::warn!(%error, %path, "cannot write the access log");
        }
        failing = written.is_err();
    }
}

fn has_moved(path: &Utf8Path, file: &File) -> bool {
    match (path.metadata(), file.metadata()) {
        (Ok(there), Ok(here)) => (there.dev(), there.ino()) != (here.dev(), here.ino()),
        (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
