//! HTTP/2 from clients, by hyper; targets get HTTP/1.1, through the same pool, rules and checks as everybody.

mod drive;
pub mod forward;
mod passage;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    header::{CACHE_CONTROL, CONTENT_LENGTH, COOKIE, HOST, HeaderValue, RETRY_AFTER, SET_COOKIE, TE},
    http::request::Parts,
    rt::{Executor, ReadBufCursor},
    server::conn::http2::Builder,
    service::service_fn,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    answer::Answer,
    head::{Ask, CONFUSING, Method, is_confusing},
    http1::{
        frame::{Framing, TOO_LARGE},
        parse::{FIELDS, passes},
    },
    link::{Buffer, Link, NEVER},
    worker::{Ends, Watched, Worker},
};

/// Requests at the same time on one connection.
const STREAMS: u32 = 128;
/// Frames of an answer's body that may wait for the client.
const FRAMES: usize = 4;
/// Bytes of one answer that may wait beside them: a client that opens all windows and reads nothing holds so many for
/// each of its streams.
const WAITING: usize = 64 * 1024;

/// One connection's count of requests under way: while there are some, it is not idle.
struct Busy {
    worker: Rc<Worker>,
    link: Rc<Link>,
    streams: Cell<usize>,
    /// Until when the next request must be there. What comes without being one, or a byte of one now and then, is no
    /// reason to wait longer.
    until: Cell<u64>,
}

impl Busy {
    fn rest(&self) {
        self.link.arm(match self.streams.get() {
            0 => self.until.get(),
            _ => NEVER,
        });
    }

    /// A request begins. The connection may have been armed for its end just before.
    fn begin(&self) {
        self.streams.set(self.streams.get() + 1);
        self.rest();
    }

    /// One is over.
    fn end(&self) {
        self.streams.set(self.streams.get() - 1);
        self.until.set(self.worker.after(self.worker.limits().idle));
        self.rest();
    }
}

/// Serves a client whose first bytes are in `input`.
pub async fn serve(worker: Rc<Worker>, client: Watched, input: Buffer, ends: Box<Ends>) {
    let ends: Rc<Ends> = ends.into();
    let busy = Rc::new(Busy {
        worker: Rc::clone(&worker),
        link: Rc::clone(&client.link),
        streams: Cell::new(0),
        until: Cell::new(worker.after(worker.limits().idle)),
    });
    let io = Io {
        busy: Rc::clone(&busy),
        input: RefCell::new(input),
    };
    let service = service_fn(move |request| handle(Rc::clone(&busy), Rc::clone(&ends), request));
    let connection = Builder::new(Local)
        .max_concurrent_streams(STREAMS)
        // What is more than this is refused there, without a line in the log; a field counts 32 bytes more (RFC 9113,
        // section 6.5.2).
        .max_header_list_size(u32::try_from(worker.limits().head * 2).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(32)
        .max_send_buf_size(WAITING)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = worker.stopped() => connection.as_mut().graceful_shutdown(),
    }
    // Errors are the client's: it went away or broke the protocol, and hyper has told it so.
    let _ = connection.await;
}

/// Tasks of a connection stay on its worker.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Our link, as hyper wants it.
struct Io {
    busy: Rc<Busy>,
    input: RefCell<Buffer>,
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut space = space;
        let mut input = self.input.borrow_mut();
        if input.is_empty() {
            self.busy.rest();
            match self.busy.link.poll_fill(cx, &mut input) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let count = input.len().min(space.remaining());
        space.put_slice(&input.filled_part()[..count]);
        input.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.busy.link.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.busy.link.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.busy.link.poll_shutdown(cx)
    }
}

/// The body of an answer.
pub enum Out {
    Whole(Option<Bytes>),
    Parts(Parting),
    Passing(passage::Passing),
}

/// A body that comes in parts. Its end is an end only when it was said to be one: a part must not pass for the whole.
pub struct Parting {
    frames: mpsc::Receiver<io::Result<Frame<Bytes>>>,
    over: Rc<Cell<bool>>,
}

impl Parting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.frames.poll_recv(cx) {
            Poll::Ready(None) if !self.over.replace(true) => {
                Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
            }
            other => other,
        }
    }
}

impl Body for Out {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Parts(parting) => parting.poll(cx),
            Self::Passing(passing) => passing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Parts(_) => false,
            // A gRPC answer that fails at once is one head, and clients take no empty end after it.
            Self::Passing(passing) => passing.is_end_stream(),
        }
    }
}

