//! Certificates from a real authority: Let's Encrypt's own test server, pebble (a package of Debian), with its DNS.

use std::{
    net::{TcpListener as Socket, UdpSocket},
    process::{Child, Command, Stdio},
};

use camino::{Utf8Path, Utf8PathBuf};
use edge::{Acme, CertificateSeen, Challenge, Dns, Listener, Speaks, Tls, Version, Zone, ZoneWanted};
use rcgen::{CertificateParams, KeyPair};

use crate::world::{self, Edge, until};

/// Processes that end with the test.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Authority {
    directory: String,
    /// Where it and its names are asked.
    ports: [u16; 2],
    roots: Utf8PathBuf,
    _running: Processes,
}

fn free() -> u16 {
    Socket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A port that is free for UDP and TCP.
fn free_for_dns() -> u16 {
    loop {
        let port = free();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An authority that finds every host at this machine, at these ports. It asks the name server at `names`, or one of
/// its own that knows every name.
fn authority(home: &Utf8Path, http: u16, tls: u16, names: Option<u16>) -> Authority {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let roots = home.join("authority.pem");
    std::fs::write(&roots, made.pem()).unwrap();
    std::fs::write(home.join("authority.key"), key.serialize_pem()).unwrap();
    let (port, management) = (free(), free());
    let dns = names.unwrap_or_else(free_for_dns);
    let config = serde_json::json!({"pebble": {
        "listenAddress": format!("127.0.0.1:{port}"),
        "managementListenAddress": format!("127.0.0.1:{management}"),
        "certificate": roots, "privateKey": home.join("authority.key"),
        "httpPort": http, "tlsPort": tls,
        "ocspResponderURL": "", "externalAccountBindingRequired": false,
    }});
    std::fs::write(home.join("pebble.json"), config.to_string()).unwrap();
    let everything = || {
        Command::new("pebble-challtestsrv")
            .args([
                "-defaultIPv6",
                "",
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-management",
                "",
            ])
            .args(["-defaultIPv4", "127.0.0.1", "-dns01", &format!("127.0.0.1:{dns}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble is installed: apt-get install pebble")
    };
    let own = names.is_none().then(everything);
    let pebble = Command::new("pebble")
        .args([
            "-config",
            home.join("pebble.json").as_str(),
            "-dnsserver",
            &format!("127.0.0.1:{dns}"),
        ])
        .env("PEBBLE_VA_NOSLEEP", "1")
        .stdout(std::fs::File::create(home.join("pebble.log")).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .expect("pebble is installed: apt-get install pebble");
    Authority {
        directory: format!("https://localhost:{port}/dir"),
        ports: [port, dns],
        roots,
        _running: Processes(own.into_iter().chain([pebble]).collect()),
    }
}

/// The edge's own name server, for `shop.test`.
fn built_in() -> Dns {
    let zone = ZoneWanted {
        apex: "shop.test",
        servers: &[],
        addresses: &[[127, 0, 0, 1].into()],
        contact: None,
        ttl: 60,
    };
    let port = free_for_dns();
    Dns {
        zones: vec![Zone::new(zone).unwrap()],
        sockets: vec![(
            UdpSocket::bind(("127.0.0.1", port)).unwrap(),
            Socket::bind(("127.0.0.1", port)).unwrap(),
        )],
        unbound: Vec::new(),
        rate: 0,
    }
}

/// A certificate of sixty days with ten left: two thirds of its time are over.
fn aged(folder: &Utf8Path, name: &str, hosts: &[&str]) {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
    let now = std::time::SystemTime::now();
    let days = |days: u64| std::time::Duration::from_secs(days * 86_400);
    (params.not_before, params.not_after) = ((now - days(50)).into(), (now + days(10)).into());
    let made = params.self_signed(&key).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{name}.pem"));
    std::fs::write(path, made.pem() + &key.serialize_pem()).unwrap();
}

async fn certificate(challenge: Challenge) -> (Edge, tempfile::TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let home = Utf8Path::from_path(folder.path()).unwrap().to_owned();
    let (http, https) = (
        Socket::bind("127.0.0.1:0").unwrap(),
        Socket::bind("127.0.0.1:0").unwrap(),
    );
    let port = |socket: &Socket| socket.local_addr().unwrap().port();
    // Whoever is not to be asked is not there.
    let (for_http, for_tls) = match challenge {
        Challenge::Http => (port(&http), free()),
        Challenge::Tls => (free(), port(&https)),
        Challenge::Dns => (free(), free()),
    };
    let names = (challenge == Challenge::Dns).then(built_in);
    let asked = names
        .as_ref()
        .map(|dns| dns.sockets[0].1.local_addr().unwrap().port());
    let authority = authority(&home, for_http, for_tls, asked);
    // The built-in name server answers only when the edge runs.
    for port in authority.ports.into_iter().filter(|port| Some(*port) != asked) {
        until("the authority answers", || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
    }
    let certificates = home.join("certificates");
    aged(&certificates, "shop", &["shop.test", second(challenge)]);
    let acme = Acme {
        directory: authority.directory.clone(),
        contact: vec!["mailto:ops@shop.test".into()],
        roots: Some(authority.roots.clone()),
        account: home.join("acme"),
        certificates: certificates.clone(),
        challenge,
        wanted: match challenge {
            Challenge::Dns => wanted(challenge, "elsewhere.test"),
            _ => wanted(challenge, "*.shop.test"),
        },
    };
    let tls = Tls {
        certificates,
        minimum: Version::Tls12,
        ciphers: Vec::new(),
        clients: None,
    };
    let secure = Listener {
        socket: https,
        speaks: Speaks::Https(Box::new(tls)),
        proxied: false,
    };
    let edge = Edge::configured(&folder, vec![Listener::http(http), secure], |config| {
        config.acme = Some(acme);
        // What an authority asks for is answered to who comes without TLS, whatever the name has.
        config.plain_http = false;
        config.dns = names;
    });
    (edge, folder, authority)
}

/// The second host of the certificate.
fn second(challenge: Challenge) -> &'static str {
    match challenge {
        Challenge::Dns => "*.shop.test",
        _ => "www.shop.test",
    }
}

fn wanted(challenge: Challenge, cannot: &str) -> Vec<(String, Vec<String>)> {
    let shop = vec!["shop.test".into(), second(challenge).into()];
    vec![("shop".into(), shop), ("bad".into(), vec![cannot.into()])]
}

async fn seen(edge: &Edge, name: &str) -> Option<CertificateSeen> {
    let all = edge.client.certificates().await.ok()?;
    all.into_iter().find(|seen| seen.name == name)
}

async fn is_got(challenge: Challenge) {
    let (edge, folder, _authority) = certificate(challenge).await;
    // That of before has ten days left.
    let renewed = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(11 * 24);
    until("the certificate is renewed", || async {
        let seen = seen(&edge, "shop").await;
        let failure = seen.as_ref().and_then(|seen| seen.problem.clone());
        assert_eq!(
            failure,
            None,
            "{}",
            std::fs::read_to_string(folder.path().join("pebble.log")).unwrap()
        );
        seen.is_some_and(|seen| seen.until.is_some_and(|until| until > renewed))
    })
    .await;
    let mut got = seen(&edge, "shop").await.unwrap();
    got.hosts.sort();
    let cannot = match challenge {
        Challenge::Dns => "elsewhere.test` is in no zone",
        _ => "shop.test",
    };
    let mut hosts = vec!["shop.test".to_owned(), second(challenge).to_owned()];
    hosts.sort();
    assert_eq!((got.hosts, got.problem), (hosts, None));
    // What cannot be shown in this way has its reason for people to see.
    until("the failure is seen", || async {
        seen(&edge, "bad").await.is_some()
    })
    .await;
    let bad = seen(&edge, "bad").await.unwrap();
    assert!(
        bad.problem.as_deref().is_some_and(|why| why.contains(cannot)),
        "{bad:?}"
    );
    assert_eq!(bad.until, None);
    // What a rule wants for its host is got as well.
    let mut table = world::shop(1, &[]);
    table.rules[0].hosts = vec!["own.shop.test".into()];
    table.rules[0].own.acme = true;
    edge.apply(&table).await;
    until("the rule's certificate is there", || async {
        seen(&edge, "own.shop.test")
            .await
            .is_some_and(|seen| seen.until.is_some())
    })
    .await;
    use std::os::unix::fs::PermissionsExt;
    let accounts: Vec<_> = std::fs::read_dir(folder.path().join("acme")).unwrap().collect();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
    let account = accounts[0].as_ref().unwrap().path();
    for file in [folder.path().join("certificates/shop.pem"), account] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    // What was answered for the check is answered no longer: it is a path as any other, and goes to HTTPS.
    let answer = edge.get("shop.test", "/.well-known/acme-challenge/x").await;
    assert_eq!(world::status(&answer), 301, "{answer}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_gives_a_certificate_over_http() {
    is_got(Challenge::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_gives_a_certificate_over_tls() {
    is_got(Challenge::Tls).await;
}

/// A wildcard and the name that it is below are asked for at one name, with two texts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_gives_a_wildcard_over_the_built_in_names() {
    is_got(Challenge::Dns).await;
}
