//! Hosts end to end: the real agent as PID 1, real networks between them, and a node that is killed beside them.
//!
//! This binary plays every role: `agent` inside hosts, `holder` is a node that gets killed, otherwise the test.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use host::{
    agent::api::{RunOrder, RunOutcome},
    container::{Containers, tag_of},
    hosts::Hosts,
    ticket::Tickets,
};
use jiff::Timestamp;
use model::{
    Digest, HostId, Secret, Ticket,
    port::{Blame, HostOrder, HostRole, HostState, Hosts as _, Network, Resources},
};
use support::{debian, machine_state, own_address};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("agent") => host::agent::main(),
        Some("holder") => holder(Utf8Path::new(&args[2])),
        // Nothing is ignored here: test runners ask for that list too.
        Some("--list") if args.iter().any(|arg| arg == "--ignored") => {}
        Some("--list") => println!("hosts: test"),
        _ => test(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    host::container::enter_private_mounts().unwrap();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn open(node: &Utf8Path) -> (Containers, Hosts) {
    let containers = Containers::open(node).await.unwrap();
    let node = node.canonicalize_utf8().unwrap();
    let tickets = Tickets::open(&node, Timestamp::UNIX_EPOCH).unwrap();
    let app = node.join("test/app");
    std::fs::create_dir_all(app.join("srv/app")).unwrap();
    let lowers = Arc::new(move |_: &Digest| Ok(vec![app.clone(), debian()]));
    (
        containers.clone(),
        Hosts::new(node, containers, tickets, lowers).unwrap(),
    )
}

/// Starts hosts, says so, and waits to be killed.
fn holder(node: &Utf8Path) {
    runtime().block_on(async {
        let (_containers, hosts) = open(node).await;
        for order in [first(), second(), other()] {
            let up = hosts.start(&ticket(&order), &order).await.unwrap();
            println!("up {} in {} ms {:?}", up.host, up.duration_ms, up.fallbacks);
        }
        println!("ready");
        tokio::time::sleep(Duration::from_secs(600)).await;
    });
}

fn order(host: &str, network: u32, last: u8, greeting: &str) -> HostOrder {
    let server = r#"perl -e 'use IO::Socket::INET; $| = 1; print "serving\n";
        my $s = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 5, ReuseAddr => 1) or die;
        while (my $c = $s->accept) { print $c $ENV{GREETING}; close $c }'"#;
    HostOrder {
        host: host.parse().unwrap(),
        place: "acme/shop/dev".parse().unwrap(),
        role: HostRole::App,
        image: Digest::of("image"),
        network: Network {
            number: network,
            subnet: Ipv4Addr::new(10, 213, network as u8, 0),
            prefix: 24,
        },
        address: Ipv4Addr::new(10, 213, network as u8, last),
        uid_base: 300_000 + network * 65_536,
        resources: Resources {
            cpu: 1.0,
            memory_mib: 128,
            disk_mib: 128,
            pids: 64,
        },
        port: 8080,
        secrets: BTreeSet::new(),
        environment: BTreeMap::from([("GREETING".into(), Secret::new(greeting.into()))]),
        processes: BTreeMap::from([("web".into(), server.replace('\n', " "))]),
    }
}

fn first() -> HostOrder {
    order("h-first", 7, 2, "I am the first")
}

fn second() -> HostOrder {
    order("h-second", 7, 3, "I am the second")
}

/// Of another environment.
fn other() -> HostOrder {
    order("h-other", 8, 2, "I am another")
}

fn ticket(order: &HostOrder) -> Ticket {
    format!("t-{}", order.host).parse().unwrap()
}