fn local(answer: Answer, head: bool) -> Response<Out> {
    let body = Bytes::from(answer.body.into_owned());
    let length = body.len();
    let mut response = Response::new(Out::Whole(Some(body).filter(|body| !head && !body.is_empty())));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if answer.passing {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    for cookie in &answer.cookies {
        if let Ok(cookie) = HeaderValue::from_str(cookie) {
            headers.append(SET_COOKIE, cookie);
        }
    }
    for (name, value) in [
        ("content-type", Some(&*answer.content_type)),
        ("location", answer.location.as_deref()),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

async fn handle(
    busy: Rc<Busy>,
    ends: Rc<Ends>,
    request: Request<Incoming>,
) -> Result<Response<Out>, Infallible> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let logging = busy.worker.is_logging();
    let mut ask = Ask::noting(logging);
    let bits = (busy.worker.id(), busy.worker.id());
    let received = if logging { size(&parts) } else { 0 };
    let most = busy.worker.limits().body;
    let written = write(&parts, &body, &ends, bits, &mut ask, busy.worker.limits().head);
    let framing = match written {
        Ok(_) if most > 0 && body.size_hint().lower() > most => {
            tokio::task::spawn_local(drive::linger(body));
            let answer = Answer::bad_request(TOO_LARGE.0);
            return Ok(refuse(&busy.worker, &ends, &mut ask, answer, received));
        }
        Ok(framing) => framing,
        Err(answer) => return Ok(refuse(&busy.worker, &ends, &mut ask, answer, received)),
    };
    let head = ask.is_head();
    let (sender, response) = oneshot::channel();
    let stream = drive::Stream {
        worker: Rc::clone(&busy.worker),
        ask,
        body: Some(body).filter(|body| !body.is_end_stream()),
        framing,
        ends,
        started,
        received,
        up: logging.then(Rc::default),
        response: Some(sender),
    };
    busy.begin();
    tokio::task::spawn_local(async move {
        stream.run().await;
        busy.end();
    });
    let lost = |_| local(Answer::given_up(), head);
    Ok(response.await.unwrap_or_else(lost))
}

/// Answers what is no request.
fn refuse(worker: &Worker, ends: &Ends, ask: &mut Ask, answer: Answer, received: u64) -> Response<Out> {
    worker
        .shared
        .totals
        .refused
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let response = forward::answered(answer.clone(), ask);
    if let Some(log) = &worker.log {
        let body = if response.body().is_end_stream() {
            0
        } else {
            answer.body.len()
        };
        let sent = length(response.headers()) + body as u64;
        log.refused(ask, ends, "HTTP/2", &answer, (received, sent));
    }
    response
}

/// Bytes of a head, as they would be in HTTP/1.1 but for its first line.
pub fn length(headers: &HeaderMap) -> u64 {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64)
        .sum()
}

/// The same of a request, with its first line.
fn size(parts: &Parts) -> u64 {
    let target = parts
        .uri
        .path_and_query()
        .map_or(1, |target| target.as_str().len());
    let host = parts.uri.authority().map_or(0, |host| host.as_str().len() + 8);
    (parts.method.as_str().len() + target + host) as u64 + length(&parts.headers)
}

/// Writes the request as HTTP/1.1. hyper has refused what HTTP/2 forbids: bad names and values, `Connection` and its
/// like, lengths that do not fit the body.
fn write(
    parts: &Parts,
    body: &Incoming,
    ends: &Ends,
    bits: (u64, u64),
    ask: &mut Ask,
    most: usize,
) -> Result<Framing, Answer> {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    ask.start(parts.method.as_str(), target, ends);
    if ask.method == Method::Refused {
        return Err(Answer::not_allowed());
    }
    let all = target == "*" && parts.method == hyper::Method::OPTIONS;
    if !target.starts_with('/') && !all {
        return Err(Answer::bad_request("the request target is not a path"));
    }
    if fields(&parts.headers) > FIELDS {
        return Err(Answer::head_too_large());
    }
    let field = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = parts
        .uri
        .authority()
        .map(|authority| authority.as_str())
        .or(field);
    if is_confusing(ask.path()) {
        return Err(Answer::bad_request(CONFUSING));
    }
    if !authority.is_some_and(|authority| !authority.is_empty() && ask.name_host(authority)) {
        return Err(Answer::bad_request("the request names no host"));
    }
    for (name, value) in &parts.headers {
        if passes(name.as_str()) && name != COOKIE {
            ask.header(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    write_cookies(&parts.headers, ask);
    if ask.wire.len() > most {
        return Err(Answer::head_too_large());
    }
    if parts.headers.get(TE).is_some_and(|te| te == "trailers") {
        ask.header(b"Connection", b"TE");
        ask.header(b"TE", b"trailers");
    }
    let framing = write_framing(&parts.headers, body, ask);
    let via = parts.headers.get_all("x-forwarded-for").iter();
    ask.forwarded(via.map(HeaderValue::as_bytes), ends)
        .map_err(|bad| Answer::bad_request(bad.0))?;
    let id = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
    ask.identify(id("x-request-id"), id("x-amzn-trace-id"), bits);
    ask.end();
    Ok(framing)
}

/// How many fields it would have in HTTP/1.1, where the host is one and all cookies are.
fn fields(headers: &HeaderMap) -> usize {
    let cookies = headers.get_all(COOKIE).iter().count();
    headers.len() - cookies.saturating_sub(1) + usize::from(!headers.contains_key(HOST))
}

/// HTTP/2 may send cookies in several fields, HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn write_cookies(headers: &HeaderMap, ask: &mut Ask) {
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if !cookies.is_empty() {
        ask.header(b"Cookie", &cookies.join(b"; ".as_slice()));
    }
}

fn write_framing(headers: &HeaderMap, body: &Incoming, ask: &mut Ask) -> Framing {
    match (body.size_hint().exact(), body.is_end_stream()) {
        (_, true) if headers.contains_key(CONTENT_LENGTH) => ask.header(b"Content-Length", b"0"),
        (_, true) => {}
        (Some(length), false) => ask.header(b"Content-Length", length.to_string().as_bytes()),
        (None, false) => {
            ask.header(b"Transfer-Encoding", b"chunked");
            return Framing::Chunked;
        }
    }
    Framing::Plain
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_part_does_not_pass_for_the_whole() {
        for whole in [true, false] {
            let (sender, frames) = mpsc::channel(FRAMES);
            let over = Rc::new(Cell::new(false));
            let mut out = Out::Parts(Parting {
                frames,
                over: Rc::clone(&over),
            });
            sender
                .send(Ok(Frame::data(Bytes::from_static(b"part"))))
                .await
                .unwrap();
            over.set(whole);
            drop(sender);
            assert!(out.frame().await.unwrap().is_ok());
            assert_eq!(out.frame().await.is_some_and(|end| end.is_err()), !whole);
        }
    }
}
