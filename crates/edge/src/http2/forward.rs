//! Requests to targets that speak HTTP/2, gRPC among them: streams of one connection that all clients of a worker share.
//! Bodies and trailers pass as they come. Attempts, time-outs and what is counted are as with HTTP/1.1.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    error::Error,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use h2::Reason;
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{Builder, SendRequest},
    },
    header::{
        CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use model::route::Protocol;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{
    Local, Out,
    drive::{Stream, linger},
    length, local,
    passage::{Passage, Up},
};
use crate::{
    answer::Answer,
    clock,
    head::Ask,
    http1::{
        frame::TOO_LARGE,
        parse::FIELDS,
        relay::{Fail, Heard},
    },
    target::Target,
    upstream::{Attempts, Chosen, unconnected},
    worker::Worker,
};

/// Requests under way on one connection: servers allow so many at least (RFC 9113, section 6.5.2), and more wait in it
/// for others to end.
const STREAMS: usize = 100;

/// Bytes of one answer that nobody has taken yet: while a worker has few connections to targets, and with more of them.
/// What nobody takes is memory, and clients who take nothing make connections.
const AHEAD: u32 = 128 * 1024;
const AHEAD_OF_MANY: u32 = 16 * 1024;
const FEW: usize = 16;

/// Connections of one worker, by target.
#[derive(Default)]
pub struct Shared {
    lines: RefCell<HashMap<u64, Vec<Line>>>,
    opened: Cell<u64>,
}

/// One of them.
#[derive(Clone)]
struct Line {
    number: u64,
    sender: SendRequest<Up>,
    /// Each request under way has one more.
    held: Rc<()>,
}

impl Line {
    fn under_way(&self) -> usize {
        Rc::strong_count(&self.held) - 1
    }
}

impl Shared {
    fn ahead(&self) -> u32 {
        let open: usize = self.lines.borrow().values().map(Vec::len).sum();
        if open < FEW { AHEAD } else { AHEAD_OF_MANY }
    }

    /// The fullest that has room, so that those that are not needed any more empty themselves and close.
    fn known(&self, target: &Target) -> Option<Line> {
        let mut lines = self.lines.borrow_mut();
        let lines = lines.get_mut(&target.serial)?;
        lines.retain(|line| !line.sender.is_closed());
        let room = lines.iter().filter(|line| line.under_way() < STREAMS);
        let line = room.max_by_key(|line| line.under_way())?.clone();
        lines.retain(|other| other.number == line.number || other.under_way() > 0);
        Some(line)
    }

    fn keep(&self, target: &Target, sender: SendRequest<Up>) -> Line {
        let number = self.opened.get();
        self.opened.set(number + 1);
        let line = Line {
            number,
            sender,
            held: Rc::default(),
        };
        let mut lines = self.lines.borrow_mut();
        lines.entry(target.serial).or_default().push(line.clone());
        line
    }

    /// No more requests for this connection; what is under way there goes on.
    fn forget(&self, target: &Target, number: u64) {
        let mut lines = self.lines.borrow_mut();
        if let Some(own) = lines.get_mut(&target.serial) {
            own.retain(|line| line.number != number);
            if own.is_empty() {
                lines.remove(&target.serial);
            }
        }
    }

    /// Closes all.
    pub fn clear(&self) {
        self.lines.borrow_mut().clear();
    }
}

/// Why a request has no answer.
enum Unanswered {
    /// The target has not looked at it, and closes that connection.
    Unsent,
    /// The target has not looked at it, because it has enough to do.
    Refused,
    Failed(Fail),
}

/// One request on its way to a target.
struct Asked<'a> {
    chosen: &'a Chosen,
    passage: Rc<Passage>,
    /// The connection's number, and whether it was there before.
    line: (u64, bool),
    /// Its place there, until the answer has ended.
    _held: Rc<()>,
    at: Instant,
}

