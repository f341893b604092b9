//! Datagrams through the edge, with real sockets.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener as Socket, UdpSocket as Datagram},
    time::Duration,
};

use edge::{Datagrams, Listener};
use jiff::SignedDuration;
use model::route::{Access, Action, HealthProtocol, Table, Target, TargetGroup, TargetState};
use tokio::{net::UdpSocket, task::JoinHandle};

use crate::world::{self, Edge, forward, rule, soon, until};

/// Answers every datagram with its name and what it got, and accepts connections from whoever asks how it is.
struct App {
    address: SocketAddr,
    health: Option<Socket>,
    serving: JoinHandle<()>,
}

impl App {
    async fn named(name: &'static str) -> Self {
        let health = Socket::bind("127.0.0.1:0").unwrap();
        let address = health.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let serving = tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let text = format!("{name} {}", String::from_utf8_lossy(&packet[..length]));
                let _ = socket.send_to(text.as_bytes(), from).await;
            }
        });
        Self {
            address,
            health: Some(health),
            serving,
        }
    }

    async fn die(mut self) {
        self.health.take();
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }
}

fn group(apps: &[&App]) -> TargetGroup {
    let mut group = world::group(&[]);
    group.targets = apps
        .iter()
        .map(|app| Target {
            id: format!("h-{}", app.address.port()),
            address: app.address,
        })
        .collect();
    group.health.protocol = HealthProtocol::Tcp;
    group.health.interval = SignedDuration::from_millis(50);
    group.health.timeout = SignedDuration::from_millis(50);
    group
}

fn table(version: u64, weights: &[(&str, u32)], groups: &[(&str, &[&App])]) -> Table {
    Table {
        version,
        rules: vec![rule(1, "game.test", forward(weights))],
        target_groups: groups
            .iter()
            .map(|(name, apps)| ((*name).to_owned(), group(apps)))
            .collect(),
    }
}

fn edge(folder: &tempfile::TempDir, edit: impl FnOnce(&mut Datagrams)) -> (Edge, SocketAddr) {
    let socket = Datagram::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let mut datagrams = Datagrams::new(socket, "game.test");
    edit(&mut datagrams);
    let http = vec![Listener::http(Socket::bind("127.0.0.1:0").unwrap())];
    let edge = Edge::configured(folder, http, |config| config.datagrams = vec![datagrams]);
    (edge, at)
}

async fn healthy(edge: &Edge, count: usize) {
    until("health is known", || async {
        let health = edge.client.health().await.unwrap();
        health.iter().filter(|t| t.state == TargetState::Healthy).count() == count
    })
    .await;
}

async fn client(at: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Only answers that come from where the question went are seen.
    client.connect(at).await.unwrap();
    client
}

async fn ask(client: &UdpSocket, text: &str) -> String {
    soon("an answer", async {
        client.send(text.as_bytes()).await.unwrap();
        let mut packet = [0; 2048];
        let length = client.recv(&mut packet).await.unwrap();
        String::from_utf8_lossy(&packet[..length]).into_owned()
    })
    .await
}

