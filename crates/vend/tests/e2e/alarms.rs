//! Alarms of somebody's monitoring: one that rings ends a deployment in the middle, and lets none begin.

use std::time::Duration;

use serde_json::Value;

use crate::{
    load::Load,
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage, nothing_was_lost},
};

impl Stage<'_> {
    fn alarm(&self, state: &str) {
        let name = format!("{}/errors", self.tenant);
        let why = "7 % of the orders fail";
        self.platform
            .vend(&["alarms", "set", &name, "--state", state, "--reason", why]);
    }

    /// Its deployment ended because of the alarm, and what serves is what served.
    fn is_stopped(&self, (push, stopped): &(Value, Value), said: &[&str]) {
        let reason = push["reason"].as_str().unwrap();
        assert!(said.iter().all(|said| reason.contains(said)), "{reason}");
        assert_eq!(
            (&stopped["state"], &stopped["code"]),
            (&"Stopped".into(), &"ALARM_ACTIVE".into()),
            "{stopped:#}"
        );
        let of = stopped["release"].as_u64().unwrap();
        assert!(
            self.hosts()
                .iter()
                .all(|host| host["release"] != of || host["wanted"] == "draining")
        );
    }
}

#[test]
fn an_alarm_takes_a_release_back_and_lets_none_begin_until_it_is_well() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "alarms");
    // Its interval would outlast the test: what ends it is the alarm.
    let canary = "strategy: canary, percent: 30%, interval: 1h, alarms: { names: errors }";
    let app = App::new(canary, 2);

    // Nobody knows how the alarm is.
    app.says("early");
    let refused = stage.fails(&app);
    stage.is_stopped(
        &refused,
        &["v1 is not deployed: nobody has told how the alarm errors is"],
    );
    stage.alarm("ok");
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);

    // It rings while the release has a share of the traffic.
    app.says("two");
    let number = platform.push(&app.copy, &stage.app, "dev");
    stage.at_step(1);
    stage.meets(&["one", "two"]);
    eventually("it says what it waits for", Duration::from_secs(30), || {
        let shown = platform.json(&["executions", "list", &stage.dev]);
        let waits = shown["items"][0]["waiting"].as_str()?;
        let what = "v3 to be watched with 30 % of the traffic, until ";
        (waits.starts_with(what) && waits.ends_with("(step 1 of 1)")).then_some(())
    });
    stage.alarm("alarm");
    let push = platform.ended(&stage.app, number);
    stage.is_stopped(
        &(push, stage.failed()),
        &[
            "v3 of",
            "was taken back: the alarm errors is in alarm",
            "7 % of the orders fail",
            "vend alarms",
        ],
    );
    stage.serves("one");

    // In place too, while hosts that have it serve.
    let in_place = app.vend_yaml.replace(
        "strategy: canary, percent: 30%, interval: 1h",
        "strategy: in-place",
    );
    app.copy.write("vend.yaml", in_place);
    stage.alarm("ok");
    app.copy.write("validate.sh", "#!/bin/sh\nsleep 4\n");
    app.says("three");
    let number = platform.push(&app.copy, &stage.app, "dev");
    stage.meets(&["one", "three"]);
    stage.alarm("alarm");
    let push = platform.ended(&stage.app, number);
    stage.is_stopped(&(push, stage.failed()), &["v4 of", "was taken back"]);
    stage.meets(&["one"]);

    // None begins while it rings, and whoever asks hears why and what helps.
    app.says("four");
    let refused = stage.fails(&app);
    stage.is_stopped(&refused, &["v5 is not deployed: the alarm errors is in alarm"]);
    let why = platform.vend(&["why", &stage.app]);
    let (told, next) = (
        "no release is deployed now: the alarm errors is in alarm",
        "vend alarms ignore",
    );
    assert!(why.contains(told) && why.contains(next), "{why}");

    // The fix goes all the same, when somebody says so; and so does the next when all is well.
    let name = format!("{}/errors", stage.tenant);
    platform.vend(&["alarms", "ignore", &name, "--for", "1h", "--reason", "the fix"]);
    app.says("five");
    platform.release(&app.copy, &stage.app, "dev");
    platform.vend(&["alarms", "ignore", &name, "--for", "0s", "--reason", "it is out"]);
    stage.alarm("ok");
    app.says("six");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("six");
    nothing_was_lost(load);
    stage.end();
}
