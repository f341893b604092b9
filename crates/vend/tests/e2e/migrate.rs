//! Migrations: once for each release, before anything of it serves, on record, and never gone back across unasked.

use std::time::Duration;

use serde_json::Value;

use crate::{
    abort::runs,
    guestbook::Guestbook,
    load::Load,
    platform::{Copy, Platform, can_run, eventually},
    strategies::{App, Stage},
};

const VEND_YAML: &str = "app: shop
deploy: { migrate: { script: migrate.sh, timeout: 2m } }
host: { health: { path: /, interval: 1s, timeout: 1s } }
environments:
  dev: { branch: dev }
";

/// Says that it runs, and sees nothing of the release where it will be served from.
const SLOW: &str = "#!/bin/sh
echo \"the migration of $APPLICATION_NAME begins in $(basename \"$PWD\") at $(id -un)\"
test -e /srv/app && echo 'it is deployed already' && exit 1
sleep 4
echo 'the migration ends'
";

/// The migration of a release as it is shown.
fn migration(platform: &Platform, dev: &str, number: u64) -> Value {
    platform.json(&["releases", "show", dev, &format!("v{number}")])["migration"].clone()
}

fn log_of(platform: &Platform, migration: &Value) -> String {
    platform.vend(&["logs", migration["log"].as_str().unwrap()])
}

#[test]
fn a_migration_runs_once_whoever_dies_and_a_failing_one_keeps_the_release_away() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let (tenant, app) = platform.tenant_with_app("migrate");
    let (dev, host) = (format!("{app}/dev"), format!("dev.shop.{tenant}.localhost"));
    let copy = Copy::new("one", VEND_YAML);
    copy.write("migrate.sh", SLOW);
    copy.commit("A migration");
    for (number, role) in [(1, "serve"), (2, "node")] {
        copy.says(&format!("{role} died"));
        let push = platform.push(&copy, &app, "dev");
        eventually("the migration runs", Duration::from_secs(200), || {
            let shown = platform.try_vend(&["releases", "show", &dev, &number.to_string(), "--json"]);
            let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
            (shown["migration"]["state"] == "running").then_some(())
        });
        std::thread::sleep(Duration::from_secs(1));
        platform.kill(role);
        platform.wait_until_ready();
        let push = platform.ended(&app, push);
        assert_eq!(push["state"], "done", "{push:#}\n{}", platform.log());
        let ran = migration(&platform, &dev, number);
        assert_eq!(ran["state"], "succeeded", "{ran:#}");
        let log = log_of(&platform, &ran);
        assert_eq!(
            log.matches("migration of shop begins in deployment-archive at root")
                .count(),
            1,
            "{log}"
        );
        assert_eq!(log.matches("the migration ends").count(), 1, "{log}");
    }

    copy.write("migrate.sh", "#!/bin/sh\necho 'no such table'\nexit 3\n");
    copy.says("three");
    let push = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, push);
    let reason = push["reason"].as_str().unwrap_or_default();
    assert_eq!(push["state"], "failed", "{push:#}");
    assert!(
        reason.contains("the migration of v3 failed") && reason.contains("no such table"),
        "{push:#}"
    );
    assert_eq!(platform.get(&host, "/"), (200, "node died\n".to_owned()));
    assert_eq!(migration(&platform, &dev, 3)["state"], "failed");

    // It has a time of its own, and nothing of it goes on after that.
    copy.write("vend.yaml", VEND_YAML.replace("timeout: 2m", "timeout: 2s"));
    copy.write("migrate.sh", "#!/bin/sh\nsleep 4712\n");
    copy.says("four");
    let push = platform.push(&copy, &app, "dev");
    let push = platform.ended(&app, push);
    let reason = push["reason"].as_str().unwrap_or_default();
    assert_eq!(push["state"], "failed", "{push:#}");
    assert!(reason.contains("failed to complete in 2 seconds"), "{push:#}");
    assert!(!runs("sleep\x004712\x00"), "it goes on");
    assert_eq!(platform.get(&host, "/"), (200, "node died\n".to_owned()));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.ndjson");
    platform.vend(&["audit", "export", file.to_str().unwrap()]);
    let ledger = std::fs::read_to_string(file).unwrap();
    let own = |action: &str| {
        let lines = ledger
            .lines()
            .filter(|line| line.contains(&format!("\"{action}\"")));
        lines.filter(|line| line.contains(&dev)).count()
    };
    let actions = ["migration.start", "migration.succeed", "migration.fail"];
    assert_eq!(actions.map(own), [4, 2, 2]);
    platform.vend(&["tenants", "delete", &tenant, "--yes"]);
}

