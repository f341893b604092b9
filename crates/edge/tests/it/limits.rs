//! How much one client, or one tenant, may ask; who waits for whom; and what is written down of it.

use std::{
    net::TcpListener as Socket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use edge::{Format, Limits, Listener, Log};
use http_body_util::Full;
use hyper::Request;
use model::route::Action;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::seen::probe;
use crate::world::{Edge, Origin, body, field, forward, message, rule, shop, soon, status, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_has_its_share_of_connections() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let limits = Limits {
        source_connections: 3,
        ..Limits::default()
    };
    let edge = Edge::with(&folder, limits, 2);
    edge.apply(&shop(1, &[origin.address])).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = edge.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(status(&message(&mut stream).await), 200);
        open.push(stream);
    }
    let mut answer = String::new();
    let _ = soon("a refusal", edge.connect().await.read_to_string(&mut answer)).await;
    assert_eq!(
        (status(&answer), field(&answer, "retry-after")),
        (429, Some("1")),
        "{answer}"
    );
    open.pop();
    until("there is room again", || async {
        status(&edge.get("shop.test", "/").await) == 200
    })
    .await;
    edge.stop().await;
}

/// ALB's 463, in both versions of HTTP; each line of the field counts, and so does each address on one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_come_through_so_many_stations_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = crate::world::in_front_of(&origin, &folder).await;
    let mut h2 = probe::http2(edge.connect().await).await;
    for (of_first, of_second, wanted) in [(30, 0, 200), (31, 0, 463), (15, 15, 200), (15, 16, 463)] {
        let line = |count| vec!["192.0.2.9"; count].join(", ");
        let lines = [of_first, of_second].map(line);
        let lines = || lines.iter().filter(|line| !line.is_empty());
        let mut stream = edge.connect().await;
        let fields: String = lines()
            .map(|line| format!("X-Forwarded-For: {line}\r\n"))
            .collect();
        let request = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(
            status(&message(&mut stream).await),
            wanted,
            "{of_first} and {of_second}"
        );
        let request = Request::get("http://shop.test/");
        let request = lines().fold(request, |request, line| request.header("x-forwarded-for", line));
        let answer = h2.send_request(request.body(Full::default()).unwrap());
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), wanted, "{of_first} and {of_second} over HTTP/2");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_and_tenants_have_their_share_of_requests() {
    for (limits, host) in [
        (
            Limits {
                source_requests: 5,
                ..Limits::default()
            },
            "other.test",
        ),
        (
            Limits {
                tenant_requests: 5,
                ..Limits::default()
            },
            "shop.test",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::named("origin").await;
        let edge = Edge::with(&folder, limits, 1);
        let mut table = shop(1, &[origin.address]);
        let mut other = rule(2, "other.test", forward(&[("shop", 1)]));
        other.place = "other/app/dev".parse().unwrap();
        table.rules.push(other);
        edge.apply(&table).await;
        let mut stream = edge.connect().await;
        let mut refused = 0;
        for _ in 0..100 {
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
                .await
                .unwrap();
            let answer = message(&mut stream).await;
            assert!([200, 429].contains(&status(&answer)));
            assert_eq!(field(&answer, "retry-after").is_some(), status(&answer) == 429);
            refused += usize::from(status(&answer) == 429);
        }
        assert!(
            refused > 50 && origin.requests().len() == 100 - refused,
            "{refused}"
        );
        // The tenant's limit is nobody else's, the source's is for all hosts.
        let metrics = edge.client.metrics().await.unwrap();
        assert!(
            metrics.contains(&format!("vend_edge_limited_total {refused}\n")),
            "{metrics}"
        );
        let tenant = status(&edge.get("other.test", "/").await);
        assert_eq!(tenant == 200, host == "shop.test", "{tenant}");
        edge.stop().await;
    }
}

async fn waking(edge: &Edge, what: &str) -> bool {
    let metrics = edge.client.metrics().await.unwrap();
    metrics.contains(&format!("\nvend_edge_waking_{what}\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_hosts_that_wake() {
    let folder = tempfile::tempdir().unwrap();
    let awake = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&awake);
    let origin = Origin::answering(move |_| match up.load(SeqCst) {
        true => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        false => "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
    })
    .await;
    let limits = Limits {
        sleepers_each: 2,
        // Who waits is not turned away before the test is over.
        wake: Duration::from_secs(600),
        ..Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    let mut table = shop(1, &[origin.address]);
    let group = table.target_groups.get_mut("shop").unwrap();
    group.waking = true;
    edge.apply(&table).await;
    // A browser gets a page after two seconds and not at once: most hosts are there by then.
    let asked = std::time::Instant::now();
    let page = edge
        .raw("GET / HTTP/1.1\r\nHost: shop.test\r\nAccept: text/html\r\nConnection: close\r\n\r\n")
        .await;
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!((status(&page), field(&page, "retry-after")), (503, Some("2")));
    assert!(body(&page).contains("http-equiv=refresh"), "{page}");
    // The others wait, so many at a time.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = edge.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            .await
            .unwrap();
        waiting.push(stream);
    }
    until("two wait", || async { waking(&edge, "requests 2").await }).await;
    assert!(waking(&edge, "refused_total 0").await);
    let more = edge.get("shop.test", "/").await;
    assert_eq!((status(&more), field(&more, "retry-after")), (503, Some("2")));
    assert!(waking(&edge, "requests 2").await && waking(&edge, "refused_total 1").await);
    assert!(origin.requests().is_empty());
    // The control side hears of those who wait for as long as they do.
    for _ in 0..2 {
        assert_eq!(edge.client.wanted().await.unwrap(), ["acme/shop/dev"]);
    }
    awake.store(true, SeqCst);
    for mut stream in waiting {
        assert_eq!(body(&message(&mut stream).await), "ok");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_what_never_wakes_is_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        wake: Duration::from_millis(300),
        ..Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    let mut table = shop(1, &[]);
    table.target_groups.get_mut("shop").unwrap().waking = true;
    edge.apply(&table).await;
    let answer = edge.get("shop.test", "/").await;
    assert_eq!((status(&answer), field(&answer, "retry-after")), (503, Some("2")));
    assert!(!body(&answer).contains("refresh"), "{answer}");
    // It has gone; that somebody came is still to be known, once.
    assert_eq!(edge.client.wanted().await.unwrap(), ["acme/shop/dev"]);
    let metrics = edge.client.metrics().await.unwrap();
    assert!(metrics.contains("vend_edge_waking_requests 0\n"), "{metrics}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_written_down_and_counted() {
    for format in [Format::Alb, Format::Json] {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::named("origin").await;
        let metrics = Socket::bind("127.0.0.1:0").unwrap();
        let numbers = metrics.local_addr().unwrap();
        let path = camino::Utf8Path::from_path(folder.path()).unwrap().join("log");
        let listener = Listener::http(Socket::bind("127.0.0.1:0").unwrap());
        let edge = Edge::configured(&folder, vec![listener], |config| {
            config.metrics = Some(metrics);
            config.access_log = Some(Log {
                format,
                one_in: 2,
                ..Log::short(path.clone())
            });
        });
        edge.apply(&shop(1, &[origin.address])).await;
        let request = "GET /a\"b?c=d HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: x \"y\"\r\nX-Request-Id: abc\r\n\
                       X-Amzn-Trace-Id: Root=1-2-3\r\nConnection: close\r\n\r\n";
        for _ in 0..6 {
            assert_eq!(status(&edge.raw(request).await), 200);
        }
        assert!(origin.requests()[0].contains("X-Request-Id: abc\r\n"));
        let mut scrape = TcpStream::connect(numbers).await.unwrap();
        scrape
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        soon("numbers", scrape.read_to_string(&mut text)).await.unwrap();
        for line in [
            "vend_edge_rule_requests_total{rule=\"1\",place=\"acme/shop/dev\",host=\"shop.test\"} 6\n",
            "vend_edge_targets{group=\"shop\",state=\"unhealthy\"} 0\n",
            "vend_edge_sent_bytes_total{group=\"shop\"} 36\n",
            "vend_edge_target_responses_total{group=\"shop\",class=\"2xx\"} 6\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        edge.stop().await;
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().count(), 3, "one in two: {log}");
        let line = log.lines().next().unwrap();
        if format == Format::Json {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                (&object["path"], &object["status"]),
                (&"/a\"b".into(), &200.into())
            );
            assert_eq!(
                (&object["place"], &object["rule"]),
                (&"acme/shop/dev".into(), &1.into())
            );
            assert_eq!(
                (&object["request_id"], &object["user_agent"]),
                (&"abc".into(), &"x \"y\"".into())
            );
        } else {
            let fields = split(line);
            assert_eq!(fields.len(), 33, "{line}");
            assert_eq!((fields[0], fields[8], fields[9]), ("http", "200", "200"));
            assert!(
                fields[12].starts_with("GET http://shop.test:") && fields[12].ends_with("?c=d HTTP/1.1"),
                "{line}"
            );
            assert_eq!(
                (fields[18], fields[20], fields[22], fields[25]),
                ("-", "1", "forward", &*origin.address.to_string())
            );
            assert!(
                fields[17].starts_with("Self=1-") && fields[17].ends_with(";Root=1-2-3"),
                "{line}"
            );
        }
    }
}

/// Fields of ALB: words, or quoted with backslashes.
fn split(line: &str) -> Vec<&str> {
    let (mut fields, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                fields.push(line[start..at].trim_matches('"'));
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(line[start..].trim_matches('"'));
    fields
}

#[tokio::test]
async fn a_body_is_as_large_as_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let limits = Limits {
        body: 10,
        ..Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let post = |framing: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{framing}\r\nConnection: close\r\n\r\n{body}")
    };
    let chunked = "Transfer-Encoding: chunked";
    for (framing, body, expected) in [
        ("Content-Length: 10", "0123456789", 200),
        ("Content-Length: 11", "0123456789a", 413),
        ("Content-Length: 999999999999999", "", 413),
        (chunked, "5\r\n01234\r\n5\r\n01234\r\n0\r\n\r\n", 200),
        (chunked, "5\r\n01234\r\n6\r\n012345\r\n0\r\n\r\n", 413),
    ] {
        let answer = edge.raw(post(framing, body)).await;
        assert_eq!(status(&answer), expected, "{framing} {body}: {answer}");
    }
    // Piece by piece, when the target has the beginning.
    let mut stream = edge.connect().await;
    stream
        .write_all(post(chunked, "5\r\n01234\r\n").as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(b"ff\r\n").await.unwrap();
    let _ = stream.write_all(&[b'x'; 255]).await;
    assert_eq!(status(&message(&mut stream).await), 413);
    assert_eq!(
        origin.requests().len(),
        2,
        "what is too large never arrives whole"
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_tenant_is_closed_to_some_or_for_a_while_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let listener = Socket::bind("127.0.0.1:0").unwrap();
    let listeners = vec![Listener {
        proxied: true,
        ..Listener::http(listener)
    }];
    let edge = Edge::configured(&folder, listeners, |_| ());
    let answer = |status: u16, text: &str| Action::FixedResponse {
        status,
        content_type: "text/html".into(),
        body: text.into(),
    };
    // shop.test lets a network in, other.test keeps one out.
    let mut table = shop(1, &[origin.address]);
    table.rules[0].priority = 10;
    table.rules[0].conditions.sources = vec!["192.0.2.0/24".parse().unwrap()];
    let mut kept_out = rule(5, "other.test", answer(403, "not you"));
    kept_out.conditions.sources = vec!["192.0.2.0/24".parse().unwrap()];
    kept_out.place = "beta/other/dev".parse().unwrap();
    let mut other = rule(20, "other.test", forward(&[("shop", 1)]));
    other.place = kept_out.place.clone();
    table
        .rules
        .extend([rule(11, "shop.test", answer(403, "not you")), kept_out, other]);
    edge.apply(&table).await;
    let from = async |source: &str, host: &str| {
        let request = format!(
            "PROXY TCP4 {source} 192.0.2.1 4000 80\r\nGET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        );
        status(&edge.raw(request).await)
    };
    let (inside, outside) = ("192.0.2.9", "198.51.100.9");
    for (source, host, expected) in [
        (inside, "shop.test", 200),
        (outside, "shop.test", 403),
        (inside, "other.test", 403),
        (outside, "other.test", 200),
    ] {
        assert_eq!(from(source, host).await, expected, "{host} from {source}");
    }
    // A page in front of one tenant.
    table.version = 2;
    table
        .rules
        .push(rule(1, "shop.test", answer(503, "<p>back at noon")));
    edge.apply(&table).await;
    assert_eq!(
        (from(inside, "shop.test").await, from(outside, "other.test").await),
        (503, 200)
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    // Its head is as long as that of the request.
    let origin = Origin::answering(|request| {
        let (back, body) = (field(request, "x").unwrap_or_default(), body(request));
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX: {back}\r\n\r\n{body}")
    })
    .await;
    let (limits, changed) = tokio::sync::watch::channel(Limits::default());
    let listeners = vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())];
    let edge = Edge::configured(&folder, listeners, |config| config.limited = Some(changed));
    edge.apply(&shop(1, &[origin.address])).await;
    let post =
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnine more";
    assert_eq!(status(&edge.raw(post).await), 200);
    for (body, expected) in [(8, 413), (9, 200)] {
        limits.send_modify(|limits| limits.body = body);
        until("the limit holds", || async {
            status(&edge.raw(post).await) == expected
        })
        .await;
    }
    for (head, length, expected) in [
        (1_024, 2_000, 400),
        (4_096, 2_000, 200),
        (32_768, 60_000, 400),
        // As much as ALB takes, and more.
        (65_536, 60_000, 200),
        (1_048_576, 300_000, 200),
    ] {
        limits.send_modify(|limits| limits.head = head);
        let long = post.replace("Host", &format!("X: {}\r\nHost", "x".repeat(length)));
        until("the limit of heads holds", || async {
            let answer = edge.raw(&long).await;
            let whole = expected == 400 || answer.ends_with("nine more") && answer.len() > length;
            status(&answer) == expected && whole
        })
        .await;
    }
    let mut h2 = probe::http2(edge.connect().await).await;
    let long = Request::get("http://shop.test/").header("y", "y".repeat(60_000));
    let answer = h2.send_request(long.body(Full::default()).unwrap());
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
    drop(h2);
    // A client that says nothing is sent away in a second where it had a minute.
    limits.send_modify(|limits| limits.idle = Duration::from_secs(1));
    let mut quiet = edge.connect().await;
    let ask = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    soon("the limit of silence holds", async {
        loop {
            quiet.write_all(ask).await.unwrap();
            message(&mut quiet).await;
            let mut byte = [0];
            // Else it had not heard of it when the silence began.
            if let Ok(end) = tokio::time::timeout(Duration::from_secs(5), quiet.read(&mut byte)).await {
                break assert_eq!(end.unwrap(), 0);
            }
        }
    })
    .await;
    limits.send_modify(|limits| limits.tenant_requests = 1);
    until("the limit of a tenant holds", || async {
        status(&edge.get("shop.test", "/").await) == 429
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_it_stops_is_not_left_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("late").await;
    let edge = Edge::with(&folder, Limits::default(), 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let address = edge.address;
    let mut under_way = edge.connect().await;
    under_way
        .write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 8\r\n\r\nfour")
        .await
        .unwrap();
    until("it is under way", || async {
        edge.client.stats().await.unwrap()[0].active == 1
    })
    .await;
    let stopping = tokio::spawn(edge.stop());
    until("nobody listens", || async {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    assert!(!stopping.is_finished(), "a request is under way");
    under_way.write_all(b"more").await.unwrap();
    assert!(message(&mut under_way).await.ends_with("late"));
    stopping.await.unwrap();
}
