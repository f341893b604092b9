//! What a build costs beside the same commands in a bare shell, and how many lines of its log come through in a second.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Bench, Table, table::median};

/// What builds do most, each as a phase: start processes, write small files, compute.
const WORK: [(&str, &str, &str); 3] = [
    (
        "PRE_BUILD",
        "2,000 processes",
        "i=0; while [ $i -lt 2000 ]; do /bin/true; i=$((i+1)); done",
    ),
    (
        "BUILD",
        "10,000 small files",
        "mkdir files; i=0; while [ $i -lt 10000 ]; do echo $i > files/$i; i=$((i+1)); done; rm -r files",
    ),
    (
        "POST_BUILD",
        "the digest of 1 GB",
        "head -c 1000000000 /dev/zero | sha256sum",
    ),
];
const LINES: u32 = 300_000;

pub fn run(binary: &Path, options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let home = crate::target().join("bench/builds");
    let shop = Shop {
        binary: binary.to_owned(),
        tree: home.join("tree"),
        home: home.join("home"),
    };
    fs::create_dir_all(&shop.tree).context("cannot make the tree that is built")?;
    // The image of builds is made by the first one.
    shop.build("phases: { build: { commands: ['true'] } }")?;
    let rounds = if options.quick { 2 } else { 10 };
    nothing(&shop, rounds, table)?;
    work(&shop, rounds, table)?;
    lines(&shop, rounds, table)
}

/// The least that a build takes: a container with a network, a source, an artifact, and its end.
fn nothing(shop: &Shop, rounds: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut whole = Vec::new();
    for _ in 0..rounds {
        whole.push(shop.build("phases: { build: { commands: ['true'] } }")?.seconds * 1e3);
    }
    table.row("a build of nothing, the whole command", "ms", &whole);
    Ok(())
}

/// The same commands in a build and in a bare shell, in rounds that take turns.
fn work(shop: &Shop, rounds: usize, table: &mut Table) -> anyhow::Result<()> {
    let phases = WORK
        .map(|(phase, _, script)| format!("  {}: {{ commands: [\"{script}\"] }}\n", phase.to_lowercase()));
    let spec = format!("phases:\n{}", phases.concat());
    let (mut within, mut bare) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for _ in 0..rounds {
        let build = shop.build(&spec)?;
        for (number, (phase, _, script)) in WORK.iter().enumerate() {
            within[number].push(build.phase(phase)?);
            bare[number].push(shop.shell(script)?);
        }
    }
    for (number, (_, name, _)) in WORK.iter().enumerate() {
        table.row(format!("{name}, in a build"), "ms", &within[number]);
        table.row(format!("{name}, in a bare shell"), "ms", &bare[number]);
        if let (Some(within), Some(bare)) = (median(&within[number]), median(&bare[number])) {
            table.row(format!("{name}: build / shell"), "", &[within / bare]);
        }
    }
    Ok(())
}

/// From a command's output to the kept log, and to who watches it. Every line must arrive.
fn lines(shop: &Shop, rounds: usize, table: &mut Table) -> anyhow::Result<()> {
    let spec = format!(
        "phases: {{ build: {{ commands: [\"seq -f 'line %.0f of a log, as long as lines of compilers are' {LINES}\"] }} }}"
    );
    let (mut kept, mut shown) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let build = shop.build(&spec)?;
        let arrived = build
            .log
            .lines()
            .filter(|line| line.contains(" of a log, as"))
            .count();
        // The command itself is shown too.
        if arrived != LINES as usize + 1 {
            bail!("of {LINES} lines {} were shown", arrived.saturating_sub(1));
        }
        kept.push(f64::from(LINES) / build.phase("BUILD")? * 1e3);
        shown.push(f64::from(LINES) / build.seconds);
    }
    table.row("log lines a second, until they are kept", "", &kept);
    table.row(
        "log lines a second, until they are shown and the build is over",
        "",
        &shown,
    );
    Ok(())
}

struct Shop {
    binary: PathBuf,
    tree: PathBuf,
    home: PathBuf,
}

struct Build {
    /// Of the whole command.
    seconds: f64,
    built: Value,
    log: String,
}

impl Shop {
    fn build(&self, phases: &str) -> anyhow::Result<Build> {
        let spec = format!("version: 0.2\n{phases}\nartifacts: {{ files: [buildspec.yml] }}\n");
        fs::write(self.tree.join("buildspec.yml"), spec).context("cannot write the buildspec")?;
        let mut command = Command::new(&self.binary);
        command.args(["build", "--json", "--local"]).arg(&self.tree);
        let started = Instant::now();
        let output = command.arg("--home").arg(&self.home).output();
        let output = output.context("cannot run the binary")?;
        let seconds = started.elapsed().as_secs_f64();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("a build failed: {log}");
        }
        let built = serde_json::from_slice(&output.stdout).context("a build said something else")?;
        Ok(Build { seconds, built, log })
    }

    /// Milliseconds of a bare shell, on the disk that builds are on.
    fn shell(&self, script: &str) -> anyhow::Result<f64> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).current_dir(&self.home);
        let started = Instant::now();
        let status = shell.stdout(Stdio::null()).status().context("cannot run sh")?;
        if !status.success() {
            bail!("the bare shell ended with {status}");
        }
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

impl Build {
    /// Milliseconds.
    fn phase(&self, name: &str) -> anyhow::Result<f64> {
        let phases = self.built["built"]["phases"].as_array();
        let phase = phases.into_iter().flatten().find(|phase| phase["name"] == name);
        phase
            .and_then(|phase| phase["duration_ms"].as_f64())
            .with_context(|| format!("the build says nothing of {name}"))
    }
}
