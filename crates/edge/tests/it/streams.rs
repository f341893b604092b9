//! Targets of HTTP/2 that break off, refuse or say nothing: what is tried again, what is told, what is counted.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use h2::{Reason, RecvStream, server::SendResponse};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::SignedDuration;
use model::route::{Ejection, HealthProtocol, Protocol, Table, TargetState};
use tokio::net::TcpListener;

use crate::world::{self, Edge, shop, soon, until};

pub type Body = BoxBody<Bytes, std::convert::Infallible>;

/// What a target does with one request. True: it closes the connection, without a word.
pub type Doing = std::pin::Pin<Box<dyn Future<Output = bool> + Send>>;
pub type Does = fn(Request<RecvStream>, SendResponse<Bytes>) -> Doing;

pub struct Target {
    pub address: SocketAddr,
    /// Requests that came, and connections.
    seen: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Target {
    pub async fn that(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let connections = Arc::new(AtomicUsize::new(0));
        let opened = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, SeqCst);
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    let (close, mut closed) = tokio::sync::mpsc::channel::<()>(1);
                    loop {
                        let accepted = tokio::select! {
                            accepted = connection.accept() => accepted,
                            _ = closed.recv() => return,
                        };
                        let Some(Ok((request, response))) = accepted else {
                            return;
                        };
                        count.fetch_add(1, SeqCst);
                        let close = close.clone();
                        tokio::spawn(async move {
                            if does(request, response).await {
                                let _ = close.send(()).await;
                            }
                        });
                    }
                });
            }
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    pub fn seen(&self) -> usize {
        self.seen.load(SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Reads the request to its end and answers it.
fn well(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let mut body = request.into_body();
        let mut read = 0;
        while let Some(Ok(data)) = body.data().await {
            read += data.len();
            let _ = body.flow_control().release_capacity(data.len());
        }
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        let _ = send.send_data(format!("well {read}").into(), true);
        false
    })
}

/// Closes the connection, with the request read.
fn gone(_: Request<RecvStream>, answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        // Until the connection is gone, the request is not answered.
        std::mem::forget(answer);
        true
    })
}

/// Has enough to do.
fn busy(_: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        answer.send_reset(Reason::REFUSED_STREAM);
        false
    })
}

/// Begins an answer, and closes the connection in the middle.
fn half(_: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        let _ = send.send_data("half".into(), false);
        tokio::time::sleep(Duration::from_millis(50)).await;
        std::mem::forget(send);
        true
    })
}

/// Begins an answer, and never goes on.
fn stuck(_: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        let _ = send.send_data("half".into(), false);
        // Until it is reset.
        let _ = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
        false
    })
}

/// Answers before it has read the request, and goes on when it has.
fn early(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        let _ = send.send_data("well ".into(), false);
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            let Ok(data) = data else { return false };
            let _ = send.send_data(data, false);
        }
        let _ = send.send_data(Bytes::new(), true);
        false
    })
}

