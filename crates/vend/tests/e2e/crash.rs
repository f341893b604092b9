//! Every role killed with -9 at every stage of a release: it completes after the restart, once.

use std::time::Duration;

use serde_json::Value;

use crate::{
    load::Load,
    middle::{MINUTE, kill},
    platform::{Copy, Platform, can_run, eventually},
    strategies::{App, Stage, VALIDATE},
};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";

const STAGES: [&str; 9] = [
    "Source",
    "Build",
    "Bake",
    "Plan",
    "Provision",
    "Deploy",
    "Validate",
    "Shift",
    "Record",
];

#[test]
fn a_release_survives_the_death_of_every_role_at_every_stage() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("crash");
    let host = format!("dev.shop.{tenant}.localhost");
    let copy = Copy::new("start", VEND_YAML);
    platform.release(&copy, &app, "dev");
    let mut releases = 1;
    for role in ["serve", "node", "edge"] {
        for stage in STAGES {
            let text = format!("{role} died in {stage}");
            copy.says(&text);
            let number = platform.push(&copy, &app, "dev");
            wait_for_stage(&platform, &app, number, stage);
            platform.kill(role);
            platform.wait_until_ready();
            let push = platform.ended(&app, number);
            assert_eq!(push["state"], "done", "{text}: {push:#}\n{}", platform.log());
            assert_eq!(platform.get(&host, "/"), (200, format!("{text}\n")), "{text}");
            releases += 1;
            let all = platform.json(&["releases", "list", &format!("{app}/dev")]);
            assert_eq!(
                all["items"][0]["number"], releases,
                "{text}: released once\n{all:#}"
            );
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.ndjson");
    platform.vend(&["audit", "export", file.to_str().unwrap()]);
    platform.vend(&["audit", "verify", file.to_str().unwrap()]);
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// A strategy as it is written, its hosts, and who dies where of what it adds to the way of a release.
type Way = (&'static str, u32, &'static [(&'static str, &'static str)]);

const WAYS: [Way; 3] = [
    (
        "strategy: canary, percent: 30%, interval: 2s, analysis: { sample: 5, slower: 10000% }",
        1,
        &[
            ("serve", "Hold"),
            ("serve", "Step"),
            ("serve", "Watch"),
            ("serve", "Analyse"),
            ("node", "Step"),
            ("edge", "Watch"),
        ],
    ),
    (
        "strategy: linear, steps: 3, interval: 1s, analysis: { sample: 5, slower: 10000% }",
        1,
        &[("serve", "Analyse"), ("edge", "Step")],
    ),
    (
        "strategy: in-place",
        2,
        &[
            ("serve", "Arrange"),
            ("serve", "Hold"),
            ("serve", "Roll"),
            ("node", "Roll"),
            ("edge", "Roll"),
            ("serve", "Settle"),
        ],
    ),
];

#[test]
fn every_strategy_survives_the_death_of_every_role() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    for (deploy, hosts, deaths) in WAYS {
        let stage = Stage::new(&platform, "way");
        let app = App::new(deploy, hosts);
        app.says("first");
        platform.release(&app.copy, &stage.app, "dev");
        for (number, (role, at)) in deaths.iter().enumerate() {
            // What the edge had in hand when it was killed is lost, and nothing else ever is.
            let load = (*role != "edge").then(|| Load::on(&platform.http(), &stage.host));
            let text = format!("{role}-{at}-{number}");
            app.says(&text);
            let push = platform.push(&app.copy, &stage.app, "dev");
            wait_for_stage(&platform, &stage.app, push, at);
            platform.kill(role);
            platform.wait_until_ready();
            let push = platform.ended(&stage.app, push);
            assert_eq!(
                push["state"],
                "done",
                "{deploy}: {text}: {push:#}\n{}",
                platform.log()
            );
            stage.serves(&text);
            if let Some(load) = load {
                let (good, bad) = load.end();
                assert!(bad.is_empty() && good > 0, "{deploy}: {text}: {good} {bad:?}");
            }
        }
        // The way back is taken to its end, too.
        app.copy.write("validate.sh", "#!/bin/sh\nexit 3\n");
        app.says("broken");
        let before = stage.deployment()["release"].clone();
        let load = Load::on(&platform.http(), &stage.host);
        let push = platform.push(&app.copy, &stage.app, "dev");
        wait_for_stage(&platform, &stage.app, push, "Unwind");
        platform.kill("serve");
        platform.wait_until_ready();
        let push = platform.ended(&stage.app, push);
        assert_eq!(push["state"], "failed", "{deploy}: {push:#}");
        let (good, bad) = load.end();
        assert!(bad.is_empty() && good > 0, "{deploy}: {good} {bad:?}");
        eventually("only what was live is left", MINUTE, || {
            let left = stage.hosts();
            let old = left
                .iter()
                .filter(|host| host["release"] == before && host["wanted"] == "serving");
            (old.count() == hosts as usize && left.len() == hosts as usize).then_some(())
        });
        let environments = platform.json(&["environments", "list", &stage.app]);
        assert!(environments["items"][0]["split"].is_null(), "{environments:#}");
        stage.end();
    }
}

/// The agent is PID 1 of its host: with it goes the host, in the middle of a script. It counts as one on which the release
/// failed, and others take its place afterwards.
#[test]
fn a_host_that_dies_in_a_hook_is_one_that_failed() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    for (deploy, ends, says) in [
        ("strategy: blue-green", "done", "two"),
        ("strategy: in-place, minimum_healthy: 1", "done", "two"),
        ("strategy: in-place", "failed", "one"),
    ] {
        let stage = Stage::new(&platform, "hook");
        let app = App::new(deploy, 3);
        app.says("one");
        platform.release(&app.copy, &stage.app, "dev");
        let load = Load::on(&platform.http(), &stage.host);
        let slow = VALIDATE.replace("use strict;", "use strict; sleep 4;");
        app.copy.write("validate.sh", slow);
        app.says("two");
        let number = platform.push(&app.copy, &stage.app, "dev");
        stage.under_way();
        let victim = eventually("a host is in its hooks", MINUTE, || {
            let out = |host: &Value| ["starting", "updating"].iter().any(|own| host["wanted"] == *own);
            let mut hosts = stage.hosts().into_iter().filter(out);
            hosts.find_map(|host| {
                let id = host["id"].as_str()?.to_owned();
                runs(&id, "validate.sh").then_some(id)
            })
        });
        kill(&platform, &victim);
        let push = platform.ended(&stage.app, number);
        assert_eq!(push["state"], ends, "{deploy}: {push:#}\n{}", platform.log());
        if ends == "failed" {
            let reason = push["reason"].as_str().unwrap();
            assert!(reason.contains(&format!("{victim} ended while")), "{reason}");
        }
        stage.serves(says);
        let live = if says == "two" { 2 } else { 1 };
        eventually("it is replaced", MINUTE * 3, || {
            let gone = stage.hosts().iter().all(|host| host["id"] != victim.as_str());
            (gone && stage.count(live, "serving") == 3).then_some(())
        });
        let (good, bad) = load.end();
        assert!(bad.is_empty() && good > 100, "{deploy}: {good} {bad:?}");
        stage.end();
    }
}

