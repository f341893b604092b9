//! What holds of every template, whatever was asked for.

use aws::synth::{
    Config, MAX_BYTES, MAX_OUTPUTS, MAX_PARAMETERS, MAX_RESOURCES, Priorities, Resource, Template, all,
};
use model::spec;
use serde_json::Value;

fn every(check: impl Fn(&str, &Template)) {
    assert!(crate::matrix::matrix().len() > 100);
    crate::matrix::matrix()
        .iter()
        .for_each(|stack| check(&stack.name, &stack.template));
}

fn each<'t>(template: &'t Template, kind: &'static str) -> impl Iterator<Item = (&'t str, &'t Value)> {
    template
        .of(kind)
        .map(|resource| (resource.id.as_str(), &resource.properties))
}

#[test]
fn every_role_is_inside_the_boundary_and_below_the_platforms_path() {
    every(|name, template| {
        for (id, role) in each(template, "AWS::IAM::Role") {
            assert!(!role["PermissionsBoundary"].is_null(), "{name} {id}");
            assert!(
                role["Path"].as_str().unwrap().starts_with("/vend/"),
                "{name} {id}"
            );
        }
        assert_eq!(
            template.of("AWS::IAM::User").count() + template.of("AWS::IAM::AccessKey").count(),
            0,
            "{name}"
        );
    });
}

#[test]
fn every_store_is_encrypted() {
    every(|name, template| {
        for (kind, key) in [
            ("AWS::Logs::LogGroup", "KmsKeyId"),
            ("AWS::SNS::Topic", "KmsMasterKeyId"),
            ("AWS::SecretsManager::Secret", "KmsKeyId"),
            ("AWS::RDS::DBCluster", "KmsKeyId"),
            ("AWS::CodeBuild::Project", "EncryptionKey"),
            ("AWS::CloudTrail::Trail", "KMSKeyId"),
        ] {
            for (id, properties) in each(template, kind) {
                assert!(!properties[key].is_null(), "{name} {id}");
            }
        }
        for (id, bucket) in each(template, "AWS::S3::Bucket") {
            let rule = &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]["ServerSideEncryptionByDefault"];
            let wanted = if id == "LogsBucket" { "AES256" } else { "aws:kms" };
            assert_eq!(rule["SSEAlgorithm"], wanted, "{name} {id}");
        }
        for (id, database) in each(template, "AWS::RDS::DBInstance") {
            let member = !database["DBClusterIdentifier"].is_null();
            assert!(
                member || (database["StorageEncrypted"] == true && !database["KmsKeyId"].is_null()),
                "{name} {id}"
            );
        }
        for (id, launch) in each(template, "AWS::EC2::LaunchTemplate") {
            for disk in launch["LaunchTemplateData"]["BlockDeviceMappings"]
                .as_array()
                .unwrap()
            {
                assert_eq!(disk["Ebs"]["Encrypted"], true, "{name} {id}");
                assert!(!disk["Ebs"]["KmsKeyId"].is_null(), "{name} {id}");
            }
            assert_eq!(
                launch["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"], "required",
                "{name} {id}"
            );
            assert!(launch["LaunchTemplateData"]["KeyName"].is_null(), "{name} {id}");
        }
        for (id, table) in each(template, "AWS::DynamoDB::Table") {
            assert_eq!(table["SSESpecification"]["SSEType"], "KMS", "{name} {id}");
        }
    });
}

/// CloudFormation takes back what it makes only while that is not protected: a parameter says when it is.
#[test]
fn what_refuses_deletion_does_so_by_the_parameter_only() {
    let on = |own: &Value| own == &Value::Bool(true) || own == "true";
    let mut guarded = 0;
    every(|name, template| {
        let balancers = each(template, "AWS::ElasticLoadBalancingV2::LoadBalancer");
        for (id, own) in balancers {
            let all = own["LoadBalancerAttributes"].as_array().unwrap();
            let found = all.iter().find(|one| one["Key"] == "deletion_protection.enabled");
            assert!(!on(&found.unwrap()["Value"]), "{name} {id}");
        }
        for kind in ["AWS::RDS::DBInstance", "AWS::RDS::DBCluster"] {
            for (id, own) in each(template, kind) {
                assert!(!on(&own["DeletionProtection"]), "{name} {id}");
            }
        }
        let some = template.resources.iter().any(|own| template.guards(&own.id));
        assert_eq!(some, template.is_guarded(), "{name}");
    });
    for stack in crate::matrix::matrix()
        .iter()
        .filter(|stack| stack.template.is_guarded())
    {
        guarded += 1;
        assert_eq!(stack.preview, None, "{}", stack.name);
    }
    assert!(guarded > 0);
}

