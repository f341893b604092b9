//! Every strategy under load: a success, a hook that fails, a health check that fails, an abort. No visitor may notice.
//!
//! | | success, failing hook, failing health check, abort before a step | abort later | worse than the old hosts |
//! |---|---|---|---|
//! | blue-green | [`blue_green_loses_nothing`] | [`abort`]: while a hook of the old hosts hangs | |
//! | in-place | [`in_place_loses_nothing`] | [`abort`]: some hosts have it | |
//! | canary | [`canary_loses_nothing`] | [`abort`]: while it is watched | [`judged`]: by errors, by times |
//! | linear | [`linear_loses_nothing`] | [`abort`]: at its second step | [`judged`]: by times |
//!
//! How many hosts serve meanwhile: [`minimum`]. What else comes in the middle: [`middle`], [`shared`], [`alarms`].
//!
//! [`abort`]: crate::abort
//! [`alarms`]: crate::alarms
//! [`judged`]: crate::judged
//! [`middle`]: crate::middle
//! [`minimum`]: crate::minimum
//! [`shared`]: crate::shared

use std::time::Duration;

use serde_json::Value;

use crate::{
    load::Load,
    platform::{Copy, Platform, can_run, eventually},
};

/// Small times: what is tested is the order of things.
pub const HOST: &str =
    "host: { port: 8080, health: { path: /health, interval: 500ms, timeout: 500ms, within: 8s } }";

const APPSPEC: &str = "version: 0.0
os: linux
files:
  - { source: server.pl, destination: /srv/shop }
hooks:
  ApplicationStop: [{ location: stop.sh, timeout: 20 }]
  ApplicationStart: [{ location: start.sh, timeout: 20 }]
  ValidateService: [{ location: validate.sh, timeout: 20 }]
";

const START: &str = "#!/bin/sh
setsid perl /srv/shop/server.pl >/dev/null 2>&1 </dev/null &
echo $! > /run/shop.pid
";

const UNIT_APPSPEC: &str = "version: 0.0
os: linux
files:
  - { source: server.pl, destination: /srv/shop }
  - { source: web.service, destination: /etc/systemd/system }
hooks:
  ApplicationStart: [{ location: unit.sh, timeout: 20 }]
  ValidateService: [{ location: validate.sh, timeout: 20 }]
";

/// What runs is finished before it ends.
const STOP: &str = "#!/bin/sh
[ -f /run/shop.pid ] && kill \"$(cat /run/shop.pid)\"
rm -f /run/shop.pid
";

pub const VALIDATE: &str = "#!/usr/bin/perl
use strict; use IO::Socket::INET;
for (1 .. 100) {
    exit 0 if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => 8080);
    select undef, undef, undef, 0.1;
}
die 'nobody listens';
";

