//! Listeners of bytes, and connections that come through other proxies.

use std::{net::TcpListener as Socket, time::Duration};

use camino::Utf8Path;
use edge::{Limits, Listener, Speaks, Tls, Version};
use model::route::{Access, ProxyWord};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::world::{self, Edge, Origin, body, message, shop, soon, status, until, wire};

fn listener(speaks: Speaks, proxied: bool) -> Listener {
    Listener {
        socket: Socket::bind("127.0.0.1:0").unwrap(),
        speaks,
        proxied,
    }
}

/// Says its name, then repeats what it hears.
async fn echo(name: &'static str) -> Origin {
    Origin::raw(move |mut stream| async move {
        let _ = stream.write_all(name.as_bytes()).await;
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

async fn exchange(edge: &Edge, bytes: &[u8]) -> Vec<u8> {
    exchange_from("127.0.0.1:0", edge, bytes).await
}

async fn exchange_from(source: &str, edge: &Edge, bytes: &[u8]) -> Vec<u8> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(source.parse().unwrap()).unwrap();
    let mut stream = socket.connect(edge.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_to_the_group_of_one_host() {
    let folder = tempfile::tempdir().unwrap();
    let origin = echo("hello ").await;
    let speaks = Speaks::Tcp {
        host: "shop.test".into(),
    };
    let edge = Edge::listening(&folder, vec![listener(speaks, false)], Limits::default(), 1);
    let mut table = shop(1, &[world::refusing(), origin.address]);
    edge.apply(&table).await;
    let large = vec![b'x'; 300_000];
    for _ in 0..4 {
        let answer = exchange(&edge, &large).await;
        assert_eq!(answer.len(), large.len() + 6, "refused targets are passed over");
        assert!(answer.starts_with(b"hello xxx"));
    }
    for (version, word) in [
        (ProxyWord::V1, &b"hello PROXY TCP4 127.0.0.1 "[..]),
        (ProxyWord::V2, b"hello \r\n\r\n\0\r\nQUIT\n!\x11"),
    ] {
        table.version += 1;
        table.target_groups.get_mut("shop").unwrap().proxy = Some(version);
        edge.apply(&table).await;
        assert!(exchange(&edge, b"x").await.starts_with(word), "{version:?}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_bytes_count_at_their_rule_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let origin = echo("hello ").await;
    let speaks = Speaks::Tcp {
        host: "shop.test".into(),
    };
    let edge = Edge::listening(&folder, vec![listener(speaks, false)], Limits::default(), 1);
    let mut table = shop(1, &[origin.address]);
    edge.apply(&table).await;
    let numbers = async |lines: &[&str]| {
        until("it is counted", || async {
            let text = edge.client.metrics().await.unwrap();
            lines.iter().all(|line| text.contains(&format!("{line}\n")))
        })
        .await;
    };
    assert_eq!(exchange(&edge, b"you").await, b"hello you");
    numbers(&[
        r#"vend_edge_rule_requests_total{rule="1",place="acme/shop/dev",host="shop.test"} 1"#,
        r#"vend_edge_rule_responses_total{rule="1",place="acme/shop/dev",class="2xx"} 1"#,
        r#"vend_edge_rule_sent_bytes_total{rule="1",place="acme/shop/dev"} 9"#,
        r#"vend_edge_sent_bytes_total{group="shop"} 9"#,
        "vend_edge_passed_bytes_total 12",
    ])
    .await;

    // Who is kept out gets not a byte, and no target hears of it.
    let who = |allow: &[&str], deny: &[&str]| {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        vec![Access {
            allow: networks(allow),
            deny: networks(deny),
        }]
    };
    for (before, access) in [
        (1, who(&[], &["127.0.0.2/32"])),
        (2, who(&["127.0.0.1/32", "192.0.2.0/24"], &[])),
    ] {
        table.version += 1;
        table.rules[0].access = access;
        edge.apply(&table).await;
        let access = &table.rules[0].access;
        assert_eq!(exchange(&edge, b"you").await, b"hello you", "{access:?}");
        assert_eq!(
            exchange_from("127.0.0.2:0", &edge, b"you").await,
            b"",
            "{access:?}"
        );
        // It is the same rule, whomever it lets in.
        let (class, let_in) = (
            "vend_edge_rule_responses_total{rule=\"1\",place=\"acme/shop/dev\",class",
            before + 1,
        );
        numbers(&[
            &format!("vend_edge_rule_requests_total{{rule=\"1\",place=\"acme/shop/dev\",host=\"shop.test\"}} {let_in}"),
            &format!("{class}=\"2xx\"}} {let_in}"),
            &format!("{class}=\"4xx\"}} {before}"),
        ])
        .await;
    }

    // No target is a failure of the group; no rule is nobody's.
    table.version += 1;
    table.target_groups = shop(1, &[world::refusing()]).target_groups;
    edge.apply(&table).await;
    assert_eq!(exchange(&edge, b"you").await, b"");
    numbers(&[
        r#"vend_edge_failures_total{group="shop"} 1"#,
        r#"vend_edge_rule_responses_total{rule="1",place="acme/shop/dev",class="5xx"} 1"#,
        "vend_edge_unmatched_total 0",
    ])
    .await;
    table.version += 1;
    table.rules[0].hosts = vec!["other.test".into()];
    edge.apply(&table).await;
    assert_eq!(exchange(&edge, b"you").await, b"");
    numbers(&["vend_edge_unmatched_total 1"]).await;
    edge.stop().await;
}

/// The first message of a TLS client that names this host.
fn client_hello(host: &str) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_passes_by_the_name_that_the_client_gives() {
    let folder = tempfile::tempdir().unwrap();
    let origin = echo("").await;
    let edge = Edge::listening(&folder, vec![listener(Speaks::Sni, false)], Limits::default(), 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let hello = client_hello("shop.test");
    assert_eq!(exchange(&edge, &hello).await, hello, "not a byte is changed");
    assert_eq!(exchange(&edge, &client_hello("other.test")).await, b"");
    assert_eq!(exchange(&edge, b"GET / HTTP/1.1\r\n\r\n").await, b"");
    // It may come in pieces.
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    for piece in hello.chunks(100) {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut back = vec![0; hello.len()];
    soon("all of it", stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, hello);
    drop(stream);
    edge.stop().await;
}

/// The word of a proxy in either version: from 203.0.113.9, port 4000, to 198.51.100.1, port 8443.
fn words() -> [Vec<u8>; 2] {
    let first = b"PROXY TCP4 203.0.113.9 198.51.100.1 4000 8443\r\n".to_vec();
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    second.extend([203, 0, 113, 9, 198, 51, 100, 1]);
    second.extend([4000_u16.to_be_bytes(), 8443_u16.to_be_bytes()].concat());
    [first, second]
}

/// What one proxy said goes on to the target in the other version, in front of bytes that nobody changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_passes_takes_the_word_of_a_proxy_along() {
    let folder = tempfile::tempdir().unwrap();
    let origin = echo("").await;
    let edge = Edge::listening(&folder, vec![listener(Speaks::Sni, true)], Limits::default(), 1);
    let mut table = shop(1, &[origin.address]);
    let hello = client_hello("shop.test");
    let [first, second] = words();
    for (word, said, goes_on) in [(ProxyWord::V1, &second, &first), (ProxyWord::V2, &first, &second)] {
        table.version += 1;
        table.target_groups.get_mut("shop").unwrap().proxy = Some(word);
        edge.apply(&table).await;
        let echoed = exchange(&edge, &[&said[..], &hello].concat()).await;
        assert_eq!(echoed, [&goes_on[..], &hello].concat(), "{word:?}");
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_word_of_a_proxy_is_believed_and_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let edge = Edge::listening(&folder, vec![listener(Speaks::Http, true)], Limits::default(), 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answer = edge
        .raw(format!(
            "PROXY TCP4 203.0.113.9 198.51.100.1 4000 8443\r\n{request}"
        ))
        .await;
    assert_eq!((status(&answer), body(&answer)), (200, "origin"));
    let seen = origin.requests().remove(0);
    assert!(seen.contains("X-Forwarded-For: 203.0.113.9\r\n"), "{seen}");
    assert!(seen.contains("X-Forwarded-Port: 8443\r\n"), "{seen}");
    assert_eq!(edge.raw(request).await, "", "who says nothing is not heard");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_word_of_a_proxy_comes_before_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Utf8Path::from_path(folder.path()).unwrap().join("certificates");
    let connector = wire::certificate(&certificates, &["shop.test"]);
    let speaks = Speaks::Https(Box::new(Tls {
        certificates,
        minimum: Version::Tls12,
        ciphers: Vec::new(),
        clients: None,
    }));
    let origin = Origin::named("origin").await;
    let edge = Edge::listening(&folder, vec![listener(speaks, true)], Limits::default(), 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let connect = async |word: &[u8]| {
        let mut stream = edge.connect().await;
        stream.write_all(word).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("shop.test").unwrap();
        soon("a handshake", connector.connect(name, stream)).await
    };
    for word in words() {
        let mut stream = connect(&word).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        assert_eq!((status(&answer), body(&answer)), (200, "origin"));
        let seen = origin.requests().pop().unwrap();
        for line in ["For: 203.0.113.9", "Port: 8443", "Proto: https"] {
            assert!(seen.contains(&format!("X-Forwarded-{line}\r\n")), "{seen}");
        }
    }
    assert!(connect(b"").await.is_err(), "who says nothing is not heard");
    assert_eq!(origin.requests().len(), 2);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_pass_come_after_the_word_of_a_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let origin = echo("").await;
    let speaks = Speaks::Tcp {
        host: "shop.test".into(),
    };
    let edge = Edge::listening(&folder, vec![listener(speaks, true)], Limits::default(), 1);
    let mut table = shop(1, &[origin.address]);
    let [first, second] = words();
    for (goes_on, said) in [
        (None, &b""[..]),
        (Some(ProxyWord::V1), &first),
        (Some(ProxyWord::V2), &second),
    ] {
        table.version += 1;
        table.target_groups.get_mut("shop").unwrap().proxy = goes_on;
        edge.apply(&table).await;
        for word in [&first, &second] {
            let echoed = exchange(&edge, &[&word[..], b"bytes"].concat()).await;
            assert_eq!(echoed, [said, b"bytes"].concat(), "{goes_on:?}");
        }
        assert_eq!(exchange(&edge, b"bytes without a word").await, b"");
    }
    edge.stop().await;
}

/// Whoever begins what never ends holds a connection no longer than one whose request never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_a_request_has_its_time_too() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Utf8Path::from_path(folder.path()).unwrap().join("certificates");
    drop(wire::certificate(&certificates, &["shop.test"]));
    let tls = Speaks::Https(Box::new(Tls {
        certificates,
        minimum: Version::Tls12,
        ciphers: Vec::new(),
        clients: None,
    }));
    let listeners = vec![
        listener(tls, false),
        listener(Speaks::Http, true),
        listener(Speaks::Sni, false),
    ];
    let at: Vec<_> = listeners
        .iter()
        .map(|own| own.socket.local_addr().unwrap())
        .collect();
    let limits = Limits {
        head_time: Duration::from_millis(400),
        ..Limits::default()
    };
    let edge = Edge::listening(&folder, listeners, limits, 1);
    // Each says that more comes than does: a record of TLS, and what a proxy has to say.
    let (record, word) = (b"\x16\x03\x01\x20\x00", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x07\x00");
    let begun = [
        ("a handshake", &record[..]),
        ("the word of a proxy", word),
        ("a handshake that passes", record),
    ];
    for (at, (name, begun)) in at.into_iter().zip(begun) {
        let (mut reader, mut writer) = TcpStream::connect(at).await.unwrap().into_split();
        writer.write_all(begun).await.unwrap();
        let dripping = tokio::spawn(async move {
            while writer.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        // What it wrote last may reset the connection.
        let _ = soon(name, reader.read_to_end(&mut Vec::new())).await;
        drop(reader);
        soon(name, dripping).await.unwrap();
    }
    let metrics = edge.client.metrics().await.unwrap();
    assert!(
        metrics.contains("vend_edge_handshakes_failed_total{reason=\"timeout\"} 2\n"),
        "{metrics}"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_by_whom_the_proxy_names() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::named("origin").await;
    let limits = Limits {
        source_connections: 1,
        ..Limits::default()
    };
    let edge = Edge::listening(&folder, vec![listener(Speaks::Http, true)], limits, 1);
    edge.apply(&shop(1, &[origin.address])).await;
    let of = |source: u8| {
        format!(
            "PROXY TCP4 203.0.113.{source} 198.51.100.1 4000 8443\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
        )
    };
    let mut open = Vec::new();
    for source in [1, 2] {
        let mut stream = edge.connect().await;
        stream.write_all(of(source).as_bytes()).await.unwrap();
        assert_eq!(status(&message(&mut stream).await), 200, "{source}");
        open.push(stream);
    }
    assert_eq!(status(&edge.raw(of(1)).await), 429, "it has one");
    drop(open);
    until("there is room again", || async {
        let request = of(1).replace("Host", "Connection: close\r\nHost");
        status(&edge.raw(request).await) == 200
    })
    .await;
    edge.stop().await;
}
