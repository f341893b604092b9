//! Who may do what, held against what is called: a role's policy has what its code and its state machine call, and no more;
//! and what the boundary denies stays denied, whatever a policy allows.

use std::collections::{BTreeMap, BTreeSet};

use aws::{
    call,
    synth::{Resource, Stack},
};
use serde_json::{Value, json};

use crate::{matrix::matrix, template};

/// What IAM asks for when a state machine uses an integration: its own action, and what the service then needs of who calls.
/// Source: "Integrating services" of the Step Functions guide, and the service authorization reference.
const INTEGRATIONS: [(&str, &str); 27] = [
    (
        "codebuild:startBuild.sync",
        "codebuild:StartBuild codebuild:StopBuild codebuild:BatchGetBuilds events:PutRule events:PutTargets events:DescribeRule",
    ),
    ("dynamodb:putItem", "dynamodb:PutItem"),
    ("dynamodb:deleteItem", "dynamodb:DeleteItem"),
    ("dynamodb:getItem", "dynamodb:GetItem"),
    ("states:startExecution", "states:StartExecution"),
    // Who may not list is told that what is not there is forbidden.
    ("s3:headObject", "s3:GetObject s3:ListBucket"),
    ("sns:publish", "sns:Publish"),
    ("sns:publish.waitForTaskToken", "sns:Publish"),
    ("cloudformation:describeStacks", "cloudformation:DescribeStacks"),
    ("cloudformation:updateStack", "cloudformation:UpdateStack"),
    (
        "autoscaling:describeAutoScalingGroups",
        "autoscaling:DescribeAutoScalingGroups",
    ),
    ("autoscaling:setDesiredCapacity", "autoscaling:SetDesiredCapacity"),
    (
        "autoscaling:updateAutoScalingGroup",
        "autoscaling:UpdateAutoScalingGroup",
    ),
    (
        "applicationautoscaling:describeScalableTargets",
        "application-autoscaling:DescribeScalableTargets",
    ),
    (
        "applicationautoscaling:registerScalableTarget",
        "application-autoscaling:RegisterScalableTarget",
    ),
    ("ecs:describeServices", "ecs:DescribeServices"),
    ("ecs:updateService", "ecs:UpdateService"),
    (
        "codedeploy:createDeployment",
        "codedeploy:CreateDeployment codedeploy:GetDeploymentConfig codedeploy:GetApplicationRevision \
         codedeploy:RegisterApplicationRevision",
    ),
    ("codedeploy:getDeployment", "codedeploy:GetDeployment"),
    (
        "elasticloadbalancingv2:describeTargetHealth",
        "elasticloadbalancing:DescribeTargetHealth",
    ),
    ("cloudwatch:describeAlarms", "cloudwatch:DescribeAlarms"),
    ("ec2:describeImages", "ec2:DescribeImages"),
    ("ssm:sendCommand", "ssm:SendCommand"),
    ("ssm:getCommandInvocation", "ssm:GetCommandInvocation"),
    (
        "ec2:copyImage",
        "ec2:CopyImage ec2:CopySnapshot ec2:CreateTags kms:CreateGrant kms:Decrypt kms:DescribeKey kms:Encrypt \
         kms:GenerateDataKeyWithoutPlaintext kms:ReEncryptFrom kms:ReEncryptTo",
    ),
    ("sts:assumeRole", "sts:AssumeRole"),
    ("route53:listResourceRecordSets", "route53:ListResourceRecordSets"),
];

/// What a flow's role needs beside its states: the log and the trace of Step Functions, and the key of all it touches.
const OF_FLOWS: &str = "kms:Decrypt kms:GenerateDataKey logs:CreateLogDelivery logs:DeleteLogDelivery logs:DescribeLogGroups \
    logs:DescribeResourcePolicies logs:GetLogDelivery logs:ListLogDeliveries logs:PutResourcePolicy logs:UpdateLogDelivery \
    xray:GetSamplingRules xray:GetSamplingTargets xray:PutTelemetryRecords xray:PutTraceSegments";
/// What a function of Lambda needs beside its code.
const OF_FUNCTIONS: &str = "kms:Decrypt kms:GenerateDataKey logs:CreateLogStream logs:PutLogEvents xray:PutTelemetryRecords xray:PutTraceSegments";