/// Says its text, is as healthy as it is told to be, and fails what asks for trouble.
const SERVER: &str = r#"
use strict; use warnings; use IO::Socket::INET;
$SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 256, ReuseAddr => 1) or die $!;
while (1) {
    my $client = $server->accept() or next;
    next if fork();
    my $path = '/';
    while (my $line = <$client>) {
        $path = $1 if $line =~ m{^GET (\S+)};
        last if $line =~ /^\r?\n$/;
    }
    select undef, undef, undef, 1.5 if $path eq '/slow';
    my $status = $path eq '/health' ? HEALTH : $path eq '/trouble' ? TROUBLE : 200;
    my $body = "TEXT " . ($ENV{LEVEL} // 'none') . "\n";
    print $client "HTTP/1.1 $status OK\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
    close $client; exit 0;
}
"#;

/// A customer's app with an appspec.
pub struct App {
    pub copy: Copy,
    pub vend_yaml: String,
}

impl App {
    pub fn new(deploy: &str, hosts: u32) -> Self {
        let vend_yaml = format!(
            "app: shop\n{HOST}\ndeploy: {{ keep_old: 2s, drain: 5s, {deploy} }}\nscaling: {{ min: {hosts}, max: {most} }}\n\
             environments:\n  dev: {{ branch: dev }}\n",
            most = hosts.max(3)
        );
        let copy = Copy::new("none", &vend_yaml);
        std::fs::remove_file(copy.directory.path().join("Procfile")).unwrap();
        copy.write("appspec.yml", APPSPEC);
        for (name, text) in [("start.sh", START), ("stop.sh", STOP), ("validate.sh", VALIDATE)] {
            copy.write(name, text);
        }
        Self { copy, vend_yaml }
    }

    pub fn says(&self, text: &str) {
        self.server(text, 200, 200);
    }

    pub fn server(&self, text: &str, health: u16, trouble: u16) {
        let server = SERVER
            .replace("TEXT", text)
            .replace("HEALTH", &health.to_string())
            .replace("TROUBLE", &trouble.to_string());
        self.copy.write("server.pl", server);
        self.copy.commit(text);
    }
}

/// One environment with visitors.
pub struct Stage<'p> {
    pub platform: &'p Platform,
    pub tenant: String,
    pub app: String,
    pub dev: String,
    pub host: String,
}

impl<'p> Stage<'p> {
    pub fn new(platform: &'p Platform, prefix: &str) -> Self {
        let (tenant, app) = platform.tenant_with_app(prefix);
        Self {
            platform,
            dev: format!("{app}/dev"),
            host: format!("dev.shop.{tenant}.localhost"),
            tenant,
            app,
        }
    }

    pub fn serves(&self, text: &str) {
        let (status, body) = self.platform.get(&self.host, "/");
        assert_eq!((status, body.split(' ').next()), (200, Some(text)), "{body}");
    }

    /// The newest deployment that the push made.
    pub fn deployment(&self) -> Value {
        let list = self.platform.json(&["deployments", "list", &self.dev]);
        let id = list["items"][0]["id"].as_str().unwrap_or_default().to_owned();
        self.platform.json(&["deployments", "show", &id])
    }

    /// Waits for a deployment of the push that goes on now.
    pub fn under_way(&self) -> Value {
        eventually("a deployment is under way", Duration::from_secs(60), || {
            let list = self.platform.json(&["deployments", "list", &self.dev]);
            let newest = list["items"][0].clone();
            let open = newest["ended_at"].is_null() && newest["id"].is_string();
            open.then_some(newest)
        })
    }

    pub fn fails(&self, app: &App) -> (Value, Value) {
        let number = self.platform.push(&app.copy, &self.app, "dev");
        let push = self.platform.ended(&self.app, number);
        assert_eq!(push["state"], "failed", "{push:#}");
        (push, self.failed())
    }

    /// The deployment that failed, which may have been undone by another one.
    pub fn failed(&self) -> Value {
        let list = self.platform.json(&["deployments", "list", &self.dev]);
        let all = list["items"].as_array().unwrap();
        let ended = |own: &&Value| own["state"] == "Failed" || own["state"] == "Stopped";
        all.iter()
            .find(ended)
            .cloned()
            .unwrap_or_else(|| panic!("{list:#}"))
    }

    /// Held before its next step, then ended.
    pub fn aborts(&self, app: &App) {
        let number = self.platform.push(&app.copy, &self.app, "dev");
        self.under_way();
        self.platform.vend(&["deploy", "pause", &self.dev]);
        eventually("it is held", Duration::from_secs(60), || {
            (self.deployment()["state"] == "Ready").then_some(())
        });
        let held = self.platform.json(&["why", &self.app]);
        assert!(held.to_string().contains("vend deploy resume"), "{held:#}");
        self.platform.vend(&["deploy", "abort", &self.dev]);
        let push = self.platform.ended(&self.app, number);
        assert!(
            push["reason"].as_str().unwrap().contains("cancelled it"),
            "{push:#}"
        );
        let stopped = self.failed();
        assert_eq!(
            (&stopped["state"], &stopped["code"]),
            (&"Stopped".into(), &"MANUAL_STOP".into())
        );
    }