/// What is done on a host goes on, and is done once: whoever asked asks again for the same.
#[test]
fn a_host_goes_on_when_who_asked_dies() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "asked");
    let app = App::new("strategy: in-place", 2);
    let slow = VALIDATE.replace("use strict;", "use strict; sleep 3;");
    app.says("zero");
    platform.release(&app.copy, &stage.app, "dev");
    app.copy.write("validate.sh", &slow);
    for role in ["serve", "node"] {
        let load = Load::on(&platform.http(), &stage.host);
        app.says(role);
        let number = platform.push(&app.copy, &stage.app, "dev");
        stage.under_way();
        eventually("a host is in its hooks", MINUTE, || {
            let hosts = stage.hosts();
            hosts
                .iter()
                .any(|host| runs(host["id"].as_str().unwrap(), "validate.sh"))
                .then_some(())
        });
        platform.kill(role);
        platform.wait_until_ready();
        let push = platform.ended(&stage.app, number);
        assert_eq!(push["state"], "done", "{role}: {push:#}\n{}", platform.log());
        stage.serves(role);
        let (good, bad) = load.end();
        assert!(bad.is_empty() && good > 100, "{role}: {good} {bad:?}");
    }
    stage.end();
}

/// Does a process of this host run a program or script of this name?
fn runs(host: &str, name: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries.into_iter().any(|entry| {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let has = |bytes: Vec<u8>, text: &str| String::from_utf8_lossy(&bytes).contains(text);
        has(read("cgroup"), host) && has(read("cmdline"), name)
    })
}

/// Waits until the execution of a push has entered a stage, or is past it.
fn wait_for_stage(platform: &Platform, app: &str, number: u64, stage: &str) {
    eventually(
        &format!("push {number} enters {stage}"),
        Duration::from_secs(120),
        || {
            let pushes = platform.json(&["pushes", "list", app]);
            let push = pushes["items"]
                .as_array()?
                .iter()
                .find(|push| push["number"] == number)?
                .clone();
            let execution = push["execution"].as_str()?;
            let detail = platform.json(&["executions", "show", execution]);
            let mut history = detail["history"].as_array()?.iter();
            history.any(|event| event["state"] == stage).then_some(())
        },
    );
}