/// What a build needs that runs this program: its log, the program and its files, and the key of all it touches.
const OF_BUILDS: &str = "kms:Decrypt kms:DescribeKey kms:GenerateDataKey logs:CreateLogStream logs:PutLogEvents s3:GetObject s3:ListBucket";
/// What CloudFormation does for who makes, changes and deletes a flow of a branch, and what it is lent for its environment.
/// Source: the service authorization reference, and the handlers of the types in CloudFormation's registry.
const OF_BRANCHES: &str = "cloudformation:TagResource iam:PassRole logs:AssociateKmsKey logs:CreateLogGroup logs:DeleteLogGroup \
    logs:DeleteRetentionPolicy logs:DescribeLogGroups logs:DisassociateKmsKey logs:GetDataProtectionPolicy \
    logs:ListTagsForResource logs:PutRetentionPolicy logs:TagResource logs:UntagResource states:CreateStateMachine \
    states:DeleteStateMachine states:DescribeStateMachine states:ListTagsForResource states:TagResource states:UntagResource \
    states:UpdateStateMachine";

pub type Actions = BTreeSet<String>;

pub fn words(text: &str) -> Actions {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What a policy, or the policies in a role, allow.
pub fn allowed(role: &Resource) -> Actions {
    let inline = role.properties["Policies"].as_array().into_iter().flatten();
    let documents = inline
        .map(|own| &own["PolicyDocument"])
        .chain([&role.properties["PolicyDocument"]]);
    let statements = documents.flat_map(|own| own["Statement"].as_array().into_iter().flatten());
    let actions = statements.flat_map(|one| one["Action"].as_array().unwrap());
    actions
        .map(|action| action.as_str().unwrap().to_owned())
        .collect()
}

/// What the tasks of a definition need, of the flow's own role and of the release role in its targets.
fn needed(definition: &Value, own: &mut Actions, release: &mut Actions) {
    if let (Some("Task"), Some(resource)) = (definition["Type"].as_str(), definition["Resource"].as_str()) {
        let what = resource
            .rsplit(":::")
            .next()
            .unwrap()
            .trim_start_matches("aws-sdk:");
        let known = INTEGRATIONS.iter().find(|(name, _)| *name == what);
        let (_, actions) = known.unwrap_or_else(|| panic!("nobody knows what {what} needs"));
        if definition["Credentials"].is_null() {
            own.extend(words(actions));
        } else {
            own.insert("sts:AssumeRole".to_owned());
            release.extend(words(actions));
        }
    }
    match definition {
        Value::Object(members) => members.values().for_each(|member| needed(member, own, release)),
        Value::Array(items) => items.iter().for_each(|item| needed(item, own, release)),
        _ => {}
    }
}

fn definition(stack: &Stack) -> Option<Value> {
    machine(stack, "Flow")
}

fn machine(stack: &Stack, id: &str) -> Option<Value> {
    let flow = stack.template.resource(id)?;
    let text = flow.properties["DefinitionString"]["Fn::Sub"][0]
        .as_str()
        .unwrap();
    Some(serde_json::from_str(text).unwrap())
}

#[test]
fn a_flow_may_do_what_its_states_do_and_no_more() {
    let (mut release, mut of_branches) = (Actions::new(), Actions::new());
    let mut flows = 0;
    for stack in stacks() {
        let Some(definition) = definition(stack) else {
            continue;
        };
        let mut own = words(OF_FLOWS);
        needed(&definition, &mut own, &mut release);
        match stack.template.resource("FlowRole") {
            Some(role) => assert_eq!(allowed(role), own, "{}", stack.name),
            None => of_branches.extend(own),
        }
        flows += 1;
    }
    assert!(flows > 3);
    // Flows of branches share one that the pipeline has.
    let shared: Vec<(&Stack, &Resource)> = stacks()
        .filter_map(|own| Some((own, own.template.resource("BranchFlowRole")?)))
        .collect();
    assert!(shared.len() > 3 && !of_branches.is_empty());
    for (stack, role) in shared {
        let mut wanted = of_branches.clone();
        // Those flows have a repository; without one the source is waited for.
        if stack.template.resource("Build").unwrap().properties["Source"]["Type"] == "S3" {
            wanted.extend(words("s3:GetObject s3:ListBucket"));
        }
        assert_eq!(allowed(role), wanted, "{}", stack.name);
    }
    let mut roles = 0;
    for stack in stacks() {
        let Some(role) = stack.template.resource("ReleaseRole") else {
            continue;
        };
        let own = allowed(role);
        // Only where images come from another account are they copied.
        let copies = own.contains("ec2:CopyImage");
        let copied = words(
            INTEGRATIONS
                .iter()
                .find(|(name, _)| *name == "ec2:copyImage")
                .unwrap()
                .1,
        );
        let mut wanted: Actions = match copies {
            true => release.clone(),
            false => release.difference(&copied).cloned().collect(),
        };
        // Only where hosts keep records are they counted.
        if stack.template.resource("CarrierGateway").is_none() {
            wanted.remove("route53:ListResourceRecordSets");
        }
        assert_eq!(own, wanted, "{}", stack.name);
        roles += 1;
    }
    assert!(roles > 60);
}

/// The matrix, and flows that have what its flows have not.
pub fn stacks() -> impl Iterator<Item = &'static Stack> {
    static MORE: std::sync::LazyLock<Vec<Stack>> = std::sync::LazyLock::new(|| {
        let config = crate::config("also = ['other']");
        let app = crate::deployed(
            "{ strategy: linear, migrate: { script: m.sh } }",
            "{ min: 1, max: 2 }",
        );
        let all = aws::synth::all(&config, &app, &mut aws::synth::Priorities::default()).unwrap();
        all.stacks
    });
    matrix().iter().chain(MORE.iter())
}

