//! Daemons of Debian in a host: installed, started, restarted and stopped by their own maintainer scripts and units.
//!
//! Apart from the other tests, because the packages (about 100 MB) are fetched once, and kept beside the build.

#![allow(clippy::unwrap_used)]

#[path = "agent/world.rs"]
#[allow(dead_code)]
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use host::agent::api::{RunOrder, RunOutcome};
use world::World;

const PACKAGES: &str = "procps nginx apache2 mariadb-server postgresql redis-server php-fpm cron";

/// A minimal Debian with the packages at hand but not installed.
fn debian() -> Option<PathBuf> {
    let found = Command::new("sh").args(["-c", "command -v mmdebstrap"]).output();
    if !rustix::process::geteuid().is_root() || !found.is_ok_and(|found| found.status.success()) {
        println!("skipped: needs root and mmdebstrap");
        return None;
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-12-daemons");
    let lock = fs::File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !dir.exists() {
        let fresh = dir.with_extension("fresh");
        let _ = fs::remove_dir_all(&fresh);
        let fetch = format!(
            "chroot \"$1\" apt-get install --quiet --yes --download-only --no-install-recommends {PACKAGES}"
        );
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", "--skip=cleanup/apt"])
            .arg(format!("--customize-hook={fetch}"))
            .arg("bookworm")
            .arg(&fresh)
            .status()
            .unwrap();
        assert!(made.success());
        fs::rename(&fresh, &dir).unwrap();
    }
    Some(dir)
}

struct Host(World);

impl Host {
    /// A host in which a package was installed while it ran.
    async fn with(package: &str) -> Option<Self> {
        let world = World::start_on(&debian()?).await?;
        world.configure(&[]).await;
        let host = Self(world);
        let install = format!(
            "apt-get install --quiet --yes --no-download --no-install-recommends {package} 2>&1; echo \"code $?\""
        );
        let outcome = host.run(&install, 300).await;
        assert!(outcome.stdout.ends_with("code 0\n"), "{}", outcome.stdout);
        Some(host)
    }

    async fn run(&self, script: &str, seconds: u64) -> RunOutcome {
        let order = RunOrder {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            user: None,
            directory: None,
            environment: [("DEBIAN_FRONTEND", "noninteractive")]
                .map(|(name, value)| (name.to_owned(), model::Secret::new(value.to_owned())))
                .into(),
            stdin: None,
            timeout_ms: seconds * 1000,
        };
        self.0.agent.run(&order).await.unwrap()
    }

    /// What a script says within a minute.
    #[track_caller]
    fn says(&self, script: &'static str, expected: &'static str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut last = None;
            for _ in 0..120 {
                let outcome = self.run(script, 60).await;
                if outcome.stdout.trim() == expected {
                    return;
                }
                last = Some(outcome);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let logs = self.run("tail -n 20 /var/log/vend/*.log", 10).await;
            panic!(
                "{caller}: {script}: {last:?} instead of {expected}\n{}",
                logs.stdout
            );
        }
    }

    /// It runs, works, restarts with another main process, works again, stops, leaves nothing, and starts again.
    async fn lives(&self, service: &'static str, works: (&'static str, &'static str), left: &str) {
        let call = |verb: &str| format!("systemctl {verb} {service}; echo $?");
        self.says(leak(call("is-active --quiet")), "0").await;
        self.says(works.0, works.1).await;
        let main = leak(format!("systemctl show -p MainPID --value {service}"));
        let first = self.run(main, 10).await.stdout;
        self.says(leak(call("restart")), "0").await;
        self.says(works.0, works.1).await;
        assert_ne!(self.run(main, 10).await.stdout, first, "{service}");
        self.says(leak(call("stop")), "0").await;
        let count = leak(format!("ps -e -o comm= | grep -cE '^({left})$'; true"));
        self.says(count, "0").await;
        self.says(leak(format!("systemctl is-active {service}")), "inactive")
            .await;
        self.says(leak(call("start")), "0").await;
        self.says(works.0, works.1).await;
        self.says(
            leak(format!("systemctl is-enabled {service} | cut -d- -f1")),
            "enabled",
        )
        .await;
    }
}

/// Scripts live as long as the test.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// One request over HTTP, without a program for it.
const PAGE: &str =
    "exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | cut -d' ' -f2";

fn bash(script: &str) -> &'static str {
    leak(format!("bash -c \"{script}\""))
}

