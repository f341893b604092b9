//! The access log: one line per request, handed on in blocks. When the disk is slower than the requests, lines are
//! dropped and counted; memory is bounded and no request waits for a log.

mod line;
mod newest;
mod note;
mod rotate;

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::oneshot;

pub use newest::{Lines, Newest, newest};
pub use note::Note;
pub use rotate::Rotation;

use crate::{
    answer::Answer, balance::Group, clock, head::Ask, live::Shared, target::Target, tls::Agreed, worker::Ends,
};
use newest::LOOKED_AT;
use rotate::{Current, Written};

/// Bytes that a worker gathers before it hands them on.
const BLOCK: usize = 32 * 1024;
/// Blocks that may wait for the disk.
const WAITING: usize = 64;
/// How often a file to which nothing comes is asked for its age, and how often what failed is tried again.
const LOOK: Duration = Duration::from_secs(60);

/// What one line says, beside what the request's [`Note`] says.
pub struct Record<'a> {
    pub ends: &'a Ends,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    pub ask: &'a Ask,
    /// Who was asked.
    pub met: Option<(&'a Group, &'a Target)>,
    /// What the client got; 460 when it did not wait.
    pub status: u16,
    /// What the target answered.
    pub target_status: Option<u16>,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Bytes of the request and of the answer, heads included, without TLS and the frames of HTTP/2.
    pub received: u64,
    pub sent: u64,
    /// Until the target had the request's head, and from then until its answer's head came.
    pub waited: Option<(Duration, Duration)>,
    pub took: Duration,
}

/// What all lines of one connection say.
pub struct Connection {
    /// Unique, not secret.
    pub id: u64,
    /// What was agreed on for TLS.
    pub tls: Option<Agreed>,
}

/// Where lines go, and what they look like.
#[derive(Debug, Clone)]
pub struct Log {
    pub path: Utf8PathBuf,
    pub format: Format,
    /// One request in so many is written; 0 counts as 1.
    pub one_in: u32,
    pub rotation: Rotation,
    /// Where the newest lines are in short as well, when they are not above: [`Newest`] is answered from short lines
    /// alone, for they say whose each of them is.
    pub newest: Option<Utf8PathBuf>,
}

impl Log {
    /// Every request, in short.
    pub fn short(path: Utf8PathBuf) -> Self {
        Self {
            path,
            format: Format::Short,
            one_in: 1,
            rotation: Rotation::default(),
            newest: None,
        }
    }

    /// Where short lines are to be found.
    pub fn short_lines(&self) -> Option<&Utf8Path> {
        match self.format {
            Format::Short => Some(&self.path),
            Format::Alb | Format::Json => self.newest.as_deref(),
        }
    }

