//! Bakes beside `buildah bud` with the same steps on the same base, in rounds that take turns: the machine may be busy,
//! and then only ratios mean something.
//!
//! The room drives `host`'s example `bakes` and Debian's buildah, each as a process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{Bench, Table, table::median};

/// What a script of a customer does: packages; users and files; what is the app's own.
const STEPS: [(&str, &str); 3] = [
    (
        "1.sh",
        "#!/bin/sh\nset -e\nexport DEBIAN_FRONTEND=noninteractive\napt-get update -q\napt-get install -qy --no-install-recommends python3-minimal file tree\n",
    ),
    (
        "2.sh",
        "#!/bin/sh\nset -e\nuseradd -m deploy\nfor i in $(seq 2000); do echo $i > /home/deploy/$i; done\nchown -R deploy /home/deploy\n",
    ),
    (
        "3.sh",
        "#!/bin/sh\nset -e\nmkdir -p /opt/app\necho 1 > /opt/app/VERSION\n",
    ),
];
const IMAGES: u32 = 50;
const MIB: f64 = 1_048_576.0;

pub fn run(options: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let mut build = crate::cargo(["build", "--release", "--package", "host", "--example", "bakes"]);
    build.arg("--quiet");
    crate::step("the release build of the bakes", build)?;
    let target = crate::target();
    let home = target.join("bench/bake");
    if home.exists() && !options.reuse {
        fs::remove_dir_all(&home).with_context(|| format!("cannot empty {}", home.display()))?;
    }
    let steps = home.join("steps");
    fs::create_dir_all(&steps).context("cannot make the directory of the steps")?;
    for (name, text) in STEPS {
        write(&steps.join(name), text)?;
    }
    let ours = Ours {
        program: target.join(env!("TARGET")).join("release/examples/bakes"),
        node: home.join("node"),
        steps,
    };
    let base = ours.run(&["base"])?;
    if !options.reuse {
        table.row("cold base debian-12", "s", &[seconds(&base, "seconds")?]);
    }
    let root = base["root"].as_str().context("the base has no files")?;
    let peer = Peer::prepare(&home, Path::new(root));
    if let Err(error) = &peer {
        table.note(format!("buildah was not measured: {error:#}"));
    }
    rounds(options, &ours, peer.as_ref().ok(), table)?;
    disk(
        &ours,
        peer.as_ref().ok(),
        base["bytes"].as_u64().unwrap_or_default(),
        table,
    )?;
    let load = fs::read_to_string("/proc/loadavg")?;
    table.note(format!("load at the end: {}", load.trim()));
    Ok(())
}

/// Seconds of each kind, one for each round.
#[derive(Default)]
struct Times {
    cold: Vec<f64>,
    cached: Vec<f64>,
    changed: Vec<f64>,
}

fn rounds(options: &Bench, ours: &Ours, peer: Option<&Peer>, table: &mut Table) -> anyhow::Result<()> {
    let (mut own, mut theirs) = (Times::default(), Times::default());
    for _ in 0..if options.quick { 1 } else { 5 } {
        let one = ours.run(&["cold"])?;
        own.cold.push(seconds(&one, "cold")?);
        own.cached.push(seconds(&one, "cached")?);
        own.changed.push(seconds(&one, "changed")?);
        if let Some(peer) = peer {
            peer.round(&mut theirs)?;
        }
    }
    let ms = |all: &[f64]| all.iter().map(|seconds| seconds * 1e3).collect::<Vec<f64>>();
    table.row("cold bake, three steps", "s", &own.cold);
    table.row("cached bake", "ms", &ms(&own.cached)).target(10.0);
    table.row("bake after a change in the last script", "s", &own.changed);
    if peer.is_some() {
        table.row("buildah bud: cold", "s", &theirs.cold);
        table.row("buildah bud: cached", "ms", &ms(&theirs.cached));
        table.row(
            "buildah bud: after a change in the last step",
            "s",
            &theirs.changed,
        );
        let ratio = |own: &[f64], theirs: &[f64]| Some(median(own)? / median(theirs)?);
        for (name, own, theirs, most) in [
            ("cold: ours / buildah's", &own.cold, &theirs.cold, Some(0.8)),
            ("cached: ours / buildah's", &own.cached, &theirs.cached, None),
            ("changed: ours / buildah's", &own.changed, &theirs.changed, None),
        ] {
            let Some(ratio) = ratio(own, theirs) else { continue };
            let row = table.row(name, "", &[ratio]);
            if let Some(most) = most {
                row.target(most);
            }
        }
    }
    Ok(())
}

