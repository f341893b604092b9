//! An edge on its own, for measuring: `alone LISTEN TARGET HOSTS FOLDER [log]`.
//!
//! Every host `h0.test` … has a rule and a target group of its own, with health checks, all to the same target.

use std::{net::SocketAddr, time::Duration};

use camino::Utf8PathBuf;
use jiff::SignedDuration;
use model::route::{
    Action, Conditions, HealthCheck, Own, Rule, Table, Target, TargetGroup, Transforms, Weighted,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, hosts, folder, options @ ..] = args.as_slice() else {
        return Err("usage: alone LISTEN TARGET HOSTS FOLDER [log]".into());
    };
    let folder = Utf8PathBuf::from(folder);
    let table = table(target.parse()?, hosts.parse()?)?;
    let client = edge::Client::new(folder.join("edge.sock"));
    let config = edge::Config {
        listeners: vec![edge::Listener::http(std::net::TcpListener::bind(listen)?)],
        admin: folder.join("edge.sock"),
        snapshot: folder.join("table.log"),
        plain_http: true,
        workers: 1,
        access_log: options
            .iter()
            .any(|o| o == "log")
            .then(|| edge::Log::short(folder.join("access.log"))),
        metrics: None,
        limits: edge::Limits::default(),
        acme: None,
        datagrams: Vec::new(),
        dns: None,
        secrets: folder.join("secrets"),
        roots: None,
        zone: None,
        limited: None,
        unbound: Vec::new(),
        tidy: || (),
    };
    let apply = async {
        while client.version().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let started = std::time::Instant::now();
        match client.apply(&table).await {
            Ok(version) => println!("table {version} in force after {:?}", started.elapsed()),
            Err(error) => println!("{error}"),
        }
        std::future::pending().await
    };
    Ok(edge::run(config, async {
        tokio::select! {
            () = apply => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
    .await?)
}

fn table(target: SocketAddr, hosts: u32) -> Result<Table, Failure> {
    let place: model::Place = "bench/alone/dev".parse()?;
    let mut table = Table {
        version: 1,
        ..Table::default()
    };
    for n in 0..hosts {
        let group = format!("g{n}");
        table.rules.push(Rule {
            priority: n + 1,
            place: place.clone(),
            hosts: vec![format!("h{n}.test")],
            paths: Vec::new(),
            conditions: Conditions::default(),
            transforms: Transforms::default(),
            access: Vec::new(),
            own: Own::default(),
            authenticate: None,
            action: Action::Forward {
                groups: vec![Weighted {
                    group: group.clone(),
                    weight: 1,
                }],
                stickiness: None,
            },
        });
        table.target_groups.insert(group, group_of(target));
    }
    Ok(table)
}

fn group_of(address: SocketAddr) -> TargetGroup {
    TargetGroup {
        targets: vec![Target {
            id: "h-1".into(),
            address,
        }],
        health: HealthCheck {
            path: "/health".into(),
            interval: SignedDuration::from_secs(30),
            timeout: SignedDuration::from_secs(2),
            healthy: 2,
            unhealthy: 2,
            codes: vec![(200, 399)],
            ..HealthCheck::default()
        },
        deregistration_delay: SignedDuration::from_secs(30),
        ..TargetGroup::default()
    }
}
