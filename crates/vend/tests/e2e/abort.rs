//! Deployments that are held, go on, and are ended while two releases share the traffic. No visitor may notice, nor one
//! whose request takes longer than all that.

use serde_json::Value;

use crate::{
    load::Load,
    middle::{MINUTE, processes},
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage},
};

/// The quick visitors and the slow ones are not spread evenly: how long they take is not what this is about.
const ANALYSIS: &str = "analysis: { sample: 5, slower: 10000% }";

struct Visitors(Load, Load);

impl Visitors {
    fn of(stage: &Stage<'_>) -> Self {
        let http = stage.platform.http();
        Self(
            Load::on(&http, &stage.host),
            Load::at(&http, &stage.host, "/slow"),
        )
    }

    fn lost_nothing(self) {
        for (load, least) in [(self.0, 500), (self.1, 10)] {
            let (good, bad) = load.end();
            println!("{good} requests, {} failed", bad.len());
            let first = &bad[..bad.len().min(5)];
            assert!(
                bad.is_empty() && good > least,
                "{} of {good} failed: {first:?}",
                bad.len()
            );
        }
    }
}

impl Stage<'_> {
    pub fn split(&self) -> Value {
        let environments = self.platform.json(&["environments", "list", &self.app]);
        environments["items"][0]["split"].clone()
    }

    /// Waits until the new release is at a step.
    pub fn at_step(&self, step: u64) -> Value {
        eventually(&format!("step {step}"), MINUTE, || {
            let split = self.split();
            (split["step"] == step).then_some(split)
        })
    }

    fn pause(&self) {
        self.platform.vend(&["deploy", "pause", &self.dev]);
    }

    fn resume(&self) {
        self.platform.vend(&["deploy", "resume", &self.dev]);
    }

    /// Waits until the pause has taken effect.
    fn is_held(&self) {
        eventually("it is held", MINUTE, || {
            (self.deployment()["state"] == "Ready").then_some(())
        });
    }

    /// Runs this event on a host, as the newest deployment says?
    pub fn goes_on(&self, name: &str) -> bool {
        let shown = self.deployment();
        let hosts = shown["hosts"].as_array().into_iter().flatten();
        let mut events = hosts.flat_map(|host| host["events"].as_array().unwrap());
        events.any(|event| event["event"] == name && event["status"] == "InProgress")
    }

    /// Visitors meet all of these releases and no other.
    pub fn meets(&self, texts: &[&str]) {
        let mut met = std::collections::BTreeSet::new();
        eventually(&format!("visitors meet {texts:?}"), MINUTE, || {
            for _ in 0..20 {
                let (status, body) = self.platform.get(&self.host, "/");
                assert_eq!(status, 200, "{body}");
                met.insert(body.split(' ').next().unwrap().to_owned());
            }
            (met.len() >= texts.len()).then_some(())
        });
        assert!(met.iter().eq(texts), "{met:?}");
    }

    /// Ends it, and finds everything as it was before, and on record why.
    fn ends(&self, push: u64, release: u64, hosts: usize) -> Value {
        self.platform.vend(&["deploy", "abort", &self.dev]);
        let push = self.platform.ended(&self.app, push);
        let reason = push["reason"].as_str().unwrap_or_default();
        assert!(
            push["state"] == "failed" && reason.contains("cancelled it"),
            "{push:#}"
        );
        assert_eq!(self.split(), Value::Null);
        self.meets(&["one"]);
        eventually("the new hosts are gone", MINUTE, || {
            let own = self.hosts();
            let old = own.iter().filter(|host| host["role"] != "database");
            (old.clone().all(|host| host["release"] == 1) && self.count(1, "serving") == hosts).then_some(())
        });
        let releases = self.platform.json(&["releases", "list", &self.dev]);
        let newest = &releases["items"][0];
        assert_eq!(
            (&newest["number"], &newest["state"]),
            (&release.into(), &"failed".into()),
            "{releases:#}"
        );
        let stopped = self.failed();
        assert_eq!(
            (&stopped["state"], &stopped["code"], &stopped["release"]),
            (&"Stopped".into(), &"MANUAL_STOP".into(), &release.into()),
            "{stopped:#}"
        );
        let ledger = self.platform.vend(&["audit", "list", "--all", "--json"]);
        assert!(ledger.contains("execution.cancel"), "it is on record");
        self.platform
            .json(&["deployments", "show", stopped["id"].as_str().unwrap()])
    }
}

#[test]
fn a_canary_is_ended_and_another_is_held_while_it_has_traffic() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "canary");
    let app = App::new(
        &format!("strategy: canary, percent: 10%, interval: 8s, {ANALYSIS}"),
        2,
    );
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let visitors = Visitors::of(&stage);

    // While it is watched, and nobody holds it.
    app.says("two");
    let number = platform.push(&app.copy, &stage.app, "dev");
    assert_eq!(stage.at_step(1)["percent"], 10);
    stage.meets(&["one", "two"]);
    assert_eq!(stage.deployment()["state"], "Baking");
    stage.ends(number, 2, 2);

    // Held at ten percent: nothing moves, until somebody lets it go on.
    app.says("three");
    let number = platform.push(&app.copy, &stage.app, "dev");
    stage.at_step(1);
    stage.pause();
    stage.is_held();
    let split = stage.split();
    assert_eq!(
        (&split["percent"], &split["verdict"]),
        (&10.into(), &"as-good".into())
    );
    stage.meets(&["one", "three"]);
    stage.resume();
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}");
    stage.meets(&["three"]);
    visitors.lost_nothing();
    stage.end();
}

