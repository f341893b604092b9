//! The load balancer beside nginx, HAProxy and Caddy: each with one worker on one core, the load and the targets on
//! another, in rounds that take turns. The machine may be busy: processor time a request and ratios mean something then,
//! times do not.

mod loads;
mod lost;
mod peers;
mod process;

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    loads::{CASES, Case, Load},
    peers::{PEERS, Peer},
    process::{Process, Proxy},
};
use super::{Bench, Table, table::median};

/// Connections that are held idle, where there may be so many files.
const IDLE: u64 = 10_000;
/// Hosts with which everything is measured that does not depend on how many there are.
const MIDDLE: u32 = 10_000;

/// One proxy with so many hosts, in front of `origin`.
pub struct Setup<'a> {
    pub home: &'a Path,
    pub hosts: u32,
    pub http: u16,
    pub https: u16,
    pub origin: SocketAddr,
    /// PEM, chain and key in one.
    pub certificate: &'a Path,
    /// Connections of clients that it may be given.
    pub clients: u64,
}

/// How many connections can be held: each is a file here, and a proxy reckons with two of its own.
fn clients() -> anyhow::Result<u64> {
    const OTHERS: u64 = 512;
    let wanted = 2 * IDLE + 4 * OTHERS;
    let raised = Rlimit {
        current: Some(wanted),
        maximum: Some(wanted),
    };
    let files = getrlimit(Resource::Nofile).maximum;
    let most = match files {
        Some(files) if files < wanted && setrlimit(Resource::Nofile, raised).is_err() => files,
        _ => wanted,
    };
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Nofile, limit).context("cannot raise the number of open files")?;
    Ok(IDLE.min(most.saturating_sub(2 * OTHERS) / 2))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The whole matrix takes about half an hour, `--quick` a few minutes. `--only` is a case's name or a part of several, `idle`,
/// `lost` or `change`.
pub fn run(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let binary = options.release()?;
    let home = crate::target().join("bench/edge");
    if home.exists() {
        fs::remove_dir_all(&home).context("cannot empty the directory of the run before")?;
    }
    fs::create_dir_all(&home)?;
    let clients = clients()?;
    if clients < IDLE {
        table.note(format!(
            "only {clients} connections were held idle, not {IDLE}: no more files may be open here, and the limit may not \
             be raised"
        ));
    }
    for peer in PEERS.iter().filter(|peer| !peer.is_there()) {
        table.note(format!("{} was not measured: it is not installed", peer.name));
    }
    let certificate = certificate(&home)?;
    let (_origin, address) = origin(&home)?;
    let (hosts, rounds, seconds): (&[u32], u32, u32) = match options.quick {
        true => (&[MIDDLE], 2, 2),
        false => (&[1, 1_000, MIDDLE, 100_000], 5, 3),
    };
    let started = load_average()?;
    let mut sizes = Sizes::new();
    let apart = ["lost", "change"].contains(&options.only.as_deref().unwrap_or_default());
    for hosts in hosts.iter().filter(|_| !apart) {
        let run = Run {
            home: &home,
            binary: &binary,
            origin: address,
            certificate: &certificate,
            hosts: *hosts,
            clients,
            rounds,
            seconds,
            only: options.only.as_deref(),
        };
        run.compare(&mut sizes, table)?;
    }
    per_rules(&sizes, table);
    if wanted(options.only.as_deref(), "lost") {
        lost::run(&binary, &home, address, options.quick, table)?;
    }
    changes(options, table)?;
    table.note(format!(
        "load at the start: {started}; at the end: {}",
        load_average()?
    ));
    Ok(())
}

/// A case that has just this name is meant alone.
fn wanted(only: Option<&str>, name: &str) -> bool {
    let exactly = |only: &str| CASES.iter().any(|case| case.name == only);
    only.is_none_or(|only| name == only || (!exactly(only) && name.contains(only)))
}

fn load_average() -> anyhow::Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?.trim().to_owned())
}

/// MB of each peer by its number of hosts, before any load.
type Sizes = BTreeMap<&'static str, BTreeMap<u32, f64>>;

fn per_rules(sizes: &Sizes, table: &mut Table) {
    for (peer, sizes) in sizes {
        if let (Some((few, least)), Some((many, most))) = (sizes.first_key_value(), sizes.last_key_value())
            && many > few
        {
            let each = (most - least) / f64::from(many - few) * 10_000.0;
            table.row(format!("memory of 10,000 host rules: {peer}"), "MB", &[each]);
        }
    }
}

struct Run<'a> {
    home: &'a Path,
    binary: &'a Path,
    origin: SocketAddr,
    certificate: &'a Path,
    hosts: u32,
    clients: u64,
    rounds: u32,
    seconds: u32,
    only: Option<&'a str>,
}

