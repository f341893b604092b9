//! What sleeps is woken by whoever comes, and in whatever way: who can wait waits, and is served.

use std::net::{SocketAddr, TcpListener as Socket, UdpSocket as Datagram};

use edge::{Datagrams, Listener, Speaks};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::route::{HealthProtocol, Rule, Table, Target, TargetGroup};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use crate::world::{self, Edge, Origin, forward, rule, soon, until};

/// Hosts of one name each, all asleep until their group has a target.
fn table(version: u64, targets: &[(&str, Option<SocketAddr>)]) -> Table {
    let rule = |(priority, (name, _)): (u32, &(&str, Option<SocketAddr>))| Rule {
        place: format!("acme/{name}/dev").parse().unwrap(),
        ..rule(priority, &format!("{name}.test"), forward(&[(name, 1)]))
    };
    let group = |(name, address): &(&str, Option<SocketAddr>)| {
        let mut group = TargetGroup {
            waking: true,
            ..world::group(&[])
        };
        group.health.protocol = HealthProtocol::Tcp;
        group.targets.extend(address.map(|address| Target {
            id: format!("h-{}", address.port()),
            address,
        }));
        ((*name).to_owned(), group)
    };
    Table {
        version,
        rules: (1..).zip(targets).map(rule).collect(),
        target_groups: targets.iter().map(group).collect(),
    }
}

/// One for all that speaks HTTP, and one that passes bytes on.
fn listeners(http: Socket, bytes: Socket) -> Vec<Listener> {
    let speaks = Speaks::Tcp {
        host: "bytes.test".into(),
    };
    let bytes = Listener {
        socket: bytes,
        speaks,
        proxied: false,
    };
    vec![Listener::http(http), bytes]
}

/// It says again what it hears.
async fn echo() -> Origin {
    Origin::raw(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

async fn over_http2(edge: SocketAddr) -> String {
    let stream = TcpStream::connect(edge).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://web.test/").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    let body = answer.into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

async fn over_tcp(edge: SocketAddr) -> String {
    let mut stream = TcpStream::connect(edge).await.unwrap();
    stream.write_all(b"sent before anybody was there").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut echo = String::new();
    stream.read_to_string(&mut echo).await.unwrap();
    echo
}

/// Who sends datagrams sends again what was not answered.
async fn over_udp(edge: SocketAddr) -> String {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(edge).await.unwrap();
    let mut packet = [0; 100];
    loop {
        client.send(b"move").await.unwrap();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), client.recv(&mut packet));
        if let Ok(length) = waited.await {
            return String::from_utf8_lossy(&packet[..length.unwrap()]).into_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_http2_connections_and_datagrams_wake_their_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let bind = || Socket::bind("127.0.0.1:0").unwrap();
    let (http, bytes, game) = (bind(), bind(), Datagram::bind("127.0.0.1:0").unwrap());
    let (at_http, at_bytes) = (http.local_addr().unwrap(), bytes.local_addr().unwrap());
    let at_game = game.local_addr().unwrap();
    let edge = Edge::configured(&folder, listeners(http, bytes), |config| {
        config.datagrams = vec![Datagrams::new(game, "game.test")];
    });
    edge.apply(&table(1, &[("web", None), ("bytes", None), ("game", None)]))
        .await;
    let web = tokio::spawn(over_http2(at_http));
    let stream = tokio::spawn(over_tcp(at_bytes));
    let datagrams = tokio::spawn(over_udp(at_game));
    until("all three are wanted", || async {
        edge.client.wanted().await.unwrap() == ["acme/bytes/dev", "acme/game/dev", "acme/web/dev"]
    })
    .await;
    assert!(!web.is_finished() && !stream.is_finished() && !datagrams.is_finished());

    let page = Origin::named("awake").await;
    let echo = echo().await;
    let health = Origin::named("game").await;
    let player = UdpSocket::bind(health.address).await.unwrap();
    let playing = tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((length, from)) = player.recv_from(&mut packet).await {
            let _ = player.send_to(&packet[..length], from).await;
        }
    });
    let awake = [
        ("web", Some(page.address)),
        ("bytes", Some(echo.address)),
        ("game", Some(health.address)),
    ];
    edge.apply(&table(2, &awake)).await;
    assert_eq!(soon("an answer", web).await.unwrap(), "awake");
    assert_eq!(
        soon("an echo", stream).await.unwrap(),
        "sent before anybody was there"
    );
    assert_eq!(soon("a datagram", datagrams).await.unwrap(), "move");
    playing.abort();
    edge.stop().await;
}

/// A release comes to what sleeps: its hosts get nothing yet, and the live one's wake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_beside_a_release_that_comes_keeps_nobody_from_being_answered() {
    let folder = tempfile::tempdir().unwrap();
    let bind = || Socket::bind("127.0.0.1:0").unwrap();
    let (http, bytes) = (bind(), bind());
    let (at_http, at_bytes) = (http.local_addr().unwrap(), bytes.local_addr().unwrap());
    let edge = Edge::configured(&folder, listeners(http, bytes), |_| ());
    let page = Origin::named("awake").await;
    let echo = echo().await;
    let beside = |version, targets: &[(&str, Option<SocketAddr>)]| {
        let mut table = table(version, targets);
        for rule in &mut table.rules[..2] {
            let name = rule.hosts[0].trim_end_matches(".test");
            rule.action = forward(&[(name, 100), ("coming", 0)]);
        }
        let coming = world::group(&[page.address]);
        table.target_groups.insert("coming".into(), coming);
        table
    };
    let other = ("other", Some(page.address));
    edge.apply(&beside(1, &[("web", None), ("bytes", None), other]))
        .await;
    let visitors: Vec<_> = (0..8).map(|_| tokio::spawn(over_http2(at_http))).collect();
    let stream = tokio::spawn(over_tcp(at_bytes));
    until("both are wanted", || async {
        edge.client.wanted().await.unwrap() == ["acme/bytes/dev", "acme/web/dev"]
    })
    .await;
    for _ in 0..8 {
        assert!(edge.get("other.test", "/").await.ends_with("awake"));
    }
    let awake = [("web", Some(page.address)), ("bytes", Some(echo.address)), other];
    edge.apply(&beside(2, &awake)).await;
    for visitor in visitors {
        assert_eq!(soon("an answer", visitor).await.unwrap(), "awake");
    }
    assert_eq!(
        soon("an echo", stream).await.unwrap(),
        "sent before anybody was there"
    );
    edge.stop().await;
}
