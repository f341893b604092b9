//! Each role that is neither CloudFormation's nor a state machine's, held against what is called with it: by the builds that are
//! ours and the scripts of hosts, whose lines for AWS's command line are read here, and by the programs of others that work with
//! the role, each with its source. Every role of every stack is compared here or by one of its neighbours.

use std::collections::{BTreeMap, BTreeSet};

use aws::synth::Resource;

use crate::{
    iam::{Actions, Keys, Request, Verdict, allowed, judge, words},
    matrix::matrix,
};

/// Roles that others compare: `iam` and `handlers`.
const ELSEWHERE: [&str; 7] = [
    "FlowRole",
    "ReleaseRole",
    "BranchFlowRole",
    "BranchMachineRole",
    "BranchesRole",
    "ReceiverRole",
    "StacksRole",
];

/// What CodeBuild does with a project's role. Source: "Allow CodeBuild to interact with other AWS services" of its guide.
const BUILDS: &str = "codebuild:BatchPutCodeCoverages codebuild:BatchPutTestCases codebuild:CreateReport codebuild:CreateReportGroup \
    codebuild:UpdateReport kms:Decrypt kms:DescribeKey kms:Encrypt kms:GenerateDataKey kms:ReEncryptFrom kms:ReEncryptTo \
    logs:CreateLogStream logs:PutLogEvents s3:GetBucketAcl s3:GetBucketLocation s3:GetObject s3:GetObjectVersion s3:PutObject";
/// A source that CodeBuild fetches by a connection.
const CONNECTION: &str =
    "codeconnections:GetConnection codeconnections:GetConnectionToken codeconnections:UseConnection";
/// What a buildspec of the app may name: `env.secrets-manager` and `env.parameter-store`.
const NAMED: &str = "secretsmanager:GetSecretValue ssm:GetParameters";
/// Source: "IAM Task or Instance Role" of Packer's Amazon plugin, without what only other builders of it call; Session Manager and
/// the profile besides.
const PACKER: &str = "ec2:AuthorizeSecurityGroupIngress ec2:CopyImage ec2:CreateImage ec2:CreateKeyPair ec2:CreateSecurityGroup \
    ec2:CreateSnapshot ec2:CreateTags ec2:DeleteKeyPair ec2:DeleteSecurityGroup ec2:DeleteSnapshot ec2:DeregisterImage \
    ec2:DescribeImageAttribute ec2:DescribeImages ec2:DescribeInstanceStatus ec2:DescribeInstances ec2:DescribeRegions \
    ec2:DescribeSecurityGroups ec2:DescribeSnapshots ec2:DescribeSubnets ec2:DescribeTags ec2:DescribeVolumes ec2:DescribeVpcs \
    ec2:ModifyImageAttribute ec2:ModifyInstanceAttribute ec2:RegisterImage ec2:RunInstances ec2:StopInstances \
    ec2:TerminateInstances iam:GetInstanceProfile iam:PassRole kms:CreateGrant \
    kms:GenerateDataKeyWithoutPlaintext ssm:ResumeSession ssm:StartSession ssm:TerminateSession";
/// The same, where other accounts start hosts from its images.
const SHARE: &str = "ec2:ModifySnapshotAttribute";
/// Source: "Pushing a Docker image" of the ECR guide, required permissions.
const PUSH: &str = "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:CompleteLayerUpload ecr:GetDownloadUrlForLayer \
    ecr:InitiateLayerUpload ecr:PutImage ecr:UploadLayerPart";
const PULL: &str =
    "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:GetAuthorizationToken ecr:GetDownloadUrlForLayer";
/// A shell by Session Manager. Source: `AmazonSSMManagedInstanceCore`, without what its documents and patches need.
const CHANNELS: &str = "ssmmessages:CreateControlChannel ssmmessages:CreateDataChannel ssmmessages:OpenControlChannel \
    ssmmessages:OpenDataChannel";
/// What ECS Exec besides does in a container whose cluster has a key and a log of sessions.
/// Source: "Monitor Amazon ECS containers with ECS Exec".
const EXEC: &str =
    "kms:Decrypt logs:CreateLogStream logs:DescribeLogGroups logs:DescribeLogStreams logs:PutLogEvents";
/// Its agent, with commands (`ec2messages`).
const AGENT: &str = "ec2messages:AcknowledgeMessage ec2messages:DeleteMessage ec2messages:FailMessage ec2messages:GetEndpoint \
    ec2messages:GetMessages ec2messages:SendReply ssm:ListInstanceAssociations ssm:UpdateInstanceInformation";
