//! Who gets which share: targets that fail are left out and come back, new ones begin with little.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};

use jiff::SignedDuration;
use model::route::{Ejection, HealthProtocol, Table, TargetState};
use tokio::net::TcpListener;

use crate::world::{self, Edge, Origin, body, shop, until};

/// All targets are found well, at an address of their own: what is known of them is what requests meet.
async fn found_well(version: u64, addresses: &[SocketAddr]) -> Table {
    let well = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut table = shop(version, addresses);
    let group = table.target_groups.get_mut("shop").unwrap();
    group.health.protocol = HealthProtocol::Tcp;
    group.health.port = Some(well.local_addr().unwrap().port());
    group.ejection = Some(Ejection {
        failures: 3,
        time: SignedDuration::from_millis(1_500),
    });
    tokio::spawn(async move { while well.accept().await.is_ok() {} });
    table
}

async fn all_healthy(edge: &Edge, count: usize) {
    until("all are healthy", || async {
        let health = edge.client.health().await.unwrap();
        let healthy = health.iter().filter(|seen| seen.state == TargetState::Healthy);
        healthy.count() == count
    })
    .await;
}

async fn reason(edge: &Edge, address: SocketAddr) -> Option<String> {
    let health = edge.client.health().await.unwrap();
    let seen = health.into_iter().find(|seen| seen.target.address == address);
    seen.unwrap().reason
}

/// So many requests, and how many of them were answered so.
async fn asked(edge: &Edge, count: usize, by: &str) -> usize {
    let mut answered = 0;
    for _ in 0..count {
        let answer = edge.get("shop.test", "/").await;
        answered += usize::from(body(&answer) == by);
    }
    answered
}

const LEFT_OUT: Option<&str> = Some("left out: its requests fail");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_answers_5xx_is_left_out_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let ill = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&ill);
    let first = Origin::answering(move |_| match state.load(SeqCst) {
        true => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nill",
        false => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
    })
    .await;
    let second = Origin::named("second").await;
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    edge.apply(&found_well(1, &[first.address, second.address]).await)
        .await;
    all_healthy(&edge, 2).await;
    assert_eq!(asked(&edge, 6, "ill").await, 3, "every other one");
    assert_eq!(reason(&edge, first.address).await.as_deref(), LEFT_OUT);
    ill.store(false, SeqCst);
    assert_eq!(asked(&edge, 1, "second").await, 1);
    until("it is asked again", || async {
        asked(&edge, 2, "first").await == 1
    })
    .await;
    assert_eq!(reason(&edge, first.address).await, None);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_refuses_is_left_out_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let second = Origin::named("second").await;
    let away = world::refusing();
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    edge.apply(&found_well(1, &[away, second.address]).await).await;
    all_healthy(&edge, 2).await;
    assert_eq!(asked(&edge, 10, "second").await, 10, "nobody notices");
    assert_eq!(reason(&edge, away).await.as_deref(), LEFT_OUT);
    let health = edge.client.health().await.unwrap();
    let errors = health
        .iter()
        .map(|seen| (seen.target.address == away, seen.errors));
    let errors: BTreeMap<_, _> = errors.collect();
    assert_eq!(errors, [(true, 3), (false, 0)].into(), "it was tried three times");
    let back = TcpListener::bind(away).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = back.accept().await {
            tokio::spawn(async move {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfirst";
                let _ = world::read_request(&mut stream).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            });
        }
    });
    until("it is asked again", || async {
        asked(&edge, 2, "first").await == 1
    })
    .await;
    assert_eq!(reason(&edge, away).await, None);
    edge.stop().await;
}

/// Whoever is healthy and left out is still better than whoever is unhealthy, and nothing has failed open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_are_left_out_all_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let ill = |_: &str| "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nill";
    let (first, second) = (Origin::answering(ill).await, Origin::answering(ill).await);
    // Nobody answers health checks at this address.
    let third = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let third = third.local_addr().map(|at| (at, third)).unwrap();
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    let mut table = found_well(1, &[first.address, second.address, third.0]).await;
    let group = table.target_groups.get_mut("shop").unwrap();
    group.health.interval = SignedDuration::from_millis(100);
    // Whoever is back was as good as never left out.
    group.ejection.as_mut().unwrap().time = SignedDuration::from_mins(10);
    edge.apply(&table).await;
    all_healthy(&edge, 2).await;
    until("the third is unhealthy", || async {
        let health = edge.client.health().await.unwrap();
        health.iter().any(|seen| seen.state == TargetState::Unhealthy)
    })
    .await;
    let count = || [first.requests().len(), second.requests().len()];
    assert_eq!((asked(&edge, 6, "ill").await, count()), (6, [3, 3]));
    for target in [&first, &second] {
        assert_eq!(reason(&edge, target.address).await.as_deref(), LEFT_OUT);
    }
    assert_eq!(
        (asked(&edge, 6, "ill").await, count()),
        (6, [6, 6]),
        "all are asked"
    );
    let metrics = edge.client.metrics().await.unwrap();
    assert!(
        metrics.contains("vend_edge_panics_total{group=\"shop\"} 0\n"),
        "{metrics}"
    );
    edge.stop().await;
}

