//! Who cancels a release stops what is made for it, at once and on record.

use std::time::Duration;

use crate::platform::{Copy, Platform, can_run, eventually};

const VEND_YAML: &str = "app: shop
image: { scripts: [slow.sh] }
build: { buildspec: buildspec.yml }
environments:
  dev: { branch: dev }
";
/// What it says is not how it is written: the log has the command before what comes of it.
const BUILDSPEC: &str = "version: 0.2\nphases: { build: { commands: ['echo be\"\"gun; sleep 1000'] } }\n";

#[test]
fn a_cancelled_release_stops_its_build_and_its_bake() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("cancel");
    let copy = Copy::new("fine", VEND_YAML);
    copy.write("buildspec.yml", BUILDSPEC);
    copy.write("slow.sh", format!("# {tenant}\nsleep 1000\n"));
    copy.commit("slow");
    for serve_dies in [false, true] {
        let number = platform.push(&copy, &app, "dev");
        // In a fresh directory the bases are made first.
        eventually("build and bake run", Duration::from_secs(600), || {
            (running(&platform).len() == 2).then_some(())
        });
        let pushes = platform.json(&["pushes", "list", &app]);
        let push = pushes["items"].as_array().unwrap().iter();
        let push = push.clone().find(|push| push["number"] == number).unwrap();
        let execution = push["execution"].as_str().unwrap().to_owned();
        let build = format!("build/t-{}-build", &execution[2..]);
        eventually("its command runs", Duration::from_secs(120), || {
            let log = platform.try_vend(&["logs", &build]).stdout;
            String::from_utf8_lossy(&log).contains("begun").then_some(())
        });
        if serve_dies {
            platform.kill("serve");
            platform.wait_until_ready();
        }
        platform.vend(&["executions", "cancel", &execution]);
        let push = platform.ended(&app, number);
        assert!(
            push["reason"].as_str().unwrap().contains("cancelled it"),
            "{push:#}"
        );
        eventually("their containers are gone", Duration::from_secs(120), || {
            running(&platform).is_empty().then_some(())
        });
        let log = platform.vend(&["logs", &build]);
        assert!(
            log.contains("the build was stopped: ") && log.contains("cancelled it"),
            "{log}"
        );
        let shown = platform.json(&["executions", "show", &execution]);
        let phases = shown["builds"][0]["phases"].as_array().unwrap();
        let last = |back: usize| &phases[phases.len() - back];
        assert_eq!(phases[0]["name"], "SUBMITTED", "{phases:#?}");
        assert_eq!(
            (&last(3)["name"], &last(3)["status"]),
            (&"BUILD".into(), &"STOPPED".into())
        );
        assert_eq!(last(1)["name"], "COMPLETED");
        assert_eq!(last(1).get("duration_ms"), None, "it only says when");
        let ledger = platform.vend(&["audit", "list", &tenant, "--all", "--json"]);
        for deed in ["build.stop", "bake.stop"] {
            assert!(ledger.contains(deed), "{deed} is on record");
        }
    }
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// Containers of builds and bakes of customers.
fn running(platform: &Platform) -> Vec<String> {
    let entries = std::fs::read_dir(platform.data().join("node/containers")).unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        // Bakes of the platform's own are named, those of customers are numbered.
        .filter(|name| name.starts_with("build-") || name.starts_with("bake-") && name.ends_with("-0"))
        .collect()
}
