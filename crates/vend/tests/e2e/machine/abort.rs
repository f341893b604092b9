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
    platform.vend(&["deploy", "abort", &dev]);
    let push = platform.ended(&app, push);
    let reason = push["reason"].as_str().unwrap_or_default();
    assert!(
        push["state"] == "failed" && reason.contains("cancelled it"),
        "{push:#}"
    );
    on.hangs_no_more();
    assert_eq!(text(&on.file("srv/started")), "hello\n", "it went no further");
    let newest = platform.json(&["deployments", "list", &dev])["items"][0].clone();
    assert_eq!(
        (&newest["state"], &newest["code"], &newest["release"]),
        (&"Stopped".into(), &"MANUAL_STOP".into(), &2.into()),
        "{newest:#}"
    );
    let why = platform.json(&["why", &dev])["environments"][0].clone();
    let sentence = why["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("v1 is live, and 1 of 1 machine has v2"),
        "{why:#}"
    );

    // What it left is mended by going back.
    std::fs::remove_file(on.inside("srv/hangs")).unwrap();
    platform.succeeds(&["rollback", &dev, "--to", "v1"]);
    assert_eq!(text(&on.file("srv/started")), "hello\nhello\n");
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
