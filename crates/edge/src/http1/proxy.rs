//! One request to a target and its answer back.

use std::{cell::Cell, io, sync::atomic::Ordering::Relaxed, time::Instant};

use super::{
    After, Session,
    frame::{Bad, Body, Framing},
    parse::{self, Reply, Request},
    tunnel,
};
use crate::{
    access::Record,
    answer::Answer,
    head::{Ask, Method},
    link::{Buffer, Link, NEVER},
    upstream::{self, Attempts, Lease},
    worker::Worker,
};

/// Why an attempt came to no complete answer.
pub enum Fail {
    /// The target closed the connection before a byte of an answer.
    Lost,
    /// The target did not answer in time.
    Late,
    /// The target answered with something that is no answer.
    Bad(Bad),
    /// The answer broke off after the client had its beginning.
    Broken,
    ClientGone,
    ClientLate,
    ClientBad(Bad),
}

/// A complete answer.
struct Done {
    status: u16,
    bytes: u64,
    /// The client's connection may go on.
    keep: bool,
    /// The target's connection may go on.
    keep_target: bool,
    /// The answer was 101.
    upgraded: bool,
}

/// Takes a request whose head has been read through to its end.
pub(super) async fn exchange(session: &mut Session, request: Request) -> After {
    let mut request = request;
    let started = Instant::now();
    if session.ask.method == Method::Refused {
        return local(session, &Answer::not_allowed(), &mut request, None, started).await;
    }
    if let Err(bad) = feed(&mut request.body, &mut session.input, &mut session.ask.wire) {
        return session.refuse(&Answer::bad_request(bad.0)).await;
    }
    let mut attempts = Attempts::default();
    loop {
        let lease = match upstream::lease(&session.worker, &session.ask, &mut attempts).await {
            Ok(lease) => lease,
            Err(answer) => return local(session, &answer, &mut request, None, started).await,
        };
        let mut buffer = session.worker.buffers.take();
        let mut sent = 0;
        let begun = Cell::new(false);
        let result = attempt(session, &lease, &mut request, &mut buffer, &mut sent, &begun).await;
        let after = match result {
            Ok(done) => Some(finish(session, lease, done, &request, &mut buffer, started).await),
            Err(Fail::Lost) if may_repeat(&session.ask, sent) && attempts.more() => {
                lease.failed();
                session.worker.shared.totals.retries.fetch_add(1, Relaxed);
                attempts.lost(&lease);
                None
            }
            Err(fail) => Some(give_up(session, &lease, fail, &mut request, begun.get(), started).await),
        };
        session.worker.buffers.give(buffer);
        if let Some(after) = after {
            return after;
        }
    }
}

impl Fail {
    /// What a client gets to hear of it, if it can still be told.
    pub fn answer(&self) -> Answer {
        match self {
            Self::ClientGone | Self::ClientLate => Answer::request_timeout(),
            Self::ClientBad(bad) => Answer::bad_request(bad.0),
            Self::Late => Answer::gateway_timeout("the target did not answer in time"),
            Self::Bad(_) => Answer::bad_gateway("the target sent an invalid answer"),
            Self::Lost => Answer::bad_gateway("the target closed the connection without an answer"),
            Self::Broken => Answer::bad_gateway("the target broke its answer off"),
        }
    }
}

/// Everything that was sent is still there, and sending it again changes nothing or nothing was sent.
pub fn may_repeat(ask: &Ask, sent: usize) -> bool {
    !ask.wire.is_empty() && (sent == 0 || ask.is_idempotent())
}