/// Takes one request to its target and its answer back; false when it is to be tried again. An error is the answer to
/// give instead.
pub async fn forward(stream: &mut Stream, chosen: Chosen, attempts: &mut Attempts) -> Result<bool, Answer> {
    let worker = Rc::clone(&stream.worker);
    if chosen.group.policy.protocol == Protocol::Grpc && !is_grpc(&stream.ask) {
        attempts.decided_by(&chosen.rule);
        return Err(Answer::incompatible());
    }
    let known = worker.streams.known(&chosen.target);
    let reused = known.is_some();
    let connected = match known {
        Some(line) => Ok(line),
        None => connect(&worker, &chosen.target).await,
    };
    let Line { number, sender, held } = match connected {
        Ok(line) => line,
        Err(answer) => {
            attempts.failed(&worker, &mut stream.ask, &chosen, answer);
            return Ok(false);
        }
    };
    if chosen.target.is_leaving() {
        return Ok(false);
    }
    let asked = Asked {
        chosen: &chosen,
        passage: Passage::new(stream.body.take(), stream.up.clone(), worker.limits().body),
        line: (number, reused),
        _held: held,
        at: Instant::now(),
    };
    let request = request(&stream.ask, Up(Rc::clone(&asked.passage))).map_err(|wrong| {
        attempts.decided_by(&chosen.rule);
        Answer::bad_request(wrong)
    })?;
    let _flow = Flow::new(&chosen);
    match ask(stream, sender, request, &asked.passage).await {
        Ok(answer) => {
            pass(stream, &asked, answer).await;
            Ok(true)
        }
        Err(why) => Ok(!again(stream, attempts, &asked, why)),
    }
}

/// The head of the answer, or why there is none.
async fn ask(
    stream: &mut Stream,
    mut line: SendRequest<Up>,
    request: Request<Up>,
    passage: &Passage,
) -> Result<Response<Incoming>, Unanswered> {
    tokio::select! {
        biased;
        // Before what comes of it.
        fail = passage.still(stream.worker.limits()) => Err(Unanswered::Failed(fail)),
        answer = line.try_send_request(request) => answer.map_err(|lost| meaning(&lost)),
        // A client that resets its request frees the target at once.
        () = closed(&mut stream.response) => Err(Unanswered::Failed(Fail::ClientGone)),
    }
}

/// What the target has seen of a request that is lost (RFC 9113, section 8.7).
fn meaning(lost: &TrySendError<Request<Up>>) -> Unanswered {
    let error = lost
        .error()
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    let reason = error.and_then(h2::Error::reason);
    match error {
        _ if lost.message().is_some() => Unanswered::Unsent,
        Some(error) if error.is_remote() && error.is_go_away() && reason == Some(Reason::NO_ERROR) => {
            Unanswered::Unsent
        }
        Some(error) if error.is_remote() && reason == Some(Reason::REFUSED_STREAM) => Unanswered::Refused,
        _ => Unanswered::Failed(Fail::Lost),
    }
}

/// Whether a request without an answer is to be tried again; else the client is told. As with HTTP/1.1: all of it must
/// still be there, and either the target has none of it or a second time changes nothing.
fn again(stream: &mut Stream, attempts: &mut Attempts, asked: &Asked<'_>, why: Unanswered) -> bool {
    let (chosen, (number, reused)) = (asked.chosen, asked.line);
    let (harmless, blamed, elsewhere) = match &why {
        Unanswered::Unsent => (true, false, false),
        Unanswered::Refused => (true, true, true),
        Unanswered::Failed(Fail::Lost) => (stream.ask.is_idempotent(), true, !reused),
        Unanswered::Failed(_) => (false, true, false),
    };
    match &why {
        Unanswered::Refused => {}
        Unanswered::Failed(Fail::ClientGone | Fail::ClientLate | Fail::ClientBad(_)) => {}
        // It is gone, or may be: nobody else is to wait for it.
        _ => stream.worker.streams.forget(&chosen.target, number),
    }
    let (body, whole) = asked.passage.take_back();
    stream.body = body;
    if !(harmless && whole && attempts.more()) {
        let fail = match why {
            Unanswered::Failed(fail) => fail,
            _ => Fail::Lost,
        };
        stream.give_up(chosen, asked.at, &fail, &Heard::default());
        return false;
    }
    if blamed {
        chosen.met(true, stream.worker.tick());
    }
    stream.worker.shared.totals.retries.fetch_add(1, Relaxed);
    attempts.lost(&chosen.target, elsewhere);
    if let Some(note) = &mut stream.ask.note {
        note.tried(chosen.group.name(), &chosen.target);
    }
    true
}

