//! The load balancer beside nginx, HAProxy and Caddy: each with one worker on one core, the load and the targets on
//! another, in rounds that take turns. The machine may be busy: processor time a request and ratios mean something then,
//! times do not.

mod peers;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use self::peers::{PEERS, Peer};
use super::{Bench, Table, table::median};

/// One proxy with so many hosts, in front of `origin`.
pub struct Setup<'a> {
    pub home: &'a Path,
    pub hosts: u32,
    pub http: u16,
    pub https: u16,
    pub origin: SocketAddr,
    /// PEM, chain and key in one.
    pub certificate: &'a Path,
}

/// A kind of load: its name, and the command that makes it.
type Case = (&'static str, fn(&Setup<'_>, u32) -> Vec<String>);

const CASES: [Case; 6] = [
    ("small body", |s, seconds| {
        wrk(&format!("http://127.0.0.1:{}/small", s.http), s, seconds)
    }),
    ("1 MiB body", |s, seconds| {
        wrk(&format!("http://127.0.0.1:{}/large", s.http), s, seconds)
    }),
    ("small body, TLS", |s, seconds| {
        wrk(&format!("https://127.0.0.1:{}/small", s.https), s, seconds)
    }),
    ("small body, HTTP/2 in TLS", |s, seconds| {
        let url = format!("https://127.0.0.1:{}/small", s.https);
        let host = format!(":authority: h{}.test", s.hosts / 2);
        words(&[
            "h2load",
            "-c16",
            "-m16",
            "-D",
            &seconds.to_string(),
            "-H",
            &host,
            &url,
        ])
    }),
    ("handshake, new", |s, seconds| handshakes(s, seconds, "-new")),
    ("handshake, resumed", |s, seconds| {
        handshakes(s, seconds, "-reuse")
    }),
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn wrk(url: &str, setup: &Setup<'_>, seconds: u32) -> Vec<String> {
    let host = format!("Host: h{}.test", setup.hosts / 2);
    words(&[
        "wrk",
        "-t1",
        "-c64",
        "--latency",
        "-d",
        &seconds.to_string(),
        "-H",
        &host,
        url,
    ])
}

fn handshakes(setup: &Setup<'_>, seconds: u32, kind: &str) -> Vec<String> {
    let at = format!("127.0.0.1:{}", setup.https);
    words(&[
        "openssl",
        "s_time",
        kind,
        "-connect",
        &at,
        "-time",
        &seconds.to_string(),
    ])
}

pub fn run(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let binary = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => {
            crate::step(
                "the release binary",
                crate::cargo(["build", "--release", "--package", "vend"]),
            )?;
            crate::binary("release")
        }
    };
    let home = crate::target().join("bench/edge");
    if home.exists() {
        fs::remove_dir_all(&home).context("cannot empty the directory of the run before")?;
    }
    fs::create_dir_all(&home)?;
    let certificate = certificate(&home)?;
    let (_origin, address) = origin(&home)?;
    let (hosts, rounds, seconds): (&[u32], u32, u32) = match options.quick {
        true => (&[10_000], 2, 2),
        false => (&[1, 1_000, 10_000, 100_000], 5, 4),
    };
    for hosts in hosts {
        for peer in PEERS
            .iter()
            .filter(|peer| !has(peer.program) && peer.program != "vend")
        {
            table.note(format!("{} was not measured: it is not installed", peer.name));
        }
        let present: Vec<&Peer> = PEERS
            .iter()
            .filter(|peer| *hosts <= peer.most && (peer.program == "vend" || has(peer.program)))
            .collect();
        let run = Run {
            home: &home,
            binary: &binary,
            origin: address,
            certificate: &certificate,
            hosts: *hosts,
            seconds,
        };
        run.compare(&present, rounds, options.only.as_deref(), table)?;
    }
    changes(options, table)?;
    table.note(format!(
        "load at the end: {}",
        fs::read_to_string("/proc/loadavg")?.trim()
    ));
    Ok(())
}

struct Run<'a> {
    home: &'a Path,
    binary: &'a Path,
    origin: SocketAddr,
    certificate: &'a Path,
    hosts: u32,
    seconds: u32,
}