#[test]
fn no_store_is_public() {
    every(|name, template| {
        for (id, bucket) in each(template, "AWS::S3::Bucket") {
            let block = bucket["PublicAccessBlockConfiguration"].as_object().unwrap();
            assert!(
                block.len() == 4 && block.values().all(|closed| *closed == true),
                "{name} {id}"
            );
            assert_eq!(
                bucket["VersioningConfiguration"]["Status"], "Enabled",
                "{name} {id}"
            );
            let policy = template.resource(&format!("{id}Policy")).unwrap();
            let first = &policy.properties["PolicyDocument"]["Statement"][0];
            assert_eq!(
                (&first["Effect"], &first["Sid"]),
                (&"Deny".into(), &"TlsOnly".into()),
                "{name} {id}"
            );
        }
        for (id, database) in each(template, "AWS::RDS::DBInstance") {
            assert_eq!(database["PubliclyAccessible"], false, "{name} {id}");
        }
        for (id, subnet) in each(template, "AWS::EC2::Subnet") {
            assert_eq!(subnet["MapPublicIpOnLaunch"], false, "{name} {id}");
        }
    });
}

#[test]
fn the_world_reaches_load_balancers_only_and_on_ports_that_are_declared() {
    every(|name, template| {
        // What a Network Load Balancer listens to, as a protocol and a number.
        let listens = |rule: &Value| {
            each(template, "AWS::ElasticLoadBalancingV2::Listener").any(|(_, own)| {
                let words = own["Protocol"].as_str().unwrap().to_lowercase();
                let mut words = words.split('_');
                own["LoadBalancerArn"]["Ref"] == "PortsBalancer"
                    && own["Port"] == rule["FromPort"]
                    && words.any(|word| rule["IpProtocol"] == word)
            })
        };
        for (id, group) in each(template, "AWS::EC2::SecurityGroup") {
            assert!(
                !group["SecurityGroupEgress"].as_array().unwrap().is_empty(),
                "{name} {id} would let everything out"
            );
            for rule in group["SecurityGroupIngress"].as_array().unwrap() {
                let world = rule["CidrIp"] == "0.0.0.0/0" || rule["CidrIpv6"] == "::/0";
                let port =
                    rule["FromPort"] == rule["ToPort"] && (rule["FromPort"] == 80 || rule["FromPort"] == 443);
                let one = rule["FromPort"] == rule["ToPort"];
                let opened = id == "PortsGroup" && one && listens(rule);
                // Hosts that a carrier's network reaches, where there is no load balancer.
                let carried = id == "HostGroup" && template.resource("BlueNobody").is_some() && one;
                assert!(
                    !world || (id == "BalancerGroup" && port) || opened || carried,
                    "{name} {id}: {rule}"
                );
            }
        }
        for (id, rule) in each(template, "AWS::EC2::SecurityGroupIngress") {
            assert_ne!(rule["CidrIp"], "0.0.0.0/0", "{name} {id}");
            assert_eq!(rule["CidrIpv6"], Value::Null, "{name} {id}");
        }
    });
}

#[test]
fn the_isolated_tier_has_no_way_out() {
    every(|name, template| {
        for (id, route) in each(template, "AWS::EC2::Route") {
            assert_ne!(route["RouteTableId"]["Ref"], "IsolatedRoutes", "{name} {id}");
        }
        for (id, endpoint) in each(template, "AWS::EC2::VPCEndpoint") {
            assert!(!endpoint.to_string().contains("Isolated"), "{name} {id}");
        }
        for (id, subnets) in each(template, "AWS::RDS::DBSubnetGroup") {
            assert!(subnets.to_string().contains("IsolatedSubnet"), "{name} {id}");
        }
    });
}

