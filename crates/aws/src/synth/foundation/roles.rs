//! Roles per duty, beside those that stand where they are used.

use serde_json::{Value, json};

use super::Scope;
use crate::synth::{
    policy::{Grant, Role, arn, grant},
    template::{Template, att, re, sub},
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    deploy(template, scope);
    release(template, scope);
    audit(template, scope);
}

/// `NAME-*`, below which all stacks of environments are, and so what CloudFormation names after them.
fn stacks(scope: &Scope<'_>) -> String {
    format!("{}-*", scope.name())
}

fn groups(scope: &Scope<'_>) -> Value {
    arn(
        "autoscaling",
        &format!("autoScalingGroup:*:autoScalingGroupName/{}", stacks(scope)),
    )
}

fn deploy(template: &mut Template, scope: &Scope<'_>) {
    let any = || [json!("*")];
    let own = json!({ "StringLike": { "aws:ResourceTag/aws:cloudformation:stack-name": stacks(scope) } });
    let role = Role::of_service("DeployRole", "CodeDeploy: puts revisions on hosts.", "codedeploy.amazonaws.com")
        .named(json!(format!("{}-deploy", scope.name())))
        .grant(grant(
            "LookAtHosts",
            "Finds the hosts of a group, their state and their load balancer; these calls know no single resources",
            "autoscaling:DescribeAutoScalingGroups autoscaling:DescribeLifecycleHooks autoscaling:DescribePolicies \
             autoscaling:DescribeScheduledActions ec2:DescribeInstances ec2:DescribeInstanceStatus \
             elasticloadbalancing:DescribeTargetGroupAttributes elasticloadbalancing:DescribeTargetGroups \
             elasticloadbalancing:DescribeTargetHealth",
            any(),
        ))
        .grant(grant(
            "HoldNewHosts",
            "A host that Auto Scaling starts waits for its revision: a lifecycle hook of CodeDeploy's own",
            "autoscaling:CompleteLifecycleAction autoscaling:DeleteLifecycleHook autoscaling:PutLifecycleHook \
             autoscaling:RecordLifecycleActionHeartbeat autoscaling:ResumeProcesses autoscaling:SuspendProcesses",
            [groups(scope)],
        ))
        .grant(
            grant(
                "TakeTraffic",
                "A host that is deployed in place gets no traffic meanwhile",
                "elasticloadbalancing:DeregisterTargets elasticloadbalancing:RegisterTargets",
                [arn("elasticloadbalancing", "targetgroup/*")],
            )
            .when(own),
        )
        .grant(grant(
            "ReadAlarms",
            "A deployment stops when an alarm of its environment rings",
            "cloudwatch:DescribeAlarms",
            any(),
        ))
        .grant(grant("Tell", "Failures are told", "sns:Publish", [re("BuildsTopic"), re("OperationsTopic")]))
        .grant(grant("TellEncrypted", "The topics are encrypted", "kms:Decrypt kms:GenerateDataKey", [att("Key.Arn")]));
    template.add(role.resource(scope.platform, re("Boundary")));
    template.export("DeployRole", "CodeDeploy's role", att("DeployRole.Arn"));
}

/// What a pipeline does here, from this account or from the one that builds.
fn release(template: &mut Template, scope: &Scope<'_>) {
    let account = scope
        .source
        .map_or_else(|| "${AWS::AccountId}".to_owned(), ToString::to_string);
    let trust = json!({
        "Effect": "Allow",
        "Principal": { "AWS": sub(format!("arn:${{AWS::Partition}}:iam::{account}:root")) },
        "Action": "sts:AssumeRole",
        "Condition": { "ArnLike": {
            "aws:PrincipalArn": sub(format!("arn:${{AWS::Partition}}:iam::{account}:role/{}/flow/*", scope.platform)),
        } },
    });
    let role = Role::new(
        "ReleaseRole",
        "Pipelines: move a release into an environment of this foundation, and nothing else.",
        trust,
    )
    .named(json!(format!("{}-release", scope.name())))
    .grants(release_grants(scope));
    let role = match scope.options.network.wavelength_zones.is_empty() {
        true => role,
        false => role.grant(count_grant(scope)),
    };
    let role = match scope.source {
        Some(_) => role.grants(copy_grants(scope)),
        None => role,
    };
    template.add(role.resource(scope.platform, re("Boundary")));
    template.export(
        "ReleaseRole",
        "What pipelines become here",
        att("ReleaseRole.Arn"),
    );
}

