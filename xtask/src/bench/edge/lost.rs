//! Requests that are lost while routes change and while the binary is exchanged: none are meant to be.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::super::{Table, load};

const CHANGES: u32 = 1_000;
const UPGRADES: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// An edge as `vend up` starts it: its listening socket is lent, its table comes over its own.
struct Edge {
    binary: PathBuf,
    data: PathBuf,
    listener: TcpListener,
    running: Option<Child>,
    version: u64,
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn run(
    binary: &Path,
    home: &Path,
    origin: SocketAddr,
    quick: bool,
    table: &mut Table,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let mut edge = Edge {
        binary: binary.to_owned(),
        data: home.join("lost"),
        listener,
        running: None,
        version: 0,
    };
    fs::create_dir_all(edge.data.join("edge"))?;
    edge.start()?;
    edge.change(
        "PUT",
        &json!({ "version": 1, "rules": [rule(1, "a")], "target_groups": { "a": group(origin) } }),
    )?;
    let (changes, upgrades) = if quick { (100, 3) } else { (CHANGES, UPGRADES) };
    let load = load::Load::on(&address, "h0.test", "ok");
    for n in 0..changes {
        // To a group that is new, and the one before goes.
        let (new, old) = if n % 2 == 0 { ("b", "a") } else { ("a", "b") };
        let change = json!({ "from": edge.version, "version": edge.version + 1, "rules": [rule(1, new)],
            "target_groups": { new: group(origin) }, "without_groups": [old] });
        edge.change("PATCH", &change)?;
        // Long enough for every visitor to ask in between.
        std::thread::sleep(Duration::from_millis(5));
    }
    let seen = load.end();
    lost(table, &format!("{changes} route changes"), &seen);
    let load = load::Load::on(&address, "h0.test", "ok");
    for _ in 0..upgrades {
        edge.upgrade()?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let seen = load.end();
    lost(table, &format!("{upgrades} upgrades"), &seen);
    Ok(())
}

fn lost(table: &mut Table, during: &str, seen: &load::Seen) {
    let name = format!("requests lost in {during}, of {}", seen.requests);
    table.row(name, "", &[seen.lost as f64]).target(0.0);
    for loss in &seen.losses {
        table.note(format!("lost: {loss}"));
    }
}

fn rule(priority: u32, group: &str) -> Value {
    json!({ "priority": priority, "place": { "tenant": "bench", "app": "alone", "environment": "dev" }, "hosts": ["h0.test"],
        "action": { "forward": { "groups": [{ "group": group, "weight": 1 }] } } })
}

fn group(origin: SocketAddr) -> Value {
    json!({ "targets": [{ "id": "h-1", "address": origin }], "health": { "path": "/small" },
        "deregistration_delay": "PT10S" })
}

impl Edge {
    /// A new process with the same listener. `vend edge` finds it at descriptor 3.
    fn start(&mut self) -> anyhow::Result<()> {
        let lent = Stdio::from(OwnedFd::from(self.listener.try_clone()?));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.data.join("log"))?;
        let child = Command::new("sh")
            .args([
                "-c",
                "LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$0\" edge --data \"$1\" 3<&0 </dev/null",
            ])
            .arg(&self.binary)
            .arg(&self.data)
            .stdin(lent)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start an edge")?;
        self.running = Some(child);
        let started = Instant::now();
        while self.ask("GET", "").is_err() {
            if started.elapsed() > PATIENCE {
                bail!(
                    "the edge does not answer; see {}",
                    self.data.join("log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its successor takes over while it finishes what it has.
    fn upgrade(&mut self) -> anyhow::Result<()> {
        let mut before = self.running.take().context("no edge runs")?;
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(before.id())?) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        // Until its door is shut: a second edge would have it shut its successor's.
        let started = Instant::now();
        while self.ask("GET", "").is_ok() && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.start()?;
        before.wait()?;
        Ok(())
    }

    fn change(&mut self, method: &str, table: &Value) -> anyhow::Result<()> {
        let answer = self.ask(method, &table.to_string())?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("a change was refused: {answer}");
        }
        self.version = table["version"].as_u64().unwrap_or_default();
        Ok(())
    }

    fn ask(&self, method: &str, body: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(self.data.join("edge/edge.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} /v1/table HTTP/1.1\r\nHost: edge\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.is_empty() {
            bail!("no answer");
        }
        Ok(answer)
    }
}
