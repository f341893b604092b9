//! The corridor, from a push to traffic, one measure after the other.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    load::Load,
    memory,
    platform::{Platform, get},
    sample::{Kind, Sample, VEND_YAML},
    stages::{self, Stages},
    table::{Table, median},
};

/// Repetitions.
struct Counts {
    ready: u32,
    first: u32,
    changes: u32,
    builds: u32,
    hosts: u32,
    approvals: u32,
    wakings: u32,
    deployments: u32,
}

const WHOLE: Counts = Counts {
    ready: 10,
    first: 3,
    changes: 20,
    builds: 10,
    hosts: 10,
    approvals: 10,
    wakings: 10,
    deployments: 50,
};
const QUICK: Counts = Counts {
    ready: 3,
    first: 1,
    changes: 5,
    builds: 2,
    hosts: 3,
    approvals: 2,
    wakings: 2,
    deployments: 10,
};

struct Run<'t> {
    platform: Platform,
    copies: PathBuf,
    /// Tenants of this run begin so.
    prefix: String,
    counts: Counts,
    only: Option<String>,
    table: &'t mut Table,
    failures: Vec<String>,
}

/// Measures everything. A measure that cannot be taken is said at the end, and does not stop the others.
pub fn run(binary: &Path, how: &super::Bench, table: &mut Table) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the platform's node must be root: run it with sudo");
    }
    let home = crate::target().join("bench");
    let mut platform = Platform::new(binary, &home.join("data"))?;
    if !how.reuse {
        empty(&mut platform, binary, &home.join("data"))?;
    }
    let counts = if how.quick { QUICK } else { WHOLE };
    let prefix = format!("t{}", now().as_second() % 1_000_000);
    let mut run = Run {
        platform,
        copies: home.join("copies"),
        prefix,
        counts,
        only: how.only.clone(),
        table,
        failures: Vec::new(),
    };
    run.all(how.reuse)?;
    match run.failures.as_slice() {
        [] => Ok(()),
        failures => bail!("not everything could be measured:\n{}", failures.join("\n")),
    }
}

/// What an earlier run left is taken down first: its mounts must not be emptied.
fn empty(platform: &mut Platform, binary: &Path, data: &Path) -> anyhow::Result<()> {
    if data.join("node").exists() {
        platform.down()?;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    if mounts
        .lines()
        .any(|line| line.contains(&data.display().to_string()))
    {
        bail!(
            "something is mounted in {0}: {1} down --data {0}",
            data.display(),
            binary.display()
        );
    }
    std::fs::remove_dir_all(data).with_context(|| format!("cannot empty {}", data.display()))?;
    std::fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))
}

