//! The boundary: what no role of the platform can do, whatever its own policy says.
//!
//! A boundary grants nothing. It lets through the services that the platform uses, and of IAM only what makes further
//! roles inside the same boundary: a role that could make a stronger one would have its permissions.

use serde_json::{Value, json};

use super::Scope;
use crate::synth::{
    policy::{document, global_arn},
    template::{Resource, Template, re, sub},
};

/// Services that roles of the platform may use at all.
const SERVICES: [&str; 30] = [
    "acm",
    "apigateway",
    "application-autoscaling",
    "autoscaling",
    "cloudformation",
    "cloudwatch",
    "codebuild",
    "codedeploy",
    "codedeploy-commands-secure",
    "codeconnections",
    "dynamodb",
    "ec2",
    "ec2messages",
    "ecr",
    "ecs",
    "elasticloadbalancing",
    "events",
    "kms",
    "lambda",
    "logs",
    "rds",
    "route53",
    "s3",
    "secretsmanager",
    "sns",
    "ssm",
    "ssmmessages",
    "states",
    "sts",
    "xray",
];

/// What roles of the platform may call of IAM at all: CloudFormation makes and lends the roles of hosts and tasks.
const IDENTITIES: [&str; 19] = [
    "iam:AddRoleToInstanceProfile",
    "iam:AttachRolePolicy",
    "iam:CreateInstanceProfile",
    "iam:CreateRole",
    "iam:CreateServiceLinkedRole",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:Get*",
    "iam:List*",
    "iam:PassRole",
    "iam:PutRolePolicy",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagRole",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateRole",
    "iam:UpdateRoleDescription",
];

/// Calls that make an identity or change what it may do, and that can be asked for the boundary of their identity.
const ASKED: [&str; 8] = [
    "iam:AttachRolePolicy",
    "iam:CreateRole",
    "iam:CreateUser",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
    "iam:PutUserPermissionsBoundary",
];

/// Calls that change or lend an identity: only for roles below the platform's path, all of which have it. Most cannot be asked;
/// those that can be are asked for a boundary that one of them could put on anybody's role first.
const PATHED: [&str; 13] = [
    "iam:AttachRolePolicy",
    "iam:CreateRole",
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:PassRole",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
    "iam:TagRole",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
    "iam:UpdateRole",
    "iam:UpdateRoleDescription",
];

/// Calls that nothing of the platform has to make: people come by federation, and evidence stays. No policy is changed, this
/// one or another: who can change an administrator's is one.
const NEVER: &[&str] = &[
    "cloudtrail:DeleteTrail",
    "cloudtrail:PutEventSelectors",
    "cloudtrail:StopLogging",
    "cloudtrail:UpdateTrail",
    "iam:AddUserToGroup",
    "iam:AttachGroupPolicy",
    "iam:AttachUserPolicy",
    "iam:Create*AccessKey*",
    "iam:Create*Credential",
    "iam:CreateGroup",
    "iam:Create*Provider",
    "iam:CreateLoginProfile",
    "iam:CreatePolicy*",
    "iam:DeactivateMFADevice",
    "iam:Delete*PermissionsBoundary",
    "iam:DeletePolicy*",
    "iam:DeleteUser",
    "iam:DeleteUserPolicy",
    "iam:DetachGroupPolicy",
    "iam:DetachUserPolicy",
    "iam:PutGroupPolicy",
    "iam:PutUserPolicy",
    "iam:SetDefaultPolicyVersion",
    "iam:Update*Provider*",
    "iam:UpdateAccessKey",
    "iam:UpdateLoginProfile",
    "kms:DisableKey",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
    "organizations:*",
    "s3:DeleteBucketPolicy",
    "s3:PutAccountPublicAccessBlock",
    "s3:PutBucketAcl",
    "s3:PutBucketPolicy",
    "s3:PutBucketPublicAccessBlock",
    "secretsmanager:PutResourcePolicy",
];

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let own = name(scope);
    let properties = json!({
        "ManagedPolicyName": own,
        "Path": format!("/{}/", scope.platform),
        "Description": "What no role of the platform can do, whatever its own policy says",
        "PolicyDocument": document(statements(scope, &own)),
    });
    let grants_nothing = "A boundary grants nothing: it limits what the policies of roles grant, each of which names its actions and why.";
    let mut policy = Resource::new(
        "Boundary",
        "AWS::IAM::ManagedPolicy",
        "What no role can do, whatever its own policy says.",
        properties,
    )
    .skip(
        "W3037",
        "Patterns such as iam:Create*Provider stand for all actions of their kind, also those of tomorrow.",
    );
    for rule in [
        "CKV_AWS_107",
        "CKV_AWS_108",
        "CKV_AWS_109",
        "CKV_AWS_110",
        "CKV_AWS_111",
    ] {
        policy = policy.skip(rule, grants_nothing);
    }
    template.add(policy);
    template.export("Boundary", "The boundary of all roles", re("Boundary"));
}

/// `vend-production-boundary`
fn name(scope: &Scope<'_>) -> String {
    format!("{}-boundary", scope.name())
}

fn statements(scope: &Scope<'_>, own: &str) -> Vec<Value> {
    // Written out, because a policy cannot refer to itself.
    let boundary = global_arn("iam", &format!("policy/{}/{own}", scope.platform));
    let below = global_arn("iam", &format!("role/{}/*", scope.platform));
    let linked = global_arn("iam", "role/aws-service-role/*");
    let anywhere = sub(format!(
        "arn:${{AWS::Partition}}:iam::*:role/{}/*",
        scope.platform
    ));
    let services: Vec<String> = SERVICES.iter().map(|service| format!("{service}:*")).collect();
    vec![
        json!({ "Sid": "ServicesOfThePlatform", "Effect": "Allow", "Action": services, "Resource": "*" }),
        json!({ "Sid": "RolesOfThePlatform", "Effect": "Allow", "Action": IDENTITIES, "Resource": "*" }),
        json!({
            "Sid": "NoIdentityWithoutThisBoundary",
            "Effect": "Deny",
            "Action": ASKED,
            "Resource": "*",
            "Condition": { "StringNotEquals": { "iam:PermissionsBoundary": boundary } },
        }),
        json!({
            "Sid": "NoIdentityOfOthers", "Effect": "Deny", "Action": PATHED, "NotResource": [below, linked],
        }),
        // Many a role is lent to its whole account: whoever became an administrator's would be outside of the boundary. Flows
        // become the release roles of their targets, in other accounts too.
        json!({
            "Sid": "NobodyElse", "Effect": "Deny", "Action": "sts:AssumeRole", "NotResource": anywhere,
        }),
        json!({ "Sid": "PeopleAndEvidence", "Effect": "Deny", "Action": NEVER, "Resource": "*" }),
    ]
}
