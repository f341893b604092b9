//! Environments that come with a branch and go with it: hosts, routes, database, networks, data.

use std::{path::Path, process::Command, time::Duration};

use model::spec::preview_name;
use serde_json::Value;

use crate::platform::{Copy, Platform, can_run, eventually};

fn vend_yaml(expires: &str) -> String {
    format!(
        "app: shop
host: {{ health: {{ path: /, interval: 1s, timeout: 1s }}, env: {{ API_KEY: \"{{{{secret:api-key}}}}\" }} }}
environments:
  production: {{ branch: main }}
  preview: {{ branches: \"feature/*\", expires: {expires}, limit: 2, database: {{ engine: mariadb }} }}
"
    )
}

fn environment(platform: &Platform, app: &str, branch: &str) -> Option<Value> {
    let listed = platform.json(&["environments", "list", app]);
    let mut items = listed["items"].as_array().unwrap().iter();
    items.find(|item| item["branch"] == branch).cloned()
}

fn is_gone(platform: &Platform, app: &str, branch: &str) {
    eventually(&format!("{branch} is gone"), Duration::from_secs(120), || {
        environment(platform, app, branch).is_none().then_some(())
    });
}

/// Addresses of this machine in the network of a host.
fn networks(address: &str) -> Vec<String> {
    let (network, _) = address.rsplit_once('.').unwrap();
    let listed = Command::new("ip").args(["-o", "-4", "addr"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let own = listed
        .lines()
        .filter(|line| line.contains(&format!(" {network}.")));
    own.map(str::to_owned).collect()
}

/// Is anything below `directory` called after `name`? Logs are evidence and stay
/// for as long as their app does; answers to tickets stay in case that somebody asks again.
fn found(directory: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name() == "logs" || entry.file_name() == "tickets" {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(name) {
                found.push(entry.path().display().to_string());
            } else if depth < 3 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// What the ledger says was done to it.
fn deeds(platform: &Platform, place: &str) -> Vec<String> {
    let lines = platform.json(&["audit", "list", "--all"]);
    let own = lines["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["object"] == place);
    let mut all: Vec<String> = own
        .map(|line| line["action"].as_str().unwrap().to_owned())
        .collect();
    all.retain(|action| {
        ["environment.create", "environment.end", "environment.delete"].contains(&action.as_str())
    });
    all.sort();
    all
}

#[test]
fn an_environment_comes_and_goes_with_its_branch() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("branches");
    platform.set_secret(&app, "api-key", "of-the-app");
    platform.set_secret(&format!("{app}/preview"), "api-key", "of-previews");
    let token = platform.token("git", "developer", &tenant);
    let git = format!(
        "http://x:{token}@{}/git/{app}.git",
        platform.endpoints()["api"].as_str().unwrap()
    );
    let copy = Copy::new("one", &vend_yaml("7d"));
    platform.release(&copy, &app, "main");

    // It comes with a push, under a name of its own, and the file's environments stay what they are.
    copy.says("two");
    platform.release(&copy, &app, "feature/login");
    let name = preview_name("feature/login");
    let (place, host) = (format!("{app}/{name}"), format!("{name}.shop.{tenant}.localhost"));
    let production = format!("production.shop.{tenant}.localhost");
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));
    assert_eq!(platform.get(&host, "/secret"), (200, "of-previews\n".into()));
    assert_eq!(platform.get(&production, "/"), (200, "one\n".into()));
    assert_eq!(platform.get(&production, "/secret"), (200, "of-the-app\n".into()));
    let shown = environment(&platform, &app, "feature/login").unwrap();
    assert_eq!(shown["preview"]["of"], "preview", "{shown:#}");
    let status = platform.vend(&["status", &app]);
    assert!(
        status.contains(&format!("{name}: goes with its branch feature/login, or at ")),
        "{status}"
    );
    let hosts = platform.json(&["hosts", "list", &place]);
    let hosts = hosts["items"].as_array().unwrap().clone();
    assert_eq!(hosts.len(), 2, "its app and its database: {hosts:#?}");

    let address = hosts[0]["address"].as_str().unwrap();
    assert_eq!(networks(address).len(), 1, "the bridge of its network");

    // There are as many as the file says.
    platform.release(&copy, &app, "feature/two");
    let third = platform.push(&copy, &app, "feature/three");
    let refused = platform.ended(&app, third);
    assert_eq!(refused["state"], "failed", "{refused:#}");
    assert!(
        refused["reason"]
            .as_str()
            .unwrap()
            .contains("has 2 environments of `preview` already"),
        "{refused:#}"
    );

    // It goes with its branch, and nothing of it stays.
    copy.git(&["push", "-q", &git, "--delete", "feature/login"]);
    is_gone(&platform, &app, "feature/login");
    assert_eq!(platform.get(&host, "/").0, 503);
    let address = hosts[0]["address"].as_str().unwrap();
    assert_eq!(eventually_nothing(|| networks(address)), Vec::<String>::new());
    for one in &hosts {
        let id = one["id"].as_str().unwrap();
        let left = eventually_nothing(|| found(&platform.data().join("node"), id));
        assert_eq!(left, Vec::<String>::new(), "{id}");
    }
    assert_eq!(
        deeds(&platform, &place),
        ["environment.create", "environment.delete", "environment.end"]
    );
    assert_eq!(platform.get(&production, "/"), (200, "one\n".into()));

    // Its place is free; it comes again with its branch; what expires goes without anybody's doing.
    platform.release(&copy, &app, "feature/login");
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));
    copy.write("vend.yaml", vend_yaml("10s"));
    copy.says("three");
    platform.release(&copy, &app, "feature/two");
    is_gone(&platform, &app, "feature/two");
    let two = format!("{app}/{}", preview_name("feature/two"));
    assert_eq!(
        deeds(&platform, &two),
        ["environment.create", "environment.delete", "environment.end"]
    );

    // What is protected stays without its branch, and a killed control side goes on with what was ordered.
    platform.vend(&["environments", "protect", &place]);
    copy.git(&["push", "-q", &git, "--delete", "feature/login"]);
    let status = platform.vend(&["status", &app]);
    assert!(status.contains("stays because it is protected"), "{status}");
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));
    platform.vend(&["environments", "unprotect", &place]);
    platform.release(&copy, &app, "feature/four");
    copy.git(&["push", "-q", &git, "--delete", "feature/four"]);
    platform.kill("serve");
    platform.wait_until_ready();
    is_gone(&platform, &app, "feature/four");
    platform.vend(&["environments", "destroy", &place, "--yes"]);
    is_gone(&platform, &app, "feature/login");
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// What is left when it was given the time to go.
fn eventually_nothing(mut look: impl FnMut() -> Vec<String>) -> Vec<String> {
    for _ in 0..100 {
        let left = look();
        if left.is_empty() {
            return left;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    look()
}
