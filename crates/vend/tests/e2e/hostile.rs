//! Pushes that are wrong or mean harm: one clear error, and nothing changes.

use crate::platform::{Copy, Platform, can_run};

const VEND_YAML: &str = "app: shop
host: { health: { path: /, interval: 1s, timeout: 1s } }
build: { buildspec: buildspec.yml, timeout: 1m }
environments:
  dev: { branch: dev }
";

/// A push that must fail, and what its reason must say.
fn fails(platform: &Platform, copy: &Copy, app: &str, expected: &str) {
    let number = platform.push(copy, app, "dev");
    let push = platform.ended(app, number);
    assert_eq!(push["state"], "failed", "{push:#}");
    let reason = push["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains(expected),
        "expected {expected:?} in {reason:?}\n{}",
        platform.log()
    );
}

#[test]
fn a_wrong_or_hostile_push_fails_with_its_reason_and_changes_nothing() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("hostile");
    let copy = Copy::new(
        "fine",
        "app: shop\nhost: { health: { path: /, interval: 1s, timeout: 1s } }\nenvironments: { dev: { branch: dev } }\n",
    );
    platform.release(&copy, &app, "dev");

    copy.write("vend.yaml", "app: shop\nenvirnments: { dev: { branch: dev } }\n");
    copy.commit("typo");
    fails(&platform, &copy, &app, "environments");

    copy.write("vend.yaml", b"app: shop\n\xff\xfe\n");
    copy.commit("not UTF-8");
    fails(&platform, &copy, &app, "UTF-8");

    copy.write(
        "vend.yaml",
        "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\napp: shop\n",
    );
    copy.commit("aliases");
    fails(&platform, &copy, &app, "vend.yaml");

    copy.write(
        "vend.yaml",
        "app: shop\nhost: { health: { path: /, interval: 1s, timeout: 1s } }\nenvironments: { dev: { branch: dev } }\n",
    );
    copy.write(
        "Procfile",
        "web: exec perl -e 'sleep 1; die qq(no such table: guests\\n)'\n",
    );
    copy.commit("an app that dies a second after its start");
    fails(
        &platform,
        &copy,
        &app,
        "the process web does not stay up: exit code 255; it last said:\nno such table: guests",
    );
    copy.write("Procfile", "web: exec perl server.pl\n");

    copy.write("vend.yaml", VEND_YAML);
    copy.write(
        "buildspec.yml",
        "version: 0.2\nphases: { build: { commands: ['echo about to fail; exit 7'] } }\n",
    );
    copy.commit("a build that fails");
    fails(&platform, &copy, &app, "exit status 7");

    copy.write(
        "buildspec.yml",
        "version: 0.2\nphases: { build: { commands: ['f() { f | f & }; f; sleep 600'] } }\n",
    );
    copy.commit("a fork bomb");
    let number = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, number);
    assert_eq!(push["state"], "failed", "{push:#}");

    let host = format!("dev.shop.{tenant}.localhost");
    assert_eq!(
        platform.get(&host, "/"),
        (200, "fine\n".into()),
        "the release before must go on serving"
    );
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}