#[test]
fn a_linear_deployment_is_held_at_its_first_step_and_ended_at_its_second() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "linear");
    let app = App::new(
        &format!("strategy: linear, percent: 30%, interval: 6s, {ANALYSIS}"),
        2,
    );
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let visitors = Visitors::of(&stage);

    app.says("two");
    let number = platform.push(&app.copy, &stage.app, "dev");
    stage.at_step(1);
    stage.pause();
    stage.is_held();
    stage.meets(&["one", "two"]);
    assert_eq!(stage.split()["percent"], 30);
    // Who holds it may end.
    platform.kill("serve");
    platform.wait_until_ready();
    assert_eq!(stage.deployment()["state"], "Ready");
    assert_eq!(stage.split()["percent"], 30);
    stage.resume();
    assert_eq!(stage.at_step(2)["percent"], 60);
    stage.pause();
    stage.is_held();
    stage.meets(&["one", "two"]);
    let stopped = stage.ends(number, 2, 2);
    let shares: Vec<&Value> = stopped["analyses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| &own["percent"])
        .collect();
    assert_eq!(shares, [30, 60], "{stopped:#}");

    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    stage.meets(&["three"]);
    visitors.lost_nothing();
    stage.end();
}

#[test]
fn in_place_a_deployment_is_ended_when_some_hosts_have_it() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "half");
    let app = App::new("strategy: in-place", 3);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let visitors = Visitors::of(&stage);

    app.says("two");
    let number = platform.push(&app.copy, &stage.app, "dev");
    stage.under_way();
    eventually("the first host is out", MINUTE, || {
        stage
            .hosts()
            .iter()
            .any(|host| host["wanted"] == "updating")
            .then_some(())
    });
    stage.pause();
    stage.is_held();
    let (old, new) = (stage.count(1, "serving"), stage.count(2, "serving"));
    assert!(old > 0 && new > 0 && old + new == 3, "{old} {new}");
    stage.meets(&["one", "two"]);
    let stopped = stage.ends(number, 2, 3);
    let list = platform.json(&["deployments", "list", &stage.dev]);
    let undo = &list["items"][0];
    assert_ne!(undo["id"], stopped["id"]);
    let why = undo["reason"].as_str().unwrap();
    assert_eq!(why, format!("it undid {}", stopped["id"].as_str().unwrap()));
    assert_eq!(
        (&undo["release"], &undo["state"]),
        (&1.into(), &"Succeeded".into()),
        "{list:#}"
    );

    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    stage.meets(&["three"]);
    visitors.lost_nothing();
    stage.end();
}

/// What the script that hangs runs.
const HANGS: &str = "sleep\x004711\x00";

/// The script that hangs is that of the release before, on its hosts, where the new one takes the traffic from.
#[test]
fn a_deployment_is_ended_while_a_hook_of_the_old_hosts_hangs() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "block");
    let app = App::new("strategy: blue-green", 2);
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    app.copy.write(
        "appspec.yml",
        format!("{appspec}  BeforeBlockTraffic: [{{ location: block.sh, timeout: 600 }}]\n"),
    );
    app.copy.write(
        "block.sh",
        "#!/bin/sh\ntouch /run/blocking\n[ -e /run/hang ] || exit 0\nsleep 4711\n",
    );
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let old: Vec<String> = stage
        .hosts()
        .iter()
        .map(|host| host["id"].as_str().unwrap().to_owned())
        .collect();
    for host in &old {
        std::fs::write(inside(host).join("run/hang"), "").unwrap();
    }
    app.says("two");
    let number = platform.push(&app.copy, &stage.app, "dev");
    eventually("it hangs on an old host", MINUTE, || runs(HANGS).then_some(()));
    eventually("it is on record that it runs", MINUTE, || {
        stage.goes_on("BeforeBlockTraffic").then_some(())
    });
    platform.vend(&["deploy", "abort", &stage.dev]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "failed", "{push:#}");
    eventually("no script goes on", MINUTE, || (!runs(HANGS)).then_some(()));
    for host in &old {
        std::fs::remove_file(inside(host).join("run/hang")).unwrap();
    }

    // Nothing waits in those hosts: the next one goes, and what ran there is on record.
    app.says("three");
    platform.release(&app.copy, &stage.app, "dev");
    stage.meets(&["three"]);
    let shown = stage.deployments_of(3);
    let hosts = shown["hosts"].as_array().unwrap();
    let blocks = |host: &&Value| {
        let mut events = host["events"].as_array().unwrap().iter();
        events.any(|event| event["event"] == "BeforeBlockTraffic" && event["status"] == "Succeeded")
    };
    assert_eq!(hosts.iter().filter(blocks).count(), 2, "{shown:#}");
    stage.end();
}

/// The root directory of a host.
pub fn inside(host: &str) -> std::path::PathBuf {
    let pid = processes(host).into_iter().next();
    format!(
        "/proc/{}/root",
        pid.unwrap_or_else(|| panic!("no process of {host}"))
    )
    .into()
}

/// Does a process with this command line run, in whatever host?
pub fn runs(line: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().any(|entry| {
        let own = entry.map(|entry| std::fs::read(entry.path().join("cmdline")));
        own.is_ok_and(|own| own.is_ok_and(|own| own == line.as_bytes()))
    })
}
