//! What the registry's schemas say that CloudFormation calls for a type, held against the role that it makes environments with.
//!
//! Source: `handlers` and `tagging` of the schemas in cfn-lint's package (those of eu-central-1), read where that is installed. What
//! the role does not have of it stands here with the reason why no environment needs it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    handlers::{HANDLERS, LINKED, is_allowed, role},
    tools::program,
};

/// A type, or all of them; what is not needed of it, perhaps with a star at the end; and why.
const LEFT_OUT: [(&str, &str, &str); 47] = [
    (
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "cloudwatch:*",
        "alarms of policies are made by the service's own role",
    ),
    (
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "iam:PassRole",
        "ECS scales by the service's own role",
    ),
    (
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "lambda:*",
        "no function is scaled",
    ),
    (
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "cloudwatch:GetMetricData",
        "nothing is scaled by forecast",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "autoscaling:AttachLoadBalancers",
        "no classic load balancers",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "autoscaling:DetachLoadBalancers",
        "no classic load balancers",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "autoscaling:AttachTrafficSources",
        "target groups are named as such",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "autoscaling:DetachTrafficSources",
        "target groups are named as such",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "autoscaling:CancelInstanceRefresh",
        "the update policy replaces hosts",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "autoscaling:StartInstanceRefresh",
        "the update policy replaces hosts",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "cloudwatch:PutMetricAlarm",
        "alarms are resources of their own",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "ec2:Get*",
        "of these it has ec2:GetLaunchTemplateData",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "managed-fleets:*",
        "hosts are not in a managed fleet",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "ssm:Get*",
        "images are parameters of the stack, of which it has ssm:GetParameters",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        "vpc-lattice:*",
        "no service network",
    ),
    (
        "AWS::AutoScaling::LifecycleHook",
        "iam:PassRole",
        "hooks tell nobody",
    ),
    (
        "AWS::AutoScaling::ScalingPolicy",
        "cloudwatch:GetMetricData",
        "nothing is scaled by forecast",
    ),
    (
        "AWS::CertificateManager::Certificate",
        "acm-pca:*",
        "no private authority",
    ),
    (
        "AWS::CertificateManager::Certificate",
        "acm:UpdateCertificateOptions",
        "certificates are logged, as by default",
    ),
    (
        "AWS::CodeDeploy::DeploymentGroup",
        "codedeploy:*",
        "no group has a deployment of its own: flows begin them",
    ),
    (
        "AWS::ECS::CapacityProvider",
        "iam:PassRole",
        "capacity is a group of hosts, not managed instances",
    ),
    (
        "AWS::ECS::Cluster",
        "ecs:PutAccountSetting*",
        "settings of the account are its owner's",
    ),
    (
        "AWS::ECS::Service",
        "iam:PassRole",
        "services have ECS's own role",
    ),
    (
        "*",
        "cognito-idp:DescribeUserPoolClient",
        "visitors sign in by OIDC",
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "elasticloadbalancing:ModifyCapacityReservation",
        "no capacity is reserved",
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "elasticloadbalancing:ModifyIpPools",
        "addresses are AWS's",
    ),
    (
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        "elasticloadbalancing:RegisterTargets",
        "groups and services register their own",
    ),
    (
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        "elasticloadbalancing:DeregisterTargets",
        "groups and services register their own",
    ),
    (
        "AWS::IAM::Role",
        "iam:DeleteRolePermissionsBoundary",
        "no role ever leaves the boundary",
    ),
    (
        "AWS::IAM::Role",
        "iam:PutRolePermissionsBoundary",
        "a role has its boundary from the first, and no other",
    ),
    ("AWS::IAM::Role", "iam:ListRoleTags", "iam:GetRole tells the tags"),
    (
        "AWS::Logs::LogGroup",
        "firehose:TagDeliveryStream",
        "nothing is delivered elsewhere",
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:*",
        "no policies, indexes, data protection or tokens of a group are set",
    ),
    (
        "AWS::Logs::LogGroup",
        "s3:REST.PUT.OBJECT",
        "nothing is delivered elsewhere",
    ),
    (
        "AWS::RDS::DBCluster",
        "iam:PassRole",
        "its machines have the role of monitoring",
    ),
    (
        "AWS::RDS::DBCluster",
        "rds:*",
        "it is made new: from no snapshot or time, in no global cluster, with no roles and no HTTP endpoint",
    ),
    (
        "AWS::RDS::DBInstance",
        "rds:AddRoleToDBInstance",
        "databases have no roles",
    ),
    (
        "AWS::RDS::DBInstance",
        "rds:RemoveRoleFromDBInstance",
        "databases have no roles",
    ),
    (
        "AWS::RDS::DBInstance",
        "rds:CreateDBInstanceReadReplica",
        "no replicas but Aurora's",
    ),
    (
        "AWS::RDS::DBInstance",
        "rds:PromoteReadReplica",
        "no replicas but Aurora's",
    ),
    ("AWS::RDS::DBInstance", "rds:RestoreDBInstance*", "it is made new"),
    (
        "AWS::RDS::DBInstance",
        "rds:StartDBInstanceAutomatedBackupsReplication",
        "backups stay in their region",
    ),
    (
        "AWS::RDS::DBInstance",
        "rds:StopDBInstanceAutomatedBackupsReplication",
        "backups stay in their region",
    ),
    (
        "AWS::Route53::RecordSet",
        "route53:ListHostedZones",
        "zones are named by their ids",
    ),
    (
        "AWS::SecretsManager::RotationSchedule",
        "*",
        "RDS changes passwords itself, without a function",
    ),
    (
        "AWS::StepFunctions::StateMachine",
        "kms:*",
        "that of passwords holds none, and is encrypted with a key of AWS's own",
    ),
    (
        "AWS::StepFunctions::StateMachine",
        "s3:*",
        "what it does stands in the template",
    ),
];

