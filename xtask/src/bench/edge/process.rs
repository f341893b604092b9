//! The processes that are measured: pinned to a core, with what they have used.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A process that ends with us.
pub struct Process(Child);

impl Process {
    /// Starts a command on one core; what it says goes to `log` in its home.
    pub fn pinned(core: &str, command: &[String], home: &Path) -> anyhow::Result<Self> {
        let log = fs::File::create(home.join("log"))?;
        let child = Command::new("taskset")
            .args(["-c", core])
            .args(command)
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command[0]))?;
        Ok(Self(child))
    }

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

    /// Between its turns it does nothing: who was given more than it can do goes on with that for seconds, on the core of
    /// the next.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        for pid in self.tree().into_iter().rev() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// Seconds of processor time of it and its children.
    pub fn processor(&self) -> f64 {
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
        self.tree().into_iter().map(of).sum()
    }

    /// MB of it and its children, each one's share of what is resident.
    pub fn memory(&self) -> f64 {
        self.tree()
            .into_iter()
            .filter_map(super::super::memory::pss)
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let _ = self.0.wait();
    }
}

/// A proxy that runs.
pub struct Proxy {
    pub process: Process,
    pub home: PathBuf,
    pub http: u16,
    pub https: u16,
}

impl Proxy {
    /// Until a request for a host in the middle is answered.
    pub fn wait(&self, hosts: u32) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.http))
                && get(&stream, hosts, "close").is_ok_and(|answer| answer.contains(" 200 "))
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("no answer; see {}", self.home.join("log").display())
    }

    /// MB that so many connections take which have had one answer each and wait.
    pub fn idle(&self, hosts: u32, connections: u64) -> anyhow::Result<f64> {
        let before = self.process.memory();
        let mut held = Vec::new();
        for _ in 0..connections {
            let stream =
                TcpStream::connect(("127.0.0.1", self.http)).context("cannot hold so many connections")?;
            let answer = get(&stream, hosts, "keep-alive")?;
            if !answer.contains(" 200 ") {
                bail!("a connection was not answered well: {answer}");
            }
            held.push(stream);
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok(self.process.memory() - before)
    }
}

fn get(stream: &TcpStream, hosts: u32, connection: &str) -> std::io::Result<String> {
    let mut stream = stream;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let host = hosts / 2;
    write!(
        stream,
        "GET /small HTTP/1.1\r\nHost: h{host}.test\r\nConnection: {connection}\r\n\r\n"
    )?;
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
}
