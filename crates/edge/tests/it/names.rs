//! The built-in name server, asked with `dig` and with raw packets.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, TcpListener as Socket, UdpSocket},
    process::Command,
    time::Duration,
};

use edge::{Dns, Listener, Zone, ZoneWanted};
use jiff::SignedDuration;
use model::route::{Action, Table, Target};

use crate::world::{Edge, forward, group, rule, until};

fn zone(apex: &str, servers: &[&str]) -> Zone {
    let servers: Vec<String> = servers.iter().map(|name| (*name).to_owned()).collect();
    let addresses: [IpAddr; 2] = ["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    Zone::new(ZoneWanted {
        apex,
        servers: &servers,
        addresses: &addresses,
        contact: Some("ops@example.com"),
        ttl: 60,
    })
    .unwrap()
}

/// A free port for both.
fn sockets() -> (UdpSocket, Socket, SocketAddr) {
    loop {
        let tcp = Socket::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        if let Ok(udp) = UdpSocket::bind(at) {
            return (udp, tcp, at);
        }
    }
}

fn edge(folder: &tempfile::TempDir, zones: Vec<Zone>, rate: u32) -> (Edge, SocketAddr) {
    let (udp, tcp, at) = sockets();
    let http = vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())];
    let edge = Edge::configured(folder, http, |config| {
        config.dns = Some(Dns {
            unbound: Vec::new(),
            zones,
            sockets: vec![(udp, tcp)],
            rate,
        });
    });
    (edge, at)
}

async fn dig(at: SocketAddr, args: &str) -> String {
    let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
    let asked = tokio::task::spawn_blocking(move || {
        let mut dig = Command::new("dig");
        dig.args([
            "@127.0.0.1",
            "-p",
            &at.port().to_string(),
            "+tries=1",
            "+timeout=15",
            "+norec",
        ]);
        dig.args(args)
            .output()
            .expect("dig is installed: apt-get install dnsutils")
    });
    String::from_utf8(asked.await.unwrap().stdout).unwrap()
}

