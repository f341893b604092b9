//! What a deployment costs on one host: files installed, beside what copies files elsewhere; one hook; the agent.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};

use super::{Bench, memory, table::Table};

/// In directories of a hundred, of 1 KiB each.
const FILES: usize = 10_000;

/// A root of its own over this machine's: nothing of it is changed.
const HOST: &str = r#"set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p run/vend
mount --bind "$2" run/vend
mount -t proc proc proc
mount -t tmpfs tmpfs dev
cp "$3" sbin/vend-bench
date +%s%N >"$2/started"
exec env -i /usr/sbin/chroot . /sbin/vend-bench agent
"#;

/// The names of all parts.
pub const PARTS: [&str; 3] = ["files", "hook", "agent"];

pub fn run(binary: &Path, bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    let scratch = crate::target().join("bench/deploy");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let times = if bench.quick { 3 } else { 10 };
    if bench.wants("files") {
        files(binary, &scratch, times, table)?;
    }
    if bench.wants("hook") {
        hook(binary, &scratch, times * 3, table)?;
    }
    if bench.wants("agent") {
        agent(binary, &scratch, times, table)?;
    }
    fs::remove_dir_all(&scratch).context("cannot clean up")
}

fn files(binary: &Path, scratch: &Path, times: u32, table: &mut Table) -> anyhow::Result<()> {
    let bundle = scratch.join("files");
    for number in 0..FILES {
        let directory = bundle.join(format!("app/{:03}", number / 100));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("file-{number}")), [b'x'; 1024])?;
    }
    let target = scratch.join("installed");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: {}\n",
        target.display()
    );
    fs::write(bundle.join("appspec.yml"), appspec)?;
    let deployed = repeat(times, || {
        let _ = fs::remove_dir_all(&target);
        let _ = fs::remove_dir_all(scratch.join("root"));
        deploy(binary, scratch, &bundle)
    })?;
    table.row("10,000 files: bundle copied and installed", "s", &deployed);
    let again = repeat(times, || deploy(binary, scratch, &bundle))?;
    table.row("the same over an earlier install", "s", &again);
    if fs::read_dir(target.join("099")).map_or(0, Iterator::count) != 100 {
        bail!("not all files were installed to {}", target.display());
    }
    let source = bundle.join("app");
    for (name, program, arguments) in [("rsync -a, twice", "rsync", "-a"), ("cp -a, twice", "cp", "-aT")] {
        // Twice, as the agent does it: into the archive, and from there to its place.
        let copied = repeat(times, || {
            let (first, second) = (scratch.join("copy-1"), scratch.join("copy-2"));
            for directory in [&first, &second] {
                let _ = fs::remove_dir_all(directory);
            }
            let slash = |path: &Path| format!("{}/", path.display());
            let started = Instant::now();
            for (from, to) in [(&source, &first), (&first, &second)] {
                quiet(Command::new(program).args([arguments, &slash(from), &slash(to)]))?;
            }
            Ok(started.elapsed())
        });
        match copied {
            Ok(values) => drop(table.row(format!("10,000 files: {name}"), "s", &values)),
            Err(error) => table.note(format!("{program} was not measured: {error}")),
        }
    }
    table.note("The Ruby agent is on no package registry: it was not measured.");
    Ok(())
}

fn hook(binary: &Path, scratch: &Path, times: u32, table: &mut Table) -> anyhow::Result<()> {
    let bundle = scratch.join("hook");
    fs::create_dir_all(&bundle)?;
    let script = bundle.join("hook.sh");
    fs::write(&script, "#!/bin/sh\nexit 0\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let write = |count: usize| {
        let scripts = "    - location: hook.sh\n".repeat(count);
        let hooks = if count > 0 {
            format!("hooks:\n  AfterInstall:\n{scripts}")
        } else {
            String::new()
        };
        fs::write(
            bundle.join("appspec.yml"),
            format!("version: 0.0\nos: linux\n{hooks}"),
        )
    };
    write(0)?;
    let without = repeat(times, || deploy(binary, scratch, &bundle))?;
    write(20)?;
    let with = repeat(times, || deploy(binary, scratch, &bundle))?;
    let least = without.iter().copied().fold(f64::INFINITY, f64::min);
    let hooks: Vec<f64> = with.iter().map(|with| (with - least) * 1000.0 / 20.0).collect();
    table.row(
        "a deployment of nothing",
        "ms",
        &without.iter().map(|s| s * 1000.0).collect::<Vec<_>>(),
    );
    table.row("one hook that does nothing", "ms", &hooks);
    Ok(())
}

fn agent(binary: &Path, scratch: &Path, times: u32, table: &mut Table) -> anyhow::Result<()> {
    let (mut starts, mut sizes) = (Vec::new(), Vec::new());
    for number in 0..times {
        let (root, run) = (
            scratch.join(format!("host-{number}")),
            scratch.join(format!("run-{number}")),
        );
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&run)?;
        let child = Command::new("unshare")
            .args([
                "--fork",
                "--pid",
                "--mount",
                "--net",
                "--kill-child",
                "sh",
                "-c",
                HOST,
                "sh",
            ])
            .args([&root, &run])
            .arg(binary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run unshare")?;
        let mut host = Host(child);
        let (pid, started) = host.answers(&run)?;
        starts.push(started);
        sizes.extend(memory::pss(pid));
    }
    table.row("agent: from its start to its socket", "ms", &starts);
    table.row("agent: memory (PSS)", "MB", &sizes);
    Ok(())
}

struct Host(Child);

impl Host {
    /// Its first process, and the milliseconds from just before it was the agent to when that listened.
    #[expect(clippy::disallowed_methods, reason = "a shell wrote down its time")]
    fn answers(&mut self, run: &Path) -> anyhow::Result<(u32, f64)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline && self.0.try_wait()?.is_none() {
            if run.join("agent.sock").exists() {
                let listens = SystemTime::now().duration_since(UNIX_EPOCH)?;
                let started: u64 = fs::read_to_string(run.join("started"))?.trim().parse()?;
                let took = listens.saturating_sub(Duration::from_nanos(started));
                let pid = memory::children(self.0.id()).next();
                return Ok((pid.context("the agent has gone")?, took.as_secs_f64() * 1000.0));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        bail!("the agent does not answer: are you root, and may namespaces be made?")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn deploy(binary: &Path, scratch: &Path, bundle: &Path) -> anyhow::Result<Duration> {
    let configuration = scratch.join("codedeployagent.yml");
    fs::write(
        &configuration,
        format!(":root_dir: '{}'\n", scratch.join("root").display()),
    )?;
    let mut command = Command::new(binary);
    command
        .args(["codedeploy-local", "--bundle-location"])
        .arg(bundle)
        .arg("--agent-configuration-file")
        .arg(configuration);
    let started = Instant::now();
    quiet(&mut command)?;
    Ok(started.elapsed())
}

fn quiet(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stdout).trim());
    }
    Ok(())
}

fn repeat(times: u32, mut once: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Vec<f64>> {
    (0..times).map(|_| Ok(once()?.as_secs_f64())).collect()
}