/// Where cfn-lint keeps the registry's schemas.
pub fn schemas() -> Option<PathBuf> {
    let bin = program("clients/bin/cfn-lint")?;
    let lib = bin.parent()?.parent()?.join("lib");
    let mut pythons = fs::read_dir(lib).ok()?.filter_map(Result::ok);
    pythons.find_map(|own| {
        let path = own.path().join("site-packages/cfnlint/data/schemas");
        path.exists().then_some(path)
    })
}

pub fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What is called for a type when it is made, changed, read and taken away; listing all there are is nothing of a stack.
fn called(schema: &Value) -> BTreeSet<String> {
    let handlers =
        ["create", "read", "update", "delete"].map(|deed| &schema["handlers"][deed]["permissions"]);
    let all = handlers.into_iter().chain([&schema["tagging"]["permissions"]]);
    all.filter_map(Value::as_array)
        .flatten()
        .map(|own| own.as_str().unwrap().to_owned())
        .collect()
}

pub fn is_left_out(entry: &(&str, &str, &str), kind: &str, action: &str) -> bool {
    let of_type = entry.0 == "*" || entry.0 == kind;
    of_type
        && entry
            .1
            .strip_suffix('*')
            .map_or(entry.1 == action, |start| action.starts_with(start))
}

#[test]
fn what_the_registry_says_is_allowed_or_left_out_for_a_reason() {
    let Some(directory) = schemas() else { return };
    let index = read(&directory.join("providers/eu-central-1.json"));
    let (document, _) = role();
    let (mut missing, mut used, mut silent) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (kind, resources, _) in &HANDLERS {
        let file = format!("resources/{}.json", index[*kind].as_str().unwrap());
        let called = called(&read(&directory.join(file)));
        if called.is_empty() {
            silent.push(*kind);
        }
        for action in called {
            // Any of them may be the first that wants the service's own role.
            if is_allowed(&document, &action, resources) || is_allowed(&document, &action, &[LINKED]) {
                continue;
            }
            match LEFT_OUT
                .iter()
                .position(|entry| is_left_out(entry, kind, &action))
            {
                Some(entry) => drop(used.insert(entry)),
                None => missing.push(format!("{kind} {action}")),
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    let unused: Vec<_> = (0..LEFT_OUT.len())
        .filter(|entry| !used.contains(entry))
        .map(|entry| LEFT_OUT[entry])
        .collect();
    assert_eq!(
        unused,
        [],
        "these are allowed, or nobody says that they are needed"
    );
    assert_eq!(
        silent,
        ["AWS::ElasticLoadBalancingV2::ListenerCertificate"],
        "only for these it stands in `HANDLERS` alone"
    );
}