    /// All that is written of a request: this log, and one of short lines beside it, which has no more than is ever
    /// looked at.
    fn all(&self) -> impl Iterator<Item = Self> {
        let Rotation { size, age, keep } = self.rotation;
        let most = |bytes: u64, most: u64| if bytes == 0 { most } else { bytes.min(most) };
        let path = self.short_lines().filter(|path| **path != self.path);
        let beside = path.map(|path| Self {
            one_in: self.one_in,
            rotation: Rotation {
                size: most(size, LOOKED_AT),
                age,
                keep: most(keep, 2 * LOOKED_AT),
            },
            ..Self::short(path.to_owned())
        });
        std::iter::once(self.clone()).chain(beside)
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

/// A file of lines: where blocks of them go, and what they look like.
pub type Sink = (SyncSender<String>, Format);

/// One worker's end of the log.
pub struct Writer {
    pages: Vec<Page>,
    one_in: u32,
    turn: Cell<u32>,
    shared: Arc<Shared>,
}

/// The lines for one file that have not been handed on.
struct Page {
    block: RefCell<String>,
    writer: SyncSender<String>,
    format: Format,
}

impl Writer {
    pub fn new(sinks: Vec<Sink>, one_in: u32, shared: Arc<Shared>) -> Self {
        let page = |(writer, format)| Page {
            block: RefCell::default(),
            writer,
            format,
        };
        Self {
            pages: sinks.into_iter().map(page).collect(),
            one_in: one_in.max(1),
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
        let now = clock::now();
        for page in &self.pages {
            let mut block = page.block.borrow_mut();
            match page.format {
                Format::Short => line::short(&mut block, record, now),
                Format::Alb => line::alb(&mut block, record, now),
                Format::Json => line::json(&mut block, record, now),
            }
            block.push('\n');
            let full = block.len() >= BLOCK;
            drop(block);
            if full {
                page.flush(&self.shared);
            }
        }
    }

    /// A request that came to no rule.
    pub fn refused(
        &self,
        ask: &mut Ask,
        ends: &Ends,
        version: &'static str,
        answer: &Answer,
        (received, sent): (u64, u64),
    ) {
        if let Some(note) = &mut ask.note {
            note.answer(answer);
        }
        self.write(&Record {
            ends,
            version,
            ask,
            met: None,
            status: answer.status,
            target_status: None,
            bytes: answer.body.len() as u64,
            received,
            sent,
            waited: None,
            took: Duration::ZERO,
        });
    }

    pub fn flush(&self) {
        for page in &self.pages {
            page.flush(&self.shared);
        }
    }
}

impl Page {
    fn flush(&self, shared: &Shared) {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut *block, String::with_capacity(BLOCK + 1024));
        if let Err(error) = self.writer.try_send(full) {
            let (TrySendError::Full(lost) | TrySendError::Disconnected(lost)) = error;
            count_lost(shared, &lost);
        }
    }
}

fn count_lost(shared: &Shared, block: &str) {
    let lines = block.bytes().filter(|b| *b == b'\n').count();
    shared.totals.log_dropped.fetch_add(lines as u64, Relaxed);
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Opens all files of a log, or says which of them cannot be. The future is ready when the last sender is gone and all is
/// written.
pub fn open(
    log: &Log,
    shared: &Arc<Shared>,
) -> Result<(Vec<Sink>, impl Future<Output = ()> + use<>), (Utf8PathBuf, io::Error)> {
    let (mut sinks, mut ends) = (Vec::new(), Vec::new());
    for log in log.all() {
        let opened = begin(&log, Arc::clone(shared));
        let (sender, ended) = opened.map_err(|error| (log.path, error))?;
        sinks.push((sender, log.format));
        ends.push(ended);
    }
    let ended = async move {
        for end in ends {
            // It ends without a word: the sender is dropped.
            let _ = end.await;
        }
    };
    Ok((sinks, ended))
}

/// Starts the thread that owns a file. It ends when the last sender is gone and all is written; then the receiver is
/// ready.
fn begin(log: &Log, shared: Arc<Shared>) -> io::Result<(SyncSender<String>, oneshot::Receiver<()>)> {
    if let Some(folder) = log.path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let current = Current::open(&log.path, log.rotation)?;
    let (sender, blocks) = sync_channel(WAITING);
    let path = log.path.clone();
    let (ending, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("edge-log".into())
        .spawn(move || {
            keep(&path, current, &blocks, &shared);
            drop(ending);
        })?;
    Ok((sender, ended))
}

fn keep(path: &Utf8Path, mut current: Current, blocks: &Receiver<String>, shared: &Shared) {
    let mut failing = false;
    loop {
        match blocks.recv_timeout(LOOK) {
            Ok(block) => {
                let Written { turned, written } = current.write(block.as_bytes());
                warn_of(path, &turned);
                if let (Err(error), false) = (&written, failing) {
                    tracing::warn!(%error, %path, "cannot write the access log: lines are lost");
                }
                failing = written.is_err();
                if failing {
                    count_lost(shared, &block);
                }
            }
            Err(RecvTimeoutError::Timeout) => warn_of(path, &current.turn(0)),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// At most once in a `LOOK`, because it is not tried more often.
fn warn_of(path: &Utf8Path, turned: &io::Result<()>) {
    if let Err(error) = turned {
        tracing::warn!(%error, %path, "no new access log can be begun: the one before goes on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_log_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path())
            .unwrap()
            .join("log/edge/access.log");
        let (sender, ended) = begin(&Log::short(path.clone()), Arc::default()).unwrap();
        sender.send("one\n".to_owned()).unwrap();
        drop(sender);
        let _ = ended.blocking_recv();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\n");
    }

    #[test]
    fn lines_that_the_disk_does_not_take_are_counted() {
        let full = Log {
            rotation: Rotation {
                size: 0,
                age: Duration::ZERO,
                keep: 0,
            },
            ..Log::short("/dev/full".into())
        };
        let shared = Arc::new(Shared::default());
        let (sender, ended) = begin(&full, Arc::clone(&shared)).unwrap();
        sender.send("one\ntwo\n".to_owned()).unwrap();
        drop(sender);
        // It ends without a word: the sender is dropped.
        let _ = ended.blocking_recv();
        assert_eq!(shared.totals.log_dropped.load(Relaxed), 2);
    }
}
