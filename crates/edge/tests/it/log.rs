//! The access log while its files change.

use std::{collections::BTreeSet, net::TcpListener as Socket, time::Duration};

use edge::{AccessNewest, Format, Listener, Log, Rotation};
use model::route::{Action, Table};
use tokio::io::AsyncWriteExt as _;

use crate::world::{Edge, Origin, forward, group, message, rule, shop, status, until};

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

/// A tenant's lines are to be had whatever the log looks like, those of what the load balancer answered itself among them;
/// and nobody has another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_its_own_lines_whatever_the_format() {
    for format in [Format::Short, Format::Alb, Format::Json] {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::named("ok").await;
        let listeners = vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())];
        let edge = Edge::configured(&folder, listeners, |config| {
            config.access_log = config.access_log.take().map(|log| Log {
                format,
                newest: Some(log.path.with_file_name("newest.log")),
                ..log
            });
        });
        let of = |priority, tenant: &str, action| {
            let mut rule = rule(priority, &format!("{tenant}{priority}.test"), action);
            rule.place = format!("{tenant}/shop/dev").parse().unwrap();
            rule
        };
        let closed = || Action::FixedResponse {
            status: 503,
            content_type: "text/plain".into(),
            body: "closed".into(),
        };
        let name = |tenant: &str| format!("{tenant}/shop/dev/v1");
        let groups = ["acme", "acmex"].map(|tenant| (name(tenant), group(&[origin.address])));
        edge.apply(&Table {
            version: 1,
            rules: vec![
                of(1, "acme", forward(&[(&name("acme"), 1)])),
                of(2, "acme", closed()),
                of(3, "acmex", forward(&[(&name("acmex"), 1)])),
                of(4, "acmex", closed()),
            ],
            target_groups: groups.into(),
        })
        .await;
        for (host, code) in [
            ("acme1.test", 200),
            ("acmex3.test", 200),
            ("acme2.test", 503),
            ("acmex4.test", 503),
            ("nobody.test", 503),
        ] {
            // What a client says is no place.
            let asked = edge.get(host, "/acme/shop/dev\"acme/shop/dev").await;
            assert_eq!(status(&asked), code, "{host}");
        }
        let newest = |of: &str| {
            let (client, of) = (edge.client.clone(), of.to_owned());
            let wanted = AccessNewest {
                of,
                since: None,
                lines: 9,
            };
            async move { client.access(&wanted).await.unwrap().lines }
        };
        until("everything is written", || async { newest("").await.len() == 5 }).await;
        for (tenant, hosts) in [
            ("acme", ["acme1.test", "acme2.test"]),
            ("acmex", ["acmex3.test", "acmex4.test"]),
        ] {
            let lines = newest(tenant).await;
            assert_eq!(lines.len(), 2, "{format:?} {lines:?}");
            for (line, host) in lines.iter().zip(hosts) {
                assert!(line.contains(&format!(" {host}/acme")), "{format:?} {line}");
            }
        }
        edge.stop().await;
        let log = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
        let first = log.lines().next().unwrap();
        let whole = match format {
            Format::Short => first.starts_with("20") && !folder.path().join("newest.log").exists(),
            Format::Alb => first.starts_with("http 20"),
            Format::Json => first.starts_with('{'),
        };
        assert!(whole && log.lines().count() == 5, "{format:?} {log}");
    }
}
