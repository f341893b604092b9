//! What is ejected: the templates as they were applied, and a script that makes the stacks with AWS's own command line.

use std::{fs, process::Command};

use crate::{STACKS, World, said, tags};

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

/// What its page has people type names what the templates have, and nothing else.
#[test]
fn the_pages_commands_name_what_the_templates_have() {
    let Some(world) = World::new() else { return };
    world.write(
        "vend.yaml",
        "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main, approval: { required: 1 }, database: { engine: mariadb } }\n",
    );
    world.good(&["eject", "--out", "out"]);
    let out = world.path().join("out");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let page = read("README.md");
    let shell: String = page
        .split("```sh\n")
        .skip(1)
        .map(|part| part.split("```").next().unwrap())
        .collect();
    world.write("out/page.sh", &shell);
    assert!(
        Command::new("sh")
            .arg("-n")
            .arg(out.join("page.sh"))
            .status()
            .unwrap()
            .success()
    );
    let all: String = STACKS.iter().map(|name| read(&format!("{name}.yaml"))).collect();
    let line = |word: &str| {
        let mut lines = shell.lines().filter(|line| line.contains(word));
        lines
            .next()
            .unwrap_or_else(|| panic!("{word}: {page}"))
            .to_owned()
    };
    assert!(line("--state-machine-arn").contains(":stateMachine:vend-flow-production-shop-production"));
    assert!(all.contains("StateMachineName: vend-flow-production-shop-production"));
    for (command, name) in [
        ("s3://", "vend-production-artifacts-"),
        ("aws logs tail", "/vend/production/shop/production"),
        ("--kms-key-id", "alias/vend-production"),
        ("create-secret", "vend/production/shop/production/"),
        ("--role-arn", "vend-production-stacks"),
    ] {
        assert!(line(command).contains(name), "{command}: {}", line(command));
        assert!(all.contains(name), "{name} is in no template");
    }
    for command in [
        "send-task-success --region eu-central-1",
        "send-task-failure --region eu-central-1",
    ] {
        line(command);
    }
    // Every parameter is said, or CloudFormation would take its default.
    let stack = read(&format!("{}.yaml", STACKS[2]));
    let head = stack.split("\nResources:").next().unwrap();
    for id in head.split("\nParameters:").nth(1).unwrap().lines() {
        if let Some(id) = id
            .strip_prefix("  ")
            .filter(|id| !id.starts_with(' ') && id.ends_with(':'))
        {
            assert!(
                shell.contains(&format!("ParameterKey={},", id.trim_end_matches(':'))),
                "{id}"
            );
        }
    }
    // The way back to nothing takes each stack, the last first, and says what stays.
    let gone: Vec<&str> = shell
        .lines()
        .filter(|line| line.contains("delete-stack "))
        .collect();
    let wanted: Vec<&str> = STACKS.iter().rev().copied().collect();
    assert!(
        gone.len() == 4 && gone.iter().zip(&wanted).all(|(line, name)| line.ends_with(name)),
        "{gone:?}"
    );
    for id in ["Key", "ArtifactsBucket", "Zone", "Table", "Database"] {
        assert!(
            page.contains(&format!("- `{id}` of `")) && all.contains(&format!("\n  {id}:\n")),
            "{id}: {page}"
        );
    }
    assert!(
        shell.contains("--logical-resource-id Balancer") && shell.contains("modify-db-instance"),
        "{shell}"
    );
}

/// Where nothing is there yet, the script makes everything, and `apply` finds nothing left to do.
#[test]
fn the_script_makes_the_stacks_as_apply_would() {
    let Some(world) = World::new() else { return };
    world.good(&["eject", "--out", "out"]);
    world.python(
        "client('s3').create_bucket(Bucket='first', CreateBucketConfiguration={'LocationConstraint': 'eu-central-1'})",
    );
    runs(&world, "out/apply.sh");
    for name in STACKS {
        let line = world.status(name);
        assert_eq!(line["doing"]["doing"], "nothing", "{line}");
        assert_eq!(line["is_protected"], name == STACKS[0], "{line}");
    }
    // Once more, as far as moto follows: who took the protection away keeps it so.
    world.good(&["unprotect"]);
    let script = fs::read_to_string(world.path().join("out/apply.sh")).unwrap();
    let second = script.find("\n# shop: ").unwrap_or_else(|| panic!("{script}"));
    world.write("out/first.sh", &script[..second]);
    runs(&world, "out/first.sh");
    assert_eq!(world.status(STACKS[0])["is_protected"], false);
    // What cannot be asked for is not taken for new.
    let (is_new, error) = asked(
        &script,
        "echo 'An error occurred (Throttling): Rate exceeded' >&2; return 254",
    );
    assert_eq!((is_new.as_str(), error), ("", true));
    let (is_new, error) = asked(&script, "echo 'Stack with id s does not exist' >&2; return 254");
    assert_eq!((is_new.trim(), error), ("yes", false));
    for (guarded, is_open) in [("no", "yes"), ("yes", ""), ("None", "")] {
        assert_eq!(
            asked(&script, &format!("echo {guarded}")),
            (is_open.to_owned(), false)
        );
    }
    tags::every_stack_says_whose_it_is(&world);
    let key = world.python(
        "s3 = client('s3')\nb = 'vend-production-templates-123456789012-eu-central-1'\n\
         print([o['Key'] for o in s3.list_objects_v2(Bucket=b)['Contents'] if o['Key'].startswith('receiver/')][0])",
    );
    let code = fs::read_dir(world.path().join("out/receiver"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(key.ends_with(code.file_name().to_str().unwrap()), "{key}");
}

/// What the script's question says when `aws` does this, and whether it ends the script.
fn asked(script: &str, aws: &str) -> (String, bool) {
    let begin = script.find("is_open() {").unwrap();
    let end = begin + script[begin..].find("\n}\n").unwrap();
    let text = format!(
        "set -eu\naws() {{ {aws}; }}\n{}\n}}\nsaid=$(is_open s)\necho \"$said\"\n",
        &script[begin..end]
    );
    let done = Command::new("sh").arg("-c").arg(text).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    (said.trim().to_owned(), !done.status.success())
}

/// Runs a script with the command line of AWS.
fn runs(world: &World, script: &str) {
    let bin = world.python.parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // moto finds a template in a bucket by this name of the machine only.
    let endpoint = world.endpoint.replace("127.0.0.1", "localhost");
    let done = Command::new("sh")
        .arg(script)
        .current_dir(world.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", world.path())
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "not-to-be-seen")
        .env("BUCKET", "first")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", said(&done));
}