/// The answer's records alone, sorted.
async fn short(at: SocketAddr, args: &str) -> Vec<String> {
    let mut lines: Vec<String> = dig(at, &format!("+short {args}"))
        .await
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

fn answer(name: &str) -> Action {
    Action::FixedResponse {
        status: 200,
        content_type: "text/plain".into(),
        body: name.into(),
    }
}

fn table(hosts: &[&str]) -> Table {
    let rules = (1..).zip(hosts);
    Table {
        version: 1,
        rules: rules.map(|(n, host)| rule(n, host, answer(host))).collect(),
        ..Table::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_routed_has_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let (edge, at) = edge(
        &folder,
        vec![zone("apps.test", &["ns1.apps.test", "ns.infra.apps.test"])],
        0,
    );
    let hosts = [
        "dev.shop.acme.apps.test",
        "shop.acme.apps.test",
        "*.wild.apps.test",
        "elsewhere.example",
        "a?.apps.test",
    ];
    edge.apply(&table(&hosts)).await;

    assert_eq!(short(at, "dev.shop.acme.apps.test A").await, ["203.0.113.7"]);
    assert_eq!(short(at, "dev.shop.acme.apps.test AAAA").await, ["2001:db8::7"]);
    assert_eq!(short(at, "shop.acme.apps.test A").await, ["203.0.113.7"]);
    assert_eq!(short(at, "x.y.wild.apps.test A").await, ["203.0.113.7"]);
    assert_eq!(short(at, "+tcp dev.shop.acme.apps.test A").await, ["203.0.113.7"]);

    let apex = dig(at, "apps.test SOA").await;
    assert!(
        apex.contains("ns1.apps.test. ops.example.com. 1 3600 600 604800 30"),
        "{apex}"
    );
    assert!(
        apex.contains("flags: qr aa;"),
        "authoritative, and no recursion: {apex}"
    );
    let servers = dig(at, "apps.test NS").await;
    assert!(
        servers.contains("IN\tNS\tns1.apps.test.")
            && servers.contains("ns1.apps.test.\t\t60\tIN\tA\t203.0.113.7"),
        "{servers}"
    );
    assert_eq!(short(at, "ns1.apps.test A").await, ["203.0.113.7"]);
    assert_eq!(short(at, "ns.infra.apps.test A").await, ["203.0.113.7"]);

    // There, but not of this kind; there only because of what is below; not there.
    for (question, status) in [
        ("dev.shop.acme.apps.test MX", "NOERROR"),
        ("acme.apps.test A", "NOERROR"),
        ("wild.apps.test A", "NOERROR"),
        ("infra.apps.test A", "NOERROR"),
        ("x.infra.apps.test A", "NXDOMAIN"),
        ("none.apps.test A", "NXDOMAIN"),
        ("x.dev.shop.acme.apps.test A", "NXDOMAIN"),
        ("ab.apps.test A", "NXDOMAIN"),
        ("xapps.test A", "REFUSED"),
        ("elsewhere.example A", "REFUSED"),
        ("test A", "REFUSED"),
        (". NS", "REFUSED"),
        ("-c CH version.bind TXT", "REFUSED"),
        ("-c CH dev.shop.acme.apps.test A", "REFUSED"),
        ("+opcode=UPDATE apps.test SOA", "NOTIMP"),
        ("+edns=1 +noednsneg apps.test SOA", "BADVERS"),
    ] {
        let got = dig(at, question).await;
        assert!(got.contains(&format!("status: {status}")), "{question}: {got}");
        assert!(got.contains("ANSWER: 0"), "{question}: {got}");
        let negative = got.contains("IN\tSOA\tns1.apps.test.") && got.contains("apps.test.\t\t30\tIN\tSOA");
        assert_eq!(
            negative,
            ["NOERROR", "NXDOMAIN"].contains(&status),
            "{question}: {got}"
        );
    }
    assert_eq!(
        short(at, "dev.shop.acme.apps.test ANY").await,
        ["\"RFC8482\" \"\""]
    );
    let transfer = dig(at, "apps.test AXFR").await;
    assert!(transfer.contains("Transfer failed"), "{transfer}");
    // Who asks in odd letters is answered in them: it is how resolvers know their own questions.
    let odd = dig(at, "+qr DeV.sHop.acme.APPS.test A").await;
    assert!(
        odd.contains("DeV.sHop.acme.APPS.test. 60\tIN\tA\t203.0.113.7"),
        "{odd}"
    );

    let seen = edge.client.names().await.unwrap();
    let why = |name: &str, kind: &str| {
        let found = seen.iter().find(|seen| seen.name == name && seen.kind == kind);
        found
            .map(|seen| (seen.values.join(" "), seen.why.clone()))
            .unwrap()
    };
    assert_eq!(
        why("shop.acme.apps.test", "A"),
        (
            "203.0.113.7".into(),
            "rule 2 of acme/shop/dev, answered by the load balancer".into()
        )
    );
    assert!(why("elsewhere.example", "").1.contains("in no zone"));
    assert!(
        why("a?.apps.test", "")
            .1
            .contains("a pattern that DNS does not know")
    );
    let numbers = edge.client.metrics().await.unwrap();
    assert!(
        numbers.contains("vend_edge_names_answers_total{code=\"nxdomain\"} 4"),
        "{numbers}"
    );

    // A change is answered as soon as it is in force; and all of it is there without anybody else.
    let mut next = table(&["new.apps.test"]);
    next.version = 2;
    edge.apply(&next).await;
    assert_eq!(short(at, "new.apps.test A").await, ["203.0.113.7"]);
    assert!(dig(at, "shop.acme.apps.test A").await.contains("NXDOMAIN"));
    edge.stop().await;
    let (edge, at) = self::edge(
        &folder,
        vec![zone("apps.test", &["ns1.apps.test", "ns.infra.apps.test"])],
        0,
    );
    until("it answers from its snapshot", || async move {
        short(at, "new.apps.test A").await == ["203.0.113.7"]
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_asked_for_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let servers: Vec<String> = (0..24)
        .map(|n| format!("{n}.{}.example", "x".repeat(30 + n)))
        .collect();
    let names: Vec<&str> = servers.iter().map(String::as_str).collect();
    let (edge, at) = edge(&folder, vec![zone("apps.test", &names)], 0);
    for edns in ["+noedns", "+bufsize=512", "+bufsize=4096"] {
        let cut = dig(at, &format!("{edns} +ignore apps.test NS")).await;
        assert!(
            cut.contains("flags: qr aa tc;") && cut.contains("ANSWER: 0"),
            "{edns}: {cut}"
        );
        assert_eq!(
            short(at, &format!("{edns} apps.test NS")).await.len(),
            24,
            "dig asks again over TCP"
        );
    }
    edge.stop().await;
}

/// Weighted groups whose names lead to their targets: shares, health, and scaling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_hosts_follow_weights_health_and_scaling() {
    let folder = tempfile::tempdir().unwrap();
    let (edge, at) = edge(&folder, vec![zone("apps.test", &[])], 0);
    // One port at several addresses of loopback, as hosts of one app have it.
    let bind = |ip: &str, port: u16| Socket::bind((ip, port));
    let (port, blue, green, third) = loop {
        let first = bind("127.0.0.2", 0).unwrap();
        let port = first.local_addr().unwrap().port();
        if let (Ok(second), Ok(third)) = (bind("127.0.0.3", port), bind("127.0.0.4", port)) {
            break (port, first, second, third);
        }
    };
    let made = |ips: &[&str]| {
        let mut made = group(&[]);
        made.targets = ips
            .iter()
            .map(|ip| Target {
                id: (*ip).to_owned(),
                address: format!("{ip}:9").parse().unwrap(),
            })
            .collect();
        made.health.protocol = model::route::HealthProtocol::Tcp;
        // Traffic and health have ports of their own.
        made.health.port = Some(port);
        made.health.interval = SignedDuration::from_millis(50);
        made.health.timeout = SignedDuration::from_millis(50);
        made.direct = Some(SignedDuration::from_secs(5));
        made
    };
    let mut table = Table {
        version: 1,
        rules: vec![rule(1, "game.apps.test", forward(&[("blue", 3), ("green", 1)]))],
        target_groups: [
            ("blue".to_owned(), made(&["127.0.0.2"])),
            ("green".to_owned(), made(&["127.0.0.3", "127.0.0.4"])),
        ]
        .into(),
    };
    edge.apply(&table).await;
    let healthy = |count: usize| {
        let edge = &edge;
        until("health is known", move || async move {
            let health = edge.client.health().await.unwrap();
            let well = health
                .iter()
                .filter(|t| t.state == model::route::TargetState::Healthy);
            well.count() == count
        })
    };
    healthy(3).await;
    let mut blue_answers = 0;
    let mut firsts = BTreeSet::new();
    for _ in 0..8 {
        let got = dig(at, "game.apps.test A").await;
        let records: Vec<&str> = got
            .lines()
            .filter(|line| line.starts_with("game.apps.test.\t"))
            .collect();
        let addresses: Vec<&str> = records
            .iter()
            .filter_map(|line| line.split('\t').next_back())
            .collect();
        assert!(
            records.iter().all(|line| line.contains("\t5\tIN")),
            "the group's own TTL: {got}"
        );
        match addresses.as_slice() {
            ["127.0.0.2"] => blue_answers += 1,
            ["127.0.0.3", "127.0.0.4"] | ["127.0.0.4", "127.0.0.3"] => {
                _ = firsts.insert(addresses[0].to_owned())
            }
            other => panic!("{other:?}: {got}"),
        }
    }
    assert_eq!(blue_answers, 6, "three of four by weight");
    assert_eq!(firsts.len(), 2, "each of them comes first in its turn");

    table.version = 2;
    table.rules = vec![rule(1, "game.apps.test", forward(&[("blue", 0), ("green", 1)]))];
    edge.apply(&table).await;
    assert_eq!(short(at, "game.apps.test A").await, ["127.0.0.3", "127.0.0.4"]);
    assert!(
        short(at, "game.apps.test AAAA").await.is_empty(),
        "hosts have no such address"
    );
    drop(third);
    until("a host that fell ill is not named", || async move {
        short(at, "game.apps.test A").await == ["127.0.0.3"]
    })
    .await;
    let seen = edge.client.names().await.unwrap();
    let why = &seen
        .iter()
        .find(|seen| seen.name == "game.apps.test")
        .unwrap()
        .why;
    assert!(why.ends_with("group green with 1 of 1: 1 of 2 healthy"), "{why}");
    drop(green);
    until("when all are ill, all are named", || async move {
        short(at, "game.apps.test A").await.len() == 2
    })
    .await;

    table.version = 3;
    table
        .target_groups
        .insert("green".into(), made(&["127.0.0.4", "127.0.0.9"]));
    edge.apply(&table).await;
    assert_eq!(
        short(at, "game.apps.test A").await,
        ["127.0.0.4", "127.0.0.9"],
        "as the group is scaled"
    );
    drop(blue);
    edge.stop().await;
}

/// Targets of both families behind one name: each is named by its own kind of record, as long as it is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_hosts_have_both_kinds_of_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let (edge, at) = edge(&folder, vec![zone("apps.test", &[])], 0);
    let well = Socket::bind("[::1]:0").unwrap();
    let port = well.local_addr().unwrap().port();
    let mut both = group(&["[::1]:9".parse().unwrap(), "127.0.0.5:9".parse().unwrap()]);
    both.health.protocol = model::route::HealthProtocol::Tcp;
    both.health.port = Some(port);
    both.health.interval = SignedDuration::from_millis(50);
    both.health.timeout = SignedDuration::from_millis(50);
    both.direct = Some(SignedDuration::from_secs(5));
    both.targets[1].id = "second".into();
    edge.apply(&Table {
        version: 1,
        rules: vec![rule(1, "game.apps.test", forward(&[("both", 1)]))],
        target_groups: [("both".to_owned(), both)].into(),
    })
    .await;
    until("only the healthy one is named", || async move {
        short(at, "game.apps.test A").await.is_empty()
    })
    .await;
    let six = dig(at, "game.apps.test AAAA").await;
    assert!(six.contains("game.apps.test.\t\t5\tIN\tAAAA\t::1\n"), "{six}");
    drop(well);
    until("when all are ill, all are named", || async move {
        short(at, "game.apps.test A").await == ["127.0.0.5"]
    })
    .await;
    assert_eq!(short(at, "game.apps.test AAAA").await, ["::1"]);
    edge.stop().await;
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet[..2].copy_from_slice(&id.to_be_bytes());
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

fn client(at: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(at).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_cannot_be_aimed_at_somebody() {
    let folder = tempfile::tempdir().unwrap();
    let (edge, at) = edge(&folder, vec![zone("apps.test", &[])], 5);
    edge.apply(&table(&["shop.apps.test"])).await;
    let (full, deferred) = tokio::task::spawn_blocking(move || {
        let client = client(at);
        for id in 0..200 {
            client.send(&question(id, "shop.apps.test")).unwrap();
        }
        client.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        let (mut full, mut deferred) = (0, 0);
        let mut packet = [0; 2000];
        while let Ok(length) = client.recv(&mut packet) {
            match packet[2] & 2 {
                0 => full += 1,
                _ => {
                    assert_eq!(
                        length,
                        question(0, "shop.apps.test").len(),
                        "no longer than what was sent"
                    );
                    deferred += 1;
                }
            }
        }
        (full, deferred)
    })
    .await
    .unwrap();
    // Ten at once; the machine may be slow enough for some more.
    assert!((10..60).contains(&full), "{full}");
    assert!(deferred > 0 && full + deferred < 150, "{full} and {deferred}");
    // Whoever really is there gets all it asks for.
    for _ in 0..20 {
        assert_eq!(short(at, "+tcp shop.apps.test A").await, ["203.0.113.7"]);
    }
    let numbers = edge.client.metrics().await.unwrap();
    assert!(!numbers.contains("vend_edge_names_limited_total 0"), "{numbers}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_query_is_refused_or_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (edge, at) = edge(&folder, vec![zone("apps.test", &[])], 0);
    edge.apply(&table(&["shop.apps.test"])).await;
    tokio::task::spawn_blocking(move || {
        let client = client(at);
        let with = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = question(7, "shop.apps.test");
            edit(&mut packet);
            packet
        };
        let silent = [
            with(&|p| p.truncate(11)),
            Vec::new(),
            // An answer: were it answered, two servers would talk for ever.
            with(&|p| p[2] |= 0x80),
        ];
        let wrong = [
            with(&|p| p.truncate(20)),
            with(&|p| p[5] = 0),
            with(&|p| p[5] = 2),
            with(&|p| p[4..6].fill(255)),
            with(&|p| p[7] = 1),
            with(&|p| p[10..12].fill(255)),
            with(&|p| p[12] = 64),
            // A name that points at itself.
            with(&|p| p[12..14].copy_from_slice(&[0xc0, 12])),
            with(&|p| p.resize(5000, 0)),
        ];
        for packet in &silent {
            client.send(packet).unwrap();
        }
        let mut got = [0; 2000];
        for packet in &wrong {
            client.send(packet).unwrap();
            let length = client.recv(&mut got).unwrap();
            assert_eq!((got[1], got[2] & 0x80, got[3] & 15), (7, 0x80, 1), "{packet:?}");
            assert!(length <= 12, "no longer than a header");
        }
        client.send(&question(8, "shop.apps.test")).unwrap();
        client.recv(&mut got).unwrap();
        assert_eq!((got[1], got[3] & 15, got[7]), (8, 0, 1), "it goes on as before");
    })
    .await
    .unwrap();
    edge.stop().await;
}

#[test]
fn what_is_no_zone_is_said() {
    let address: [IpAddr; 1] = [[203, 0, 113, 7].into()];
    let wanted = ZoneWanted {
        apex: "apps.test",
        servers: &[],
        addresses: &address,
        contact: None,
        ttl: 60,
    };
    let no = ["0.0.0.0".parse().unwrap()];
    let bad_server = ["a b".to_owned()];
    for (wanted, expected) in [
        (
            ZoneWanted {
                apex: "a..b",
                ..wanted
            },
            "`a..b` is not a domain name",
        ),
        (
            ZoneWanted {
                addresses: &[],
                ..wanted
            },
            "has no addresses",
        ),
        (
            ZoneWanted {
                addresses: &no,
                ..wanted
            },
            "`0.0.0.0` cannot be the address",
        ),
        (
            ZoneWanted {
                contact: Some("x"),
                ..wanted
            },
            "`x` is not a mail address",
        ),
        (
            ZoneWanted {
                servers: &bad_server,
                ..wanted
            },
            "`a b` is not a domain name",
        ),
        (
            ZoneWanted {
                ttl: 100_000,
                ..wanted
            },
            "a day at most",
        ),
    ] {
        let error = Zone::new(wanted).err().unwrap();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Zone::new(wanted).is_ok());
}
