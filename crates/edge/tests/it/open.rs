//! Ten thousand connections that are open while everything changes that can: not one of them is cut.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener as Socket},
    sync::Arc,
    time::Duration,
};

use edge::{Limits, Listener, Speaks, Tls, Version};
use model::route::{Delta, TargetState};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Barrier,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use crate::world::{
    Edge, Origin, forward, group, rule, shop, until,
    wire::{Wire, certificate, connect, in_force},
};

/// Clients, and connections of each. Every tenth client speaks TLS, and every tenth connection is in the middle of a
/// request when things change.
const CLIENTS: usize = 100;
const MOST: usize = 100;
const ROUTES: u32 = 500;

/// How many connections each client opens: a hundred, where this process may have so many files. Both ends of all are in
/// it, and of every tenth both ends of one to the target.
fn each() -> usize {
    const OTHERS: u64 = 1_500;
    const WANTED: u64 = 65_536;
    let files = getrlimit(Resource::Nofile);
    let wanted = [
        files.maximum.unwrap_or(WANTED).max(WANTED),
        files.maximum.unwrap_or(WANTED),
    ];
    for most in wanted {
        let raised = Rlimit {
            current: Some(most),
            maximum: files.maximum.map(|before| before.max(most)),
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            break;
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(WANTED);
    let room = files.saturating_sub(OTHERS) / (CLIENTS as u64 * 22 / 10);
    let each = MOST.min(usize::try_from(room).unwrap_or(MOST));
    assert!(each >= 10, "{files} open files are too few for this test");
    if each < MOST {
        println!(
            "{} connections: no more than {files} files may be open here",
            CLIENTS * each
        );
    }
    each
}

/// What one connection is answered. An answer comes in one piece: it is small.
async fn answer(stream: &mut Box<dyn Wire>) -> String {
    let mut bytes = vec![0; 1024];
    let count = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut bytes)).await;
    let count = count.expect("an answer comes").expect("the connection is there");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 8\r\n\r\nfour";

/// Opens its connections, waits for the change in between, and asks each of them again. Gives how many were told what.
async fn client(
    at: SocketAddr,
    each: usize,
    tls: Option<TlsConnector>,
    between: Arc<Barrier>,
) -> (usize, usize) {
    let mut open_ones = Vec::new();
    for number in 0..each {
        let mut stream = connect(at, "shop.test", tls.as_ref()).await;
        stream.write_all(GET).await.unwrap();
        assert!(answer(&mut stream).await.ends_with("old"));
        if number % 10 == 0 {
            stream.write_all(POST).await.unwrap();
        }
        open_ones.push(stream);
    }
    between.wait().await;
    between.wait().await;
    let (mut old, mut new) = (0, 0);
    for (number, mut stream) in open_ones.into_iter().enumerate() {
        // Who was in the middle of a request is with the target that left, and is answered by it.
        stream
            .write_all(if number % 10 == 0 { b"more" } else { GET })
            .await
            .unwrap();
        match answer(&mut stream).await {
            answer if answer.starts_with("HTTP/1.1 200") && answer.ends_with("old") => old += 1,
            answer if answer.starts_with("HTTP/1.1 200") && answer.ends_with("new") => new += 1,
            other => panic!("connection {number}: {other:?}"),
        }
    }
    (old, new)
}

/// Routes, weights, a certificate, the targets, and then the table as a whole.
async fn change_everything(
    edge: &Edge,
    (certificates, secure): (&camino::Utf8Path, SocketAddr),
    (old, busy): (SocketAddr, usize),
    new: SocketAddr,
) -> u64 {
    let mut version = 1;
    let mut next = |delta: Delta| {
        version += 1;
        Delta {
            from: Some(version - 1),
            version,
            ..delta
        }
    };
    for number in 0..ROUTES {
        let host = format!("h{number}.test");
        let rules = vec![rule(number + 10, &host, forward(&[("shop", 1)]))];
        edge.client
            .change(&next(Delta {
                rules,
                ..Delta::default()
            }))
            .await
            .unwrap();
    }
    let both = BTreeMap::from([("green".to_owned(), group(&[new]))]);
    for weight in [10, 50, 100] {
        let rules = vec![rule(
            1,
            "shop.test",
            forward(&[("shop", 100 - weight), ("green", weight)]),
        )];
        let delta = Delta {
            rules,
            target_groups: both.clone(),
            ..Delta::default()
        };
        edge.client.change(&next(delta)).await.unwrap();
    }
    let newest = certificate(certificates, &["shop.test"]);
    in_force(secure, "shop.test", &newest).await;
    let mut whole = shop(version + 1, &[new]);
    whole
        .rules
        .extend((0..ROUTES).map(|n| rule(n + 1_000, &format!("n{n}.test"), forward(&[("shop", 1)]))));
    let version = edge.client.apply(&whole).await.unwrap();
    let health = edge.client.health().await.unwrap();
    let leaving = health.iter().find(|seen| seen.target.address == old).unwrap();
    assert_eq!(leaving.state, TargetState::Draining);
    assert_eq!(leaving.active as usize, busy, "requests are under way there");
    version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_stay_while_everything_changes() {
    let each = each();
    let folder = tempfile::tempdir().unwrap();
    let certificates = camino::Utf8Path::from_path(folder.path())
        .unwrap()
        .join("certificates");
    let tls = certificate(&certificates, &["shop.test"]);
    let (old, new) = (Origin::named("old").await, Origin::named("new").await);
    let listen = |speaks| Listener {
        socket: Socket::bind("127.0.0.1:0").unwrap(),
        speaks,
        proxied: false,
    };
    let secure = listen(Speaks::Https(Box::new(Tls {
        certificates: certificates.clone(),
        minimum: Version::default(),
        ciphers: Vec::new(),
        clients: None,
    })));
    let (plain, secure_at) = {
        let plain = listen(Speaks::Http);
        (plain, secure.socket.local_addr().unwrap())
    };
    let long = Duration::from_secs(600);
    let limits = Limits {
        idle: long,
        upstream: long,
        ..Limits::default()
    };
    let at = plain.socket.local_addr().unwrap();
    let edge = Edge::listening(&folder, vec![plain, secure], limits, 2);
    edge.apply(&shop(1, &[old.address])).await;
    until("the target is healthy", || async {
        edge.client.health().await.unwrap()[0].state == TargetState::Healthy
    })
    .await;

    let between = Arc::new(Barrier::new(CLIENTS + 1));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let own = (number % 10 == 0).then(|| tls.clone());
        let at = if own.is_some() { secure_at } else { at };
        clients.spawn(client(at, each, own, Arc::clone(&between)));
    }
    between.wait().await;
    let metrics = edge.client.metrics().await.unwrap();
    let all = CLIENTS * each;
    assert!(
        metrics.contains(&format!("vend_edge_connections_open {all}\n")),
        "{metrics}"
    );
    let version = change_everything(
        &edge,
        (&certificates, secure_at),
        (old.address, CLIENTS * each.div_ceil(10)),
        new.address,
    )
    .await;
    assert_eq!(version, u64::from(ROUTES) + 5);
    between.wait().await;
    let mut told = (0, 0);
    while let Some(client) = clients.join_next().await {
        let (old, new) = client.unwrap();
        told = (told.0 + old, told.1 + new);
    }
    let busy = CLIENTS * each.div_ceil(10);
    assert_eq!(told, (busy, all - busy));
    edge.stop().await;
}
