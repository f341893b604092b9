//! One request of an HTTP/2 client, to a target and back.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as _, Bytes, Frame, Incoming},
    header::{HeaderName, HeaderValue, SET_COOKIE},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    FRAMES, Out, Parting,
    forward::{answered, forward},
    length,
};
use crate::{
    access::Record,
    answer::Answer,
    balance::Group,
    head::Ask,
    http1::{
        frame::{Bad, Body, Framing, TOO_LARGE},
        parse::{self, Reply},
        proxy::CLIENT_GONE,
        relay::{Fail, Heard, find_head},
    },
    link::{Buffer, Link, NEVER},
    sticky::Cookies,
    target::Target,
    upstream::{self, Attempts, Chosen, Lease, Leased},
    worker::{Ends, Worker},
};

/// One request under way.
pub struct Stream {
    pub worker: Rc<Worker>,
    pub ask: Ask,
    /// Of the request; none when it is empty.
    pub body: Option<Incoming>,
    pub framing: Framing,
    pub ends: Rc<Ends>,
    pub started: Instant,
    /// Bytes of the request's head, and of what has come of its body; only where they are logged.
    pub received: u64,
    pub up: Option<Rc<Cell<u64>>>,
    /// Where the answer goes, until it has gone.
    pub response: Option<oneshot::Sender<Response<Out>>>,
}

impl Stream {
    pub async fn run(mut self) {
        let mut attempts = Attempts::default();
        loop {
            let lease = match upstream::lease(&self.worker, &mut self.ask, &mut attempts).await {
                Ok(Leased::One(lease)) => lease,
                Ok(Leased::Shared(chosen)) => match forward(&mut self, chosen, &mut attempts).await {
                    Ok(true) => return,
                    Ok(false) => continue,
                    Err(answer) => return self.local(&attempts, answer),
                },
                Err(answer) => return self.local(&attempts, answer),
            };
            let mut buffer = self.worker.buffers.take();
            let mut sent = 0;
            let heard = Heard::default();
            let result = self.attempt(&lease, &mut buffer, &mut sent, &heard).await;
            match result {
                Ok((status, keep)) => {
                    lease.group.counters().sent(heard.bytes.get());
                    lease.rule.answered(status, heard.bytes.get());
                    self.log(Some((&lease.group, &lease.target)), status, &heard, lease.started);
                    lease.answered(status);
                    if keep && buffer.is_empty() {
                        lease.keep(&self.worker);
                    }
                    self.worker.buffers.give(buffer);
                    return;
                }
                Err(Fail::Lost) if self.ask.may_repeat(sent) && attempts.more() => {
                    lease.failed();
                    self.worker.shared.totals.retries.fetch_add(1, Relaxed);
                    attempts.lost(&lease.target, !lease.reused);
                    if let Some(note) = &mut self.ask.note {
                        note.tried(lease.group.name(), &lease.target);
                    }
                }
                Err(fail) => return self.give_up(&lease, lease.started, &fail, &heard),
            }
        }
    }

    /// There is no whole answer from the target that was asked then.
    pub fn give_up(&mut self, chosen: &Chosen, asked: Instant, fail: &Fail, heard: &Heard) {
        let met = Some((&chosen.group, &chosen.target));
        // What the client has seen, if it has seen something.
        let seen = heard.status().filter(|_| heard.begun.get());
        let status = seen.unwrap_or_else(|| fail.status());
        chosen.rule.answered(status, heard.bytes.get());
        if let Fail::ClientGone = fail {
            if let Some(note) = &mut self.ask.note {
                note.reason = Some(CLIENT_GONE);
            }
            return self.log(met, status, heard, asked);
        }
        let answer = fail.answer();
        if answer.status >= 500 {
            chosen.met(true, self.worker.tick());
            chosen.group.counters().failures.fetch_add(1, Relaxed);
        }
        match seen {
            Some(_) => {
                self.note(&answer);
                self.log(met, status, heard, asked);
            }
            None => self.answer(met, answer),
        }
    }

    /// There is no target for it.
    fn local(&mut self, attempts: &Attempts, answer: Answer) {
        attempts.answered(answer.status, answer.body.len() as u64);
        self.answer(None, answer);
    }

    /// It ends with this in the place of a target's whole answer.
    fn note(&mut self, answer: &Answer) {
        if let Some(note) = &mut self.ask.note {
            note.answer(answer);
        }
    }

    fn answer(&mut self, met: Option<(&Group, &Target)>, answer: Answer) {
        self.note(&answer);
        let (status, heard) = (answer.status, Heard::default());
        let body = answer.body.len();
        let response = answered(answer, &self.ask);
        if !response.body().is_end_stream() {
            heard.passed(body);
        }
        heard.head.set(length(response.headers()));
        self.log(met, status, &heard, self.started);
        if let Some(waiting) = self.response.take() {
            // A client that has gone needs no answer.
            let _ = waiting.send(response);
        }
        if let Some(body) = self.body.take() {
            tokio::task::spawn_local(linger(body));
        }
    }