/// Adds a column that the release before knows nothing of, and fails when it runs a second time.
const COLUMN: &str = r#"#!/usr/bin/env python3
import sys
sys.path[:0] = ["vendor", "."]
import pymysql
from guestbook import store
connection = pymysql.connect(**store.settings(), autocommit=True)
with connection.cursor() as cursor:
    cursor.execute("ALTER TABLE entries ADD COLUMN mood VARCHAR(20) NOT NULL DEFAULT 'glad'")
    cursor.execute("SELECT count(*) FROM entries WHERE mood = 'glad'")
    print("moods:", cursor.fetchone()[0])
"#;

#[test]
fn the_guestbooks_data_is_migrated_and_going_back_across_it_must_be_asked_for() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let Guestbook {
        customer,
        app,
        dev,
        site,
        copy,
    } = Guestbook::new(&platform, "moods");
    platform.release(&copy, &app, "dev");
    site.sign("Ada", "Hello, world!");

    let yaml = std::fs::read_to_string(copy.directory.path().join("vend.yaml")).unwrap();
    let migrating =
        "  appspec: appspec.yml\n  migrate: { script: scripts/mood.py, timeout: 1m, irreversible: true }\n";
    copy.write("vend.yaml", yaml.replace("  appspec: appspec.yml\n", migrating));
    copy.write("scripts/mood.py", COLUMN);
    copy.commit("Moods");
    platform.release(&copy, &app, "dev");
    let ran = migration(&platform, &dev, 2);
    assert_eq!(
        (&ran["state"], &ran["irreversible"]),
        (&"succeeded".into(), &true.into())
    );
    assert!(
        log_of(&platform, &ran).contains("moods: 1"),
        "{}",
        log_of(&platform, &ran)
    );
    assert!(site.entries().contains("Hello, world!"));

    let refused = platform.try_vend(&["rollback", &dev]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "it went back");
    assert!(
        text.contains("scripts/mood.py of v2 has run, and is marked irreversible")
            && text.contains(&format!("vend rollback {dev} --to v1 --across-migrations")),
        "{text}"
    );
    let plan = platform.vend(&["rollback", &dev, "--plan"]);
    assert!(
        plan.contains("migration of v2") && plan.contains("not undone"),
        "{plan}"
    );
    assert!(
        plan.contains("it would be refused") && plan.contains("--across-migrations"),
        "{plan}"
    );
    let across = platform.vend(&["rollback", &dev, "--plan", "--across-migrations"]);
    assert!(
        !across.contains("refused") && across.ends_with("--to v1 --across-migrations\n"),
        "{across}"
    );
    platform.succeeds(&["rollback", &dev, "--across-migrations"]);
    assert!(site.entries().contains("Hello, world!"));
    // It ran when its release was made: going there again is no reason to run it again.
    platform.succeeds(&["rollback", &dev, "--to", "v2"]);
    assert_eq!(migration(&platform, &dev, 2), ran);
    platform.vend(&["tenants", "delete", &customer, "--yes"]);
}

