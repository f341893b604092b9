//! What comes in the middle of a deployment: a newer push, more hosts, a host that dies, somebody else who wants to go.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use crate::{
    load::Load,
    parting::NEIGHBOUR,
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage, VALIDATE, nothing_was_lost},
};

pub const MINUTE: Duration = Duration::from_secs(60);

/// The platform listens on the first address of this machine's own.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

impl Stage<'_> {
    /// Pushes, and waits until its deployment is held.
    fn held(&self, app: &App) -> u64 {
        let number = self.platform.push(&app.copy, &self.app, "dev");
        self.under_way();
        self.platform.vend(&["deploy", "pause", &self.dev]);
        eventually("it is held", MINUTE, || {
            (self.deployment()["state"] == "Ready").then_some(())
        });
        number
    }

    /// Is a visitor given a cookie that leads back to the same host?
    fn binds_visitors(&self) -> bool {
        let mut stream = TcpStream::connect(self.platform.http()).unwrap();
        let host = &self.host;
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.to_ascii_lowercase().contains("\r\nset-cookie: ")
    }

    /// What a visitor of a path gets who comes from another address of this machine.
    fn visited_from_elsewhere(&self) -> String {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let to: std::net::SocketAddr = self.platform.http().parse().unwrap();
        let own = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&own, &std::net::SocketAddr::from((ELSEWHERE, 0))).unwrap();
        connect(&own, &to).unwrap();
        let mut stream = TcpStream::from(own);
        let host = &self.host;
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// The first deployment of a release, with what happened on its hosts.
    pub fn deployments_of(&self, release: u64) -> Value {
        let list = self.platform.json(&["deployments", "list", &self.dev]);
        let mut all = list["items"].as_array().unwrap().iter();
        let own = all.rfind(|own| own["release"] == release);
        let id = own.unwrap_or_else(|| panic!("none of v{release}: {list:#}"))["id"].as_str();
        self.platform.json(&["deployments", "show", id.unwrap()])
    }

    pub fn hosts(&self) -> Vec<Value> {
        let hosts = self.platform.json(&["hosts", "list", &self.dev]);
        hosts["items"].as_array().unwrap().clone()
    }

    /// How many hosts of a release are in a state.
    pub fn count(&self, release: u64, state: &str) -> usize {
        let own = |host: &&Value| host["release"] == release && host["wanted"] == state;
        self.hosts().iter().filter(own).count()
    }
}

#[test]
fn a_newer_push_takes_the_place_of_one_that_is_held_or_failing() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "fix");
    let app = App::new("strategy: blue-green", 1);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    app.says("better");
    platform.release(&app.copy, &stage.app, "dev");
    app.says("two");
    let held = stage.held(&app);
    // One deployment at a time: who comes second hears for whom it would wait, and how that ends.
    let second = platform.try_vend(&["rollback", &stage.dev, "--to", "v1"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let holder = stage.deployment()["id"].as_str().unwrap().to_owned();
    assert!(
        !second.status.success() && said.contains(&holder) && said.contains("vend deploy abort"),
        "{said}"
    );
    let plan = platform.vend(&["rollback", &stage.dev, "--to", "v1", "--plan"]);
    assert!(
        plan.contains("it would be refused") && plan.contains(&holder),
        "{plan}"
    );
    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("three");
    let push = platform.ended(&stage.app, held);
    assert_eq!(push["state"], "superseded", "{push:#}");
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains("supersedes it") && reason.contains("paused it"),
        "{reason}"
    );
    let (good, bad) = load.end();
    assert!(bad.is_empty() && good > 50, "{good} {bad:?}");
    let ledger = platform.vend(&["audit", "list", "--all", "--json"]);
    assert!(ledger.contains("execution.supersede"), "it is on record");
    stage.end();
}

