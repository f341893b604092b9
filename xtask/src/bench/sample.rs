//! Two customers' working copies: a server in the Perl that every Debian base has, without build or bake, and the
//! guestbook, with both, unit tests and a database.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::platform::{Platform, get, said};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Perl,
    Guestbook,
}

/// A working copy and the app that it is pushed to.
pub struct Sample {
    kind: Kind,
    copy: PathBuf,
    tenant: String,
    name: &'static str,
    changes: u32,
}

/// A release that visitors see.
pub struct Live {
    /// From before `git push` to the first answer of the new version.
    pub seconds: f64,
    /// As `vend executions show --json` says it.
    pub execution: Value,
}

pub const VEND_YAML: &str = "app: perl
host: { health: { path: /, interval: 1s, timeout: 1s } }
deploy: { keep_old: 5s }
scaling: { min: 1, max: 100 }
environments:
  dev: { branch: dev }
  production: { branch: main, approval: { required: 1, author_may_approve: true } }
";

const SERVER: &str = r"
use strict; use warnings; use IO::Socket::INET;
$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 128, ReuseAddr => 1) or die $!;
while (1) {
    my $client = $server->accept() or next;
    next if fork();
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/; }
    my $body = qq{VERSION\n};
    print $client qq{HTTP/1.1 200 OK\r\nContent-Length: } . length($body) . qq{\r\nConnection: close\r\n\r\n$body};
    close $client; exit 0;
}
";

impl Sample {
    /// A tenant, its app and a working copy in `directory`, with nothing pushed yet.
    pub fn new(platform: &Platform, directory: &Path, tenant: &str, kind: Kind) -> anyhow::Result<Self> {
        let name = match kind {
            Kind::Perl => "perl",
            Kind::Guestbook => "guestbook",
        };
        let copy = directory.join(format!("{tenant}-{name}"));
        let mut sample = Self {
            kind,
            copy,
            tenant: tenant.to_owned(),
            name,
            changes: 0,
        };
        platform.vend(&["tenants", "create", tenant])?;
        platform.vend(&["apps", "create", &sample.app()])?;
        sample.create()?;
        sample.change()?;
        Ok(sample)
    }

    pub fn app(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }

    pub fn environment(&self, name: &str) -> String {
        format!("{}/{name}", self.app())
    }

    /// The name under which visitors reach an environment.
    pub fn host(&self, environment: &str) -> String {
        format!("{environment}.{}.{}.localhost", self.name, self.tenant)
    }

    /// What only the newest version says.
    fn version(&self) -> String {
        format!("version {} of {}.", self.changes, self.tenant)
    }

    fn create(&self) -> anyhow::Result<()> {
        if self.copy.exists() {
            std::fs::remove_dir_all(&self.copy).context("cannot empty the working copy")?;
        }
        std::fs::create_dir_all(&self.copy).context("cannot create the working copy")?;
        match self.kind {
            Kind::Perl => {
                self.write("vend.yaml", VEND_YAML)?;
                self.write("Procfile", "web: exec perl server.pl\n")?;
            }
            Kind::Guestbook => {
                let example = crate::root().join("examples/guestbook/.");
                let output = Command::new("cp")
                    .arg("--archive")
                    .arg(example)
                    .arg(&self.copy)
                    .output();
                said("cp", &output.context("cannot run cp")?)?;
                // Another customer's script is another layer.
                let script = self.copy.join("infra/install.sh");
                let text =
                    std::fs::read_to_string(&script).context("the guestbook has no infra/install.sh")?;
                self.write("infra/install.sh", &format!("{text}\n# of {}\n", self.tenant))?;
            }
        }
        self.git(&["init", "--quiet", "--initial-branch=main"])
    }

    /// Changes one line, and commits.
    pub fn change(&mut self) -> anyhow::Result<()> {
        self.changes += 1;
        let version = self.version();
        match self.kind {
            Kind::Perl => self.write("server.pl", &SERVER.replace("VERSION", &version))?,
            Kind::Guestbook => self.write("guestbook/version.py", &format!("VERSION = \"{version}\"\n"))?,
        }
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", &version])
    }

