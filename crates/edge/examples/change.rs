//! What a large table costs: `change HOSTS FOLDER [start]`. With `start`, from the snapshot of a run before.
//!
//! Every host has a rule and a group of its own. The edge is a process of its own. Prints the memory that it takes and,
//! for changes of one host, the time to the first effect as a client sees it and to the edge's word.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::route::{
    Action, Conditions, Delta, HealthCheck, Own, Rule, Table, Target, TargetGroup, Transforms, Weighted,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args.as_slice() {
        ["serve", folder] => serve(Utf8Path::new(folder)),
        [hosts, folder] => measure(hosts.parse()?, Utf8Path::new(folder), false),
        [hosts, folder, "start"] => measure(hosts.parse()?, Utf8Path::new(folder), true),
        _ => Err("usage: change HOSTS FOLDER [start]".into()),
    }
}

/// The edge alone, until its parent ends.
fn serve(folder: &Utf8Path) -> Result<(), Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let config = edge::Config {
        listeners: vec![edge::Listener::http(listener)],
        admin: folder.join("edge.sock"),
        snapshot: folder.join("table.log"),
        plain_http: true,
        workers: 1,
        access_log: None,
        metrics: None,
        limits: edge::Limits::default(),
        acme: None,
        datagrams: Vec::new(),
        dns: None,
        secrets: folder.join("secrets"),
        roots: None,
        limited: None,
        unbound: Vec::new(),
        zone: None,
        tidy,
    };
    let end = async {
        let (sender, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read(&mut [0]);
            sender.send(())
        });
        let _ = ended.await;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(edge::run(config, end))?)
}

/// As `vend` does.
#[allow(unsafe_code)]
fn tidy() {
    // SAFETY: it may be called at any time by any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

fn measure(hosts: u32, folder: &Utf8Path, start: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let mut edge = Command::new(std::env::current_exe()?)
        .args(["serve", folder.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(edge.stdout.take().ok_or("it says nothing")?).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse()?;
    let client = edge::Client::new(Utf8PathBuf::from(folder).join("edge.sock"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        while client.version().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if start {
            println!("started in {:?}", started.elapsed());
        } else {
            println!("before: {}", memory(&edge)?);
            let applied = Instant::now();
            client.apply(&table(hosts)).await?;
            println!("the whole table: {:?}", applied.elapsed());
        }
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            println!("memory: {}", memory(&edge)?);
        }
        changes(&client, address, hosts).await?;
        println!("after changes: {}", memory(&edge)?);
        Ok(())
    });
    edge.kill()?;
    edge.wait()?;
    done
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
        access: Vec::new(),
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

/// Memory of a process in MB: its own part of what it has (PSS), what no file is behind, and the most it ever had.
fn memory(edge: &Child) -> Result<String, Failure> {
    let folder = format!("/proc/{}", edge.id());
    let of = |file: &str, name: &str| -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("{folder}/{file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        Ok(kb.ok_or("the kernel does not say it")? / 1024.0)
    };
    let (pss, anonymous) = (of("smaps_rollup", "Pss:")?, of("smaps_rollup", "Anonymous:")?);
    let most = of("status", "VmHWM:")?;
    Ok(format!(
        "PSS {pss:.1} MB, of which {anonymous:.1} belong to no file; at most {most:.1} resident"
    ))
}
