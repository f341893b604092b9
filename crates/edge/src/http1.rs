//! HTTP/1.1, by our own hand: clients on one side, targets on the other.
//!
//! `parse` reads and writes heads, `frame` finds the ends of bodies, `proxy` takes one request to a target, `relay`
//! moves it and its answer, `tunnel` carries what comes after an upgrade. This file is the life of one client connection.

pub mod class;
pub mod frame;
pub mod parse;
pub mod proxy;
pub mod relay;
pub mod tunnel;

use std::{cell::RefCell, io, rc::Rc};

use self::{
    frame::{Bad, HEAD_TOO_LARGE},
    parse::Scan,
};
use crate::{
    answer::Answer,
    head::Ask,
    http2,
    link::{Buffer, Link},
    worker::{Ends, LAST, Watched, Worker},
};

/// One client connection.
struct Session {
    worker: Rc<Worker>,
    link: Rc<Link>,
    ends: Box<Ends>,
    input: Buffer,
    ask: Ask,
    /// What goes to the client next.
    out: Vec<u8>,
    /// Bytes of the connection that the log has counted to requests, both ways.
    counted: (u64, u64),
}

/// What came instead of, or as, the next request.
enum Next {
    /// A head of so many bytes.
    Head(usize),
    Http2,
    Bad(Bad),
    /// The client is gone, or was silent for too long.
    Gone,
    /// It began a request and did not finish it in time.
    Late,
}

/// What becomes of the connection after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    /// Close; the client may still be sending.
    Linger,
    Close,
}

/// Serves a client until it, or the worker, has enough.
pub async fn serve(worker: Rc<Worker>, client: Watched, ends: Box<Ends>) {
    let mut session = Session {
        link: Rc::clone(&client.link),
        ends,
        input: Buffer::default(),
        ask: Ask::default(),
        out: Vec::new(),
        counted: (0, 0),
        worker,
    };
    let mut first = true;
    loop {
        let after = match session.next(first).await {
            Next::Head(length) => session.handle(length).await,
            Next::Http2 => {
                let Session {
                    worker, input, ends, ..
                } = session;
                return Box::pin(http2::serve(worker, client, input, ends)).await;
            }
            Next::Bad(bad) => session.turn_away(&Answer::bad_request(bad.0)).await,
            Next::Late => session.turn_away(&Answer::request_timeout()).await,
            Next::Gone => After::Close,
        };
        first = false;
        match after {
            After::Keep => {}
            After::Linger => {
                session.linger().await;
                break;
            }
            After::Close => break,
        }
    }
    let Session {
        worker,
        input,
        ask,
        out,
        ..
    } = session;
    worker.buffers.give(input);
    worker.papers.give(ask, out);
}

/// What requests and answers are written in, in waiting: connections that are idle hold none.
#[derive(Default)]
pub struct Papers(RefCell<Vec<(Ask, Vec<u8>)>>);

impl Papers {
    /// With a note for the log, where requests are logged.
    fn take(&self, logged: bool) -> (Ask, Vec<u8>) {
        let kept = self.0.borrow_mut().pop();
        kept.unwrap_or_else(|| (Ask::noting(logged), Vec::new()))
    }

