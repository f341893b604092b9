//! What goes on in an environment while a release is made for it, or comes to its new hosts.

use serde_json::Value;

use crate::{
    abort::inside,
    middle::{MINUTE, kill},
    platform::{Platform, can_run, eventually},
    strategies::{App, Stage},
};

const SLOW: &str = "version: 0.2\nphases: { build: { commands: ['sleep 1000'] } }\n";
const QUICK: &str = "version: 0.2\nphases: { build: { commands: ['true'] } }\n";
/// Waits until somebody says that it may go on.
const WAITS: &str = "#!/bin/sh\nuntil [ -e /run/go ]; do sleep 0.2; done\n";

impl Stage<'_> {
    fn serving(&self) -> Vec<Value> {
        let mut hosts = self.hosts();
        hosts.retain(|host| host["wanted"] == "serving");
        hosts
    }

    /// Ends a host that serves, and waits until another is there.
    fn loses_one(&self) {
        let before = self.serving();
        let victim = before[0]["id"].as_str().unwrap().to_owned();
        kill(self.platform, &victim);
        eventually("it is replaced", 2 * MINUTE, || {
            let after = self.serving();
            let gone = after.iter().all(|host| host["id"] != victim.as_str());
            let same = after.iter().all(|host| host["release"] == before[0]["release"]);
            (gone && same && after.len() == before.len()).then_some(())
        });
    }

    fn push_of(&self, number: u64) -> Value {
        let pushes = self.platform.json(&["pushes", "list", &self.app]);
        let mut pushes = pushes["items"].as_array().unwrap().iter();
        pushes.find(|push| push["number"] == number).unwrap().clone()
    }
}

#[test]
fn neither_a_build_nor_the_hooks_of_new_hosts_keep_anybody_from_those_that_serve() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "beside");
    let app = App::new("strategy: blue-green", 1);
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");

    let slow = format!("{}build: {{ buildspec: buildspec.yml }}\n", app.vend_yaml);
    app.copy.write("vend.yaml", slow);
    app.copy.write("buildspec.yml", SLOW);
    app.says("three");
    let building = platform.push(&app.copy, &stage.app, "dev");
    let execution = eventually("it is made", MINUTE, || {
        stage.push_of(building)["execution"].as_str().map(str::to_owned)
    });
    stage.loses_one();
    stage.serves("two");
    platform.succeeds(&["scale", &stage.dev, "2"]);
    assert_eq!(stage.count(2, "serving"), 2);
    platform.succeeds(&["rollback", &stage.dev]);
    stage.serves("one");
    assert_eq!(stage.push_of(building)["state"], "running", "it goes on");
    platform.vend(&["executions", "cancel", &execution]);
    platform.ended(&stage.app, building);

    app.copy.write("buildspec.yml", QUICK);
    app.copy.write(
        "appspec.yml",
        appspec.replace("validate.sh, timeout: 20", "validate.sh, timeout: 600"),
    );
    app.copy.write("validate.sh", WAITS);
    app.says("four");
    let number = platform.push(&app.copy, &stage.app, "dev");
    // Where nothing was built before, the build image is made first.
    let fresh = eventually("its hooks run", 10 * MINUTE, || {
        let mut fresh = stage.hosts();
        fresh.retain(|host| host["release"] == 3);
        let in_hooks = stage.deployment()["state"] == "InProgress";
        (in_hooks && fresh.len() == 2).then_some(fresh)
    });
    stage.loses_one();
    assert_eq!(stage.push_of(number)["state"], "running");
    for host in fresh {
        std::fs::write(inside(host["id"].as_str().unwrap()).join("run/go"), "").unwrap();
    }
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    stage.serves("four");
    assert_eq!(stage.serving().len(), 2);
    stage.end();
}

/// It was to go: that it went by itself, before its scripts were through, is no reason to bring it back.
#[test]
fn an_old_host_that_dies_on_its_way_out_fails_nothing() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "leaves");
    let app = App::new("strategy: blue-green", 1);
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    app.copy.write(
        "appspec.yml",
        format!("{appspec}  AfterBlockTraffic: [{{ location: leave.sh, timeout: 600 }}]\n"),
    );
    app.copy.write("leave.sh", WAITS);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let old = stage.serving()[0]["id"].as_str().unwrap().to_owned();

    app.says("two");
    let number = platform.push(&app.copy, &stage.app, "dev");
    eventually("its last script runs", 10 * MINUTE, || {
        stage.goes_on("AfterBlockTraffic").then_some(())
    });
    kill(&platform, &old);
    let push = platform.ended(&stage.app, number);
    assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
    stage.serves("two");
    stage.end();
}