/// ECS starts containers anew at any time, from an image that may be older than any number of others.
#[test]
fn no_image_that_a_commit_names_is_taken_away() {
    let mut seen = 0;
    every(|_, template| {
        for (id, repository) in each(template, "AWS::ECR::Repository") {
            let text = repository["LifecyclePolicy"]["LifecyclePolicyText"]
                .as_str()
                .unwrap();
            let policy: Value = serde_json::from_str(text).unwrap();
            for rule in policy["rules"].as_array().unwrap() {
                assert_eq!(rule["selection"]["tagStatus"], "untagged", "{id}");
            }
        }
    });
    for stack in crate::matrix::matrix() {
        seen += stack.template.of("AWS::ECR::Repository").count();
    }
    assert!(seen > 0);
}

fn statements(document: &Value) -> &Vec<Value> {
    document["Statement"].as_array().unwrap()
}

#[test]
fn every_permission_has_its_reason_and_none_is_for_everything() {
    every(|name, template| {
        for resource in &template.resources {
            let documents: Vec<&Value> = match resource.kind {
                "AWS::IAM::Role" => resource.properties["Policies"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|own| &own["PolicyDocument"])
                    .collect(),
                "AWS::IAM::ManagedPolicy" if resource.id != "Boundary" => {
                    vec![&resource.properties["PolicyDocument"]]
                }
                _ => continue,
            };
            let why = &resource
                .metadata()
                .get("vend")
                .map_or(Value::Null, |own| own["why"].clone());
            for statement in documents.iter().flat_map(|document| statements(document)) {
                let sid = statement["Sid"].as_str().unwrap();
                assert!(
                    why[sid].as_str().is_some_and(|why| why.len() > 10),
                    "{name} {} {sid} has no reason",
                    resource.id
                );
                for action in statement["Action"].as_array().unwrap() {
                    let action = action.as_str().unwrap();
                    let look = action.split(':').nth(1).unwrap().starts_with("Describe");
                    assert!(
                        !action.contains('*') || look,
                        "{name} {} {sid}: {action}",
                        resource.id
                    );
                }
            }
        }
    });
}

#[test]
fn policies_are_as_long_as_iam_takes_them() {
    // Names are longer when they are filled in; what JSON needs around them is shorter. The margin covers the difference.
    let size = |document: &Value| document.to_string().len();
    every(|name, template| {
        for (id, role) in each(template, "AWS::IAM::Role") {
            let inline: usize = role["Policies"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|own| size(&own["PolicyDocument"]))
                .sum();
            assert!(inline < 9_000, "{name} {id}: {inline}");
            assert!(
                role["ManagedPolicyArns"]
                    .as_array()
                    .is_none_or(|arns| arns.len() <= 10),
                "{name} {id}"
            );
        }
        for (id, policy) in each(template, "AWS::IAM::ManagedPolicy") {
            assert!(size(&policy["PolicyDocument"]) < 5_500, "{name} {id}");
        }
        for (id, bucket) in each(template, "AWS::KMS::Key") {
            assert!(size(&bucket["KeyPolicy"]) < 30_000, "{name} {id}");
        }
    });
}

#[test]
fn the_boundary_denies_identities_without_it() {
    every(|name, template| {
        let Some(boundary) = template.resource("Boundary") else {
            return;
        };
        let all = statements(&boundary.properties["PolicyDocument"]);
        let deny = all
            .iter()
            .find(|one| one["Sid"] == "NoIdentityWithoutThisBoundary")
            .unwrap();
        assert_eq!(deny["Effect"], "Deny");
        let own = deny["Condition"]["StringNotEquals"]["iam:PermissionsBoundary"]["Fn::Sub"]
            .as_str()
            .unwrap();
        assert!(
            own.ends_with(":policy/vend/vend-production-boundary") || own.contains("-boundary"),
            "{name} {own}"
        );
        for action in [
            "iam:CreateRole",
            "iam:CreateUser",
            "iam:PutRolePolicy",
            "iam:AttachRolePolicy",
            "iam:PutRolePermissionsBoundary",
        ] {
            assert!(
                deny["Action"].as_array().unwrap().iter().any(|one| one == action),
                "{name} {action}"
            );
        }
    });
}