/// In place: every host serves the release before until the migration has run, on a host that is made for it.
#[test]
fn in_place_a_migration_runs_once_before_any_host_changes() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "inplace");
    let migrating = "strategy: in-place, migrate: { script: migrate.sh, timeout: 2m }";
    let app = App::new(migrating, 2);
    app.copy.write("migrate.sh", "#!/bin/sh\necho \"level $LEVEL\"\n");
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let hosts = || {
        let hosts = platform.json(&["hosts", "list", &stage.dev]);
        let mut ids: Vec<String> = hosts["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|host| host["wanted"] == "serving")
            .map(|host| host["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let before = hosts();
    let load = Load::on(&platform.http(), &stage.host);
    app.says("two");
    platform.release(&app.copy, &stage.app, "dev");
    stage.serves("two");
    let ran = migration(&platform, &stage.dev, 2);
    assert_eq!(ran["state"], "succeeded", "{ran:#}");
    assert!(
        log_of(&platform, &ran).contains("level "),
        "{}",
        log_of(&platform, &ran)
    );
    eventually(
        "the hosts are those that were there",
        Duration::from_secs(60),
        || (hosts() == before).then_some(()),
    );

    app.copy
        .write("migrate.sh", "#!/bin/sh\necho 'no such table'\nexit 3\n");
    app.says("three");
    let push = platform.push(&app.copy, &stage.app, "dev");
    let push = platform.ended(&stage.app, push);
    let reason = push["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("the migration of v3 failed"), "{push:#}");
    stage.serves("two");
    assert_eq!(hosts(), before);
    let (good, bad) = load.end();
    assert!(bad.is_empty() && good > 50, "{good} {bad:?}");
    stage.end();
}

/// What a person asks for in the middle of a migration, what its own time-out does, and what is said of the data when a
/// release goes back whose migration cannot be undone.
#[test]
fn a_migration_is_not_ended_in_the_middle_unasked_and_what_it_did_is_told() {
    if !can_run() {
        return;
    }
    let platform = Platform::start();
    let stage = Stage::new(&platform, "mid");
    let app = App::new("strategy: blue-green", 1);
    app.says("one");
    platform.release(&app.copy, &stage.app, "dev");
    let migrating = |timeout: &str| {
        let migrate = format!(
            "strategy: blue-green, migrate: {{ script: migrate.sh, timeout: {timeout}, irreversible: true }}"
        );
        app.copy.write(
            "vend.yaml",
            app.vend_yaml.replace("strategy: blue-green", &migrate),
        );
    };
    let running = |number: u64| {
        eventually("the migration runs", Duration::from_secs(120), || {
            let shown = platform.try_vend(&["releases", "show", &stage.dev, &number.to_string(), "--json"]);
            let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
            (shown["migration"]["state"] == "running").then_some(())
        });
    };

    // It is not ended in the middle, nor is it by a newer push while somebody holds the deployment.
    migrating("2m");
    app.copy.write("migrate.sh", "#!/bin/sh\nsleep 6\necho through\n");
    app.says("two");
    let push = platform.push(&app.copy, &stage.app, "dev");
    running(2);
    eventually("it is told with the deployment", Duration::from_secs(60), || {
        stage.goes_on("Migrate").then_some(())
    });
    let refused = platform.try_vend(&["deploy", "abort", &stage.dev]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success()
            && text.contains("the migration migrate.sh of v2 runs")
            && text.contains("--in-migration"),
        "{text}"
    );
    platform.vend(&["deploy", "pause", &stage.dev]);
    app.says("three");
    let newer = platform.push(&app.copy, &stage.app, "dev");
    let told = "the migration migrate.sh of v2 has run, and is marked irreversible";
    let superseded = platform.ended(&stage.app, push);
    assert_eq!(superseded["state"], "superseded", "{superseded:#}");
    assert!(
        superseded["reason"].as_str().unwrap().contains(told),
        "{superseded:#}"
    );
    assert!(log_of(&platform, &migration(&platform, &stage.dev, 2)).contains("through"));
    let shown = stage.deployments_of(2);
    let first = &shown["hosts"][0]["events"][0];
    assert_eq!(
        (&first["event"], &first["status"]),
        (&"Migrate".into(), &"Succeeded".into()),
        "{shown:#}"
    );

    // Who says so may end it, and is told what that means.
    running(3);
    platform.vend(&["deploy", "abort", &stage.dev, "--in-migration"]);
    let ended = platform.ended(&stage.app, newer);
    let reason = ended["reason"].as_str().unwrap();
    assert!(
        reason.contains("cancelled it") && reason.contains("v3 has failed half way, or before"),
        "{ended:#}"
    );
    assert_eq!(migration(&platform, &stage.dev, 3)["state"], "failed");

    // Its own time-out.
    migrating("1s");
    app.copy.write("migrate.sh", "#!/bin/sh\necho begun\nsleep 100\n");
    app.says("four");
    let ended = platform.ended(&stage.app, platform.push(&app.copy, &stage.app, "dev"));
    let reason = ended["reason"].as_str().unwrap();
    assert!(
        reason.contains("the migration of v4 failed") && reason.contains("failed to complete in 1 seconds"),
        "{ended:#}"
    );
    let ran = migration(&platform, &stage.dev, 4);
    assert_eq!(ran["state"], "failed", "{ran:#}");

    // It has run, and what comes after it fails: going back is told, not kept from anybody.
    migrating("1m");
    app.copy.write("migrate.sh", "#!/bin/sh\necho through\n");
    app.copy.write("validate.sh", "#!/bin/sh\nexit 3\n");
    app.says("five");
    let ended = platform.ended(&stage.app, platform.push(&app.copy, &stage.app, "dev"));
    let told =
        "the migration migrate.sh of v5 has run, and is marked irreversible: what serves now may not work";
    assert!(ended["reason"].as_str().unwrap().contains(told), "{ended:#}");
    let shown = stage.failed();
    assert!(shown["reason"].as_str().unwrap().contains(told), "{shown:#}");
    stage.serves("one");
    stage.end();
}
