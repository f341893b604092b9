//! Sockets that rules have for themselves.

use std::net::{SocketAddr, TcpListener as Socket, UdpSocket as Datagram};

use edge::{Limits, Listener, Question};
use jiff::SignedDuration;
use model::route::{Listens, Own, Speaks, Table};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::world::{self, Edge, Origin, body, forward, group, rule, soon, status, until};

fn free() -> SocketAddr {
    loop {
        let at = Socket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if Datagram::bind(at).is_ok() {
            return at;
        }
    }
}

fn own(listeners: &[(SocketAddr, Speaks)]) -> Own {
    let listens = listeners.iter().map(|(address, speaks)| Listens {
        address: *address,
        speaks: speaks.clone(),
    });
    Own {
        listeners: listens.collect(),
        acme: false,
    }
}

async fn get(at: SocketAddr, host: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.ok()?;
    Some(answer)
}

fn table(version: u64, shop: &Origin, other: &Origin) -> Table {
    Table {
        version,
        rules: vec![
            rule(1, "shop.test", forward(&[("shop", 1)])),
            rule(2, "other.test", forward(&[("other", 1)])),
        ],
        target_groups: [
            ("shop".to_owned(), group(&[shop.address])),
            ("other".to_owned(), group(&[other.address])),
        ]
        .into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_has_a_listener_of_its_own_beside_the_shared_one() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, other) = (Origin::named("the shop").await, Origin::named("the other").await);
    let edge = Edge::with(&folder, Limits::default(), 2);
    let (one, two) = (free(), free());
    let mut first = table(1, &shop, &other);
    first.rules[0].own = own(&[(one, Speaks::Http)]);
    // Who comes second does not get it, and everything else goes on.
    first.rules[1].own = own(&[(one, Speaks::Http), (two, Speaks::Https)]);
    edge.apply(&first).await;
    until(
        "it listens",
        || async move { get(one, "shop.test").await.is_some() },
    )
    .await;
    for _ in 0..8 {
        assert_eq!(body(&get(one, "shop.test").await.unwrap()), "the shop");
        let stranger = get(one, "other.test").await.unwrap();
        assert_eq!(
            status(&stranger),
            503,
            "only its own hosts are to be had there: {stranger}"
        );
    }
    assert_eq!(body(&edge.get("shop.test", "/").await), "the shop");
    assert_eq!(body(&edge.get("other.test", "/").await), "the other");
    let seen = edge.client.sockets().await.unwrap();
    let problem = |at: SocketAddr, host: &str| {
        let found = seen
            .iter()
            .find(|seen| seen.address == at && seen.hosts == [host]);
        found.unwrap().problem.clone()
    };
    assert_eq!(problem(one, "shop.test"), None);
    assert_eq!(
        problem(one, "other.test").unwrap(),
        "acme/shop/dev has this port already"
    );
    assert!(problem(two, "other.test").unwrap().contains("no HTTPS"));

    // A connection that is open goes on while the socket gets another meaning, and when it is closed.
    let mut stream = TcpStream::connect(one).await.unwrap();
    let ask = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    assert_eq!(body(&world::message(&mut stream).await), "the shop");
    let mut second = table(2, &shop, &other);
    second.rules[1].own = own(&[(one, Speaks::Http)]);
    edge.apply(&second).await;
    until("it is the other's", || async move {
        get(one, "other.test")
            .await
            .is_some_and(|answer| body(&answer) == "the other")
    })
    .await;
    stream.write_all(ask).await.unwrap();
    assert_eq!(body(&world::message(&mut stream).await), "the shop");

    // It is there again after a restart, without anybody else.
    edge.stop().await;
    let edge = Edge::with(&folder, Limits::default(), 2);
    until("it listens again", || async move {
        get(one, "other.test")
            .await
            .is_some_and(|answer| body(&answer) == "the other")
    })
    .await;
    edge.apply(&table(3, &shop, &other)).await;
    until("it listens no more", || async move {
        get(one, "other.test").await.is_none()
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_has_ports_for_bytes_and_datagrams() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::raw(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let datagrams = UdpSocket::bind(origin.address).await.unwrap();
    let echo = tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((length, from)) = datagrams.recv_from(&mut packet).await {
            let _ = datagrams.send_to(&packet[..length], from).await;
        }
    });
    let edge = Edge::listening(
        &folder,
        vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())],
        Limits::default(),
        1,
    );
    let port = free();
    let idle = SignedDuration::from_secs(30);
    let mut table = table(1, &origin, &origin);
    table.rules[0].own = own(&[(port, Speaks::Tcp), (port, Speaks::Udp { idle })]);
    edge.apply(&table).await;
    until(
        "it listens",
        || async move { TcpStream::connect(port).await.is_ok() },
    )
    .await;
    let mut stream = TcpStream::connect(port).await.unwrap();
    stream.write_all(b"bytes").await.unwrap();
    let mut answer = [0; 5];
    soon("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"bytes");
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(port).await.unwrap();
    client.send(b"datagram").await.unwrap();
    let mut answer = [0; 100];
    let length = soon("an answer", client.recv(&mut answer)).await.unwrap();
    assert_eq!(&answer[..length], b"datagram");
    // Its host is nobody's where HTTP is spoken: bytes need not sign in, and what answers them may trust them for that.
    let (asked, unknown) = (
        edge.get("shop.test", "/").await,
        edge.get("nobody.test", "/").await,
    );
    assert_eq!((status(&asked), body(&asked)), (503, body(&unknown)));
    let question = Question {
        method: "GET".into(),
        url: "http://shop.test/".into(),
        source: None,
        headers: Vec::new(),
    };
    let explained = edge.client.explain(&question).await.unwrap();
    assert_eq!(explained.rule, None);
    assert_eq!(explained.passed_over, [(1, "listener".to_owned())]);
    // What such a rule cannot be is refused, and the old table stays.
    let mut bad = table.clone();
    bad.version = 2;
    bad.rules[0].hosts.push("second.test".into());
    let refused = edge.client.apply(&bad).await.unwrap_err().to_string();
    assert!(refused.contains("needs exactly one"), "{refused}");
    assert_eq!(edge.client.version().await.unwrap(), 1);
    echo.abort();
    // What is open is given time to end.
    drop(stream);
    edge.stop().await;
}