async fn number(edge: &Edge, name: &str) -> u64 {
    let numbers = edge.client.metrics().await.unwrap();
    let line = numbers
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")))
        .unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_stays_where_it_is_while_routes_change() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (App::named("blue").await, App::named("green").await);
    let (edge, at) = edge(&folder, |_| ());
    let groups: [(&str, &[&App]); 2] = [("blue", &[&blue]), ("green", &[&green])];
    edge.apply(&table(1, &[("blue", 1), ("green", 1)], &groups)).await;
    healthy(&edge, 2).await;
    let mut clients = Vec::new();
    for n in 0..64 {
        let client = client(at).await;
        let first = ask(&client, &n.to_string()).await;
        clients.push((client, first.split(' ').next().unwrap().to_owned()));
        assert!(first.ends_with(&format!(" {n}")), "{first}");
    }
    let of = |name: &str| clients.iter().filter(|(_, got)| got == name).count();
    assert!(
        of("blue") >= 10 && of("green") >= 10,
        "by weight: {} and {}",
        of("blue"),
        of("green")
    );

    // All weight to one; the other one's group leaves the table altogether.
    edge.apply(&table(2, &[("blue", 1)], &groups[..1])).await;
    for (client, name) in &clients {
        assert_eq!(ask(client, "x").await, format!("{name} x"), "its flow goes on");
    }
    for _ in 0..32 {
        assert_eq!(
            ask(&client(at).await, "y").await,
            "blue y",
            "new flows follow the table"
        );
    }
    assert_eq!(number(&edge, "vend_edge_datagram_flows").await, 96);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_leave_who_is_ill_or_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (App::named("one").await, App::named("two").await);
    let (edge, at) = edge(&folder, |_| ());
    edge.apply(&table(1, &[("g", 1)], &[("g", &[&one, &two])])).await;
    healthy(&edge, 2).await;
    let mut of_one = Vec::new();
    let mut seen = BTreeSet::new();
    while of_one.len() < 4 || seen.len() < 2 {
        let client = client(at).await;
        let got = ask(&client, "x").await;
        seen.insert(got.clone());
        if got == "one x" {
            of_one.push(client);
        }
    }
    one.die().await;
    healthy(&edge, 1).await;
    for client in &of_one {
        assert_eq!(ask(client, "x").await, "two x", "to a healthy one");
    }
    // A target whose time to finish is over has no flows any more.
    let three = App::named("three").await;
    let mut next = table(2, &[("g", 1)], &[("g", &[&three])]);
    next.target_groups.get_mut("g").unwrap().deregistration_delay = SignedDuration::from_millis(1);
    edge.apply(&next).await;
    healthy(&edge, 1).await;
    until("the flow is at the one that is there", || async {
        ask(&of_one[0], "x").await == "three x"
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_are_bounded_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::named("app").await;
    let (edge, at) = edge(&folder, |datagrams| {
        datagrams.idle = Duration::from_secs(3);
        datagrams.per_source = 3;
    });
    edge.apply(&table(1, &[("g", 1)], &[("g", &[&app])])).await;
    healthy(&edge, 1).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = client(at).await;
        assert_eq!(ask(&client, "x").await, "app x");
        clients.push(client);
    }
    let fourth = client(at).await;
    fourth.send(b"x").await.unwrap();
    until("it is refused", || async {
        number(&edge, "vend_edge_datagram_refused_total").await >= 1
    })
    .await;
    until("silent flows end", || async {
        number(&edge, "vend_edge_datagram_flows").await == 0
    })
    .await;
    assert_eq!(ask(&fourth, "y").await, "app y", "there is room again");
    edge.stop().await;
}

/// A stranger who finds the port of a flow is not heard, and nothing is sent where nobody asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_target_answers_a_flow() {
    let folder = tempfile::tempdir().unwrap();
    let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (edge, at) = edge(&folder, |_| ());
    let mut table = table(1, &[("g", 1)], &[]);
    let mut group = world::group(&[target.local_addr().unwrap()]);
    group.health.protocol = HealthProtocol::Tcp;
    table.target_groups.insert("g".into(), group);
    edge.apply(&table).await;
    let client = client(at).await;
    client.send(b"hello").await.unwrap();
    let mut packet = [0; 100];
    let (_, flow) = soon("a datagram", target.recv_from(&mut packet)).await.unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.send_to(b"forged", flow).await.unwrap();
    target.send_to(b"true", flow).await.unwrap();
    let length = soon("an answer", client.recv(&mut packet)).await.unwrap();
    assert_eq!(&packet[..length], b"true");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_kept_out_has_no_flow() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::named("app").await;
    let (edge, at) = edge(&folder, |_| ());
    let client = client(at).await;
    let network = |text: &str| text.parse().unwrap();
    let denied = Access {
        deny: vec![network("127.0.0.0/8")],
        ..Access::default()
    };
    let others = Access {
        allow: vec![network("192.0.2.0/24")],
        ..Access::default()
    };
    for (version, access) in [(1, denied), (2, others)] {
        let mut table = table(version, &[("g", 1)], &[("g", &[&app])]);
        table.rules[0].access = vec![access];
        edge.apply(&table).await;
        client.send(b"x").await.unwrap();
        until("it is refused", || async {
            number(&edge, "vend_edge_datagram_refused_total").await == version
        })
        .await;
        assert_eq!(number(&edge, "vend_edge_datagram_flows_opened_total").await, 0);
    }
    edge.apply(&table(3, &[("g", 1)], &[("g", &[&app])])).await;
    assert_eq!(
        ask(&client, "y").await,
        "app y",
        "nothing of before comes after it"
    );
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_under_way_ends_when_its_client_is_kept_out_or_its_rule_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::named("app").await;
    let (edge, at) = edge(&folder, |_| ());
    let open = |version| table(version, &[("g", 1)], &[("g", &[&app])]);
    let (mut denied, mut closed) = (open(2), open(4));
    denied.rules[0].access = vec![Access {
        deny: vec!["127.0.0.0/8".parse().unwrap()],
        ..Access::default()
    }];
    closed.rules[0].action = Action::FixedResponse {
        status: 503,
        content_type: "text/plain".into(),
        body: "closed".into(),
    };
    edge.apply(&open(1)).await;
    healthy(&edge, 1).await;
    for (refused, shut) in [(1, denied), (2, closed)] {
        let (speaking, silent) = (client(at).await, client(at).await);
        for client in [&speaking, &silent] {
            assert_eq!(ask(client, "x").await, "app x");
        }
        edge.apply(&shut).await;
        speaking.send(b"y").await.unwrap();
        until("it is refused", || async {
            number(&edge, "vend_edge_datagram_refused_total").await == refused
        })
        .await;
        until("who says nothing has no flow either", || async {
            number(&edge, "vend_edge_datagram_flows").await == 0
        })
        .await;
        edge.apply(&open(shut.version + 1)).await;
        assert_eq!(ask(&speaking, "z").await, "app z", "it is open again");
    }
    edge.stop().await;
}
