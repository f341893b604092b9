//! Connections of every kind that are open while everything changes: streams of HTTP/2, with and without TLS, WebSockets,
//! and bytes. `open` has ten thousand of HTTP/1.1.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{SocketAddr, TcpListener as Socket},
    pin::Pin,
    task::{Context, Poll},
};

use camino::Utf8Path;
use edge::{Limits, Listener, Speaks, Tls, Version};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::route::{Delta, Table, TargetState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
};

use crate::world::{
    Edge, Origin, forward, group, read_head, rule, soon, until,
    wire::{Wire, certificate, connect, in_force},
};

/// Connections of HTTP/2, requests of each, and how many of them are in the middle when things change.
const CONNECTIONS: usize = 40;
const STREAMS: usize = 25;
const BUSY: usize = 5;
/// WebSockets, and as many connections of bytes. Every other connection of HTTP/2 and WebSocket speaks TLS.
const TUNNELS: usize = 60;
const ROUTES: u32 = 100;

/// Web, WebSocket, bytes.
const HOSTS: [&str; 3] = ["web.test", "socket.test", "bytes.test"];

type Body = BoxBody<Bytes, Infallible>;

/// A body that comes in parts.
struct Parts(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// Names itself for each byte that comes, after the word that opens a WebSocket where that is asked for.
async fn tunnel(name: &'static str, opens: bool) -> Origin {
    Origin::raw(move |mut stream| async move {
        if opens {
            let head = read_head(&mut stream).await.unwrap_or_default();
            let answer: &[u8] = match head.contains("vend-health") {
                true => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                false => {
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                }
            };
            let _ = stream.write_all(answer).await;
        }
        while stream.read_exact(&mut [0]).await.is_ok() {
            let _ = stream.write_all(name.as_bytes()).await;
        }
    })
    .await
}

async fn targets(name: &'static str) -> [Origin; 3] {
    [
        Origin::named(name).await,
        tunnel(name, true).await,
        tunnel(name, false).await,
    ]
}

fn table(version: u64, targets: &[Origin; 3]) -> Table {
    let rules = (1..)
        .zip(HOSTS)
        .map(|(n, host)| rule(n, host, forward(&[(host, 1)])));
    let mut groups: BTreeMap<_, _> = HOSTS
        .iter()
        .zip(targets)
        .map(|(host, origin)| ((*host).to_owned(), group(&[origin.address])))
        .collect();
    groups.get_mut("bytes.test").unwrap().health.protocol = model::route::HealthProtocol::Tcp;
    Table {
        version,
        rules: rules.collect(),
        target_groups: groups,
    }
}

/// A request under way.
type Asked = JoinHandle<hyper::Result<Response<Incoming>>>;

/// A connection of HTTP/2, with the requests that are in the middle.
struct Web {
    sender: SendRequest<Body>,
    busy: Vec<(mpsc::Sender<Bytes>, Asked)>,
}

async fn text(answer: hyper::Result<Response<Incoming>>) -> String {
    let body = soon("a body", answer.unwrap().into_body().collect())
        .await
        .unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

impl Web {
    async fn open(wire: Box<dyn Wire>) -> Self {
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(wire)).await.unwrap();
        tokio::spawn(connection);
        let mut web = Self {
            sender,
            busy: Vec::new(),
        };
        for _ in 0..BUSY {
            let (parts, body) = mpsc::channel(1);
            let request = Request::post("http://web.test/").header("content-length", 8);
            let request = request.body(Parts(body).boxed()).unwrap();
            parts.send("four".into()).await.unwrap();
            web.busy
                .push((parts, tokio::spawn(web.sender.send_request(request))));
        }
        web
    }

    /// Asks on all free streams at once.
    async fn ask(&self, expected: &str) {
        let asked = (BUSY..STREAMS).map(|_| {
            let mut sender = self.sender.clone();
            let request = Request::get("http://web.test/")
                .body(Empty::new().boxed())
                .unwrap();
            tokio::spawn(async move { text(sender.send_request(request).await).await })
        });
        for answer in asked.collect::<Vec<_>>() {
            assert_eq!(soon("an answer", answer).await.unwrap(), expected);
        }
    }

    async fn finish(self, expected: &str) {
        for (parts, asked) in self.busy {
            parts.send("more".into()).await.unwrap();
            drop(parts);
            let answer = soon("an answer", asked).await.unwrap();
            assert_eq!(text(answer).await, expected);
        }
    }
}

async fn says(wire: &mut Box<dyn Wire>, expected: &str) {
    wire.write_all(b"x").await.unwrap();
    let mut answer = vec![0; expected.len()];
    soon("bytes", wire.read_exact(&mut answer)).await.unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
}

async fn socket(mut wire: Box<dyn Wire>) -> Box<dyn Wire> {
    let hello = "GET / HTTP/1.1\r\nHost: socket.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    wire.write_all(hello.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", wire.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    wire
}

/// Routes, the certificate, and then the table as a whole, with other targets.
async fn change_everything(edge: &Edge, (certificates, secure): (&Utf8Path, SocketAddr), new: &[Origin; 3]) {
    for n in 0..ROUTES {
        let delta = Delta {
            from: Some(u64::from(n) + 1),
            version: u64::from(n) + 2,
            rules: vec![rule(n + 10, &format!("h{n}.test"), forward(&[("web.test", 1)]))],
            ..Delta::default()
        };
        edge.client.change(&delta).await.unwrap();
    }
    let newest = certificate(certificates, &HOSTS);
    in_force(secure, HOSTS[0], &newest).await;
    edge.client
        .apply(&table(u64::from(ROUTES) + 2, new))
        .await
        .unwrap();
    until("the new ones are healthy", || async {
        let health = edge.client.health().await.unwrap();
        let healthy = health.iter().filter(|seen| seen.state == TargetState::Healthy);
        healthy.count() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_every_kind_stay_while_everything_changes() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Utf8Path::from_path(folder.path()).unwrap().join("certificates");
    let trusting = certificate(&certificates, &HOSTS);
    let listen = |speaks| Listener {
        socket: Socket::bind("127.0.0.1:0").unwrap(),
        speaks,
        proxied: false,
    };
    let tls = Tls {
        certificates: certificates.clone(),
        minimum: Version::default(),
        ciphers: Vec::new(),
        clients: None,
    };
    let host = "bytes.test".to_owned();
    let listeners = vec![
        listen(Speaks::Http),
        listen(Speaks::Https(Box::new(tls))),
        listen(Speaks::Tcp { host }),
    ];
    let at: Vec<_> = listeners.iter().map(|l| l.socket.local_addr().unwrap()).collect();
    let edge = Edge::listening(&folder, listeners, Limits::default(), 2);
    let (old, new) = (targets("old").await, targets("new").await);
    edge.apply(&table(1, &old)).await;

    let secure = |n: usize| (n % 2 == 1).then_some(&trusting);
    let mut webs = Vec::new();
    for n in 0..CONNECTIONS {
        let wire = soon("a handshake", connect(at[n % 2], "web.test", secure(n))).await;
        webs.push(Web::open(wire).await);
        webs[n].ask("old").await;
    }
    let mut tunnels = Vec::new();
    for n in 0..TUNNELS {
        tunnels.push(socket(soon("a handshake", connect(at[n % 2], "socket.test", secure(n))).await).await);
        tunnels.push(soon("a handshake", connect(at[2], "bytes.test", None)).await);
    }
    for wire in &mut tunnels {
        says(wire, "old").await;
    }
    let open = CONNECTIONS + 2 * TUNNELS;
    let metrics = edge.client.metrics().await.unwrap();
    assert!(
        metrics.contains(&format!("vend_edge_connections_open {open}\n")),
        "{metrics}"
    );

    change_everything(&edge, (&certificates, at[1]), &new).await;

    for web in webs {
        web.ask("new").await;
        web.finish("old").await;
    }
    for wire in &mut tunnels {
        says(wire, "old").await;
    }
    drop(tunnels);
    edge.stop().await;
}
