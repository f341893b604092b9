//! Which target gets a request, and what happens when it does not want it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use edge::{ClientError, Limits};
use jiff::SignedDuration;
use model::route::{Action, Algorithm, HeaderCondition, Invalid, Redirect, Table, TargetState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{
    Edge, Origin, body, field, forward, group, in_front_of, message, read_request, refusing, rule, shop,
    soon, status, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_answers_itself_when_no_target_does() {
    let folder = tempfile::tempdir().unwrap();
    let edge = Edge::start(&folder);
    let mut table = shop(1, &[]);
    table.rules.push(rule(
        2,
        "fixed.test",
        Action::FixedResponse {
            status: 404,
            content_type: "text/html".into(),
            body: "<b>gone</b>".into(),
        },
    ));
    table.rules.push(rule(
        3,
        "old.test",
        Action::Redirect(Redirect {
            status: 301,
            protocol: "HTTPS".into(),
            host: "new.test".into(),
            port: "443".into(),
            ..Redirect::default()
        }),
    ));
    table.rules.push(rule(4, "dead.test", forward(&[("dead", 1)])));
    table
        .target_groups
        .insert("dead".into(), group(&[refusing(), refusing()]));
    edge.apply(&table).await;
    for (host, path, expected, text) in [
        ("unknown.test", "/", 503, "host not found"),
        ("shop.test", "/", 503, "no targets are registered"),
        ("SHOP.test.:80", "/", 503, "no targets are registered"),
        ("fixed.test", "/x", 404, "<b>gone</b>"),
        ("old.test", "/a/b?c=d", 301, ""),
        ("dead.test", "/", 502, "the target refused the connection"),
    ] {
        let answer = edge.get(host, path).await;
        assert_eq!((status(&answer), body(&answer)), (expected, text), "{host}");
        assert!(
            field(&answer, "date").is_some_and(|date| date.ends_with(" GMT")),
            "{answer}"
        );
        if host == "old.test" {
            assert_eq!(field(&answer, "location"), Some("https://new.test/a/b?c=d"));
        }
    }
    // The connection goes on after an answer of ours, body or not.
    let mut stream = edge.connect().await;
    let request = "POST / HTTP/1.1\r\nHost: unknown.test\r\nContent-Length: 5\r\n\r\nhello";
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(&message(&mut stream).await), 503);
    }
    let stats = edge.client.stats().await.unwrap();
    let dead = stats.iter().find(|stats| stats.group == "dead").unwrap();
    assert_eq!((dead.requests, dead.edge_5xx, dead.active), (0, 1, 0));
    let metrics = edge.client.metrics().await.unwrap();
    assert!(metrics.contains("vend_edge_unmatched_total 4\n"), "{metrics}");
    assert!(
        metrics.contains("vend_edge_failures_total{group=\"dead\"} 1\n"),
        "{metrics}"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_that_do_not_answer_in_time_are_504() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let limits = Limits {
        upstream: Duration::from_millis(300),
        ..Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let answer = edge.get("shop.test", "/").await;
    assert_eq!(
        (status(&answer), body(&answer)),
        (504, "the target did not answer in time")
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_connections_are_tried_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let good = Origin::named("good").await;
    let edge = Edge::start(&folder);
    edge.apply(&shop(1, &[refusing(), good.address, refusing()]))
        .await;
    for n in 0..20 {
        let request = format!(
            "POST /{n} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
        );
        assert_eq!(body(&edge.raw(request).await), "good");
    }
    assert_eq!(good.requests().len(), 20, "each once");
    edge.stop().await;
}

/// Serves one request per connection, promises more, and closes: after a while, or when the next request is there.
async fn fickle(linger: bool) -> (Origin, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let origin = Origin::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let Some(request) = read_request(&mut stream).await else {
                return;
            };
            if !request.contains("vend-health") {
                count.fetch_add(1, SeqCst);
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            if linger {
                // Gone with the request, which it never reads as such.
                let _ = stream.read(&mut [0; 1]).await;
            }
        }
    })
    .await;
    (origin, served)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closed_meanwhile_costs_no_request() {
    for linger in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (origin, served) = fickle(linger).await;
        let edge = in_front_of(&origin, &folder).await;
        let mut stream = edge.connect().await;
        for n in 0..50 {
            let request = format!("GET /{n} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(body(&message(&mut stream).await), "ok", "request {n}");
        }
        assert_eq!(served.load(SeqCst), 50);
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_done_is_not_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, served) = fickle(true).await;
    let edge = in_front_of(&origin, &folder).await;
    let mut stream = edge.connect().await;
    let request = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello";
    let mut answers = Vec::new();
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).await.unwrap();
        answers.push(status(&message(&mut stream).await));
    }
    assert_eq!(
        answers,
        [200, 502],
        "the second went to a connection that then closed"
    );
    assert_eq!(served.load(SeqCst), 1);
    // A connection that has idled for a while is not trusted with such a request.
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&message(&mut stream).await), 200);
    tokio::time::sleep(Duration::from_millis(1300)).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&message(&mut stream).await), 200);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_and_health_decide_who_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (Origin::named("blue").await, Origin::named("green").await);
    let sick = Origin::answering(|request| match request.contains("vend-health") {
        true => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        false => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsick",
    })
    .await;
    let edge = Edge::start(&folder);
    let mut table = Table {
        version: 1,
        rules: vec![rule(
            1,
            "shop.test",
            forward(&[("blue", 90), ("green", 10), ("none", 0)]),
        )],
        target_groups: BTreeMap::from([
            ("blue".to_owned(), group(&[blue.address, sick.address])),
            ("green".to_owned(), group(&[green.address])),
            ("none".to_owned(), group(&[sick.address])),
        ]),
    };
    for group in table.target_groups.values_mut() {
        group.health.interval = SignedDuration::from_millis(50);
        group.algorithm = Algorithm::LeastOutstanding;
    }
    edge.apply(&table).await;
    let state = async |origin: &Origin| {
        let health = edge.client.health().await.unwrap();
        health
            .into_iter()
            .find(|h| h.target.address == origin.address)
            .unwrap()
    };
    until("health is known", || async {
        state(&blue).await.state == TargetState::Healthy
            && state(&green).await.state == TargetState::Healthy
            && state(&sick).await.state == TargetState::Unhealthy
    })
    .await;
    assert_eq!(state(&sick).await.reason.as_deref(), Some("status 500"));
    let mut stream = edge.connect().await;
    let mut shares = BTreeMap::new();
    for _ in 0..1000 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            .await
            .unwrap();
        *shares
            .entry(body(&message(&mut stream).await).to_owned())
            .or_insert(0) += 1;
    }
    assert_eq!(
        shares,
        BTreeMap::from([("blue".to_owned(), 900), ("green".to_owned(), 100)])
    );

    // Nobody is well: everybody serves.
    table.version = 2;
    table
        .target_groups
        .get_mut("blue")
        .unwrap()
        .targets
        .retain(|t| t.address == sick.address);
    edge.apply(&table).await;
    assert_eq!(
        state(&sick).await.state,
        TargetState::Unhealthy,
        "a target that stays keeps its state"
    );
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(body(&edge.get("shop.test", "/").await).to_owned());
    }
    assert_eq!(answers.iter().filter(|a| *a == "sick").count(), 90);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_taken_whole_or_not_at_all_and_survives_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = Edge::start(&folder);
    edge.apply(&shop(7, &[origin.address])).await;

    let mut bad = shop(8, &[]);
    bad.rules.push(rule(1, "other.test", forward(&[("shop", 1)])));
    let error = edge.client.apply(&bad).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Invalid(Invalid::Priority(1))),
        "{error}"
    );
    let error = edge.client.apply(&shop(6, &[])).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Invalid(Invalid::Stale { got: 6, have: 7 })),
        "{error}"
    );
    let error = edge.client.apply(&shop(7, &[])).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Invalid(Invalid::Stale { got: 7, have: 7 })),
        "{error}"
    );
    assert_eq!(
        edge.client.apply(&shop(7, &[origin.address])).await.unwrap(),
        7,
        "the same again"
    );
    assert_eq!(edge.client.version().await.unwrap(), 7);
    assert_eq!(body(&edge.get("shop.test", "/").await), "origin");
    edge.stop().await;

    let edge = Edge::start(&folder);
    until("it serves from its snapshot", || async {
        body(&edge.get("shop.test", "/").await) == "origin"
    })
    .await;
    assert_eq!(edge.client.version().await.unwrap(), 7);
    let log = std::fs::read_to_string(edge.folder.join("access.log")).unwrap();
    assert!(log.contains("\"GET shop.test/ HTTP/1.1\" 200 6 "), "{log}");
    let snapshot = edge.folder.join("edge/table.log");
    edge.stop().await;

    std::fs::write(&snapshot, "{\"version\": 9, \"rules\": [").unwrap();
    let edge = Edge::start(&folder);
    until("it starts without", || async {
        body(&edge.get("shop.test", "/").await) == "host not found"
    })
    .await;
    assert!(snapshot.with_extension("log.bad").exists());
    edge.apply(&shop(1, &[origin.address])).await;
    assert_eq!(body(&edge.get("shop.test", "/").await), "origin");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let (release, held) = tokio::sync::watch::channel(false);
    let slow = Origin::raw(move |mut stream| {
        let mut held = held.clone();
        async move {
            while let Some(request) = read_request(&mut stream).await {
                if request.starts_with("GET /slow") {
                    let _ = held.wait_for(|released| *released).await;
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
                    .await;
            }
        }
    })
    .await;
    let quick = Origin::named("quick").await;
    let edge = in_front_of(&slow, &folder).await;
    let mut waiting = edge.connect().await;
    let request = b"GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    waiting.write_all(request).await.unwrap();
    until("the request is under way", || async {
        edge.client.stats().await.unwrap()[0].active == 1
    })
    .await;
    edge.apply(&shop(2, &[quick.address])).await;
    for _ in 0..10 {
        assert_eq!(body(&edge.get("shop.test", "/").await), "quick");
    }
    let draining = |health: &[model::route::TargetHealth]| {
        let found = health.iter().find(|h| h.target.address == slow.address);
        found.map(|h| (h.state, h.active))
    };
    let health = edge.client.health().await.unwrap();
    assert_eq!(draining(&health), Some((TargetState::Draining, 1)));
    release.send(true).unwrap();
    assert_eq!(body(&message(&mut waiting).await), "slow");
    // The client has its answer a moment before the edge is done with it.
    until("nothing is under way there", || async {
        draining(&edge.client.health().await.unwrap()).is_none()
    })
    .await;

    // It comes back before its time is over; then it leaves without any time at all.
    release.send(false).unwrap();
    edge.apply(&shop(3, &[slow.address])).await;
    waiting.write_all(request).await.unwrap();
    until("the request is under way", || async {
        edge.client.stats().await.unwrap()[0].active == 1
    })
    .await;
    let mut table = shop(4, &[quick.address]);
    table.target_groups.get_mut("shop").unwrap().deregistration_delay = SignedDuration::ZERO;
    edge.apply(&table).await;
    let answer = message(&mut waiting).await;
    assert_eq!(status(&answer), 504, "cut: {answer}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_finishes_what_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(tokio::sync::Notify::new());
    let held = Arc::clone(&gate);
    let origin = Origin::raw(move |mut stream| {
        let held = Arc::clone(&held);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                if request.starts_with("GET /slow") {
                    held.notified().await;
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let edge = Edge::on(&folder, listener.try_clone().unwrap(), Limits::default(), 2);
    edge.apply(&shop(1, &[origin.address])).await;
    let mut slow = edge.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .await
        .unwrap();
    let mut idle = edge.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(body(&message(&mut idle).await), "ok");
    let address = edge.address;
    let stopping = tokio::spawn(edge.stop());
    // The order reaches each worker in its own time: whoever asks before that is served as ever.
    soon("good-bye is said", async {
        loop {
            idle.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
                .await
                .unwrap();
            let answer = message(&mut idle).await;
            assert_eq!(body(&answer), "ok");
            if field(&answer, "connection") == Some("close") {
                break;
            }
        }
    })
    .await;
    // Nobody is refused meanwhile: the supervisor's copy of the listener keeps the queue.
    let mut next = tokio::net::TcpStream::connect(address).await.unwrap();
    next.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .await
        .unwrap();
    gate.notify_one();
    let answer = message(&mut slow).await;
    assert_eq!(
        (body(&answer), field(&answer, "connection")),
        ("ok", Some("close"))
    );
    soon("it stops", stopping).await.unwrap();
    let edge = Edge::on(&folder, listener, Limits::default(), 2);
    assert_eq!(body(&message(&mut next).await), "ok");
    edge.stop().await;
}

#[tokio::test]
async fn an_edge_prefers_targets_of_its_own_zone() {
    let folder = tempfile::tempdir().unwrap();
    let (west, mut east) = (Origin::named("west").await, Origin::named("east").await);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = vec![edge::Listener::http(listener)];
    let edge = Edge::configured(&folder, listeners, |config| config.zone = Some("east".into()));
    let mut table = shop(1, &[west.address, east.address]);
    let shop = table.target_groups.get_mut("shop").unwrap();
    let zones = [(&west, "west"), (&east, "east")];
    shop.zones = zones
        .map(|(origin, zone)| (format!("h-{}", origin.address.port()), zone.to_owned()))
        .into();
    edge.apply(&table).await;
    until("both are healthy", || async {
        let health = edge.client.health().await.unwrap();
        health.iter().all(|target| target.state == TargetState::Healthy)
    })
    .await;
    for _ in 0..4 {
        assert_eq!(body(&edge.get("shop.test", "/").await), "east");
    }
    east.close().await;
    assert_eq!(
        body(&edge.get("shop.test", "/").await),
        "west",
        "when there is nobody near"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_sees_what_the_client_spoke_and_not_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let edge = Edge::start(&folder);
    let redirect = Redirect {
        status: 301,
        protocol: "HTTPS".into(),
        port: "443".into(),
        ..Redirect::default()
    };
    let mut table = shop(1, &[]);
    let mut upgrade = rule(1, "shop.test", Action::Redirect(redirect));
    upgrade.conditions.headers = vec![HeaderCondition {
        name: "X-Forwarded-Proto".into(),
        values: vec!["http".into()],
        ..HeaderCondition::default()
    }];
    table.rules[0].priority = 2;
    table.rules.push(upgrade);
    edge.apply(&table).await;
    for line in ["", "X-Forwarded-Proto: https\r\n"] {
        let request = format!("GET /a HTTP/1.1\r\nHost: shop.test\r\n{line}Connection: close\r\n\r\n");
        let answer = edge.raw(request).await;
        assert_eq!(
            field(&answer, "location"),
            Some("https://shop.test/a"),
            "{answer}"
        );
    }
    edge.stop().await;
}
