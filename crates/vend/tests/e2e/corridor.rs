//! A push through every stage, and what people do afterwards.

use crate::platform::{Copy, Platform, can_run};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
deploy: { keep_old: 10m }
scaling: { min: 1, max: 3 }
environments:
  dev: { branch: dev }
  production:
    branch: main
    approval: { required: 1 }
";

#[test]
fn a_push_goes_live_is_changed_rolled_back_scaled_and_destroyed() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("corridor");
    let host = format!("dev.shop.{tenant}.localhost");
    let dev = format!("{app}/dev");

    let copy = Copy::new("one", VEND_YAML);
    assert_eq!(platform.get(&host, "/").0, 503, "nothing is deployed yet");
    platform.release(&copy, &app, "dev");
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));

    copy.says("two");
    platform.release(&copy, &app, "dev");
    assert_eq!(platform.get(&host, "/"), (200, "two\n".into()));

    let plan = platform.json(&["rollback", &dev, "--plan"]);
    assert_eq!(plan["plan"]["to"], 1, "{plan:#}");
    platform.succeeds(&["rollback", &dev]);
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));

    let refused = platform.try_vend(&["scale", &dev, "4"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success()
            && said.contains("has 3 hosts at most, and 4 were asked for")
            && said.contains(&format!("scale {dev} 3")),
        "{said}"
    );
    platform.succeeds(&["scale", &dev, "3"]);
    let hosts = platform.json(&["hosts", "list", &dev]);
    let serving = hosts["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|host| host["wanted"] == "serving")
        .count();
    assert_eq!(serving, 3, "{hosts:#}");

    platform.vend(&["environments", "protect", &dev]);
    assert!(
        !platform
            .try_vend(&["environments", "destroy", &dev, "--yes"])
            .status
            .success()
    );
    platform.vend(&["environments", "unprotect", &dev]);
    platform.succeeds(&["environments", "destroy", &dev, "--yes"]);
    assert_eq!(platform.get(&host, "/").0, 503);

    ledger_verifies_and_a_changed_byte_is_found(&platform);
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
    crate::platform::eventually("the tenant is gone", std::time::Duration::from_secs(60), || {
        let shown = platform.try_vend(&["tenants", "show", &tenant]);
        (shown.status.code() == Some(4)).then_some(())
    });
}

#[test]
fn production_waits_for_a_person_and_a_no_leaves_the_release_before() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("approval");
    let host = format!("production.shop.{tenant}.localhost");
    let approver = platform.token("ops@acme.example", "approver", &tenant);
    let copy = Copy::new("one", VEND_YAML);
    let number = platform.push(&copy, &app, "main");
    let approval = open_approval(&platform, &app);
    assert_eq!(platform.get(&host, "/").0, 503, "it must wait");
    let unasked = platform.try_vend(&["approve", &approval]);
    let said = String::from_utf8_lossy(&unasked.stderr);
    assert!(
        !unasked.status.success() && said.contains("--plan sha256:"),
        "nobody was asked: {said}"
    );
    let own = platform.try_vend(&["approve", &approval, "--yes"]);
    assert!(!own.status.success(), "who pushed may not approve");
    approved(&platform, &approver, &approval, &app, number);
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));

    copy.says("two");
    let number = platform.push(&copy, &app, "main");
    let approval = open_approval(&platform, &app);
    platform.vend_as(&approver, &["reject", &approval, "--why", "not on a Friday"]);
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "failed");
    assert!(
        push["reason"].as_str().unwrap().contains("not on a Friday"),
        "{push:#}"
    );
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

#[test]
fn a_waiting_plan_stops_nothing_and_is_asked_again_when_it_changed() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("waiting");
    let place = format!("{app}/production");
    let host = format!("production.shop.{tenant}.localhost");
    let approver = platform.token("ops@acme.example", "approver", &tenant);
    let copy = Copy::new("one", VEND_YAML);
    let number = platform.push(&copy, &app, "main");
    approved(
        &platform,
        &approver,
        &open_approval(&platform, &app),
        &app,
        number,
    );

    // A push that takes the approval away is under the rule of the release that is live.
    copy.write(
        "vend.yaml",
        VEND_YAML.replace(
            "    approval: { required: 1 }\n",
            "    approval: { required: 1, expires: 2h }\n",
        ),
    );
    copy.says("two");
    let number = platform.push(&copy, &app, "main");
    approved(
        &platform,
        &approver,
        &open_approval(&platform, &app),
        &app,
        number,
    );
    copy.write(
        "vend.yaml",
        VEND_YAML.replace("    approval: { required: 1 }\n", ""),
    );
    copy.says("three");
    let number = platform.push(&copy, &app, "main");
    let first = open_approval(&platform, &app);

    // While it waits, people go back; the plan that they were asked about is another one now.
    platform.succeeds(&["rollback", &place]);
    assert_eq!(platform.get(&host, "/"), (200, "one\n".into()));
    platform.vend_as(&approver, &["approve", &first, "--yes"]);
    let second = crate::platform::eventually("it is asked again", std::time::Duration::from_secs(90), || {
        Some(open_approval(&platform, &app)).filter(|id| *id != first)
    });
    assert_eq!(
        platform.get(&host, "/"),
        (200, "one\n".into()),
        "the first yes was to another plan"
    );
    approved(&platform, &approver, &second, &app, number);
    assert_eq!(platform.get(&host, "/"), (200, "three\n".into()));
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// Says yes, and waits until the push is done.
pub fn approved(platform: &Platform, approver: &str, approval: &str, app: &str, number: u64) {
    platform.vend_as(approver, &["approve", approval, "--yes"]);
    let push = platform.ended(app, number);
    assert_eq!(push["state"], "done", "{}", platform.log());
}

pub fn open_approval(platform: &Platform, app: &str) -> String {
    crate::platform::eventually(
        "an approval is asked for",
        std::time::Duration::from_secs(120),
        || {
            let all = platform.json(&["approvals", "list", app]);
            let open = all["items"]
                .as_array()?
                .iter()
                .find(|approval| approval["state"] == "open")?;
            Some(open["id"].as_str()?.to_owned())
        },
    )
}

fn ledger_verifies_and_a_changed_byte_is_found(platform: &Platform) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.ndjson");
    let path = file.to_str().unwrap();
    platform.vend(&["audit", "export", path]);
    platform.vend(&["audit", "verify", path]);
    let mut bytes = std::fs::read(&file).unwrap();
    let position = bytes.len() / 2;
    bytes[position] = if bytes[position] == b'x' { b'y' } else { b'x' };
    std::fs::write(&file, bytes).unwrap();
    assert!(
        !platform.try_vend(&["audit", "verify", path]).status.success(),
        "a changed byte must be found"
    );
}
