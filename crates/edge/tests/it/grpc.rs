//! Targets that speak HTTP/2, gRPC among them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::route::{HealthProtocol, Protocol, TargetState};
use tokio::{net::TcpListener, sync::mpsc};

use crate::world::{self, Edge, shop, soon, status, until};

struct Service {
    address: SocketAddr,
    well: Arc<AtomicBool>,
}

/// A body of frames that come when they come.
mod frames {
    use super::*;
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    pub struct Of(pub mpsc::Receiver<Result<Frame<Bytes>, Infallible>>);

    impl hyper::body::Body for Of {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx)
        }
    }
}

/// Answers each message with itself as it comes, then says that all is well, with the path in a trailer.
async fn echo(request: Request<Incoming>, well: bool) -> Response<BoxBody<Bytes, Infallible>> {
    if request.method() == hyper::Method::GET {
        return said(&request, well);
    }
    if request.uri().path().ends_with("/Late") {
        let _ = request.into_body().collect().await;
        return Response::new(Full::new(Bytes::new()).boxed());
    }
    let (frames, body) = mpsc::channel(4);
    let path = request.uri().path().to_owned();
    let via = request.headers().get("x-forwarded-for").cloned();
    tokio::spawn(async move {
        let mut asked = request.into_body();
        while let Some(Ok(frame)) = asked.frame().await {
            if let Ok(data) = frame.into_data() {
                let _ = frames.send(Ok(Frame::data(data))).await;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", if well { "0" } else { "14" }.parse().unwrap());
        trailers.insert("x-path", path.parse().unwrap());
        if let Some(via) = via {
            trailers.insert("x-via", via);
        }
        let _ = frames.send(Ok(Frame::trailers(trailers))).await;
    });
    let mut response = Response::new(frames::Of(body).boxed());
    response
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    response
}

/// How it is, in the codes of HTTP, to who asks as a health check does.
fn said(request: &Request<Incoming>, well: bool) -> Response<BoxBody<Bytes, Infallible>> {
    let asks = request.uri().path() == "/health" && request.headers()["user-agent"] == "vend-health";
    let mut response = Response::new(Full::new(Bytes::from_static(b"a body that nobody reads")).boxed());
    *response.status_mut() = match (asks, well) {
        (true, true) => StatusCode::IM_A_TEAPOT,
        (true, false) => StatusCode::OK,
        (false, _) => StatusCode::BAD_REQUEST,
    };
    response
}

async fn service() -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let well = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&well);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let state = Arc::clone(&state);
            let service = service_fn(move |request| {
                let well = state.load(SeqCst);
                async move { Ok::<_, Infallible>(echo(request, well).await) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    Service { address, well }
}

fn table(version: u64, address: SocketAddr, protocol: Protocol) -> model::route::Table {
    let mut table = shop(version, &[address]);
    let group = table.target_groups.get_mut("shop").unwrap();
    group.protocol = protocol;
    group.health.protocol = HealthProtocol::Grpc;
    group.health.path = "/grpc.health.v1.Health/Check".into();
    group.health.codes = vec![(0, 0)];
    group.health.interval = jiff::SignedDuration::from_millis(100);
    table
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_trailers_pass_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let service = service().await;
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    edge.apply(&table(1, service.address, Protocol::Grpc)).await;
    until("the health check is answered", || async {
        edge.client.health().await.unwrap()[0].state == TargetState::Healthy
    })
    .await;
    let stream = edge.connect().await;
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for n in 0..5 {
        let (send, body) = mpsc::channel(4);
        let request = Request::post(format!("http://shop.test/shop.Cart/Add{n}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(frames::Of(body).boxed())
            .unwrap();
        let answer = soon("a head", h2.send_request(request)).await.unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers()["content-type"].to_str().unwrap()
            ),
            (200, "application/grpc")
        );
        let mut body = answer.into_body();
        // One message there, one back, before the next: nothing is held up.
        for word in ["one", "two"] {
            send.send(Ok(Frame::data(Bytes::from_static(word.as_bytes()))))
                .await
                .unwrap();
            let frame = soon("a message", body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
        }
        drop(send);
        let trailers = soon("trailers", body.frame())
            .await
            .unwrap()
            .unwrap()
            .into_trailers()
            .unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-path"], format!("/shop.Cart/Add{n}"));
        assert_eq!(trailers["x-via"], "127.0.0.1");
    }
    let probes = edge.client.health().await.unwrap();
    assert_eq!(probes[0].requests, 5);
    let stats = edge.client.stats().await.unwrap();
    until("all are over", || async {
        edge.client.stats().await.unwrap()[0].active == 0
    })
    .await;
    assert_eq!(stats[0].requests, 5);

    // What is not gRPC is not for these targets; failures of ours are gRPC's.
    let plain = Request::get("http://shop.test/")
        .body(Full::new(Bytes::new()).boxed())
        .unwrap();
    assert_eq!(
        soon("an answer", h2.send_request(plain)).await.unwrap().status(),
        464
    );
    assert_eq!(status(&edge.get("shop.test", "/").await), 464);
    edge.apply(&table(2, world::refusing(), Protocol::Grpc)).await;
    let call = Request::post("http://shop.test/a.B/C")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::new()).boxed())
        .unwrap();
    let answer = soon("an answer", h2.send_request(call)).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["grpc-status"].to_str().unwrap()
        ),
        (200, "14")
    );
    drop(h2);
    edge.stop().await;
}

