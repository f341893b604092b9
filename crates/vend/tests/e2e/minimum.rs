//! How many hosts serve while a release comes in place, as it is seen from outside and as it is on record.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    abort::inside,
    load::Load,
    middle::MINUTE,
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage, VALIDATE, nothing_was_lost},
};

const HOSTS: usize = 4;

impl Stage<'_> {
    /// Hosts that the load balancer gives requests to.
    fn in_service(&self) -> usize {
        let seen = self.platform.json(&["targets", &self.dev]);
        let targets = seen["targets"].as_array().unwrap().iter();
        targets.filter(|target| target["state"] == "healthy").count()
    }

    /// Releases it. Gives the fewest hosts that were in service at any look, and the deployment.
    fn watched(&self, app: &App) -> (usize, Value) {
        let number = self.platform.push(&app.copy, &self.app, "dev");
        let (mut least, mut looks) = (usize::MAX, 0);
        let push = eventually("it ends", Duration::from_secs(300), || {
            least = least.min(self.in_service());
            looks += 1;
            let pushes = self.platform.json(&["pushes", "list", &self.app]);
            let mut pushes = pushes["items"].as_array()?.iter();
            let own = pushes.find(|push| push["number"] == number)?.clone();
            (own["state"] != "waiting" && own["state"] != "running").then_some(own)
        });
        assert_eq!(push["state"], "done", "{push:#}");
        // A busy machine looks slowly; what is on record says the rest.
        assert!(looks > 3, "only {looks} looks");
        (least, self.deployment())
    }
}

/// The most hosts that were out of the traffic at one time, by the events of a deployment.
fn most_out(deployment: &Value) -> usize {
    let at = |event: &Value| {
        event["started_at"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap()
    };
    let hosts = deployment["hosts"].as_array().unwrap();
    let out: Vec<(Timestamp, Timestamp)> = hosts
        .iter()
        .map(|host| {
            let event = |name: &str| {
                let mut events = host["events"].as_array().unwrap().iter();
                let own = events.find(|event| event["event"] == name);
                own.unwrap_or_else(|| panic!("no {name} in {host:#}"))
            };
            let back = event("AllowTraffic");
            let took = SignedDuration::from_millis(back["duration_ms"].as_i64().unwrap());
            (at(event("BlockTraffic")), at(back) + took)
        })
        .collect();
    let with = |(begin, _): &(Timestamp, Timestamp)| {
        let others = out.iter().filter(|(from, to)| from <= begin && begin < to);
        others.count()
    };
    out.iter().map(with).max().unwrap()
}

#[test]
fn never_fewer_hosts_serve_than_must_and_the_last_one_may_fail() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "minimum");
    let app = App::new("strategy: in-place, minimum_healthy: all-at-once", HOSTS as u32);
    // A host on which nothing new starts, if somebody says so.
    let marked = VALIDATE.replace("for (1", "die 'this one is marked' if -e '/run/marked';\nfor (1");
    app.copy.write("validate.sh", marked);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let load = Load::on(&platform.http(), &stage.host);
    for (number, (rule, must, at_once)) in [
        ("one-at-a-time", 3, 1),
        ("half-at-a-time", 2, 2),
        ("50%", 2, 2),
        ("1", 1, 3),
        ("all-at-once", 0, 4),
    ]
    .into_iter()
    .enumerate()
    {
        app.copy
            .write("vend.yaml", app.vend_yaml.replace("all-at-once", rule));
        app.says(&format!("r{number}"));
        let (least, done) = stage.watched(&app);
        assert!(least >= must, "{rule}: only {least} served");
        assert_eq!(most_out(&done), at_once, "{rule}: {done:#}");
        assert_eq!(done["hosts"].as_array().unwrap().len(), HOSTS, "{rule}: {done:#}");
        stage.serves(&format!("r{number}"));
    }

    // CodeDeploy's exception: where one goes at a time, the last one alone fails nothing.
    let careful = app.vend_yaml.replace("all-at-once", "one-at-a-time");
    app.copy.write("vend.yaml", careful);
    app.says("last");
    let number = platform.push(&app.copy, &stage.app, "dev");
    let last = eventually("one host is left", MINUTE, || {
        let mut left = stage.hosts();
        left.retain(|host| host["release"] == 6 && host["wanted"] == "serving");
        let id = left.first()?["id"].as_str()?.to_owned();
        (left.len() == 1).then_some(id)
    });
    std::fs::write(inside(&last).join("run/marked"), "").unwrap();
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}");
    let done = stage.deployments_of(7);
    assert_eq!(done["state"], "Succeeded", "{done:#}");
    let failed: Vec<&Value> = done["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|host| {
            let mut events = host["events"].as_array().unwrap().iter();
            events.any(|event| event["status"] == "Failed")
        })
        .map(|host| &host["host"])
        .collect();
    assert_eq!(failed, [&last], "{done:#}");
    eventually("it is replaced", MINUTE, || {
        let gone = stage.hosts().iter().all(|host| host["id"] != *last);
        (gone && stage.count(7, "serving") == HOSTS).then_some(())
    });
    stage.serves("last");
    nothing_was_lost(load);
    stage.end();
}