impl Run<'_> {
    fn compare(
        &self,
        peers: &[&Peer],
        rounds: u32,
        only: Option<&str>,
        table: &mut Table,
    ) -> anyhow::Result<()> {
        let mut running = Vec::new();
        for peer in peers {
            let home = self.home.join(format!("{}-{}", peer.program, self.hosts));
            fs::create_dir_all(&home)?;
            let (http, https) = (free()?, free()?);
            let setup = Setup {
                home: &home,
                hosts: self.hosts,
                http,
                https,
                origin: self.origin,
                certificate: self.certificate,
            };
            let command = (peer.start)(&setup, self.binary)?;
            let process = pinned("1", command, &home)?;
            let started = Proxy {
                process,
                home: home.clone(),
                http,
                https,
            };
            started
                .wait(self.hosts)
                .with_context(|| format!("{} does not serve {} hosts", peer.name, self.hosts))?;
            running.push((peer, started));
        }
        for (case, load) in CASES
            .iter()
            .filter(|(case, _)| only.is_none_or(|only| case.contains(only)))
        {
            let mut values: Vec<Vec<f64>> = vec![Vec::new(); running.len()];
            for _ in 0..rounds {
                for (index, (_, proxy)) in running.iter().enumerate() {
                    let setup = Setup {
                        home: &proxy.home,
                        hosts: self.hosts,
                        http: proxy.http,
                        https: proxy.https,
                        origin: self.origin,
                        certificate: self.certificate,
                    };
                    if let Some(us) = proxy.load(load(&setup, self.seconds))? {
                        values[index].push(us);
                    }
                }
            }
            let ours = median(&values[0]);
            for ((peer, _), values) in running.iter().zip(&values) {
                let ratio = match (ours, median(values)) {
                    (Some(ours), Some(theirs)) if theirs > 0.0 => {
                        format!(" (vend is {:.2} of it)", ours / theirs)
                    }
                    _ => String::new(),
                };
                table.row(
                    format!("{} hosts, {case}: {}{ratio}", self.hosts, peer.name),
                    "µs",
                    values,
                );
            }
        }
        for (peer, proxy) in &running {
            table.row(
                format!("{} hosts, memory: {}", self.hosts, peer.name),
                "MB",
                &[proxy.memory()],
            );
        }
        Ok(())
    }
}

struct Proxy {
    process: Process,
    home: PathBuf,
    http: u16,
    https: u16,
}

impl Proxy {
    /// Until a request for a host in the middle is answered.
    fn wait(&self, hosts: u32) -> anyhow::Result<()> {
        let started = Instant::now();
        let request = format!(
            "GET /small HTTP/1.1\r\nHost: h{}.test\r\nConnection: close\r\n\r\n",
            hosts / 2
        );
        while started.elapsed() < Duration::from_secs(60) {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.http)) {
                let mut answer = String::new();
                stream.write_all(request.as_bytes())?;
                let _ = stream.read_to_string(&mut answer);
                if answer.contains(" 200 ") {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("no answer; see {}", self.home.join("log").display())
    }

    /// Processor time a request, in µs. None when the load's tool is not there.
    fn load(&self, command: Vec<String>) -> anyhow::Result<Option<f64>> {
        if !has(&command[0]) {
            return Ok(None);
        }
        let before = self.processor();
        let output = Command::new("taskset")
            .args(["-c", "0"])
            .args(&command)
            .output()?;
        let used = self.processor() - before;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = requests(&text).with_context(|| format!("{} says nothing: {text}", command[0]))?;
        // An error is answered sooner than a request is forwarded.
        if text.contains("Non-2xx") || text.contains("status codes: 0 2xx") {
            bail!("not every request was answered well: {text}");
        }
        if count == 0.0 {
            bail!("no request was answered: {text}");
        }
        Ok(Some(used * 1e6 / count))
    }

    /// Seconds of processor time of all its processes.
    fn processor(&self) -> f64 {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let of = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let rest = stat.rsplit(')').next().unwrap_or_default();
            let fields: Vec<f64> = rest
                .split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|f| f.parse().ok())
                .collect();
            fields.iter().sum::<f64>() / ticks
        };
        self.process.tree().into_iter().map(of).sum()
    }

    fn memory(&self) -> f64 {
        let of = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok())
                .unwrap_or_default()
        };
        self.process.tree().into_iter().map(of).sum::<f64>() / 1024.0
    }
}

/// What a tool says that it has done: requests, or handshakes.
fn requests(text: &str) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    text.lines().find_map(|line| {
        let line = line.trim();
        // wrk: `12345 requests in 2.00s`; h2load: `requests: 12345 total, …`; s_time: `123 connections in 1.20s; …`.
        let wrk = line
            .split_once(" requests in ")
            .and_then(|(count, _)| number(count));
        let h2load = line
            .strip_prefix("requests: ")
            .and_then(|rest| number(rest.split(' ').next()?));
        let real = line
            .contains("real seconds")
            .then(|| number(line.split(' ').next()?))
            .flatten();
        wrk.or(h2load).or(real)
    })
}

/// A process that ends with us.
struct Process(Child);

impl Process {
    fn tree(&self) -> Vec<u32> {
        let mut found = vec![self.0.id()];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
            next += 1;
        }
        found
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in self.tree().into_iter().rev() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let _ = self.0.wait();
    }
}

fn pinned(core: &str, command: Vec<String>, home: &Path) -> anyhow::Result<Process> {
    let log = fs::File::create(home.join("log"))?;
    let child = Command::new("taskset")
        .args(["-c", core])
        .args(&command)
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", command[0]))?;
    Ok(Process(child))
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
    let process = pinned("0", words(&["nginx", "-c", &file]), &folder).context("the targets need nginx")?;
    Ok((process, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// What a change of a large table costs, by the example of the crate.
fn changes(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    if options
        .only
        .as_deref()
        .is_some_and(|only| !"change".contains(only))
    {
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
