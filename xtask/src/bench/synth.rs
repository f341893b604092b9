//! Templates for AWS, beside AWS's own CDK in the same run: whole processes, in rounds that take turns.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Bench, Table};

/// Environments that are made at once.
const MANY: u32 = 1_000;
/// Stacks of the CDK: it takes minutes for a thousand, so what it takes for one more is taken from this many.
const PEERS: u32 = 50;

pub fn run(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let mut build = crate::cargo(["build", "--release", "--package", "aws", "--example", "synth"]);
    build.arg("--quiet");
    crate::step("the release build of the load", build)?;
    let program = crate::target()
        .join(env!("TARGET"))
        .join("release/examples/synth");
    let peer = cdk();
    let rounds = if options.quick { 1 } else { 5 };
    let (mut ours, mut one, mut many) = (vec![], vec![], vec![]);
    for _ in 0..rounds {
        ours.push(figures(Command::new(&program).arg(MANY.to_string()))?);
        if let Ok(peer) = &peer {
            one.push(stacks(peer, 1)?);
            many.push(stacks(peer, PEERS)?);
        }
    }
    let of = |figures: &[Value], name: &str| -> Vec<f64> {
        figures
            .iter()
            .map(|figures| figures[name].as_f64().unwrap_or(f64::NAN))
            .collect()
    };
    let seconds = of(&ours, "seconds");
    table
        .row(format!("{MANY} environments as templates"), "s", &seconds)
        .target(1.0);
    let each: Vec<f64> = seconds
        .iter()
        .map(|seconds| seconds * 1e3 / f64::from(MANY))
        .collect();
    table.row("one of them", "ms", &each);
    table.row(
        "resources in one",
        "",
        &of(&ours, "resources")
            .iter()
            .map(|all| all / f64::from(MANY))
            .collect::<Vec<_>>(),
    );
    table.row("most memory", "MB", &of(&ours, "peak_mb"));
    let kb = |name: &str, by: f64| {
        of(&ours, name)
            .iter()
            .map(|bytes| bytes / by / 1e3)
            .collect::<Vec<f64>>()
    };
    table.row("a template, on average", "KB", &kb("bytes", f64::from(MANY)));
    table
        .row("the largest", "KB", &kb("largest", 1.0))
        .target(1_000.0);
    if let Err(error) = peer {
        table.note(format!("the CDK was not measured: {error:#}"));
        return Ok(());
    }
    let (one, many) = (of(&one, "seconds"), of(&many, "seconds"));
    table.row("CDK: 1 stack", "s", &one);
    table.row(format!("CDK: {PEERS} stacks"), "s", &many);
    // What starting costs is left out: it is the most of a single stack, and not the CDK's alone.
    let theirs: Vec<f64> = many
        .iter()
        .zip(&one)
        .map(|(many, one)| (many - one) * 1e3 / f64::from(PEERS - 1))
        .collect();
    table.row("CDK: one more stack", "ms", &theirs);
    let ratio: Vec<f64> = theirs
        .iter()
        .zip(&each)
        .map(|(theirs, ours)| theirs / ours)
        .collect();
    table.row("times as fast for one more stack (wanted: 100)", "", &ratio);
    let whole: Vec<f64> = one
        .iter()
        .zip(&each)
        .map(|(theirs, ours)| theirs * 1e3 / ours)
        .collect();
    table.row("times as fast for a stack by itself (wanted: 100)", "", &whole);
    Ok(())
}

fn stacks(directory: &Path, count: u32) -> anyhow::Result<Value> {
    let out = directory.join("cdk.out");
    if out.exists() {
        std::fs::remove_dir_all(&out).context("cannot empty the CDK's directory")?;
    }
    figures(
        Command::new("node")
            .current_dir(directory)
            .args(["cdk.cjs", &count.to_string(), "cdk.out"]),
    )
}

/// The figures that a program prints on its last line.
fn figures(command: &mut Command) -> anyhow::Result<Value> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim().lines().last().unwrap_or_default()).context("it printed no figures")
}

/// A directory with the CDK from npm and the program that drives it.
fn cdk() -> anyhow::Result<std::path::PathBuf> {
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
