//! What makes and takes away the environments of branches, without a server: a state machine that the receiver starts, and a
//! build that runs this program, as an operator would, from the files that the pipeline was made from.
//!
//! The build has a role of its own, which reaches stacks of branches only. It runs nothing that was pushed: what a pushed file
//! says changes a release, and what an applied one says changes stacks, here as for every other environment.

mod order;

use model::spec::Pattern;
use serde_json::{Value, json};

use super::{Scope, flow, log_group};
use crate::synth::{
    APP, Error, PREVIEW,
    policy::{Grant, Role, arn, global_arn, grant},
    size::Architecture,
    template::{Resource, Template, att, import, re, sub},
    whole::targets,
    word::Label,
};

/// Names of what a branch has end so; nothing else's do ([`model::spec::is_apart`]).
const OWN: &str = "*-b-????????????";
/// Until it is known which program and files there are.
pub(super) const NOTHING: &str = "none";

/// The entries of `vend.yaml` that are for branches, each with the foundations into which its releases go.
pub(super) fn entries<'s>(scope: &'s Scope<'_>) -> Result<Vec<(&'s Pattern, Vec<Label>)>, Error> {
    let with = |pattern: &'s Pattern| -> Result<_, Error> {
        let all = targets(scope.config, scope.app, &pattern.environment)?;
        Ok((pattern, all))
    };
    scope.app.patterns.iter().map(with).collect()
}

/// Are its stacks made by a push? The build calls with a role of the pipeline's account, and of no other.
pub(super) fn is_made(scope: &Scope<'_>, targets: &[Label]) -> bool {
    let account = |label: &Label| scope.config.foundations.get(label).map(|own| &own.account);
    targets
        .iter()
        .all(|label| account(label) == Some(&scope.foundation.account))
}

/// What the receiver starts.
pub(super) fn machine_name(scope: &Scope<'_>) -> String {
    format!("{}-branches", scope.name())
}

/// The name of the role that flows of branches have.
pub(super) fn flow_role(scope: &Scope<'_>) -> String {
    format!("{}-flows", scope.name())
}

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let entries = entries(scope)?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut all: Vec<Label> = entries.iter().flat_map(|(_, targets)| targets.clone()).collect();
    all.sort();
    all.dedup();
    let about = "The flows of branches: one role for all, so that what makes them makes no roles.";
    let role = flow::duties("BranchFlowRole", about, scope, &all).named(json!(flow_role(scope)));
    template.add(flow::excused(
        role.resource(scope.platform(), scope.shared("Boundary")),
    ));
    let own: Vec<Label> = all
        .into_iter()
        .filter(|label| is_made(scope, std::slice::from_ref(label)))
        .collect();
    if !entries.iter().any(|(_, targets)| is_made(scope, targets)) {
        return Ok(());
    }
    let path = format!("/{}/{}/{}/branches", scope.platform(), scope.label, scope.app.app);
    let about = "What is said while stacks of branches are made and taken away.";
    template.add(Resource::new(
        "BranchesLogGroup",
        "AWS::Logs::LogGroup",
        about,
        log_group(scope, &path),
    ));
    template.add(role_of_build(scope, &own));
    template.add(project(scope));
    order::add(template, scope);
    Ok(())
}

/// What the build runs. The program and the files are those that `vend aws apply` put beside the pipeline.
fn buildspec(scope: &Scope<'_>) -> String {
    let app = &scope.app.app;
    format!(
        r#"version: 0.2
env:
  shell: bash
phases:
  build:
    commands:
      - |
        set -euo pipefail
        aws s3 cp --quiet "s3://$VEND_TEMPLATES/$VEND_PROGRAM" program.zip
        unzip -q program.zip bootstrap
        mv bootstrap vend
        aws s3 cp --recursive --quiet "s3://$VEND_TEMPLATES/branches/{app}/$VEND_FILES/" files/
        ./vend aws "$VEND_ACTION" files --sourceless "--branch=$VEND_BRANCH" --yes
"#
    )
}