async fn attempt(
    session: &mut Session,
    lease: &Lease,
    request: &mut Request,
    buffer: &mut Buffer,
    sent: &mut usize,
    begun: &Cell<bool>,
) -> Result<Done, Fail> {
    let Session {
        worker,
        link: client,
        input,
        ask,
        out,
        ..
    } = session;
    let target = &*lease.link;
    target.arm(worker.after(worker.limits.upstream));
    let written = target.write_from(&ask.wire, sent).await;
    if written
        .as_ref()
        .is_err_and(|e| e.kind() == io::ErrorKind::TimedOut)
    {
        return Err(Fail::Late);
    }
    // A target may answer and close without reading all: its answer counts, if there is one.
    let pumping = Cell::new(written.is_ok() && !request.body.is_over());
    let way = Way {
        worker,
        client,
        target,
        http10: request.http10,
        keep: request.keep && written.is_ok(),
        to_head: ask.is_head(),
        upgrade: request.upgrade,
        pumping: &pumping,
        begun,
    };
    let mut answer = std::pin::pin!(way.answer(out, buffer));
    if !pumping.get() {
        return answer.await;
    }
    let mut pump = std::pin::pin!(way.pump(input, &mut request.body, &mut ask.wire));
    tokio::select! {
        biased;
        done = &mut answer => done,
        pumped = &mut pump => match pumped {
            Ok(()) => answer.await,
            Err(fail) => Err(fail),
        },
    }
}

/// Moves what is there of the body behind the head, framed for the target.
fn feed(body: &mut Body, input: &mut Buffer, out: &mut Vec<u8>) -> Result<(), Bad> {
    if body.is_over() {
        return Ok(());
    }
    let framing = match body {
        Body::Chunked(_) => Framing::Chunked,
        _ => Framing::Plain,
    };
    let trailers = body.take(input, |data| framing.data(out, data))?;
    if body.is_over() {
        framing.end(out, trailers.as_deref());
    }
    Ok(())
}

/// What both directions of an exchange look at.
struct Way<'a> {
    worker: &'a Worker,
    client: &'a Link,
    target: &'a Link,
    http10: bool,
    keep: bool,
    to_head: bool,
    upgrade: bool,
    /// The request is still on its way: the target cannot be blamed for waiting.
    pumping: &'a Cell<bool>,
    /// The client has got a part of the answer.
    begun: &'a Cell<bool>,
}