/// Connects and asks without end, until it is told to stop; gives how often, and what went wrong.
async fn knock(at: SocketAddr, stop: tokio::sync::watch::Receiver<bool>) -> (usize, Vec<String>) {
    let (mut good, mut wrong) = (0, Vec::new());
    while !*stop.borrow() {
        let asked = async {
            let mut stream = TcpStream::connect(at).await?;
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
                .await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        match soon("an answer", asked).await {
            Ok(answer) if status(&answer) == 200 => good += 1,
            other => wrong.push(format!("{other:?}")),
        }
    }
    (good, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_edge_has_the_sockets_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, other) = (Origin::named("the shop").await, Origin::named("the other").await);
    let shared = Socket::bind("127.0.0.1:0").unwrap();
    let start = || Edge::on(&folder, shared.try_clone().unwrap(), Limits::default(), 2);
    let (http, bytes, datagrams) = (free(), free(), free());
    let idle = SignedDuration::from_secs(60);
    let mut first = table(1, &shop, &other);
    first.rules[0].own = own(&[
        (http, Speaks::Http),
        (bytes, Speaks::Tcp),
        (datagrams, Speaks::Udp { idle }),
    ]);
    let mut edge = start();
    edge.apply(&first).await;
    until("it listens", || async move {
        get(http, "shop.test").await.is_some() && get(bytes, "shop.test").await.is_some()
    })
    .await;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let knocking = [http, bytes].map(|at| tokio::spawn(knock(at, stopping.clone())));
    for _ in 0..3 {
        // What is open at the one before is finished by it.
        let mut open = TcpStream::connect(bytes).await.unwrap();
        open.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let ending = tokio::spawn(edge.stop());
        until("the one before has let go", || async {
            let door = folder.path().join("run/edge.sock");
            tokio::net::UnixStream::connect(door).await.is_err()
        })
        .await;
        // Nobody listens for a while, and nobody is to notice.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        edge = start();
        until("it has the sockets", || async {
            let seen = edge.client.sockets().await.unwrap_or_default();
            seen.len() == 3 && seen.iter().all(|seen| seen.problem.is_none())
        })
        .await;
        open.write_all(b"Host: shop.test\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        soon("an answer", open.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(body(&answer), "the shop");
        drop(open);
        ending.await.unwrap();
    }
    stop.send(true).unwrap();
    for knocking in knocking {
        let (good, wrong) = knocking.await.unwrap();
        assert!(good > 10 && wrong.is_empty(), "{good} good, and {wrong:?}");
    }
    edge.stop().await;
    assert!(
        get(http, "shop.test").await.is_none(),
        "with the last one they are closed"
    );
    assert!(!folder.path().join("run/edge.heir").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_cannot_be_bound_is_tried_again_while_the_others_serve() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, other) = (Origin::named("the shop").await, Origin::named("the other").await);
    let (taken, names) = (Socket::bind("127.0.0.1:0").unwrap(), free());
    let (at, held) = (taken.local_addr().unwrap(), Socket::bind(names).unwrap());
    let listeners = || vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())];
    let unbound = || edge::Unbound {
        address: at,
        speaks: edge::Speaks::Http,
        proxied: false,
    };
    let zone = edge::Zone::new(edge::ZoneWanted {
        apex: "zone.test",
        servers: &[],
        addresses: &["192.0.2.1".parse().unwrap()],
        contact: None,
        ttl: 60,
    });
    let edge = Edge::configured(&folder, listeners(), |config| {
        config.unbound.push(unbound());
        config.dns = Some(edge::Dns {
            zones: vec![zone.unwrap()],
            sockets: Vec::new(),
            unbound: vec![names],
            rate: 0,
        });
    });
    edge.apply(&table(1, &shop, &other)).await;
    assert_eq!(body(&edge.get("shop.test", "/").await), "the shop");
    let problems = || async {
        let seen = edge.client.sockets().await.unwrap();
        let shared = seen.into_iter().filter(|seen| seen.is_shared());
        let problems = shared.map(|seen| (seen.speaks, seen.address, seen.problem.is_some()));
        problems.collect::<Vec<_>>()
    };
    let (of_names, of_http) = ("dns".to_owned(), "http".to_owned());
    let wanted = [(of_names.clone(), names, true), (of_http.clone(), at, true)];
    until("both are known to be closed", || async {
        problems().await == wanted
    })
    .await;
    let why = edge.client.sockets().await.unwrap().remove(1).problem.unwrap();
    assert!(why.contains("in use"), "{why}");
    let metrics = edge.client.metrics().await.unwrap();
    assert!(metrics.contains("vend_edge_sockets_unbound 2\n"), "{metrics}");
    assert_eq!(edge.client.load().await.unwrap().totals.unbound, 2);
    drop((taken, held));
    let wanted = [(of_names, names, false), (of_http, at, false)];
    until("both are open", || async { problems().await == wanted }).await;
    for host in ["shop.test", "other.test"] {
        assert_eq!(status(&get(at, host).await.unwrap()), 200, "{host}");
    }
    assert!(TcpStream::connect(names).await.is_ok());
    assert_eq!(edge.client.load().await.unwrap().totals.unbound, 0);

    // It goes to the next edge open: whoever connects in between waits.
    let mut waits = TcpStream::connect(at).await.unwrap();
    let ask = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\n";
    waits.write_all(ask).await.unwrap();
    until("it is under way", || async {
        edge.client.load().await.unwrap().totals.open > 0
    })
    .await;
    let stopping = tokio::spawn(edge.stop());
    until("the old one is ending", || async {
        folder.path().join("run/edge.heir").exists()
    })
    .await;
    let next = Edge::configured(&folder, listeners(), |config| config.unbound.push(unbound()));
    until("the next one has it", || async {
        next.client
            .sockets()
            .await
            .is_ok_and(|seen| seen.iter().any(|seen| seen.problem.is_none()))
    })
    .await;
    assert_eq!(body(&get(at, "other.test").await.unwrap()), "the other");
    waits.write_all(b"body").await.unwrap();
    assert!(world::message(&mut waits).await.ends_with("the shop"));
    stopping.await.unwrap();
    next.stop().await;
}