#[test]
fn every_flow_is_a_machine_of_our_own_checker_too() {
    for stack in stacks() {
        for definition in [definition(stack), machine(stack, "BranchMachine")]
            .into_iter()
            .flatten()
        {
            asl::Machine::parse(&filled(&definition.to_string()))
                .unwrap_or_else(|problems| panic!("{}: {problems:#?}", stack.name));
        }
    }
}

/// What makes stacks of branches by itself, and who starts it.
#[test]
fn what_makes_branches_may_do_that_and_no_more() {
    let mut seen = 0;
    for stack in stacks() {
        let Some(definition) = machine(stack, "BranchMachine") else {
            continue;
        };
        let app = stack.name.rsplit('-').next().unwrap();
        let (mut own, mut release) = (words(OF_FLOWS), Actions::new());
        needed(&definition, &mut own, &mut release);
        assert!(release.is_empty());
        assert_eq!(
            allowed(stack.template.resource("BranchMachineRole").unwrap()),
            own
        );
        let mut wanted: Actions = call::BRANCHES.iter().filter_map(|call| call.action()).collect();
        wanted.extend(words(OF_BUILDS));
        wanted.extend(words(OF_BRANCHES));
        let build = stack.template.resource("BranchesRole").unwrap();
        assert_eq!(allowed(build), wanted);
        // Nothing of it is for anything but branches' stacks; what is for all only looks.
        let statements = build.properties["Policies"][0]["PolicyDocument"]["Statement"]
            .as_array()
            .unwrap();
        for statement in statements {
            let (actions, resources) = (&statement["Action"], many(&statement["Resource"]));
            let looks = |action: &Value| {
                let name = action.as_str().unwrap().split(':').nth(1).unwrap();
                name.starts_with("Describe") || name.starts_with("List")
            };
            if resources.contains(&"*".to_owned()) {
                assert!(actions.as_array().unwrap().iter().all(looks), "{statement}");
            }
            // Names do not tell one app from another whose name begins with the same and a dash: tags do.
            let sid = statement["Sid"].as_str().unwrap();
            let by_tag = match sid {
                "MakeStacks" => Some("aws:RequestTag"),
                "ChangeStacks" => Some("aws:ResourceTag"),
                _ => None,
            };
            if let Some(by_tag) = by_tag {
                let (of, is) = (format!("{by_tag}/vend:app"), format!("{by_tag}/vend:preview"));
                let wanted = json!({ "StringEquals": { of: app }, "Null": { is: "false" } });
                assert_eq!(statement["Condition"], wanted, "{sid}");
            }
            let changes =
                |action: &Value| action.as_str().unwrap().starts_with("cloudformation:") && !looks(action);
            if actions.as_array().unwrap().iter().any(changes) {
                assert!(
                    by_tag.is_some(),
                    "{sid}: every change of a stack asks for its tags"
                );
            }
            if sid.ends_with("Stacks") || sid == "Flows" {
                assert!(
                    resources
                        .iter()
                        .all(|own| own.contains(&format!("-{app}-*-b-????????????"))),
                    "{statement}"
                );
            }
        }
        stacks_of_others_are_left_alone(&build.properties["Policies"][0]["PolicyDocument"], app);
        seen += 1;
    }
    assert!(seen > 0);
}

