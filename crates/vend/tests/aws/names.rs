//! A name that came before a rule against it: what stands with it goes on and can go, and what is new is refused.

use serde_json::Value;

use super::{FOUNDATION, STACKS, World};

const EU: &str = "[foundations.production-eu]\nregion = \"eu-central-1\"\ndomain = \"eu.example.com\"\nnetwork = { cidr = \"10.7.0.0/16\" }\n";
const BESIDE: &str = "[foundations.production]\nregion = \"eu-central-1\"\ndomain = \"apps.example.com\"\n\
     [apps.shop]\npipeline = \"production-eu\"\n[apps.shop.environments.production]\nfoundation = \"production-eu\"\n\
     [apps.shop.environments.build]\nfoundation = \"production-eu\"\n";

#[test]
fn an_environment_that_is_refused_keeps_nobody_from_what_stands() {
    let Some(world) = World::new() else { return };
    world.good(&["apply", "--yes"]);
    let wrong = "[apps.shop.environments.production]\nscaling = { warm = 1, spot = 1 }\n";
    world.write("aws.toml", &format!("{FOUNDATION}{wrong}"));
    for command in ["plan", "doctor"] {
        let (code, said) = world.bad(&[command]);
        assert!(code == 3 && said.contains("scaling.warm"), "{said}");
    }
    let said = world.good(&["status"]);
    assert!(said.contains("the files of `production` are refused"), "{said}");
    for name in STACKS {
        let doing = &world.status(name)["doing"]["doing"];
        let is_there = name == STACKS[0];
        assert_eq!(doing, if is_there { "nothing" } else { "refused" }, "{name}");
    }
    assert!(world.good(&["outputs"]).contains(STACKS[2]));
    // What is done with what stands goes on: by hand it is brought back, approved, looked at.
    for command in ["hosts", "releases"] {
        assert!(world.good(&[command]).contains("production"), "{command}");
    }
    // It is not gone from the files.
    let said = world.good(&["destroy", "--gone", "--yes"]);
    assert!(said.contains("0 stacks destroyed"), "{said}");
    world.good(&["unprotect"]);
    let (_, said) = world.bad(&["destroy", "--yes", "--only", "vend-production-shop-prodution"]);
    assert!(
        said.contains("there is no stack") && said.contains(STACKS[2]),
        "{said}"
    );
    let said = world.good(&["destroy", "--yes", "--keep-data"]);
    for name in STACKS {
        assert!(said.contains(&format!("goes: {name}\n")), "{said}");
    }
    // What its stack left and nobody takes away is told.
    world.python(
        "rds = client('rds')\n\
         rds.create_db_instance(DBInstanceIdentifier='d', DBInstanceClass='db.t4g.micro', Engine='mysql', MasterUsername='u', \
         MasterUserPassword='password', AllocatedStorage=20)\n\
         rds.create_db_snapshot(DBInstanceIdentifier='d', \
         DBSnapshotIdentifier='vend-production-shop-production-snapshot-database-1k3jx0q2mz7a')\n\
         for own in ('shop-production', 'shop-production-eu'):\n  \
           name = f'vend-production-{own}-database-1k3jx0q2mz7a'\n  \
           rds.create_db_instance(DBInstanceIdentifier=name, DBInstanceClass='db.t4g.micro', Engine='mysql', MasterUsername='u', \
           MasterUserPassword='password', AllocatedStorage=20, BackupRetentionPeriod=7)\n  \
           rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True, DeleteAutomatedBackups=False)\n  \
           client('logs').create_log_group(logGroupName=f'/aws/rds/instance/{name}/error')",
    );
    let said = world.good(&["destroy", "--yes"]);
    let database = "vend-production-shop-production-database-1k3jx0q2mz7a";
    let group = format!("/aws/rds/instance/{database}/error");
    for told in [
        format!("stays: backup {database}"),
        "  ends with: aws rds delete-db-instance-automated-backup --region eu-central-1 --dbi-resource-id "
            .to_owned(),
        format!("stays: log-group {group}"),
        format!("  ends with: aws logs delete-log-group --region eu-central-1 --log-group-name {group}"),
    ] {
        assert!(said.contains(&told), "{told}: {said}");
    }
    assert!(!said.contains("shop-production-eu"), "{said}");
    assert!(
        said.contains("stays: snapshot vend-production-shop-production-snapshot-database-1k3jx0q2mz7a"),
        "{said}"
    );
}