/// Takes an answer to the client.
async fn pass(stream: &mut Stream, asked: &Asked<'_>, answer: Response<Incoming>) {
    let (worker, Asked { chosen, passage, .. }) = (Rc::clone(&stream.worker), asked);
    let heard = Heard::default();
    let (mut parts, body) = answer.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        parts.headers.remove(name);
    }
    add_cookies(chosen, &mut parts.headers);
    let status = parts.status.as_u16();
    heard.head(status, worker.is_logging());
    heard.begun.set(true);
    if worker.is_logging() {
        heard.head.set(length(&parts.headers));
    }
    if is_grpc(&stream.ask) {
        passage.end_with(grpc_status(&Answer::bad_request(TOO_LARGE.0)));
    }
    let (passing, ended) = passage.back(body);
    if let Some(response) = stream.response.take() {
        // A client that has gone needs no answer.
        let _ = response.send(Response::from_parts(parts, Out::Passing(passing)));
    }
    let end = tokio::select! {
        biased;
        fail = passage.still(worker.limits()) => Err(fail),
        end = ended => end.unwrap_or(Err(Fail::ClientGone)),
    };
    heard.bytes.set(passage.bytes());
    if !matches!(end, Err(Fail::Broken)) {
        chosen.met(status >= 500, worker.tick());
        chosen.group.counters().answered(status, asked.at.elapsed());
        chosen.group.counters().sent(passage.bytes());
    }
    match end {
        Ok(()) => {
            chosen.rule.answered(status, passage.bytes());
            stream.log(Some((&chosen.group, &chosen.target)), status, &heard, asked.at);
        }
        Err(fail) => {
            let (body, _) = passage.take_back();
            if let (Some(body), Fail::ClientBad(_)) = (body, &fail) {
                tokio::task::spawn_local(linger(body));
            }
            stream.give_up(chosen, asked.at, &fail, &heard);
        }
    }
}

async fn closed(response: &mut Option<oneshot::Sender<Response<Out>>>) {
    match response {
        Some(response) => response.closed().await,
        None => std::future::pending().await,
    }
}

/// An answer of our own as a client understands it: to one of gRPC its status is gRPC's, in the head. Who is sent elsewhere
/// is told so by HTTP, for which gRPC has no word.
pub fn answered(answer: Answer, ask: &Ask) -> Response<Out> {
    if !is_grpc(ask) || answer.location.is_some() {
        return local(answer, ask.is_head());
    }
    let mut response = local(Answer::text(String::new()), true);
    *response.headers_mut() = grpc_status(&answer);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// What gRPC says of an answer of our own (its document on status codes): that there is too much of something is
/// RESOURCE_EXHAUSTED, whoever is to blame.
fn grpc_status(answer: &Answer) -> HeaderMap {
    let status = match answer.status {
        401 => 16,
        403 => 7,
        413 | 429 | 431 => 8,
        408 | 504 => 4,
        502 | 503 => 14,
        _ => 13,
    };
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from(status));
    if let Ok(message) = HeaderValue::from_str(&answer.body) {
        fields.insert("grpc-message", message);
    }
    fields
}

pub fn is_grpc(ask: &Ask) -> bool {
    ask.fields("content-type")
        .any(|value| value.starts_with(b"application/grpc"))
}

