//! One request to a target and its answer back.

use std::{cell::Cell, io, sync::atomic::Ordering::Relaxed, time::Instant};

use super::{
    After, Session,
    parse::Request,
    relay::{Done, Fail, Way, feed},
    tunnel,
};
use crate::{
    access::Record,
    answer::Answer,
    head::Method,
    link::Buffer,
    upstream::{self, Attempts, Lease, Leased},
};

/// Takes a request whose head has been read through to its end.
pub(super) async fn exchange(session: &mut Session, request: Request) -> After {
    let mut request = request;
    let started = Instant::now();
    if session.ask.method == Method::Refused {
        return local(session, &Answer::not_allowed(), &mut request, None, started).await;
    }
    if let Err(bad) = request.body.limit(session.worker.bounds().body) {
        return session.refuse(&Answer::bad_request(bad.0)).await;
    }
    if let Err(bad) = feed(&mut request.body, &mut session.input, &mut session.ask.wire) {
        return session.refuse(&Answer::bad_request(bad.0)).await;
    }
    let mut attempts = Attempts::default();
    loop {
        let lease = match upstream::lease(&session.worker, &mut session.ask, &mut attempts).await {
            Ok(Leased::One(lease)) => lease,
            // As ALB: these targets are for clients that speak HTTP/2.
            Ok(Leased::Shared(_)) => {
                return local(session, &Answer::incompatible(), &mut request, None, started).await;
            }
            Err(answer) => return local(session, &answer, &mut request, None, started).await,
        };
        let mut buffer = session.worker.buffers.take();
        let mut sent = 0;
        let begun = Cell::new(false);
        let result = attempt(session, &lease, &mut request, &mut buffer, &mut sent, &begun).await;
        let after = match result {
            Ok(done) => Some(finish(session, lease, done, &request, &mut buffer, started).await),
            Err(Fail::Lost) if session.ask.may_repeat(sent) && attempts.more() => {
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
    let whole = Cell::new(written.is_ok() && request.body.is_over());
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
    lease.group.counters().sent(done.bytes);
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
        tracing::debug!(target.id = %lease.target.id(), reason = bad.0, "refused an answer");
    }
    let answer = fail.answer();
    if answer.status >= 500 {
        lease.failed();
        lease.group.counters().failures.fetch_add(1, Relaxed);
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
