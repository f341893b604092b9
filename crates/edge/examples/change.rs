//! What a large table costs: `change HOSTS FOLDER [start]`. With `start`, from the snapshot of a run before.
//!
//! Every host has a rule and a group of its own. Prints the memory that the table takes and, for changes of one host,
//! the time to the first effect as a client sees it and to the edge's word.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use camino::Utf8PathBuf;
use model::route::{
    Action, Conditions, Delta, HealthCheck, Own, Rule, Table, Target, TargetGroup, Transforms, Weighted,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [hosts, folder, options @ ..] = args.as_slice() else {
        return Err("usage: change HOSTS FOLDER [start]".into());
    };
    let (hosts, folder) = (hosts.parse()?, Utf8PathBuf::from(folder));
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let config = edge::Config {
        listeners: vec![edge::Listener::http(listener)],
        admin: folder.join("edge.sock"),
        snapshot: folder.join("table.log"),
        workers: 1,
        access_log: None,
        metrics: None,
        limits: edge::Limits::default(),
        acme: None,
        datagrams: Vec::new(),
        dns: None,
        secrets: folder.join("secrets"),
        roots: None,
        zone: None,
    };
    let before = resident();
    let client = edge::Client::new(folder.join("edge.sock"));
    let start = options.iter().any(|option| option == "start");
    let started = Instant::now();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(edge::run(config, std::future::pending()));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        while client.version().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if start {
            println!("started in {:?}", started.elapsed());
        } else {
            let applied = Instant::now();
            client.apply(&table(hosts)).await?;
            println!("the whole table: {:?}", applied.elapsed());
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!("memory: {:.1} MB, of which {:.1} before", resident(), before);
        changes(&client, address, hosts).await
    })
}

async fn changes(client: &edge::Client, address: SocketAddr, hosts: u32) -> Result<(), Failure> {
    let mut version = client.version().await?;
    let (mut effects, mut words) = (Vec::new(), Vec::new());
    for n in 0..50 {
        let host = n * 997 % hosts;
        let status = if n % 2 == 0 { 201 } else { 202 };
        let delta = Delta {
            from: Some(version),
            version: version + 1,
            rules: vec![Rule {
                action: fixed(status),
                ..rule(host)
            }],
            ..Delta::default()
        };
        let seen = std::thread::spawn(move || first_effect(address, host, status));
        std::thread::sleep(Duration::from_millis(20));
        let asked = Instant::now();
        version = client.change(&delta).await?;
        words.push(asked.elapsed());
        let at = seen.join().map_err(|_| "the client has failed")??;
        effects.push(at.saturating_duration_since(asked));
        client
            .change(&Delta {
                from: Some(version),
                version: version + 1,
                rules: vec![rule(host)],
                ..Delta::default()
            })
            .await?;
        version += 1;
    }
    for (name, mut times) in [("first effect", effects), ("the edge's word", words)] {
        times.sort();
        println!(
            "{name}: median {:?}, p90 {:?}, longest {:?}",
            times[25], times[45], times[49]
        );
    }
    Ok(())
}

/// When a client that asks all the time gets this status for the first time.
fn first_effect(address: SocketAddr, host: u32, status: u16) -> std::io::Result<Instant> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let request = format!("GET / HTTP/1.1\r\nHost: h{host}.test\r\n\r\n");
    let wanted = format!("HTTP/1.1 {status}");
    let mut answer = [0; 4096];
    loop {
        stream.write_all(request.as_bytes())?;
        let length = stream.read(&mut answer)?;
        if answer[..length].starts_with(wanted.as_bytes()) {
            return Ok(Instant::now());
        }
        if length == 0 {
            stream = TcpStream::connect(address)?;
        }
        // A client that never rests would be waited for by whoever shares its core.
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn fixed(status: u16) -> Action {
    Action::FixedResponse {
        status,
        content_type: "text/plain".into(),
        body: "changed".into(),
    }
}

fn table(hosts: u32) -> Table {
    let group = TargetGroup {
        targets: vec![Target {
            id: "h-1".into(),
            address: ([127, 0, 0, 1], 9).into(),
        }],
        health: HealthCheck {
            interval: jiff::SignedDuration::from_secs(300),
            ..HealthCheck::default()
        },
        ..TargetGroup::default()
    };
    Table {
        version: 1,
        rules: (0..hosts).map(rule).collect(),
        target_groups: (0..hosts).map(|n| (format!("g{n}"), group.clone())).collect(),
    }
}

fn rule(n: u32) -> Rule {
    Rule {
        priority: n + 1,
        place: "bench/alone/dev".parse().expect("it is a place"),
        hosts: vec![format!("h{n}.test")],
        paths: Vec::new(),
        conditions: Conditions::default(),
        transforms: Transforms::default(),
        own: Own::default(),
        authenticate: None,
        action: Action::Forward {
            groups: vec![Weighted {
                group: format!("g{n}"),
                weight: 1,
            }],
            stickiness: None,
        },
    }
}

/// Resident memory of this process, in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kb.unwrap_or_default() / 1024.0
}
