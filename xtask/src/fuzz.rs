//! `cargo xtask fuzz`: runs libFuzzer's targets in `fuzz/` for a while each.
//!
//! They are outside of the workspace because they need nightly. What they find on the way stays below the target
//! directory; the seeds in `fuzz/seeds` are written by hand and stay small.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use clap::Args;

#[derive(Args)]
pub struct Fuzz {
    /// One target only; all of them, one after the other, when absent.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Print the names of the targets, and run nothing.
    #[arg(long)]
    list: bool,
}

impl Fuzz {
    pub fn run(&self) -> anyhow::Result<()> {
        let mut targets = targets()?;
        if let Some(wanted) = &self.target {
            if !targets.contains(wanted) {
                bail!("no target `{wanted}`: there are {}", targets.join(", "));
            }
            targets.retain(|target| target == wanted);
        }
        if self.list {
            println!("{}", targets.join("\n"));
            return Ok(());
        }
        prerequisites()?;
        for target in &targets {
            crate::step(&format!("fuzz {target}"), command(target, self.seconds)?)
                .with_context(|| format!("the input is in fuzz/artifacts/{target}"))?;
        }
        println!("-- nothing was found in {} s a target", self.seconds);
        Ok(())
    }
}

fn targets() -> anyhow::Result<Vec<String>> {
    let directory = crate::root().join("fuzz/fuzz_targets");
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let name = |entry: std::fs::DirEntry| Some(entry.path().file_stem()?.to_str()?.to_owned());
    let mut targets: Vec<String> = entries.filter_map(Result::ok).filter_map(name).collect();
    targets.sort();
    Ok(targets)
}

/// Installs what is missing: nightly, and cargo-fuzz, which builds with its sanitizer.
fn prerequisites() -> anyhow::Result<()> {
    let answers = |arguments: &[&str]| {
        let status = rustup(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    if !answers(&["rustc", "--version"]) {
        let mut install = Command::new("rustup");
        install.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        crate::step("the nightly toolchain", install)?;
    }
    if !answers(&["cargo", "fuzz", "--version"]) {
        let install = rustup(&["cargo", "install", "cargo-fuzz", "--locked"]);
        crate::step("cargo-fuzz", install)?;
    }
    Ok(())
}

/// A command of the nightly toolchain, and not of the one that runs us.
fn rustup(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).args(arguments);
    for ours in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "CARGO_TARGET_DIR"] {
        command.env_remove(ours);
    }
    command
}

fn command(target: &str, seconds: u32) -> anyhow::Result<Command> {
    let home = crate::root().join("fuzz");
    let built = crate::target().join("fuzz");
    let corpus = built.join("corpus").join(target);
    std::fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    let mut command = rustup(&["cargo", "fuzz", "run", "--fuzz-dir", "fuzz", "--target-dir"]);
    command
        .current_dir(crate::root())
        .arg(&built)
        .arg(target)
        .arg(&corpus)
        .arg(home.join("seeds").join(target));
    command.args(["--", "-timeout=10", "-print_final_stats=1", "-print_funcs=0"]);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", longest(target)));
    if let Some(words) = words(target) {
        command.arg(format!(
            "-dict={}",
            home.join("dictionaries").join(words).display()
        ));
    }
    Ok(command)
}

/// Bytes of an input. Longer ones are slow, and say little that is new.
fn longest(target: &str) -> u32 {
    match target {
        "tar" | "oci" | "packages" => 16_384,
        _ => 4_096,
    }
}

/// Words of the language that a target reads.
fn words(target: &str) -> Option<&'static Path> {
    let name = match target.split('_').next()? {
        _ if ["edge_change", "edge_snapshot"].contains(&target) => "route.dict",
        "asl" => "asl.dict",
        "jsonata" => "jsonata.dict",
        "vend" | "buildspec" | "appspec" | "checks" => "yaml.dict",
        "edge" => "http.dict",
        "reports" => "reports.dict",
        "unit" => "unit.dict",
        "webhook" => "webhook.dict",
        _ => return None,
    };
    Some(Path::new(name))
}