    /// `sent`: when the request was.
    pub fn log(&self, met: Option<(&Group, &Target)>, status: u16, heard: &Heard, sent: Instant) {
        let Some(log) = &self.worker.log else { return };
        let body = self.up.as_ref().map_or(0, |up| up.get());
        log.write(&Record {
            ends: &self.ends,
            version: "HTTP/2",
            ask: &self.ask,
            met,
            status,
            target_status: heard.status(),
            bytes: heard.bytes.get(),
            received: self.received + body,
            sent: heard.head.get() + heard.bytes.get(),
            waited: heard.waited(self.started, sent),
            took: self.started.elapsed(),
        });
    }

    /// The status, and whether the connection may go on.
    async fn attempt(
        &mut self,
        lease: &Lease,
        buffer: &mut Buffer,
        sent: &mut usize,
        heard: &Heard,
    ) -> Result<(u16, bool), Fail> {
        let target = &*lease.link;
        target.arm(self.worker.after(self.worker.limits().upstream));
        let written = target.write_from(&self.ask.wire, sent).await;
        if written
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::TimedOut)
        {
            return Err(Fail::Late);
        }
        let pumping = Cell::new(written.is_ok() && self.body.is_some());
        let back = Back {
            worker: &self.worker,
            target,
            to_head: self.ask.is_head(),
            cookies: lease.cookies.as_deref(),
            pumping: &pumping,
            heard,
        };
        if pumping.get() {
            self.ask.keep_head();
        }
        let mut answer = std::pin::pin!(back.answer(&mut self.response, buffer));
        let result = match &mut self.body {
            Some(body) if pumping.get() => {
                let pump = back.pump(body, self.framing, &mut self.ask.wire, self.up.as_deref());
                tokio::select! {
                    biased;
                    done = &mut answer => done,
                    pumped = pump => match pumped {
                        Ok(()) => answer.await,
                        Err(fail) => Err(fail),
                    },
                }
            }
            _ => answer.await,
        };
        let whole = written.is_ok() && !pumping.get();
        result.map(|(status, keep)| (status, keep && whole))
    }
}

/// Reads what a client still sends that has its answer, for a short time: the reset of a stream whose body nobody wants
/// would overtake the answer, and clients that are still sending then see the reset alone.
pub async fn linger(mut body: Incoming) {
    const ENOUGH: u64 = 1024 * 1024;
    let read = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await
            && read < ENOUGH
        {
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    let _ = timeout(Duration::from_secs(2), read).await;
}

/// Both directions of one attempt.
struct Back<'a> {
    worker: &'a Worker,
    target: &'a Link,
    to_head: bool,
    cookies: Option<&'a Cookies>,
    pumping: &'a Cell<bool>,
    heard: &'a Heard,
}