/// What the host says to who connects.
async fn greeting(address: Ipv4Addr) -> Option<String> {
    let ask = move || {
        let address = SocketAddr::from((address, 8080));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    };
    for _ in 0..40 {
        if let Some(text) = tokio::task::spawn_blocking(ask).await.unwrap() {
            return Some(text);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

async fn shell(hosts: &Hosts, host: &str, script: &str) -> RunOutcome {
    let order = RunOrder {
        command: ["/bin/bash", "-c", script].map(str::to_owned).to_vec(),
        user: None,
        directory: None,
        environment: BTreeMap::new(),
        stdin: None,
        timeout_ms: 20_000,
    };
    hosts.agent(&host.parse().unwrap()).run(&order).await.unwrap()
}

async fn reaches(hosts: &Hosts, from: &str, address: Ipv4Addr, port: u16) -> bool {
    let script = format!("timeout 2 bash -c 'echo > /dev/tcp/{address}/{port}'");
    shell(hosts, from, &script).await.code == Some(0)
}

fn test() {
    if !support::can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Utf8PathBuf::from_path_buf(dir.path().join("node")).unwrap();
    std::fs::create_dir(&node).unwrap();
    debian();
    let mut holder = Command::new("/proc/self/exe")
        .args(["holder", node.as_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(holder.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        println!("  {line}");
        if line == "ready" {
            break;
        }
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    let mut orphan = half_made(&node);
    runtime().block_on(async {
        println!("hosts survive the node, and another node finds them");
        assert_eq!(greeting(first().address).await.as_deref(), Some("I am the first"));
        let (containers, hosts) = open(&node).await;
        println!("what the node had not finished is gone at once, and can be made again");
        remade(&containers, &hosts, &mut orphan).await;
        survivors_are_managed(&hosts).await;
        println!("hosts reach what they may");
        isolation(&hosts).await;
        println!("rules that somebody flushed come back");
        flushed(&containers, &hosts, &node).await;
        overlapped(&hosts, &node).await;
        println!("limits hold");
        limits(&hosts).await;
        println!("what a host puts in the place of its socket is not followed");
        impostor(&hosts, &node).await;
        println!("a host stops and keeps its logs");
        stopping(&hosts, &node).await;
        containers.teardown_all().await.unwrap();
        let tag = tag_of(&node.canonicalize_utf8().unwrap());
        assert_eq!(machine_state(&tag), Vec::<String>::new());
    });
    println!("test hosts ... ok");
}

/// As a node leaves it that dies between making a container and starting it; and a process that no record tells of.
fn half_made(node: &Utf8Path) -> Child {
    let record = node.join("containers/h-other/record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    assert!(text.contains(r#""started":true"#), "{text}");
    std::fs::write(&record, text.replace(r#""started":true"#, r#""started":false"#)).unwrap();
    let parent = format!("vend-{}", tag_of(&node.canonicalize_utf8().unwrap()));
    let hierarchies =
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|mount| Utf8Path::new(mount).join(&parent));
    let parent = hierarchies.iter().find(|parent| parent.exists()).unwrap();
    let group = parent.join("bake-orphan");
    std::fs::create_dir(&group).unwrap();
    let sleep = Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(group.join("cgroup.procs"), sleep.id().to_string()).unwrap();
    sleep
}

async fn remade(containers: &Containers, hosts: &Hosts, orphan: &mut Child) {
    assert!(
        containers
            .list()
            .iter()
            .all(|seen| seen.id != "h-other" && seen.id != "bake-orphan")
    );
    assert!(!orphan.wait().unwrap().success());
    hosts.start(&"t-again".parse().unwrap(), &other()).await.unwrap();
}

async fn survivors_are_managed(hosts: &Hosts) {
    let seen = hosts.list().await.unwrap();
    assert_eq!(seen.len(), 3);
    for host in &seen {
        println!(
            "  {} {:?} {} MiB {} processes",
            host.host,
            host.state,
            host.memory_bytes >> 20,
            host.pids
        );
        assert_eq!((host.state, host.configured), (HostState::Running, true));
        assert!(
            host.disk_bytes
                .is_some_and(|used| Some(used) < host.disk_total_bytes),
            "{host:?}"
        );
        assert!(host.pids >= 2 && host.memory_bytes > 0);
    }
    // The same ticket gives the first answer; another ticket finds the host as it is; another order is refused.
    let again = hosts.start(&ticket(&first()), &first()).await.unwrap();
    assert_eq!(again.address, first().address);
    hosts.start(&"t-new".parse().unwrap(), &first()).await.unwrap();
    let mut changed = first();
    changed.port = 9090;
    let refused = hosts
        .start(&"t-changed".parse().unwrap(), &changed)
        .await
        .unwrap_err();
    assert_eq!(refused.blame, Blame::Order);
    let whoami = shell(
        hosts,
        "h-first",
        "id -un; hostname; cat /proc/1/cmdline | tr '\\0' ' '",
    )
    .await;
    assert_eq!(whoami.stdout, "root\nh-first\n/usr/lib/vend/vend agent ");
}

async fn isolation(hosts: &Hosts) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(
        reaches(hosts, "h-first", second().address, 8080).await,
        "hosts of one environment"
    );
    assert!(
        !reaches(hosts, "h-first", other().address, 8080).await,
        "hosts of two environments"
    );
    for machine in [own_address(), [10, 213, 7, 1].into(), [10, 213, 8, 1].into()] {
        assert!(!reaches(hosts, "h-first", machine, port).await, "{machine}");
    }
    let tools = shell(
        hosts,
        "h-first",
        "ls /run/vend; cat /etc/resolv.conf; cat /proc/net/if_inet6; df / | tail -1",
    )
    .await;
    println!("  {}", tools.stdout.replace('\n', "\n  "));
}

async fn flushed(containers: &Containers, hosts: &Hosts, node: &Utf8Path) {
    let table = format!("vend_{}", tag_of(&node.canonicalize_utf8().unwrap()));
    let deleted = Command::new("nft")
        .args(["delete", "table", "inet", &table])
        .status()
        .unwrap();
    assert!(deleted.success());
    containers.networks().guard().await.unwrap();
    assert!(!reaches(hosts, "h-first", other().address, 8080).await);
    assert!(reaches(hosts, "h-first", second().address, 8080).await);
    let mut overlapping = order("h-overlap", 9, 4, "");
    overlapping.network.subnet = first().network.subnet;
    overlapping.address = Ipv4Addr::new(10, 213, 7, 4);
    let refused = hosts
        .start(&"t-overlap".parse().unwrap(), &overlapping)
        .await
        .unwrap_err();
    assert!(
        refused.blame == Blame::Order && refused.message.contains("overlaps"),
        "{refused}"
    );
}

/// The machine gets an address of a subnet that is in use: a node that starts then does not take the bridge away.
async fn overlapped(hosts: &Hosts, node: &Utf8Path) {
    let lo = |verb: &str| {
        let status = Command::new("ip")
            .args(["address", verb, "10.213.7.77/32", "dev", "lo"])
            .status();
        assert!(status.unwrap().success());
    };
    lo("add");
    let networks = host::network::Networks::open(&tag_of(&node.canonicalize_utf8().unwrap())).await;
    let refused = networks.unwrap().ensure(&first().network).await;
    lo("del");
    assert!(refused.is_err());
    assert!(reaches(hosts, "h-first", second().address, 8080).await);
}

async fn limits(hosts: &Hosts) {
    let eaten = shell(hosts, "h-first", "head -c 300M /dev/zero | tail > /dev/null").await;
    assert_ne!(eaten.code, Some(0));
    let forked = shell(hosts, "h-first", "for i in $(seq 100); do sleep 3 & done; wait").await;
    assert!(
        forked.stderr.contains("Resource temporarily unavailable"),
        "{}",
        forked.stderr
    );
    let filled = shell(
        hosts,
        "h-first",
        "head -c 300M /dev/zero > /run/vend/fill; rm /run/vend/fill",
    )
    .await;
    assert!(filled.stderr.contains("No space left"), "{}", filled.stderr);
    assert_eq!(
        greeting(second().address).await.as_deref(),
        Some("I am the second"),
        "its neighbour is well"
    );
}

async fn impostor(hosts: &Hosts, node: &Utf8Path) {
    let secret = node.join("machine.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&secret).unwrap();
    let script = format!("mv /run/vend/agent.sock /run/vend/kept; ln -s {secret} /run/vend/agent.sock");
    shell(hosts, "h-other", &script).await;
    let host: HostId = "h-other".parse().unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(3), hosts.agent(&host).health()).await;
    assert!(answer.expect("it is refused at once").is_err());
}

async fn stopping(hosts: &Hosts, node: &Utf8Path) {
    let console = hosts
        .log(&"host/h-first/web".parse().unwrap(), 0)
        .await
        .unwrap()
        .unwrap();
    assert!(console.text.contains("serving"), "{}", console.text);
    let busy = hosts.remove_network(&first().network).await.unwrap_err();
    assert_eq!(busy.blame, Blame::Order);
    for order in [first(), second(), other()] {
        hosts.stop(&order.host).await.unwrap();
        hosts.stop(&order.host).await.unwrap();
    }
    assert!(hosts.list().await.unwrap().is_empty());
    let kept = std::fs::read_to_string(node.join("logs/host/h-first/web")).unwrap();
    assert!(kept.contains("serving"));
    hosts.remove_network(&first().network).await.unwrap();
    hosts.remove_network(&first().network).await.unwrap();
}
