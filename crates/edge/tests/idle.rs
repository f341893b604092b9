//! What a connection takes that waits for its next request.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "world/counting.rs"]
mod counting;
mod world;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering::SeqCst,
};

use counting::HELD;
use tokio::io::AsyncWriteExt;
use world::{Edge, Origin, read_request, shop, until};

const CONNECTIONS: usize = 400;

/// Asks once, and leaves the connection open. Without a runtime: nothing of this side is on the heap afterwards.
fn asked(edge: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(edge).unwrap();
    let head = format!(
        "GET /some/path?with=a&query HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: {}\r\n\r\n",
        "x".repeat(300)
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer).unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    stream
}

async fn held_by_each(edge: &Edge) -> usize {
    let at = edge.address;
    let open = |count| tokio::task::spawn_blocking(move || (0..count).map(|_| asked(at)).collect::<Vec<_>>());
    let idle = |count: u32| async move {
        until("all are there", || async {
            edge.client.load().await.unwrap().totals.open == count
        })
        .await;
    };
    // What is made once, and kept, is there before it counts.
    let first = open(100).await.unwrap();
    idle(100).await;
    let before = HELD.load(SeqCst);
    let more = open(CONNECTIONS).await.unwrap();
    idle(100 + CONNECTIONS as u32).await;
    let each = HELD.load(SeqCst).saturating_sub(before) / CONNECTIONS;
    drop((first, more));
    idle(0).await;
    each
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_takes_little() {
    for (logged, most) in [(false, 3_600), (true, 3_600)] {
        let folder = tempfile::tempdir().unwrap();
        // One that remembers nothing: it is on the same heap.
        let origin = Origin::raw(|mut stream| async move {
            while read_request(&mut stream).await.is_some() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
        })
        .await;
        let listener = edge::Listener::http(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let edge = Edge::configured(&folder, vec![listener], |config| {
            config.access_log = config.access_log.take().filter(|_| logged);
        });
        edge.apply(&shop(1, &[origin.address])).await;
        let each = held_by_each(&edge).await;
        println!("bytes of each idle connection, logged {logged}: {each}");
        assert!(each < most, "{each} bytes, logged {logged}");
        edge.stop().await;
    }
}
