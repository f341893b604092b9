//! What CloudFormation calls for each type of resource, held against the role that it makes environments with: everything that
//! it needs is allowed, on what the stacks make, and nothing is allowed that no type needs.
//!
//! Source: `handlers` and `tagging` of the types' schemas in CloudFormation's registry, with which `schemas` compares it, and for
//! those without handlers there the calls of their API. Left out is what only properties need that no template has; what a property
//! needs that some have stands in `PROPERTIES`.

use std::collections::BTreeSet;

use aws::synth::{Kind, Resource};
use serde_json::{Value, json};

use crate::{
    iam::{Actions, Request, Verdict, allowed, judge, words},
    matrix::matrix,
    template,
};

/// A type, what its ARNs look like in an environment's stack, and the actions.
pub type Handler = (&'static str, &'static [&'static str], &'static str);

const ALARM: &str = "arn:aws:cloudwatch:eu-central-1:111111111111:alarm:vend-production-shop-live-a";
const APPLICATION: &str =
    "arn:aws:codedeploy:eu-central-1:111111111111:application:vend-production-shop-live";
const CERTIFICATE: &str = "arn:aws:acm:eu-central-1:111111111111:certificate/a";
const CLUSTER: &str = "arn:aws:ecs:eu-central-1:111111111111:cluster/vend-production-shop-live";
const DATABASE: &str = "arn:aws:rds:eu-central-1:111111111111:db:vend-production-shop-live-a";
const DATABASES: &str = "arn:aws:rds:eu-central-1:111111111111:cluster:vend-production-shop-live-a";
const GROUP: &str = "arn:aws:autoscaling:eu-central-1:111111111111:autoScalingGroup:x:autoScalingGroupName/vend-production-shop-live-a";
const KEY: &str = "{\"Fn::GetAtt\":\"Key.Arn\"}";
const LAUNCH: &str = "arn:aws:ec2:eu-central-1:111111111111:launch-template/lt-1";
const LISTENER: &str = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:listener/app/a/1/2";
const LOG: &str = "arn:aws:logs:eu-central-1:111111111111:log-group:/vend/production/shop/live";
const PROFILE: &str = "arn:aws:iam::111111111111:instance-profile/vend/host/vend-production-shop-live-a";
const ROLE: &str = "arn:aws:iam::111111111111:role/vend/host/vend-production-shop-live-a";
pub const LINKED: &str = "arn:aws:iam::111111111111:role/aws-service-role/a";
const MACHINE: &str = "arn:aws:states:eu-central-1:111111111111:stateMachine:vend-production-shop-live";
const RULE: &str = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:listener-rule/app/a/1/2/3";
const EVENT: &str = "arn:aws:events:eu-central-1:111111111111:rule/vend-production-shop-live-a";
const SCALABLE: &str = "arn:aws:application-autoscaling:eu-central-1:111111111111:scalable-target/a";
const SECURITY: &str = "arn:aws:ec2:eu-central-1:111111111111:security-group/sg-1";
const ZONE: &str = "arn:aws:route53:::hostedzone/Z1";

pub const HANDLERS: [Handler; 38] = [
    (
        "AWS::ApplicationAutoScaling::ScalableTarget",
        &[SCALABLE, LINKED],
        "application-autoscaling:DeleteScheduledAction application-autoscaling:DeregisterScalableTarget \
         application-autoscaling:DescribeScalableTargets application-autoscaling:DescribeScheduledActions \
         application-autoscaling:ListTagsForResource application-autoscaling:PutScheduledAction \
         application-autoscaling:RegisterScalableTarget application-autoscaling:TagResource \
         application-autoscaling:UntagResource iam:CreateServiceLinkedRole",
    ),
    (
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        &[SCALABLE],
        "application-autoscaling:DeleteScalingPolicy application-autoscaling:DescribeScalingPolicies \
         application-autoscaling:PutScalingPolicy",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup",
        &[GROUP, LAUNCH, LINKED, ROLE],
        "autoscaling:AttachLoadBalancerTargetGroups autoscaling:CreateAutoScalingGroup autoscaling:CreateOrUpdateTags \
         autoscaling:DeleteAutoScalingGroup autoscaling:DeleteTags autoscaling:DescribeAutoScalingGroups \
         autoscaling:DetachLoadBalancerTargetGroups autoscaling:ResumeProcesses autoscaling:SuspendProcesses \
         autoscaling:UpdateAutoScalingGroup ec2:DescribeLaunchTemplateVersions ec2:GetLaunchTemplateData ec2:RunInstances \
         elasticloadbalancing:DescribeTargetGroups iam:CreateServiceLinkedRole iam:PassRole",
    ),
    (
        "AWS::AutoScaling::LifecycleHook",
        &[GROUP],
        "autoscaling:DeleteLifecycleHook autoscaling:DescribeLifecycleHooks autoscaling:PutLifecycleHook",
    ),
    (
        "AWS::AutoScaling::ScalingPolicy",
        &[GROUP],
        "autoscaling:DeletePolicy autoscaling:DescribePolicies autoscaling:PutScalingPolicy",
    ),
    (
        "AWS::AutoScaling::ScheduledAction",
        &[GROUP],
        "autoscaling:DeleteScheduledAction autoscaling:DescribeScheduledActions autoscaling:PutScheduledUpdateGroupAction",
    ),
    (
        "AWS::AutoScaling::WarmPool",
        &[GROUP],
        "autoscaling:DeleteWarmPool autoscaling:DescribeWarmPool autoscaling:PutWarmPool",
    ),
    (
        "AWS::CertificateManager::Certificate",
        &[CERTIFICATE, ZONE],
        "acm:AddTagsToCertificate acm:DeleteCertificate acm:DescribeCertificate acm:ListTagsForCertificate \
         acm:RemoveTagsFromCertificate acm:RequestCertificate route53:ChangeResourceRecordSets",
    ),
    (
        "AWS::CloudWatch::Alarm",
        &[ALARM],
        "cloudwatch:DeleteAlarms cloudwatch:DescribeAlarms cloudwatch:ListTagsForResource cloudwatch:PutMetricAlarm \
         cloudwatch:TagResource cloudwatch:UntagResource",
    ),
    (
        "AWS::CodeDeploy::Application",
        &[APPLICATION],
        "codedeploy:CreateApplication codedeploy:DeleteApplication codedeploy:GetApplication codedeploy:ListTagsForResource \
         codedeploy:TagResource codedeploy:UntagResource",
    ),
    (
        "AWS::CodeDeploy::DeploymentConfig",
        &["arn:aws:codedeploy:eu-central-1:111111111111:deploymentconfig:vend-production-shop-live-a"],
        "codedeploy:CreateDeploymentConfig codedeploy:DeleteDeploymentConfig codedeploy:GetDeploymentConfig",
    ),
    (
        "AWS::CodeDeploy::DeploymentGroup",
        &[
            "arn:aws:codedeploy:eu-central-1:111111111111:deploymentgroup:vend-production-shop-live/blue",
            "{\"Fn::GetAtt\":\"DeployRole.Arn\"}",
        ],
        "codedeploy:CreateDeploymentGroup codedeploy:DeleteDeploymentGroup codedeploy:GetDeploymentGroup \
         codedeploy:ListTagsForResource codedeploy:TagResource codedeploy:UntagResource codedeploy:UpdateDeploymentGroup iam:PassRole",
    ),
    (
        "AWS::EC2::LaunchTemplate",
        &[LAUNCH],
        "ec2:CreateLaunchTemplate ec2:CreateLaunchTemplateVersion ec2:CreateTags ec2:DeleteLaunchTemplate \
         ec2:DeleteLaunchTemplateVersions ec2:DeleteTags ec2:DescribeLaunchTemplateVersions ec2:DescribeLaunchTemplates \
         ec2:ModifyLaunchTemplate",
    ),
    (
        "AWS::EC2::SecurityGroup",
        &[SECURITY],
        "ec2:AuthorizeSecurityGroupEgress ec2:AuthorizeSecurityGroupIngress ec2:CreateSecurityGroup ec2:CreateTags \
         ec2:DeleteSecurityGroup ec2:DeleteTags ec2:DescribeSecurityGroups ec2:RevokeSecurityGroupEgress \
         ec2:RevokeSecurityGroupIngress ec2:UpdateSecurityGroupRuleDescriptionsIngress",
    ),
    (
        "AWS::EC2::SecurityGroupEgress",
        &[SECURITY],
        "ec2:AuthorizeSecurityGroupEgress ec2:DescribeSecurityGroupRules ec2:RevokeSecurityGroupEgress \
         ec2:UpdateSecurityGroupRuleDescriptionsEgress",
    ),
    (
        "AWS::ECS::CapacityProvider",
        &[
            "arn:aws:ecs:eu-central-1:111111111111:capacity-provider/vend-production-shop-live-a",
            CLUSTER,
            GROUP,
            LINKED,
        ],
        "autoscaling:CreateOrUpdateTags ecs:CreateCapacityProvider ecs:DeleteCapacityProvider ecs:DescribeCapacityProviders \
         ecs:ListTagsForResource ecs:PutClusterCapacityProviders ecs:TagResource ecs:UntagResource ecs:UpdateCapacityProvider \
         iam:CreateServiceLinkedRole",
    ),
    (
        "AWS::ECS::Cluster",
        &[CLUSTER, KEY, LINKED],
        "ecs:CreateCluster ecs:DeleteCluster ecs:DescribeClusters ecs:ListTagsForResource ecs:PutClusterCapacityProviders \
         ecs:TagResource ecs:UntagResource ecs:UpdateCluster ecs:UpdateClusterSettings iam:CreateServiceLinkedRole kms:DescribeKey",
    ),
    (
        "AWS::ECS::ClusterCapacityProviderAssociations",
        &[CLUSTER],
        "ecs:DescribeClusters ecs:PutClusterCapacityProviders",
    ),
    (
        "AWS::ECS::Service",
        &[
            "arn:aws:ecs:eu-central-1:111111111111:service/vend-production-shop-live/blue",
            "arn:aws:ecs:eu-central-1:111111111111:service-deployment/vend-production-shop-live/blue/a",
        ],
        "ecs:CreateService ecs:DeleteService ecs:DescribeServiceDeployments ecs:DescribeServices ecs:ListServiceDeployments \
         ecs:ListTagsForResource ecs:StopServiceDeployment ecs:TagResource ecs:UntagResource ecs:UpdateService",
    ),
    (
        "AWS::ECS::TaskDefinition",
        &[
            "arn:aws:ecs:eu-central-1:111111111111:task-definition/vend-production-shop-live-blue:1",
            ROLE,
        ],
        "ecs:DeregisterTaskDefinition ecs:DescribeTaskDefinition ecs:ListTagsForResource ecs:RegisterTaskDefinition ecs:TagResource \
         ecs:UntagResource iam:PassRole",
    ),
    (
        "AWS::ElasticLoadBalancingV2::Listener",
        &[
            LISTENER,
            "arn:aws:elasticloadbalancing:eu-central-1:111111111111:loadbalancer/app/a/1",
        ],
        "elasticloadbalancing:AddTags elasticloadbalancing:CreateListener elasticloadbalancing:DeleteListener \
         elasticloadbalancing:DescribeListenerAttributes elasticloadbalancing:DescribeListeners elasticloadbalancing:ModifyListener \
         elasticloadbalancing:ModifyListenerAttributes elasticloadbalancing:RemoveTags",
    ),
    (
        "AWS::ElasticLoadBalancingV2::ListenerCertificate",
        &[LISTENER],
        "elasticloadbalancing:AddListenerCertificates elasticloadbalancing:DescribeListenerCertificates \
         elasticloadbalancing:RemoveListenerCertificates",
    ),
    (
        "AWS::ElasticLoadBalancingV2::ListenerRule",
        &[LISTENER, RULE],
        "elasticloadbalancing:AddTags elasticloadbalancing:CreateRule elasticloadbalancing:DeleteRule \
         elasticloadbalancing:DescribeRules elasticloadbalancing:DescribeTags elasticloadbalancing:ModifyRule \
         elasticloadbalancing:RemoveTags elasticloadbalancing:SetRulePriorities",
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        &[
            "arn:aws:elasticloadbalancing:eu-central-1:111111111111:loadbalancer/app/a/1",
            LINKED,
        ],
        "ec2:DescribeSubnets elasticloadbalancing:AddTags elasticloadbalancing:CreateLoadBalancer \
         elasticloadbalancing:DeleteLoadBalancer elasticloadbalancing:DescribeLoadBalancerAttributes \
         elasticloadbalancing:DescribeLoadBalancers elasticloadbalancing:ModifyLoadBalancerAttributes \
         elasticloadbalancing:RemoveTags elasticloadbalancing:SetIpAddressType elasticloadbalancing:SetSecurityGroups \
         elasticloadbalancing:SetSubnets iam:CreateServiceLinkedRole",
    ),
    (
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        &["arn:aws:elasticloadbalancing:eu-central-1:111111111111:targetgroup/a/1"],
        "elasticloadbalancing:AddTags elasticloadbalancing:CreateTargetGroup elasticloadbalancing:DeleteTargetGroup \
         elasticloadbalancing:DescribeTargetGroupAttributes elasticloadbalancing:DescribeTargetGroups \
         elasticloadbalancing:ModifyTargetGroup elasticloadbalancing:ModifyTargetGroupAttributes elasticloadbalancing:RemoveTags",
    ),
    (
        "AWS::Events::Rule",
        &[EVENT, ROLE],
        "events:DeleteRule events:DescribeRule events:ListTagsForResource events:ListTargetsByRule events:PutRule events:PutTargets \
         events:RemoveTargets events:TagResource events:UntagResource iam:PassRole",
    ),
    (
        "AWS::IAM::InstanceProfile",
        &[PROFILE, ROLE],
        "iam:AddRoleToInstanceProfile iam:CreateInstanceProfile iam:DeleteInstanceProfile iam:GetInstanceProfile iam:PassRole \
         iam:RemoveRoleFromInstanceProfile",
    ),
    (
        "AWS::IAM::Role",
        &[ROLE],
        "iam:AttachRolePolicy iam:CreateRole iam:DeleteRole iam:DeleteRolePolicy iam:DetachRolePolicy iam:GetRole iam:GetRolePolicy \
         iam:ListAttachedRolePolicies iam:ListRolePolicies iam:PutRolePolicy iam:TagRole iam:UntagRole iam:UpdateAssumeRolePolicy \
         iam:UpdateRole iam:UpdateRoleDescription",
    ),
    (
        "AWS::Logs::LogGroup",
        &[LOG],
        "logs:AssociateKmsKey logs:CreateLogGroup logs:DeleteLogGroup logs:DeleteRetentionPolicy logs:DescribeLogGroups \
         logs:DisassociateKmsKey logs:GetDataProtectionPolicy logs:ListTagsForResource logs:PutRetentionPolicy logs:TagResource \
         logs:UntagResource",
    ),
    (
        "AWS::Logs::MetricFilter",
        &[LOG],
        "logs:DeleteMetricFilter logs:DescribeMetricFilters logs:PutMetricFilter",
    ),
    (
        "AWS::RDS::DBCluster",
        &[
            DATABASES,
            KEY,
            LINKED,
            "arn:aws:rds:eu-central-1:111111111111:cluster-snapshot:vend-production-shop-live-a",
            "arn:aws:secretsmanager:eu-central-1:111111111111:secret:rds!cluster-a",
        ],
        "iam:CreateServiceLinkedRole kms:CreateGrant kms:DescribeKey rds:AddTagsToResource rds:CreateDBCluster \
         rds:CreateDBClusterSnapshot rds:DeleteDBCluster rds:DescribeDBClusters rds:DescribeEvents rds:DescribeGlobalClusters \
         rds:ModifyDBCluster rds:RemoveTagsFromResource secretsmanager:CreateSecret secretsmanager:TagResource",
    ),
    (
        "AWS::RDS::DBClusterParameterGroup",
        &["arn:aws:rds:eu-central-1:111111111111:cluster-pg:vend-production-shop-live-a"],
        "rds:AddTagsToResource rds:CreateDBClusterParameterGroup rds:DeleteDBClusterParameterGroup \
         rds:DescribeDBClusterParameterGroups rds:DescribeEngineDefaultClusterParameters rds:ListTagsForResource \
         rds:ModifyDBClusterParameterGroup rds:RemoveTagsFromResource rds:ResetDBClusterParameterGroup",
    ),
    (
        "AWS::RDS::DBInstance",
        &[
            DATABASE,
            KEY,
            LINKED,
            ROLE,
            "arn:aws:rds:eu-central-1:111111111111:snapshot:vend-production-shop-live-a",
            "arn:aws:secretsmanager:eu-central-1:111111111111:secret:rds!db-a",
        ],
        "ec2:DescribeAccountAttributes ec2:DescribeVpcAttribute iam:CreateServiceLinkedRole iam:GetRole iam:ListRoles iam:PassRole \
         kms:CreateGrant kms:DescribeKey rds:AddTagsToResource rds:CreateDBInstance rds:CreateDBSnapshot rds:DeleteDBInstance \
         rds:DescribeDBInstances rds:DescribeEvents rds:ModifyDBInstance rds:RebootDBInstance rds:RemoveTagsFromResource \
         secretsmanager:CreateSecret secretsmanager:TagResource",
    ),
    (
        "AWS::RDS::DBParameterGroup",
        &["arn:aws:rds:eu-central-1:111111111111:pg:vend-production-shop-live-a"],
        "rds:AddTagsToResource rds:CreateDBParameterGroup rds:DeleteDBParameterGroup rds:DescribeDBParameterGroups \
         rds:DescribeEngineDefaultParameters rds:ListTagsForResource rds:ModifyDBParameterGroup rds:RemoveTagsFromResource \
         rds:ResetDBParameterGroup",
    ),
    (
        "AWS::RDS::DBSubnetGroup",
        &[
            "arn:aws:rds:eu-central-1:111111111111:subgrp:vend-production-shop-live-a",
            LINKED,
        ],
        "iam:CreateServiceLinkedRole rds:AddTagsToResource rds:CreateDBSubnetGroup rds:DeleteDBSubnetGroup \
         rds:DescribeDBSubnetGroups rds:ListTagsForResource rds:ModifyDBSubnetGroup rds:RemoveTagsFromResource",
    ),
    (
        "AWS::Route53::RecordSet",
        &[ZONE],
        "route53:ChangeResourceRecordSets route53:GetChange route53:GetHostedZone route53:ListResourceRecordSets",
    ),
    (
        "AWS::SecretsManager::RotationSchedule",
        &["arn:aws:secretsmanager:eu-central-1:111111111111:secret:rds!db-a"],
        "secretsmanager:CancelRotateSecret secretsmanager:DescribeSecret secretsmanager:RotateSecret",
    ),
    (
        "AWS::StepFunctions::StateMachine",
        &[MACHINE, ROLE],
        "iam:PassRole states:CreateStateMachine states:DeleteStateMachine states:DescribeStateMachine states:ListTagsForResource \
         states:TagResource states:UntagResource states:UpdateStateMachine",
    ),
];

/// A type, a property or policy of it, and what it needs besides.
const PROPERTIES: [Handler; 5] = [
    (
        "AWS::AutoScaling::AutoScalingGroup/NotificationConfigurations",
        &[GROUP],
        "autoscaling:DeleteNotificationConfiguration autoscaling:PutNotificationConfiguration",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup/MetricsCollection",
        &[GROUP],
        "autoscaling:DisableMetricsCollection autoscaling:EnableMetricsCollection",
    ),
    (
        "AWS::AutoScaling::AutoScalingGroup/UpdatePolicy",
        &[GROUP],
        "autoscaling:DescribeScalingActivities autoscaling:TerminateInstanceInAutoScalingGroup",
    ),
    (
        "AWS::EC2::LaunchTemplate/LaunchTemplateData",
        &[
            "arn:aws:ec2:eu-central-1:111111111111:instance/i-1",
            "arn:aws:ec2:eu-central-1:111111111111:volume/vol-1",
        ],
        "ec2:CreateTags",
    ),
    (
        "AWS::ElasticLoadBalancingV2::ListenerRule/AuthenticateOidcConfig",
        &["arn:aws:secretsmanager:eu-central-1:111111111111:secret:vend/production/shop/live/oidc-1"],
        "secretsmanager:GetSecretValue",
    ),
];

/// What is needed beside the handlers: parameters of templates, and the key of what is encrypted.
const BESIDE: &str = "kms:Decrypt kms:Encrypt kms:GenerateDataKey kms:GenerateDataKeyWithoutPlaintext kms:ReEncryptFrom kms:ReEncryptTo \
    ssm:GetParameters";

/// What a condition of the role would hear in the calls of these types.
const KEYS: [(&str, &[&str]); 4] = [
    ("iam:PermissionsBoundary", &["{\"Ref\":\"Boundary\"}"]),
    (
        "iam:PassedToService",
        &[
            "ec2.amazonaws.com",
            "codedeploy.amazonaws.com",
            "ecs-tasks.amazonaws.com",
            "events.amazonaws.com",
            "monitoring.rds.amazonaws.com",
            "states.amazonaws.com",
        ],
    ),
    (
        "iam:AWSServiceName",
        &[
            "autoscaling.amazonaws.com",
            "ecs.amazonaws.com",
            "elasticloadbalancing.amazonaws.com",
            "rds.amazonaws.com",
        ],
    ),
    ("kms:GrantIsForAWSResource", &["true"]),
];

/// The six policies of the role, as one document.
pub fn role() -> (Value, Actions) {
    let foundation = template("vend-production");
    let policies: Vec<&Resource> = foundation
        .of("AWS::IAM::ManagedPolicy")
        .filter(|own| own.id.starts_with("Stacks"))
        .collect();
    assert_eq!(policies.len(), 6);
    let statements: Vec<Value> = policies
        .iter()
        .flat_map(|own| {
            own.properties["PolicyDocument"]["Statement"]
                .as_array()
                .unwrap()
                .clone()
        })
        .collect();
    let actions = policies.iter().flat_map(|own| allowed(own)).collect();
    (json!({ "Statement": statements }), actions)
}

pub fn is_allowed(document: &Value, action: &str, resources: &[&str]) -> bool {
    let keys: Vec<Vec<(&str, &str)>> = (0..6)
        .map(|n: usize| KEYS.iter().map(|(key, all)| (*key, all[n % all.len()])).collect())
        .collect();
    resources.iter().any(|resource| {
        keys.iter().any(|keys| {
            let request = Request {
                action,
                resource,
                keys,
            };
            judge(document, &request) == Verdict::Allowed
        })
    })
}

/// Has the resource this property, at any depth, or this policy?
fn has(resource: &Resource, name: &str) -> bool {
    resource.body().to_string().contains(&format!("\"{name}\":"))
}

#[test]
fn cloudformation_may_make_every_resource_of_every_environment() {
    let (document, _) = role();
    let handlers: Vec<&Handler> = HANDLERS.iter().collect();
    let (mut denied, mut types) = (BTreeSet::new(), BTreeSet::new());
    let environments = matrix().iter().filter(|stack| stack.kind == Kind::Environment);
    for resource in environments.flat_map(|stack| &stack.template.resources) {
        let own = handlers.iter().find(|(kind, ..)| *kind == resource.kind);
        let (_, resources, actions) =
            own.unwrap_or_else(|| panic!("nobody knows what {} needs", resource.kind));
        let mut needed: Vec<(&[&str], &str)> = vec![(resources, actions)];
        for (property, resources, actions) in &PROPERTIES {
            let (kind, name) = property.split_once('/').unwrap();
            if kind == resource.kind && has(resource, name) {
                needed.push((resources, actions));
            }
        }
        types.insert(resource.kind);
        for (resources, actions) in needed {
            for action in words(actions) {
                if !is_allowed(&document, &action, resources) {
                    denied.insert(format!("{} {action}", resource.kind));
                }
            }
        }
    }
    assert_eq!(denied, BTreeSet::new());
    let known: BTreeSet<&str> = handlers.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(types, known, "a type that no environment has needs no permission");
}

#[test]
fn cloudformation_may_do_nothing_that_no_type_needs() {
    let (_, actions) = role();
    let all = HANDLERS.iter().chain(&PROPERTIES);
    let mut needed: Actions = all.flat_map(|(_, _, actions)| words(actions)).collect();
    needed.extend(words(BESIDE));
    let idle: Vec<&String> = actions
        .iter()
        // What only reads may be more than one type needs.
        .filter(|action| !action.ends_with('*') && !needed.contains(*action))
        .collect();
    assert_eq!(idle, Vec::<&String>::new());
}

/// An app's own ports have another kind of load balancer than its rules, and CloudFormation may make that too.
#[test]
fn cloudformation_may_make_the_load_balancer_of_ports() {
    let (document, _) = role();
    let own = ["loadbalancer/net/a/1", "listener/net/a/1/2"]
        .map(|own| format!("arn:aws:elasticloadbalancing:eu-central-1:111111111111:{own}"));
    for (kind, resource) in [
        ("AWS::ElasticLoadBalancingV2::LoadBalancer", &own[0]),
        ("AWS::ElasticLoadBalancingV2::Listener", &own[1]),
    ] {
        let (.., actions) = HANDLERS.iter().find(|(own, ..)| *own == kind).unwrap();
        let changes = words(actions).into_iter();
        for action in
            changes.filter(|own| own.starts_with("elasticloadbalancing:") && !own.contains(":Describe"))
        {
            assert!(
                is_allowed(&document, &action, &[&own[0], resource]),
                "{action} of {resource}"
            );
        }
    }
}

/// What an environment of another foundation of the account has, this one's may neither lend nor keep.
#[test]
fn cloudformation_reaches_no_identity_of_another_foundation() {
    let (document, _) = role();
    for (resource, actions) in [
        (
            ROLE,
            "iam:DeleteRole iam:GetRole iam:PassRole iam:UpdateAssumeRolePolicy",
        ),
        (PROFILE, "iam:AddRoleToInstanceProfile iam:DeleteInstanceProfile"),
    ] {
        for action in words(actions) {
            assert!(is_allowed(&document, &action, &[resource]), "{action}");
            for other in ["staging", "productions", "prod"] {
                let other = resource.replace("vend-production-", &format!("vend-{other}-"));
                assert!(!is_allowed(&document, &action, &[&other]), "{action} of {other}");
            }
        }
    }
}

/// CloudFormation has room for 25 characters of a stack's name in a role's.
#[test]
fn the_longest_names_are_cut_as_cloudformation_does() {
    let text = "platform = 'abcdefghij'\n[foundations.production-euw]\nregion = 'eu-west-1'\ndomain = 'a.example.com'\n\
                network = { cidr = '10.7.0.0/16' }\n";
    let config = toml::from_str(text).unwrap();
    let stack = aws::synth::foundation(&config, &"production-euw".parse().unwrap()).unwrap();
    let policy = crate::of(&stack.template, "StacksIdentities").to_string();
    assert!(
        policy.contains(":role/abcdefghij/host/abcdefghij-production-euw*"),
        "{policy}"
    );
}

/// The judge of these tests sees what is missing.
#[test]
fn a_role_without_a_duty_is_seen() {
    let (mut document, _) = role();
    let statements = document["Statement"].as_array_mut().unwrap();
    statements.retain(|own| own["Sid"] != "Groups");
    assert!(!is_allowed(
        &document,
        "autoscaling:PutNotificationConfiguration",
        &[GROUP]
    ));
    let other = GROUP.replace("vend-production-shop", "somebody-elses");
    let (document, _) = role();
    assert!(!is_allowed(
        &document,
        "autoscaling:PutNotificationConfiguration",
        &[&other]
    ));
}
