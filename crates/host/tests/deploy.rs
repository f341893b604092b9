//! A deployment to a real host, whose node is killed in the middle: it is finished once, and its log stays.
//!
//! This binary plays every role: `agent` inside hosts, `holder` is a node that gets killed, otherwise the test.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use camino::{Utf8Path, Utf8PathBuf};
use host::{
    container::{Containers, tag_of},
    deploy::Deployer,
    hosts::Hosts,
    logs, objects,
    ticket::Tickets,
};
use jiff::Timestamp;
use model::{
    DeploymentId, Digest, HostId, Secret, Ticket,
    port::{
        CheckOrder, DeployOrder, Deployer as _, EventStatus, HostOrder, HostRole, Hosts as _, LifecycleEvent,
        Logs as _, Network, Resources,
    },
    spec::Checks,
};
use support::{debian, machine_state};

const HOOK: &str = "#!/bin/sh\necho \"$LIFECYCLE_EVENT with $API_TOKEN\"\nsleep 2\necho ran >> /var/ran\n";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("agent") => host::agent::main(),
        Some("holder") => runtime().block_on(holder(Utf8Path::new(&args[2]))),
        // Nothing is ignored here: test runners ask for that list too.
        Some("--list") if args.iter().any(|arg| arg == "--ignored") => {}
        Some("--list") => println!("deploy: test"),
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

struct Node {
    containers: Containers,
    hosts: Hosts,
    deployer: Deployer,
    objects: objects::Directory,
    logs: logs::Directory,
}

async fn open(node: &Utf8Path) -> Node {
    let containers = Containers::open(node).await.unwrap();
    let node = node.canonicalize_utf8().unwrap();
    let tickets = Tickets::open(&node, Timestamp::UNIX_EPOCH).unwrap();
    let lowers = Arc::new(|_: &Digest| Ok(vec![debian()]));
    let hosts = Hosts::new(node.clone(), containers.clone(), tickets.clone(), lowers).unwrap();
    let objects = objects::Directory::open(&node, 1 << 30).unwrap();
    let logs = logs::Directory::open(&node).unwrap();
    Node {
        deployer: Deployer::new(hosts.clone(), objects.clone(), logs.clone(), tickets),
        containers,
        hosts,
        objects,
        logs,
    }
}

fn host() -> HostId {
    "h-deploy".parse().unwrap()
}

fn host_order() -> HostOrder {
    HostOrder {
        host: host(),
        place: "acme/shop/dev".parse().unwrap(),
        role: HostRole::App,
        image: Digest::of("image"),
        network: Network {
            number: 19,
            subnet: Ipv4Addr::new(10, 213, 19, 0),
            prefix: 24,
        },
        address: Ipv4Addr::new(10, 213, 19, 2),
        uid_base: 4_000_000,
        resources: Resources {
            cpu: 1.0,
            memory_mib: 128,
            disk_mib: 128,
            pids: 64,
        },
        port: 8080,
        secrets: BTreeSet::new(),
        environment: BTreeMap::from([("API_TOKEN".into(), Secret::new("t0p-s3cret".into()))]),
        processes: BTreeMap::new(),
    }
}