/// What fifty images on one base take.
fn disk(ours: &Ours, peer: Option<&Peer>, base: u64, table: &mut Table) -> anyhow::Result<()> {
    let made = ours.run(&["many", &IMAGES.to_string()])?;
    let layers = made["layers"].as_str().context("there are no layers")?;
    let bytes = usage(Path::new(layers))?;
    table.row(
        format!("disk of {IMAGES} images on one base"),
        "MiB",
        &[bytes as f64 / MIB],
    );
    table.row("of it the base", "MiB", &[base as f64 / MIB]);
    if let Some(peer) = peer {
        for number in 0..IMAGES {
            peer.bud(&format!("# image {number}\n"), &format!("many-{number}"))?;
        }
        let bytes = usage(&peer.storage)?;
        table.row(
            format!("buildah: disk of {IMAGES} images"),
            "MiB",
            &[bytes as f64 / MIB],
        );
    }
    Ok(())
}

struct Ours {
    program: PathBuf,
    node: PathBuf,
    steps: PathBuf,
}

impl Ours {
    fn run(&self, mode: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.program);
        command.args([&self.node, &self.steps]).args(mode);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run the bakes")?;
        if !output.status.success() {
            bail!("the bakes ended with {}", output.status);
        }
        serde_json::from_slice(&output.stdout).context("the bakes said something else")
    }
}

/// Debian's buildah with a storage of its own.
struct Peer {
    storage: PathBuf,
    run: PathBuf,
    context: PathBuf,
}

impl Peer {
    fn prepare(home: &Path, root: &Path) -> anyhow::Result<Self> {
        let found = Command::new("buildah").arg("--version").output();
        if !found.is_ok_and(|found| found.status.success()) {
            let mut install = Command::new("apt-get");
            install
                .args(["install", "-qy", "--no-install-recommends", "buildah"])
                .env("DEBIAN_FRONTEND", "noninteractive");
            crate::step("buildah", install)?;
        }
        let peer = Self {
            storage: home.join("buildah"),
            run: home.join("buildah-run"),
            context: home.join("context"),
        };
        fs::create_dir_all(&peer.context).context("cannot make the directory of the context")?;
        let container = peer.call(&["from", "scratch"])?;
        let files = root.to_string_lossy();
        peer.call(&["copy", "--quiet", &container, &files, "/"])?;
        peer.call(&["commit", "--quiet", &container, "base"])?;
        peer.call(&["rm", &container])?;
        Ok(peer)
    }

    fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(&self.storage)
            .arg("--runroot")
            .arg(&self.run)
            .args(["--storage-driver", "overlay"])
            .args(arguments);
        let output = command.output().context("cannot run buildah")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("buildah {}: {}", arguments.first().unwrap_or(&""), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Seconds for an image of the steps, the last one with a text more.
    fn bud(&self, more: &str, name: &str) -> anyhow::Result<f64> {
        let mut file = String::from("FROM localhost/base\nWORKDIR /srv/vend/source\n");
        for (step, text) in STEPS {
            let more = if step == "3.sh" { more } else { "" };
            write(&self.context.join(step), &format!("{text}{more}"))?;
            file.push_str(&format!("COPY {step} {step}\nRUN ./{step}\n"));
        }
        write(&self.context.join("Containerfile"), &file)?;
        let context = self.context.to_string_lossy();
        let started = Instant::now();
        // Its weakest isolation, which is its fastest and works on any machine.
        self.call(&[
            "bud",
            "--quiet",
            "--layers",
            "--isolation",
            "chroot",
            "--tag",
            name,
            &context,
        ])?;
        Ok(started.elapsed().as_secs_f64())
    }

    fn round(&self, times: &mut Times) -> anyhow::Result<()> {
        // What earlier rounds made would be found again.
        let images = self.call(&["images", "--quiet", "--all", "--filter", "since=localhost/base"])?;
        for image in images.lines() {
            // A child goes with its parent, and is not there any more then.
            let _ = self.call(&["rmi", "--force", image]);
        }
        times.cold.push(self.bud("", "cold")?);
        times.cached.push(self.bud("", "cached")?);
        times.changed.push(self.bud("# changed\n", "changed")?);
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn seconds(value: &Value, name: &str) -> anyhow::Result<f64> {
    value[name]
        .as_f64()
        .with_context(|| format!("the bakes do not say `{name}`"))
}

/// Bytes on the disk, each file once.
fn usage(path: &Path) -> anyhow::Result<u64> {
    let output = Command::new("du")
        .args(["-sB1"])
        .arg(path)
        .output()
        .context("cannot run du")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes = text.split_whitespace().next().and_then(|word| word.parse().ok());
    bytes.context("du says nothing")
}
