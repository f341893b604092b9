//! Targets that are elsewhere: reached by name, over TLS, by weight beside those that are here.

use std::{
    net::{SocketAddr, TcpListener as Socket},
    sync::{Arc, Mutex},
};

use camino::{Utf8Path, Utf8PathBuf};
use edge::{Limits, Listener};
use model::route::{Table, Target, TargetGroup};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::world::{self, Edge, Origin, body, field, forward, group, rule, soon, status, until};

/// A load balancer elsewhere, with a certificate for one name. It says `away`, and remembers heads.
struct Elsewhere {
    address: SocketAddr,
    roots: Utf8PathBuf,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Elsewhere {
    async fn start(folder: &tempfile::TempDir, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let roots = Utf8Path::from_path(folder.path()).unwrap().join("roots.pem");
        std::fs::write(&roots, certificate.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inbox = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, inbox) = (acceptor.clone(), Arc::clone(&inbox));
                tokio::spawn(async move {
                    // Who does not trust the certificate goes away.
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while let Ok(1) = stream.read(&mut byte).await {
                        head.push(byte[0]);
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                        if !text.contains("vend-health") {
                            inbox.lock().unwrap().push(text);
                        }
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\naway";
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        Self { address, roots, seen }
    }

    fn group(&self) -> TargetGroup {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], self.address.port()));
        TargetGroup {
            targets: vec![Target {
                id: "aws".into(),
                address: nowhere,
            }],
            away: Some("localhost".into()),
            ..group(&[])
        }
    }
}

fn edge(folder: &tempfile::TempDir, elsewhere: &Elsewhere) -> Edge {
    let listeners = vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())];
    Edge::configured(folder, listeners, |config| {
        config.limits = Limits::default();
        config.roots = Some(elsewhere.roots.clone());
    })
}

/// `shop.test` to what is here and what is elsewhere, by weight.
fn table(version: u64, here: SocketAddr, away: TargetGroup, weights: [u32; 2]) -> Table {
    let action = forward(&[("here", weights[0]), ("away", weights[1])]);
    let groups = [("here".to_owned(), group(&[here])), ("away".to_owned(), away)];
    Table {
        version,
        rules: vec![rule(1, "shop.test", action)],
        target_groups: groups.into(),
    }
}

async fn answers(edge: &Edge, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        let answer = edge.get("shop.test", "/cart?x=1").await;
        assert_eq!(status(&answer), 200, "{answer}");
        all.push(body(&answer).to_owned());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_goes_elsewhere_under_the_name_that_it_has_there() {
    let folder = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (
        Origin::named("here").await,
        Elsewhere::start(&folder, "localhost").await,
    );
    let edge = edge(&folder, &elsewhere);
    edge.apply(&table(1, here.address, elsewhere.group(), [100, 0]))
        .await;
    assert_eq!(answers(&edge, 10).await, ["here"; 10]);
    edge.apply(&table(2, here.address, elsewhere.group(), [50, 50]))
        .await;
    let mixed = answers(&edge, 100).await;
    assert!(mixed.iter().any(|body| body == "here") && mixed.iter().any(|body| body == "away"));
    edge.apply(&table(3, here.address, elsewhere.group(), [0, 100]))
        .await;
    assert_eq!(answers(&edge, 10).await, ["away"; 10]);
    for head in elsewhere.seen.lock().unwrap().iter() {
        assert_eq!(field(head, "host"), Some("localhost"), "{head}");
        assert!(head.starts_with("GET /cart?x=1 HTTP/1.1\r\n"), "{head}");
    }
    for head in here.seen.lock().unwrap().iter() {
        assert_eq!(field(head, "host"), Some("shop.test"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_asked_how_it_is_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (
        Origin::named("here").await,
        Elsewhere::start(&folder, "localhost").await,
    );
    let edge = edge(&folder, &elsewhere);
    edge.apply(&table(1, here.address, elsewhere.group(), [1, 0]))
        .await;
    until("it is healthy", || async {
        let seen = edge.client.health().await.unwrap();
        let found = seen.iter().find(|seen| seen.target.id == "aws");
        found.is_some_and(|seen| seen.state == model::route::TargetState::Healthy)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_spoken_to_who_cannot_show_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (
        Origin::named("here").await,
        Elsewhere::start(&folder, "other.test").await,
    );
    let edge = edge(&folder, &elsewhere);
    edge.apply(&table(1, here.address, elsewhere.group(), [0, 100]))
        .await;
    let answer = edge.get("shop.test", "/").await;
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(elsewhere.seen.lock().unwrap().is_empty());
}

/// A request that met nobody elsewhere goes to what is here, under its own name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_back_has_its_own_host() {
    let folder = tempfile::tempdir().unwrap();
    let here = Origin::named("here").await;
    let elsewhere = Elsewhere::start(&folder, "localhost").await;
    let edge = edge(&folder, &elsewhere);
    let mut away = elsewhere.group();
    away.targets[0].address.set_port(world::refusing().port());
    edge.apply(&table(1, here.address, away, [1, 1])).await;
    soon("some come back", async {
        // By chance, every second one is sent there first, and every second one of those comes back.
        while here.seen.lock().unwrap().len() < 40 {
            edge.get("shop.test", "/").await;
        }
    })
    .await;
    for head in here.seen.lock().unwrap().iter() {
        assert_eq!(field(head, "host"), Some("shop.test"), "{head}");
    }
}
