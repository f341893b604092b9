//! Every role killed with -9 at every stage of a release: it completes after the restart, once.

use std::time::Duration;

use crate::platform::{Copy, Platform, can_run, eventually};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";

const STAGES: [&str; 9] = [
    "Source",
    "Build",
    "Bake",
    "Plan",
    "Provision",
    "Deploy",
    "Validate",
    "Shift",
    "Record",
];

#[test]
fn a_release_survives_the_death_of_every_role_at_every_stage() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("crash");
    let host = format!("dev.shop.{tenant}.localhost");
    let copy = Copy::new("start", VEND_YAML);
    platform.release(&copy, &app, "dev");
    let mut releases = 1;
    for role in ["serve", "node", "edge"] {
        for stage in STAGES {
            let text = format!("{role} died in {stage}");
            copy.says(&text);
            let number = platform.push(&copy, &app, "dev");
            wait_for_stage(&platform, &app, number, stage);
            platform.kill(role);
            platform.wait_until_ready();
            let push = platform.ended(&app, number);
            assert_eq!(push["state"], "done", "{text}: {push:#}\n{}", platform.log());
            assert_eq!(platform.get(&host, "/"), (200, format!("{text}\n")), "{text}");
            releases += 1;
            let all = platform.json(&["releases", "list", &format!("{app}/dev")]);
            assert_eq!(
                all["items"][0]["number"], releases,
                "{text}: released once\n{all:#}"
            );
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.ndjson");
    platform.vend(&["audit", "export", file.to_str().unwrap()]);
    platform.vend(&["audit", "verify", file.to_str().unwrap()]);
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// Waits until the execution of a push has entered a stage, or is past it.
fn wait_for_stage(platform: &Platform, app: &str, number: u64, stage: &str) {
    eventually(
        &format!("push {number} enters {stage}"),
        Duration::from_secs(120),
        || {
            let pushes = platform.json(&["pushes", "list", app]);
            let push = pushes["items"]
                .as_array()?
                .iter()
                .find(|push| push["number"] == number)?
                .clone();
            let execution = push["execution"].as_str()?;
            let detail = platform.json(&["executions", "show", execution]);
            let mut history = detail["history"].as_array()?.iter();
            history.any(|event| event["state"] == stage).then_some(())
        },
    );
}
