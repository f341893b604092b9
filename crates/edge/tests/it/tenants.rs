//! What one tenant has open, of every kind together: others find room, whatever it is.

use std::net::{TcpListener as Socket, UdpSocket as Datagram};

use edge::{Datagrams, Limits, Listener, Speaks};
use model::route::{Rule, Table};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::world::{Edge, Origin, field, forward, group, read_head, rule, soon, status, until};

/// Changes to another protocol, says hello in it, and repeats what it hears.
async fn talker() -> Origin {
    Origin::raw(|mut stream| async move {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        let answer = match head.contains("Upgrade: websocket") {
            true => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            false => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        };
        let _ = stream.write_all(answer.as_bytes()).await;
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

/// Repeats bytes.
async fn repeater() -> Origin {
    Origin::raw(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

/// Repeats datagrams.
async fn echo() -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let _ = socket.send_to(&packet[..length], from).await;
        }
    });
    address
}

/// A connection of bytes, when it is let in.
async fn bytes(at: std::net::SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut back = [0];
    let read = soon("an end", stream.read(&mut back)).await;
    read.is_ok_and(|length| length == 1).then_some(stream)
}

/// Asks for a WebSocket; the status of the answer.
async fn upgrade(stream: &mut TcpStream) -> u16 {
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    status(&soon("an upgrade", read_head(stream)).await.unwrap())
}

/// Those of one tenant, but for the host of another.
fn rules() -> Vec<Rule> {
    let mut other = rule(4, "other.test", forward(&[("http", 1)]));
    other.place = "other/shop/dev".parse().unwrap();
    vec![
        rule(1, "shop.test", forward(&[("http", 1)])),
        rule(2, "bytes.test", forward(&[("bytes", 1)])),
        rule(3, "game.test", forward(&[("game", 1)])),
        other,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_its_share_of_all_that_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let (http, raw, game) = (talker().await, repeater().await, echo().await);
    let listen = || Socket::bind("127.0.0.1:0").unwrap();
    let speaks = Speaks::Tcp {
        host: "bytes.test".into(),
    };
    let passing = Listener {
        socket: listen(),
        speaks,
        proxied: false,
    };
    let (through, socket) = (
        passing.socket.local_addr().unwrap(),
        Datagram::bind("127.0.0.1:0").unwrap(),
    );
    let at = socket.local_addr().unwrap();
    let edge = Edge::configured(&folder, vec![Listener::http(listen()), passing], |config| {
        config.limits = Limits {
            tenant_connections: 2,
            ..Limits::default()
        };
        config.datagrams = vec![Datagrams::new(socket, "game.test")];
    });
    let groups = [("http", http.address), ("bytes", raw.address), ("game", game)];
    edge.apply(&Table {
        version: 1,
        rules: rules(),
        target_groups: groups
            .map(|(name, address)| (name.to_owned(), group(&[address])))
            .into(),
    })
    .await;
    let says = |line: &'static str| {
        let client = edge.client.clone();
        async move { client.metrics().await.unwrap().contains(line) }
    };

    // A WebSocket and a connection of bytes are all that it may have.
    let mut upgraded = edge.connect().await;
    assert_eq!(upgrade(&mut upgraded).await, 101);
    let passing = bytes(through).await.expect("there is room for two");
    let refused = edge.get("shop.test", "/").await;
    assert_eq!(
        (status(&refused), field(&refused, "retry-after")),
        (429, Some("1"))
    );
    assert!(bytes(through).await.is_none(), "bytes are closed");
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(at).await.unwrap();
    client.send(b"lost").await.unwrap();
    until("a datagram is dropped", || {
        says("vend_edge_datagram_refused_total 1\n")
    })
    .await;
    assert!(says("vend_edge_limited_total 3\n").await);
    let counted = "vend_edge_rule_responses_total{rule=\"2\",place=\"acme/shop/dev\",class=\"4xx\"} 1\n";
    assert!(says(counted).await);
    assert_eq!(status(&edge.get("other.test", "/").await), 200, "another tenant");

    // The place of the WebSocket is free when it has ended, and a flow takes it.
    drop(upgraded);
    until("there is room", || async {
        status(&edge.get("shop.test", "/").await) == 200
    })
    .await;
    client.send(b"heard").await.unwrap();
    let mut packet = [0; 100];
    let length = soon("an answer", client.recv(&mut packet)).await.unwrap();
    assert_eq!(&packet[..length], b"heard");
    assert_eq!(status(&edge.get("shop.test", "/").await), 429);
    drop(passing);
    until("there is room again", || async {
        status(&edge.get("shop.test", "/").await) == 200
    })
    .await;
    edge.stop().await;
}

/// Its rule and its group may change or go while a WebSocket is open: whoever counts it as open counts its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_ends_where_it_is_counted_whatever_became_of_its_rule() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (talker().await, talker().await);
    let limits = Limits {
        tenant_connections: 1,
        ..Limits::default()
    };
    let edge = Edge::with(&folder, limits, 1);
    // The same rule with its group as it was, with one target more, to another group, and away.
    type Next = fn(&mut Table);
    let changes: [(Next, bool, bool); 4] = [
        (|_| (), true, true),
        (
            |table| {
                let more = table.target_groups["two"].targets[0].clone();
                table.target_groups.get_mut("one").unwrap().targets.push(more);
            },
            true,
            true,
        ),
        (|table| table.rules[0].action = forward(&[("two", 1)]), true, true),
        (
            |table| {
                table.rules.clear();
                table.target_groups.remove("one");
            },
            false,
            false,
        ),
    ];
    for (version, (change, same_rule, same_group)) in (1..).step_by(2).zip(changes) {
        let mut table = Table {
            version,
            rules: vec![rule(
                u32::try_from(version).unwrap(),
                "shop.test",
                forward(&[("one", 1)]),
            )],
            target_groups: [("one", one.address), ("two", two.address)]
                .map(|(name, address)| (name.to_owned(), group(&[address])))
                .into(),
        };
        edge.apply(&table).await;
        let mut stream = edge.connect().await;
        assert_eq!(upgrade(&mut stream).await, 101);
        let open = async |name: &str| {
            let stats = edge.client.stats().await.unwrap();
            stats
                .iter()
                .find(|stats| stats.group == name)
                .map(|stats| stats.active)
        };
        until("it is counted", || async { open("one").await == Some(1) }).await;
        table.version += 1;
        change(&mut table);
        edge.apply(&table).await;
        assert_eq!(open("one").await, same_group.then_some(1), "{version}");
        stream.write_all(b"still here").await.unwrap();
        let mut echo = [0; 10];
        soon("it goes on", stream.read_exact(&mut echo)).await.unwrap();
        drop(stream);
        until("nothing is open", || async {
            let health = edge.client.health().await.unwrap();
            let groups = edge.client.stats().await.unwrap();
            health.iter().all(|target| target.active == 0) && groups.iter().all(|group| group.active == 0)
        })
        .await;
        // What it was answered is counted at its end, by its rule if that is still there.
        let ended =
            format!("rule_responses_total{{rule=\"{version}\",place=\"acme/shop/dev\",class=\"1xx\"}} 1\n");
        let metrics = edge.client.metrics().await.unwrap();
        assert_eq!(metrics.contains(&ended), same_rule, "{version}: {metrics}");
        // Its place among those of its tenant is free.
        let asked = edge.get("shop.test", "/").await;
        let expected = if table.rules.is_empty() { 503 } else { 200 };
        assert_eq!(status(&asked), expected, "{asked}");
    }
    edge.stop().await;
}