/// No stack is nested: none comes near what one may hold. What an app could have more of is not in its environments' stacks.
#[test]
fn no_stack_comes_near_the_limits_of_one() {
    every(|name, template| {
        assert!(
            template.resources.len() < MAX_RESOURCES / 4,
            "{name}: {}",
            template.resources.len()
        );
        assert!(
            template.outputs.len() < MAX_OUTPUTS / 4,
            "{name}: {}",
            template.outputs.len()
        );
        assert!(
            template.parameters.len() < MAX_PARAMETERS / 4,
            "{name}: {}",
            template.parameters.len()
        );
        assert!(
            template.yaml().len() < MAX_BYTES / 4,
            "{name}: {}",
            template.yaml().len()
        );
    });
}

#[test]
fn templates_fit_and_their_ids_are_ids() {
    every(|name, template| {
        assert!(template.yaml().len() < MAX_BYTES, "{name}");
        template.check(name).unwrap();
        for Resource { id, .. } in &template.resources {
            assert!(
                id.len() <= 255 && id.bytes().all(|b| b.is_ascii_alphanumeric()),
                "{name} {id}"
            );
        }
    });
}

/// One file may be several apps', so a name that is not this app's is no error; but it may be misspelt.
#[test]
fn options_of_other_apps_only_are_noted() {
    let notes = |apps: &str| {
        let text =
            format!("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n{apps}");
        let config: Config = toml::from_str(&text).unwrap();
        let (app, _) =
            spec::App::parse("app: shop\nenvironments: { live: {} }\n", "vend.yaml", &|_| true).unwrap();
        let made = all(&config, &app, &mut Priorities::default()).unwrap();
        let notes: Vec<String> = made.stacks.into_iter().flat_map(|stack| stack.notes).collect();
        notes.join("\n")
    };
    let said = notes("[apps.shoop]\ntenant = 'acme'\n");
    assert!(
        said.contains("aws.toml has options of `shoop`, and none of `shop`"),
        "{said}"
    );
    for good in ["", "[apps.shop]\n", "[apps.shop]\n[apps.other]\n"] {
        assert!(!notes(good).contains("has options of"), "{good}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused = |text: &str| {
        let config: Config = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (app, _) =
            spec::App::parse("app: shop\nenvironments: { live: {} }\n", "vend.yaml", &|_| true).unwrap();
        all(&config, &app, &mut Priorities::default())
            .unwrap_err()
            .to_string()
    };
    let base = "region = 'eu-central-1'\ndomain = 'a.example.com'\n";
    let overlap = format!(
        "[foundations.production]\n{base}[foundations.other]\n{base}network = {{ cidr = '10.3.16.0/20' }}\n"
    );
    assert!(
        refused(&overlap).contains("overlaps that of `other`"),
        "{}",
        refused(&overlap)
    );
    let nat = format!("[foundations.production]\n{base}network = {{ nat = 'none' }}\n");
    assert!(
        refused(&nat).contains("hosts need the endpoint"),
        "{}",
        refused(&nat)
    );
    let options =
        |more: &str| format!("[foundations.production]\n{base}[apps.shop.environments.live]\n{more}\n");
    for (more, why) in [
        ("scaling = { spot = 1, warm = 1 }", "Spot market"),
        (
            "strategy = 'in-place'\nscaling = { warm = 1 }",
            "in place nothing replaces it",
        ),
        (
            "runtime = 'fargate'\nstrategy = 'in-place'",
            "never changed in place",
        ),
        (
            "runtime = 'ec2'\nscaling = { spot = 1 }",
            "not bought on the Spot market",
        ),
        ("runtime = 'ec2'\nscaling = { step = 70 }", "steps are for hosts"),
        ("domains = [{ host = 'x.example.org' }]", "neither `zone`"),
        ("scaling = { cpu = 0 }", "percentage"),
        (
            "scaling = { schedule = [{ cron = 'now', min = 1 }] }",
            "five fields of cron",
        ),
        (
            "placement = { wavelength = 'eu-central-1-wl1-ber-wlz-1' }\ndedicated_balancer = true",
            "weighted DNS",
        ),
        (
            "placement = { wavelength = 'eu-central-1-wl1-ber-wlz-1' }",
            "no Graviton",
        ),
        (
            "placement = { local_zone = 'eu-central-1-ham-1a' }\ndedicated_balancer = true",
            "add it to `network.local_zones`",
        ),
        (
            "placement = { local_zone = 'eu-central-1-ham-1a' }",
            "say `dedicated_balancer = true`",
        ),
        ("foundation = 'nowhere'", "no foundation `nowhere`"),
        ("disk = 0", "environments.live.disk: 0 is not from 10"),
        ("disk = 20\nruntime = 'ec2'", "20 is not from 30"),
        ("disk = 20\nruntime = 'fargate'", "on Fargate have no disk"),
        (
            "alarms = { errors = 0 }",
            "live.alarms.errors: it would ring always",
        ),
        (
            "alarms = { latency = 0 }",
            "live.alarms.latency: it would ring always",
        ),
        (
            "alarms = { log_errors = 0 }",
            "live.alarms.log_errors: it would ring always",
        ),
        ("scaling = { requests = 0 }", "live.scaling.requests: "),
        (
            "scaling = { schedule = [{ cron = '0 25 * * *', min = 1 }] }",
            "25 is no hour",
        ),
        (
            "scaling = { schedule = [{ cron = '0 5 * * *', min = 999 }] }",
            "`min` is 999 and `scaling.max` of vend.yaml",
        ),
    ] {
        let said = refused(&options(more));
        assert!(said.contains(why), "{more}: {said}");
    }
    for key in ["logs", "artifacts", "trail"] {
        let said = refused(&format!(
            "[foundations.production]\n{base}retention = {{ {key} = 0 }}\n"
        ));
        assert!(
            said.contains(&format!("production.retention.{key}: nothing is kept for 0 days")),
            "{said}"
        );
    }
    let alone = format!("[foundations.production]\n{base}[apps.shop.environments.gone]\n");
    assert!(
        refused(&alone).contains("no such environment"),
        "{}",
        refused(&alone)
    );
    for (named, said) in [
        ("foundation = 'nope'", "foundation: there is no foundation `nope`"),
        ("also = ['nope']", "also: there is no foundation `nope`"),
        (
            "also = ['production']",
            "also: releases go into `production` already",
        ),
    ] {
        let own = refused(&format!(
            "[foundations.production]\n{base}[apps.shop.environments.live]\n{named}\n"
        ));
        assert!(
            own.contains(&format!("apps.shop.environments.live.{said}")),
            "{own}"
        );
    }
}

#[test]
fn zones_are_counted_with_quotes_or_without() {
    let read = |zones: &str| {
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\nnetwork = {{ zones = {zones} }}\n"
        );
        toml::from_str::<Config>(&text).map_err(|error| error.to_string())
    };
    assert!(read("3").is_ok() && read("3") == read("'3'") && read("2") != read("3"));
    for (zones, said) in [("4", "`4` is not 2 or 3"), ("true", "2 or 3 is wanted")] {
        let own = read(zones).unwrap_err();
        assert!(own.contains(said), "{own}");
    }
}