/// As ALB: nothing is gained by refusing everybody. It is counted, and each target says that it is not well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_are_unhealthy_all_are_asked_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    let mut table = found_well(1, &[first.address, second.address]).await;
    let health = &mut table.target_groups.get_mut("shop").unwrap().health;
    health.port = Some(world::refusing().port());
    health.interval = SignedDuration::from_millis(100);
    edge.apply(&table).await;
    until("all are unhealthy", || async {
        let health = edge.client.health().await.unwrap();
        health.iter().all(|seen| seen.state == TargetState::Unhealthy)
    })
    .await;
    assert_eq!(asked(&edge, 6, "first").await, 3);
    let load = edge.client.load().await.unwrap();
    assert_eq!((load.groups[0].panics, load.totals.unhealthy), (6, 2));
    let metrics = edge.client.metrics().await.unwrap();
    for line in [
        "panics_total{group=\"shop\"} 6",
        "targets{group=\"shop\",state=\"unhealthy\"} 2",
    ] {
        assert!(
            metrics.contains(&format!("vend_edge_{line}\n")),
            "{line}: {metrics}"
        );
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_a_new_target_grows() {
    // No shorter one is taken.
    const SLOW: Duration = Duration::from_secs(30);
    const BATCH: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Origin::named("old").await, Origin::named("new").await);
    let edge = Edge::with(&folder, edge::Limits::default(), 1);
    edge.apply(&found_well(1, &[old.address]).await).await;
    all_healthy(&edge, 1).await;
    // It is not new any more.
    tokio::time::sleep(SLOW).await;
    let mut table = found_well(2, &[old.address, new.address]).await;
    table.target_groups.get_mut("shop").unwrap().slow_start = SLOW.try_into().unwrap();
    edge.apply(&table).await;
    all_healthy(&edge, 2).await;
    let first = asked(&edge, BATCH, "new").await;
    assert!(first < BATCH / 4, "{first} of {BATCH} at once");
    until("it gets more", || async {
        asked(&edge, BATCH, "new").await > first + 5
    })
    .await;
    table.version = 3;
    table.target_groups.get_mut("shop").unwrap().slow_start = SignedDuration::ZERO;
    edge.apply(&table).await;
    assert_eq!(
        asked(&edge, BATCH, "new").await,
        BATCH / 2,
        "what is not new gets its part"
    );
    edge.stop().await;
}

/// A check may ask for codes of its own, one or many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codes_of_a_check_say_what_is_well() {
    use TargetState::{Healthy, Unhealthy};
    let folder = tempfile::tempdir().unwrap();
    let code = Arc::new(AtomicU16::new(418));
    let said = Arc::clone(&code);
    let origin = Origin::answering(move |_| {
        let code = said.load(SeqCst);
        format!("HTTP/1.1 {code} So it is\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let edge = Edge::start(&folder);
    let mut table = shop(1, &[origin.address]);
    let health = &mut table.target_groups.get_mut("shop").unwrap().health;
    health.interval = SignedDuration::from_millis(100);
    health.codes = vec![(418, 418), (430, 440)];
    edge.apply(&table).await;
    for (status, expected) in [
        (418, Healthy),
        (200, Unhealthy),
        (430, Healthy),
        (429, Unhealthy),
        (440, Healthy),
        (441, Unhealthy),
    ] {
        code.store(status, SeqCst);
        let reason = (expected == Unhealthy).then(|| format!("status {status}"));
        until("the target is found so", || async {
            let seen = edge.client.health().await.unwrap().remove(0);
            seen.state == expected && seen.reason == reason
        })
        .await;
    }
    edge.stop().await;
}