    fn give(&self, ask: Ask, out: Vec<u8>) {
        const KEPT: usize = 256;
        let mut kept = self.0.borrow_mut();
        // One that was never used has no note.
        if kept.len() < KEPT && ask.wire.capacity() > 0 {
            kept.push((ask, out));
        }
    }
}

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Session {
    /// Waits for the next head.
    async fn next(&mut self, first: bool) -> Next {
        if self.input.is_empty() && self.wait(first).await.is_err() {
            return Next::Gone;
        }
        let most = self.worker.limits().head;
        self.link.arm(self.worker.after(self.worker.limits().head_time));
        let mut scan = Scan::default();
        let mut blank = false;
        loop {
            // One empty line before a request is allowed for (RFC 9112, section 2.2).
            if !blank && self.input.filled_part().starts_with(b"\r\n") {
                self.input.consume(2);
                (blank, scan) = (true, Scan::default());
                continue;
            }
            let data = self.input.filled_part();
            if first && !data.is_empty() && is_prefix(data, PREFACE) {
                if data.len() >= PREFACE.len() {
                    return Next::Http2;
                }
            } else {
                match scan.find(data) {
                    Ok(Some(length)) if length <= most => return Next::Head(length),
                    Ok(None) if data.len() < most => {}
                    Ok(_) => return Next::Bad(HEAD_TOO_LARGE),
                    Err(bad) => return Next::Bad(bad),
                }
            }
            self.input.hold(most);
            match self.link.read(&mut self.input).await {
                Ok(0) => return Next::Gone,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.input.is_empty() => {
                    return Next::Late;
                }
                Err(_) => return Next::Gone,
            }
        }
    }

    /// Waits for the first byte of a request. A client that is silent holds no buffer, nor anything else of a request.
    async fn wait(&mut self, first: bool) -> io::Result<()> {
        let limits = self.worker.limits();
        let patience = match first {
            _ if self.worker.is_stopping() => LAST,
            true => limits.head_time,
            false => limits.idle,
        };
        let worker = &self.worker;
        worker.buffers.give(std::mem::take(&mut self.input));
        worker
            .papers
            .give(std::mem::take(&mut self.ask), std::mem::take(&mut self.out));
        self.link.arm(self.worker.after(patience));
        self.link.set_idle(true);
        let readable = self.link.readable().await;
        self.link.set_idle(false);
        self.input = self.worker.buffers.take();
        (self.ask, self.out) = self.worker.papers.take(self.worker.is_logging());
        readable
    }

    /// One request, whose head is the first `length` bytes of the input.
    async fn handle(&mut self, length: usize) -> After {
        let bits = (self.worker.id(), self.worker.id());
        let head = &self.input.filled_part()[..length];
        let request = match parse::request(head, &self.ends, bits, &mut self.ask) {
            Ok(request) => request,
            Err(bad) => return self.turn_away(&Answer::bad_request(bad.0)).await,
        };
        // From here on the client waits for us.
        self.link.arm(crate::link::NEVER);
        self.input.consume(length);
        proxy::exchange(self, request).await
    }

    /// Answers what could not be read as a request, and closes.
    async fn turn_away(&mut self, answer: &Answer) -> After {
        if self.worker.is_logging() {
            self.ask.guess(self.input.filled_part(), &self.ends);
            let all = self.input.len();
            self.input.consume(all);
        }
        self.refuse(answer).await
    }

    /// Answers what is no request, and closes.
    async fn refuse(&mut self, answer: &Answer) -> After {
        self.worker
            .shared
            .totals
            .refused
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.out.clear();
        answer.write(&mut self.out, "Connection: close\r\n", false);
        let after = self.flush().await;
        if let Some(log) = &self.worker.log {
            let moved = count(&self.link, &self.input, &mut self.counted);
            log.refused(&mut self.ask, &self.ends, "HTTP/1.1", answer, moved);
        }
        after
    }

    /// Sends `out`, after which the connection is to be closed.
    async fn flush(&mut self) -> After {
        // The deadline of reading may be over; writing has its own.
        match self.link.has_expired() {
            true => self.link.write_now(&self.out),
            false => {
                let until = self.worker.after(self.worker.limits().idle);
                if self.link.write_until(&self.out, until).await.is_err() {
                    return After::Close;
                }
            }
        }
        After::Linger
    }

    /// Reads what the client still sends, for a short time: closing at once would reset the connection, and the answer
    /// might be lost on its way.
    async fn linger(&mut self) {
        const ENOUGH: usize = 1024 * 1024;
        self.link.finish().await;
        self.link
            .arm(self.worker.after(std::time::Duration::from_secs(2)));
        let mut read = 0;
        while read < ENOUGH {
            self.input.consume(self.input.len());
            match self.link.read(&mut self.input).await {
                Ok(0) | Err(_) => break,
                Ok(count) => read += count,
            }
        }
    }
}

/// Bytes that have come and gone since they were counted last. What has been read and not used is for the next request.
fn count(link: &Link, input: &Buffer, counted: &mut (u64, u64)) -> (u64, u64) {
    let (read, written) = link.moved();
    let now = (read.saturating_sub(input.len() as u64), written);
    let before = std::mem::replace(counted, now);
    (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
}

fn is_prefix(data: &[u8], of: &[u8]) -> bool {
    let length = data.len().min(of.len());
    data[..length] == of[..length]
}