type Running = Vec<(&'static Peer, Proxy)>;

impl Run<'_> {
    fn setup<'a>(&'a self, home: &'a Path, http: u16, https: u16) -> Setup<'a> {
        Setup {
            home,
            hosts: self.hosts,
            http,
            https,
            origin: self.origin,
            certificate: self.certificate,
            clients: self.clients,
        }
    }

    fn start(&self) -> anyhow::Result<Running> {
        let mut running = Vec::new();
        for peer in PEERS
            .iter()
            .filter(|peer| self.hosts <= peer.most && peer.is_there())
        {
            let name = peer.name.replace(", ", "-");
            let home = self.home.join(format!("{name}-{}", self.hosts));
            fs::create_dir_all(&home)?;
            let (http, https) = (free()?, free()?);
            let command = (peer.start)(&self.setup(&home, http, https), self.binary)?;
            let process = Process::pinned("1", &command, &home)?;
            let proxy = Proxy {
                process,
                home,
                http,
                https,
            };
            proxy
                .wait(self.hosts)
                .with_context(|| format!("{} does not serve {} hosts", peer.name, self.hosts))?;
            running.push((peer, proxy));
        }
        Ok(running)
    }

    fn compare(&self, sizes: &mut Sizes, table: &mut Table) -> anyhow::Result<()> {
        let running = self.start()?;
        for (peer, proxy) in &running {
            let size = proxy.process.memory();
            sizes.entry(peer.name).or_default().insert(self.hosts, size);
            table.row(
                format!("{} hosts, memory: {}", self.hosts, peer.name),
                "MB",
                &[size],
            );
        }
        let here = |case: &&Case| case.everywhere || self.hosts == MIDDLE;
        for case in CASES
            .iter()
            .filter(here)
            .filter(|case| wanted(self.only, case.name))
        {
            self.load(case, &running, table)?;
        }
        if self.hosts == MIDDLE && wanted(self.only, "idle") {
            for (peer, proxy) in &running {
                let taken = proxy.idle(self.hosts, self.clients)?;
                table.row(
                    format!("memory of {} idle connections: {}", self.clients, peer.name),
                    "MB",
                    &[taken],
                );
            }
        }
        Ok(())
    }

    /// One case, in rounds that take turns.
    fn load(&self, case: &Case, running: &Running, table: &mut Table) -> anyhow::Result<()> {
        let mut seen: Vec<Vec<(f64, Load)>> = vec![Vec::new(); running.len()];
        for (_, proxy) in running {
            proxy.process.pause();
        }
        for _ in 0..self.rounds {
            for ((peer, proxy), seen) in running.iter().zip(&mut seen) {
                proxy.process.resume();
                let before = proxy.process.processor();
                let setup = self.setup(&proxy.home, proxy.http, proxy.https);
                let load = case
                    .run(&setup, self.seconds)
                    .with_context(|| format!("{} hosts, {}: {}", self.hosts, case.name, peer.name));
                let used = proxy.process.processor() - before;
                proxy.process.pause();
                match load {
                    Ok(None) => {}
                    Ok(Some(load)) => {
                        seen.push((used * 1e6 / load.requests, load));
                    }
                    Err(error) if peer.program == "vend" => return Err(error),
                    // What another loses is worth saying, and no reason to measure nothing more.
                    Err(error) => table.note(format!("{error:#}")),
                }
            }
        }
        for (_, proxy) in running {
            proxy.process.resume();
        }
        let used = |seen: &[(f64, Load)]| seen.iter().map(|(used, _)| *used).collect::<Vec<f64>>();
        let ours = seen.first().and_then(|seen| median(&used(seen)));
        for ((peer, _), seen) in running.iter().zip(&seen) {
            let ratio = match (ours, median(&used(seen))) {
                (Some(ours), Some(theirs)) if theirs > 0.0 && peer.program != "vend" => {
                    format!(" (vend is {:.2} of it)", ours / theirs)
                }
                _ => String::new(),
            };
            let name = format!("{} hosts, {}: {}", self.hosts, case.name, peer.name);
            table.row(format!("{name}{ratio}"), "µs", &used(seen));
            let a_second: Vec<f64> = seen.iter().map(|(_, load)| load.a_second).collect();
            table.row(format!("{name}: a second"), "", &a_second);
            for (index, part) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
                let at = |(_, load): &(f64, Load)| load.latencies.get(index).copied();
                let values: Vec<f64> = seen.iter().filter_map(at).collect();
                if !values.is_empty() {
                    table.row(format!("{name}: {part}"), "ms", &values);
                }
            }
        }
        Ok(())
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

fn free() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn certificate(home: &Path) -> anyhow::Result<PathBuf> {
    let folder = home.join("certificates");
    fs::create_dir_all(&folder)?;
    let (key, chain, both) = (home.join("key"), home.join("chain"), folder.join("default.pem"));
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
    ])
    .args([
        "-subj",
        "/CN=bench.test",
        "-addext",
        "subjectAltName=DNS:*.test",
        "-keyout",
    ])
    .arg(&key)
    .arg("-out")
    .arg(&chain)
    .stderr(Stdio::null());
    crate::step("a certificate", make)?;
    fs::write(&both, fs::read_to_string(chain)? + &fs::read_to_string(key)?)?;
    Ok(both)
}

/// Targets: one nginx that answers from memory.
fn origin(home: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let port = free()?;
    let folder = home.join("origin");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("large"), vec![b'x'; 1 << 20])?;
    let at = folder.display();
    let config = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600; sendfile on;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; root {at}; location / {{ return 200 \"ok\"; }}\n\
         location /large {{ }} }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), config)?;
    let file = folder.join("nginx.conf").display().to_string();
    let process =
        Process::pinned("0", &words(&["nginx", "-c", &file]), &folder).context("the targets need nginx")?;
    Ok((process, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// What a change of a large table costs, by the example of the crate.
fn changes(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    if !wanted(options.only.as_deref(), "change") {
        return Ok(());
    }
    let build = crate::cargo([
        "build",
        "--release",
        "--package",
        "edge",
        "--example",
        "change",
        "--quiet",
    ]);
    crate::step("the release build of the changes", build)?;
    let program = crate::target()
        .join(env!("TARGET"))
        .join("release/examples/change");
    let folder = crate::target().join("bench/edge/changes");
    fs::create_dir_all(&folder)?;
    for start in [&[][..], &["start"]] {
        let output = Command::new(&program)
            .arg("100000")
            .arg(&folder)
            .args(start)
            .output()?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            table.note(format!("100,000 hosts: {line}"));
        }
    }
    Ok(())
}
