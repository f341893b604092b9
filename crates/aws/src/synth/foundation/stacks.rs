//! CloudFormation's role: what the stacks of environments are made with.
//!
//! Whoever updates a stack lends CloudFormation this role, and needs none of its permissions.

use serde_json::{Value, json};

use super::Scope;
use crate::synth::{
    policy::{Grant, Role, arn, global_arn, grant, managed},
    template::{Template, att, re, sub},
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let duties = [
        ("StacksHosts", "Hosts, alarms and logs.", hosts(scope)),
        (
            "StacksTraffic",
            "Load balancing, names and certificates.",
            traffic(scope),
        ),
        ("StacksData", "Databases and what encrypts them.", data(scope)),
        (
            "StacksReleases",
            "CodeDeploy, rules and machines.",
            release(scope),
        ),
        (
            "StacksContainers",
            "Containers and their images.",
            containers(scope),
        ),
        ("StacksIdentities", "Roles of hosts and tasks.", identities(scope)),
    ];
    let about = "CloudFormation: makes and changes environments.";
    let mut role = Role::of_service("StacksRole", about, "cloudformation.amazonaws.com")
        .named(json!(format!("{}-stacks", scope.name())));
    for (id, about, grants) in duties {
        template.add(managed(id, about, scope.platform, &grants));
        role = role.attach(re(id));
    }
    template.add(role.resource(scope.platform, re("Boundary")));
    template.export(
        "StacksRole",
        "What environments are made with",
        att("StacksRole.Arn"),
    );
}

/// Below this, CloudFormation names what a stack of an environment holds.
fn below(scope: &Scope<'_>) -> String {
    format!("{}-*", scope.name())
}

/// How the names of roles and profiles of this foundation's environments begin. CloudFormation makes them from a stack's name and
/// a resource's id, and has room for so many characters of the first; a foundation's own name has no more.
/// Source: names that it made, <https://github.com/KensioSoftware/yulin/issues/1113>
fn named_after(scope: &Scope<'_>) -> String {
    const KEPT: usize = 25;
    let mut name = format!("{}-", scope.name());
    name.truncate(KEPT);
    name
}

fn any() -> [Value; 1] {
    [json!("*")]
}

fn hosts(scope: &Scope<'_>) -> Vec<Grant> {
    let below = below(scope);
    vec![
        grant(
            "Look",
            "CloudFormation reads back what it makes; read calls know no single resources",
            "application-autoscaling:Describe* autoscaling:Describe* cloudwatch:DescribeAlarms ec2:Describe* \
             ec2:GetLaunchTemplateData elasticloadbalancing:Describe* iam:ListRoles kms:DescribeKey logs:DescribeLogGroups \
             logs:DescribeMetricFilters rds:Describe* route53:GetChange",
            any(),
        ),
        grant(
            "LookUpImages",
            "The image of an environment's first day is the newest of its base, by a public parameter",
            "ssm:GetParameters",
            [sub(
                "arn:${AWS::Partition}:ssm:${AWS::Region}::parameter/aws/service/*",
            )],
        ),
        grant(
            "Groups",
            "The hosts of an environment, and how many there are",
            "autoscaling:CreateAutoScalingGroup autoscaling:CreateOrUpdateTags autoscaling:DeleteAutoScalingGroup \
             autoscaling:DeleteLifecycleHook autoscaling:DeleteNotificationConfiguration autoscaling:DeletePolicy autoscaling:DeleteScheduledAction autoscaling:DeleteTags \
             autoscaling:DeleteWarmPool autoscaling:PutLifecycleHook autoscaling:PutNotificationConfiguration \
             autoscaling:PutScalingPolicy autoscaling:TerminateInstanceInAutoScalingGroup \
             autoscaling:PutScheduledUpdateGroupAction autoscaling:PutWarmPool autoscaling:ResumeProcesses \
             autoscaling:SuspendProcesses autoscaling:UpdateAutoScalingGroup autoscaling:EnableMetricsCollection \
             autoscaling:DisableMetricsCollection autoscaling:AttachLoadBalancerTargetGroups \
             autoscaling:DetachLoadBalancerTargetGroups",
            [arn(
                "autoscaling",
                &format!("autoScalingGroup:*:autoScalingGroupName/{below}"),
            )],
        ),
        grant(
            "HostsStart",
            "Launch templates, and security groups of hosts and data; the network itself is not theirs to change",
            "ec2:AuthorizeSecurityGroupEgress ec2:AuthorizeSecurityGroupIngress ec2:CreateLaunchTemplate \
             ec2:CreateLaunchTemplateVersion ec2:CreateSecurityGroup ec2:CreateTags ec2:DeleteLaunchTemplate \
             ec2:DeleteLaunchTemplateVersions ec2:DeleteSecurityGroup ec2:ModifyLaunchTemplate ec2:RevokeSecurityGroupEgress \
             ec2:RevokeSecurityGroupIngress ec2:RunInstances ec2:DeleteTags ec2:UpdateSecurityGroupRuleDescriptionsEgress \
             ec2:UpdateSecurityGroupRuleDescriptionsIngress",
            [
                arn("ec2", "instance/*"),
                arn("ec2", "launch-template/*"),
                arn("ec2", "network-interface/*"),
                arn("ec2", "security-group/*"),
                arn("ec2", "security-group-rule/*"),
                arn("ec2", "subnet/*"),
                arn("ec2", "volume/*"),
                arn("ec2", "vpc/*"),
                sub("arn:${AWS::Partition}:ec2:${AWS::Region}::image/*"),
                sub("arn:${AWS::Partition}:ec2:${AWS::Region}::snapshot/*"),
            ],
        ),
        grant(
            "Alarms",
            "What rings when an environment is not well, and what it counts",
            "cloudwatch:DeleteAlarms cloudwatch:ListTagsForResource cloudwatch:PutMetricAlarm cloudwatch:TagResource cloudwatch:UntagResource",
            [arn("cloudwatch", "alarm:*")],
        ),
        grant(
            "Logs",
            "The logs of an environment",
            "logs:AssociateKmsKey logs:CreateLogGroup logs:DeleteLogGroup logs:DeleteMetricFilter logs:DeleteRetentionPolicy \
             logs:DisassociateKmsKey logs:GetDataProtectionPolicy logs:ListTagsForResource logs:PutMetricFilter \
             logs:PutRetentionPolicy logs:TagResource logs:UntagResource",
            [arn(
                "logs",
                &format!("log-group:/{}/{}/*", scope.platform, scope.label),
            )],
        ),
    ]
}