impl Way<'_> {
    /// Brings the rest of the request's body.
    async fn pump(&self, input: &mut Buffer, body: &mut Body, out: &mut Vec<u8>) -> Result<(), Fail> {
        let limits = &self.worker.limits;
        self.target.arm(NEVER);
        while !body.is_over() {
            if input.is_empty() {
                self.client.arm(self.worker.after(limits.idle));
                match self.client.read(input).await {
                    Ok(0) => return Err(Fail::ClientGone),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(Fail::ClientLate),
                    Err(_) => return Err(Fail::ClientGone),
                    Ok(_) => {}
                }
            }
            input.widen();
            // From here on the request cannot be repeated.
            out.clear();
            feed(body, input, out).map_err(Fail::ClientBad)?;
            self.target.arm(self.worker.after(limits.upstream));
            if self.target.write_all(out).await.is_err() {
                break;
            }
            self.target.arm(NEVER);
        }
        out.clear();
        self.pumping.set(false);
        self.target.arm(self.worker.after(limits.upstream));
        Ok(())
    }

    /// Brings the answer.
    async fn answer(&self, out: &mut Vec<u8>, buffer: &mut Buffer) -> Result<Done, Fail> {
        let mut seen = false;
        let reply = self.head(out, buffer, &mut seen).await?;
        if reply.status == 101 {
            self.begun.set(true);
            self.send(out).await?;
            return Ok(Done {
                status: 101,
                bytes: 0,
                keep: false,
                keep_target: false,
                upgraded: true,
            });
        }
        let keep = self.keep
            && !self.pumping.get()
            && !self.worker.is_stopping()
            && !reply.ends_by_close(self.http10);
        let framing = reply.framing(self.http10);
        if framing == Framing::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(match (keep, self.http10) {
            (true, false) => b"\r\n",
            (true, true) => b"Connection: keep-alive\r\n\r\n",
            (false, _) => b"Connection: close\r\n\r\n",
        });
        let Reply {
            status,
            body,
            keep: keep_target,
        } = reply;
        let bytes = self.body(body, framing, out, buffer).await?;
        Ok(Done {
            status,
            bytes,
            keep,
            keep_target: keep_target && buffer.is_empty(),
            upgraded: false,
        })
    }

    /// The head of the final answer, in `out` but for its last lines. Interim answers go to the client on the way.
    async fn head(&self, out: &mut Vec<u8>, buffer: &mut Buffer, seen: &mut bool) -> Result<Reply, Fail> {
        const INTERIM: usize = 32;
        for _ in 0..INTERIM {
            let length = find_head(self.worker, self.target, self.pumping, buffer, seen).await?;
            out.clear();
            let head = &buffer.filled_part()[..length];
            let reply = write_reply(head, self.to_head, out).map_err(Fail::Bad)?;
            buffer.consume(length);
            if !reply.is_interim() {
                return match (reply.status, self.upgrade) {
                    (101, false) => Err(Fail::Bad(Bad("the target changes the protocol unasked"))),
                    (101, true) => {
                        out.extend_from_slice(b"Connection: Upgrade\r\n\r\n");
                        Ok(reply)
                    }
                    _ => Ok(reply),
                };
            }
            if !self.http10 {
                out.extend_from_slice(b"\r\n");
                self.send(out).await?;
            }
        }
        Err(Fail::Bad(Bad("the target sends interim answers without end")))
    }

    /// Sends `out`, then the body behind it. Returns the bytes of the body as sent.
    async fn body(
        &self,
        body: Body,
        framing: Framing,
        out: &mut Vec<u8>,
        buffer: &mut Buffer,
    ) -> Result<u64, Fail> {
        let mut body = body;
        let mut bytes = 0;
        loop {
            let before = out.len();
            let trailers = body
                .take(buffer, |data| framing.data(out, data))
                .map_err(|_| Fail::Broken)?;
            if body.is_over() {
                framing.end(out, trailers.as_deref());
            }
            bytes += (out.len() - before) as u64;
            if !out.is_empty() {
                self.begun.set(true);
                self.send(out).await?;
                out.clear();
            }
            if body.is_over() {
                return Ok(bytes);
            }
            if framing == Framing::Plain {
                bytes += self.stream(&mut body, buffer).await?;
                continue;
            }
            if !self.more(buffer).await? {
                match body {
                    Body::UntilClose => body = Body::Empty,
                    _ => return Err(Fail::Broken),
                }
            }
        }
    }

    /// What needs no framing goes from buffer to socket without a copy.
    async fn stream(&self, body: &mut Body, buffer: &mut Buffer) -> Result<u64, Fail> {
        let mut bytes = 0;
        while matches!(body, Body::Length(_) | Body::UntilClose) {
            if !self.more(buffer).await? {
                return match body {
                    Body::UntilClose => {
                        *body = Body::Empty;
                        Ok(bytes)
                    }
                    _ => Err(Fail::Broken),
                };
            }
            let count = match body {
                Body::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len()),
                _ => buffer.len(),
            };
            self.send(&buffer.filled_part()[..count]).await?;
            buffer.consume(count);
            body.passed(count);
            bytes += count as u64;
        }
        Ok(bytes)
    }

    /// Reads on in the answer; false at its end.
    async fn more(&self, buffer: &mut Buffer) -> Result<bool, Fail> {
        self.target.arm(self.worker.after(self.worker.limits.upstream));
        let count = self.target.read(buffer).await.map_err(|_| Fail::Broken)?;
        buffer.widen();
        Ok(count > 0)
    }

    async fn send(&self, data: &[u8]) -> Result<(), Fail> {
        self.client.arm(self.worker.after(self.worker.limits.idle));
        self.client.write_all(data).await.map_err(|_| Fail::ClientGone)
    }
}

/// Waits for the head of an answer and says how long it is. `seen`: the target has sent something for this request.
pub async fn find_head(
    worker: &Worker,
    target: &Link,
    pumping: &Cell<bool>,
    buffer: &mut Buffer,
    seen: &mut bool,
) -> Result<usize, Fail> {
    let mut scan = parse::Scan::default();
    let limit = worker.limits.head;
    loop {
        match scan.find(buffer.filled_part()).map_err(Fail::Bad)? {
            Some(length) if length <= limit => return Ok(length),
            None if buffer.len() < limit => {}
            _ => return Err(Fail::Bad(Bad("the head of the answer is too large"))),
        }
        if !pumping.get() {
            target.arm(worker.after(worker.limits.upstream));
        }
        match target.read(buffer).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(Fail::Late),
            Ok(0) | Err(_) if !*seen => return Err(Fail::Lost),
            Ok(0) | Err(_) => return Err(Fail::Bad(Bad("the answer ends before its head does"))),
            Ok(_) => *seen = true,
        }
    }
}