#[test]
fn a_newer_push_takes_the_place_of_one_that_hangs_in_a_hook() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[deployments]\npatience_s = 3\n");
    for strategy in ["blue-green", "in-place"] {
        let stage = Stage::new(&platform, "hang");
        let app = App::new(&format!("strategy: {strategy}"), 2);
        app.says("one");
        platform.release(&app.copy, &stage.app, "dev");
        let load = Load::on(&platform.http(), &stage.host);
        app.copy
            .write("validate.sh", "#!/bin/sh\necho waiting\nsleep 1000\n");
        app.says("two");
        let hung = platform.push(&app.copy, &stage.app, "dev");
        stage.under_way();
        app.copy.write("validate.sh", VALIDATE);
        app.says("three");
        platform.release(&app.copy, &stage.app, "dev");
        stage.serves("three");
        let push = platform.ended(&stage.app, hung);
        assert_eq!(push["state"], "superseded", "{strategy}: {push:#}");
        let reason = push["reason"].as_str().unwrap();
        assert!(
            reason.contains("supersedes it") && reason.contains("hangs in a hook"),
            "{strategy}: {reason}"
        );
        let (good, bad) = load.end();
        assert!(bad.is_empty() && good > 50, "{strategy}: {good} {bad:?}");
        stage.end();
    }
}

/// The script that hangs is one of the live release, on a host more.
#[test]
fn a_push_takes_the_place_of_a_scaling_that_hangs_in_a_hook() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[deployments]\npatience_s = 3\n");
    let stage = Stage::new(&platform, "crowd");
    let app = App::new("strategy: blue-green", 1);
    let read = |name: &str| std::fs::read_to_string(app.copy.directory.path().join(name)).unwrap();
    let (appspec, start) = (read("appspec.yml"), read("start.sh"));
    let patient = appspec.replace("start.sh, timeout: 20", "start.sh, timeout: 3000");
    app.copy.write("appspec.yml", patient);
    app.copy.write("neighbour.pl", NEIGHBOUR);
    let alone = "#!/bin/sh\nperl \"$(dirname \"$0\")/neighbour.pl\" one && sleep 4328\n";
    app.copy.write("start.sh", start.replace("#!/bin/sh\n", alone));
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    platform.vend(&["scale", &stage.dev, "2"]);
    let scaling = eventually("its second host hangs", MINUTE, || {
        stage.goes_on("ApplicationStart").then(|| stage.deployment())
    });
    app.copy.write("start.sh", start);
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("two");
    let shown = platform.json(&["deployments", "show", scaling["id"].as_str().unwrap()]);
    assert_eq!(
        (&shown["release"], &shown["state"], &shown["code"]),
        (&1.into(), &"Stopped".into(), &"MANUAL_STOP".into()),
        "{shown:#}"
    );
    let reason = shown["reason"].as_str().unwrap();
    assert!(
        reason.contains("supersedes it") && reason.contains("hangs in a hook"),
        "{reason}"
    );
    assert_eq!(stage.count(2, "serving"), 2, "what was asked for holds");
    nothing_was_lost(load);
    stage.end();
}