/// CodeDeploy's agent fetches revisions, CloudWatch's writes logs, and a database that moves is fetched as revisions are.
const AGENTS: &str = "kms:Decrypt logs:CreateLogStream logs:DescribeLogStreams logs:PutLogEvents s3:GetObject s3:GetObjectVersion";
/// CodeDeploy's agent through its endpoint. Source: "Use CodeDeploy with VPC endpoints".
const ENDPOINT: &str = "codedeploy-commands-secure:GetDeploymentSpecification codedeploy-commands-secure:PollHostCommand \
    codedeploy-commands-secure:PutHostCommandAcknowledgement codedeploy-commands-secure:PutHostCommandComplete";
/// What a database holds, on its way out of AWS by way of the artifacts bucket, where there is one.
const DUMP: &str = "kms:GenerateDataKey s3:AbortMultipartUpload s3:PutObject";
/// Source: `AWSCodeDeployRole`, without what only its own blue-green, its tag filters and classic load balancers need.
const DEPLOY: &str = "autoscaling:CompleteLifecycleAction autoscaling:DeleteLifecycleHook autoscaling:DescribeAutoScalingGroups \
    autoscaling:DescribeLifecycleHooks autoscaling:DescribePolicies autoscaling:DescribeScheduledActions autoscaling:PutLifecycleHook \
    autoscaling:RecordLifecycleActionHeartbeat autoscaling:ResumeProcesses autoscaling:SuspendProcesses cloudwatch:DescribeAlarms \
    ec2:DescribeInstanceStatus ec2:DescribeInstances elasticloadbalancing:DeregisterTargets \
    elasticloadbalancing:DescribeTargetGroupAttributes elasticloadbalancing:DescribeTargetGroups \
    elasticloadbalancing:DescribeTargetHealth elasticloadbalancing:RegisterTargets kms:Decrypt kms:GenerateDataKey sns:Publish";
/// ECS's agent on a host of its own. Source: `AmazonEC2ContainerServiceforEC2Role`, without logs, which tasks' own role writes.
const CLUSTERS: &str = "ec2:DescribeTags ecr:GetAuthorizationToken ecs:DeregisterContainerInstance ecs:DiscoverPollEndpoint ecs:Poll \
    ecs:RegisterContainerInstance ecs:StartTelemetrySession ecs:SubmitAttachmentStateChanges ecs:SubmitContainerStateChange \
    ecs:SubmitTaskStateChange ecs:UpdateContainerInstancesState ssm:UpdateInstanceInformation";
/// Source: `AmazonRDSEnhancedMonitoringRole`.
const MONITORING: &str = "logs:CreateLogGroup logs:CreateLogStream logs:DescribeLogStreams logs:GetLogEvents logs:PutLogEvents \
    logs:PutRetentionPolicy";
/// Auditors read the evidence and ask the logs.
const AUDIT: &str = "kms:Decrypt logs:FilterLogEvents logs:GetLogEvents logs:GetQueryResults logs:StartQuery logs:StopQuery \
    s3:GetBucketVersioning s3:GetObject s3:GetObjectVersion s3:ListBucket s3:ListBucketVersions";

/// What a line of AWS's command line calls.
const LINES: [(&str, &str); 10] = [
    ("s3 cp --recursive", "s3:GetObject s3:ListBucket"),
    ("ec2 describe-images", "ec2:DescribeImages"),
    ("ec2 describe-instances", "ec2:DescribeInstances"),
    ("ecr get-login-password", "ecr:GetAuthorizationToken"),
    ("ecr describe-images", "ecr:DescribeImages"),
    // Everybody may ask who they are.
    ("sts get-caller-identity", ""),
    ("secretsmanager get-secret-value", "secretsmanager:GetSecretValue"),
    (
        "route53 change-resource-record-sets",
        "route53:ChangeResourceRecordSets",
    ),
    (
        "route53 list-resource-record-sets",
        "route53:ListResourceRecordSets",
    ),
    ("autoscaling set-instance-health", "autoscaling:SetInstanceHealth"),
];

/// What the lines of a script call. A line that nobody knows fails.
fn called(script: &str) -> Actions {
    let mut actions = Actions::new();
    let starts = script.match_indices("aws ").filter(|(at, _)| {
        let before = script[..*at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || "($;|&".contains(c))
    });
    for (at, _) in starts {
        let line = &script[at + 4..];
        let known = LINES.iter().find(|(own, _)| line.starts_with(own));
        let (_, own) =
            known.unwrap_or_else(|| panic!("what does this line call? {}", line.lines().next().unwrap()));
        actions.extend(words(own));
    }
    actions
}