fn project(scope: &Scope<'_>) -> Resource {
    let variable = |name: &str, value: Value| json!({ "Name": name, "Type": "PLAINTEXT", "Value": value });
    let properties = json!({
        "Name": machine_name(scope),
        "Description": "Makes and takes away stacks of branches",
        "ServiceRole": att("BranchesRole.Arn"),
        "EncryptionKey": scope.shared("KeyArn"),
        "Source": { "Type": "NO_SOURCE", "BuildSpec": buildspec(scope) },
        "Artifacts": { "Type": "NO_ARTIFACTS" },
        "Environment": {
            "Type": "ARM_CONTAINER", "ComputeType": "BUILD_GENERAL1_SMALL",
            "Image": "aws/codebuild/amazonlinux-aarch64-standard:3.0",
            "PrivilegedMode": false, "ImagePullCredentialsType": "CODEBUILD",
            "EnvironmentVariables": [
                variable("VEND_TEMPLATES", scope.shared("TemplatesBucket")),
                variable("VEND_PROGRAM", json!(super::receiver::CODE)),
                variable("VEND_FILES", json!(NOTHING)),
            ],
        },
        "LogsConfig": { "CloudWatchLogs": { "Status": "ENABLED", "GroupName": re("BranchesLogGroup") } },
        "TimeoutInMinutes": order::BUILD_MINUTES,
        "QueuedTimeoutInMinutes": order::QUEUED_MINUTES,
        "Visibility": "PRIVATE",
    });
    Resource::new(
        "Branches",
        "AWS::CodeBuild::Project",
        "This program, where nobody types it.",
        properties,
    )
}

/// `stack/vend-production-shop-*-b-????????????/*` of each target, and of the flows.
fn stacks(scope: &Scope<'_>, targets: &[Label]) -> Vec<Value> {
    let (platform, app) = (scope.platform(), &scope.app.app);
    let of = |label: String| {
        arn(
            "cloudformation",
            &format!("stack/{platform}-{label}-{app}-{OWN}/*"),
        )
    };
    let mut all: Vec<Value> = targets.iter().map(|label| of(label.to_string())).collect();
    all.push(of(format!("flow-{}", scope.label)));
    all
}

fn role_of_build(scope: &Scope<'_>, targets: &[Label]) -> Resource {
    let role = Role::of_service(
        "BranchesRole",
        "The build that makes and takes away stacks of branches.",
        "codebuild.amazonaws.com",
    )
    .grants(orders(scope, targets))
    .grants(flows(scope))
    .grants(reads(scope, targets));
    role.resource(scope.platform(), scope.shared("Boundary")).skip(
        "CKV_AWS_111",
        "Lists of stacks, rules and log groups know no single resources.",
    )
}

/// What is asked of CloudFormation, and what it is lent.
fn orders(scope: &Scope<'_>, targets: &[Label]) -> Vec<Grant> {
    let platform = scope.platform();
    let lent = |label: &Label| global_arn("iam", &format!("role/{platform}/{platform}-{label}-stacks"));
    vec![
        grant(
            "MakeStacks",
            "Stacks of branches, which say by their tags whose they are: names of another app may begin with this one's and a dash",
            "cloudformation:CreateStack cloudformation:TagResource",
            stacks(scope, targets),
        )
        .when(tagged(scope, "aws:RequestTag")),
        grant(
            "ChangeStacks",
            "The same, when they are there",
            "cloudformation:CreateChangeSet cloudformation:DeleteChangeSet cloudformation:DeleteStack \
             cloudformation:ExecuteChangeSet",
            stacks(scope, targets),
        )
        .when(tagged(scope, "aws:ResourceTag")),
        grant(
            "ReadStacks",
            "What a change would do, and what becomes of it; a stack that is gone has no tags any more",
            "cloudformation:DescribeChangeSet cloudformation:DescribeEvents cloudformation:DescribeStackEvents \
             cloudformation:ListStackResources",
            stacks(scope, targets),
        ),
        grant(
            "LookAround",
            "Which stacks, rules and hosts are there, and why a group got none; these calls know no single resources",
            "autoscaling:DescribeAutoScalingGroups autoscaling:DescribeScalingActivities cloudformation:DescribeStacks cloudformation:ListStacks \
             elasticloadbalancing:DescribeRules logs:DescribeLogGroups",
            [json!("*")],
        ),
        grant(
            "ReleaseHosts",
            "Hosts of containers that an earlier version protected would hold a stack's end up",
            "autoscaling:SetInstanceProtection",
            targets.iter().map(|label| {
                let own = format!("{platform}-{label}-{}-{OWN}-*", scope.app.app);
                arn("autoscaling", &format!("autoScalingGroup:*:autoScalingGroupName/{own}"))
            }),
        )
        .when(tagged(scope, "aws:ResourceTag")),
        grant(
            "LendRole",
            "CloudFormation makes environments with a role of its own",
            "iam:PassRole",
            targets.iter().map(lent),
        )
        .when(json!({ "StringEquals": { "iam:PassedToService": "cloudformation.amazonaws.com" } })),
        grant(
            "CountBranches",
            "No more of them than vend.yaml allows",
            "dynamodb:GetItem dynamodb:UpdateItem",
            [arn("dynamodb", &format!("table/{}", scope.name()))],
        ),
    ]
}