/// A stack that is called like one of this app's branches is one only when its tags say so.
fn stacks_of_others_are_left_alone(policy: &Value, app: &str) {
    let other = format!("{app}-more");
    let statements = policy["Statement"].as_array().unwrap();
    let make = statements.iter().find(|one| one["Sid"] == "MakeStacks").unwrap();
    for pattern in many(&make["Resource"]) {
        let resource = pattern
            .replacen('*', "more-x", 1)
            .replace('?', "a")
            .replace('*', "id");
        let may = |action: &str, keys: Keys<'_>| {
            let request = Request {
                action,
                resource: &resource,
                keys,
            };
            judge(policy, &request) == Verdict::Allowed
        };
        for (action, whose) in [
            ("cloudformation:CreateStack", "aws:RequestTag"),
            ("cloudformation:CreateChangeSet", "aws:ResourceTag"),
            ("cloudformation:DeleteStack", "aws:ResourceTag"),
        ] {
            let (of, is) = (format!("{whose}/vend:app"), format!("{whose}/vend:preview"));
            assert!(
                may(action, &[(&of, app), (&is, "preview")]),
                "{action} on {resource}"
            );
            assert!(
                !may(action, &[(&of, &other), (&is, "preview")]),
                "{action}: another app's"
            );
            assert!(!may(action, &[(&of, app)]), "{action}: one that stays");
            assert!(!may(action, &[]), "{action}: one without tags");
        }
    }
}

/// Whoever starts a build may say what it runs, with the project's role: so only who starts it anyway may start it.
#[test]
fn each_machine_starts_its_own_builds_and_only_one_starts_that_of_branches() {
    let mut by_flows = 0;
    for stack in stacks() {
        let projects = stacks().flat_map(|own| own.template.of("AWS::CodeBuild::Project"));
        let all: BTreeSet<&str> = projects
            .map(|own| own.properties["Name"].as_str().unwrap())
            .collect();
        let branches: Vec<&&str> = all.iter().filter(|name| name.ends_with("-branches")).collect();
        assert!(!branches.is_empty());
        for role in stack.template.of("AWS::IAM::Role") {
            let may = |project: &str| {
                let resource = format!("arn:aws:codebuild:eu-central-1:111111111111:project/{project}");
                let request = Request {
                    action: "codebuild:StartBuild",
                    resource: &resource,
                    keys: &[],
                };
                let policies = role.properties["Policies"].as_array().into_iter().flatten();
                let mut verdicts = policies.map(|own| judge(&own["PolicyDocument"], &request));
                verdicts.any(|verdict| verdict == Verdict::Allowed)
            };
            let started: Vec<&&&str> = branches.iter().filter(|project| may(project)).collect();
            if role.id == "BranchMachineRole" {
                assert_eq!(started, [&&format!("{}-branches", stack.name).as_str()]);
                continue;
            }
            assert!(
                started.is_empty(),
                "{} of {} starts {started:?}",
                role.id,
                stack.name
            );
            let Some(definition) = definition(stack).filter(|_| role.id == "FlowRole") else {
                continue;
            };
            let text = definition.to_string();
            for part in text.split("\"ProjectName\":\"").skip(1) {
                assert!(may(part.split('"').next().unwrap()), "{} of {part}", stack.name);
                by_flows += 1;
            }
        }
    }
    assert!(by_flows > 6);
}

#[test]
fn the_receiver_may_call_what_it_calls_and_no_more() {
    let mut wanted: Actions = call::RECEIVER.iter().filter_map(|call| call.action()).collect();
    wanted.extend(words(OF_FUNCTIONS));
    let mut seen = 0;
    for stack in stacks() {
        if let Some(role) = stack.template.resource("ReceiverRole") {
            assert_eq!(allowed(role), wanted, "{}", stack.name);
            seen += 1;
        }
    }
    assert!(seen > 0);
}

/// What a request says of itself, by the names of conditions.
pub type Keys<'k> = &'k [(&'k str, &'k str)];

/// One request, as IAM judges it.
pub struct Request<'r> {
    pub action: &'r str,
    pub resource: &'r str,
    pub keys: Keys<'r>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Nothing allows it.
    Silent,
    Denied,
}