#[test]
fn what_a_release_could_not_do_here_is_refused_before_there_is_one() {
    let refused = |yaml: &str, options: &str| {
        let text = format!(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n[apps.shop.environments.live]\n{options}\n"
        );
        let config: Config = toml::from_str(&text).unwrap();
        let yaml = format!("app: shop\n{yaml}\nenvironments: {{ live: {{}} }}\n");
        let (app, _) =
            spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap_or_else(|all| panic!("{all:?}"));
        let error = all(&config, &app, &mut Priorities::default()).unwrap_err();
        error.to_string()
    };
    let migrating = "deploy: { migrate: { script: up.sh } }";
    for (yaml, options, why) in [
        (
            "placement: { registered: { role: web } }",
            "",
            "registered machines dial",
        ),
        (
            "deploy: { strategy: in-place }",
            "runtime = 'fargate'",
            "never changed in place",
        ),
        (migrating, "runtime = 'fargate'", "containers have none"),
    ] {
        let said = refused(yaml, options);
        assert!(said.contains(why), "{yaml} {options}: {said}");
    }
}

#[test]
fn an_app_whose_branches_no_function_could_know_is_refused() {
    let config: Config =
        toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
            .unwrap();
    let long = "a-rather-long-name-of-a-branch/".repeat(5);
    let environments: String = (0..20)
        .map(|n| format!("  e{n}: {{ branch: {long}{n} }}\n"))
        .collect();
    let yaml = format!("app: shop\nenvironments:\n{environments}");
    let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let said = all(&config, &app, &mut Priorities::default())
        .unwrap_err()
        .to_string();
    assert!(said.contains("the receiver's variables take 3000"), "{said}");
}
