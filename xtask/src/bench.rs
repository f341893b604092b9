//! `cargo xtask bench`: figures as a user would see them.
//!
//! The room drives release binaries through their command lines and nothing else. It knows no crate of the platform, so
//! that it cannot measure a short cut that users do not have. It asserts nothing about times: machines differ.

mod apply;
mod bake;
mod builds;
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
    /// every strategy under load (`--only strategies`, `fifty`, `kept`), as root. `bake`: images, beside buildah, and builds, beside a bare shell (`--only images`, `builds`), as root. `edge`: the load balancer beside others. `states`: the engine
    /// of state machines. `synth`: templates for AWS, beside the CDK, and what an apply asks of AWS (`--only templates`, `requests`).
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
        let mut table = Table::default();
        let figures = &mut table;
        let went = match self.name.as_str() {
            "bake" => self.bake(figures),
            "corridor" => self.corridor(figures),
            "deploy" => self.deploy(figures),
            "edge" => edge::run(self, figures),
            "states" => states::run(self, figures),
            "synth" => self.synth(figures),
            other => bail!(
                "no benchmark `{other}`: there are `bake`, `corridor`, `deploy`, `edge`, `states` and `synth`"
            ),
        };
        // Figures that came before a failure are figures, too; without any, those of the run before stay.
        if table.is_empty() {
            return went;
        }
        table.print();
        table.keep(&kept(&self.name))?;
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

    /// Is this part to be measured?
    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| part.contains(only.as_str()))
    }

    fn deploy(&self, table: &mut Table) -> anyhow::Result<()> {
        let parts: Vec<String> = deploy::PARTS
            .map(str::to_owned)
            .into_iter()
            .chain(strategies::parts())
            .collect();
        if !parts.iter().any(|part| self.wants(part)) {
            bail!("no part is called so: there are {}", parts.join(", "));
        }
        let binary = self.release()?;
        deploy::run(&binary, self, table)?;
        strategies::run(&binary, self, table)
    }

    fn bake(&self, table: &mut Table) -> anyhow::Result<()> {
        if self.wants("images") {
            bake::run(self, table)?;
        }
        match self.wants("builds") {
            true => builds::run(&self.release()?, self, table),
            false => Ok(()),
        }
    }

    fn synth(&self, table: &mut Table) -> anyhow::Result<()> {
        if self.wants("templates") {
            synth::run(self, table)?;
        }
        match self.wants("requests") {
            true => apply::run(&self.release()?, self, table),
            false => Ok(()),
        }
    }

    fn corridor(&self, table: &mut Table) -> anyhow::Result<()> {
        let binary = self.release()?;
        let bytes = std::fs::metadata(&binary)
            .with_context(|| format!("no binary {}", binary.display()))?
            .len();
        table.row("binary", "MB", &[bytes as f64 / 1e6]).target(40.0);
        corridor::run(&binary, self, table)?;
        if self.cold_build {
            table
                .row("cold release build", "s", &[cold_build()?])
                .target(300.0);
        }
        Ok(())
    }
}

/// Where the figures of a benchmark's last run are.
fn kept(name: &str) -> PathBuf {
    crate::target().join(format!("bench/{name}.json"))
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
