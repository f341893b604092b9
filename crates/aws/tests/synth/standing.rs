//! What can be changed of stacks that stand: what a change leaves as it is, and what CloudFormation or a service would refuse.

use std::collections::{BTreeMap, BTreeSet};

use aws::synth::{Config, Priorities, Template, all, environment, foundation};
use model::spec;
use serde_json::json;

use crate::{matrix::matrix, wants::live};

/// What a change of the options leaves as it is.
fn kept(before: &Template, after: &Template, but: &[&str]) {
    for resource in &before.resources {
        if but.iter().any(|prefix| resource.id.starts_with(prefix)) {
            continue;
        }
        assert_eq!(
            Some(resource),
            after.resource(&resource.id),
            "{} changed",
            resource.id
        );
    }
    // An export that another stack imports can neither change nor go.
    for (id, output) in before.outputs.iter().filter(|(_, own)| !own["Export"].is_null()) {
        if but.contains(&id.as_str()) {
            continue;
        }
        let now = after.outputs.iter().find(|(own, _)| own == id);
        assert_eq!(
            Some(&output["Value"]),
            now.map(|(_, own)| &own["Value"]),
            "{id} changed"
        );
    }
}

/// What lists the subnets of all zones, and changes with a third.
const JOINED: [&str; 3] = ["PublicSubnets", "PrivateSubnets", "IsolatedSubnets"];

/// Else a foundation could never get a third zone, and an environment that stands would not come to it.
#[test]
fn each_zone_is_imported_by_itself() {
    let mut imported = 0;
    for stack in matrix() {
        let text = stack.template.json();
        for tier in JOINED {
            let mut imports = text.lines().filter(|line| line.contains("Fn::ImportValue"));
            assert!(
                !imports.any(|line| line.contains(&format!("-{tier}\""))),
                "{} {tier}",
                stack.name
            );
        }
        let Some(group) = stack.template.resource("BlueGroup") else {
            continue;
        };
        let zones = group.properties["VPCZoneIdentifier"].as_array();
        imported += zones.map_or(0, |zones| {
            assert!(
                zones.iter().all(|own| own["Fn::ImportValue"].is_string()),
                "{zones:?}"
            );
            zones.len()
        });
    }
    assert!(imported > 20, "{imported}");
}

fn one(options: &str) -> Template {
    let text =
        format!("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n{options}\n");
    foundation(&toml::from_str(&text).unwrap(), &"production".parse().unwrap())
        .unwrap()
        .template
}

#[test]
fn a_change_of_one_option_leaves_the_rest_of_a_foundation() {
    let plain = one("mail = { operations = ['m@x.example'] }");
    kept(
        &plain,
        &one("mail = { operations = ['a@x.example', 'm@x.example', 'z@x.example'] }"),
        &[],
    );
    kept(
        &plain,
        &one("mail = { operations = ['m@x.example'] }\nfirewall = true"),
        &[],
    );
    kept(
        &plain,
        &one("mail = { operations = ['m@x.example'] }\nnetwork = { endpoints = ['ssm'] }"),
        &[],
    );
    // What lists all zones changes with a third; no subnet moves.
    let third = one("mail = { operations = ['m@x.example'] }\nnetwork = { zones = '3' }");
    let but = ["Balancer", "S3Endpoint", "DynamodbEndpoint"];
    kept(&plain, &third, &[&but[..], &JOINED].concat());
}

#[test]
fn a_change_of_one_option_leaves_the_rest_of_an_environment() {
    let made = |options: &str, priorities: &mut Priorities| {
        let config = crate::config(options);
        let app = crate::app("{ min: 1, max: 2 }");
        environment(
            &config,
            &app.app,
            &app.environments[0],
            &"production".parse().unwrap(),
            priorities,
        )
        .unwrap()
        .template
    };
    let mut priorities = Priorities::default();
    let plain = made(
        "domains = [{ host = 'm.example.org', zone = 'Z0DEF' }]",
        &mut priorities,
    );
    let more =
        "domains = [{ host = 'a.example.org', zone = 'Z0DEF' }, { host = 'm.example.org', zone = 'Z0DEF' }]";
    kept(&plain, &made(more, &mut priorities), &[]);
    kept(
        &plain,
        &made(
            "domains = [{ host = 'm.example.org', zone = 'Z0DEF' }]\nplain_http = true",
            &mut priorities,
        ),
        &[],
    );
    let scaling = "domains = [{ host = 'm.example.org', zone = 'Z0DEF' }]\nscaling = { requests = 10 }";
    kept(
        &plain,
        &made(scaling, &mut priorities),
        &["BlueByCpu", "GreenByCpu"],
    );
}

