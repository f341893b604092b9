//! Visitors while releases come, fail and go back: not one of them may notice.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use crate::{
    platform::{Copy, Platform, can_run, get},
    strategies::{App, Stage, nothing_was_lost},
};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
deploy: { keep_old: 5s }
scaling: { min: 2 }
environments:
  dev: { branch: dev }
";

pub struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    bad: Arc<Mutex<Vec<String>>>,
    visitors: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn on(address: &str, host: &str) -> Self {
        Self::at(address, host, "/")
    }

    /// Of one path.
    pub fn at(address: &str, host: &str, path: &'static str) -> Self {
        let load = Self {
            stop: Arc::default(),
            good: Arc::default(),
            bad: Arc::default(),
            visitors: Vec::new(),
        };
        let visitors = (0..4).map(|_| {
            let (stop, good, bad) = (
                Arc::clone(&load.stop),
                Arc::clone(&load.good),
                Arc::clone(&load.bad),
            );
            let (address, host) = (address.to_owned(), host.to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match get(&address, &host, path) {
                        Ok((200, _)) => drop(good.fetch_add(1, Ordering::Relaxed)),
                        other => bad.lock().unwrap().push(format!("{other:?}")),
                    }
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            })
        });
        let visitors = visitors.collect();
        Self { visitors, ..load }
    }

    /// The number of good answers and the bad ones.
    pub fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.visitors
            .into_iter()
            .for_each(|visitor| visitor.join().unwrap());
        let bad = self.bad.lock().unwrap().clone();
        (self.good.load(Ordering::Relaxed), bad)
    }
}

#[test]
fn no_request_is_lost_through_deploy_failing_deploy_rollback_and_restarts() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("load");
    let host = format!("dev.shop.{tenant}.localhost");
    let copy = Copy::new("one", VEND_YAML);
    platform.release(&copy, &app, "dev");
    let load = Load::on(&platform.http(), &host);

    copy.says("two");
    platform.release(&copy, &app, "dev");
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));

    // A release that cannot start leaves the one before serving, and says why.
    copy.write("server.pl", "die 'no configuration';");
    copy.commit("broken");
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "failed", "{push:#}");
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));

    platform.succeeds(&["rollback", &format!("{app}/dev")]);
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));

    // The edge is replaced: its listening socket is not its own, and it finishes what it has.
    platform.restart("edge");
    platform.wait_until_ready();

    // Serve and node may die: hosts and edge go on.
    platform.kill("serve");
    platform.kill("node");
    platform.wait_until_ready();

    let (good, bad) = load.end();
    assert!(good > 100, "only {good} requests were made");
    assert!(
        bad.is_empty(),
        "{} of {} requests failed: {:?}",
        bad.len(),
        good,
        &bad[..bad.len().min(5)]
    );
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// The hosts of the new release serve already when its last hook fails.
#[test]
fn no_request_is_lost_when_a_hook_fails_after_the_traffic_has_come() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    for strategy in ["blue-green", "in-place"] {
        let stage = Stage::new(&platform, "after");
        let app = App::new(&format!("strategy: {strategy}"), 2);
        let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
        app.copy.write(
            "appspec.yml",
            format!("{appspec}  AfterAllowTraffic: [{{ location: after.sh, timeout: 20 }}]\n"),
        );
        app.copy.write("after.sh", "#!/bin/sh\nexit 0\n");
        app.says("one");
        platform.release(&app.copy, &stage.app, "dev");
        let load = Load::on(&platform.http(), &stage.host);

        app.copy
            .write("after.sh", "#!/bin/sh\nsleep 2\necho nobody can pay\nexit 3\n");
        app.says("two");
        let (push, failed) = stage.fails(&app);
        for told in [&push["reason"], &failed["reason"]] {
            let told = told.as_str().unwrap();
            assert!(
                told.contains("AfterAllowTraffic failed on host") && told.contains("nobody can pay"),
                "{strategy}: {told}"
            );
        }
        let shown = platform.json(&["deployments", "show", failed["id"].as_str().unwrap()]);
        let mut events = shown["hosts"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|host| host["events"].as_array().unwrap());
        assert!(
            events.any(|event| event["event"] == "AfterAllowTraffic" && event["status"] == "Failed"),
            "{strategy}: {shown:#}"
        );
        stage.serves("one");
        nothing_was_lost(load);
        stage.serves("one");
        stage.end();
    }
}
