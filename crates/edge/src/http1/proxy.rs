//! One request to a target and its answer back.

use std::{cell::Cell, io, sync::atomic::Ordering::Relaxed, time::Instant};

use super::{
    After, Session, count,
    parse::Request,
    relay::{Done, Fail, Heard, Way, feed},
    tunnel,
};
use crate::{
    access::Record,
    answer::Answer,
    head::Method,
    link::Buffer,
    upstream::{self, Attempts, Lease, Leased},
};

/// Why there is no answer to a client that did not wait, in the log's words. ALB's number for it is 460.
pub const CLIENT_GONE: &str = "ClientClosedConnection";

/// Takes a request whose head has been read through to its end.
pub(super) async fn exchange(session: &mut Session, request: Request) -> After {
    let mut request = request;
    let started = Instant::now();
    if session.ask.method == Method::Refused {
        return local(session, &Answer::not_allowed(), &mut request, None, started).await;
    }
    let limited = request.body.limit(session.worker.limits().body);
    if let Err(bad) =
        limited.and_then(|()| feed(&mut request.body, &mut session.input, &mut session.ask.wire))
    {
        return session.refuse(&Answer::bad_request(bad.0)).await;
    }
    let mut attempts = Attempts::default();
    loop {
        let lease = match upstream::lease(&session.worker, &mut session.ask, &mut attempts).await {
            Ok(Leased::One(lease)) => lease,
            // As ALB: these targets are for clients that speak HTTP/2.
            Ok(Leased::Shared(chosen)) => {
                let answer = Answer::incompatible();
                attempts.decided_by(&chosen.rule);
                attempts.answered(answer.status, answer.body.len() as u64);
                return local(session, &answer, &mut request, None, started).await;
            }
            Err(answer) => {
                attempts.answered(answer.status, answer.body.len() as u64);
                return local(session, &answer, &mut request, None, started).await;
            }
        };
        let mut buffer = session.worker.buffers.take();
        let mut sent = 0;
        let heard = Heard::default();
        let result = attempt(session, &lease, &mut request, &mut buffer, &mut sent, &heard).await;
        let after = match result {
            Ok(done) => {
                let told = Told { heard, started };
                Some(finish(session, lease, done, told, &request, &mut buffer).await)
            }
            Err(Fail::Lost) if session.ask.may_repeat(sent) && attempts.more() => {
                lease.failed();
                session.worker.shared.totals.retries.fetch_add(1, Relaxed);
                attempts.lost(&lease.target, !lease.reused);
                if let Some(note) = &mut session.ask.note {
                    note.tried(lease.group.name(), &lease.target);
                }
                None
            }
            Err(fail) => {
                let told = Told { heard, started };
                Some(give_up(session, &lease, fail, told, &mut request).await)
            }
        };
        session.worker.buffers.give(buffer);
        if let Some(after) = after {
            return after;
        }
    }
}

/// What has come of a request that began then.
struct Told {
    heard: Heard,
    started: Instant,
}

async fn attempt(
    session: &mut Session,
    lease: &Lease,
    request: &mut Request,
    buffer: &mut Buffer,
    sent: &mut usize,
    heard: &Heard,
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
    target.arm(worker.after(worker.limits().upstream));
    let written = target.write_from(&ask.wire, sent).await;
    if written
        .as_ref()
        .is_err_and(|e| e.kind() == io::ErrorKind::TimedOut)
    {
        return Err(Fail::Late);
    }
    // A target may answer and close without reading all: its answer counts, if there is one.
    let pumping = Cell::new(written.is_ok() && !request.body.is_over());
    let whole = Cell::new(written.is_ok() && request.body.is_over());
    if pumping.get() {
        ask.keep_head();
    }
    let way = Way {
        worker,
        client,
        target,
        http10: request.http10,
        keep: request.keep && written.is_ok(),
        whole: &whole,
        to_head: ask.is_head(),
        cookies: lease.cookies.as_deref(),
        upgrade: request.upgrade,
        pumping: &pumping,
        heard,
    };
    let mut answer = std::pin::pin!(way.answer(out, buffer));
    if !pumping.get() {
        return answer.await;
    }
    let mut pump = Box::pin(way.pump(input, &mut request.body, &mut ask.wire));
    tokio::select! {
        biased;
        done = &mut answer => done,
        pumped = &mut pump => match pumped {
            Ok(()) => answer.await,
            Err(fail) => Err(fail),
        },
    }
}

/// After a complete answer: the tunnel, if it opened one; the connections; the log.
async fn finish(
    session: &mut Session,
    lease: Lease,
    done: Done,
    told: Told,
    request: &Request,
    buffer: &mut Buffer,
) -> After {
    lease.answered(done.status);
    if done.upgraded {
        let client = (&*session.link, &mut session.input);
        let (_, down) = Box::pin(tunnel::carry(&session.worker, client, (&lease.link, buffer))).await;
        told.heard.bytes.set(down);
    }
    let bytes = told.heard.bytes.get();
    lease.group.counters().sent(bytes);
    lease.rule.answered(done.status, bytes);
    session.log(Some(&lease), done.status, request.http10, &told);
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
    told: Told,
    request: &mut Request,
) -> After {
    // What the client has seen, if it has seen something.
    let seen = told.heard.status().filter(|_| told.heard.begun.get());
    let status = seen.unwrap_or_else(|| fail.status());
    lease.rule.answered(status, told.heard.bytes.get());
    if let Fail::ClientGone = fail {
        if let Some(note) = &mut session.ask.note {
            note.reason = Some(CLIENT_GONE);
        }
        session.log(Some(lease), status, request.http10, &told);
        return After::Close;
    }
    if let Fail::Bad(bad) = &fail {
        tracing::debug!(target.id = %lease.target.id(), reason = bad.0, "refused an answer");
    }
    let answer = fail.answer();
    if answer.status >= 500 {
        lease.failed();
        lease.group.counters().failures.fetch_add(1, Relaxed);
    }
    if seen.is_some() {
        // Half an answer can only be ended by ending the connection.
        if let Some(note) = &mut session.ask.note {
            note.answer(&answer);
        }
        session.log(Some(lease), status, request.http10, &told);
        return After::Close;
    }
    request.keep &= answer.status >= 500;
    local(session, &answer, request, Some(lease), told.started).await
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
    let flushed = session.flush().await;
    let heard = Heard::default();
    if !session.ask.is_head() {
        heard.passed(answer.body.len());
    }
    if let Some(note) = &mut session.ask.note {
        note.answer(answer);
    }
    session.log(lease, answer.status, request.http10, &Told { heard, started });
    match flushed {
        After::Linger if keep => After::Keep,
        after => after,
    }
}

impl Session {
    fn log(&mut self, lease: Option<&Lease>, status: u16, http10: bool, told: &Told) {
        let Some(log) = &self.worker.log else { return };
        let (received, sent) = count(&self.link, &self.input, &mut self.counted);
        let Told { heard, started } = told;
        log.write(&Record {
            ends: &self.ends,
            version: if http10 { "HTTP/1.0" } else { "HTTP/1.1" },
            ask: &self.ask,
            met: lease.map(|lease| (&lease.group, &lease.target)),
            status,
            target_status: heard.status(),
            bytes: heard.bytes.get(),
            received,
            sent,
            waited: lease.and_then(|lease| heard.waited(*started, lease.started)),
            took: started.elapsed(),
        });
    }
}
