//! Requests to targets that speak HTTP/2, gRPC among them: streams of one connection that all clients of a worker share.
//! Bodies and trailers pass as they come.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, Request, Response, Uri,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http2::{Builder, SendRequest},
    header::{
        CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use model::route::Protocol;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{Local, Out, drive::Stream, length, local};
use crate::{
    answer::Answer,
    clock,
    head::Ask,
    http1::relay::Heard,
    target::Target,
    upstream::{Attempts, Chosen},
    worker::Worker,
};

/// Connections of one worker, by target.
#[derive(Default)]
pub struct Shared(RefCell<HashMap<u64, SendRequest<Up>>>);

/// The body of a request on its way to a target.
pub enum Up {
    None,
    /// With a count of its bytes, where they are logged.
    Incoming(Incoming, Option<Rc<Cell<u64>>>),
}

impl Body for Up {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::None => Poll::Ready(None),
            Self::Incoming(body, count) => {
                let frame = Pin::new(body).poll_frame(cx);
                if let (Some(count), Poll::Ready(Some(Ok(frame)))) = (count, &frame) {
                    count.set(count.get() + frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Incoming(body, _) => body.is_end_stream(),
        }
    }
}

/// The body of an answer on its way to a client; its end, in whatever way, is told with the bytes that passed.
pub struct Passing {
    body: Incoming,
    end: End,
    over: Option<oneshot::Sender<End>>,
}

/// How an answer ended.
#[derive(Clone, Copy, Default)]
struct End {
    bytes: u64,
    /// All of it was there.
    whole: bool,
    /// The target broke it off.
    broken: bool,
}

impl Passing {
    pub fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.end.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.end.whole = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.end.whole = true,
            Poll::Ready(Some(Err(_))) => self.end.broken = true,
            Poll::Pending => {}
        }
        frame.map_err(std::io::Error::other)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            let _ = over.send(self.end);
        }
    }
}

/// Takes one request to its target and its answer back. An error is the answer to give instead.
pub async fn forward(stream: &mut Stream, chosen: Chosen, attempts: &mut Attempts) -> Result<bool, Answer> {
    let worker = Rc::clone(&stream.worker);
    let grpc = chosen.group.policy.protocol == Protocol::Grpc;
    if grpc && !is_grpc(&stream.ask) {
        return Err(Answer::incompatible());
    }
    let failed = || chosen.target.met_in(&chosen.group, true, worker.tick());
    let sender = match connect(&worker, &chosen.target).await {
        Ok(sender) => sender,
        Err(answer) => {
            failed();
            if let Some(note) = &mut stream.ask.note {
                note.tried(chosen.group.name(), &chosen.target);
            }
            attempts.failed(&chosen.target, answer);
            return Ok(false);
        }
    };
    if chosen.target.is_leaving() {
        return Ok(false);
    }
    let body = stream.body.take().map(|body| (body, stream.up.clone()));
    let request = request(&stream.ask, body).map_err(Answer::bad_request)?;
    let (flow, heard) = (Flow::new(&chosen), Heard::default());
    let started = Instant::now();
    let mut sender = sender;
    let mut waiting = stream.response.take();
    let answer = tokio::select! {
        answer = timeout(worker.limits.upstream, sender.send_request(request)) => answer,
        // A client that resets its request frees the target at once.
        () = closed(&mut waiting) => {
            stream.gone();
            chosen.rule.answered(460, 0);
            stream.log(Some((&chosen.group, &chosen.target)), 460, &heard, started);
            return Ok(true);
        }
    };
    stream.response = waiting;
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        lost => {
            failed();
            chosen.group.counters().failures.fetch_add(1, Relaxed);
            let answer = match lost {
                Err(_) => Answer::target_late(),
                Ok(_) => Answer::target_closed(),
            };
            chosen.rule.answered(answer.status, 0);
            stream.answer(Some((&chosen.group, &chosen.target)), answer);
            return Ok(true);
        }
    };
    let (mut parts, body) = answer.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        parts.headers.remove(name);
    }
    add_cookies(&chosen, &mut parts.headers);
    let status = parts.status.as_u16();
    heard.head(status, worker.is_logging());
    if worker.is_logging() {
        heard.head.set(length(&parts.headers));
    }
    chosen.group.counters().answered(status, started.elapsed());
    chosen.target.met_in(&chosen.group, status >= 500, worker.tick());
    let (over, ended) = oneshot::channel();
    let passing = Passing {
        end: End {
            whole: body.is_end_stream(),
            ..End::default()
        },
        body,
        over: Some(over),
    };
    if let Some(response) = stream.response.take() {
        // A client that has gone needs no answer.
        let _ = response.send(Response::from_parts(parts, Out::Passing(passing)));
    }
    let end = ended.await.unwrap_or_default();
    chosen.group.counters().sent(end.bytes);
    chosen.rule.answered(status, end.bytes);
    heard.bytes.set(end.bytes);
    match end {
        End { broken: true, .. } => stream.note(&Answer::target_broke_off()),
        End { whole: false, .. } => stream.gone(),
        _ => {}
    }
    stream.log(Some((&chosen.group, &chosen.target)), status, &heard, started);
    drop(flow);
    Ok(true)
}

async fn closed(response: &mut Option<oneshot::Sender<Response<Out>>>) {
    match response {
        Some(response) => response.closed().await,
        None => std::future::pending().await,
    }
}

/// An answer of our own to a gRPC client: a status of gRPC's, in the head.
pub fn grpc_answer(answer: &Answer) -> Response<Out> {
    let status = match answer.status {
        429 => 8,
        504 => 4,
        502 | 503 => 14,
        _ => 13,
    };
    let mut response = local(Answer::text(String::new()), true);
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(status));
    if let Ok(message) = HeaderValue::from_str(&answer.body) {
        headers.insert("grpc-message", message);
    }
    response
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

/// The connection to a target, or a new one.
async fn connect(worker: &Rc<Worker>, target: &Target) -> Result<SendRequest<Up>, Answer> {
    let known = worker
        .streams
        .0
        .borrow()
        .get(&target.serial)
        .filter(|sender| !sender.is_closed())
        .cloned();
    if let Some(mut known) = known
        && known.ready().await.is_ok()
    {
        return Ok(known);
    }
    let connecting = async {
        let stream = TcpStream::connect(target.address()).await.ok()?;
        let _ = stream.set_nodelay(true);
        Builder::new(Local)
            .handshake::<_, Up>(TokioIo::new(stream))
            .await
            .ok()
    };
    let connected = timeout(worker.limits.connect, connecting).await;
    let (sender, connection) = connected
        .map_err(|_| Answer::connect_timeout())?
        .ok_or_else(Answer::target_unreachable)?;
    let leaving = target.clone();
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
            worker.streams.0.borrow_mut().remove(&leaving.serial);
        }
    });
    worker
        .streams
        .0
        .borrow_mut()
        .insert(target.serial, sender.clone());
    Ok(sender)
}

impl Shared {
    /// Closes all.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The request as it was written for targets, transforms included, in HTTP/2's words.
fn request(ask: &Ask, body: Option<(Incoming, Option<Rc<Cell<u64>>>)>) -> Result<Request<Up>, &'static str> {
    let mut slots = [httparse::EMPTY_HEADER; 128];
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
    let mut request = Request::new(body.map_or(Up::None, |(body, count)| Up::Incoming(body, count)));
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