/// A target group is behind one load balancer at most, and the rule that is replaced stands until all else is done.
#[test]
fn an_environment_that_gets_a_load_balancer_of_its_own_has_other_target_groups() {
    for (options, port) in [
        ("", ""),
        (
            "runtime = 'fargate'",
            "listeners: [{ protocol: udp, port: 5000 }]",
        ),
        ("strategy = 'in-place'", ""),
    ] {
        let shared = live(options, port);
        let own = live(&format!("{options}\ndedicated_balancer = true"), port);
        let groups = |template: &Template| -> BTreeSet<String> {
            let rules = template.of("AWS::ElasticLoadBalancingV2::ListenerRule");
            let led = rules.flat_map(|rule| {
                let all = rule.properties["Actions"][0]["ForwardConfig"]["TargetGroups"].clone();
                all.as_array().unwrap().clone()
            });
            led.map(|one| one["TargetGroupArn"]["Ref"].as_str().unwrap().to_owned())
                .collect()
        };
        let (before, after) = (groups(&shared), groups(&own));
        assert!(
            !before.is_empty() && before.is_disjoint(&after),
            "{before:?} {after:?}"
        );
        // All that names one names that of its own template, and flows find it by the same output.
        for (template, names) in [(&shared, &before), (&own, &after)] {
            template.check("live").unwrap();
            let text = template.json();
            for absent in [&before, &after]
                .into_iter()
                .filter(|all| *all != names)
                .flatten()
            {
                assert!(!text.contains(&format!("\"{absent}\"")) && !text.contains(&format!("\"{absent}.")));
            }
            let (_, output) = template
                .outputs
                .iter()
                .find(|(id, _)| id == "BlueTargetsArn")
                .unwrap();
            assert!(names.contains(output["Value"]["Ref"].as_str().unwrap()));
        }
        // Who was served by the other goes on until hosts are behind this one.
        let (hosts, led) = match options.contains("fargate") {
            true => ("BlueService", "Rule"),
            false => ("BlueGroup", "BlueGroup"),
        };
        for (late, early) in [("Record", led), (hosts, "Rule"), ("HostGroup", "Rule")] {
            assert!(
                own.part(&[late]).resource(early).is_some(),
                "{late} is not after {early}"
            );
        }
    }
}

/// CloudFormation replaces a service that goes from a launch type to shares of capacity or back, and its name is taken.
#[test]
fn containers_come_to_the_spot_market_and_leave_it() {
    let mut seen = 0;
    for service in matrix()
        .iter()
        .flat_map(|own| own.template.of("AWS::ECS::Service"))
    {
        let own = &service.properties;
        assert!(own["LaunchType"].is_null(), "{}", service.id);
        assert!(!own["CapacityProviderStrategy"].as_array().unwrap().is_empty());
        seen += 1;
    }
    assert!(seen > 10);
    let shares = |options: &str| {
        let template = live(options, "");
        let own = template.resource("BlueService").unwrap().properties.clone();
        let known = &template.resource("Providers").unwrap().properties["CapacityProviders"];
        assert_eq!(*known, json!(["FARGATE", "FARGATE_SPOT"]));
        (
            own["CapacityProviderStrategy"].clone(),
            own["ForceNewDeployment"].clone(),
        )
    };
    let (usual, spot) = (
        shares("runtime = 'fargate'"),
        shares("runtime = 'fargate'\nscaling = { spot = 1 }"),
    );
    assert_eq!(usual.0, json!([{ "CapacityProvider": "FARGATE", "Weight": 1 }]));
    assert!(spot.0.to_string().contains("FARGATE_SPOT"));
    // ECS refuses other shares without new containers.
    assert_eq!(usual.1["EnableForceNewDeployment"], true);
    assert_ne!(
        usual.1["ForceNewDeploymentNonce"],
        spot.1["ForceNewDeploymentNonce"]
    );
}

#[test]
fn a_database_may_get_its_next_major_version() {
    let mut seen = BTreeSet::new();
    for stack in matrix() {
        if let Some(database) = stack.template.resource("Database") {
            let may = &database.properties["AllowMajorVersionUpgrade"];
            seen.insert((may.to_string(), database.properties["EngineVersion"].to_string()));
        }
    }
    // By default none: the version that nobody has said comes from the program.
    let may: Vec<&str> = seen.iter().map(|(may, _)| may.as_str()).collect();
    assert!(may.contains(&"false"), "{seen:?}");
    let said = seen.iter().filter(|(may, _)| may == "true");
    assert!(said.count() > 0, "{seen:?}");
}

/// What is on a table of the database is not sent to CloudWatch.
#[test]
fn slow_queries_arrive() {
    let mut seen = 0;
    for stack in matrix() {
        let (Some(database), Some(group)) = (
            stack.template.resource("Database"),
            stack.template.resource("DatabaseParameters"),
        ) else {
            continue;
        };
        let logs = database.properties["EnableCloudwatchLogsExports"].to_string();
        if logs.contains("slowquery") {
            assert_eq!(
                group.properties["Parameters"]["log_output"], "FILE",
                "{}",
                stack.name
            );
            seen += 1;
        }
    }
    assert!(seen > 3);
}