/// The text of the buildspec, or of a host's first script, that runs with the role.
fn script(template: &aws::synth::Template, role: &str) -> String {
    let project = |id: &str| {
        template
            .resource(id)
            .map(|own| own.properties["Source"]["BuildSpec"].clone())
    };
    let text = match role {
        "BakeRole" => project("Bake"),
        "PackRole" => project("Pack"),
        "HostRole" => template
            .resource("BlueLaunch")
            .map(|own| own.properties["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"].clone()),
        _ => None,
    };
    match text {
        Some(text) => text
            .as_str()
            .map_or_else(|| text[0].as_str().unwrap().to_owned(), str::to_owned),
        None => String::new(),
    }
}

/// What may be there, by the options of the stack, and what must.
fn wanted(role: &str, is_container: bool) -> Option<(Vec<&'static str>, Vec<&'static str>)> {
    let (must, may) = match role {
        "BuildRole" | "TestsRole" => (vec![BUILDS, NAMED], vec![CONNECTION]),
        "BakeRole" => (vec![BUILDS, PACKER], vec![CONNECTION, SHARE]),
        "PackRole" => (vec![BUILDS, PUSH], vec![CONNECTION]),
        "BuilderRole" => (vec![CHANNELS, "ssm:UpdateInstanceInformation"], vec![]),
        "HostRole" if is_container => (vec![CHANNELS, EXEC], vec![]),
        // Secrets are fetched where there are some, and always may be.
        "HostRole" => (
            vec![CHANNELS, AGENT, AGENTS, "secretsmanager:GetSecretValue"],
            vec![ENDPOINT, DUMP],
        ),
        "StartRole" => (
            vec![
                PULL,
                "kms:Decrypt logs:CreateLogStream logs:PutLogEvents secretsmanager:GetSecretValue",
            ],
            vec![],
        ),
        "CapacityRole" => (vec![CLUSTERS, CHANNELS], vec![]),
        "DeployRole" => (vec![DEPLOY], vec![]),
        "DatabaseMonitoringRole" => (vec![MONITORING], vec![]),
        "PasswordRole" if is_container => (vec!["states:StartExecution"], vec![]),
        "PasswordRole" => (vec!["ssm:SendCommand"], vec![]),
        "PasswordMachineRole" => (vec!["ecs:DescribeServices ecs:UpdateService"], vec![]),
        "FlowLogRole" => (
            vec!["logs:CreateLogStream logs:DescribeLogStreams logs:PutLogEvents"],
            vec![],
        ),
        "TrailRole" => (vec!["logs:CreateLogStream logs:PutLogEvents"], vec![]),
        "ChatRole" => (vec!["cloudwatch:DescribeAlarms cloudwatch:GetMetricData"], vec![]),
        "AuditRole" => (vec![AUDIT], vec![]),
        _ => return None,
    };
    Some((must, may))
}

#[test]
fn every_role_may_do_what_is_called_with_it_and_no_more() {
    let (mut seen, mut wrong) = (BTreeSet::new(), BTreeMap::new());
    for stack in matrix() {
        for role in stack.template.of("AWS::IAM::Role") {
            seen.insert(role.id.as_str());
            if ELSEWHERE.contains(&role.id.as_str()) {
                continue;
            }
            let is_container = stack.template.resource("Cluster").is_some();
            let (must, may) = wanted(&role.id, is_container)
                .unwrap_or_else(|| panic!("nobody knows what {} of {} is for", role.id, stack.name));
            compare(
                role,
                &called(&script(&stack.template, &role.id)),
                &must,
                &may,
                &mut wrong,
            );
        }
    }
    assert_eq!(wrong, BTreeMap::new());
    assert!(seen.len() > 18, "{seen:?}");
}

fn compare(
    role: &Resource,
    called: &Actions,
    must: &[&str],
    may: &[&str],
    wrong: &mut BTreeMap<String, (Vec<String>, Vec<String>)>,
) {
    let mut needed: Actions = must.iter().flat_map(|text| words(text)).collect();
    needed.extend(called.iter().cloned());
    let known: Actions = may
        .iter()
        .flat_map(|text| words(text))
        .chain(needed.iter().cloned())
        .collect();
    let own = allowed(role);
    let missing: Vec<String> = needed.difference(&own).cloned().collect();
    let idle: Vec<String> = own.difference(&known).cloned().collect();
    if !missing.is_empty() || !idle.is_empty() {
        wrong.insert(role.id.clone(), (missing, idle));
    }
}