fn traffic(scope: &Scope<'_>) -> Vec<Grant> {
    let zone = scope.options.zone.as_ref().map_or_else(
        || sub("arn:${AWS::Partition}:route53:::hostedzone/${Zone}"),
        |zone| sub(format!("arn:${{AWS::Partition}}:route53:::hostedzone/{zone}")),
    );
    vec![
        grant(
            "Balancing",
            "Target groups, rules, and load balancers of one environment alone",
            "elasticloadbalancing:AddListenerCertificates elasticloadbalancing:AddTags elasticloadbalancing:CreateListener \
             elasticloadbalancing:CreateLoadBalancer elasticloadbalancing:CreateRule elasticloadbalancing:CreateTargetGroup \
             elasticloadbalancing:DeleteListener elasticloadbalancing:DeleteLoadBalancer elasticloadbalancing:DeleteRule \
             elasticloadbalancing:DeleteTargetGroup elasticloadbalancing:ModifyListener elasticloadbalancing:ModifyListenerAttributes \
             elasticloadbalancing:ModifyLoadBalancerAttributes elasticloadbalancing:ModifyRule \
             elasticloadbalancing:ModifyTargetGroup elasticloadbalancing:ModifyTargetGroupAttributes \
             elasticloadbalancing:RemoveListenerCertificates elasticloadbalancing:RemoveTags \
             elasticloadbalancing:SetIpAddressType elasticloadbalancing:SetRulePriorities elasticloadbalancing:SetSecurityGroups elasticloadbalancing:SetSubnets",
            [
                arn("elasticloadbalancing", "listener-rule/app/*"),
                arn("elasticloadbalancing", "listener/app/*"),
                arn("elasticloadbalancing", "listener/net/*"),
                arn("elasticloadbalancing", "loadbalancer/app/*"),
                arn("elasticloadbalancing", "loadbalancer/net/*"),
                arn("elasticloadbalancing", "targetgroup/*"),
            ],
        ),
        grant(
            "Names",
            "Records in the foundation's zone",
            "route53:ChangeResourceRecordSets route53:GetHostedZone route53:ListResourceRecordSets",
            [zone],
        ),
        grant(
            "CustomersNames",
            "Records and proofs of names that customers bring, in zones of this account",
            "route53:ChangeResourceRecordSets route53:GetHostedZone route53:ListResourceRecordSets",
            [sub("arn:${AWS::Partition}:route53:::hostedzone/*")],
        )
        .when(json!({ "ForAllValues:StringEquals": { "route53:ChangeResourceRecordSetsRecordTypes": ["A", "AAAA", "CNAME"] } })),
        grant(
            "Certificates",
            "Certificates of names that customers bring",
            "acm:AddTagsToCertificate acm:DeleteCertificate acm:DescribeCertificate acm:ListTagsForCertificate \
             acm:RemoveTagsFromCertificate acm:RequestCertificate",
            [arn("acm", "certificate/*")],
        ),
    ]
}