impl Run<'_> {
    fn all(&mut self, reuse: bool) -> anyhow::Result<()> {
        say("vend up");
        let ready = self.platform.up()?;
        if !reuse {
            self.table
                .row("vend up to ready, empty data directory", "ms", &[ready * 1e3])
                .target(500.0);
        }
        self.idle("idle");
        if !reuse {
            self.part("first push ever", Self::first_ever);
        }
        self.part("first pushes, Procfile", |run| run.firsts(Kind::Perl));
        self.part("first pushes, guestbook", |run| run.firsts(Kind::Guestbook));
        self.part("one-line changes, Procfile", |run| run.changes(Kind::Perl));
        self.part("one-line changes, guestbook", |run| run.changes(Kind::Guestbook));
        self.part("host starts", Self::hosts);
        self.part("approvals", Self::approvals);
        self.part("waking", Self::waking);
        self.part("deployments under load", Self::load);
        self.idle("after the run");
        self.part("vend up", Self::ready);
        Ok(())
    }

    fn part(&mut self, name: &str, measure: impl FnOnce(&mut Self) -> anyhow::Result<()>) {
        let wanted = self.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
        let interrupted = |failure: &String| failure.contains("interrupted");
        if !wanted || self.failures.iter().any(interrupted) {
            return;
        }
        say(name);
        let started = Instant::now();
        match measure(self) {
            Ok(()) => println!("   {:.0} s", started.elapsed().as_secs_f64()),
            Err(error) => {
                eprintln!("   error: {error:#}");
                self.table.row(name, "", &[]);
                self.failures.push(format!("{name}: {error:#}"));
            }
        }
    }

    fn sample(&self, name: &str, kind: Kind) -> anyhow::Result<Sample> {
        Sample::new(
            &self.platform,
            &self.copies,
            &format!("{}-{name}", self.prefix),
            kind,
        )
    }

    /// With a base and an image for builds to be made first.
    fn first_ever(&mut self) -> anyhow::Result<()> {
        let live = self.sample("ever", Kind::Guestbook)?.release(&self.platform)?;
        self.table
            .row("push to live, guestbook, first ever", "s", &[live.seconds]);
        let mut stages = Stages::default();
        stages.add(&live.execution);
        self.table
            .note(format!("first ever, guestbook, ms: {}", stages.line()));
        Ok(())
    }

    /// The first push of an app whose base is there.
    fn firsts(&mut self, kind: Kind) -> anyhow::Result<()> {
        let (mut seconds, mut rest, mut stages) = (Vec::new(), Vec::new(), Stages::default());
        // The base may be missing still, or the image of builds.
        self.sample(&format!("warm-{}", name(kind)), kind)?
            .release(&self.platform)?;
        for number in 0..self.counts.first {
            let live = self
                .sample(&format!("first-{}-{number}", name(kind)), kind)?
                .release(&self.platform)?;
            let mut own = Stages::default();
            own.add(&live.execution);
            let make = own.of("Make").first().copied().unwrap_or_default();
            rest.push(live.seconds - make / 1e3);
            seconds.push(live.seconds);
            stages.add(&live.execution);
        }
        let name = name(kind);
        self.table
            .row(format!("push to live, {name}, first of an app"), "s", &seconds);
        self.table
            .row(
                format!("push to live, {name}, first, without build and bake"),
                "s",
                &rest,
            )
            .target(5.0);
        self.table
            .note(format!("first of an app, {name}, ms: {}", stages.line()));
        Ok(())
    }

    fn changes(&mut self, kind: Kind) -> anyhow::Result<()> {
        let count = if kind == Kind::Perl {
            self.counts.changes
        } else {
            self.counts.builds
        };
        let mut sample = self.sample(&format!("change-{}", name(kind)), kind)?;
        sample.release(&self.platform)?;
        let (mut seconds, mut stages) = (Vec::new(), Stages::default());
        for _ in 0..count {
            sample.change()?;
            let live = sample.release(&self.platform)?;
            seconds.push(live.seconds);
            stages.add(&live.execution);
        }
        let name = name(kind);
        self.table
            .row(format!("push to live, {name}, one-line change"), "s", &seconds)
            .target(1.0);
        self.table
            .note(format!("one-line change, {name}, ms: {}", stages.line()));
        Ok(())
    }

    /// Scales an environment up, one host at a time: its image is there, and nothing is built.
    fn hosts(&mut self) -> anyhow::Result<()> {
        let sample = self.sample("hosts", Kind::Perl)?;
        sample.release(&self.platform)?;
        let dev = sample.environment("dev");
        let (mut accepting, mut stages) = (Vec::new(), Stages::default());
        for number in 2..2 + self.counts.hosts {
            let before = self.host_ids(&dev)?;
            let started = self.platform.json(&["scale", &dev, &number.to_string()])?;
            let execution = started["executions"][0]
                .as_str()
                .context("scaling starts nothing")?
                .to_owned();
            let address = self.new_host(&dev, &before)?;
            let at = accepts(&self.platform, address)?;
            let detail = self.platform.finished(&execution)?;
            let provision = stages::entered(&detail, "Provision").context("no Provision in the history")?;
            accepting.push(stages::ms(provision, at));
            stages.add(&detail);
        }
        self.table.row(
            "baked image to host accepting connections, app included",
            "ms",
            &accepting,
        );
        self.table.row(
            "of it the stage Provision (an agent that answers)",
            "ms",
            stages.of("Provision"),
        );
        let started = node_starts(&self.platform.log(), &self.host_ids(&dev)?)?;
        self.table
            .row("host start as the node reports it, app excluded", "ms", &started)
            .target(30.0);
        self.table.note(format!("one host more, ms: {}", stages.line()));
        let agents = memory::agents(&self.host_ids(&dev)?);
        self.table.row("PSS of a host's agent, app idle", "MB", &agents);
        self.platform.vend(&["scale", &dev, "1"])?;
        Ok(())
    }

    fn host_ids(&self, environment: &str) -> anyhow::Result<Vec<String>> {
        let hosts = self.platform.items(&["hosts", "list", environment])?;
        Ok(hosts
            .iter()
            .filter_map(|host| host["id"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// Where the host that was not there before will answer.
    fn new_host(&self, environment: &str, before: &[String]) -> anyhow::Result<SocketAddr> {
        // Who asks for an address before it is there makes the kernel remember that it is not.
        let is_new = |host: &Value| {
            before.iter().all(|known| host["id"] != known.as_str()) && host["seen"] == "running"
        };
        let every = Duration::from_millis(1);
        let address = self.platform.until("a new host runs", every, |platform| {
            let hosts = platform.items(&["hosts", "list", environment])?;
            let new = hosts.iter().find(|host| is_new(host));
            Ok(new.and_then(|host| host["address"].as_str()).map(str::to_owned))
        })?;
        // The default of `host.port`, which the sample does not set.
        format!("{address}:8080")
            .parse()
            .with_context(|| format!("no address: {address}"))
    }

    /// From a person's yes to the first answer of the new version.
    fn approvals(&mut self) -> anyhow::Result<()> {
        let mut sample = self.sample("approval", Kind::Perl)?;
        let mut seconds = Vec::new();
        for _ in 0..self.counts.approvals {
            sample.change()?;
            let push = sample.push(&self.platform, "main")?;
            let id = self.platform.until(
                "an approval is asked for",
                Duration::from_millis(50),
                |platform| {
                    let all = platform.items(&["approvals", "list", &sample.app()])?;
                    let open = all.iter().find(|approval| approval["state"] == "open");
                    Ok(open
                        .and_then(|approval| approval["id"].as_str())
                        .map(str::to_owned))
                },
            )?;
            let started = Instant::now();
            self.platform.vend(&["approve", &id, "--yes"])?;
            sample.seen(&self.platform, "production", &push)?;
            seconds.push(started.elapsed().as_secs_f64());
            sample.execution(&self.platform, &push)?;
        }
        self.table.row("approval to traffic, Procfile", "s", &seconds);
        Ok(())
    }

    /// From a visitor's request for an environment that sleeps to its answer.
    fn waking(&mut self) -> anyhow::Result<()> {
        let mut sample = self.sample("waking", Kind::Perl)?;
        let sleepy = VEND_YAML.replace("branch: dev", "branch: dev, sleep_after: 10s");
        sample.write("vend.yaml", &sleepy)?;
        sample.change()?;
        sample.release(&self.platform)?;
        let (edge, host, mut milliseconds) = (self.platform.edge()?, sample.host("dev"), Vec::new());
        for _ in 0..self.counts.wakings {
            self.platform
                .until("it sleeps", Duration::from_millis(100), |platform| {
                    let all = platform.items(&["environments", "list", &sample.app()])?;
                    let dev = all.iter().find(|one| one["place"]["environment"] == "dev");
                    Ok(dev
                        .is_some_and(|dev| dev["execution"].is_null() && dev["state"] == "sleeping")
                        .then_some(()))
                })?;
            let started = Instant::now();
            let (status, _) = get(&edge, &host)?;
            if status != 200 {
                bail!("a visitor of a sleeper was answered {status}");
            }
            milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
        }
        self.table
            .row(
                "a sleeper's first visitor, request to answer",
                "ms",
                &milliseconds,
            )
            .target(150.0);
        Ok(())
    }

    /// Many deployments in a row while visitors come. None of them may notice.
    fn load(&mut self) -> anyhow::Result<()> {
        let mut sample = self.sample("load", Kind::Perl)?;
        sample.release(&self.platform)?;
        let (mut seconds, mut failed) = (Vec::new(), None);
        let load = Load::on(&self.platform.edge()?, &sample.host("dev"), "version ");
        for _ in 0..self.counts.deployments {
            let live = sample.change().and_then(|()| sample.release(&self.platform));
            match live {
                Ok(live) => seconds.push(live.seconds),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let seen = load.end();
        println!(
            "   {} requests, {} LOST, through {} deployments",
            seen.requests,
            seen.lost,
            seconds.len()
        );
        self.table
            .row(
                format!(
                    "REQUESTS LOST of {} in {} deployments",
                    seen.requests,
                    seconds.len()
                ),
                "",
                &[seen.lost as f64],
            )
            .target(0.0);
        self.table.row("push to live under that load", "s", &seconds);
        self.table
            .row("latency of requests under that load", "ms", &seen.latencies);
        for loss in &seen.losses {
            self.table.note(format!("lost: {loss}"));
        }
        failed.map_or(Ok(()), Err)
    }

    fn idle(&mut self, when: &str) {
        let Some(up) = self.platform.pid() else { return };
        // What has just been asked for is given back.
        std::thread::sleep(Duration::from_secs(2));
        let roles = memory::roles(up);
        for (role, mb) in &roles {
            self.table.row(format!("PSS of {role}, {when}"), "MB", &[*mb]);
        }
        let sum: f64 = ["serve", "node", "edge"]
            .iter()
            .filter_map(|role| roles.get(*role))
            .sum();
        self.table
            .row(format!("PSS of serve, node and edge, {when}"), "MB", &[sum])
            .target(80.0);
    }

    /// The platform again, with hosts that went on running meanwhile.
    fn ready(&mut self) -> anyhow::Result<()> {
        let mut ms = Vec::new();
        for _ in 0..self.counts.ready {
            self.platform.stop()?;
            ms.push(self.platform.up()? * 1e3);
        }
        self.table
            .row("vend up to ready, hosts running", "ms", &ms)
            .target(500.0);
        Ok(())
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Perl => "procfile",
        Kind::Guestbook => "guestbook",
    }
}

fn say(text: &str) {
    println!("-- {text}");
}

/// When a connection is first accepted.
fn accepts(platform: &Platform, address: SocketAddr) -> anyhow::Result<Timestamp> {
    platform.until("the host accepts connections", Duration::from_micros(500), |_| {
        let accepted = TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_ok();
        Ok(accepted.then(now))
    })
}

/// Milliseconds from the order to an agent that answers, as the node reported them for these hosts.
fn node_starts(log: &Path, hosts: &[String]) -> anyhow::Result<Vec<f64>> {
    let text = std::fs::read_to_string(log).context("cannot read the platform's log")?;
    let value = |line: &str, name: &str| {
        let rest = &line[line.find(name)? + name.len()..];
        Some(rest.split_whitespace().next()?.to_owned())
    };
    let mut first = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(" runs")) {
        let (Some(id), Some(ms)) = (value(line, "host.id="), value(line, "duration_ms=")) else {
            continue;
        };
        // Later ones found the host running.
        if let (true, Ok(ms)) = (hosts.contains(&id), ms.parse::<f64>()) {
            first.entry(id).or_insert(ms);
        }
    }
    let starts: Vec<f64> = first.into_values().collect();
    median(&starts).context("the log says nothing about starts of hosts")?;
    Ok(starts)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark compares its own clock with the platform's records"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