    /// A version that does not start, and commits.
    pub fn ruin(&mut self) -> anyhow::Result<()> {
        self.changes += 1;
        self.write("server.pl", &format!("die 'ruin {}';", self.changes))?;
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", "ruin"])
    }

    /// Waits until a push has failed.
    pub fn failed(&self, platform: &Platform, push: &Value) -> anyhow::Result<()> {
        let state = platform.until("the push ends", Duration::from_millis(50), |platform| {
            let state = self.row(platform, push)?["state"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            Ok((state != "waiting" && state != "running").then_some(state))
        })?;
        match state.as_str() {
            "failed" => Ok(()),
            other => bail!("a push that cannot start is {other}"),
        }
    }

    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// `vend push`: the push as the platform has it, when git is done.
    pub fn push(&self, platform: &Platform, branch: &str) -> anyhow::Result<Value> {
        let app = self.app();
        let mut command = platform.command(&["push", &app, "--branch", branch, "--force", "--json"]);
        let text = said(
            "vend push",
            &command
                .current_dir(&self.copy)
                .output()
                .context("cannot run vend push")?,
        )?;
        serde_json::from_str(&text).with_context(|| format!("vend push says {text:?}"))
    }

    /// Pushes, and waits until a visitor sees it and until its execution is over.
    pub fn release(&self, platform: &Platform) -> anyhow::Result<Live> {
        let started = Instant::now();
        let push = self.push(platform, "dev")?;
        self.seen(platform, "dev", &push)?;
        let seconds = started.elapsed().as_secs_f64();
        let execution = self.execution(platform, &push)?;
        Ok(Live { seconds, execution })
    }

    /// Returns when a visitor gets the newest version.
    pub fn seen(&self, platform: &Platform, environment: &str, push: &Value) -> anyhow::Result<()> {
        let (edge, host, version) = (platform.edge()?, self.host(environment), self.version());
        let mut looks = 0_u32;
        platform.until(
            "a visitor sees the new version",
            Duration::from_millis(5),
            |platform| {
                looks += 1;
                if looks.is_multiple_of(200) {
                    self.fail_early(platform, push)?;
                }
                let seen =
                    get(&edge, &host).is_ok_and(|(status, body)| status == 200 && body.contains(&version));
                Ok(seen.then_some(()))
            },
        )
    }

    fn row(&self, platform: &Platform, push: &Value) -> anyhow::Result<Value> {
        let pushes = platform.items(&["pushes", "list", &self.app()])?;
        let row = pushes.into_iter().find(|row| row["number"] == push["number"]);
        row.with_context(|| format!("the platform does not know push {}", push["number"]))
    }

    fn fail_early(&self, platform: &Platform, push: &Value) -> anyhow::Result<()> {
        let row = self.row(platform, push)?;
        match row["state"].as_str() {
            Some("waiting" | "running" | "done") => Ok(()),
            _ => bail!("{} is not released: {}", self.app(), row["reason"]),
        }
    }

    /// The execution of a push, once it has ended well.
    pub fn execution(&self, platform: &Platform, push: &Value) -> anyhow::Result<Value> {
        let id = platform.until(
            "the push has an execution",
            Duration::from_millis(50),
            |platform| {
                self.fail_early(platform, push)?;
                Ok(self.row(platform, push)?["execution"].as_str().map(str::to_owned))
            },
        )?;
        platform.finished(&id)
    }

    /// A file of the working copy.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.copy.join(path);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn git(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let identity = [
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@acme.example",
            "-c",
            "commit.gpgsign=false",
        ];
        let output = Command::new("git")
            .current_dir(&self.copy)
            .args(identity)
            .args(arguments)
            .output();
        said("git", &output.context("cannot run git")?).map(drop)
    }
}
