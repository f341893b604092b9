//! Requests without TLS, where TLS is to be had.

use std::net::{SocketAddr, TcpListener as Socket};

use camino::Utf8Path;
use edge::{Explanation, Listener, Question, Speaks, Tls, Version};
use model::route::{Listens, Own, Table};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::world::{
    Edge, Origin, body, field, forward, group, rule, soon, status, until,
    wire::{certificate, connect},
};

/// Two names with a certificate, the second asleep, and one without. The first has a port of its own.
fn table(origin: &Origin, own: SocketAddr) -> Table {
    let mut rules = vec![
        rule(1, "shop.test", forward(&[("shop", 1)])),
        rule(2, "asleep.test", forward(&[("asleep", 1)])),
        rule(3, "bare.test", forward(&[("shop", 1)])),
    ];
    rules[0].own = Own {
        listeners: vec![Listens {
            address: own,
            speaks: model::route::Speaks::Http,
        }],
        acme: false,
    };
    let mut asleep = group(&[]);
    asleep.waking = true;
    Table {
        version: 1,
        rules,
        target_groups: [
            ("shop".to_owned(), group(&[origin.address])),
            ("asleep".to_owned(), asleep),
        ]
        .into(),
    }
}

/// A request for the shop by somebody on this machine: the listeners are where nobody else comes.
async fn explain(edge: &Edge, scheme: &str) -> Explanation {
    let question = Question {
        method: "GET".into(),
        url: format!("{scheme}://127.0.0.1/cart"),
        source: None,
        headers: vec![("Host".into(), "shop.test".into())],
    };
    edge.client.explain(&question).await.unwrap()
}

/// The answer to a request for this host at an address, all of it; none when nobody listens there.
async fn get(at: SocketAddr, host: &'static str, tls: Option<&TlsConnector>) -> Option<String> {
    drop(TcpStream::connect(at).await.ok()?);
    let mut wire = connect(at, host, tls).await;
    let request = format!(
        "GET /cart?a=1 HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\n\r\n",
        at.port()
    );
    wire.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // A connection that ends without a word of TLS has its answer all the same.
    let _ = soon("an answer", wire.read_to_end(&mut answer)).await;
    String::from_utf8(answer).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_with_a_certificate_are_asked_over_https_first() {
    for plain_http in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Utf8Path::from_path(folder.path()).unwrap().join("certificates");
        let trusting = certificate(&certificates, &["shop.test", "asleep.test"]);
        let bind = || Socket::bind("127.0.0.1:0").unwrap();
        let (http, https) = (bind(), bind());
        let (plain, secure) = (http.local_addr().unwrap(), https.local_addr().unwrap());
        let own = bind().local_addr().unwrap();
        let https = Listener {
            socket: https,
            speaks: Speaks::Https(Box::new(Tls {
                certificates,
                minimum: Version::default(),
                ciphers: Vec::new(),
                clients: None,
            })),
            proxied: false,
        };
        let origin = Origin::named("the shop").await;
        let edge = Edge::configured(&folder, vec![Listener::http(http), https], |config| {
            config.plain_http = plain_http;
        });
        edge.apply(&table(&origin, own)).await;

        let answer = get(plain, "shop.test", None).await.unwrap();
        let there = format!("https://shop.test:{}/cart?a=1", secure.port());
        let explained = explain(&edge, "http").await;
        match plain_http {
            true => {
                assert_eq!((status(&answer), body(&answer)), (200, "the shop"));
                assert_eq!(explained.rule.map(|rule| rule.priority), Some(1));
            }
            false => {
                assert_eq!(
                    (status(&answer), field(&answer, "location")),
                    (301, Some(&*there)),
                    "{answer}"
                );
                assert_eq!(field(&answer, "cache-control"), Some("no-store"));
                assert!(origin.requests().is_empty(), "no target heard of it");
                assert!(explained.plain && explained.rule.is_none(), "{explained:?}");
                // It wakes nobody, and waits for nobody.
                let asleep = get(plain, "asleep.test", None).await.unwrap();
                assert_eq!(status(&asleep), 301, "{asleep}");
            }
        }
        // Over TLS, without a certificate, and where the name has a socket for itself, its rule decides.
        for (at, host, tls) in [
            (secure, "shop.test", Some(&trusting)),
            (plain, "bare.test", None),
            (own, "shop.test", None),
        ] {
            until("it is served", || async {
                get(at, host, tls)
                    .await
                    .is_some_and(|answer| body(&answer) == "the shop")
            })
            .await;
        }
        let explained = explain(&edge, "https").await;
        assert_eq!(explained.rule.map(|rule| rule.priority), Some(1));
        // From the moment on at which it has a certificate, a name is no other.
        let folder = Utf8Path::from_path(folder.path()).unwrap().join("certificates");
        certificate(&folder, &["bare.test"]);
        if !plain_http {
            until("the certificate is seen", || async {
                status(&get(plain, "bare.test", None).await.unwrap()) == 301
            })
            .await;
        }
        edge.stop().await;
    }
}