impl Back<'_> {
    async fn pump(
        &self,
        body: &mut Incoming,
        framing: Framing,
        out: &mut Vec<u8>,
        up: Option<&Cell<u64>>,
    ) -> Result<(), Fail> {
        let limits = self.worker.limits();
        let most = self.worker.limits().body;
        let (mut trailers, mut total) = (None, 0);
        while trailers.is_none() {
            // While the client is waited for, the target is not.
            self.target.arm(NEVER);
            let frame = match timeout(limits.idle, body.frame()).await {
                Err(_) => return Err(Fail::ClientLate),
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(Fail::ClientGone),
                Ok(Some(Ok(frame))) => frame,
            };
            out.clear();
            match frame.into_data() {
                Ok(data) => {
                    total += data.len() as u64;
                    if let Some(up) = up {
                        up.set(total);
                    }
                    if most > 0 && total > most {
                        return Err(Fail::ClientBad(TOO_LARGE));
                    }
                    framing.data(out, &data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
            if !self.write(out).await {
                return Ok(());
            }
        }
        out.clear();
        framing.end(out, trailers.map(|fields| lines(&fields)).as_deref());
        self.write(out).await;
        out.clear();
        self.pumping.set(false);
        self.target.arm(self.worker.after(limits.upstream));
        Ok(())
    }

    /// False when the target takes no more; it may still answer.
    async fn write(&self, data: &[u8]) -> bool {
        self.target.arm(self.worker.after(self.worker.limits().upstream));
        let written = self.target.write_all(data).await.is_ok();
        if written {
            self.target.arm(NEVER);
        }
        written
    }

    async fn answer(
        &self,
        response: &mut Option<oneshot::Sender<Response<Out>>>,
        buffer: &mut Buffer,
    ) -> Result<(u16, bool), Fail> {
        let mut seen = false;
        let (reply, head) = loop {
            let find = find_head(self.worker, self.target, self.pumping, buffer, &mut seen);
            let length = match response.as_mut() {
                // A client that resets its request frees the target at once.
                Some(waiting) => tokio::select! {
                    length = find => length?,
                    () = waiting.closed() => return Err(Fail::ClientGone),
                },
                None => return Err(Fail::ClientGone),
            };
            let (reply, mut head) =
                read_reply(&buffer.filled_part()[..length], self.to_head).map_err(Fail::Bad)?;
            buffer.consume(length);
            if reply.status == 101 {
                return Err(Fail::Bad(Bad("the target changes the protocol unasked")));
            }
            // hyper's server does not pass interim answers on.
            if !reply.is_interim() {
                self.add_cookies(head.headers_mut());
                break (reply, head);
            }
        };
        self.heard.head(reply.status, self.worker.is_logging());
        let (frames, out) = mpsc::channel(FRAMES);
        let over = Rc::new(Cell::new(false));
        let out = match reply.body.is_over() {
            true => Out::Whole(None),
            false => Out::Parts(Parting {
                frames: out,
                over: Rc::clone(&over),
            }),
        };
        if self.worker.is_logging() {
            self.heard.head.set(length(head.headers()));
        }
        if let Some(response) = response.take() {
            response.send(head.map(|()| out)).map_err(|_| Fail::ClientGone)?;
        }
        self.heard.begun.set(true);
        self.body(reply.body, &frames, buffer).await?;
        over.set(true);
        Ok((reply.status, reply.keep))
    }

    fn add_cookies(&self, fields: &mut HeaderMap) {
        let Some(cookies) = self.cookies else { return };
        let own = fields.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
        let values: Vec<_> = cookies
            .of(own)
            .filter_map(|value| HeaderValue::from_str(value).ok())
            .collect();
        for value in values {
            fields.append(SET_COOKIE, value);
        }
    }

    async fn body(
        &self,
        body: Body,
        frames: &mpsc::Sender<io::Result<Frame<Bytes>>>,
        buffer: &mut Buffer,
    ) -> Result<(), Fail> {
        let limits = self.worker.limits();
        let mut body = body;
        while !body.is_over() {
            let mut data = Vec::new();
            let trailers = body.take(buffer, |part| data.extend_from_slice(part));
            let Ok(trailers) = trailers else {
                return Err(break_off(frames).await);
            };
            self.heard.passed(data.len());
            let data =
                Some(Frame::data(Bytes::from(data))).filter(|f| f.data_ref().is_some_and(|d| !d.is_empty()));
            let fields = trailers.map(|trailers| Frame::trailers(fields(&trailers)));
            for frame in data.into_iter().chain(fields) {
                match timeout(limits.idle, frames.send(Ok(frame))).await {
                    Ok(Ok(())) => {}
                    _ => return Err(Fail::ClientGone),
                }
            }
            if body.is_over() {
                break;
            }
            let until = self.worker.after(limits.upstream);
            match self.target.read_until(buffer, until).await {
                Ok(0) if matches!(body, Body::UntilClose) => break,
                Ok(0) | Err(_) => return Err(break_off(frames).await),
                Ok(_) => buffer.widen(),
            }
        }
        Ok(())
    }
}

/// Resets the stream: the client must not take the part that it has for the whole.
async fn break_off(frames: &mpsc::Sender<io::Result<Frame<Bytes>>>) -> Fail {
    let broken = io::ErrorKind::UnexpectedEof.into();
    let _ = timeout(Duration::from_secs(1), frames.send(Err(broken))).await;
    Fail::Broken
}

fn read_reply(head: &[u8], to_head: bool) -> Result<(Reply, Response<()>), Bad> {
    let start = |status: u16, _: &str| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        response
    };
    parse::reply(head, to_head, start, |response, name, value| {
        if let Ok((name, value)) = field(name, value) {
            response.headers_mut().append(name, value);
        }
    })
}

fn field(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), Bad> {
    let name = name.parse().map_err(|_| Bad("a header name is malformed"))?;
    let value = HeaderValue::from_bytes(value).map_err(|_| Bad("a header value is malformed"))?;
    Ok((name, value))
}

/// Trailer fields from whole, checked lines.
fn fields(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = line.iter().position(|b| *b == b':')
            && let Ok(name) = str::from_utf8(&line[..colon])
            && let Ok((name, value)) = field(name, line[colon + 1..].trim_ascii())
        {
            map.append(name, value);
        }
    }
    map
}

/// Trailer fields as lines, but for those that may not pass.
fn lines(fields: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        if parse::passes(name.as_str()) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}
