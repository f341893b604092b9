//! The migration of a release, as a flow has it run.

use crate::world::{LIVE, World, failure, release};

const MIGRATING: &str = r#"{ migrate: { script: "db/it's new.sh", timeout: 5m } }"#;

/// How often a migration was begun.
fn tries(world: &World) -> usize {
    let begun = |call: &&String| *call == "ssm:sendCommand";
    world.calls.iter().filter(begun).count()
}

#[test]
fn data_is_migrated_once_on_a_new_host_before_anything_is_deployed_or_served() {
    let mut world = World::new(&LIVE);
    let status = release(MIGRATING, "", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    let at = |what: &str| world.calls.iter().position(|call| call == what).unwrap();
    assert!(at("autoscaling:describeAutoScalingGroups") < at("ssm:sendCommand"));
    assert!(at("ssm:getCommandInvocation") < at("codedeploy:createDeployment"));
    assert_eq!(tries(&world), 1);
}

#[test]
fn a_migration_that_fails_or_is_not_heard_of_is_not_tried_again() {
    for (end, told) in [
        (
            Some("Failed"),
            "the migration on i-1 is Failed: column x is there",
        ),
        (None, "no answer came"),
    ] {
        let mut world = World::new(&LIVE);
        world.migration = end;
        let status = release(MIGRATING, "", &mut world);
        assert!(failure(&status).contains(told), "{status:?}");
        assert_eq!(tries(&world), 1);
        assert!(
            !world
                .calls
                .iter()
                .any(|call| call == "codedeploy:createDeployment")
        );
        world.is("BlueWeight", "100");
        world.is("GreenRuns", "no");
    }
}

/// The command is run by a shell here, with an `aws` and an `unzip` that stand for the real ones.
#[test]
fn the_migrations_command_runs_the_script_of_the_revision_and_leaves_nothing() {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};
    let mut world = World::new(&LIVE);
    release(MIGRATING, "", &mut world);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("migrate");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("bin")).unwrap();
    let program = |name: &str, text: &str| {
        let path = root.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("aws", "echo \"$4\" > \"$5\"");
    program(
        "unzip",
        "mkdir -p \"$4/db\"; cp \"$2\" \"$4/from\"; printf '#!/bin/sh\\ncat from; pwd; exit 3\\n' > \"$4/db/it's new.sh\"",
    );
    let script = world.commands.join("\n");
    let path = format!("{}:/usr/bin:/bin", root.join("bin").display());
    let done = Command::new("sh")
        .args(["-c", &script])
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(
        done.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let (from, place) = said.trim().split_once('\n').unwrap();
    assert_eq!(
        from,
        "s3://vend-production-artifacts-111111111111-eu-central-1/revision/shop/abc123-production.zip"
    );
    assert!(
        place.ends_with("/revision") && !Path::new(place).exists(),
        "{place}"
    );
}
