//! Deployments of every strategy under constant load, failing ones among them; one over fifty hosts; and going back to
//! hosts that were kept.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{
    Bench,
    load::Load,
    platform::{Platform, get},
    sample::{Kind, Sample},
    table::Table,
};

/// With what belongs to each, and its hosts. Times of a machine that has other things to do take nothing back.
const STRATEGIES: [(&str, &str, u32); 4] = [
    ("blue-green", "", 2),
    ("in-place", "", 3),
    (
        "canary",
        ", percent: 20%, interval: 1s, analysis: { sample: 5, slower: 1000% }",
        2,
    ),
    (
        "linear",
        ", steps: 3, interval: 1s, analysis: { sample: 5, slower: 1000% }",
        2,
    ),
];
/// Of each: two hundred together.
const EACH: u32 = 50;
/// One in so many does not start.
const FAILING: u32 = 5;
const FLEET: u32 = 50;
const FIFTY: &str = "fifty hosts";
const KEPT: &str = "kept hosts";

/// The names of all parts.
pub fn parts() -> Vec<String> {
    let strategies = STRATEGIES
        .iter()
        .map(|(strategy, ..)| format!("strategies {strategy}"));
    strategies.chain([FIFTY.to_owned(), KEPT.to_owned()]).collect()
}

pub fn run(binary: &Path, bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let wanted = |part: &str| bench.wants(part);
    if !parts().iter().any(|part| wanted(part)) {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the platform's node must be root: run it with sudo");
    }
    let home = crate::target().join("bench/strategies");
    let mut platform = Platform::new(binary, &home.join("data"))?;
    platform.up()?;
    let copies = home.join("copies");
    std::fs::create_dir_all(&copies).context("cannot create the working copies")?;
    let started = std::time::UNIX_EPOCH
        .elapsed()
        .context("the clock is before 1970")?;
    let mut number = started.as_secs() % 1_000_000 * 10;
    let mut tenant = || {
        number += 1;
        format!("s{number}")
    };
    let times = if bench.quick { 10 } else { EACH };
    let (mut deployments, mut all) = (0, 0);
    for (strategy, more, hosts) in STRATEGIES {
        if wanted(&format!("strategies {strategy}")) {
            let sample = Sample::new(&platform, &copies, &tenant(), Kind::Perl)?;
            all += lost(&platform, sample, (strategy, more, hosts), times, table)?;
            deployments += times;
        }
    }
    if deployments > times {
        let name = format!("requests lost over all {deployments} deployments of these strategies");
        table.row(name, "of them", &[all as f64]).target(0.0);
    }
    if wanted(FIFTY) {
        let sample = Sample::new(&platform, &copies, &tenant(), Kind::Perl)?;
        fifty(&platform, sample, table)?;
    }
    if wanted(KEPT) {
        let sample = Sample::new(&platform, &copies, &tenant(), Kind::Perl)?;
        kept(&platform, sample, if bench.quick { 4 } else { 20 }, table)?;
    }
    Ok(())
}

fn vend_yaml(strategy: &str, more: &str, hosts: u32, keep: &str) -> String {
    format!(
        "app: perl\nhost: {{ health: {{ path: /, interval: 300ms, timeout: 300ms, within: 20s }} }}\n\
         deploy: {{ strategy: {strategy}, keep_old: {keep}, drain: 5s{more} }}\nscaling: {{ min: {hosts} }}\n\
         environments:\n  dev: {{ branch: dev }}\n"
    )
}