/// Its hooks, and what it waits for on purpose, take longer together than a hook may hang.
#[test]
fn a_good_release_that_waits_as_it_is_meant_to_is_not_ended_for_a_newer_push() {
    if !can_run() {
        return;
    }
    let platform = Platform::with("[deployments]\npatience_s = 4\n");
    let stage = Stage::new(&platform, "waits");
    // Nobody comes, so each look is repeated: that is longer still.
    let canary = "strategy: canary, percent: 50%, interval: 6s, analysis: { sample: 5 }";
    let app = App::new(&canary.replace("strategy", "drain: 1s, strategy"), 1);
    app.copy
        .write("vend.yaml", app.vend_yaml.replace("drain: 5s, ", ""));
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    app.copy.write(
        "appspec.yml",
        format!("{appspec}  AfterAllowTraffic: [{{ location: allow.sh, timeout: 20 }}]\n"),
    );
    app.copy.write("allow.sh", "#!/bin/sh\nsleep 3\n");
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    app.says("two");
    let good = platform.push(&app.copy, &stage.app, "dev");
    eventually("it has a part of the traffic", MINUTE, || {
        (stage.deployment()["state"] == "Baking").then_some(())
    });
    app.says("three");
    let newer = platform.push(&app.copy, &stage.app, "dev");
    let push = platform.ended(&stage.app, good);
    assert_eq!(push["state"], "done", "{push:#}");
    let shown = stage.deployments_of(2);
    let events: Vec<&Value> = shown["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|host| host["events"].as_array().unwrap())
        .filter(|event| event["event"] == "AfterAllowTraffic")
        .collect();
    assert!(
        events.len() == 1 && events[0]["status"] == "Succeeded",
        "what ran is on record: {shown:#}"
    );
    assert_eq!(platform.ended(&stage.app, newer)["state"], "done");
    stage.serves("three");
    stage.end();
}

#[test]
fn hosts_that_come_or_go_in_the_middle_end_with_the_right_release() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "middle");
    let app = App::new("strategy: blue-green", 2);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    app.says("two");
    let number = stage.held(&app);
    // More hosts: both fleets get theirs, each with its own release.
    platform.vend(&["scale", &stage.dev, "3"]);
    eventually("both fleets grow", MINUTE, || {
        (stage.count(1, "serving") == 3 && stage.count(2, "ready") == 3).then_some(())
    });
    // One of each dies.
    for (release, state) in [(1, "serving"), (2, "ready")] {
        let own = |host: &&Value| host["release"] == release && host["wanted"] == state;
        let hosts = stage.hosts();
        let victim = hosts.iter().find(own).unwrap()["id"].as_str().unwrap().to_owned();
        kill(&platform, &victim);
        eventually("it is replaced", MINUTE, || {
            let hosts = stage.hosts();
            let gone = hosts.iter().all(|host| host["id"] != victim.as_str());
            (gone && stage.count(release, state) == 3).then_some(())
        });
    }
    // Serve may end meanwhile: what was held is held.
    platform.kill("serve");
    platform.wait_until_ready();
    assert_eq!(stage.deployment()["state"], "Ready");
    platform.vend(&["deploy", "resume", &stage.dev]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    stage.serves("two");
    assert_eq!(stage.count(2, "serving"), 3);
    stage.end();
}

/// The processes of a host, as this machine knows them.
pub fn processes(host: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        groups.contains(host).then_some(pid)
    });
    pids.collect()
}

/// Ends all processes of a host, as the loss of a machine would.
pub fn kill(platform: &Platform, host: &str) {
    let node = platform.data().join("node");
    let pids = processes(host);
    assert!(!pids.is_empty(), "no process of {host} under {}", node.display());
    for pid in pids {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn going_back_restores_configuration_secrets_health_check_and_rules() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "back");
    let app = App::new("strategy: in-place", 1);
    let set = |value: &str| {
        let mut command = platform.command(&["secrets", "set", &stage.app, "level"]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), value.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    };
    let with_secret = app.vend_yaml.replace(
        "port: 8080,",
        "port: 8080, traffic: { stickiness: { duration: 1d } }, env: { LEVEL: \"{{secret:level}}\" },",
    );
    let with_secret = format!("access: {{ deny: [127.0.0.2] }}\n{with_secret}");
    app.copy.write("vend.yaml", &with_secret);
    set("low");
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    assert_eq!(platform.get(&stage.host, "/").1, "one low\n");
    assert!(stage.binds_visitors());
    assert!(
        stage.visited_from_elsewhere().contains(" 403 "),
        "{}",
        stage.visited_from_elsewhere()
    );
    set("high");
    app.copy.write(
        "vend.yaml",
        with_secret
            .replace("path: /health", "path: /")
            .replace("drain: 5s", "drain: 3s")
            .replace("access: { deny: [127.0.0.2] }\n", "")
            .replace("traffic: { stickiness: { duration: 1d } }, ", ""),
    );
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    assert_eq!(platform.get(&stage.host, "/").1, "two high\n");
    assert!(!stage.binds_visitors());
    assert!(
        stage.visited_from_elsewhere().contains(" 200 "),
        "{}",
        stage.visited_from_elsewhere()
    );

    let plan = platform.json(&["rollback", &stage.dev, "--plan"]);
    let change = |name: &str| {
        let changes = plan["plan"]["changes"].as_array().unwrap().iter();
        let mut own = changes.filter(|change| change["name"] == name);
        own.next()
            .cloned()
            .unwrap_or_else(|| panic!("no {name} in {plan:#}"))
    };
    assert_eq!(change("level")["after"], "version 1");
    assert_eq!(change("host.health.path")["after"], "/health");
    assert_eq!(change("deploy.drain")["after"], "5s");
    assert_eq!(change("access.deny")["after"], "127.0.0.2/32");
    assert!(
        change("deployment")["after"]
            .as_str()
            .unwrap()
            .starts_with("in place")
    );

    platform.succeeds(&["rollback", &stage.dev]);
    assert_eq!(platform.get(&stage.host, "/").1, "one low\n");
    assert!(stage.binds_visitors());
    assert!(
        stage.visited_from_elsewhere().contains(" 403 "),
        "{}",
        stage.visited_from_elsewhere()
    );
    stage.end();
}