fn revision(hook: &str) -> Vec<u8> {
    let appspec = "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: /srv/shop\nhooks:\n  \
        AfterInstall:\n    - location: hook.sh\n";
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in [("appspec.yml", appspec), ("page", "hello"), ("hook.sh", hook)] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn order(node: &Node, deployment: u64, hook: &str) -> DeployOrder {
    DeployOrder {
        deployment: DeploymentId::from_bits(deployment),
        place: "acme/shop/dev".parse().unwrap(),
        host: host(),
        revision: node
            .objects
            .keep(revision(hook).as_slice(), "revision".into())
            .unwrap(),
        appspec: Some("appspec.yml".into()),
        events: LifecycleEvent::BEFORE_TRAFFIC.to_vec(),
        migration: None,
        ignores_stop: false,
        commit: None,
    }
}

/// Starts the host and a deployment, and is killed in the middle of a hook.
async fn holder(node: &Utf8Path) {
    let node = open(node).await;
    let ticket = Ticket::from_bits(1);
    node.hosts
        .start(&ticket.part("host"), &host_order())
        .await
        .unwrap();
    let order = order(&node, 1, HOOK);
    let deploying = tokio::spawn({
        let (deployer, ticket) = (node.deployer.clone(), ticket.clone());
        async move { deployer.deploy(&ticket, &order).await }
    });
    let log = format!("deploy/{ticket}").parse().unwrap();
    while !node
        .logs
        .read(&log, 0)
        .await
        .unwrap()
        .text
        .contains("AfterInstall with")
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("hook");
    println!("{:?}", deploying.await);
}

fn test() {
    if !support::can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().join("node")).unwrap();
    std::fs::create_dir(&path).unwrap();
    debian();
    let mut holder = Command::new("/proc/self/exe")
        .args(["holder", path.as_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "hook");
    holder.kill().unwrap();
    holder.wait().unwrap();
    runtime().block_on(async {
        let node = open(&path).await;
        Box::pin(finished_once(&node)).await;
        Box::pin(failure_has_evidence(&node)).await;
        checked(&node).await;
        node.containers.teardown_all().await.unwrap();
        let tag = tag_of(&path.canonicalize_utf8().unwrap());
        assert_eq!(machine_state(&tag), Vec::<String>::new());
    });
    println!("test deploy ... ok");
}

async fn finished_once(node: &Node) {
    println!("a deployment whose node was killed is finished, and its hook ran once");
    let ticket = Ticket::from_bits(1);
    let order = order(node, 1, HOOK);
    let deployed = node.deployer.deploy(&ticket, &order).await.unwrap();
    assert!(deployed.failure().is_none(), "{deployed:?}");
    assert_eq!(node.deployer.deploy(&ticket, &order).await.unwrap(), deployed);
    let log = node.logs.read(&deployed.log, 0).await.unwrap();
    assert!(
        log.ended && log.text.contains("AfterInstall with ***"),
        "{}",
        log.text
    );
}

async fn failure_has_evidence(node: &Node) {
    println!("a failed hook is an answer, and its log stays when the host is gone");
    let order = order(node, 2, "#!/bin/sh\necho no such luck >&2\nexit 5\n");
    let deployed = node.deployer.deploy(&Ticket::from_bits(2), &order).await.unwrap();
    let report = deployed.failure().unwrap();
    assert_eq!(
        (report.event, report.status),
        (LifecycleEvent::AfterInstall, EventStatus::Failed)
    );
    let log = node.logs.read(&deployed.log, 0).await.unwrap();
    assert!(log.text.contains("no such luck"), "{}", log.text);
    let elsewhere = DeployOrder {
        host: "h-none".parse().unwrap(),
        ..order
    };
    let fault = node
        .deployer
        .deploy(&Ticket::from_bits(3), &elsewhere)
        .await
        .unwrap_err();
    assert!(fault.message.contains("h-none"), "{fault:?}");
}

async fn checked(node: &Node) {
    println!("checks look at the host");
    let text = "file:\n  /srv/shop/page:\n    exists: true\n    contains: [hello]\ncommand:\n  wc -l < /var/ran:\n    \
        exit-status: 0\n    stdout: [\"/^1$/\"]\nprocess:\n  none:\n    running: true\n";
    let (checks, _) = Checks::parse(text, "checks.yml").unwrap();
    let order = CheckOrder { host: host(), checks };
    let verdict = node.deployer.check(&order).await.unwrap();
    let failed: Vec<&str> = verdict
        .results
        .iter()
        .filter(|result| !result.passed)
        .map(|result| result.kind.as_str())
        .collect();
    assert_eq!(failed, ["process"], "{verdict:#?}");
}