fn release_grants(scope: &Scope<'_>) -> Vec<Grant> {
    let stacks = stacks(scope);
    vec![
        grant(
            "MoveTraffic",
            "Image, number of hosts and weight of each half of an environment are parameters of its stack",
            "cloudformation:DescribeStacks cloudformation:UpdateStack",
            [arn("cloudformation", &format!("stack/{stacks}/*"))],
        ),
        grant(
            "Deploy",
            "CodeDeploy puts the revision on the hosts of one half",
            "codedeploy:CreateDeployment codedeploy:GetApplicationRevision codedeploy:GetDeployment \
             codedeploy:GetDeploymentConfig codedeploy:RegisterApplicationRevision",
            [
                arn("codedeploy", &format!("application:{stacks}")),
                arn("codedeploy", &format!("deploymentgroup:{stacks}")),
                arn("codedeploy", "deploymentconfig:*"),
            ],
        ),
        grant(
            "KeepNumberOfHosts",
            "The new hosts are as many as the old ones before they get the traffic, and within the same bounds",
            "autoscaling:SetDesiredCapacity autoscaling:UpdateAutoScalingGroup",
            [groups(scope)],
        ),
        grant(
            "KeepNumberOfContainers",
            "So are the new containers",
            "ecs:DescribeServices ecs:UpdateService",
            [arn("ecs", &format!("service/{stacks}/*"))],
        ),
        grant(
            "KeepBoundsOfContainers",
            "And within the same bounds; a target's name is random, and the service it is of is named in the call only",
            "application-autoscaling:RegisterScalableTarget",
            [arn("application-autoscaling", "scalable-target/*")],
        )
        .when(json!({ "StringEquals": {
            "application-autoscaling:service-namespace": "ecs",
            "application-autoscaling:scalable-dimension": "ecs:service:DesiredCount",
        } })),
        grant(
            "MigrateOnHosts",
            "A release's migration runs on one of its new hosts",
            "ssm:SendCommand",
            [arn("ec2", "instance/*")],
        )
        .when(json!({ "StringLike": { "ssm:resourceTag/vend:stack": stacks } })),
        grant(
            "MigrateByShell",
            "The migration is a script",
            "ssm:SendCommand",
            [sub(
                "arn:${AWS::Partition}:ssm:${AWS::Region}::document/AWS-RunShellScript",
            )],
        ),
        grant(
            "Validate",
            "Traffic moves when data is migrated, the new hosts are healthy and no alarm rings; these calls know no single resources",
            "application-autoscaling:DescribeScalableTargets autoscaling:DescribeAutoScalingGroups cloudwatch:DescribeAlarms \
             ec2:DescribeImages elasticloadbalancing:DescribeTargetHealth ssm:GetCommandInvocation",
            [json!("*")],
        ),
    ]
}

/// Where there is no load balancer, the records of hosts say how many are well.
fn count_grant(scope: &Scope<'_>) -> Grant {
    let zone = scope.options.zone.as_ref().map_or_else(
        || sub("arn:${AWS::Partition}:route53:::hostedzone/${Zone}"),
        |zone| sub(format!("arn:${{AWS::Partition}}:route53:::hostedzone/{zone}")),
    );
    grant(
        "CountHosts",
        "Hosts in Wavelength Zones that are well keep a record",
        "route53:ListResourceRecordSets",
        [zone],
    )
}

/// An image of another account is copied under the key of this one.
fn copy_grants(scope: &Scope<'_>) -> Vec<Grant> {
    let source = scope.source.map_or_else(String::new, ToString::to_string);
    let region = &scope.options.region;
    vec![
        grant(
            "CopyImage",
            "An image that was baked in the account of the pipeline becomes one of this account",
            "ec2:CopyImage ec2:CopySnapshot ec2:CreateTags",
            [
                sub(format!("arn:${{AWS::Partition}}:ec2:{region}::image/*")),
                sub(format!("arn:${{AWS::Partition}}:ec2:{region}::snapshot/*")),
            ],
        ),
        grant(
            "CopyImageKeys",
            "The copy is read with the key there and written with the key here",
            "kms:Decrypt kms:DescribeKey kms:Encrypt kms:GenerateDataKeyWithoutPlaintext kms:ReEncryptFrom kms:ReEncryptTo",
            [
                att("Key.Arn"),
                sub(format!("arn:${{AWS::Partition}}:kms:{region}:{source}:key/*")),
            ],
        ),
        grant(
            "CopyImageGrants",
            "EC2 copies for as long as a grant lets it",
            "kms:CreateGrant",
            [
                att("Key.Arn"),
                sub(format!("arn:${{AWS::Partition}}:kms:{region}:{source}:key/*")),
            ],
        )
        .when(json!({ "Bool": { "kms:GrantIsForAWSResource": "true" } })),
    ]
}

fn audit(template: &mut Template, scope: &Scope<'_>) {
    let trust = json!({
        "Effect": "Allow",
        "Principal": { "AWS": sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root") },
        "Action": "sts:AssumeRole",
        "Condition": { "Bool": { "aws:MultiFactorAuthPresent": "true" } },
    });
    let read = grant(
        "ReadEvidence",
        "The trail's files, their digests, and access logs",
        "s3:GetBucketVersioning s3:GetObject s3:GetObjectVersion s3:ListBucket s3:ListBucketVersions",
        [att("LogsBucket.Arn"), sub("${LogsBucket.Arn}/*")],
    );
    let decrypt = grant(
        "DecryptEvidence",
        "The trail's files are encrypted",
        "kms:Decrypt",
        [att("Key.Arn")],
    );
    let search = grant(
        "SearchLogs",
        "Logs of the foundation and its environments",
        "logs:FilterLogEvents logs:GetLogEvents logs:GetQueryResults logs:StartQuery",
        [arn(
            "logs",
            &format!("log-group:/{}/{}/*", scope.platform, scope.label),
        )],
    );
    let stop = grant(
        "StopSearch",
        "A search under way is no log group's, and only its number names it",
        "logs:StopQuery",
        [json!("*")],
    );
    let role = Role::new(
        "AuditRole",
        "Auditors, with a second factor: read the evidence, change nothing.",
        trust,
    )
    .named(json!(format!("{}-audit", scope.name())))
    .grants([read, decrypt, search, stop]);
    template.add(role.resource(scope.platform, re("Boundary")));
    template.export("AuditRole", "What auditors become", att("AuditRole.Arn"));
}
