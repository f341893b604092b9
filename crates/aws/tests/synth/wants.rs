//! What services of AWS want of a template beside its words: an order, room, a way to go, and a permission that nobody names.

use aws::synth::{Priorities, Stack, Template, environment};
use serde_json::{Value, json};

use crate::{iam::many, matrix::matrix, of};

fn containers() -> impl Iterator<Item = &'static Stack> {
    matrix()
        .iter()
        .filter(|own| own.template.resource("Cluster").is_some())
}

/// A resource is made after these: what it refers to, and what stands in its `DependsOn`, and what those are made after.
fn is_after(template: &Template, id: &str, first: &str) -> bool {
    let part = template.part(&[id]);
    id != first && part.resource(first).is_some()
}

/// An app with one environment, `live`, with these options of `aws.toml` and these lines of `vend.yaml`.
pub fn live(options: &str, lines: &str) -> Template {
    let text = format!(
        "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
         [sizes.large]\ntypes = ['c7g.large']\n[sizes.xlarge]\ntypes = ['i8g.xlarge']\n\
         [apps.shop.environments.live]\n{options}\n"
    );
    let config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let yaml = format!("app: shop\n{lines}\nenvironments: {{ live: {{ scaling: {{ max: 3 }} }} }}\n");
    let (app, _) = model::spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let label = "production".parse().unwrap();
    let mut priorities = Priorities::default();
    environment(&config, &app.app, &app.environments[0], &label, &mut priorities)
        .unwrap()
        .template
}

/// No repository of Amazon Linux 2023, on which builds run, has it.
#[test]
fn a_bake_fetches_the_plugin_by_which_packer_reaches_its_host() {
    let mut seen = 0;
    for bake in matrix().iter().filter_map(|own| own.template.resource("Bake")) {
        let machine = match bake.properties["Environment"]["Type"].as_str().unwrap() {
            "ARM_CONTAINER" => "linux_arm64",
            _ => "linux_64bit",
        };
        let url = format!(
            "https://s3.amazonaws.com/session-manager-downloads/plugin/latest/{machine}/session-manager-plugin.rpm"
        );
        let text = bake.properties["Source"]["BuildSpec"].as_str().unwrap();
        let words: Vec<&str> = text
            .split_whitespace()
            .filter(|word| word.contains("session-manager-plugin"))
            .collect();
        assert_eq!(words, [url]);
        seen += 1;
    }
    assert!(seen > 3);
}

/// CloudFormation starts the new one before the old one goes, so nothing of an instance may be both's.
#[test]
fn a_nat_instance_can_be_replaced() {
    let mut seen = 0;
    for template in matrix().iter().map(|own| &own.template) {
        let Some(instance) = template.resource("NatInstance") else {
            continue;
        };
        let launch = of(template, "NatLaunch");
        assert!(!launch.to_string().contains("NetworkInterfaceId"), "{launch}");
        assert!(instance.properties["NetworkInterfaces"].is_null());
        assert_eq!(instance.properties["SourceDestCheck"], false);
        assert_eq!(
            instance.properties["SecurityGroupIds"],
            json!([{ "Fn::GetAtt": "NatGroup.GroupId" }])
        );
        // These change without being replaced themselves.
        assert_eq!(of(template, "NatAddress")["InstanceId"]["Ref"], "NatInstance");
        let routes: Vec<&Value> = template
            .of("AWS::EC2::Route")
            .map(|own| &own.properties)
            .filter(|own| own["DestinationCidrBlock"] == "0.0.0.0/0" && own["GatewayId"].is_null())
            .collect();
        assert!(!routes.is_empty());
        for route in routes {
            assert_eq!(route["InstanceId"]["Ref"], "NatInstance");
        }
        seen += 1;
    }
    assert!(seen > 1);
}