/// The verdict of one document: a denial is above everything that allows.
/// Source: "Policy evaluation logic" of the IAM guide.
pub fn judge(document: &Value, request: &Request<'_>) -> Verdict {
    let fits = document["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| applies(one, request));
    fits.fold(Verdict::Silent, |verdict, one| {
        match (verdict, one["Effect"].as_str().unwrap()) {
            (Verdict::Denied, _) | (_, "Deny") => Verdict::Denied,
            _ => Verdict::Allowed,
        }
    })
}

fn applies(statement: &Value, request: &Request<'_>) -> bool {
    let any = |value: &Value, text: &str, fold: bool| {
        many(value).iter().any(|pattern| match fold {
            true => like(&pattern.to_lowercase(), &text.to_lowercase()),
            false => like(pattern, text),
        })
    };
    // Names of actions know no case.
    let action = any(&statement["Action"], request.action, true);
    let resource = match &statement["NotResource"] {
        Value::Null => any(&statement["Resource"], request.resource, false),
        not => !any(not, request.resource, false),
    };
    let conditions = statement["Condition"].as_object().into_iter().flatten();
    action
        && resource
        && conditions
            .into_iter()
            .all(|(operator, keys)| holds(operator, keys, request))
}

fn holds(operator: &str, keys: &Value, request: &Request<'_>) -> bool {
    keys.as_object().unwrap().iter().all(|(key, wanted)| {
        let given = request
            .keys
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(key))
            .map(|(_, value)| *value);
        let wanted = many(wanted);
        match operator {
            // Of several values, none is missing where there are none.
            "ForAllValues:StringEquals" => given.is_none_or(|given| wanted.iter().any(|one| one == given)),
            "ForAllValues:StringNotEqualsIgnoreCase" => {
                given.is_none_or(|given| wanted.iter().all(|one| !one.eq_ignore_ascii_case(given)))
            }
            "StringEquals" | "Bool" => given.is_some_and(|given| wanted.iter().any(|one| one == given)),
            // "true": it is not there.
            "Null" => wanted.iter().all(|one| (one == "true") == given.is_none()),
            // A key that is not there differs from everything.
            "StringNotEquals" => given.is_none_or(|given| wanted.iter().all(|one| one != given)),
            "StringLike" | "ArnLike" => given.is_some_and(|given| wanted.iter().any(|one| like(one, given))),
            other => panic!("nobody knows how to judge {other}"),
        }
    })
}

/// One text or several, with CloudFormation's parts filled in.
pub fn many(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(many).collect(),
        Value::String(text) => vec![filled(text)],
        other => vec![
            other["Fn::Sub"]
                .as_str()
                .map_or_else(|| other.to_string(), filled),
        ],
    }
}

fn filled(text: &str) -> String {
    text.replace("${AWS::Partition}", "aws")
        .replace("${AWS::AccountId}", "111111111111")
        .replace("${AWS::Region}", "eu-central-1")
}

/// `*` stands for anything, `?` for one character.
fn like(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            like(&pattern[1..], text)
                || text
                    .chars()
                    .next()
                    .is_some_and(|c| like(pattern, &text[c.len_utf8()..]))
        }
        (Some('?'), Some(c)) => like(&pattern[1..], &text[c.len_utf8()..]),
        (Some(one), Some(other)) if one == other => {
            like(&pattern[one.len_utf8()..], &text[other.len_utf8()..])
        }
        _ => false,
    }
}

/// A permission that the boundary does not let through is none, and nobody would see it before the first release.
#[test]
fn the_boundary_lets_through_what_roles_are_granted() {
    let mut denied: BTreeMap<String, String> = BTreeMap::new();
    let boundary = &template("vend-production")
        .resource("Boundary")
        .unwrap()
        .properties["PolicyDocument"];
    let keys = [(
        "iam:PermissionsBoundary",
        "arn:aws:iam::111111111111:policy/vend/vend-production-boundary",
    )];
    let mut judged = 0;
    for stack in stacks() {
        let roles = stack.template.of("AWS::IAM::Role");
        let policies = stack
            .template
            .of("AWS::IAM::ManagedPolicy")
            .filter(|own| own.id != "Boundary");
        for role in roles.chain(policies) {
            for action in allowed(role) {
                // Roles make and lend those below the platform's path only, which a law of its own holds.
                let resource = "arn:aws:iam::111111111111:role/vend/x";
                let request = Request {
                    action: &action,
                    resource,
                    keys: &keys,
                };
                judged += 1;
                if judge(boundary, &request) != Verdict::Allowed {
                    denied.insert(action, format!("{} {}", stack.name, role.id));
                }
            }
        }
    }
    assert!(judged > 1_000);
    assert_eq!(json!(denied), json!({}));
}
