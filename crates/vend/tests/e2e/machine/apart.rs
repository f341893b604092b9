//! Machines are looked after each by itself.

use super::*;

#[test]
fn a_machine_whose_script_hangs_keeps_no_other_waiting() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let [(one, app), (two, other)] = ["hangs", "goes"].map(|name| platform.tenant_with_app(name));
    let (hangs, ..) = Machine::joins(&platform, &one, &["role=web"]);
    let (goes, ..) = Machine::joins(&platform, &two, &["role=web"]);
    let slow = copy();
    slow.write("stop.sh", "#!/bin/sh\necho stops >>/srv/stops\nsleep 4322\n");
    slow.write(
        "appspec.yml",
        APPSPEC.replace("stop.sh, timeout: 20", "stop.sh, timeout: 280"),
    );
    slow.commit("It stops slowly");
    let quick = copy();
    let ids = [(&one, &app, &slow, &hangs), (&two, &other, &quick, &goes)].map(|(owner, app, work, on)| {
        let id = machine(&platform, owner, "connected", on)["id"].clone();
        platform.release(work, app, "dev");
        id.as_str().unwrap().to_owned()
    });
    platform.vend(&["hosts", "remove", &ids[0]]);
    let stops = || text(&hangs.file("srv/stops"));
    eventually("the script hangs", Duration::from_secs(40), || {
        (stops() == "stops\n").then_some(())
    });

    platform.vend(&["hosts", "remove", &ids[1]]);
    eventually("the other one is removed", Duration::from_secs(40), || {
        let hosts = platform.json(&["hosts", "list", &two]);
        (hosts["machines"] == serde_json::json!([])).then_some(())
    });
    machine(&platform, &one, "leaving", &hangs);
    assert_eq!(stops(), "stops\n", "it was asked once");
}

/// What a failed deployment brought is not what runs: what was installed before it is stopped, by its own script.
#[test]
fn a_machine_whose_last_deployment_failed_goes_after_its_app() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("fails");
    let (on, ..) = Machine::joins(&platform, &owner, &["role=web"]);
    let id = machine(&platform, &owner, "connected", &on)["id"].clone();
    let work = copy();
    work.write("stop.sh", "#!/bin/sh\necho one stops >>/srv/stops\n");
    work.commit("One");
    platform.release(&work, &app, "dev");

    work.write("stop.sh", "#!/bin/sh\necho two stops >>/srv/stops\n");
    work.write(
        "refuse.sh",
        "#!/bin/sh\nuntil [ -e /srv/refuse ]; do sleep 0.1; done\nexit 3\n",
    );
    let refuses = APPSPEC.replace("hooks:\n", "hooks:\n  BeforeInstall: [{ location: refuse.sh }]\n");
    work.write("appspec.yml", refuses);
    work.commit("Two");
    let push = platform.push(&work, &app, "dev");
    let stops = || text(&on.file("srv/stops"));
    eventually("two is about to be installed", Duration::from_secs(120), || {
        (stops() == "one stops\n").then_some(())
    });
    // One that leaves gets nothing more, nor the release before.
    platform.vend(&["hosts", "remove", id.as_str().unwrap()]);
    std::fs::write(on.inside("srv/refuse"), "").unwrap();
    let failed = platform.ended(&app, push);
    assert_eq!(failed["state"], "failed", "{failed:#}");
    eventually("it is removed", Duration::from_secs(40), || {
        let hosts = platform.json(&["hosts", "list", &owner]);
        (hosts["machines"] == serde_json::json!([])).then_some(())
    });
    assert_eq!(stops(), "one stops\none stops\n", "{}", platform.log());
}
