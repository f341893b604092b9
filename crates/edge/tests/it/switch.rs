//! Routes change and targets go while requests come; none may fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use jiff::SignedDuration;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::world::{Edge, Origin, body, field, message, shop, status, until};

const CLIENTS: usize = 16;
const REQUESTS: usize = 20_000;
const SWITCHES: u64 = 50;

/// A closed loop of requests, a POST now and then; returns what was not as it should be.
async fn load(address: std::net::SocketAddr, left: Arc<AtomicUsize>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.set_nodelay(true);
    while left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
        let request = match left.load(SeqCst) % 5 {
            0 => "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello",
            _ => "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = message(&mut stream).await;
        if status(&answer) != 200 || body(&answer) != "ok" {
            wrong.push(answer.clone());
        }
        if field(&answer, "connection") == Some("close") {
            stream = TcpStream::connect(address).await.unwrap();
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_targets_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let edge = Edge::start(&folder);
    let ok = |_: &str| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut old = vec![Origin::answering(ok).await, Origin::answering(ok).await];
    let table = |version, origins: &[Origin]| {
        let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
        let mut table = shop(version, &addresses);
        let group = table.target_groups.get_mut("shop").unwrap();
        group.deregistration_delay = SignedDuration::from_secs(30);
        table
    };
    edge.apply(&table(1, &old)).await;
    let left = Arc::new(AtomicUsize::new(REQUESTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(load(edge.address, Arc::clone(&left))))
        .collect();
    let mut served = 0;
    for n in 0..SWITCHES {
        let new = vec![Origin::answering(ok).await, Origin::answering(ok).await];
        // Spread over the load, whatever the machine's speed.
        let due = REQUESTS - REQUESTS * (n as usize + 1) / (SWITCHES as usize + 2);
        until("the load goes on", || async { left.load(SeqCst) <= due }).await;
        edge.apply(&table(n + 2, &new)).await;
        until("the old targets are drained", || async {
            let health = edge.client.health().await.unwrap();
            old.iter()
                .all(|old| health.iter().all(|h| h.target.address != old.address))
        })
        .await;
        // From here on the old targets serve nobody; a request that came to them now would be lost.
        for mut origin in std::mem::replace(&mut old, new) {
            let before = origin.requests().len();
            origin.close().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(
                origin.requests().len(),
                before,
                "a request to a target that has left"
            );
            served += before;
        }
    }
    let mut wrong = Vec::new();
    for client in clients {
        wrong.extend(client.await.unwrap());
    }
    assert_eq!(wrong.len(), 0, "{:?}", wrong.first());
    served += old.iter().map(|origin| origin.requests().len()).sum::<usize>();
    assert_eq!(served, REQUESTS, "each exactly once");
    let stats = edge.client.stats().await.unwrap();
    assert_eq!((stats[0].edge_5xx, stats[0].active), (0, 0));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_edge_itself_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || Edge::on(&folder, listener.try_clone().unwrap(), edge::Limits::default(), 1);
    let mut edge = start();
    edge.apply(&shop(1, &[origin.address])).await;
    let left = Arc::new(AtomicUsize::new(4_000));
    let clients: Vec<_> = (0..8)
        .map(|_| tokio::spawn(load(edge.address, Arc::clone(&left))))
        .collect();
    for n in (1..4).rev() {
        until("the load goes on", || async { left.load(SeqCst) <= n * 1000 }).await;
        edge.stop().await;
        edge = start();
    }
    for client in clients {
        let wrong = client.await.unwrap();
        assert_eq!(wrong.len(), 0, "{:?}", wrong.first());
    }
    edge.stop().await;
}