/// What Packer is asked to know, it is told: a variable that nobody gives is empty in every tag and script.
#[test]
fn a_bake_gives_every_variable_of_its_template() {
    let files = crate::golden::files("guestbook");
    let image = &files["packer/guestbook/production/image.pkr.hcl"];
    let variables: BTreeSet<&str> = image
        .split("variable \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let stack = matrix()
        .iter()
        .find(|own| own.name == "example-vend-pipeline-production-guestbook");
    let text = script(&stack.unwrap().template, "BakeRole");
    let given: BTreeSet<&str> = text
        .split("-var \"")
        .skip(1)
        .filter_map(|rest| rest.split('=').next())
        .collect();
    assert_eq!(given, variables);
    // And what the build is given itself: by its project or by the flow that starts it.
    let own =
        stack.unwrap().template.resource("Bake").unwrap().properties["Environment"]["EnvironmentVariables"]
            .to_string();
    let flow = matrix()
        .iter()
        .find(|own| own.name == "example-vend-flow-production-guestbook-production");
    let flow = flow.unwrap().template.resource("Flow").unwrap().properties["DefinitionString"].to_string();
    for name in text.split("$VEND_").skip(1) {
        let name: String = name
            .chars()
            .take_while(|c| c.is_ascii_uppercase() || *c == '_')
            .collect();
        let name = format!("VEND_{name}");
        assert!(own.contains(&name) || flow.contains(&name), "nobody sets {name}");
    }
    // Scripts of an image see what they see on a platform.
    let bake = "VEND_TENANT VEND_APP VEND_ENVIRONMENT VEND_COMMIT_ID VEND_COMMIT_AUTHOR VEND_COMMIT_MESSAGE VEND_COMMIT_BRANCH \
                VEND_COMMIT_REPOSITORY";
    for name in words(bake) {
        assert!(image.contains(&format!("\"{name}=")), "{name}");
    }
}

/// Packer's copy of an image has a snapshot without tags when it is shared, and what is tagged with the digest of its inputs is
/// taken for finished by the next bake.
#[test]
fn a_bake_shares_a_snapshot_that_has_no_tags_yet_with_those_accounts_only() {
    let snapshot = "arn:aws:ec2:eu-central-1::snapshot/snap-1";
    let may = |role: &Resource, keys: Keys<'_>| {
        let (action, resource) = ("ec2:ModifySnapshotAttribute", snapshot);
        let request = Request {
            action,
            resource,
            keys,
        };
        judge(&role.properties["Policies"][0]["PolicyDocument"], &request) == Verdict::Allowed
    };
    let mut seen = (0, 0);
    for stack in matrix() {
        let Some(role) = stack.template.resource("BakeRole") else {
            continue;
        };
        let all = stack.template.resource("Bake").unwrap().properties["Environment"].to_string();
        if !all.contains("222222222222") {
            assert!(!may(role, &[]), "{}", stack.name);
            seen.0 += 1;
            continue;
        }
        assert!(may(role, &[("ec2:Add/userId", "222222222222")]), "{}", stack.name);
        assert!(!may(role, &[("ec2:Add/userId", "333333333333")]));
        assert!(!may(role, &[("ec2:Add/group", "all")]), "never public");
        seen.1 += 1;
    }
    assert!(seen.0 > 0 && seen.1 > 0, "{seen:?}");
}