#[tokio::test]
async fn nginx() {
    let Some(host) = Host::with("nginx procps").await else {
        return;
    };
    let page = (bash(PAGE), "200");
    host.lives("nginx", page, "nginx").await;
    host.says("systemctl reload nginx; echo $?", "0").await;
    host.says(page.0, page.1).await;
    // Its main process dies: the unit says so, and the workers are gone by then.
    host.says(
        "kill -9 $(cat /run/nginx.pid); while systemctl is-active -q nginx || systemctl is-active nginx | grep -q ing; \
         do sleep 0.1; done; systemctl is-active nginx; pgrep -c nginx",
        "failed\n0",
    )
    .await;
}

#[tokio::test]
async fn apache() {
    let Some(host) = Host::with("apache2 procps").await else {
        return;
    };
    let page = (bash(PAGE), "200");
    host.lives("apache2", page, "apache2").await;
    host.says("systemctl reload apache2; echo $?", "0").await;
    host.says(page.0, page.1).await;
    host.says(
        "a2enmod -q rewrite; service apache2 restart; apachectl -M 2>/dev/null | grep -c rewrite",
        "1",
    )
    .await;
}

#[tokio::test]
async fn redis() {
    let Some(host) = Host::with("redis-server procps").await else {
        return;
    };
    host.lives("redis-server", ("redis-cli ping", "PONG"), "redis-server")
        .await;
    host.says("stat -c '%U %a' /run/redis", "redis 2755").await;
    host.says("systemctl is-active redis", "active").await;
    // It says itself when it is ready, and it is restarted when it dies.
    let pid = "systemctl show -p MainPID --value redis-server";
    let first = host.run(pid, 10).await.stdout;
    host.says(
        "kill -9 $(cat /run/redis/redis-server.pid); sleep 2; redis-cli ping",
        "PONG",
    )
    .await;
    assert_ne!(host.run(pid, 10).await.stdout, first);
}

#[tokio::test]
async fn cron() {
    let Some(host) = Host::with("cron procps").await else {
        return;
    };
    let works = ("test -e /run/crond.pid && pgrep -c cron", "1");
    host.lives("cron", works, "cron").await;
}

#[tokio::test]
async fn php_fpm() {
    let Some(host) = Host::with("php-fpm procps").await else {
        return;
    };
    let works = ("test -S /run/php/php8.2-fpm.sock && pgrep -c php-fpm", "3");
    host.lives("php8.2-fpm", works, "php-fpm8.2").await;
    host.says("systemctl reload php8.2-fpm; echo $?", "0").await;
    host.says(works.0, works.1).await;
    host.says("systemctl list-timers | grep -c phpsessionclean.service", "1")
        .await;
    host.says("systemctl start phpsessionclean; echo $?", "0").await;
}

#[tokio::test]
async fn postgresql() {
    let Some(host) = Host::with("postgresql procps").await else {
        return;
    };
    let query = "cd /; su postgres -c \"psql -qtAc 'select 40 + 2'\"";
    host.lives("postgresql@15-main", (query, "42"), "postgres").await;
    // The service of the whole brings and takes its instances.
    host.says("systemctl stop postgresql; pgrep -c postgres", "0")
        .await;
    host.says("systemctl start postgresql; echo $?", "0").await;
    host.says(query, "42").await;
    host.says(
        "service postgresql restart; systemctl is-active postgresql@15-main",
        "active",
    )
    .await;
    host.says("systemctl reload postgresql; echo $?", "0").await;
    host.says(query, "42").await;
}

#[tokio::test]
async fn mariadb() {
    let Some(host) = Host::with("mariadb-server procps").await else {
        return;
    };
    let query = "mariadb -NBe 'select 40 + 2'";
    host.lives("mariadb", (query, "42"), "mariadbd").await;
    host.says("service mysql status > /dev/null; echo $?", "0").await;
    host.says("systemctl show-environment | grep -c WSREP; true", "0")
        .await;
}