fn data(scope: &Scope<'_>) -> Vec<Grant> {
    let below = below(scope);
    vec![
        grant(
            "Databases",
            "The database of an environment",
            "rds:AddTagsToResource rds:CreateDBCluster rds:CreateDBClusterParameterGroup rds:CreateDBInstance \
             rds:CreateDBParameterGroup rds:CreateDBSnapshot rds:CreateDBClusterSnapshot rds:CreateDBSubnetGroup \
             rds:DeleteDBCluster rds:DeleteDBClusterParameterGroup rds:DeleteDBInstance rds:DeleteDBParameterGroup \
             rds:DeleteDBSubnetGroup rds:ListTagsForResource rds:ModifyDBCluster rds:ModifyDBClusterParameterGroup \
             rds:ModifyDBInstance rds:ModifyDBParameterGroup rds:ModifyDBSubnetGroup rds:RebootDBInstance \
             rds:RemoveTagsFromResource rds:ResetDBClusterParameterGroup rds:ResetDBParameterGroup",
            [
                arn("rds", &format!("*:{below}")),
                arn("rds", "cluster-pg:default.*"),
                arn("rds", "og:default:*"),
                arn("rds", "pg:default.*"),
            ],
        ),
        grant(
            "Passwords",
            "RDS makes the database's password and keeps it; CloudFormation says how often it changes",
            "secretsmanager:CreateSecret secretsmanager:DescribeSecret secretsmanager:RotateSecret secretsmanager:TagResource \
             secretsmanager:CancelRotateSecret",
            [arn("secretsmanager", "secret:rds!*")],
        ),
        grant(
            "ClientSecrets",
            "The load balancer is told the secret that a provider of identities knows it by",
            "secretsmanager:GetSecretValue",
            [arn(
                "secretsmanager",
                &format!("secret:{}/{}/*", scope.platform, scope.label),
            )],
        ),
        grant(
            "Key",
            "Disks, databases, secrets and logs are encrypted with the foundation's key",
            "kms:Decrypt kms:Encrypt kms:GenerateDataKey kms:GenerateDataKeyWithoutPlaintext kms:ReEncryptFrom kms:ReEncryptTo",
            [att("Key.Arn")],
        ),
        grant(
            "KeyGrants",
            "RDS, EC2 and Secrets Manager use the key for as long as a grant lets them",
            "kms:CreateGrant",
            [att("Key.Arn")],
        )
        .when(json!({ "Bool": { "kms:GrantIsForAWSResource": "true" } })),
    ]
}

fn release(scope: &Scope<'_>) -> Vec<Grant> {
    let below = below(scope);
    vec![
        grant(
            "Deployments",
            "Where CodeDeploy puts revisions, and how",
            "codedeploy:CreateApplication codedeploy:CreateDeploymentConfig \
             codedeploy:CreateDeploymentGroup codedeploy:DeleteApplication codedeploy:DeleteDeploymentConfig \
             codedeploy:DeleteDeploymentGroup codedeploy:GetApplication codedeploy:GetDeploymentConfig \
             codedeploy:GetDeploymentGroup codedeploy:ListTagsForResource codedeploy:TagResource codedeploy:UntagResource \
             codedeploy:UpdateDeploymentGroup",
            [
                arn("codedeploy", &format!("application:{below}")),
                arn("codedeploy", &format!("deploymentconfig:{below}")),
                arn("codedeploy", &format!("deploymentgroup:{below}")),
            ],
        ),
        grant(
            "DeploymentsUseDefaults",
            "A deployment group may name one of AWS's own configurations",
            "codedeploy:GetDeploymentConfig",
            [arn("codedeploy", "deploymentconfig:CodeDeployDefault.*")],
        ),
        grant(
            "Rules",
            "A password that changed is told to those who use it",
            "events:DeleteRule events:DescribeRule events:ListTagsForResource events:ListTargetsByRule events:PutRule \
             events:PutTargets events:RemoveTargets events:TagResource events:UntagResource",
            [arn("events", &format!("rule/{below}"))],
        ),
        grant(
            "Machines",
            "What brings containers a password that changed",
            "states:CreateStateMachine states:DeleteStateMachine states:DescribeStateMachine states:ListTagsForResource \
             states:TagResource states:UntagResource states:UpdateStateMachine",
            [arn("states", &format!("stateMachine:{below}"))],
        ),
    ]
}

