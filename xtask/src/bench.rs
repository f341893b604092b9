//! `cargo xtask bench`: figures as a user would see them.
//!
//! The room drives release binaries through their command lines and nothing else. It knows no crate of the platform, so
//! that it cannot measure a short cut that users do not have. It asserts nothing about times: machines differ.

mod bake;
mod corridor;
mod deploy;
mod edge;
mod load;
mod memory;
mod platform;
mod sample;
mod stages;
mod states;
mod strategies;
mod synth;
mod table;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use self::table::Table;

#[derive(Args)]
pub struct Bench {
    /// `corridor`: from a push to traffic, on this machine, as root. `deploy`: a deployment on one host, its agent, and
    /// every strategy under load (`--only strategies`, `fifty`, `kept`), as root. `bake`: images, beside buildah, as root. `edge`: the load balancer beside others. `states`: the engine
    /// of state machines. `synth`: templates for AWS.
    name: String,
    /// Fewer repetitions.
    #[arg(long)]
    quick: bool,
    /// Measure this binary instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Keep the data directory of the run before, with its caches: nothing of what comes first is measured.
    #[arg(long)]
    reuse: bool,
    /// Only the parts whose name holds this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Also build the binary from nothing, in a target directory of its own. Takes minutes.
    #[arg(long)]
    cold_build: bool,
}

impl Bench {
    pub fn run(&self) -> anyhow::Result<()> {
        match self.name.as_str() {
            "corridor" => self.corridor(),
            "states" => {
                let mut table = Table::default();
                let went = states::run(self, &mut table);
                table.print();
                table.keep(&states::kept())?;
                went
            }
            "edge" => {
                let mut table = Table::default();
                let went = edge::run(self, &mut table);
                table.print();
                table.keep(&crate::target().join("bench/edge.json"))?;
                went
            }
            "bake" => {
                let mut table = Table::default();
                let went = bake::run(self, &mut table);
                table.print();
                table.keep(&crate::target().join("bench/bake.json"))?;
                went
            }
            "deploy" => self.deploy(),
            "synth" => {
                let mut table = Table::default();
                let went = synth::run(self, &mut table);
                table.print();
                table.keep(&crate::target().join("bench/synth.json"))?;
                went
            }
            other => bail!(
                "no benchmark `{other}`: there are `bake`, `corridor`, `deploy`, `edge`, `states` and `synth`"
            ),
        }
    }

    fn deploy(&self) -> anyhow::Result<()> {
        let binary = self.release()?;
        let mut table = Table::default();
        let went =
            deploy::run(&binary, self, &mut table).and_then(|()| strategies::run(&binary, self, &mut table));
        table.print();
        table.keep(&deploy::kept())?;
        went
    }

    /// The binary that is measured.
    fn release(&self) -> anyhow::Result<PathBuf> {
        match &self.binary {
            Some(binary) => {
                std::path::absolute(binary).with_context(|| format!("no path: {}", binary.display()))
            }
            None => {
                let build = crate::cargo(["build", "--release", "--package", "vend"]);
                crate::step("the release binary", build)?;
                Ok(crate::binary("release"))
            }
        }
    }

    fn corridor(&self) -> anyhow::Result<()> {
        let binary = self.release()?;
        let mut table = Table::default();
        let bytes = std::fs::metadata(&binary)
            .with_context(|| format!("no binary {}", binary.display()))?
            .len();
        table.row("binary", "MB", &[bytes as f64 / 1e6]).target(40.0);
        let went = corridor::run(&binary, self, &mut table);
        if self.cold_build && went.is_ok() {
            let seconds = cold_build()?;
            table.row("cold release build", "s", &[seconds]).target(300.0);
        }
        table.print();
        table.keep(&crate::target().join("bench/corridor.json"))?;
        went
    }
}

/// Seconds for the release binary, with nothing but the sources of its dependencies there.
fn cold_build() -> anyhow::Result<f64> {
    let target = crate::target().join("bench/cold");
    if target.exists() {
        std::fs::remove_dir_all(&target).with_context(|| format!("cannot empty {}", target.display()))?;
    }
    crate::step("the sources of dependencies", crate::cargo(["fetch", "--locked"]))?;
    let mut build = crate::cargo(["build", "--release", "--locked", "--offline", "--package", "vend"]);
    build.env("CARGO_TARGET_DIR", &target);
    let started = Instant::now();
    crate::step("a cold build", build)?;
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
    Ok(seconds)
}
