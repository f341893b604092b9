//! What is ejected: the templates as they were applied, and a script that a shell can read. It is not run here: moto does not find the
//! template that AWS's command line put into a bucket.

use std::{fs, process::Command};

use crate::{STACKS, World};

#[test]
fn what_is_ejected_is_what_was_applied() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    world.good(&["eject", "--out", "out"]);
    let out = world.path().join("out");
    let script = Command::new("sh")
        .arg("-n")
        .arg(out.join("apply.sh"))
        .status()
        .unwrap();
    assert!(script.success());
    let applied = world.python(
        "s3 = client('s3')\nb = 'vend-production-templates-123456789012-eu-central-1'\n\
         k = s3.list_objects_v2(Bucket=b)['Contents'][0]['Key']\nprint(s3.get_object(Bucket=b, Key=k)['Body'].read().decode())",
    );
    assert_eq!(
        fs::read_to_string(out.join("vend-production.yaml"))
            .unwrap()
            .trim(),
        applied
    );
    for name in STACKS {
        assert!(out.join(format!("{name}.yaml")).exists(), "{name}");
    }
}