    pub fn end(self) {
        self.platform.vend(&["tenants", "delete", &self.tenant, "--yes"]);
    }
}

pub fn nothing_was_lost(load: Load) {
    let (good, bad) = load.end();
    println!("{good} requests, {} failed", bad.len());
    assert!(good > 50, "only {good} requests were made");
    assert!(
        bad.is_empty(),
        "{} of {good} requests failed: {:?}",
        bad.len(),
        &bad[..bad.len().min(5)]
    );
}

/// A success, a hook that fails, a health check that fails and an abort, with visitors all the time.
fn all_four(strategy: &str, deploy: &str, hosts: u32) {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "strategy");
    let app = App::new(&format!("strategy: {strategy}{deploy}"), hosts);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    stage.serves("one");

    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("two");
    let done = stage.deployment();
    assert_eq!(
        (&done["strategy"], &done["state"]),
        (&strategy.into(), &"Succeeded".into())
    );
    assert_eq!(done["hosts"].as_array().unwrap().len() as u32, hosts, "{done:#}");

    app.copy
        .write("validate.sh", "#!/bin/sh\necho no configuration\nexit 3\n");
    app.says("hook");
    let (push, failed) = stage.fails(&app);
    assert!(
        push["reason"]
            .as_str()
            .unwrap()
            .contains("ValidateService failed on host"),
        "{push:#}"
    );
    assert!(
        failed["reason"].as_str().unwrap().contains("no configuration"),
        "{failed:#}"
    );
    assert_eq!(failed["code"], "HEALTH_CONSTRAINTS", "{failed:#}");
    stage.serves("two");

    app.copy.write("validate.sh", VALIDATE);
    app.server("ill", 500, 200);
    let (push, _) = stage.fails(&app);
    assert!(
        push["reason"].as_str().unwrap().contains("is not healthy"),
        "{push:#}"
    );
    stage.serves("two");

    app.says("aborted");
    stage.aborts(&app);
    stage.serves("two");

    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("three");
    nothing_was_lost(load);
    stage.end();
}

#[test]
fn blue_green_loses_nothing() {
    all_four("blue-green", "", 2);
}

#[test]
fn in_place_loses_nothing() {
    all_four("in-place", "", 3);
}

#[test]
fn canary_loses_nothing() {
    all_four(
        "canary",
        ", percent: 30%, interval: 2s, analysis: { sample: 5, slower: 10000% }",
        2,
    );
}

#[test]
fn linear_loses_nothing() {
    all_four(
        "linear",
        ", steps: 3, interval: 1s, analysis: { sample: 5, slower: 10000% }",
        2,
    );
}

/// The script that stops a release is that release's own: the fix cannot correct it, and may leave it behind.
#[test]
fn a_release_that_cannot_be_stopped_is_replaced_by_one_that_does_not_mind() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "stop");
    let app = App::new("strategy: in-place", 2);
    app.copy.write("stop.sh", format!("{STOP}exit 3\n"));
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);

    app.copy.write("stop.sh", STOP);
    app.says("two");
    let (push, _) = stage.fails(&app);
    assert!(
        push["reason"]
            .as_str()
            .unwrap()
            .contains("ApplicationStop failed"),
        "{push:#}"
    );

    let ignoring = app.vend_yaml.replace(
        "strategy: in-place",
        "strategy: in-place, ignore_stop_failures: true",
    );
    app.copy.write("vend.yaml", ignoring);
    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("three");
    let done = stage.deployment();
    let stops = done["hosts"].as_array().unwrap().iter().flat_map(|host| {
        let events = host["events"].as_array().unwrap().iter();
        events.filter(|event| event["event"] == "ApplicationStop")
    });
    // On record it has failed.
    let stops: Vec<&Value> = stops.map(|event| &event["status"]).collect();
    assert!(stops.contains(&&"Failed".into()), "{done:#}");
    nothing_was_lost(load);
    stage.end();
}