/// What stands and is in no file any more is called by its name as well: one environment goes, and the others stay protected.
#[test]
fn what_the_files_do_not_have_any_more_goes_by_its_name() {
    let Some(world) = World::new() else { return };
    world.write(
        "vend.yaml",
        "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main }\n  staging: { branch: next }\n",
    );
    let staging = "vend-production-shop-staging";
    world.good(&["apply", "--yes"]);
    world.write(
        "vend.yaml",
        "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main }\n",
    );
    world.good(&["protect"]);
    let (code, said) = world.bad(&["unprotect", "--only", "vend-production-shop-stagin"]);
    assert!(code == 4 && said.contains(staging), "{said}");
    // A plan names it, and what takes it away.
    let plan = world.json(&["plan"]);
    assert_eq!(plan["standing"].as_array().unwrap().len(), 2, "{plan}");
    let own = plan["standing"].as_array().unwrap().iter();
    let own = own.clone().find(|own| own["stack"] == staging).unwrap();
    assert_eq!(
        (&own["why"], &own["status"], &own["next"]),
        (
            &"no-file".into(),
            &"CREATE_COMPLETE".into(),
            &format!("vend aws destroy --gone --only {staging}").into()
        )
    );
    let said = world.good(&["plan"]);
    assert!(
        said.contains(&format!(
            "{staging}  in no file any more, and stays as it is (vend aws destroy --gone --only {staging} takes it away)"
        )),
        "{said}"
    );
    assert_eq!(
        world.json(&["plan", "--only", STACKS[0]])["standing"],
        serde_json::json!([])
    );
    world.good(&["unprotect", "--only", staging]);
    let said = world.good(&["destroy", "--yes", "--only", staging]);
    assert!(said.contains("1 stacks destroyed"), "{said}");
    assert_eq!(world.status(STACKS[2])["is_protected"], true);
    assert_eq!(world.status(STACKS[0])["is_protected"], true);
}

/// Whoever has the wrong profile set builds nothing there, and takes nothing away.
#[test]
fn credentials_of_another_account_do_nothing() {
    let Some(world) = World::new() else { return };
    let wrong = FOUNDATION.replace("domain", "account = \"999999999999\"\ndomain");
    world.write("aws.toml", &wrong);
    let refused = |command: &[&str]| {
        let (code, said) = world.bad(command);
        let told = said.contains("123456789012") && said.contains("999999999999");
        assert!(code == 3 && told, "{command:?}: {code} {said}");
    };
    refused(&["plan"]);
    refused(&["apply", "--yes"]);
    world.write("aws.toml", &wrong.replace("999999999999", "123456789012"));
    world.good(&["apply", "--yes"]);
    world.good(&["unprotect"]);
    world.write("aws.toml", &wrong);
    refused(&["destroy", "--yes"]);
    // Nor do those that go by the app's environments, which look at no stack first.
    refused(&["secrets", "list", "production"]);
    let done = world.hearing(&["secrets", "set", "production", "api-key"], "not for them");
    assert_eq!(done.status.code(), Some(3));
    assert_eq!(
        world.python("print(client('secretsmanager').list_secrets()['SecretList'])"),
        "[]"
    );
    refused(&["rollback", "production", "--yes"]);
    refused(&["logs", "production"]);
    refused(&["releases"]);
    // Where the app has nothing of its own nobody's credentials are looked at.
    let other = "[foundations.other]\nregion = \"eu-central-1\"\naccount = \"999999999999\"\ndomain = \"o.example.com\"\n\
         network = { cidr = \"10.9.0.0/16\" }\n[apps.shop]\npipeline = \"production\"\n";
    world.write("aws.toml", &format!("{FOUNDATION}{other}"));
    world.good(&["releases"]);
    world.write("aws.toml", &wrong);
    assert_eq!(
        world
            .python("print(len(client('cloudformation').describe_stacks()['Stacks']))")
            .trim(),
        "4"
    );
}

#[test]
fn a_name_that_is_given_no_more_locks_nobody_out_of_what_stands() {
    let Some(world) = World::new() else { return };
    world.write("aws.toml", EU);
    world.good(&["apply", "--yes", "--only", "vend-production-eu"]);
    // Each of these names is refused to what is new.
    world.write("aws.toml", &format!("{EU}{BESIDE}"));
    world.write(
        "vend.yaml",
        "app: shop\nhost: { port: 8080, size: small }\nenvironments:\n  production: { branch: main }\n  build: { branch: none }\n",
    );
    let plan = world.json(&["plan"]);
    let doing = |all: &Value, name: &str| {
        let mut all = all["stacks"].as_array().unwrap().iter();
        all.find(|own| own["stack"] == name).unwrap()["doing"].clone()
    };
    assert_eq!(doing(&plan, "vend-production-eu"), "nothing");
    assert_eq!(doing(&plan, "vend-production"), "refused");
    assert_eq!(doing(&plan, "vend-production-eu-shop-build"), "refused");
    assert_eq!(doing(&plan, "vend-production-eu-shop-production"), "create");
    let said = world.good(&["plan"]);
    assert!(
        said.contains("note vend-production-eu: it stands and goes on"),
        "{said}"
    );
    let out = world.path().join("out");
    let said = world.good(&["synth", "--out", out.to_str().unwrap()]);
    assert!(
        said.contains("refused vend-production, unless it is there already"),
        "{said}"
    );
    let (code, said) = world.bad(&["apply", "--yes"]);
    assert!(
        code == 3
            && said.contains("vend-production: stacks of `production-eu` begin")
            && said.contains("--only"),
        "{said}"
    );
    // What stands is looked at, changed and destroyed as before.
    world.good(&["apply", "--yes", "--only", "vend-production-eu"]);
    assert_eq!(world.status("vend-production-eu")["doing"]["doing"], "nothing");
    assert_eq!(world.status("vend-production")["doing"]["doing"], "refused");
    assert!(world.good(&["outputs"]).contains("vend-production-eu"));
    world.good(&["drift"]);
    world.good(&["unprotect"]);
    let said = world.good(&["destroy", "--yes", "--forget"]);
    assert!(said.contains("goes: vend-production-eu\n"), "{said}");
    assert_eq!(world.status("vend-production-eu")["status"], Value::Null);
}