/// Of this app, and made for a branch.
fn tagged(scope: &Scope<'_>, whose: &str) -> Value {
    let (of, is) = (format!("{whose}/{APP}"), format!("{whose}/{PREVIEW}"));
    json!({ "StringEquals": { of: scope.app.app }, "Null": { is: "false" } })
}

/// What CloudFormation does for the flow of a branch, which it makes as who asks.
fn flows(scope: &Scope<'_>) -> Vec<Grant> {
    let (platform, label, app) = (scope.platform(), scope.label, &scope.app.app);
    let log = format!("log-group:/aws/vendedlogs/states/{platform}/{label}/{app}/flow/{OWN}*");
    vec![
        grant(
            "Flows",
            "The state machine of a branch",
            "states:CreateStateMachine states:DeleteStateMachine states:DescribeStateMachine states:ListTagsForResource \
             states:TagResource states:UntagResource states:UpdateStateMachine",
            [flow_arn(scope)],
        ),
        grant(
            "LogsOfFlows",
            "The log of a branch's flow",
            "logs:AssociateKmsKey logs:CreateLogGroup logs:DeleteLogGroup logs:DeleteRetentionPolicy logs:DisassociateKmsKey \
             logs:GetDataProtectionPolicy logs:ListTagsForResource logs:PutRetentionPolicy logs:TagResource logs:UntagResource",
            [arn("logs", &log)],
        ),
        grant(
            "LendFlowRole",
            "The flow of a branch has a role that is there",
            "iam:PassRole",
            [global_arn(
                "iam",
                &format!("role/{platform}/flow/{}", flow_role(scope)),
            )],
        )
        .when(json!({ "StringEquals": { "iam:PassedToService": "states.amazonaws.com" } })),
    ]
}

fn reads(scope: &Scope<'_>, targets: &[Label]) -> Vec<Grant> {
    let bucket = |label: &Label| {
        format!(
            "arn:${{AWS::Partition}}:s3:::{}-{label}-templates-${{AWS::AccountId}}-${{AWS::Region}}",
            scope.platform()
        )
    };
    let (own, app) = (bucket(scope.label), &scope.app.app);
    let mut keys = vec![scope.shared("KeyArn")];
    let others = targets.iter().filter(|label| *label != scope.label);
    keys.extend(others.map(|label| import(&format!("{}-{label}", scope.platform()), "KeyArn")));
    let templates = || {
        targets
            .iter()
            .map(|label| sub(format!("{}/stacks/{OWN}/*", bucket(label))))
    };
    let flows = || [sub(format!("{own}/stacks/{OWN}/*"))];
    let mut read: Vec<Value> = ["receiver/*".to_owned(), format!("branches/{app}/*")]
        .iter()
        .map(|path| sub(format!("{own}/{path}")))
        .chain(templates())
        .chain(flows())
        .collect();
    let mut written: Vec<Value> = [sub(format!("{own}/packer/{app}/{OWN}/*"))]
        .into_iter()
        .chain(templates())
        .chain(flows())
        .collect();
    read.dedup();
    written.dedup();
    vec![
        grant(
            "Read",
            "This program, the files, and templates as CloudFormation reads them",
            "s3:GetObject",
            read,
        ),
        grant("ListFiles", "Which files there are", "s3:ListBucket", [sub(own)])
            .when(json!({ "StringLike": { "s3:prefix": format!("branches/{app}/*") } })),
        grant(
            "Write",
            "Templates, and what a branch's image is baked from",
            "s3:PutObject",
            written,
        ),
        grant(
            "Encrypt",
            "Buckets, table and flows are encrypted",
            "kms:Decrypt kms:DescribeKey kms:GenerateDataKey",
            keys,
        ),
        grant(
            "Logs",
            "What it says goes into its log group",
            "logs:CreateLogStream logs:PutLogEvents",
            [att("BranchesLogGroup.Arn")],
        ),
    ]
}

/// The state machines of branches.
fn flow_arn(scope: &Scope<'_>) -> Value {
    let (platform, label, app) = (scope.platform(), scope.label, &scope.app.app);
    arn(
        "states",
        &format!("stateMachine:{platform}-flow-{label}-{app}-{OWN}"),
    )
}

/// Says which program the build runs, and from which files.
pub(in crate::synth) fn run_by(project: &mut Resource, key: &str, architecture: &str, files: &str) {
    let (kind, image) = super::projects::image(match architecture {
        "x86_64" => Architecture::X86_64,
        _ => Architecture::Arm64,
    });
    let environment = &mut project.properties["Environment"];
    environment["Type"] = kind.into();
    environment["Image"] = image.into();
    for variable in environment["EnvironmentVariables"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        match variable["Name"].as_str() {
            Some("VEND_PROGRAM") => variable["Value"] = key.into(),
            Some("VEND_FILES") => variable["Value"] = files.into(),
            _ => {}
        }
    }
}
