//! What is ejected works without this program: the script makes the stacks with AWS's own command line.

use std::{fs, path::Path, process::Command};

use crate::{STACKS, World, said};

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
    // AWS's own command line makes the rest from it, without this program.
    let said = run(&world, &out);
    for name in STACKS {
        let status = world.python(&format!(
            "print(client('cloudformation').describe_stacks(StackName='{name}')['Stacks'][0]['StackStatus'])"
        ));
        assert!(
            status.ends_with("_COMPLETE") && !status.contains("ROLLBACK"),
            "{name}: {status}\n{said}"
        );
    }
    let put = world.python(
        "s3 = client('s3')\nb = 'vend-production-templates-123456789012-eu-central-1'\n\
         print(*sorted(o['Key'].split('/')[0] for o in s3.list_objects_v2(Bucket=b)['Contents']))",
    );
    assert!(put.contains("packer") && put.contains("receiver"), "{put}");
    // Typed again it changes nothing, and does not fail.
    run(&world, &out);
}

/// The script that was written, where `aws` is the one beside the server's Python.
fn run(world: &World, out: &Path) -> String {
    let path = format!("{}:/usr/bin:/bin", world.python.parent().unwrap().display());
    let done = Command::new("sh")
        .arg("apply.sh")
        .current_dir(out)
        .env_clear()
        .envs([("PATH", path.as_str()), ("HOME", out.to_str().unwrap())])
        .envs([
            ("AWS_ENDPOINT_URL", world.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ])
        .envs([
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ])
        .output()
        .unwrap();
    let said = said(&done);
    assert!(done.status.success(), "{said}");
    said
}