/// Whoever protected hosts takes it away for hosts without containers only, and not when the stack goes.
#[test]
fn hosts_of_containers_can_go() {
    let mut seen = 0;
    for template in containers().map(|own| &own.template) {
        let Some(group) = template.resource("CapacityGroup") else {
            continue;
        };
        assert_eq!(group.properties["NewInstancesProtectedFromScaleIn"], false);
        let capacity = &of(template, "Capacity")["AutoScalingGroupProvider"];
        assert_eq!(capacity["ManagedTerminationProtection"], "DISABLED");
        assert_eq!(capacity["ManagedDraining"], "ENABLED");
        // Services go first, then what says where they find room, then hosts, then the cluster.
        assert!(is_after(template, "BlueService", "Providers"));
        assert!(is_after(template, "Providers", "CapacityGroup"));
        assert!(is_after(template, "CapacityGroup", "Cluster"));
        seen += 1;
    }
    assert!(seen > 3);
}

#[test]
fn a_container_fits_on_its_host() {
    for (size, cpu, memory) in [
        ("nano", "256", "512"),
        ("small", "512", "1024"),
        ("medium", "1024", "2048"),
        // A host of 4 GiB, and one of which nothing is known.
        ("large", "2048", "3584"),
        ("xlarge", "4096", "14336"),
        ("2xlarge", "8192", "28672"),
    ] {
        let template = live("runtime = 'ec2'", &format!("host: {{ size: {size} }}"));
        let task = of(&template, "BlueDefinition");
        assert_eq!(
            (&task["Cpu"], &task["Memory"]),
            (&json!(cpu), &json!(memory)),
            "{size}"
        );
    }
    // Fargate sells sizes, and has room for what it sells.
    let template = live("runtime = 'fargate'", "host: { size: large }");
    assert_eq!(of(&template, "BlueDefinition")["Memory"], "8192");
}

/// Requests are counted for a target group to which a rule leads; before there is one, the policy is refused.
#[test]
fn a_policy_by_requests_waits_for_the_rule() {
    let mut seen = 0;
    for template in matrix().iter().map(|own| &own.template) {
        for id in [
            "BlueByRequests",
            "GreenByRequests",
            "BlueServiceByRequests",
            "GreenServiceByRequests",
        ] {
            if template.resource(id).is_some() {
                assert!(is_after(template, id, "Rule"));
                seen += 1;
            }
        }
    }
    assert!(seen > 10);
}

/// A container is given a password when it starts, and RDS changes it later.
#[test]
fn a_password_that_changed_reaches_containers() {
    let mut seen = 0;
    for stack in containers() {
        let template = &stack.template;
        let Some(rule) = template.resource("PasswordChanged") else {
            assert!(template.of("AWS::RDS::DBSubnetGroup").next().is_none());
            continue;
        };
        assert_eq!(
            rule.properties["EventPattern"]["detail"]["eventName"],
            json!(["RotationSucceeded"])
        );
        let target = &rule.properties["Targets"][0];
        assert_eq!(
            (&target["Arn"]["Ref"], &target["RoleArn"]["Fn::GetAtt"]),
            (&json!("PasswordMachine"), &json!("PasswordRole.Arn"))
        );
        let machine = of(template, "PasswordMachine");
        let text = many(&machine["DefinitionString"]).remove(0);
        asl::Machine::parse(&text).unwrap_or_else(|problems| panic!("{}: {problems:#?}", stack.name));
        let definition: Value = serde_json::from_str(&text).unwrap();
        let halves = &definition["States"]["Halves"];
        let restart = &halves["ItemProcessor"]["States"]["StartAnew"];
        assert_eq!(restart["Arguments"]["ForceNewDeployment"], true);
        for half in halves["Items"].as_array().unwrap() {
            let named = template
                .of("AWS::ECS::Service")
                .any(|own| own.properties["ServiceName"] == *half);
            assert!(named, "{half}");
        }
        // Who starts a container reads the secret for it.
        let secret = &of(template, "BlueDefinition")["ContainerDefinitions"][0]["Secrets"];
        let from = secret
            .as_array()
            .unwrap()
            .iter()
            .find(|own| own["Name"] == "DATABASE_PASSWORD");
        let from = from.unwrap()["ValueFrom"]["Fn::Sub"].as_str().unwrap();
        assert!(
            from.ends_with(".MasterUserSecret.SecretArn}:password::"),
            "{from}"
        );
        let reads = of(template, "StartRole").to_string();
        assert!(reads.contains(".MasterUserSecret.SecretArn") && reads.contains("kms:Decrypt"));
        seen += 1;
    }
    assert!(seen > 10);
    // A state machine's name is shorter than a stack's may be.
    let (app, name) = ("a".repeat(40), "b".repeat(22));
    let yaml = format!("app: {app}\ndatabase: {{ engine: mariadb }}\nenvironments: {{ {name}: {{}} }}\n");
    let (app, _) = model::spec::App::parse(&yaml, "vend.yaml", &|_| true).unwrap();
    let text = format!(
        "[foundations.production-eu]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n\
         network = {{ cidr = '10.7.0.0/16' }}\n[apps.{}.environments.{name}]\nruntime = 'fargate'\n",
        app.app
    );
    let (config, label) = (toml::from_str(&text).unwrap(), "production-eu".parse().unwrap());
    let (own, mut priorities) = (&app.environments[0], Priorities::default());
    let made = environment(&config, &app.app, own, &label, &mut priorities).unwrap();
    let machine = of(&made.template, "PasswordMachine");
    let short = machine["StateMachineName"].as_str().unwrap();
    assert!(made.name.len() > 80 && short.len() == 80, "{short}");
    assert!(made.name.starts_with(&short[..71]));
}

