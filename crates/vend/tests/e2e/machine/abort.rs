//! Deployments to machines that people end, and that newer pushes end.

use super::*;

/// Hangs where the test says so.
const START: &str = "#!/bin/sh
[ ! -e /srv/hangs ] || sleep 4323
echo \"$GREETING\" >>/srv/started
";

fn hanging() -> Copy {
    let copy = copy();
    copy.write("start.sh", START);
    copy.write(
        "appspec.yml",
        APPSPEC.replace("start.sh, timeout: 20", "start.sh, timeout: 600"),
    );
    copy.commit("It may hang");
    copy
}

impl Machine {
    fn hangs(&self) {
        eventually("its script hangs", Duration::from_secs(120), || {
            (!self.processes("sleep 4323").is_empty()).then_some(())
        });
    }

    fn hangs_no_more(&self) {
        eventually("its script has ended", Duration::from_secs(40), || {
            self.processes("sleep 4323").is_empty().then_some(())
        });
    }
}

#[test]
fn a_deployment_to_machines_is_aborted_with_the_script_that_runs() {
    if !can_run() {
        return;
    }
    let platform = for_machines("");
    let (owner, app) = platform.tenant_with_app("abort");
    let dev = format!("{app}/dev");
    let (on, ..) = Machine::joins(&platform, &owner, &["role=web"]);
    machines(&platform, &owner, 1);
    let work = hanging();
    platform.release(&work, &app, "dev");
    assert_eq!(text(&on.file("srv/started")), "hello\n", "{}", on.said());

    std::fs::write(on.inside("srv/hangs"), "").unwrap();
    work.says("two");
    let push = platform.push(&work, &app, "dev");
    on.hangs();
    // What comes back does not hang.
    std::fs::remove_file(on.inside("srv/hangs")).unwrap();
    let said = platform.vend(&["deploy", "abort", &dev]);
    assert!(said.contains("machines that have v2 get v1 again"), "{said}");
    let push = platform.ended(&app, push);
    let reason = push["reason"].as_str().unwrap_or_default();
    assert!(
        push["state"] == "failed" && reason.contains("cancelled it"),
        "{push:#}"
    );
    on.hangs_no_more();
    let undo = gone_back(&platform, &dev);
    let list = platform.json(&["deployments", "list", &dev]);
    let stopped = &list["items"][1];
    assert_eq!(
        (&stopped["state"], &stopped["code"], &stopped["release"]),
        (&"Stopped".into(), &"MANUAL_STOP".into(), &2.into()),
        "{list:#}"
    );
    assert_eq!(
        undo["cause"],
        format!("rolls back {}", stopped["id"].as_str().unwrap())
    );
    assert_eq!(text(&on.file("srv/started")), "hello\nhello\n", "once for each");
    assert!(text(&on.file("srv/shop/server.pl")).contains("one"));

    // Whoever stops the way back as well wants to see what is there: that stays, until it is gone back by hand.
    std::fs::write(on.inside("srv/hangs"), "").unwrap();
    work.says("three");
    let push = platform.push(&work, &app, "dev");
    on.hangs();
    platform.vend(&["deploy", "abort", &dev]);
    platform.ended(&app, push);
    let back = eventually("the way back hangs", Duration::from_secs(120), || {
        let newest = platform.json(&["deployments", "list", &dev])["items"][0].clone();
        (newest["cause"].is_string() && newest["ended_at"].is_null()).then_some(newest)
    });
    on.hangs();
    platform.vend(&["deploy", "abort", &dev]);
    eventually("it is stopped", Duration::from_secs(120), || {
        let shown = platform.json(&["deployments", "show", back["id"].as_str()?]);
        (shown["state"] == "Stopped").then_some(())
    });
    on.hangs_no_more();
    let why = eventually("it waits for somebody", Duration::from_secs(60), || {
        let why = platform.json(&["why", &dev])["environments"][0].clone();
        let sentence = why["sentence"].as_str()?.to_owned();
        sentence.contains("is not tried again by itself").then_some(why)
    });
    assert_eq!(why["next"], format!("vend rollback {dev} --to v1"), "{why:#}");
    std::fs::remove_file(on.inside("srv/hangs")).unwrap();
    platform.succeeds(&["rollback", &dev, "--to", "v1"]);
    assert!(text(&on.file("srv/shop/server.pl")).contains("one"));
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}

#[test]
fn a_newer_push_takes_the_place_of_a_late_machines_deployment_that_hangs() {
    if !can_run() {
        return;
    }
    let platform = for_machines("[deployments]\npatience_s = 3\n");
    let (owner, app) = platform.tenant_with_app("giving");
    let (first, ..) = Machine::joins(&platform, &owner, &["role=web"]);
    machines(&platform, &owner, 1);
    let work = hanging();
    platform.release(&work, &app, "dev");

    let (second, ..) = Machine::joins_after(&platform, &owner, &["role=web"], |on| {
        std::fs::create_dir_all(on.file("srv")).unwrap();
        std::fs::write(on.file("srv/hangs"), "").unwrap();
    });
    machines(&platform, &owner, 2);
    second.hangs();
    let joining = of_kind(&platform, &app, "join").remove(0);
    assert_eq!(joining["state"], "running", "{joining:#}");
    work.write("start.sh", "#!/bin/sh\necho two >>/srv/started\n");
    work.commit("It hangs no more");
    platform.release(&work, &app, "dev");
    second.hangs_no_more();
    let joining = of_kind(&platform, &app, "join").remove(0);
    assert!(
        joining["state"] == "failed" && joining.to_string().contains("it hangs in a hook"),
        "{joining:#}"
    );
    assert_eq!(text(&first.file("srv/started")), "hello\ntwo\n");
    assert_eq!(text(&second.file("srv/started")), "two\n");
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}

#[test]
fn a_newer_push_takes_the_place_of_a_way_back_that_hangs() {
    if !can_run() {
        return;
    }
    let platform = for_machines("[deployments]\npatience_s = 3\n");
    let (owner, app) = platform.tenant_with_app("fixing");
    let (on, ..) = Machine::joins(&platform, &owner, &["role=web"]);
    machines(&platform, &owner, 1);
    let work = hanging();
    platform.release(&work, &app, "dev");

    // It fails, and leaves what the release before does not start with.
    work.write("start.sh", "#!/bin/sh\ntouch /srv/hangs\nexit 3\n");
    work.commit("It fails");
    let failing = platform.push(&work, &app, "dev");
    assert_eq!(platform.ended(&app, failing)["state"], "failed");
    on.hangs();
    let back = of_kind(&platform, &app, "auto-rollback").remove(0);
    assert_eq!(back["state"], "running", "{back:#}");

    work.write("start.sh", "#!/bin/sh\necho fixed >>/srv/started\n");
    work.commit("It is fixed");
    platform.release(&work, &app, "dev");
    on.hangs_no_more();
    assert_eq!(text(&on.file("srv/started")), "hello\nfixed\n");
    platform.vend(&["tenants", "delete", &owner, "--yes"]);
}