/// Says nothing.
fn silent(_: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Doing {
    Box::pin(async move {
        let _ = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
        false
    })
}

/// All targets are found well, at an address of their own.
pub async fn table(addresses: &[SocketAddr]) -> Table {
    let well = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut table = shop(1, addresses);
    let group = table.target_groups.get_mut("shop").unwrap();
    group.protocol = Protocol::Http2;
    group.health.protocol = HealthProtocol::Tcp;
    group.health.port = Some(well.local_addr().unwrap().port());
    tokio::spawn(async move { while well.accept().await.is_ok() {} });
    table
}

async fn edge(folder: &tempfile::TempDir, table: &Table) -> Edge {
    let limits = edge::Limits {
        upstream: Duration::from_millis(400),
        ..edge::Limits::default()
    };
    let edge = Edge::with(folder, limits, 1);
    edge.apply(table).await;
    until("all are healthy", || async {
        let health = edge.client.health().await.unwrap();
        health.iter().all(|seen| seen.state == TargetState::Healthy)
    })
    .await;
    edge
}

pub async fn client(edge: &Edge) -> SendRequest<Body> {
    let stream = edge.connect().await;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub fn request(method: Method, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri("http://shop.test/");
    request.body(body).unwrap()
}

fn nothing() -> Body {
    Empty::new().boxed()
}

pub async fn send(h2: &mut SendRequest<Body>, request: Request<Body>) -> Response<Incoming> {
    soon("an answer", h2.send_request(request)).await.unwrap()
}

pub async fn text(answer: Response<Incoming>) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = soon("a body", answer.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A metric of the load balancer.
async fn metric(edge: &Edge, name: &str) -> u64 {
    let metrics = edge.client.metrics().await.unwrap();
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next())
        .unwrap()
        .parse()
        .unwrap()
}

const RETRIES: &str = "vend_edge_retries_total";
const FAILURES: &str = "vend_edge_failures_total{group=\"shop\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_target_has_seen_goes_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let well = Target::that(well).await;
    let edge = edge(&folder, &table(&[world::refusing(), well.address]).await).await;
    let mut h2 = client(&edge).await;
    for n in 1..=4 {
        let answer = send(&mut h2, request(Method::POST, Full::from("body").boxed())).await;
        assert_eq!(text(answer).await, (200, "well 4".to_owned()), "request {n}");
    }
    assert_eq!(well.seen(), 4);
    assert_eq!(metric(&edge, RETRIES).await, 4, "each met nobody first");
    assert_eq!(metric(&edge, FAILURES).await, 0);

    let alone = table(&[world::refusing()]).await;
    edge.client.apply(&Table { version: 2, ..alone }).await.unwrap();
    let answer = send(&mut h2, request(Method::GET, nothing())).await;
    assert_eq!(
        text(answer).await,
        (502, "the target refused the connection".to_owned())
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_request_is_repeated_where_that_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (gone, well) = (Target::that(gone).await, Target::that(well).await);
    let edge = edge(&folder, &table(&[gone.address, well.address]).await).await;
    let mut h2 = client(&edge).await;
    for n in 1..=4 {
        let answer = send(&mut h2, request(Method::GET, nothing())).await;
        assert_eq!(text(answer).await, (200, "well 0".to_owned()), "request {n}");
    }
    assert_eq!((gone.seen(), well.seen()), (4, 4));
    assert_eq!(metric(&edge, FAILURES).await, 0);
    // Once more would be twice, for all that anybody knows.
    let mut told = Vec::new();
    for _ in 0..2 {
        let answer = send(&mut h2, request(Method::POST, nothing())).await;
        told.push(text(answer).await);
    }
    told.sort();
    assert_eq!(told[0], (200, "well 0".to_owned()));
    assert_eq!(
        told[1],
        (
            502,
            "the target closed the connection without an answer".to_owned()
        )
    );
    assert_eq!((gone.seen(), well.seen()), (5, 5));
    assert_eq!(
        (metric(&edge, RETRIES).await, metric(&edge, FAILURES).await),
        (4, 1)
    );
    let health = edge.client.health().await.unwrap();
    let of = health
        .iter()
        .find(|seen| seen.target.address == gone.address)
        .unwrap();
    assert_eq!(of.errors, 5);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stream_goes_elsewhere_whatever_it_asks() {
    let folder = tempfile::tempdir().unwrap();
    let (busy, well) = (Target::that(busy).await, Target::that(well).await);
    let edge = edge(&folder, &table(&[busy.address, well.address]).await).await;
    let mut h2 = client(&edge).await;
    for n in 1..=4 {
        let answer = send(&mut h2, request(Method::POST, nothing())).await;
        assert_eq!(text(answer).await, (200, "well 0".to_owned()), "request {n}");
    }
    assert_eq!((busy.seen(), well.seen()), (4, 4));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_says_nothing_is_late_and_a_slow_client_is_not_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    let silent = Target::that(silent).await;
    let edge = edge(&folder, &table(&[silent.address]).await).await;
    let mut h2 = client(&edge).await;
    let answer = send(&mut h2, request(Method::GET, nothing())).await;
    assert_eq!(
        text(answer).await,
        (504, "the target did not answer in time".to_owned())
    );
    assert_eq!(metric(&edge, FAILURES).await, 1);

    let well = Target::that(well).await;
    let again = table(&[well.address]).await;
    edge.client.apply(&Table { version: 2, ..again }).await.unwrap();
    let (parts, body) = tokio::sync::mpsc::channel(1);
    let body = Channel(body).boxed();
    let asked = h2.send_request(request(Method::POST, body));
    let asked = tokio::spawn(asked);
    for _ in 0..5 {
        parts.send(Bytes::from("part")).await.unwrap();
        // All in all it takes more than a target may.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    drop(parts);
    let answer = soon("an answer", asked).await.unwrap().unwrap();
    assert_eq!(text(answer).await, (200, "well 20".to_owned()));
    edge.stop().await;
}

/// A body of what is sent.
struct Channel(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_answer_is_a_failure_and_leaves_its_target_out() {
    for does in [half as Does, stuck as Does] {
        let folder = tempfile::tempdir().unwrap();
        let bad = Target::that(does).await;
        let well = Target::that(well).await;
        let mut table = table(&[bad.address, well.address]).await;
        table.target_groups.get_mut("shop").unwrap().ejection = Some(Ejection {
            failures: 2,
            time: SignedDuration::from_secs(600),
        });
        let edge = edge(&folder, &table).await;
        let mut h2 = client(&edge).await;
        let mut broken = 0;
        for _ in 0..8 {
            let answer = send(&mut h2, request(Method::GET, nothing())).await;
            assert_eq!(answer.status(), 200);
            let body = soon("an end", answer.into_body().collect()).await;
            broken += u64::from(body.is_err());
        }
        assert_eq!(
            (broken, bad.seen(), well.seen()),
            (2, 2, 6),
            "after two it is left out"
        );
        assert_eq!(metric(&edge, FAILURES).await, 2);
        let health = edge.client.health().await.unwrap();
        let of = health
            .iter()
            .find(|seen| seen.target.address == bad.address)
            .unwrap();
        assert_eq!(
            (of.errors, of.reason.as_deref()),
            (2, Some("left out: its requests fail"))
        );
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_ends_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let (well, early) = (Target::that(well).await, Target::that(early).await);
    let limits = edge::Limits {
        body: 10,
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&table(&[well.address]).await).await;
    let mut h2 = client(&edge).await;
    // Without a length in front, in one part or several.
    let post = async |h2: &mut SendRequest<Body>, parts: &[usize]| {
        let (sender, body) = tokio::sync::mpsc::channel(parts.len());
        for length in parts {
            sender.send(Bytes::from(vec![b'x'; *length])).await.unwrap();
        }
        drop(sender);
        send(h2, request(Method::POST, Channel(body).boxed())).await
    };
    let large = (413, "the body of the request is too large".to_owned());
    for (parts, expected) in [
        (&[10][..], (200, "well 10".to_owned())),
        (&[4, 6], (200, "well 10".to_owned())),
        (&[11], large.clone()),
        (&[4, 7], large.clone()),
        (&[4, 300_000, 1_000_000], large),
    ] {
        let answer = post(&mut h2, parts).await;
        assert_eq!(text(answer).await, expected, "{parts:?}");
    }
    assert_eq!(well.connections.load(SeqCst), 1, "others go on there");
    // An answer that has begun breaks off.
    edge.client
        .apply(&Table {
            version: 2,
            ..table(&[early.address]).await
        })
        .await
        .unwrap();
    let answer = post(&mut h2, &[4, 6]).await;
    assert_eq!(text(answer).await, (200, "well xxxxxxxxxx".to_owned()));
    let (sender, body) = tokio::sync::mpsc::channel(2);
    sender.send(Bytes::from_static(b"four")).await.unwrap();
    let answer = send(&mut h2, request(Method::POST, Channel(body).boxed())).await;
    assert_eq!(answer.status(), 200);
    sender.send(Bytes::from_static(b"and more")).await.unwrap();
    let body = soon("an end", answer.into_body().collect()).await;
    assert!(body.is_err(), "{body:?}");
    assert_eq!(metric(&edge, FAILURES).await, 0, "no target is to blame");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_has_as_many_fields_as_from_other_clients() {
    let folder = tempfile::tempdir().unwrap();
    let well = Target::that(well).await;
    let edge = edge(&folder, &table(&[well.address]).await).await;
    let mut h2 = client(&edge).await;
    for (count, expected) in [(99, 200), (100, 431), (125, 431)] {
        let mut many = request(Method::GET, nothing());
        for n in 0..count {
            let name: hyper::header::HeaderName = format!("x-{n}").parse().unwrap();
            many.headers_mut().insert(name, "x".parse().unwrap());
        }
        assert_eq!(send(&mut h2, many).await.status(), expected, "{count}");
    }
    edge.stop().await;
}
