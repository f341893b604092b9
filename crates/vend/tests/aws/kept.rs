//! What a destruction kept is neither forgotten nor doubled by the next apply.

use super::{FOUNDATION, STACKS, World};

#[test]
fn what_was_kept_is_said_before_a_second_is_made() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    world.good(&["unprotect"]);
    let said = world.good(&["destroy", "--yes", "--keep-data"]);
    assert!(
        said.contains("docs/aws.md, \"What was kept\"") && said.contains("to delete it: vend aws destroy"),
        "{said}"
    );
    assert!(!said.contains("next: vend aws destroy"), "{said}");
    // Who has lost that answer gets it again.
    let kept = |said: &str| {
        let own = said.lines().filter(|line| line.starts_with("kept: "));
        own.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let again = world.good(&["destroy", "--yes", "--keep-data"]);
    assert!(
        kept(&said).len() >= 4 && kept(&again) == kept(&said),
        "{said}\n{again}"
    );
    let stacks = || world.python("print(len(client('cloudformation').describe_stacks()['Stacks']))");
    let plan = world.json(&["plan"]);
    let own = plan["stacks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|own| own["stack"] == "vend-production")
        .unwrap();
    let kept: Vec<&str> = own["kept"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["physical"].as_str().unwrap())
        .collect();
    assert!(
        kept.contains(&"vend-production-artifacts-123456789012-eu-central-1"),
        "{own}"
    );
    assert_eq!(
        (own["doing"].as_str(), own.get("kept_unknown")),
        (Some("create"), None),
        "{own}"
    );
    let said = world.good(&["plan"]);
    assert!(
        said.contains("kept by an earlier destruction: vend-production-artifacts-123456789012-eu-central-1"),
        "{said}"
    );
    let again = ["apply", "--yes", "--only", "vend-production"];
    let (code, said) = world.bad(&again);
    assert_eq!((code, stacks().as_str()), (3, "0"), "{said}");
    for part in [
        "vend-production-logs-123456789012-eu-central-1 (AWS::S3::Bucket)",
        "(AWS::Route53::HostedZone): `zone` of aws.toml takes it",
        "vend aws destroy",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Nobody agrees to a bucket of a name that is taken, and a zone that the files name is no second one.
    world.write("aws.toml", &format!("{FOUNDATION}zone = \"Z0123456789\"\n"));
    let (code, said) = world.bad(&["apply", "--yes", "--anew", "--only", "vend-production"]);
    assert!(
        code == 3 && !said.contains("HostedZone") && said.contains("S3::Bucket"),
        "{said}"
    );
    // It goes when somebody says so, although no stack does.
    let (code, said) = world.bad(&["destroy"]);
    assert!(
        code == 2 && said.contains("goes: vend-production-logs-123456789012-eu-central-1 (AWS::S3::Bucket)"),
        "{said}"
    );
    assert!(!said.contains("AWS::KMS::Key"), "{said}");
    // What is taken away hinders nobody. moto forgets to delete policies, so the stack itself is not made there.
    world.good(&["destroy", "--yes"]);
    let (code, said) = world.bad(&again);
    assert!(code == 1 && !said.contains("earlier destruction"), "{said}");
}

/// moto imports nothing: a stack that holds what was kept, and nothing else, stands for one that took it back.
#[test]
fn a_stack_that_took_back_what_was_kept_gets_the_rest() {
    let Some(world) = World::new() else { return };
    world.good(&["synth", ".", "--out", "out"]);
    let made = world.python(&format!(
        "import pathlib\n\
         body = pathlib.Path('{}').read_text()\n\
         c = client('cloudformation')\n\
         c.create_stack(StackName='vend-production', TemplateBody=body)\n\
         print(sorted(r['LogicalResourceId'] for r in c.list_stack_resources(StackName='vend-production')['StackResourceSummaries']))",
        world.path().join("out/kept/vend-production.yaml").display()
    ));
    assert_eq!(
        made,
        "['ArtifactsBucket', 'Key', 'LogsBucket', 'TemplatesBucket', 'Zone']"
    );
    let plan = world.json(&["plan", "--only", "vend-production"]);
    assert_eq!(plan["stacks"][0]["doing"], "change", "{plan}");
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    assert_eq!(world.status(STACKS[0])["doing"]["doing"], "nothing");
}

#[test]
fn no_empty_database_stands_beside_the_last_snapshot_in_silence() {
    let Some(world) = World::new() else { return };
    let app = "app: shop\nhost: { port: 8080, size: small }\ndatabase: { engine: mariadb }\nenvironments:\n  production: { branch: main }\n";
    world.write("vend.yaml", app);
    world.good(&["apply", "--yes", "--only", "vend-production"]);
    let snapshot = |name: &str| {
        world.python(&format!(
            "r = client('rds')\n\
             if not r.describe_db_instances()['DBInstances']: r.create_db_instance(DBInstanceIdentifier='old', DBInstanceClass='db.t4g.small', Engine='mariadb', EngineVersion='11.4', AllocatedStorage=20, MasterUsername='a', MasterUserPassword='not-known')\n\
             r.create_db_snapshot(DBSnapshotIdentifier='{name}', DBInstanceIdentifier='old')"
        ))
    };
    let stack = "vend-production-shop-production";
    // Of another repository's stack, whose name goes on from this one's, and one that a person made.
    snapshot(&format!("{stack}-eu-snapshot-database-other"));
    snapshot(&format!("{stack}-by-hand-other"));
    let kept = format!("{stack}-snapshot-database-1");
    snapshot(&kept);
    let (code, said) = world.bad(&["apply", "--yes", "--only", stack]);
    assert!(
        code == 3 && said.contains(&format!("{kept} (snapshot)")),
        "{said}"
    );
    assert!(
        said.contains(&format!("vend aws apply --only {stack} --anew: ")) && !said.contains("-other"),
        "{said}"
    );
    assert_eq!(world.status(stack)["status"], serde_json::Value::Null);
    world.good(&["apply", "--yes", "--anew", "--only", stack]);
    assert_eq!(world.status(stack)["doing"]["doing"], "nothing");
    // It is there now, and an older one's snapshot hinders no change of it.
    world.good(&["apply", "--yes", "--only", stack]);
    // And it is told when all is gone, with what ends it.
    world.good(&["unprotect"]);
    let said = world.good(&["destroy", "--yes"]);
    assert!(said.contains(&format!("stays: snapshot {kept}")), "{said}");
    let end = format!("aws rds delete-db-snapshot --region eu-central-1 --db-snapshot-identifier {kept}");
    assert!(said.contains(&end) && !said.contains("-other"), "{said}");
}

/// A zone that the account has not asked for, or that there is not.
#[test]
fn a_zone_that_is_not_the_accounts_is_bad() {
    let Some(world) = World::new() else { return };
    let zone = "network = { local_zones = [\"us-west-2-lax-1a\"] }\n";
    let text = FOUNDATION.replace("eu-central-1", "us-west-2");
    let own = "[apps.shop.environments.production]\ndedicated_balancer = true\nplacement = { local_zone = \"us-west-2-lax-1a\" }\n";
    world.write("aws.toml", &format!("{text}{zone}{own}"));
    let done = world.vend(&["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let all = checks[0]["checks"].as_array().unwrap();
    let zones = all.iter().find(|own| own["what"] == "zones").unwrap();
    assert!(!done.status.success() && zones["verdict"] == "bad", "{checks:#}");
    assert!(
        zones["said"].as_str().unwrap().contains("us-west-2-lax-1a"),
        "{zones}"
    );
}

/// Ports of an app's own, as the program makes them.
#[test]
fn ports_have_their_load_balancer() {
    let Some(world) = World::new() else { return };
    let app = "app: shop\nhost: { port: 8080, size: small }\nlisteners:\n  - { protocol: tcp, port: 5514 }\n  - { protocol: udp, port: 5514, idle: 30s }\nenvironments:\n  production: { branch: main }\n";
    world.write("vend.yaml", app);
    let said = world.good(&["plan"]);
    assert!(said.contains("`idle` is 120 s for every UDP flow"), "{said}");
    world.good(&["apply", "--yes"]);
    let made = world.python(
        "e = client('elbv2')\n\
         own = [x for x in e.describe_load_balancers()['LoadBalancers'] if x['Type'] == 'network']\n\
         all = e.describe_listeners(LoadBalancerArn=own[0]['LoadBalancerArn'])['Listeners']\n\
         print(len(own), [(x['Port'], x['Protocol'], len(x['DefaultActions'][0]['ForwardConfig']['TargetGroups'])) for x in all])",
    );
    assert_eq!(made, "1 [(5514, 'TCP_UDP', 2)]");
    let outputs = world.good(&["outputs"]);
    assert!(
        outputs.contains("udp-5514.shop-production.apps.example.com:5514"),
        "{outputs}"
    );
}

/// Somebody asked for a change set of type CREATE, and went.
#[test]
fn a_stack_that_was_only_named_is_made() {
    let Some(world) = World::new() else { return };
    world.python(
        "client('cloudformation').create_change_set(StackName='vend-production', ChangeSetName='c', ChangeSetType='CREATE', \
         TemplateBody='{\"Resources\": {\"T\": {\"Type\": \"AWS::SNS::Topic\"}}}')",
    );
    let line = world.status(STACKS[0]);
    assert_eq!(line["status"], "REVIEW_IN_PROGRESS", "{line}");
    world.good(&["apply", "--yes", "--only", STACKS[0]]);
    assert_eq!(world.status(STACKS[0])["doing"]["doing"], "nothing");
}

/// CloudFormation's sentence says only that a validation failed.
#[test]
fn a_change_that_is_refused_is_said_by_resources_and_not_begun() {
    let Some(world) = World::new() else { return };
    let own = ["apply", "--yes", "--only", STACKS[0]];
    world.good(&own);
    world.write("aws.toml", &format!("{FOUNDATION}firewall = true\n"));
    let parameter = "p = client('ssm')\n";
    world.python(&format!(
        "{parameter}p.put_parameter(Name='/test/refused', Value='Firewall', Type='String')"
    ));
    let (code, said) = world.bad(&["plan", "--only", STACKS[0]]);
    assert!(
        code == 1 && said.contains("cannot be changed so: Firewall: it exists already"),
        "{said}"
    );
    let (code, said) = world.bad(&own);
    assert!(
        code == 1 && said.contains("nothing was changed") && said.contains("Firewall: it exists already"),
        "{said}"
    );
    world.python(&format!("{parameter}p.delete_parameter(Name='/test/refused')"));
    world.good(&own);
}