/// Deployments one after the other, with visitors all the time. Gives the number of requests that were lost.
fn lost(
    platform: &Platform,
    mut sample: Sample,
    (strategy, more, hosts): (&str, &str, u32),
    times: u32,
    table: &mut Table,
) -> anyhow::Result<u64> {
    println!("-- {times} deployments: {strategy}");
    sample.write("vend.yaml", &vend_yaml(strategy, more, hosts, "1s"))?;
    sample.change()?;
    sample.release(platform)?;
    let load = Load::on(&platform.edge()?, &sample.host("dev"), "version ");
    let mut seconds = Vec::new();
    for number in 1..=times {
        if number.is_multiple_of(FAILING) {
            sample.ruin()?;
            let push = sample.push(platform, "dev")?;
            sample.failed(platform, &push)?;
            continue;
        }
        sample.change()?;
        let started = Instant::now();
        let push = sample.push(platform, "dev")?;
        sample.execution(platform, &push)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    let seen = load.end();
    let name = format!(
        "{strategy}, {hosts} hosts: requests lost over {times} deployments, {} failing",
        times / FAILING
    );
    table.row(name, "of them", &[seen.lost as f64]).target(0.0);
    table.row(format!("{strategy}: a deployment under load"), "s", &seconds);
    table.note(format!(
        "{strategy}: {} requests were made; lost: {:?}",
        seen.requests, seen.losses
    ));
    platform
        .vend(&["tenants", "delete", sample.tenant(), "--yes"])
        .map(|_| seen.lost)
}

/// In place, one host after the other.
fn fifty(platform: &Platform, mut sample: Sample, table: &mut Table) -> anyhow::Result<()> {
    println!("-- in place over {FLEET} hosts");
    sample.write("vend.yaml", &vend_yaml("in-place", "", FLEET, "1s"))?;
    sample.change()?;
    sample.release(platform)?;
    let load = Load::on(&platform.edge()?, &sample.host("dev"), "version ");
    for rule in ["one-at-a-time", "80%", "half-at-a-time"] {
        let more = format!(", minimum_healthy: {rule}");
        sample.write("vend.yaml", &vend_yaml("in-place", &more, FLEET, "1s"))?;
        sample.change()?;
        let started = Instant::now();
        let push = sample.push(platform, "dev")?;
        sample.execution(platform, &push)?;
        let took = started.elapsed().as_secs_f64();
        table.row(format!("in place over {FLEET} hosts, {rule}"), "s", &[took]);
    }
    let seen = load.end();
    table
        .row(
            format!("in place over {FLEET} hosts: requests lost"),
            "of them",
            &[seen.lost as f64],
        )
        .target(0.0);
    table.note(format!(
        "over {FLEET} hosts: {} requests were made; lost: {:?}",
        seen.requests, seen.losses
    ));
    platform
        .vend(&["tenants", "delete", sample.tenant(), "--yes"])
        .map(drop)
}

/// Forth and back between two fleets that both run.
fn kept(platform: &Platform, mut sample: Sample, times: u32, table: &mut Table) -> anyhow::Result<()> {
    println!("-- going back to kept hosts");
    sample.write("vend.yaml", &vend_yaml("blue-green", "", 2, "1h"))?;
    sample.change()?;
    sample.release(platform)?;
    let (edge, host, dev) = (platform.edge()?, sample.host("dev"), sample.environment("dev"));
    let old = get(&edge, &host).context("the first release does not answer")?.1;
    sample.change()?;
    sample.release(platform)?;
    let new = get(&edge, &host).context("the second release does not answer")?.1;
    let load = Load::on(&edge, &host, "version ");
    let mut milliseconds = Vec::new();
    for number in 0..times {
        let (to, text) = if number % 2 == 0 {
            ("v1", &old)
        } else {
            ("v2", &new)
        };
        let started = Instant::now();
        let begun: Value = platform.json(&["rollback", &dev, "--to", to])?;
        platform.until("visitors are back", Duration::from_millis(2), |_| {
            Ok(get(&edge, &host)
                .is_ok_and(|(_, body)| body == *text)
                .then_some(()))
        })?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
        platform.finished(begun["executions"][0].as_str().unwrap_or_default())?;
    }
    let seen = load.end();
    table.row(
        "rollback to kept hosts: from the command to visitors",
        "ms",
        &milliseconds,
    );
    table
        .row(
            "rollback to kept hosts: requests lost",
            "of them",
            &[seen.lost as f64],
        )
        .target(0.0);
    platform
        .vend(&["tenants", "delete", sample.tenant(), "--yes"])
        .map(drop)
}