/// One request counted as under way.
struct Flow(Target, crate::balance::Group);

impl Flow {
    fn new(chosen: &Chosen) -> Self {
        for count in [&chosen.target.deeds().requests, &chosen.group.counters().requests] {
            count.fetch_add(1, Relaxed);
        }
        for active in [&chosen.target.deeds().active, &chosen.group.counters().active] {
            active.fetch_add(1, Relaxed);
        }
        Self(chosen.target.clone(), chosen.group.clone())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        for active in [&self.0.deeds().active, &self.1.counters().active] {
            active.fetch_sub(1, Relaxed);
        }
    }
}

/// A new connection to a target.
async fn connect(worker: &Rc<Worker>, target: &Target) -> Result<Line, Answer> {
    let connecting = async {
        let stream = TcpStream::connect(target.address())
            .await
            .map_err(|error| unconnected(&error))?;
        let _ = stream.set_nodelay(true);
        // Answers that nobody takes leave the others all the room that they may have.
        let ahead = worker.streams.ahead();
        let shaken = Builder::new(Local)
            .initial_stream_window_size(ahead)
            .initial_connection_window_size(ahead * STREAMS as u32)
            .handshake::<_, Up>(TokioIo::new(stream))
            .await;
        shaken.map_err(|_| Answer::target_unreachable())
    };
    let connected = timeout(worker.limits().connect, connecting).await;
    let (sender, connection) = connected.unwrap_or_else(|_| Err(Answer::connect_timeout()))?;
    let line = worker.streams.keep(target, sender);
    let (leaving, number) = (target.clone(), line.number);
    let held = Rc::downgrade(worker);
    tokio::task::spawn_local(async move {
        let mut connection = std::pin::pin!(connection);
        let mut look = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = &mut connection => break,
                _ = look.tick() => {
                    // Its last requests are cut when their time is over; without any it goes at once.
                    let idle = leaving.is_leaving() && leaving.active() == 0;
                    if idle || leaving.is_gone(clock::ticks()) || held.strong_count() == 0 {
                        break;
                    }
                }
            }
        }
        if let Some(worker) = held.upgrade() {
            worker.streams.forget(&leaving, number);
        }
    });
    Ok(line)
}

/// More fields than are added to those of a client.
const OURS: usize = 28;

/// The request as it was written for targets, transforms included, in HTTP/2's words.
pub fn request<B>(ask: &Ask, body: B) -> Result<Request<B>, &'static str> {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS + OURS];
    let mut parsed = httparse::Request::new(&mut slots);
    let wrong = "the request cannot be said in HTTP/2";
    parsed.parse(&ask.wire).map_err(|_| wrong)?;
    let (method, target) = (parsed.method.ok_or(wrong)?, parsed.path.ok_or(wrong)?);
    let mut headers = HeaderMap::new();
    let mut host = "";
    for header in parsed.headers.iter() {
        let name: HeaderName = header.name.parse().map_err(|_| wrong)?;
        if name == HOST {
            host = str::from_utf8(header.value).map_err(|_| wrong)?;
        } else if ![CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(&name) {
            headers.append(name, HeaderValue::from_bytes(header.value).map_err(|_| wrong)?);
        }
    }
    let uri = Uri::builder()
        .scheme(ask.scheme())
        .authority(host)
        .path_and_query(target);
    let mut request = Request::new(body);
    *request.uri_mut() = uri.build().map_err(|_| wrong)?;
    *request.method_mut() = method.parse().map_err(|_| wrong)?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn add_cookies(chosen: &Chosen, headers: &mut HeaderMap) {
    let Some(cookies) = &chosen.cookies else { return };
    let own = headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
    let values: Vec<_> = cookies
        .of(own)
        .filter_map(|value| HeaderValue::from_str(value).ok())
        .collect();
    for value in values {
        headers.append(SET_COOKIE, value);
    }
}
