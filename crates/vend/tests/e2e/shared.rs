//! What comes while two releases share the traffic: hosts of both die, and more are asked for.

use crate::{
    load::Load,
    middle::{MINUTE, kill},
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage},
};

/// Nobody is judged: what was lost with a host is not the release's.
const ANALYSIS: &str = "analysis: { sample: 5, errors: 90%, slower: 10000% }";

/// Requests that one visitor has under way. There are four visitors.
const UNDER_WAY: usize = 4;

impl Stage<'_> {
    /// Waits until both releases have so many hosts, none of them one of these, while the step is still watched.
    fn both_have(&self, hosts: usize, (old, new): (u64, u64), without: &[String]) {
        eventually(&format!("both have {hosts} hosts"), MINUTE, || {
            let is_gone = |id: &String| self.hosts().iter().all(|host| host["id"] != id.as_str());
            let counts = [self.count(old, "serving"), self.count(new, "serving")];
            (counts == [hosts; 2] && without.iter().all(is_gone)).then_some(())
        });
        assert_eq!(self.split()["percent"], 50);
        // It was not the end of the interval that brought them up.
        let watched = self.deployment();
        assert!(watched["analyses"].is_null(), "{watched:#}");
    }

    fn victim(&self, release: u64) -> String {
        let hosts = self.hosts();
        let mut own = hosts
            .iter()
            .filter(|host| host["release"] == release && host["wanted"] == "serving");
        own.next().unwrap()["id"].as_str().unwrap().to_owned()
    }
}

#[test]
fn while_traffic_is_shared_dead_hosts_are_replaced_and_more_get_their_release() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "shared");
    let canary = format!("strategy: canary, percent: 50%, interval: 45s, {ANALYSIS}");
    let app = App::new(&canary, 2);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);

    // A host of each dies.
    app.says("two");
    let number = platform.push(&app.copy, &stage.app, "dev");
    stage.at_step(1);
    let victims = [stage.victim(1), stage.victim(2)];
    for victim in &victims {
        kill(&platform, victim);
    }
    stage.both_have(2, (1, 2), &victims);
    stage.meets(&["one", "two"]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    stage.serves("two");
    let (good, bad) = load.end();
    println!("{good} requests, {} failed: {bad:?}", bad.len());
    assert!(
        good > 100 && bad.len() <= UNDER_WAY * victims.len(),
        "{good} {bad:?}"
    );

    // More are asked for.
    let load = Load::on(&platform.http(), &stage.host);
    app.copy.write(
        "vend.yaml",
        app.vend_yaml.replace("canary, percent: 50%", "linear, steps: 2"),
    );
    app.says("three");
    let number = platform.push(&app.copy, &stage.app, "dev");
    stage.at_step(1);
    platform.vend(&["scale", &stage.dev, "3"]);
    stage.both_have(3, (2, 3), &[]);
    stage.meets(&["three", "two"]);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    stage.serves("three");
    assert_eq!(stage.count(3, "serving"), 3);
    crate::strategies::nothing_was_lost(load);
    stage.end();
}
