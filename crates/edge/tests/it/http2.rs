//! HTTP/2 with prior knowledge, on the port that also speaks HTTP/1.1.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::world::{self, Edge, Origin, field, in_front_of, read_head, read_request, shop, soon};

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

async fn client(edge: &Edge) -> SendRequest<Body> {
    let stream = edge.connect().await;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn full(text: &'static str) -> Body {
    Full::from(text).boxed()
}

fn request(method: Method, target: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("http://shop.test{target}"))
        .body(body)
        .unwrap()
}

async fn text(response: Response<Incoming>) -> (StatusCode, String, Option<HeaderMap>) {
    let status = response.status();
    let body = soon("a body", response.into_body().collect()).await.unwrap();
    let trailers = body.trailers().cloned();
    (
        status,
        String::from_utf8(body.to_bytes().to_vec()).unwrap(),
        trailers,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reach_targets_as_http_1() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::answering(|request| {
        match request.split(' ').nth(1).unwrap() {
            "/empty" => "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
            "/chunked" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nGrpc-Status: 0\r\n\r\n"
            }
            "/hints" => "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
            "/bad" => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Answer: yes\r\n\r\nfine",
        }
        .to_owned()
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let mut h2 = client(&edge).await;

    let mut ask = request(Method::GET, "/a?b=c", full(""));
    for (name, value) in [
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("te", "trailers"),
        ("x-forwarded-for", "10.1.1.1"),
        ("x-amzn-mtls-clientcert-subject", "CN=root"),
        ("x_amzn_mtls_clientcert_leaf", "x"),
        ("x-amzn-oidc-identity", "root"),
    ] {
        ask.headers_mut().append(name, value.parse().unwrap());
    }
    let response = soon("an answer", h2.send_request(ask)).await.unwrap();
    assert_eq!(response.headers()["x-answer"], "yes");
    assert_eq!(text(response).await.1, "fine");
    let seen = origin.requests().pop().unwrap();
    assert!(
        seen.starts_with("GET /a?b=c HTTP/1.1\r\nHost: shop.test\r\n"),
        "{seen}"
    );
    for (name, expected) in [
        ("cookie", Some("a=b; c=d")),
        ("te", Some("trailers")),
        ("x-forwarded-for", Some("10.1.1.1, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-amzn-mtls-clientcert-subject", None),
        ("x_amzn_mtls_clientcert_leaf", None),
        ("x-amzn-oidc-identity", None),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(field(&seen, name), expected, "{name} in {seen}");
    }

    for (path, status, body) in [
        ("/empty", 204, ""),
        ("/chunked", 200, "hello"),
        ("/hints", 201, "ok"),
        ("/bad", 502, "the target sent an invalid answer"),
        ("/", 200, "fine"),
    ] {
        let response = h2.send_request(request(Method::GET, path, full("")));
        let (got, text, trailers) = text(soon(path, response).await.unwrap()).await;
        assert_eq!((got.as_u16(), &*text), (status, body), "{path}");
        if path == "/chunked" {
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
    }

    let response = h2
        .send_request(request(Method::POST, "/", full("hello")))
        .await
        .unwrap();
    assert_eq!(text(response).await.1, "fine");
    let seen = origin.requests().pop().unwrap();
    assert!(
        seen.ends_with("\r\n\r\nhello") && field(&seen, "content-length") == Some("5"),
        "{seen}"
    );

    let parts = Parts(vec!["he".into(), "llo".into()].into());
    let response = h2
        .send_request(request(Method::POST, "/", parts.boxed()))
        .await
        .unwrap();
    assert_eq!(text(response).await.1, "fine");
    let seen = origin.requests().pop().unwrap();
    assert_eq!(field(&seen, "transfer-encoding"), Some("chunked"));
    assert_eq!(world::body(&seen), "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");

    let mut other = request(Method::GET, "/", full(""));
    *other.uri_mut() = "http://other.test/".parse().unwrap();
    let (status, body, _) = text(h2.send_request(other).await.unwrap()).await;
    assert_eq!((status.as_u16(), &*body), (503, "host not found"));
    // The same port goes on speaking HTTP/1.1.
    assert_eq!(world::status(&edge.get("shop.test", "/").await), 200);
    edge.stop().await;
}

/// A body that does not know its length.
struct Parts(std::collections::VecDeque<Bytes>);

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_a_connection_and_large_answers_wait_for_their_reader() {
    const SIZE: usize = 8 * 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        while let Some(request) = read_request(&mut stream).await {
            let size = if request.starts_with("GET /large") {
                SIZE
            } else {
                5
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&vec![b'x'; size]).await;
        }
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let h2 = client(&edge).await;
    // Read later: it holds up nobody.
    let large = h2
        .clone()
        .send_request(request(Method::GET, "/large", full("")))
        .await
        .unwrap();
    let many = (0..100).map(|n| {
        let mut h2 = h2.clone();
        tokio::spawn(async move {
            let response = h2.send_request(request(Method::GET, &format!("/{n}"), full("")));
            text(response.await.unwrap()).await.1
        })
    });
    for answer in many.collect::<Vec<_>>() {
        assert_eq!(soon("an answer", answer).await.unwrap(), "xxxxx");
    }
    assert_eq!(text(large).await.1.len(), SIZE);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_reset_frees_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let (gone, mut left) = mpsc::unbounded_channel();
    let origin = Origin::raw(move |mut stream| {
        let gone = gone.clone();
        async move {
            let Some(head) = read_head(&mut stream).await else {
                return;
            };
            if head.contains("vend-health") {
                return;
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
            gone.send(()).unwrap();
        }
    })
    .await;
    let edge = Edge::start(&folder);
    edge.apply(&shop(1, &[origin.address])).await;
    let mut h2 = client(&edge).await;
    let waiting = h2.send_request(request(Method::GET, "/", full("")));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), waiting)
            .await
            .is_err()
    );
    soon("the target is let go", left.recv()).await.unwrap();
    edge.stop().await;
}

/// One frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET http://shop.test/, in HPACK.
const HEAD: &[u8] = b"\x82\x86\x84\x41\x09shop.test";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What hostile clients send without end: the frames of round `n`.
type Flood = fn(u32) -> Vec<u8>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_their_connection_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    let floods: [(&str, Flood); 3] = [
        // Requests that are taken back at once (CVE-2023-44487).
        ("rapid reset", |n| {
            let stream = n * 2 + 1;
            [
                frame(1, 5, stream, HEAD),
                frame(3, 0, stream, &8u32.to_be_bytes()),
            ]
            .concat()
        }),
        // A head that never ends (CVE-2024-27316).
        ("continuation", |n| match n {
            0 => frame(1, 0, 1, HEAD),
            _ => frame(
                9,
                0,
                1,
                &[b"\x00\x01x\x7f\x81\x07".as_slice(), &[b'y'; 256]].concat(),
            ),
        }),
        // Frames that carry nothing, each of which must be answered.
        ("settings", |_| frame(4, 0, 0, &[])),
    ];
    for (name, flood) in floods {
        let mut stream = edge.connect().await;
        stream
            .write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat())
            .await
            .unwrap();
        let mut answers = vec![0; 64 * 1024];
        let ended = soon(name, async {
            for n in 0..1_000_000 {
                if stream.write_all(&flood(n)).await.is_err() {
                    return true;
                }
                // What comes back is read, as a client would that wants to go on for long.
                while let Ok(count) = stream.try_read(&mut answers) {
                    if count == 0 {
                        return true;
                    }
                }
            }
            false
        })
        .await;
        // Answers to settings cost little and are owed: a client may ask on, one connection's worth.
        assert!(ended || name == "settings", "{name} goes on");
        assert_eq!(
            world::body(&edge.get("shop.test", "/").await),
            "origin",
            "after {name}"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asks_for_nothing_is_let_go_whatever_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let limits = edge::Limits {
        idle: Duration::from_millis(400),
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let ping = frame(6, 0, 0, &[0; 8]);
    let slow = frame(1, 4, 1, HEAD);
    for (name, begin, more) in [
        ("pings", &[][..], &ping),
        // Its length says more than ever comes: one byte at a time.
        ("a head in drops", &slow[..slow.len() - HEAD.len()], &vec![0x82]),
    ] {
        let (mut reader, mut writer) = edge.connect().await.into_split();
        let hello = [PREFACE, &frame(4, 0, 0, &[]), begin].concat();
        writer.write_all(&hello).await.unwrap();
        let more = more.clone();
        let dripping = tokio::spawn(async move {
            // Fewer drops than a head has bytes would be in a second.
            while writer.write_all(&more).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut answers = Vec::new();
        let _ = soon(name, reader.read_to_end(&mut answers)).await;
        drop(reader);
        soon(name, dripping).await.unwrap();
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("ok").await;
    let limits = edge::Limits {
        body: 10,
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let long = || Full::from(Bytes::from(vec![b'x'; 1024 * 1024]));
    for streamed in [false, true] {
        let body = match streamed {
            false => long().boxed(),
            // Without a length in front.
            true => long().map_frame(|frame| frame).boxed(),
        };
        let mut h2 = client(&edge).await;
        let answer = soon("an answer", h2.send_request(request(Method::POST, "/", body)))
            .await
            .unwrap();
        let (status, said, _) = text(answer).await;
        assert_eq!(
            (status.as_u16(), &*said),
            (413, "the body of the request is too large"),
            "{streamed}"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_late_has_all_the_time_of_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
                .await;
        }
    })
    .await;
    let limits = edge::Limits {
        idle: Duration::from_millis(400),
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let mut h2 = client(&edge).await;
    // Nearly idle for too long; the answer comes when it would have been.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let answer = h2.send_request(request(Method::GET, "/", full("")));
    assert_eq!(text(soon("an answer", answer).await.unwrap()).await.1, "slow");
    edge.stop().await;
}

/// A client that asks for much and reads nothing is cut, and what its target would still send with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_is_cut() {
    const ALL: u64 = 1 << 40;
    let folder = tempfile::tempdir().unwrap();
    let (told, mut cut) = mpsc::unbounded_channel();
    let origin = Origin::raw(move |mut stream| {
        let told = told.clone();
        async move {
            let Some(request) = read_request(&mut stream).await else {
                return;
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {ALL}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let block = vec![b'x'; 65_536];
            while stream.write_all(&block).await.is_ok() {}
            if !request.contains("User-Agent: vend-health") {
                told.send(()).unwrap();
            }
        }
    })
    .await;
    let limits = edge::Limits {
        idle: Duration::from_millis(500),
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let mut stream = edge.connect().await;
    let ask = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    soon("the target is let go", cut.recv()).await.unwrap();
    let mut rest = tokio::io::sink();
    let read = soon("an end", tokio::io::copy(&mut stream, &mut rest)).await;
    assert!(read.is_err() || read.is_ok_and(|count| count < ALL));

    let mut h2 = client(&edge).await;
    let answer = h2.send_request(request(Method::GET, "/", full("")));
    let answer = soon("an answer", answer).await.unwrap();
    soon("the target is let go", cut.recv()).await.unwrap();
    let body = soon("an end", answer.into_body().collect()).await;
    assert!(body.is_err(), "a part is not the whole");
    edge.stop().await;
}
