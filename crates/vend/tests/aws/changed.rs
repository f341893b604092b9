//! What stands is changed: by the files, and by somebody's hand.

use serde_json::Value;

use super::{FOUNDATION, STACKS, World};

/// The size of an environment, its releases and who pushes what where: a change of each of its stacks, and of no other.
#[test]
fn what_the_files_change_is_changed_where_it_stands() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes"]);
    let seen = || {
        let seen = world.python(
            "s, e, d = client('stepfunctions'), client('ec2'), client('cloudformation')\n\
             f = 'arn:aws:states:eu-central-1:123456789012:stateMachine:vend-flow-production-shop-production'\n\
             ids = {x['StackName']: x['StackId'] for x in d.describe_stacks()['Stacks']}\n\
             latest = lambda t: e.describe_launch_template_versions(LaunchTemplateId=t, Versions=['$Latest'])['LaunchTemplateVersions'][0]\n\
             types = sorted(latest(t['LaunchTemplateId'])['LaunchTemplateData']['InstanceType'] for t in e.describe_launch_templates()['LaunchTemplates'])\n\
             machines = sorted(m['name'] for m in s.list_state_machines()['stateMachines'])\n\
             print(json.dumps([types, machines, s.describe_state_machine(stateMachineArn=f)['definition'], ids]))",
        );
        serde_json::from_str::<Value>(&seen).unwrap()
    };
    let before = seen();
    world.write(
        "vend.yaml",
        "app: shop\nhost: { port: 8080, size: medium }\nenvironments:\n  production: { branch: main, approval: {}, \
         scaling: { min: 1, max: 2 } }\n  preview: { branches: 'feature/*' }\n",
    );
    let plan = world.json(&["plan"]);
    let doing: Vec<&str> = plan["stacks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["doing"].as_str().unwrap())
        .collect();
    assert_eq!(doing, ["nothing", "change", "change", "change"]);
    world.good(&["apply", "--yes"]);
    let after = seen();
    let of_size = |size: &str| Value::from(vec![format!("t4g.{size}"); 2]);
    assert_eq!((&before[0], &after[0]), (&of_size("small"), &of_size("medium")));
    let branches = Value::from("vend-pipeline-production-shop-branches");
    for (seen, has) in [(&before, false), (&after, true)] {
        assert_eq!(seen[1].as_array().unwrap().contains(&branches), has);
        assert_eq!(seen[2].as_str().unwrap().contains("waitForTaskToken"), has);
    }
    assert_eq!(after[3], before[3], "the stacks are the same ones");
    for name in STACKS {
        assert_eq!(world.status(name)["doing"]["doing"], "nothing", "{name}");
    }
    // And back: what goes takes its logs along, and that is asked for by name.
    world.write(
        "vend.yaml",
        "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main, scaling: { min: 1, max: 2 } }\n",
    );
    let (code, said) = world.bad(&["apply", "--yes"]);
    let lose = ["--lose", "BranchesLogGroup", "--lose", "BranchMachineLogGroup"];
    assert!(
        code == 3 && said.contains(&format!("next:  vend aws apply {}", lose.join(" "))),
        "{said}"
    );
    assert_eq!(seen(), after);
    world.good(&[&["apply", "--yes"], &lose[..]].concat());
    assert_eq!(seen(), before);
}

#[test]
fn what_somebody_changed_by_hand_is_shown() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes"]);
    let said = world.good(&["drift"]);
    assert_eq!(said.matches("IN_SYNC").count(), STACKS.len(), "{said}");
    world.python(
        "s3 = client('s3')\nb = 'vend-production-artifacts-123456789012-eu-central-1'\n\
         s3.put_bucket_versioning(Bucket=b, VersioningConfiguration={'Status': 'Suspended'})\n\
         s3.delete_bucket(Bucket='vend-production-logs-123456789012-eu-central-1')\n\
         logs = client('logs')\n\
         logs.put_retention_policy(logGroupName='/vend/production/shop/production', retentionInDays=1)\n\
         logs.delete_log_group(logGroupName='/vend/production/shop/build')",
    );
    let (code, said) = world.bad(&["drift"]);
    assert_eq!(code, 1, "{said}");
    for line in [
        "vend-production  DRIFTED",
        "ArtifactsBucket (AWS::S3::Bucket) MODIFIED",
        "/VersioningConfiguration/Status: the template says Enabled, it is Suspended",
        "LogsBucket (AWS::S3::Bucket) DELETED",
        "vend-production-shop-production  DRIFTED",
        "LogGroup (AWS::Logs::LogGroup) MODIFIED",
        "/RetentionInDays: the template says 90, it is 1",
        "vend-pipeline-production-shop  DRIFTED",
        "(AWS::Logs::LogGroup) DELETED",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let done = world.vend(&["drift", "--json"]);
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    let counts: Vec<usize> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["resources"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [2, 1, 1, 0], "{found}");
}

/// A role of a foundation is taken with the id that its owner asked for.
#[test]
fn a_role_is_taken_with_its_external_id() {
    let Some(world) = World::new() else { return };
    let access = "access = { role = \"arn:aws:iam::222222222222:role/deploy\", external_id = \"of-the-agency\" }\ndomain";
    world.write("aws.toml", &FOUNDATION.replace("domain", access));
    let checks = world.json(&["doctor"]);
    let said = checks[0]["checks"][0]["said"].as_str().unwrap();
    assert!(said.contains("222222222222:assumed-role/deploy/"), "{said}");
    let taken = std::fs::read_to_string(world.path().join("calls.roles")).unwrap();
    assert!(
        !taken.is_empty() && taken.lines().all(|id| id == "of-the-agency"),
        "{taken}"
    );
}
