//! Machines in zones get a release one zone after the other.

use std::time::Duration;

use serde_json::Value;

use crate::{
    machine::{Machine, for_machines, machines, text},
    platform::{Copy, Platform, can_run, eventually},
};

fn vend_yaml(least: u32, watched: &str) -> String {
    format!(
        "app: shop\nplacement: {{ registered: {{ role: web }} }}\nchecks: checks.yml\n\
         deploy:\n  minimum_healthy: 50%\n  zones: {{ minimum_healthy: {least}, monitor: 1s, first_monitor: {watched} }}\n\
         environments:\n  dev: {{ branch: dev }}\n"
    )
}

const APPSPEC: &str = "version: 0.0
os: linux
file_exists_behavior: OVERWRITE
files: [{ source: server.pl, destination: /srv/shop }]
hooks:
  ApplicationStart: [{ location: start.sh, timeout: 120 }]
";

/// The last deployment's machines, as its events say, by the time of their Install.
fn order(platform: &Platform, dev: &str) -> Vec<String> {
    let deployments = platform.json(&["deployments", "list", dev]);
    let id = deployments["items"][0]["id"].as_str().unwrap();
    let shown = platform.json(&["deployments", "show", id]);
    let mut installs: Vec<(String, String)> = shown["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| {
            let events = host["events"].as_array().unwrap();
            let install = events.iter().find(|event| event["event"] == "Install").unwrap();
            let started = install["started_at"].as_str().unwrap();
            (started.to_owned(), host["host"].as_str().unwrap().to_owned())
        })
        .collect();
    installs.sort();
    installs.into_iter().map(|(_, host)| host).collect()
}

#[test]
fn zones_of_machines_are_deployed_to_one_after_the_other() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("zones");
    let dev = format!("{app}/dev");

    let mut boxes = Vec::new();
    // The zone whose name is first comes first, whoever joined before.
    for zone in ["west", "east", "east"] {
        let label = format!("zone={zone}");
        let (on, ..) = Machine::joins(&platform, &owner, &["role=web", &label]);
        boxes.push(on);
        machines(&platform, &owner, boxes.len());
    }
    let all = machines(&platform, &owner, 3);
    let zone = |id: &str| -> Value {
        let machine = all.iter().find(|machine| machine["id"] == id).unwrap();
        machine["labels"]["zone"].clone()
    };
    let has = |text_: &str| -> Vec<bool> {
        boxes
            .iter()
            .map(|on| text(&on.file("srv/shop/server.pl")) == text_)
            .collect()
    };

    let copy = Copy::new("one", &vend_yaml(0, "1s"));
    copy.write("appspec.yml", APPSPEC);
    copy.write("start.sh", "#!/bin/sh\nexit 0\n");
    copy.write("checks.yml", "file:\n  /srv/shop/bad: { exists: false }\n");
    copy.write("server.pl", "one");
    copy.commit("one");
    platform.release(&copy, &app, "dev");
    let zones: Vec<Value> = order(&platform, &dev).iter().map(|id| zone(id)).collect();
    assert_eq!(zones, ["east", "east", "west"]);
    assert_eq!(has("one"), [true, true, true]);

    // One of one must stay healthy: refused before any machine is touched.
    copy.write("vend.yaml", vend_yaml(1, "1s"));
    copy.write("server.pl", "two");
    copy.commit("two");
    let refused = platform.ended(&app, platform.push(&copy, &app, "dev"));
    let reason = refused["reason"].as_str().unwrap();
    let told = "no host of zone west may be taken out: 1 of 1 must stay healthy (HEALTH_CONSTRAINTS_INVALID)";
    assert!(reason.contains(told), "{reason}");
    assert_eq!(has("one"), [true, true, true]);

    // What goes wrong only after a zone was deployed to, while it is watched, keeps the next zone as it is.
    copy.write("vend.yaml", vend_yaml(0, "5s"));
    copy.write(
        "start.sh",
        "#!/bin/sh\nuntil [ -e /srv/shop/go ]; do sleep 0.1; done\n",
    );
    copy.write("server.pl", "three");
    copy.commit("three");
    let push = platform.push(&copy, &app, "dev");
    let goes = |on: &Machine| std::fs::write(on.inside("srv/shop/go"), "").unwrap();
    eventually(
        "the last of the first zone starts",
        Duration::from_secs(120),
        || {
            let has = has("three");
            let first = boxes.iter().zip(&has).find(|(_, has)| **has);
            match has.iter().filter(|has| **has).count() {
                2 => return Some(()),
                _ => first.into_iter().for_each(|(on, _)| goes(on)),
            }
            None
        },
    );
    // The first zone is done and watched; before the next one it is held, for as long as somebody wants.
    platform.vend(&["deploy", "pause", &dev]);
    boxes[1..].iter().for_each(goes);
    eventually("it is held", Duration::from_secs(120), || {
        let executions = platform.json(&["executions", "list", &app]);
        let waiting = executions["items"][0]["waiting"].as_str()?.to_owned();
        waiting.contains(", who paused it at").then_some(())
    });
    for on in &boxes[1..] {
        std::fs::write(on.inside("srv/shop/bad"), "").unwrap();
    }
    assert_eq!(has("three"), [false, true, true]);
    platform.vend(&["deploy", "resume", &dev]);
    let failed = platform.ended(&app, push);
    assert_eq!(failed["state"], "failed", "{failed:#}");
    let reason = failed["reason"].as_str().unwrap();
    assert!(
        reason.contains("machines failed (") && reason.contains(" healthy, and 2 must be): "),
        "{reason}"
    );
    // Both go back by themselves, the one after the other.
    for on in &boxes[1..] {
        let _ = std::fs::remove_file(on.inside("srv/shop/bad"));
    }
    eventually("all have the release before", Duration::from_secs(180), || {
        (has("one") == [true, true, true]).then_some(())
    });
    drop(boxes);
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}
