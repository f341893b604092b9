//! Guard rules of ours (`invariants.guard`), over every stack of the matrix, and over templates that break them one by one.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    matrix::matrix,
    tools::{directory, program, run},
};

/// Prints the file and the rule of everything that does not hold, and at the end how many files there were.
const SCRIPT: &str = "import sys, json, pathlib\n\
    from cfn_guard_rs import run_checks\n\
    rules = open(sys.argv[2]).read()\n\
    files = sorted(pathlib.Path(sys.argv[1]).glob('*.json'))\n\
    for file in files:\n\
    \x20   report = run_checks(json.loads(file.read_text()), rules)\n\
    \x20   for own in report.not_compliant: print(file.stem, own.Rule.name)\n\
    print(len(files))\n";

/// File and rule of what does not hold in a directory of templates; none where Guard is not there.
fn broken(directory: &Path, count: usize) -> Option<BTreeSet<String>> {
    let python = program("clients/bin/python")?;
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/synth/invariants.guard");
    let said = run(Command::new(python)
        .args(["-c", SCRIPT])
        .arg(directory)
        .arg(rules));
    let mut lines: BTreeSet<String> = said.lines().map(str::to_owned).collect();
    assert!(lines.remove(&count.to_string()), "{said}");
    Some(lines)
}

#[test]
fn guard_finds_nothing() {
    let directory = directory("guard");
    for stack in matrix() {
        fs::write(
            directory.join(format!("{}.json", stack.name)),
            stack.template.json(),
        )
        .unwrap();
    }
    let broken = broken(&directory, matrix().len());
    assert!(broken.is_none_or(|broken| broken.is_empty()));
}

/// What breaks each rule: its name, a stack, where in its resources, and what stands there instead; nothing, where it is null.
fn breaks() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let (all, shop, dev, pipeline) = (
        "vend-production",
        "vend-production-shop-production",
        "vend-integration-shop-dev",
        "vend-pipeline-integration-shop",
    );
    let world = || json!([{ "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "0.0.0.0/0" }]);
    vec![
        (
            "buckets_are_encrypted_and_never_public",
            all,
            "/LogsBucket/Properties/PublicAccessBlockConfiguration/BlockPublicAcls",
            json!(false),
        ),
        (
            "topics_are_encrypted",
            all,
            "/OperationsTopic/Properties/KmsMasterKeyId",
            Value::Null,
        ),
        (
            "logs_are_encrypted",
            shop,
            "/LogGroup/Properties/KmsKeyId",
            Value::Null,
        ),
        (
            "trails_are_encrypted_and_validated",
            all,
            "/Trail/Properties/EnableLogFileValidation",
            json!(false),
        ),
        (
            "keys_rotate",
            all,
            "/Key/Properties/EnableKeyRotation",
            json!(false),
        ),
        (
            "roles_are_inside_the_boundary",
            all,
            "/StacksRole/Properties/PermissionsBoundary",
            Value::Null,
        ),
        (
            "nobody_has_keys",
            all,
            "/Gateway/Type",
            json!("AWS::IAM::AccessKey"),
        ),
        (
            "no_subnet_gives_public_addresses",
            all,
            "/PublicSubnetA/Properties/MapPublicIpOnLaunch",
            json!(true),
        ),
        (
            "the_world_reaches_two_ports",
            all,
            "/BalancerGroup/Properties/SecurityGroupIngress",
            world(),
        ),
        (
            "the_world_reaches_declared_ports",
            shop,
            "/PortsGroup/Properties/SecurityGroupIngress",
            world(),
        ),
        (
            "the_world_reaches_load_balancers_only",
            dev,
            "/DataGroup/Properties/SecurityGroupIngress",
            world(),
        ),
        (
            "the_world_reaches_no_host",
            dev,
            "/HostGroup/Properties/SecurityGroupIngress",
            world(),
        ),
        (
            "disks_are_encrypted_and_metadata_is_by_session",
            dev,
            "/BlueLaunch/Properties/LaunchTemplateData/MetadataOptions/HttpTokens",
            json!("optional"),
        ),
        (
            "databases_are_never_public",
            dev,
            "/Database/Properties/PubliclyAccessible",
            json!(true),
        ),
        (
            "databases_are_encrypted",
            dev,
            "/Database/Properties/StorageEncrypted",
            json!(false),
        ),
        (
            "clusters_are_encrypted",
            shop,
            "/DatabaseCluster/Properties/StorageEncrypted",
            json!(false),
        ),
        (
            "tables_are_encrypted",
            pipeline,
            "/Table/Properties/SSESpecification/SSEType",
            json!("AES256"),
        ),
        (
            "secrets_are_encrypted",
            pipeline,
            "/WebhookSecret/Properties/KmsKeyId",
            Value::Null,
        ),
        (
            "builds_are_encrypted",
            pipeline,
            "/Build/Properties/EncryptionKey",
            Value::Null,
        ),
        (
            "images_are_encrypted",
            pipeline,
            "/Repository/Properties/EncryptionConfiguration/KmsKey",
            Value::Null,
        ),
        (
            "the_world_finds_one_port_at_a_time",
            all,
            "/BalancerGroup/Properties/SecurityGroupIngress",
            json!([{ "IpProtocol": "-1", "FromPort": 443, "ToPort": 443, "CidrIp": "0.0.0.0/0" }]),
        ),
        (
            "the_world_has_no_other_addresses",
            all,
            "/BalancerGroup/Properties/SecurityGroupIngress",
            json!([{ "IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIpv6": "::/0" }]),
        ),
        (
            "no_opening_is_for_the_world",
            all,
            "/Gateway",
            json!({ "Type": "AWS::EC2::SecurityGroupIngress", "Properties": { "CidrIpv6": "::/0" } }),
        ),
    ]
}

/// Every rule of the file has something that breaks it.
#[test]
fn every_rule_is_seen_to_break() {
    let rules = include_str!("invariants.guard").lines();
    let rules: BTreeSet<&str> = rules
        .filter_map(|line| line.strip_prefix("rule ")?.split_whitespace().next())
        .collect();
    let broken: BTreeSet<&str> = breaks().into_iter().map(|(rule, ..)| rule).collect();
    assert_eq!(rules, broken);
}

#[test]
fn guard_finds_what_breaks_a_rule() {
    let directory = directory("guard-broken");
    let breaks = breaks();
    for (rule, name, at, instead) in &breaks {
        let stack = matrix().iter().find(|own| own.name == *name).unwrap();
        let mut template: Value = serde_json::from_str(&stack.template.json()).unwrap();
        let (parent, key) = at.rsplit_once('/').unwrap();
        let parent = template["Resources"]
            .pointer_mut(parent)
            .and_then(Value::as_object_mut);
        let parent = parent.unwrap_or_else(|| panic!("{name} has no {at}"));
        assert!(parent.contains_key(key), "{name} has no {at}");
        match instead {
            Value::Null => drop(parent.remove(key)),
            instead => drop(parent.insert(key.to_owned(), instead.clone())),
        }
        fs::write(directory.join(format!("{rule}.json")), template.to_string()).unwrap();
    }
    let Some(broken) = broken(&directory, breaks.len()) else {
        return;
    };
    for (rule, ..) in &breaks {
        assert!(broken.contains(&format!("{rule} {rule}")), "{rule}: {broken:?}");
    }
}
