//! What the access log says of requests of every kind, over HTTP/1.1, HTTP/2 and TLS, and what targets hear of them.

pub mod probe;

use std::{net::SocketAddr, time::Duration};

use edge::{Format, Limits};
use http_body_util::Full;
use hyper::Request;
use probe::{FIELDS, Line, World, ask, connector, http2, limits, line, origin, raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{self, Origin, field, in_front_of, soon, status};

/// Path, and what its line says: status, the target's, actions, priority, error, group.
const KINDS: [(&str, [&str; 6]); 11] = [
    ("fine", ["200", "200", "forward", "6", "-", "shop"]),
    ("missing", ["404", "404", "forward", "6", "-", "shop"]),
    ("redirect", ["301", "-", "redirect", "1", "-", "-"]),
    ("fixed", ["418", "-", "fixed-response", "2", "-", "-"]),
    ("empty", ["503", "-", "forward", "3", "NoTargets", "empty"]),
    (
        "refused",
        ["502", "-", "forward", "4", "TargetConnectionRefused", "refused"],
    ),
    (
        "late",
        ["504", "-", "forward", "6", "TargetAnswerTimeout", "shop"],
    ),
    ("broken", ["200", "200", "forward", "6", "TargetBrokeOff", "shop"]),
    (
        "closed",
        ["502", "-", "forward", "6", "TargetClosedConnection", "shop"],
    ),
    ("bad", ["502", "-", "forward", "6", "TargetInvalidAnswer", "shop"]),
    ("moved", ["200", "200", "forward", "5", "-", "shop"]),
];

fn check(lines: &[Line], via: &str, kind: &str, target: SocketAddr) {
    for (path, expected) in KINDS {
        let line = line(lines, &format!("/{via}/{path}"));
        let names = [
            "elb_status_code",
            "target_status_code",
            "actions_executed",
            "matched_rule_priority",
            "error_reason",
            "target_group_arn",
        ];
        assert_eq!(names.map(|name| &*line[name]), expected, "{via} {path}");
        assert_eq!(line["type"], kind, "{via} {path}");
        let times = [5, 6, 7].map(|time| line[FIELDS[time]] == "-1");
        assert_eq!(times, [expected[1] == "-"; 3], "{via} {path}: {line:?}");
        let met = match path {
            "redirect" | "fixed" | "empty" => "-".to_owned(),
            "refused" => line["target:port"].clone(),
            _ => target.to_string(),
        };
        assert_eq!(
            [&line["target:port"], &line["target:port_list"]],
            [&met, &met],
            "{via} {path}"
        );
        assert_eq!(line["target:port"] == "-", met == "-", "{via} {path}");
        assert_eq!(line["user_agent"], "probe/1", "{via} {path}");
        assert!(line["trace_id"].starts_with("Root=1-"), "{via} {path}");
        assert!(line["conn_trace_id"].starts_with("TID_"), "{via} {path}");
        assert!(
            line["received_bytes"].parse::<u64>().unwrap() > 40,
            "{via} {path}"
        );
        assert!(line["sent_bytes"].parse::<u64>().unwrap() > 10, "{via} {path}");
    }
    let redirect = line(lines, &format!("/{via}/redirect"));
    assert_eq!(
        redirect["redirect_url"],
        format!("https://other.test:8443/{via}/redirect")
    );
    let moved = line(lines, &format!("/{via}/moved"));
    assert_eq!(
        ["transformed_host", "transformed_uri", "request_transform_status"].map(|name| &*moved[name]),
        ["inner.test", &format!("/{via}/new"), "TransformSuccess"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_answer_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let world = World::start(&folder, &origin, Format::Alb, limits()).await;
    let get = |via: &str, path: &str| {
        format!(
            "GET /{via}/{path} HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: probe/1\r\nConnection: close\r\n\r\n"
        )
    };
    for (path, expected) in KINDS {
        let answer = raw(world.edge.connect().await, &get("h1", path)).await;
        assert_eq!(status(&answer).to_string(), expected[0], "{path}: {answer}");
        let answer = raw(world.tls(&world.connector).await, &get("tls", path)).await;
        assert_eq!(status(&answer).to_string(), expected[0], "{path}: {answer}");
    }
    let (mut plain, mut secure) = (
        http2(world.edge.connect().await).await,
        http2(world.tls(&world.h2).await).await,
    );
    for (path, expected) in KINDS {
        for (via, h2) in [("h2c", &mut plain), ("h2", &mut secure)] {
            let got = ask(h2, "GET", &format!("/{via}/{path}"), "").await;
            assert_eq!(got.to_string(), expected[0], "{via} {path}");
        }
    }
    // What has a body keeps its words, and counts it.
    for h2 in [&mut plain, &mut secure] {
        assert_eq!(ask(h2, "POST", "/h2/post", "hello").await, 200);
    }
    let mut stream = world.edge.connect().await;
    let post =
        "POST /h1/post HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: probe/1\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(post.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(status(&world::message(&mut stream).await), 200);
    drop(stream);
    let lines = world.lines().await;
    for (via, kind) in [("h1", "http"), ("tls", "https"), ("h2c", "http"), ("h2", "h2")] {
        check(&lines, via, kind, origin.address);
    }
    for post in [line(&lines, "/h1/post"), line(&lines, "/h2/post")] {
        assert_eq!(
            (&*post["user_agent"], &*post["elb_status_code"]),
            ("probe/1", "200")
        );
    }
    let bytes = line(&lines, "/h1/post")["received_bytes"]
        .parse::<usize>()
        .unwrap();
    assert_eq!(bytes, post.len() + 5);
    let secure = line(&lines, "/tls/fine");
    assert_eq!(
        ["ssl_cipher", "ssl_protocol", "domain_name", "chosen_cert_arn"].map(|name| &*secure[name]),
        ["TLS_AES_256_GCM_SHA384", "TLSv1.3", "shop.test", "store"]
    );
    // The same client came again, with its ticket.
    assert_eq!(line(&lines, "/tls/redirect")["chosen_cert_arn"], "session-reused");
    let plain = line(&lines, "/h1/fine");
    assert_eq!(
        ["ssl_cipher", "ssl_protocol", "domain_name", "chosen_cert_arn"].map(|name| &*plain[name]),
        ["-"; 4]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_came_to_a_rule_has_its_line_too() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let world = World::start(&folder, &origin, Format::Alb, limits()).await;
    for (request, expected) in [
        (
            "GET /both HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("nonsense\r\n\r\n", 400),
        ("GET /half HTTP/1.1\r\nHost: sh", 408),
        ("GET /a/../dots HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        (
            "POST /large HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2000\r\n\r\n",
            413,
        ),
        (
            "TRACE /trace HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n",
            405,
        ),
        (
            "GET /nobody HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n",
            301,
        ),
        (
            "GET /zero HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            200,
        ),
    ] {
        let answer = raw(world.edge.connect().await, request).await;
        assert_eq!(status(&answer), expected, "{request}: {answer}");
    }
    let answer = raw(
        world.tls(&world.connector).await,
        "GET /nobody/tls HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status(&answer), 503);
    // It goes in the middle of its body.
    let mut gone = world.edge.connect().await;
    let post = b"POST /gone HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9\r\n\r\nabc";
    gone.write_all(post).await.unwrap();
    gone.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the end", gone.read_to_end(&mut rest)).await;
    // A WebSocket, in TLS and without.
    let upgrade =
        "GET /h1/socket HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    assert!(
        raw(world.edge.connect().await, upgrade)
            .await
            .ends_with("\r\n\r\nhello")
    );
    let upgrade = upgrade.replace("h1", "tls");
    assert!(
        raw(world.tls(&world.connector).await, &upgrade)
            .await
            .ends_with("\r\n\r\nhello")
    );
    let mut h2 = http2(world.edge.connect().await).await;
    assert_eq!(ask(&mut h2, "GET", "/h2/../dots", "").await, 400);
    assert_eq!(ask(&mut h2, "TRACE", "/h2/trace", "").await, 405);
    let large = Request::post("https://shop.test/h2/large")
        .body(Full::from(vec![0; 2000]))
        .unwrap();
    assert_eq!(
        soon("an answer", h2.send_request(large)).await.unwrap().status(),
        413
    );
    let many = Request::get("https://shop.test/h2/head").header("x-many", "x".repeat(70_000));
    let many = soon("an answer", h2.send_request(many.body(Full::default()).unwrap())).await;
    assert_eq!(many.unwrap().status(), 431);
    // Crumbs of a cookie are one field, and the host is another.
    for (path, count, expected) in [
        ("/h2/hundred", 98, 200),
        ("/h2/more", 99, 431),
        ("/h2/many", 150, 431),
    ] {
        let mut many = Request::get(format!("https://shop.test{path}"));
        for n in 0..count {
            many = many.header(format!("x-{n}"), "x").header("cookie", "a=b");
        }
        let many = soon(path, h2.send_request(many.body(Full::default()).unwrap())).await;
        assert_eq!(many.unwrap().status(), expected, "{path}");
    }
    drop(h2);

    let lines = world.lines().await;
    let names = [
        "elb_status_code",
        "actions_executed",
        "matched_rule_priority",
        "error_reason",
        "classification_reason",
    ];
    for (path, expected) in [
        ("/both", ["400", "-", "-", "MalformedRequest", "BothTeClPresent"]),
        ("/half", ["408", "-", "-", "RequestTimeout", "-"]),
        ("/a/../dots", ["400", "-", "-", "MalformedRequest", "-"]),
        ("/large", ["413", "-", "-", "BodyTooLarge", "-"]),
        ("/trace", ["405", "-", "-", "MethodNotAllowed", "-"]),
        ("/nobody", ["301", "redirect", "0", "-", "-"]),
        ("/nobody/tls", ["503", "fixed-response", "0", "-", "-"]),
        ("/zero", ["200", "forward", "6", "-", "GetHeadZeroContentLength"]),
        ("/gone", ["460", "forward", "6", "ClientClosedConnection", "-"]),
        ("/h2/../dots", ["400", "-", "-", "MalformedRequest", "-"]),
        ("/h2/trace", ["405", "-", "-", "MethodNotAllowed", "-"]),
        ("/h2/large", ["413", "-", "-", "BodyTooLarge", "-"]),
        ("/h2/head", ["431", "-", "-", "HeadTooLarge", "-"]),
        ("/h2/hundred", ["200", "forward", "6", "-", "-"]),
        ("/h2/many", ["431", "-", "-", "HeadTooLarge", "-"]),
        ("/h1/socket", ["101", "forward", "6", "-", "-"]),
    ] {
        assert_eq!(names.map(|name| &*line(&lines, path)[name]), expected, "{path}");
    }
    assert_eq!(
        line(&lines, "/nobody")["redirect_url"],
        "https://nobody.test/nobody"
    );
    assert_eq!(
        (
            &*line(&lines, "/h1/socket")["type"],
            &*line(&lines, "/tls/socket")["type"]
        ),
        ("ws", "wss")
    );
    // Of what cannot be read there is little to say.
    let mut unread = lines.iter().filter(|line| line["request"].starts_with("- "));
    let nonsense = unread.next().unwrap();
    assert_eq!(&*nonsense["elb_status_code"], "400");
    assert!(
        nonsense["request"].ends_with("- -") && nonsense["received_bytes"] == "12",
        "{nonsense:?}"
    );
    assert!(unread.next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_much_is_told_and_logged_over_every_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let limited = Limits {
        source_requests: 1,
        ..Limits::default()
    };
    let world = World::start(&folder, &origin, Format::Alb, limited).await;
    // Two at once may come; the next are too many, whatever they come by.
    for _ in 0..2 {
        world.edge.get("shop.test", "/before").await;
    }
    let mut many = 0;
    for (via, h2) in [
        ("h2c", http2(world.edge.connect().await).await),
        ("h2", http2(world.tls(&world.h2).await).await),
    ] {
        let mut h2 = h2;
        for _ in 0..3 {
            let request = Request::get(format!("https://shop.test/{via}"))
                .body(Full::default())
                .unwrap();
            let answer = soon("an answer", h2.send_request(request)).await.unwrap();
            if answer.status() == 429 {
                assert_eq!(answer.headers()["retry-after"], "1");
                many += 1;
            }
        }
    }
    let request = "GET /tls HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answer = raw(world.tls(&world.connector).await, request).await;
    if status(&answer) == 429 {
        assert!(answer.contains("Retry-After: 1\r\n"), "{answer}");
        many += 1;
    }
    let lines = world.lines().await;
    let refused: Vec<_> = lines
        .iter()
        .filter(|line| line["elb_status_code"] == "429")
        .collect();
    assert!(many >= 5 && refused.len() >= many, "{many} {lines:?}");
    for line in refused {
        assert_eq!(
            (&*line["error_reason"], &*line["actions_executed"]),
            ("TooManyRequests", "-")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let limited = Limits {
        source_connections: 1,
        ..Limits::default()
    };
    let world = World::start(&folder, &origin, Format::Alb, limited).await;
    let mut first = world.edge.connect().await;
    first
        .write_all(b"GET /first HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status(&world::message(&mut first).await), 200);
    let answer = raw(world.edge.connect().await, "").await;
    assert_eq!(status(&answer), 429);
    drop(first);
    let lines = world.lines().await;
    let refused = lines
        .iter()
        .find(|line| line["elb_status_code"] == "429")
        .unwrap();
    assert_eq!(
        (&*refused["error_reason"], &*refused["target:port"]),
        ("TooManyRequests", "-")
    );
    assert!(
        refused["sent_bytes"].parse::<usize>().unwrap() == answer.len(),
        "{refused:?}"
    );
}

/// A handshake for each of them would be what the limit is to prevent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_over_tls_is_closed_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let limited = Limits {
        source_connections: 1,
        ..Limits::default()
    };
    let world = World::start(&folder, &origin, Format::Alb, limited).await;
    let first = world.tls(&world.connector).await;
    let second = tokio::net::TcpStream::connect(world.secure).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("shop.test").unwrap();
    let shaken = soon("an end", world.connector.connect(name, second)).await;
    assert!(shaken.is_err());
    let numbers = world.edge.client.metrics().await.unwrap();
    for line in [
        "vend_edge_handshakes_failed_total{reason=\"too_many_connections\"} 1\n",
        "vend_edge_limited_total 1\n",
    ] {
        assert!(numbers.contains(line), "{line} in {numbers}");
    }
    drop(first);
    world.lines().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_go_on_in_tls_1_2_too_and_json_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let world = World::start(&folder, &origin, Format::Json, Limits::default()).await;
    let pem = std::fs::read_to_string(world.log.with_file_name("certificates/store.pem")).unwrap();
    let old = connector(&pem, b"http/1.1", &[&rustls::version::TLS12]);
    let mut kinds = Vec::new();
    for path in ["one", "redirect"] {
        let mut stream = world.tls(&old).await;
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: shop.test\r\nX-Request-Id: r-{path}\r\nConnection: close\r\n\r\n"
        );
        assert!(raw(&mut stream, &request).await.starts_with("HTTP/1.1 "));
    }
    assert_eq!(
        kinds,
        [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]
    );
    let (log, edge) = (world.log.clone(), world.edge);
    edge.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seen = |line: usize, names: &[&str]| -> Vec<String> {
        let value = |name: &&str| match &lines[line][name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        names.iter().map(value).collect()
    };
    let names = [
        "type",
        "status",
        "target_status",
        "actions",
        "rule",
        "group",
        "request_id",
        "tls_protocol",
        "certificate",
    ];
    assert_eq!(
        seen(0, &names),
        [
            "https", "200", "200", "forward", "6", "shop", "r-one", "TLSv1.2", "store"
        ]
    );
    assert_eq!(
        seen(1, &names),
        [
            "https",
            "301",
            "null",
            "redirect",
            "1",
            "null",
            "r-redirect",
            "TLSv1.2",
            "session-reused"
        ]
    );
    assert_eq!(
        seen(1, &["redirect_url", "domain_name"]),
        ["https://other.test:8443/redirect", "shop.test"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_a_client_brings_goes_on_with_a_number_of_this_station() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = in_front_of(&origin, &folder).await;
    // As ALB: what a client brings goes on, with the number of this station, and `Forwarded` is nobody's here.
    for (brought, expected) in [
        (
            "Root=1-67891233-abcdef012345678912345678",
            ";Root=1-67891233-abcdef012345678912345678",
        ),
        (
            "Self=1-1-1;Root=1-2-3;CalledFrom=app",
            ";Root=1-2-3;CalledFrom=app",
        ),
        ("CalledFrom=app", ";CalledFrom=app"),
    ] {
        let request = format!(
            "GET /trace HTTP/1.1\r\nHost: shop.test\r\nX-Amzn-Trace-Id: {brought}\r\nForwarded: for=192.0.2.1\r\n\
             Connection: close\r\n\r\n"
        );
        edge.raw(request).await;
        let request = origin.requests().pop().unwrap();
        let trace = field(&request, "x-amzn-trace-id").unwrap();
        let (own, rest) = trace.split_at(trace.find(';').unwrap());
        assert_eq!(rest, expected);
        let name = if expected.contains("Root=") {
            "Self=1-"
        } else {
            "Root=1-"
        };
        assert!(own.starts_with(name) && own.len() == name.len() + 33, "{trace}");
        assert_eq!(field(&request, "forwarded"), Some("for=192.0.2.1"));
    }
    edge.stop().await;
}