/// An app may become one of another kind on the hosts that it has: what it was before does not keep its port.
#[test]
fn in_place_an_app_changes_between_a_procfile_and_an_appspec() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "kinds");
    let app = App::new("strategy: in-place", 2);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let hosts = || {
        let hosts = platform.json(&["hosts", "list", &stage.dev]);
        let ids = hosts["items"].as_array().unwrap().iter();
        let ids: std::collections::BTreeSet<String> = ids.map(|host| host["id"].to_string()).collect();
        ids
    };
    let before = hosts();
    let load = Load::on(&platform.http(), &stage.host);
    let path = |name: &str| app.copy.directory.path().join(name);
    let appspec = std::fs::read_to_string(path("appspec.yml")).unwrap();

    std::fs::remove_file(path("appspec.yml")).unwrap();
    app.copy.write("Procfile", "web: exec perl server.pl\n");
    app.says("procfile");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("procfile");

    std::fs::remove_file(path("Procfile")).unwrap();
    app.copy.write("deploy/appspec.yml", appspec);
    let moved = app.vend_yaml.replace(
        "strategy: in-place",
        "strategy: in-place, appspec: deploy/appspec.yml",
    );
    app.copy.write("vend.yaml", moved);
    app.says("moved");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("moved");

    // A unit that is called like the process, which no script stops, and the process again.
    std::fs::remove_file(path("deploy/appspec.yml")).unwrap();
    app.copy.write("vend.yaml", &app.vend_yaml);
    for (kind, name, text) in [
        ("process", "Procfile", "web: exec perl server.pl\n"),
        ("unit", "appspec.yml", UNIT_APPSPEC),
        ("again", "Procfile", "web: exec perl server.pl\n"),
    ] {
        app.copy.write(name, text);
        app.copy.write(
            "web.service",
            "[Service]\nExecStart=/usr/bin/perl /srv/shop/server.pl\n",
        );
        app.copy.write(
            "unit.sh",
            "#!/bin/sh\nsystemctl daemon-reload && systemctl start web\n",
        );
        app.says(kind);
        platform.release(&app.copy, &stage.app, "dev");
        stage.serves(kind);
        // What the scripts of both hosts said can be read, though all went well.
        let said = platform.vend(&["logs", &stage.dev, "--kind", "deploy"]);
        let scripts = if kind == "unit" { 2 } else { 0 };
        assert_eq!(said.matches("Script - unit.sh").count(), scripts, "{said}");
        std::fs::remove_file(path(name)).unwrap();
    }
    assert_eq!(hosts(), before, "they are those that were there");
    nothing_was_lost(load);
    stage.end();
}

/// With one host there is nobody to serve meanwhile: requests wait for it at the load balancer.
#[test]
fn in_place_on_the_only_host_lets_requests_wait() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "alone");
    let app = App::new("strategy: in-place", 1);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("two");
    assert_eq!(stage.deployment()["strategy"], "in-place");
    nothing_was_lost(load);
    // A minimum that can never be kept is refused before anything is touched.
    let impossible = app
        .vend_yaml
        .replace("strategy: in-place", "strategy: in-place, minimum_healthy: 1");
    app.copy.write("vend.yaml", impossible);
    app.says("three");
    let number = platform.push(&app.copy, &stage.app, "dev");
    let push = platform.ended(&stage.app, number);
    assert!(
        push["reason"]
            .as_str()
            .unwrap()
            .contains("HEALTH_CONSTRAINTS_INVALID"),
        "{push:#}"
    );
    // No host was ever asked.
    assert_eq!(stage.deployment()["state"], "Succeeded");
    stage.serves("two");
    stage.end();
}