fn containers(scope: &Scope<'_>) -> Vec<Grant> {
    let below = below(scope);
    vec![
        grant(
            "Containers",
            "Environments whose runtime is containers",
            "ecs:CreateCluster ecs:CreateService ecs:DeleteCluster ecs:DeleteService ecs:DescribeClusters \
             ecs:DescribeServiceDeployments ecs:DescribeServices ecs:ListServiceDeployments ecs:ListTagsForResource \
             ecs:PutClusterCapacityProviders ecs:StopServiceDeployment ecs:TagResource ecs:UntagResource ecs:UpdateCluster \
             ecs:UpdateClusterSettings ecs:UpdateService ecs:CreateCapacityProvider ecs:DeleteCapacityProvider \
             ecs:UpdateCapacityProvider",
            [
                arn("ecs", &format!("capacity-provider/{below}")),
                arn("ecs", &format!("cluster/{below}")),
                arn("ecs", &format!("service/{below}")),
                arn("ecs", &format!("service-deployment/{below}")),
                arn("ecs", &format!("task-definition/{below}")),
            ],
        ),
        grant(
            "ContainersDefinitions",
            "Definitions of tasks and the look of providers; these calls know no single resources",
            "ecs:DeregisterTaskDefinition ecs:DescribeCapacityProviders ecs:DescribeTaskDefinition ecs:RegisterTaskDefinition",
            any(),
        ),
        grant(
            "ContainersScale",
            "How many containers there are",
            "application-autoscaling:DeleteScalingPolicy application-autoscaling:DeleteScheduledAction \
             application-autoscaling:DeregisterScalableTarget application-autoscaling:ListTagsForResource \
             application-autoscaling:PutScalingPolicy application-autoscaling:PutScheduledAction \
             application-autoscaling:RegisterScalableTarget application-autoscaling:TagResource \
             application-autoscaling:UntagResource",
            [arn("application-autoscaling", "scalable-target/*")],
        ),
    ]
}

fn identities(scope: &Scope<'_>) -> Vec<Grant> {
    let own = format!("{}/host/{}*", scope.platform, named_after(scope));
    let role = || global_arn("iam", &format!("role/{own}"));
    let boundary = json!({ "StringEquals": { "iam:PermissionsBoundary": re("Boundary") } });
    let linked = [
        "autoscaling.amazonaws.com",
        "ecs.amazonaws.com",
        "ecs.application-autoscaling.amazonaws.com",
        "elasticloadbalancing.amazonaws.com",
        "rds.amazonaws.com",
        "spot.amazonaws.com",
    ];
    vec![
        grant(
            "MakeRoles",
            "Hosts and tasks have a role of their own, inside the boundary",
            "iam:AttachRolePolicy iam:CreateRole iam:DeleteRolePolicy iam:DetachRolePolicy iam:PutRolePolicy",
            [role()],
        )
        .when(boundary),
        grant(
            "KeepRoles",
            "What a role of a host is called, read back and taken away",
            "iam:DeleteRole iam:GetRole iam:GetRolePolicy iam:ListAttachedRolePolicies iam:ListRolePolicies iam:TagRole \
             iam:UntagRole iam:UpdateAssumeRolePolicy iam:UpdateRole iam:UpdateRoleDescription",
            [role()],
        ),
        grant(
            "Profiles",
            "EC2 gives a role to a host by a profile",
            "iam:AddRoleToInstanceProfile iam:CreateInstanceProfile iam:DeleteInstanceProfile iam:GetInstanceProfile \
             iam:RemoveRoleFromInstanceProfile",
            [global_arn("iam", &format!("instance-profile/{own}"))],
        ),
        grant(
            "LendRoles",
            "Hosts, tasks, CodeDeploy, rules and machines get their role from CloudFormation",
            "iam:PassRole",
            [role(), att("DeployRole.Arn")],
        )
        .when(json!({ "StringEquals": { "iam:PassedToService": [
            "codedeploy.amazonaws.com", "ec2.amazonaws.com", "ecs-tasks.amazonaws.com", "events.amazonaws.com",
            "monitoring.rds.amazonaws.com", "states.amazonaws.com",
        ] } })),
        grant(
            "ServicesOwnRoles",
            "The first use of a service in an account makes the role that the service acts with",
            "iam:CreateServiceLinkedRole",
            [global_arn("iam", "role/aws-service-role/*")],
        )
        .when(json!({ "StringEquals": { "iam:AWSServiceName": linked } })),
    ]
}
