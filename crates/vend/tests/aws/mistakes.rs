//! What is mistyped, forgotten or asked for twice: each is said with what to do, and nothing is done by it.

use std::process::Command;

use serde_json::Value;

use super::{FOUNDATION, STACKS, World};

#[test]
fn a_foundation_does_not_move_to_another_region() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes", "--only", STACKS[0]]);
    world.write("aws.toml", &FOUNDATION.replace("eu-central-1", "eu-west-1"));
    let (code, said) = world.bad(&["plan"]);
    assert!(
        code == 1 && said.contains("stands in another region of the account"),
        "{said}"
    );
    let (_, said) = world.bad(&["apply", "--yes"]);
    assert!(said.contains("nothing was changed"), "{said}");
    for command in [&["status"][..], &["destroy", "--yes"]] {
        let said = world.good(command);
        assert!(
            said.contains("note vend-production: it is not there, and its roles are"),
            "{said}"
        );
    }
    let there = "print(len(boto3.client('cloudformation', endpoint_url=sys.argv[1], region_name='eu-west-1', \
                 aws_access_key_id='x', aws_secret_access_key='y').describe_stacks()['Stacks']))";
    assert_eq!(world.python(there), "0");
    // It is not taken for the one of its name that stands there, where other foundations of the file stand too.
    let other = "[foundations.other]\nregion = \"eu-central-1\"\ndomain = \"o.example.com\"\nnetwork = { cidr = \"10.9.0.0/16\" }\n\
         [apps.shop]\npipeline = \"production\"\n";
    let moved = FOUNDATION.replace("eu-central-1", "eu-west-1");
    world.write("aws.toml", &format!("{moved}{other}"));
    let (code, said) = world.bad(&["plan"]);
    assert!(
        code == 1 && said.contains("stands in another region of the account"),
        "{said}"
    );
    assert_eq!(world.status(STACKS[0])["status"], Value::Null);
}

#[test]
fn what_is_mistyped_is_said() {
    let Some(world) = World::new() else { return };
    let (code, said) = world.bad(&["apply", "--yes", "--shared", "vend-prodution"]);
    assert!(
        code == 4 && said.contains("no stack of a foundation") && said.contains("these are: vend-production"),
        "{said}"
    );
    let (code, said) = world.bad(&["plan", "--only", "vend-old"]);
    assert!(
        code == 4 && said.contains("vend aws destroy --gone --only STACK"),
        "{said}"
    );
    // A command that takes all branches' away is no answer to a mistyped one.
    let (code, said) = world.bad(&["destroy", "--yes", "--branch", "feature/x"]);
    assert!(
        code == 4 && said.contains("vend aws status") && !said.contains("--branches"),
        "{said}"
    );
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        let own = ["-c", "user.name=A", "-c", "user.email=a@example.com"];
        let done = git.arg("-C").arg(world.path()).args(own).args(arguments).output();
        assert!(done.unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "vend.yaml"]);
    git(&["commit", "--quiet", "--message", "one"]);
    for command in [
        &["push", "--commit", "zzz"][..],
        &["rollback", "production", "--yes", "--to", "zzz"],
    ] {
        let (code, said) = world.bad(command);
        assert!(code == 4 && said.contains("no commit `zzz`"), "{said}");
    }
    world.write("aws.toml", "[foundations.production\n");
    let (code, said) = world.bad(&["plan"]);
    assert!(code == 2 && said.contains("\"Options\""), "{said}");
}

#[test]
fn what_is_forgotten_or_done_already_is_said() {
    let Some(world) = World::new() else { return };
    world.write(
        "appspec.yml",
        "version: 0.0\nos: linux\nhooks:\n  AfterInstall: [{ location: set-up.sh }]\n",
    );
    world.write("buildspec.yml", "version: 0.2\nphase: {}\n");
    for said in [world.good(&["plan"]), world.good(&["synth", "--out", "out"])] {
        for note in [
            "note appspec.yml:4:30: `set-up.sh` is not in the repository",
            "note buildspec.yml:2:1: ",
        ] {
            assert!(said.lines().any(|line| line.starts_with(note)), "{said}");
        }
    }
    let plan = world.json(&["plan"]);
    assert!(plan["notes"].to_string().contains("set-up.sh"), "{plan}");
    let said = world.good(&["apply", "--yes", "--lose", "Databse"]);
    assert!(
        said.contains("note --lose Databse: nothing of that name would be lost"),
        "{said}"
    );
    let said = world.good(&["continue", STACKS[2]]);
    assert!(said.contains("there is nothing to continue"), "{said}");
    let done = world.json(&["retire", "production", "--yes"]);
    assert_eq!(done["done"], "nothing", "{done}");
    // A push that is suggested for one environment goes into that.
    let said = world.good(&["hosts", "--environment", "production"]);
    assert!(
        said.contains("next: vend aws push --environment production"),
        "{said}"
    );
    let said = world.good(&["releases", "--environment", "production"]);
    assert!(
        said.contains("next: vend aws push --environment production"),
        "{said}"
    );
    let (code, said) = world.bad(&["plan", "nowhere"]);
    assert!(
        code == 4 && said.contains("there is no directory nowhere"),
        "{said}"
    );
    assert!(world.good(&["unprotect"]).contains("not protected any more"));
    let said = world.good(&["unprotect"]);
    assert!(said.contains("is not protected, and was not"), "{said}");
    // Nothing would be left for its flow to release into.
    let said = world.good(&["destroy", "--yes", "--only", STACKS[2]]);
    let flow = STACKS[3];
    assert!(
        said.contains(&format!("stays: {flow}, although"))
            && said.contains(&format!("(--only {flow} takes it, too)")),
        "{said}"
    );
    let said = world.good(&["destroy", "--yes", "--only", flow]);
    assert!(!said.contains("stays: vend"), "{said}");
}