/// Step Functions leaves the log of an encrypted machine encrypted, and who delivers it must read it.
#[test]
fn logs_of_encrypted_machines_are_delivered() {
    let machines = matrix()
        .iter()
        .flat_map(|own| own.template.of("AWS::StepFunctions::StateMachine"));
    let encrypted = machines.filter(|own| {
        let own = &own.properties;
        !own["EncryptionConfiguration"].is_null() && !own["LoggingConfiguration"].is_null()
    });
    assert!(encrypted.count() > 10);
    for template in matrix().iter().map(|own| &own.template) {
        let Some(key) = template.resource("Key") else {
            continue;
        };
        let statements = key.properties["KeyPolicy"]["Statement"].as_array().unwrap();
        let delivers = statements
            .iter()
            .find(|own| own["Principal"]["Service"] == "delivery.logs.amazonaws.com")
            .unwrap();
        assert_eq!(delivers["Action"], "kms:Decrypt");
        assert_eq!(
            many(&delivers["Condition"]["StringEquals"]["kms:EncryptionContext:SourceArn"]),
            ["arn:aws:logs:eu-central-1:111111111111:*"]
        );
    }
}

/// A cluster that has sessions encrypted and recorded lets nobody in where the container may do neither.
#[test]
fn a_shell_in_a_container_has_its_key_and_its_record() {
    for stack in containers() {
        let template = &stack.template;
        let session = &of(template, "Cluster")["Configuration"]["ExecuteCommandConfiguration"];
        assert_eq!(
            session["LogConfiguration"]["CloudWatchLogGroupName"]["Ref"],
            "LogGroup"
        );
        let task = of(template, "BlueDefinition");
        assert_eq!(task["TaskRoleArn"]["Fn::GetAtt"], "HostRole.Arn");
        assert_eq!(
            task["ContainerDefinitions"][0]["LinuxParameters"]["InitProcessEnabled"],
            true
        );
        assert_eq!(of(template, "BlueService")["EnableExecuteCommand"], true);
        let role = of(template, "HostRole");
        let statements = role["Policies"][0]["PolicyDocument"]["Statement"]
            .as_array()
            .unwrap();
        let may = |action: &str, resource: &Value| {
            statements.iter().any(|own| {
                let named = own["Action"].as_array().unwrap().iter().any(|own| own == action);
                let on = &own["Resource"];
                named && (on == resource || on.as_array().is_some_and(|all| all.contains(resource)))
            })
        };
        assert!(may("kms:Decrypt", &session["KmsKeyId"]), "{}", stack.name);
        assert!(may("logs:DescribeLogGroups", &json!("*")));
        let log = of(template, "LogGroup")["LogGroupName"]
            .as_str()
            .unwrap()
            .to_owned();
        let streams = json!({ "Fn::Sub":
            format!("arn:${{AWS::Partition}}:logs:${{AWS::Region}}:${{AWS::AccountId}}:log-group:{log}:*") });
        for action in [
            "logs:CreateLogStream",
            "logs:DescribeLogStreams",
            "logs:PutLogEvents",
        ] {
            assert!(may(action, &streams), "{} {action}", stack.name);
        }
    }
}
