//! What old hosts do behind the switch to new ones, when they have no traffic any more.

use std::time::Duration;

use crate::{
    load::Load,
    platform::{Platform, can_run},
    strategies::{App, Stage, nothing_was_lost},
};

/// Ends the app at once, with all that it does.
const ENDS: &str = "#!/bin/sh\nkill -9 -$(cat /run/shop.pid)\n";

/// In place the way back is through the hosts that serve, and those that have parted are not among them.
#[test]
fn who_goes_back_in_place_does_not_get_hosts_that_ended_themselves() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "back");
    let app = App::new("strategy: in-place", 1);
    let in_place = app.vend_yaml.replace("keep_old: 2s", "keep_old: 10m");
    app.copy.write("vend.yaml", &in_place);
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    let parts = "  AfterBlockTraffic: [{ location: leave.sh, timeout: 20 }]\n";
    app.copy.write("appspec.yml", format!("{appspec}{parts}"));
    app.copy.write("leave.sh", ENDS);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let old = stage.hosts()[0]["id"].clone();

    let load = Load::on(&platform.http(), &stage.host);
    app.copy.write(
        "vend.yaml",
        in_place.replace("strategy: in-place", "strategy: blue-green"),
    );
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("two");
    platform.succeeds(&["rollback", &stage.dev]);
    for _ in 0..20 {
        stage.serves("one");
    }
    let serving = |host: &serde_json::Value| host["wanted"] == "serving";
    let serving: Vec<_> = stage.hosts().into_iter().filter(serving).collect();
    assert!(serving.len() == 1 && serving[0]["id"] != old, "{serving:#?}");
    nothing_was_lost(load);
    stage.end();
}

/// The last scripts of the old hosts end their app and fail. Who is still answered there is answered, nobody is sent back
/// there, and who goes back gets hosts that serve.
#[test]
fn hosts_that_ended_themselves_get_no_traffic_back() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "parting");
    let app = App::new("strategy: blue-green", 2);
    app.copy.write(
        "vend.yaml",
        app.vend_yaml.replace("keep_old: 2s", "keep_old: 10m"),
    );
    let appspec = std::fs::read_to_string(app.copy.directory.path().join("appspec.yml")).unwrap();
    let parts = "  AfterBlockTraffic: [{ location: leave.sh, timeout: 20 }]\n";
    app.copy.write("appspec.yml", format!("{appspec}{parts}"));
    app.copy.write("leave.sh", format!("{ENDS}exit 3\n"));
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let old = stage.hosts();

    let quick = Load::on(&platform.http(), &stage.host);
    let slow = Load::at(&platform.http(), &stage.host, "/slow");
    std::thread::sleep(Duration::from_secs(2));
    app.copy.write("leave.sh", ENDS);
    app.says("two");
    let (push, failed) = stage.fails(&app);
    let reason = push["reason"].as_str().unwrap();
    assert!(
        reason.contains("AfterBlockTraffic failed on host")
            && reason.contains("; v2 is live already, and stays"),
        "{push:#}"
    );
    assert_eq!(failed["state"], "Failed", "{failed:#}");
    stage.serves("two");

    platform.succeeds(&["rollback", &stage.dev]);
    stage.serves("one");
    let serving = stage
        .hosts()
        .into_iter()
        .filter(|host| host["wanted"] == "serving");
    let fresh = |host: &serde_json::Value| old.iter().all(|old| old["id"] != host["id"]);
    assert_eq!(serving.filter(fresh).count(), 2, "others were made");
    let (good, bad) = slow.end();
    assert!(good > 0 && bad.is_empty(), "{bad:?}");
    nothing_was_lost(quick);
    stage.end();
}
