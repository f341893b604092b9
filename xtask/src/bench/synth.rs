//! Templates for AWS, beside AWS's own CDK in the same run, in rounds that take turns. Like is held against like: what a whole
//! process takes against what a whole process takes, and what a stack takes inside one, once the library is loaded and has made a
//! first one, against the same. Both write their templates to files there.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Bench, Table};

/// Environments that are made at once, without files.
const MANY: u32 = 1_000;
/// Stacks of both for the comparison: the CDK takes minutes for a thousand.
const PEERS: u32 = 50;

/// What a process said of itself, and how long it took from outside.
struct Run {
    said: Value,
    whole: f64,
}

impl Run {
    fn said(&self, name: &str) -> f64 {
        self.said[name].as_f64().unwrap_or(f64::NAN)
    }
}

/// Runs of one kind, a round each.
#[derive(Default)]
struct Runs(Vec<Run>);

impl Runs {
    fn said(&self, name: &str, by: f64) -> Vec<f64> {
        self.0.iter().map(|run| run.said(name) / by).collect()
    }

    fn whole(&self) -> Vec<f64> {
        self.0.iter().map(|run| run.whole).collect()
    }
}

/// Runs of one program: for one stack, for several, and for several after a first one.
#[derive(Default)]
struct Program {
    one: Runs,
    many: Runs,
    inside: Runs,
}

pub fn run(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let mut build = crate::cargo(["build", "--release", "--package", "aws", "--example", "synth"]);
    build.arg("--quiet");
    crate::step("the release build of the load", build)?;
    let program = crate::target()
        .join(env!("TARGET"))
        .join("release/examples/synth");
    let peer = cdk();
    let rounds = if options.quick { 1 } else { 5 };
    let (mut all, mut ours, mut theirs) = (Runs::default(), Program::default(), Program::default());
    for _ in 0..rounds {
        all.0.push(figures(Command::new(&program).arg(MANY.to_string()))?);
        let Ok(peer) = &peer else { continue };
        for (own, count) in [(&mut ours.one, 1), (&mut ours.many, PEERS)] {
            let out = emptied(&crate::target().join("bench/synth"))?;
            let mut ours = Command::new(&program);
            own.0.push(figures(ours.arg(count.to_string()).arg(out))?);
        }
        theirs.one.0.push(stacks(peer, 1, false)?);
        theirs.many.0.push(stacks(peer, PEERS, false)?);
        theirs.inside.0.push(stacks(peer, PEERS, true)?);
    }
    alone(&all, table);
    match peer {
        Ok(_) => beside(&ours, &theirs, table),
        Err(error) => table.note(format!("the CDK was not measured: {error:#}")),
    }
    Ok(())
}

/// What we take by ourselves, in memory.
fn alone(all: &Runs, table: &mut Table) {
    let many = f64::from(MANY);
    table
        .row(
            format!("{MANY} environments as templates"),
            "s",
            &all.said("seconds", 1.0),
        )
        .target(1.0);
    table.row("one of them", "ms", &all.said("seconds", many / 1e3));
    table.row("resources in one", "", &all.said("resources", many));
    table.row("most memory", "MB", &all.said("peak_mb", 1.0));
    table.row("a template, on average", "KB", &all.said("bytes", many * 1e3));
    table
        .row("the largest", "KB", &all.said("largest", 1e3))
        .target(1_000.0);
}

fn beside(ours: &Program, theirs: &Program, table: &mut Table) {
    let peers = f64::from(PEERS);
    let mut both = |what: &str, unit, ours: Vec<f64>, theirs: Vec<f64>| {
        table.row(format!("{what}: ours"), unit, &ours);
        table.row(format!("{what}: the CDK"), unit, &theirs);
        let times: Vec<f64> = theirs
            .iter()
            .zip(&ours)
            .map(|(theirs, ours)| theirs / ours)
            .collect();
        table.row(format!("{what}: times as fast (wanted: 100)"), "", &times);
    };
    // Ours loads nothing, and its first stack takes what the others do.
    both(
        &format!("inside the process, a stack of {PEERS}, with its file"),
        "ms",
        ours.many.said("seconds", peers / 1e3),
        theirs.inside.said("seconds", peers / 1e3),
    );
    both(
        "a whole process, 1 stack",
        "s",
        ours.one.whole(),
        theirs.one.whole(),
    );
    both(
        &format!("a whole process, {PEERS} stacks"),
        "s",
        ours.many.whole(),
        theirs.many.whole(),
    );
    table.row(
        "resources in one of the CDK's",
        "",
        &theirs.many.said("resources", peers),
    );
    table.row(
        "loading the CDK's library, and its first stack",
        "s",
        &theirs.inside.said("loading", 1.0),
    );
    table.row("most memory of the CDK", "MB", &theirs.many.said("peak_mb", 1.0));
}

/// `is_inside`: after a stack by itself, which is told apart.
fn stacks(directory: &Path, count: u32, is_inside: bool) -> anyhow::Result<Run> {
    emptied(&directory.join("cdk.out"))?;
    emptied(&directory.join("first.out"))?;
    let mut node = Command::new("node");
    node.current_dir(directory)
        .args(["cdk.cjs", &count.to_string(), "cdk.out"]);
    if is_inside {
        node.arg("first.out");
    }
    figures(&mut node)
}

/// A directory without anything in it.
fn emptied(directory: &Path) -> anyhow::Result<PathBuf> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)
            .with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    std::fs::create_dir_all(directory)?;
    Ok(directory.to_owned())
}

/// The figures that a program prints on its last line, and how long it takes from its start to its end.
fn figures(command: &mut Command) -> anyhow::Result<Run> {
    let from = Instant::now();
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let whole = from.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("{command:?} failed: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let said = serde_json::from_str(text.trim().lines().last().unwrap_or_default());
    Ok(Run {
        said: said.context("it printed no figures")?,
        whole,
    })
}

/// A directory with the CDK from npm and the program that drives it.
fn cdk() -> anyhow::Result<PathBuf> {
    let directory = crate::target().join("bench/cdk");
    std::fs::create_dir_all(&directory)?;
    let mut install = Command::new("npm");
    install
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&directory);
    install.args(["aws-cdk-lib@2.276.0", "constructs@10"]);
    crate::step("the CDK", install)?;
    std::fs::copy(
        crate::root().join("xtask/src/bench/peers/cdk.cjs"),
        directory.join("cdk.cjs"),
    )?;
    Ok(directory)
}
