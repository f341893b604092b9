//! The engine of state machines, beside what the same disk and other engines do in the same run.
//!
//! The room drives `engine`'s example `load`, moto from PyPI and Restate from npm, each as a process, in rounds that
//! take turns: the machine may be busy, and then only ratios mean something.

use std::{
    io::Read as _,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Bench, Table};

/// Executions open.
const OPEN: [u32; 3] = [1, 100, 10_000];
/// Open executions that a start resumes.
const RESUMED: u32 = 100_000;

pub fn run(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let mut build = crate::cargo(["build", "--release", "--package", "engine", "--example", "load"]);
    build.arg("--quiet");
    crate::step("the release build of the load", build)?;
    let target = crate::target();
    let load = Load {
        program: target.join(env!("TARGET")).join("release/examples/load"),
        store: target.join("bench/states"),
        seconds: if options.quick { 2 } else { 5 },
    };
    let rounds = if options.quick { 1 } else { 5 };
    measure(&load, rounds, table)?;
    resume(&load, rounds.min(3), table)?;
    if let Err(error) = moto(table) {
        table.note(format!("moto was not measured: {error:#}"));
    }
    if let Err(error) = restate(table) {
        table.note(format!("Restate was not measured: {error:#}"));
    }
    table.note(format!(
        "load at the end: {}",
        std::fs::read_to_string("/proc/loadavg")?.trim()
    ));
    Ok(())
}

struct Load {
    program: PathBuf,
    store: PathBuf,
    seconds: u32,
}

impl Load {
    fn run(&self, mode: &str, open: u32) -> anyhow::Result<Value> {
        if self.store.exists() {
            std::fs::remove_dir_all(&self.store).context("cannot empty the directory of the store")?;
        }
        let mut command = Command::new(&self.program);
        command
            .arg(&self.store)
            .args([mode, &open.to_string(), &self.seconds.to_string()]);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run the load")?;
        if !output.status.success() {
            bail!("the load {mode} {open} failed: {}", output.status);
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or(f64::NAN)
}

fn measure(load: &Load, rounds: usize, table: &mut Table) -> anyhow::Result<()> {
    for open in OPEN {
        let (mut ours, mut raw, mut alone, mut commits) = (vec![], vec![], vec![], vec![]);
        for _ in 0..rounds {
            let engine = load.run("engine", open)?;
            // SQLite alone, with commits as large as the engine's were.
            let group = number(&engine, "transitions_per_commit").round().max(1.0);
            let sqlite = load.run("raw", group as u32)?;
            raw.push(number(&sqlite, "transitions_per_s"));
            commits.push(number(&sqlite, "p99_ms"));
            alone.push(group);
            ours.push(engine);
        }
        let of = |name: &str| {
            ours.iter()
                .map(|figures| number(figures, name))
                .collect::<Vec<f64>>()
        };
        let speed = of("transitions_per_s");
        table.row(format!("{open} open: durable transitions"), "/s", &speed);
        table.row(format!("{open} open: transitions in a commit"), "", &alone);
        table.row(
            format!("{open} open: SQLite alone, commits of that size"),
            "/s",
            &raw,
        );
        table.row(
            format!("{open} open: ratio to SQLite alone"),
            "",
            &ratios(&speed, &raw),
        );
        table.row(
            format!("{open} open: processor time a transition"),
            "µs",
            &of("cpu_us_per_transition"),
        );
        table.row(
            format!("{open} open: answer to next task, p50"),
            "ms",
            &of("p50_ms"),
        );
        let p99 = table.row(
            format!("{open} open: answer to next task, p99"),
            "ms",
            &of("p99_ms"),
        );
        if open == 100 {
            p99.target(5.0);
        }
        table.row(
            format!("{open} open: a commit of SQLite alone, p99"),
            "ms",
            &commits,
        );
    }
    Ok(())
}

fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

fn resume(load: &Load, rounds: usize, table: &mut Table) -> anyhow::Result<()> {
    let (mut seconds, mut bytes) = (vec![], vec![]);
    for _ in 0..rounds {
        let figures = load.run("resume", RESUMED)?;
        seconds.push(number(&figures, "resume_s"));
        bytes.push(number(&figures, "bytes_per_execution") / 1024.0);
    }
    table
        .row("100,000 open executions resumed after a crash", "s", &seconds)
        .target(5.0);
    table
        .row("memory of a waiting execution", "KiB", &bytes)
        .target(4.0);
    Ok(())
}

/// moto's Step Functions, in memory: transitions of a machine that only passes.
fn moto(table: &mut Table) -> anyhow::Result<()> {
    let python = crate::clients()?.join("bin/python");
    let script = crate::root().join("xtask/src/bench/peers/interpreter.py");
    let output = Command::new(python)
        .arg(script)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("its script failed: {}", output.status);
    }
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    table.row(
        "moto, in memory: transitions",
        "/s",
        &[number(&figures, "transitions_per_s")],
    );
    Ok(())
}

/// Restate, durable: a handler of many steps, called by 64 clients. Each step is journaled, as a transition is.
fn restate(table: &mut Table) -> anyhow::Result<()> {
    let directory = crate::target().join("bench/restate");
    std::fs::create_dir_all(&directory)?;
    let mut install = Command::new("npm");
    install
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&directory);
    install.args(["@restatedev/restate-server", "@restatedev/restate-sdk"]);
    crate::step("Restate", install)?;
    let data = directory.join("restate-data");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    let script = crate::root().join("xtask/src/bench/peers/restate.mjs");
    std::fs::copy(script, directory.join("bench.mjs"))?;
    let _server = start(
        Command::new(directory.join("node_modules/.bin/restate-server")).current_dir(&directory),
        9070,
    )?;
    let mut drive = Command::new("node");
    drive
        .arg("bench.mjs")
        .current_dir(&directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut drive = Killed::spawn(&mut drive).context("cannot run node")?;
    let mut text = String::new();
    let out = drive.0.stdout.as_mut().context("node has no output")?;
    out.read_to_string(&mut text)?;
    // The SDK says what it does before.
    let last = text.trim().lines().last().unwrap_or_default();
    let figures: Value = serde_json::from_str(last).context("node said nothing that can be read")?;
    table.row(
        "Restate, 64 clients: durable steps",
        "/s",
        &[number(&figures, "steps_per_s")],
    );
    Ok(())
}

/// Starts a server and waits until it listens.
fn start(command: &mut Command, port: u16) -> anyhow::Result<Killed> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Killed::spawn(command).context("cannot start the server")?;
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = child.0.try_wait()? {
            bail!("the server ended: {status}");
        }
        if began.elapsed() > Duration::from_secs(60) {
            bail!("the server does not listen on port {port}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(child)
}

/// A process that ends with this value, and what it started: npm's commands start the program that one wants.
struct Killed(Child);

impl Killed {
    fn spawn(command: &mut Command) -> std::io::Result<Self> {
        command.process_group(0).spawn().map(Self)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            // One that is gone needs no signal.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}
