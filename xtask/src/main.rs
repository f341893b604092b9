//! Set-up, tests, fuzzing and benchmarks of the project: `cargo xtask test`, `cargo xtask bench NAME`.

mod apps;
mod bench;
mod fuzz;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

/// What developers and CI run.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what the tests need, then checks and tests everything.
    Test,
    /// Measures, as a user would see it, and prints medians with the targets.
    Bench(bench::Bench),
    /// Builds apps that others wrote for CodeBuild, unmodified.
    Apps(apps::Apps),
    /// Feeds parsers with bytes that nobody thought of.
    Fuzz(fuzz::Fuzz),
    /// Writes the reference documents that are generated from the code.
    Reference,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Test => test(),
        Task::Bench(bench) => bench.run(),
        Task::Apps(apps) => apps.run(),
        Task::Fuzz(fuzz) => fuzz.run(),
        Task::Reference => reference(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> anyhow::Result<()> {
    // What comes from the network comes while the compiler works.
    std::thread::scope(|scope| {
        let others = scope.spawn(others);
        let built = build();
        others
            .join()
            .expect("what is installed does not panic")
            .and(built)
    })?;
    // After the others: Debian's packages are installed by one at a time.
    step("what the tests need", vend(["doctor", "--install"]))?;
    step("format", cargo(["fmt", "--all", "--check"]))?;
    step(
        "format of the fuzz targets",
        cargo(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]),
    )?;
    step(
        "clippy",
        cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    let mut docs = cargo(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", docs)?;
    step(
        "reference documents are up to date",
        vend(["reference", "--check", "docs/reference"]),
    )?;
    if has("cargo-nextest") {
        let profile = if std::env::var_os("CI").is_some() {
            "ci"
        } else {
            "default"
        };
        step(
            "tests",
            cargo([
                "nextest",
                "run",
                "--workspace",
                "--no-fail-fast",
                "--profile",
                profile,
            ]),
        )?;
    } else {
        step(
            "tests",
            cargo(["test", "--workspace", "--no-fail-fast", "--", "--test-threads=2"]),
        )?;
    }
    if has("cargo-deny") {
        step(
            "licences and advisories",
            cargo(["deny", "--offline", "check", "licenses"]),
        )?;
    } else {
        println!("-- licences: skipped, cargo-deny is not installed (the test `licences` checks them too)");
    }
    println!("-- everything passed");
    Ok(())
}

/// All at once: the binary alone would build most dependencies with other features, and so twice.
fn build() -> anyhow::Result<()> {
    step(
        "the binary and its tests",
        cargo(["test", "--workspace", "--no-run"]),
    )
}

/// What others made, and only the tests need.
fn others() -> anyhow::Result<()> {
    tools()?;
    clients()?;
    checkov()?;
    provider()
}

/// What only the tests need, besides what the platform does.
fn tools() -> anyhow::Result<()> {
    let wanted = [
        ("python3", "python3", "a server for checks to look at"),
        ("ip", "iproute2", "test networks"),
        ("pgrep", "procps", "scripts and units that signal processes"),
        ("pebble", "pebble", "an authority for certificates"),
        ("dig", "dnsutils", "a client of name servers"),
        ("curl", "curl", "a client of the load balancer"),
        ("h2load", "nghttp2-client", "another"),
        ("openssl", "openssl", "a third"),
        ("npm", "npm", "a provider of identities, and peers of benchmarks"),
        ("packer", "packer", "Packer's own opinion of our templates"),
        ("systemd-analyze", "systemd", "systemd's own opinion of our units"),
        (
            "docker-registry",
            "docker-registry",
            "a registry that is not ours",
        ),
        ("skopeo", "skopeo", "another program's look at images"),
        ("umoci", "umoci", "another"),
        ("podman", "podman", "a third, which runs them"),
        ("runc", "runc", "what umoci's bundles run by"),
        ("buildah", "buildah", "a fourth, and a peer of benchmarks"),
        // Not `mariadb-server`, which would start one.
        (
            "mariadbd",
            "mariadb-server-core",
            "databases that data is carried between",
        ),
        ("mariadb-dump", "mariadb-client", "what carries it"),
    ];
    for (program, package, why) in wanted {
        if !has(program) {
            install(package, why)?;
        }
    }
    let mut ensurepip = Command::new("python3");
    ensurepip.args(["-c", "import ensurepip"]).stderr(Stdio::null());
    if !ensurepip.status().is_ok_and(|status| status.success()) {
        install("python3-venv", "an environment for the clients of AWS")?;
    }
    Ok(())
}

fn install(package: &str, why: &str) -> anyhow::Result<()> {
    println!("installing {package}: {why}");
    let mut apt = Command::new("apt-get");
    apt.args(["-qq", "-y", "--no-install-recommends", "install", package]);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    step(package, apt)
}

/// The clients of AWS that tests drive, moto, cfn-lint, and clients of the load balancer, in an environment of their own beside the build.
fn clients() -> anyhow::Result<PathBuf> {
    let wanted = [
        "awscli==1.46.2",
        "boto3==1.44.5",
        "cfn-guard-rs==0.3.3",
        "cfn-lint==1.58.0",
        "grpcio==1.85.1",
        "moto[stepfunctions,server]==5.2.5",
        "websockets==15.0.1",
    ];
    python("clients", &wanted)
}

/// checkov, apart from the clients: it wants other versions of the same packages.
fn checkov() -> anyhow::Result<PathBuf> {
    python("checkov", &["checkov==3.3.30"])
}

/// A provider of identities, from npm.
fn provider() -> anyhow::Result<()> {
    let directory = target().join("provider");
    if directory.join("node_modules/oidc-provider").exists() {
        return Ok(());
    }
    let mut install = Command::new("npm");
    install
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(&directory)
        .arg("oidc-provider@9.13.3");
    step("oidc-provider", install)
}

/// An environment of Python with these packages.
fn python(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let directory = target().join(name);
    let done = directory.join("installed");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(directory);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&directory);
    step("an environment for Python packages", make)?;
    let mut install = Command::new(directory.join("bin/pip"));
    install
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(packages);
    step(&packages.join(", "), install)?;
    std::fs::write(&done, wanted).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(directory)
}

fn reference() -> anyhow::Result<()> {
    build()?;
    step("reference documents", vend(["reference", "docs/reference"]))
}

fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    println!("-- {name}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    println!("-- {name}: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root());
    command
}

fn vend<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(binary("debug"));
    command.args(arguments).current_dir(root());
    command
}

/// Where cargo puts the binary: the target is named in `.cargo/config.toml`, so it is part of the path.
fn binary(profile: &str) -> PathBuf {
    target().join(env!("TARGET")).join(profile).join("vend")
}

/// Where everything that is made goes.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |target| root().join(target))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a directory of the workspace")
}

fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).exists()))
}