/// Two stacks cannot have the same log group: the second is not made.
#[test]
fn no_two_stacks_of_a_platform_have_one_log_group() {
    let names = [
        "api", "bake", "branches", "build", "pack", "tests", "live", "apis",
    ];
    let text = "[foundations.one]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\nnetwork = { cidr = '10.6.0.0/16' }\n\
        [foundations.two]\nregion = 'eu-central-1'\ndomain = 'b.example.com'\nnetwork = { cidr = '10.7.0.0/16' }\n\
        [apps.shop]\npipeline = 'one'\ntests = [{ name = 'smoke', buildspec = 's.yml' }]\n";
    let options = |label: &str| -> String {
        let own = |name: &&str| {
            let runtime = if *name == "live" { "fargate" } else { "host" };
            format!("[apps.shop.environments.{name}]\nfoundation = '{label}'\nruntime = '{runtime}'\n")
        };
        names.iter().map(own).collect()
    };
    let environments: String = names.iter().map(|name| format!("  {name}: {{}}\n")).collect();
    let yaml = format!("app: shop\nenvironments:\n{environments}  preview: {{ branches: 'x/*' }}\n");
    let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let refused = |label: &str| -> Vec<String> {
        let more = format!("[apps.shop.environments.preview]\nfoundation = '{label}'\n");
        let config: Config = toml::from_str(&format!("{text}{}{more}", options(label))).unwrap();
        let made = all(&config, &app, &mut Priorities::default()).unwrap();
        let mut groups: BTreeMap<String, String> = BTreeMap::new();
        let mut refused = Vec::new();
        for stack in made.stacks {
            if stack.refused.is_some() {
                refused.push(stack.name.rsplit('-').next().unwrap().to_owned());
                continue;
            }
            for group in stack.template.of("AWS::Logs::LogGroup") {
                let name = group.properties["LogGroupName"].to_string();
                let other = groups.insert(name.clone(), stack.name.clone());
                assert_eq!(other, None, "{name} of {}", stack.name);
            }
        }
        refused
    };
    assert_eq!(
        refused("one"),
        ["api", "bake", "branches", "build", "pack", "tests"]
    );
    // Beside no pipeline such a name is free, but for what builds read.
    assert_eq!(refused("two"), ["build"]);
}

#[test]
fn who_has_a_database_is_told_that_it_wants_tls() {
    let notes = |engine: &str| -> Vec<String> {
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
             [apps.shop.environments.live]\ndatabase = {{ engine = '{engine}' }}\n"
        );
        let yaml = "app: shop\ndatabase: { engine: mariadb }\nenvironments: { live: {} }\n";
        let (app, _) = spec::App::parse(yaml, "vend.yaml", &|_| true).unwrap();
        let config: Config = toml::from_str(&text).unwrap();
        let made = all(&config, &app, &mut Priorities::default()).unwrap();
        let notes = made.stacks.into_iter().flat_map(|stack| stack.notes);
        notes.filter(|note| note.contains("TLS")).collect()
    };
    for (engine, driver) in [
        ("mariadb", "mysql2"),
        ("mysql", "PyMySQL"),
        ("aurora-mysql", "PDO"),
        ("postgres", "node-postgres"),
        ("aurora-postgres", "sslmode=require"),
    ] {
        let notes = notes(engine);
        assert!(
            notes.len() == 1 && notes[0].contains(driver),
            "{engine}: {notes:?}"
        );
        assert!(notes[0].contains("truststore.pki.rds.amazonaws.com"));
    }
    assert!(
        crate::keys::made("")
            .unwrap()
            .1
            .iter()
            .all(|note| !note.contains("TLS"))
    );
}

/// Without any trail nobody hears that RDS has changed a password.
#[test]
fn who_has_a_database_and_no_trail_is_told_what_does_not_come() {
    let told = |trail: bool, options: &str, database: &str| -> Vec<String> {
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\ntrail = {trail}\n\
             [apps.shop.environments.live]\n{options}\n"
        );
        let yaml = format!("app: shop\n{database}environments: {{ live: {{}} }}\n");
        let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
        let config: Config = toml::from_str(&text).unwrap();
        let made = all(&config, &app, &mut Priorities::default()).unwrap();
        let notes = made.stacks.into_iter().flat_map(|stack| stack.notes);
        notes.filter(|note| note.contains("trail = false")).collect()
    };
    let database = "database: { engine: mariadb }\n";
    for (options, who) in [("", "hosts"), ("runtime = 'fargate'", "containers")] {
        let notes = told(false, options, database);
        assert!(notes.len() == 1 && notes[0].contains(who), "{notes:?}");
        assert!(told(true, options, database).is_empty());
        assert!(told(false, options, "").is_empty());
    }
}

/// What is a branch's goes with it, and nothing else loses its backups.
#[test]
fn backups_of_a_branch_go_with_its_database() {
    let mut seen = (0, 0);
    for stack in matrix() {
        if let Some(database) = stack.template.resource("Database") {
            let goes = stack.preview.is_some();
            assert_eq!(
                database.properties["DeleteAutomatedBackups"], goes,
                "{}",
                stack.name
            );
            *(if goes { &mut seen.0 } else { &mut seen.1 }) += 1;
        }
    }
    assert!(seen.0 > 0 && seen.1 > 5, "{seen:?}");
}
