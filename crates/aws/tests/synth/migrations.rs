//! The migration of a release, as a flow has it run.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

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

/// A host is in service before its agent is heard of: a command that was refused was not taken.
#[test]
fn a_host_that_nobody_knows_yet_is_waited_for() {
    let mut world = World::new(&LIVE);
    world.unknown = 2;
    let status = release(MIGRATING, "", &mut world);
    assert_eq!(status.as_str(), "SUCCEEDED", "{status:?}");
    assert_eq!((tries(&world), world.unknown), (3, 0));
    let mut world = World::new(&LIVE);
    world.unknown = 1_000;
    let status = release(MIGRATING, "", &mut world);
    assert!(failure(&status).contains("InvalidInstanceId"), "{status:?}");
    world.is("GreenRuns", "no");
}

/// A place where the command is run by a shell, with an `aws` and an `unzip` that stand for the real ones, and `script` as that of
/// the revision.
struct Host(PathBuf);

impl Host {
    fn new(name: &str, script: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("bin")).unwrap();
        let own = Self(root);
        own.program("aws", "echo \"$4\" > \"$5\"");
        let unzip = "mkdir -p \"$4/db\"; cp \"$2\" \"$4/from\"; printf '#!/bin/sh\\nSCRIPT\\n' > \"$4/db/it's new.sh\"";
        own.program("unzip", &unzip.replace("SCRIPT", script));
        own
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Its first start is over: the variables are there.
    fn started(&self) {
        fs::write(self.0.join("environment"), "GREETING=\"hello\"\n").unwrap();
        fs::write(self.0.join("started"), "").unwrap();
    }

    /// Runs the command of the migration.
    fn run(&self, deploy: &str) -> Output {
        let mut world = World::new(&LIVE);
        release(deploy, "", &mut world);
        let at = |name: &str| self.0.join(name).display().to_string();
        let script = world
            .commands
            .join("\n")
            .replace("/var/lib/vend/started", &at("started"))
            .replace("/etc/vend/environment", &at("environment"));
        let path = format!("{}:/usr/bin:/bin", at("bin"));
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("PATH", path).output().unwrap()
    }
}

fn said(of: &[u8]) -> String {
    String::from_utf8(of.to_vec()).unwrap()
}

#[test]
fn the_migrations_command_runs_the_script_of_the_revision_and_leaves_nothing() {
    let host = Host::new("migrate", "cat from; pwd; exit 3");
    host.started();
    let done = host.run(MIGRATING);
    assert_eq!(done.status.code(), Some(3), "{}", said(&done.stderr));
    let out = said(&done.stdout);
    let (from, place) = out.trim().split_once('\n').unwrap();
    assert_eq!(
        from,
        "s3://vend-production-artifacts-111111111111-eu-central-1/revision/shop/abc123-production.zip"
    );
    assert!(
        place.ends_with("/revision") && !Path::new(place).exists(),
        "{place}"
    );
}

#[test]
fn the_migrations_command_waits_for_the_variables_of_its_host() {
    let host = Host::new("migrate-early", "echo \"$GREETING\"");
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            host.started();
        });
        host.run(MIGRATING)
    });
    assert_eq!(
        (done.status.code(), said(&done.stdout).as_str()),
        (Some(0), "hello\n"),
        "{}",
        said(&done.stderr)
    );
}

#[test]
fn a_script_that_takes_too_long_is_ended_and_says_so() {
    let host = Host::new("migrate-late", "sleep 20");
    host.started();
    let done = host.run(&MIGRATING.replace("5m", "1s"));
    assert_eq!(done.status.code(), Some(124));
    assert!(
        said(&done.stderr).contains("it took longer than 1 s"),
        "{}",
        said(&done.stderr)
    );
}