/// Writes the head of an answer, all but the last lines.
fn write_reply(head: &[u8], to_head: bool, out: &mut Vec<u8>) -> Result<Reply, Bad> {
    let start = |status: u16, reason: &str| {
        out.extend_from_slice(b"HTTP/1.1 ");
        let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
        out.extend_from_slice(&digits);
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        out
    };
    let line = |out: &mut &mut Vec<u8>, name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    parse::reply(head, to_head, start, line).map(|(reply, _)| reply)
}

/// After a complete answer: the tunnel, if it opened one; the connections; the log.
async fn finish(
    session: &mut Session,
    lease: Lease,
    done: Done,
    request: &Request,
    buffer: &mut Buffer,
    started: Instant,
) -> After {
    let mut done = done;
    lease.answered(done.status);
    if done.upgraded {
        let client = (&*session.link, &mut session.input);
        let (_, down) = tunnel::carry(&session.worker, client, (&lease.link, buffer)).await;
        done.bytes = down;
    }
    session.log(Some(&lease), done.status, done.bytes, started);
    let whole = request.body.is_over();
    if whole && done.keep_target {
        lease.keep(&session.worker);
    }
    session.out.shrink_to(16 * 1024);
    match (done.keep && whole, whole) {
        (true, _) => After::Keep,
        (false, false) => After::Linger,
        // Pipelined requests may be waiting that get no answer: the last answer must not be lost for them.
        (false, true) if !done.upgraded => After::Linger,
        (false, true) => After::Close,
    }
}

async fn give_up(
    session: &mut Session,
    lease: &Lease,
    fail: Fail,
    request: &mut Request,
    begun: bool,
    started: Instant,
) -> After {
    if let Fail::ClientGone = fail {
        // nginx's number for a client that did not wait.
        session.log(Some(lease), 499, 0, started);
        return After::Close;
    }
    if let Fail::Bad(bad) = &fail {
        tracing::debug!(target.id = %lease.target.spec.id, reason = bad.0, "refused an answer");
    }
    let answer = fail.answer();
    if answer.status >= 500 {
        lease.failed();
        lease.group.counters.failures.fetch_add(1, Relaxed);
    }
    if begun {
        // Half an answer can only be ended by ending the connection.
        session.log(Some(lease), answer.status, 0, started);
        return After::Close;
    }
    request.keep &= answer.status >= 500;
    local(session, &answer, request, Some(lease), started).await
}

/// An answer of our own.
async fn local(
    session: &mut Session,
    answer: &Answer,
    request: &mut Request,
    lease: Option<&Lease>,
    started: Instant,
) -> After {
    let rest = request.body.take(&mut session.input, |_| {});
    let keep = request.keep && rest.is_ok() && request.body.is_over() && !session.worker.is_stopping();
    let connection = match (keep, request.http10) {
        (true, false) => "",
        (true, true) => "Connection: keep-alive\r\n",
        (false, _) => "Connection: close\r\n",
    };
    session.out.clear();
    answer.write(&mut session.out, connection, session.ask.is_head());
    session.log(lease, answer.status, answer.body.len() as u64, started);
    match session.flush().await {
        After::Linger if keep => After::Keep,
        after => after,
    }
}

impl Session {
    fn log(&self, lease: Option<&Lease>, status: u16, bytes: u64, started: Instant) {
        if let Some(log) = &self.worker.log {
            log.write(&Record {
                peer: self.ends.peer,
                version: "HTTP/1.1",
                ask: &self.ask,
                lease,
                status,
                bytes,
                took: started.elapsed(),
            });
        }
    }
}