/// The service is healthy, and then says that it is not well. Gives the reason why it is unhealthy.
async fn falls_ill(edge: &Edge, service: &Service) -> Option<String> {
    let state = || async { edge.client.health().await.unwrap()[0].clone() };
    until("it is healthy", || async {
        state().await.state == TargetState::Healthy
    })
    .await;
    service.well.store(false, SeqCst);
    until("it is not", || async {
        state().await.state == TargetState::Unhealthy
    })
    .await;
    state().await.reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_says_it_is_not_well_is_unhealthy() {
    let folder = tempfile::tempdir().unwrap();
    let service = service().await;
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    edge.apply(&table(1, service.address, Protocol::Http2)).await;
    assert_eq!(falls_ill(&edge, &service).await.as_deref(), Some("status 14"));
    edge.stop().await;
}

/// A target that speaks HTTP/2 and nothing else is asked in HTTP/2 by HTTP, too, and its codes are those of the check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_of_http2_is_asked_in_http2() {
    let folder = tempfile::tempdir().unwrap();
    let service = service().await;
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    for (version, protocol) in [(1, Protocol::Http2), (2, Protocol::Grpc)] {
        let mut table = table(version, service.address, protocol);
        let health = &mut table.target_groups.get_mut("shop").unwrap().health;
        health.protocol = HealthProtocol::Http;
        health.path = "/health".into();
        health.codes = vec![(299, 299), (418, 418)];
        service.well.store(true, SeqCst);
        edge.apply(&table).await;
        assert_eq!(falls_ill(&edge, &service).await.as_deref(), Some("status 200"));
    }
    edge.stop().await;
}

/// Of whatever a call has too much: gRPC says so, and clients do not take it for a fault of the service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_sends_too_much_ends_in_grpcs_own_status() {
    let folder = tempfile::tempdir().unwrap();
    let service = service().await;
    let limits = edge::Limits {
        body: 10,
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&table(1, service.address, Protocol::Grpc)).await;
    let stream = TokioIo::new(edge.connect().await);
    let (mut h2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let call = |method: &str, body: BoxBody<Bytes, Infallible>| {
        Request::post(format!("http://shop.test/shop.Cart/{method}"))
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap()
    };
    let exhausted = |fields: &HeaderMap| {
        assert_eq!(fields["grpc-status"], "8");
        assert_eq!(fields["grpc-message"], "the body of the request is too large");
    };
    // Its length is said before; it comes before there is an answer; it comes in the middle of one.
    let whole = Full::new(Bytes::from_static(b"twelve bytes")).boxed();
    let answer = soon("a head", h2.send_request(call("Add", whole))).await.unwrap();
    assert_eq!(answer.status(), 200);
    exhausted(answer.headers());
    let (send, body) = mpsc::channel(4);
    let word = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
    for text in ["six is", " much"] {
        send.send(word(text)).await.unwrap();
    }
    let late = call("Late", frames::Of(body).boxed());
    let answer = soon("a head", h2.send_request(late)).await.unwrap();
    assert_eq!(answer.status(), 200);
    exhausted(answer.headers());
    let (send, body) = mpsc::channel(4);
    let answer = h2.send_request(call("Add", frames::Of(body).boxed()));
    send.send(word("three")).await.unwrap();
    let mut body = soon("a head", answer).await.unwrap().into_body();
    let message = soon("a message", body.frame()).await.unwrap().unwrap();
    assert_eq!(message.into_data().unwrap(), "three");
    send.send(word("and three")).await.unwrap();
    let trailers = soon("trailers", body.frame()).await.unwrap();
    exhausted(&trailers.expect("no reset").into_trailers().unwrap());
    assert!(soon("the end", body.frame()).await.is_none());
    // Nobody else is harmed, nor is this client.
    let fits = Full::new(Bytes::from_static(b"ten bytes!")).boxed();
    let answer = soon("a head", h2.send_request(call("Add", fits))).await.unwrap();
    let answer = soon("an answer", answer.into_body().collect()).await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(answer.to_bytes(), "ten bytes!");
    until("all are over", || async {
        edge.client.stats().await.unwrap()[0].active == 0
    })
    .await;
    drop(h2);
    edge.stop().await;
}
