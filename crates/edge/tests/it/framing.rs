//! Where messages begin and end, seen from both sides of a real edge.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{
    self, Edge, Origin, body, field, in_front_of, message, read_head, read_request, soon, status,
};

/// Everything that two readers might read differently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubtful_requests_are_refused_and_never_reach_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    let many: String = (0..101).map(|n| format!("A{n}: x\r\n")).collect();
    let long = format!("A: {}\r\n", "x".repeat(70_000));
    let h = "Host: shop.test\r\n";
    for request in [
        format!("POST / HTTP/1.1\r\n{h}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: 5, 5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: +5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: -5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: 0x5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: 5 \t5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length:\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Content-Length: 9999999999999999999\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: identity\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding\r\n: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\nx\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n1000000000000000\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}A: b\r\n folded\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n folded: x\r\n{h}\r\n"),
        format!("GET / HTTP/1.1\n{h}\r\n"),
        "GET / HTTP/1.1\r\nHost: shop.test\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{h}A: b\rc\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}A: b\0c\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}A\0: b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}A b: c\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}: c\r\n\r\n"),
        format!("GET  / HTTP/1.1\r\n{h}\r\n"),
        format!("GET /a b HTTP/1.1\r\n{h}\r\n"),
        format!("GET /a\tb HTTP/1.1\r\n{h}\r\n"),
        format!("GET /#x HTTP/1.1\r\n{h}\r\n"),
        format!("GET x HTTP/1.1\r\n{h}\r\n"),
        format!("GET * HTTP/1.1\r\n{h}\r\n"),
        format!("GET / HTTP/1.2\r\n{h}\r\n"),
        format!("GET / HTTP/2.0\r\n{h}\r\n"),
        format!("GET / http/1.1\r\n{h}\r\n"),
        format!("GET /\r\n{h}\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{h}{h}\r\n"),
        "GET / HTTP/1.1\r\nHost: shop.test, other.test\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: shop.test/x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x@shop.test\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{h}Expect: 200-ok\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{h}{many}\r\n"),
        format!("GET / HTTP/1.1\r\n{h}{long}\r\n"),
        format!("GET /{} HTTP/1.1\r\n{h}\r\n", "x".repeat(70_000)),
        "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\n".to_owned(),
    ] {
        // What follows would be the smuggled request.
        let answer = edge
            .raw(format!("{request}GET /smuggled HTTP/1.1\r\n{h}\r\n"))
            .await;
        let shown = request.chars().take(120).collect::<String>();
        assert_eq!(status(&answer), 400, "{shown:?} had {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?} had {answer}");
        assert_eq!(field(&answer, "connection"), Some("close"), "{shown:?}");
    }
    for method in ["CONNECT", "TRACE"] {
        let answer = edge
            .raw(format!("{method} / HTTP/1.1\r\n{h}Connection: close\r\n\r\n"))
            .await;
        assert_eq!(status(&answer), 405, "{method}");
    }
    let whole: Vec<String> = origin
        .requests()
        .into_iter()
        .filter(|r| !r.starts_with("POST"))
        .collect();
    assert!(whole.is_empty(), "{whole:?}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_gets_a_clean_head() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    let answer = edge
        .raw(
            "GET http://shop.test/a?b=c HTTP/1.1\r\nHost: other.test\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\
             Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
             X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded-Port: 1\r\n\
             X-Request-Id: mine\r\nCookie: a=b\r\nX-Forwarded-For: 10.2.2.2\r\nX-Kept: yes\r\n\
             X-Amzn-Mtls-Clientcert-Subject: CN=root\r\nX_Amzn_Mtls_Clientcert_Leaf: x\r\nX-AMZN-OIDC-IDENTITY: root\r\n\r\n",
        )
        .await;
    assert_eq!((status(&answer), body(&answer)), (200, "origin"));
    let request = origin.requests().remove(0);
    assert!(
        request.starts_with("GET /a?b=c HTTP/1.1\r\nHost: shop.test\r\n"),
        "{request}"
    );
    for (name, expected) in [
        ("x-forwarded-for", Some("10.1.1.1, 10.2.2.2, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-port", Some(&*edge.address.port().to_string())),
        ("x-request-id", Some("mine")),
        ("cookie", Some("a=b")),
        ("x-kept", Some("yes")),
        ("connection", None),
        ("keep-alive", None),
        ("proxy-connection", None),
        ("te", None),
        ("upgrade", None),
        ("http2-settings", None),
        ("x-secret", None),
        ("x_forwarded_for", None),
        ("x-amzn-mtls-clientcert-subject", None),
        ("x_amzn_mtls_clientcert_leaf", None),
        ("x-amzn-oidc-identity", None),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(field(&request, name), expected, "{name} in {request}");
    }
    assert!(
        field(&request, "x-amzn-trace-id").unwrap().starts_with("Root=1-"),
        "{request}"
    );

    edge.get("shop.test:8080", "/").await;
    let request = origin.requests().remove(1);
    assert_eq!(
        field(&request, "host"),
        Some("shop.test:8080"),
        "the Host field stays as it is"
    );
    assert_eq!(field(&request, "x-request-id").map(str::len), Some(32));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::answering(|request| {
        let path = request.split(' ').nth(1).unwrap().to_owned();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let mut stream = edge.connect().await;
    let mut requests = String::new();
    for n in 0..20 {
        requests += &match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello"),
            _ => format!(
                "POST /{n} HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            ),
        };
    }
    // In pieces that fall anywhere.
    for piece in requests.as_bytes().chunks(37) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    for n in 0..20 {
        assert_eq!(body(&message(&mut stream).await), format!("/{n}"));
    }
    let seen = origin.requests();
    assert_eq!(seen.len(), 20);
    assert!(seen[1].ends_with("\r\n\r\nhello"), "{}", seen[1]);
    for request in seen.iter().filter(|r| field(r, "transfer-encoding").is_some()) {
        let data: String = body(request).replace("2\r\nhe\r\n3\r\nllo\r\n", "5\r\nhello\r\n");
        assert_eq!(data, "5\r\nhello\r\n0\r\n\r\n", "re-framed, the extension gone");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_keep_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::answering(|request| {
        let bytes: &str = match request.split(' ').nth(1).unwrap() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nhello",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: x\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n5\r\nhello\r\n0\r\nSum: 5\r\n\r\n",
            "/hints" => "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhealth",
        };
        bytes.to_owned()
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let mut stream = edge.connect().await;
    for (method, path, expected, last) in [
        ("GET", "/length", 200, "hello"),
        ("HEAD", "/head", 200, ""),
        ("GET", "/204", 204, ""),
        ("GET", "/304", 304, ""),
        ("GET", "/chunked", 200, "5\r\nhello\r\n0\r\nSum: 5\r\n\r\n"),
        ("GET", "/hints", 103, ""),
        ("GET", "/empty", 200, ""),
        ("GET", "/length", 200, "hello"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = soon("a head", read_head(&mut stream)).await.unwrap();
        assert_eq!(status(&head), expected, "{path}");
        assert_eq!(field(&head, "keep-alive"), None, "{path}");
        if expected == 103 {
            let head = soon("a head", read_head(&mut stream)).await.unwrap();
            assert_eq!(status(&head), 200);
            stream.read_exact(&mut [0; 2]).await.unwrap();
            continue;
        }
        if path == "/head" {
            assert_eq!(field(&head, "content-length"), Some("1000000"));
        }
        let mut rest = vec![0; last.len()];
        soon(path, stream.read_exact(&mut rest)).await.unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), last, "{path}");
    }
    assert_eq!(
        origin.connections.load(std::sync::atomic::Ordering::SeqCst),
        2,
        "one for probes, one re-used"
    );

    // HTTP/1.0 knows neither chunks nor, unless it asks for it, a second request.
    let answer = edge.raw("GET /chunked HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(
        (body(&answer), field(&answer, "transfer-encoding")),
        ("hello", None),
        "{answer}"
    );
    let answer = edge
        .raw("GET /length HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\nGET /length HTTP/1.0\r\nHost: shop.test\r\n\r\n")
        .await;
    assert_eq!(answer.matches("hello").count(), 2, "{answer}");
    let answer = edge.raw("GET /hints HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(status(&answer), 200, "no interim answers for HTTP/1.0");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_answers_are_bad_gateways() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        let Some(request) = read_request(&mut stream).await else {
            return;
        };
        let answer: &[u8] = match request.split(' ').nth(1).unwrap() {
            "/both" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "/double" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "/nul" => b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
            "/lf" => b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "/fold" => b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "/switch" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "/nonsense" => b"SSH-2.0-OpenSSH\r\n\r\n",
            "/half" => b"HTTP/1.1 200 OK\r\nContent-Le",
            "/none" => b"",
            "/close" => b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
            "/short" => b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
            "/cut" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "/badchunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    for path in [
        "/both",
        "/double",
        "/nul",
        "/lf",
        "/fold",
        "/switch",
        "/nonsense",
        "/half",
        "/none",
    ] {
        let answer = edge.get("shop.test", path).await;
        assert_eq!(status(&answer), 502, "{path} had {answer}");
        assert_eq!(
            body(&answer).lines().count(),
            1,
            "one line says what happened: {answer}"
        );
    }
    let answer = edge.get("shop.test", "/close").await;
    assert!(answer.ends_with("\r\nuntil the end\r\n0\r\n\r\n"), "{answer}");
    // What breaks off must not look whole.
    for path in ["/cut", "/badchunk"] {
        let answer = edge.get("shop.test", path).await;
        assert!(!answer.contains("\r\n0\r\n"), "{answer}");
        assert!(status(&answer) == 502 || answer.contains("hello"), "{answer}");
    }
    let answer = edge.get("shop.test", "/short").await;
    assert_eq!(
        (body(&answer), field(&answer, "content-length")),
        ("short", Some("50"))
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_expects_100_gets_it_from_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            if head.starts_with("POST /no") {
                let _ = stream
                    .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                    .await;
                return;
            }
            let length = world::content_length(&head);
            if length > 0 {
                assert_eq!(field(&head, "expect"), Some("100-continue"));
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")
                .await;
        }
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let mut stream = edge.connect().await;
    for _ in 0..2 {
        let head =
            "POST / HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(status(&soon("100", read_head(&mut stream)).await.unwrap()), 100);
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
        let answer = message(&mut stream).await;
        assert_eq!((status(&answer), body(&answer)), (200, "yes"), "{answer}");
        if field(&answer, "connection") == Some("close") {
            stream = edge.connect().await;
        }
    }
    let head =
        "POST /no HTTP/1.1\r\nHost: shop.test\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n";
    let answer = edge.raw(head).await;
    assert_eq!(
        (status(&answer), body(&answer)),
        (403, "no"),
        "without the body having been sent"
    );
    assert_eq!(field(&answer, "connection"), Some("close"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_stream_both_ways_at_the_readers_pace() {
    // More than the kernel's buffers of all four connections' ends hold together.
    const SIZE: usize = 96 * 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    // Sends back what it gets while it gets it.
    let origin = Origin::raw(|mut stream| async move {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        let length = world::content_length(&head);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut (&mut reader).take(length as u64), &mut writer).await;
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let (mut reader, mut writer) = edge.connect().await.into_split();
    let sending = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {SIZE}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        let block: Vec<u8> = (0..65_536u32).map(|n| (n % 251) as u8).collect();
        for _ in 0..SIZE / block.len() {
            writer.write_all(&block).await.unwrap();
        }
        writer
    });
    // The buffers on the way fill up and everybody waits.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!sending.is_finished(), "somebody holds {SIZE} bytes");
    let mut answer = Vec::new();
    soon("the whole echo", async {
        while answer.len() < SIZE {
            assert!(reader.read_buf(&mut answer).await.unwrap() > 0);
        }
    })
    .await;
    let _writer = sending.await.unwrap();
    let start = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    soon("the rest", async {
        while answer.len() < SIZE + start {
            assert!(reader.read_buf(&mut answer).await.unwrap() > 0);
        }
    })
    .await;
    let wrong = answer[start..]
        .iter()
        .enumerate()
        .position(|(n, b)| *b != (n % 65_536 % 251) as u8);
    assert_eq!(wrong, None);
    edge.stop().await;
}

/// What is left of a request must not be taken for the beginning of the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_half_a_request_is_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let first = head.lines().next().unwrap().to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{first}",
                first.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        for _ in 0..5 {
            let mut stream = edge.connect().await;
            let head = format!("POST /half HTTP/1.1\r\nHost: shop.test\r\n{framing}\r\n\r\n5\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = message(&mut stream).await;
            assert_eq!(body(&answer), "POST /half HTTP/1.1");
            assert_eq!(field(&answer, "connection"), Some("close"));
            let answer = edge.get("shop.test", "/next").await;
            assert_eq!(body(&answer), "GET /next HTTP/1.1");
        }
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_may_think_for_longer_than_a_client_may() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        for part in ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "wo", "rk"] {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let _ = stream.write_all(part.as_bytes()).await;
        }
    })
    .await;
    let limits = edge::Limits {
        head_time: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&world::shop(1, &[origin.address])).await;
    assert_eq!(body(&edge.get("shop.test", "/").await), "work");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_becomes_a_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        if field(&head, "upgrade") != Some("websocket") {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await;
            return;
        }
        assert_eq!(field(&head, "connection"), Some("Upgrade"));
        assert_eq!(
            field(&head, "sec-websocket-key"),
            Some("dGhlIHNhbXBsZSBub25jZQ==")
        );
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let edge = in_front_of(&origin, &folder).await;
    let mut stream = edge.connect().await;
    let request = "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nearly";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = soon("101", read_head(&mut stream)).await.unwrap();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(field(&head, "connection"), Some("Upgrade"));
    let mut echo = [0; 10];
    soon("both leftovers", stream.read_exact(&mut echo))
        .await
        .unwrap();
    assert_eq!(&echo, b"firstearly");
    for n in 0..100u8 {
        stream.write_all(&[n; 1000]).await.unwrap();
        let mut echo = [0; 1000];
        soon("an echo", stream.read_exact(&mut echo)).await.unwrap();
        assert_eq!(echo, [n; 1000]);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(soon("the end", stream.read(&mut [0])).await.unwrap(), 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_silent_clients_are_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let limits = edge::Limits {
        head_time: Duration::from_millis(400),
        idle: Duration::from_millis(400),
        ..edge::Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&world::shop(1, &[origin.address])).await;
    // A byte now and then does not help: the time is for the whole head.
    let (mut reader, mut writer) = edge.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"A").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = String::new();
    let _ = soon("the end of patience", reader.read_to_string(&mut answer)).await;
    assert!(status(&answer) == 408 || answer.is_empty(), "{answer}");
    drop(reader);
    soon("the dripping ends", dripping).await.unwrap();

    assert_eq!(edge.raw("").await, "", "silent from the start");
    let answer = edge
        .raw("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    assert_eq!(status(&answer), 408, "{answer}");
    let mut stream = edge.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(body(&message(&mut stream).await), "origin");
    assert_eq!(
        soon("the end", stream.read(&mut [0])).await.unwrap(),
        0,
        "idle between two requests"
    );
    edge.stop().await;
}
