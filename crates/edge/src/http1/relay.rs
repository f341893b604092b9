//! Both directions of one exchange: the request's body to the target, the answer to the client.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use super::{
    frame::{Bad, Body, Framing},
    parse::{self, Reply},
};
use crate::{
    answer::Answer,
    link::{Buffer, Link, NEVER},
    sticky::Cookies,
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

/// What has come of an answer so far.
#[derive(Default)]
pub struct Heard {
    /// The client has got a part of it.
    pub begun: Cell<bool>,
    status: Cell<Option<u16>>,
    /// When its head had come; only where it is logged.
    at: Cell<Option<Instant>>,
    /// Bytes of its body that have gone to the client, and of its head to a client of HTTP/2.
    pub bytes: Cell<u64>,
    pub head: Cell<u64>,
}

impl Heard {
    /// The final head has come.
    pub fn head(&self, status: u16, logged: bool) {
        self.status.set(Some(status));
        self.at.set(logged.then(Instant::now));
    }

    pub fn status(&self) -> Option<u16> {
        self.status.get()
    }

    pub fn passed(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// How long a request waited to be sent, and for its answer.
    pub fn waited(&self, started: Instant, sent: Instant) -> Option<(Duration, Duration)> {
        let at = self.at.get()?;
        Some((sent.duration_since(started), at.duration_since(sent)))
    }
}

/// A complete answer.
pub struct Done {
    pub status: u16,
    /// The client's connection may go on.
    pub keep: bool,
    /// The target's connection may go on.
    pub keep_target: bool,
    /// The answer was 101.
    pub upgraded: bool,
}

impl Fail {
    /// What is counted and logged when the client has seen nothing: 460 is ALB's number for one that did not wait.
    pub fn status(&self) -> u16 {
        match self {
            Self::ClientGone => 460,
            fail => fail.answer().status,
        }
    }

    /// What a client gets to hear of it, if it can still be told.
    pub fn answer(&self) -> Answer {
        match self {
            Self::ClientGone | Self::ClientLate => Answer::request_timeout(),
            Self::ClientBad(bad) => Answer::bad_request(bad.0),
            Self::Late => Answer::target_late(),
            Self::Bad(_) => Answer::target_invalid(),
            Self::Lost => Answer::target_closed(),
            Self::Broken => Answer::target_broke_off(),
        }
    }
}

/// Moves what is there of the body behind the head, framed for the target.
pub fn feed(body: &mut Body, input: &mut Buffer, out: &mut Vec<u8>) -> Result<(), Bad> {
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
pub struct Way<'a> {
    pub worker: &'a Worker,
    pub client: &'a Link,
    pub target: &'a Link,
    pub http10: bool,
    pub keep: bool,
    pub to_head: bool,
    /// What is added to the answer.
    pub cookies: Option<&'a Cookies>,
    pub upgrade: bool,
    /// The request is still on its way: the target cannot be blamed for waiting.
    pub pumping: &'a Cell<bool>,
    /// The target has the whole request.
    pub whole: &'a Cell<bool>,
    pub heard: &'a Heard,
}

impl Way<'_> {
    /// Brings the rest of the request's body. Ends early when the target takes no more: it may still answer.
    pub async fn pump(&self, input: &mut Buffer, body: &mut Body, out: &mut Vec<u8>) -> Result<(), Fail> {
        let limits = self.worker.limits();
        let mut taken = true;
        self.target.arm(NEVER);
        while taken && !body.is_over() {
            if input.is_empty() {
                let until = self.worker.after(limits.idle);
                match self.client.read_until(input, until).await {
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
            let until = self.worker.after(limits.upstream);
            taken = self.target.write_until(out, until).await.is_ok();
        }
        out.clear();
        self.whole.set(taken);
        self.pumping.set(false);
        self.target.arm(self.worker.after(limits.upstream));
        Ok(())
    }

    /// Brings the answer.
    pub async fn answer(&self, out: &mut Vec<u8>, buffer: &mut Buffer) -> Result<Done, Fail> {
        let mut seen = false;
        let reply = self.head(out, buffer, &mut seen).await?;
        self.heard.head(reply.status, self.worker.is_logging());
        if reply.status == 101 {
            self.heard.begun.set(true);
            self.send(out).await?;
            return Ok(Done {
                status: 101,
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
        self.body(body, framing, out, buffer).await?;
        Ok(Done {
            status,
            keep,
            keep_target: keep_target && buffer.is_empty() && self.whole.get(),
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
                    _ => {
                        self.add_cookies(out);
                        Ok(reply)
                    }
                };
            }
            if !self.http10 {
                out.extend_from_slice(b"\r\n");
                self.send(out).await?;
            }
        }
        Err(Fail::Bad(Bad("the target sends interim answers without end")))
    }

    fn add_cookies(&self, out: &mut Vec<u8>) {
        let Some(cookies) = self.cookies else { return };
        let own = out.split(|b| *b == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked("set-cookie: ".len())?;
            name.eq_ignore_ascii_case(b"set-cookie: ").then_some(value)
        });
        let lines: String = cookies
            .of(own)
            .map(|value| format!("Set-Cookie: {value}\r\n"))
            .collect();
        out.extend_from_slice(lines.as_bytes());
    }

    /// Sends `out`, then the body behind it.
    async fn body(
        &self,
        body: Body,
        framing: Framing,
        out: &mut Vec<u8>,
        buffer: &mut Buffer,
    ) -> Result<(), Fail> {
        let mut body = body;
        loop {
            let before = out.len();
            let trailers = body
                .take(buffer, |data| framing.data(out, data))
                .map_err(|_| Fail::Broken)?;
            if body.is_over() {
                framing.end(out, trailers.as_deref());
            }
            let bytes = out.len() - before;
            if !out.is_empty() {
                self.heard.begun.set(true);
                self.send(out).await?;
                self.heard.passed(bytes);
                out.clear();
            }
            if body.is_over() {
                return Ok(());
            }
            if framing == Framing::Plain {
                self.stream(&mut body, buffer).await?;
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
    async fn stream(&self, body: &mut Body, buffer: &mut Buffer) -> Result<(), Fail> {
        while matches!(body, Body::Length(_) | Body::UntilClose) {
            if !self.more(buffer).await? {
                return match body {
                    Body::UntilClose => {
                        *body = Body::Empty;
                        Ok(())
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
            self.heard.passed(count);
        }
        Ok(())
    }

    /// Reads on in the answer; false at its end.
    async fn more(&self, buffer: &mut Buffer) -> Result<bool, Fail> {
        let until = self.worker.after(self.worker.limits().upstream);
        let count = self
            .target
            .read_until(buffer, until)
            .await
            .map_err(|_| Fail::Broken)?;
        buffer.widen();
        Ok(count > 0)
    }

    async fn send(&self, data: &[u8]) -> Result<(), Fail> {
        let until = self.worker.after(self.worker.limits().idle);
        self.client
            .write_until(data, until)
            .await
            .map_err(|_| Fail::ClientGone)
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
    let limit = worker.limits().head;
    loop {
        match scan.find(buffer.filled_part()).map_err(Fail::Bad)? {
            Some(length) if length <= limit => {
                target.arm(NEVER);
                return Ok(length);
            }
            None if buffer.len() < limit => {}
            _ => return Err(Fail::Bad(Bad("the head of the answer is too large"))),
        }
        if !pumping.get() {
            target.arm(worker.after(worker.limits().upstream));
        }
        buffer.hold(limit);
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
