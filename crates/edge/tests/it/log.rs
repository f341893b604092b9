//! The access log while its files change.

use std::{collections::BTreeSet, net::TcpListener as Socket, time::Duration};

use edge::{AccessNewest, Listener, Log, Rotation};
use tokio::io::AsyncWriteExt as _;

use crate::world::{Edge, Origin, message, shop, status, until};

const CLIENTS: usize = 8;
const EACH: usize = 250;

/// Requests over one connection, each with a number of its own.
async fn client(edge: std::net::SocketAddr, number: usize) {
    let mut stream = tokio::net::TcpStream::connect(edge).await.unwrap();
    for n in 0..EACH {
        let request = format!("GET /{number}-{n} HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(&message(&mut stream).await), 200);
    }
}

async fn newest(edge: &Edge, lines: usize) -> edge::AccessLines {
    let of = "shop".to_owned();
    let since = None;
    edge.client
        .access(&AccessNewest { of, since, lines })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_lost_while_files_are_rotated_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("ok").await;
    let listeners = vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())];
    let rotation = Rotation {
        size: 40 * 1024,
        age: Duration::ZERO,
        keep: 0,
    };
    let edge = Edge::configured(&folder, listeners, |config| {
        config.workers = 2;
        config.access_log = config.access_log.take().map(|log| Log { rotation, ..log });
    });
    edge.apply(&shop(1, &[origin.address])).await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(edge.address, number)))
        .collect();
    // Reading while files change finds no line twice.
    for _ in 0..20 {
        let seen = newest(&edge, 10_000).await.lines;
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    until("everything is written", || async {
        newest(&edge, 10_000).await.lines.len() >= CLIENTS * EACH
    })
    .await;
    let found = newest(&edge, 10_000).await;
    let paths: BTreeSet<&str> = found
        .lines
        .iter()
        .filter_map(|line| line.split('"').nth(1)?.split(' ').nth(1))
        .collect();
    assert_eq!((found.lines.len(), paths.len()), (CLIENTS * EACH, CLIENTS * EACH));
    assert!(found.all);
    let files = edge.folder.read_dir_utf8().unwrap();
    let logs: Vec<_> = files
        .map(|file| file.unwrap())
        .filter(|file| file.file_name().starts_with("access.log"))
        .collect();
    assert!(logs.len() > 4, "{logs:?}");
    for log in &logs {
        assert!(log.metadata().unwrap().len() <= 40 * 1024, "{log:?}");
    }
    let metrics = edge.client.metrics().await.unwrap();
    assert!(metrics.contains("access_log_dropped_total 0\n"), "{metrics}");
    // The newest alone, over as many files as it takes.
    let last = newest(&edge, 700).await;
    assert_eq!(last.lines, found.lines[CLIENTS * EACH - 700..]);
    assert!(!last.all);
    edge.stop().await;
}