/// What serves has the platform's tags too, and whoever may give tags could name anything their own.
#[test]
fn who_bakes_reaches_what_a_bake_of_the_app_has_made_and_nothing_else() {
    let of = |kind: &str| format!("arn:aws:ec2:eu-central-1:111111111111:{kind}/x-1");
    let free = |kind: &str| format!("arn:aws:ec2:eu-central-1::{kind}/x-1");
    let mut seen = 0;
    for stack in matrix() {
        let Some(role) = stack.template.resource("BakeRole") else {
            continue;
        };
        let may = |action: &str, resource: &str, keys: Keys<'_>| {
            let request = Request {
                action,
                resource,
                keys,
            };
            judge(&role.properties["Policies"][0]["PolicyDocument"], &request) == Verdict::Allowed
        };
        let platform = role.properties["Path"].as_str().unwrap().trim_matches('/');
        let app = stack.app.as_ref().unwrap().as_str();
        let own = format!("{platform}/{app}");
        let changes = [
            ("ec2:TerminateInstances", of("instance")),
            ("ec2:StopInstances", of("instance")),
            ("ec2:ModifyInstanceAttribute", of("instance")),
            ("ec2:CreateImage", of("instance")),
            ("ec2:CreateSnapshot", of("volume")),
            ("ec2:DeleteSecurityGroup", of("security-group")),
            ("ec2:DeleteKeyPair", of("key-pair")),
            ("ec2:DeregisterImage", free("image")),
            ("ec2:ModifyImageAttribute", free("image")),
            ("ec2:DeleteSnapshot", free("snapshot")),
            ("ssm:StartSession", of("instance")),
        ];
        for (action, resource) in &changes {
            let whose = match action.starts_with("ssm") {
                true => "ssm:resourceTag",
                false => "aws:ResourceTag",
            };
            let tag = |name: &str| format!("{whose}/vend:{name}");
            let (bake, of_platform, of_app) = (tag("bake"), tag("platform"), tag("app"));
            assert!(may(action, resource, &[(&bake, &own)]), "{action}");
            assert!(!may(action, resource, &[(&bake, "vend/other")]), "{action}");
            let serves: Keys<'_> = &[(&of_platform, platform), (&of_app, app)];
            assert!(!may(action, resource, serves), "{action}");
        }
        for kind in ["instance", "volume", "security-group", "key-pair"] {
            assert!(!may("ec2:CreateTags", &of(kind), &[]), "{kind}");
            assert!(may(
                "ec2:CreateTags",
                &of(kind),
                &[("ec2:CreateAction", "RunInstances")]
            ));
        }
        // The finished image is tagged once more, and its disk with what does not put it within reach.
        assert!(may("ec2:CreateTags", &free("image"), &[]));
        let tagged = |key: &str| may("ec2:CreateTags", &free("snapshot"), &[("aws:TagKeys", key)]);
        assert!(tagged("vend:app") && !tagged("vend:bake") && !tagged("Vend:Bake"));
        let forward = "arn:aws:ssm:eu-central-1::document/AWS-StartPortForwardingSession";
        assert!(may("ssm:StartSession", forward, &[]));
        assert!(
            may("ec2:CreateImage", &free("image"), &[]) && may("ec2:CreateImage", &free("snapshot"), &[])
        );
        seen += 1;
    }
    assert!(seen > 2, "{seen}");
}

#[test]
fn only_a_finished_image_is_found_by_its_inputs_and_a_host_that_nobody_takes_away_goes() {
    let files = crate::golden::files("guestbook");
    let image = &files["packer/guestbook/production/image.pkr.hcl"];
    let line = |key: &str| {
        let mut lines = image.lines().map(str::trim);
        lines
            .find(|line| line.split_whitespace().next() == Some(key))
            .unwrap()
    };
    let (_, common) = image.split_once("  tags = {").unwrap();
    assert!(!common.split('}').next().unwrap().contains("vend:inputs"));
    assert_eq!(image.matches("vend:inputs").count(), 1);
    assert!(image.contains(" tags            = merge(local.tags, { \"vend:inputs\" = var.inputs })"));
    for key in ["run_tags", "run_volume_tags"] {
        assert!(line(key).ends_with("= local.made"), "{}", line(key));
    }
    assert!(line("snapshot_tags").ends_with("= local.tags"));
    assert!(image.contains(" made = merge(local.tags, { \"vend:bake\" = \"vend/guestbook\" })\n"));
    assert!(line("shutdown_behavior").ends_with("= \"terminate\""));
    // Its end is the first thing that it knows, and comes after that of the build.
    let agents = &files["packer/guestbook/production/agents.sh"];
    let first = agents.lines().find(|line| !line.starts_with('#')).unwrap();
    let end = first.strip_prefix("systemd-run --on-active=").unwrap();
    let (minutes, rest) = end.split_once("min ").unwrap();
    assert_eq!(rest, "systemctl poweroff");
    let projects = matrix().iter().filter_map(|own| own.template.resource("Bake"));
    for bake in projects {
        let longest = bake.properties["TimeoutInMinutes"].as_u64().unwrap();
        assert!(minutes.parse::<u64>().unwrap() > longest);
        let spec = bake.properties["Source"]["BuildSpec"].as_str().unwrap();
        assert!(
            spec.lines()
                .filter(|line| line.contains("packer build") || line.contains("packer init"))
                .all(|line| line.trim().starts_with("/usr/bin/packer "))
        );
    }
}