#[test]
fn in_place_a_host_that_joins_late_catches_up() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "late");
    let app = App::new("strategy: in-place", 2);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    app.says("two");
    let number = stage.held(&app);
    let before = stage.hosts();
    platform.vend(&["scale", &stage.dev, "3"]);
    // It joins with the release that is live, while none or one of the others has the new one.
    let joined = eventually("a host joins", MINUTE, || {
        let known = |host: &&Value| before.iter().all(|old| old["id"] != host["id"]);
        let hosts = stage.hosts();
        let joined = hosts.iter().find(known)?.clone();
        (joined["wanted"] == "serving").then_some(joined)
    });
    assert_eq!(joined["release"], 1, "{joined:#}");
    platform.vend(&["deploy", "resume", &stage.dev]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    stage.serves("two");
    assert_eq!((stage.count(1, "serving"), stage.count(2, "serving")), (0, 3));
    let (good, bad) = load.end();
    assert!(bad.is_empty() && good > 50, "{good} {bad:?}");

    // One that dies in the middle is replaced, and taken along.
    app.says("three");
    let number = stage.held(&app);
    let hosts = stage.hosts();
    let victim = hosts.iter().find(|host| host["release"] == 2).unwrap();
    let victim = victim["id"].as_str().unwrap();
    kill(&platform, victim);
    eventually("it is replaced", MINUTE, || {
        let gone = stage.hosts().iter().all(|host| host["id"] != victim);
        let serving = stage.count(2, "serving") + stage.count(3, "serving");
        (gone && serving == 3).then_some(())
    });
    platform.vend(&["deploy", "resume", &stage.dev]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    stage.serves("three");
    assert_eq!(stage.count(3, "serving"), 3);
    stage.end();
}

#[test]
fn going_back_to_kept_hosts_starts_none() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "kept");
    let mut app = App::new("strategy: blue-green", 2);
    app.vend_yaml = app.vend_yaml.replace("keep_old: 2s", "keep_old: 10m");
    app.copy.write("vend.yaml", &app.vend_yaml);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    let ids = |stage: &Stage<'_>| -> std::collections::BTreeSet<String> {
        stage
            .hosts()
            .iter()
            .map(|host| host["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = ids(&stage);
    platform.succeeds(&["rollback", &stage.dev]);
    stage.serves("one");
    assert_eq!(ids(&stage), before);
    let (good, bad) = load.end();
    assert!(bad.is_empty() && good > 0, "{good} {bad:?}");
    stage.end();
}
