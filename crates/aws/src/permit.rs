//! What who applies must be allowed: the calls of this crate, and what CloudFormation does for them with each type of resource.

use std::collections::BTreeSet;

use crate::{call, synth::Template};

/// What CloudFormation calls, as the caller, to make a resource of a type as templates have it, and to take it away. What only reads
/// is left out: whoever may do these may look. Sources: `handlers` of the types' schemas in CloudFormation's registry, with which a test
/// compares it, and the service authorization reference.
pub const MAKES: [(&str, &str); 51] = [
    (
        "AWS::ApiGatewayV2::Api",
        "apigateway:DELETE apigateway:POST apigateway:PUT",
    ),
    (
        "AWS::ApiGatewayV2::Integration",
        "apigateway:DELETE apigateway:POST",
    ),
    ("AWS::ApiGatewayV2::Route", "apigateway:DELETE apigateway:POST"),
    (
        "AWS::ApiGatewayV2::Stage",
        "apigateway:DELETE apigateway:POST apigateway:TagResource",
    ),
    (
        "AWS::Budgets::Budget",
        "budgets:ModifyBudget budgets:TagResource budgets:ViewBudget",
    ),
    (
        "AWS::CertificateManager::Certificate",
        "acm:AddTagsToCertificate acm:DeleteCertificate acm:RequestCertificate route53:ChangeResourceRecordSets",
    ),
    (
        "AWS::Chatbot::SlackChannelConfiguration",
        "chatbot:CreateSlackChannelConfiguration chatbot:DeleteSlackChannelConfiguration chatbot:TagResource \
         iam:CreateServiceLinkedRole iam:PassRole",
    ),
    (
        "AWS::CloudTrail::Trail",
        "cloudtrail:AddTags cloudtrail:CreateTrail cloudtrail:DeleteTrail cloudtrail:StartLogging iam:PassRole",
    ),
    (
        "AWS::CloudWatch::Alarm",
        "cloudwatch:DeleteAlarms cloudwatch:PutMetricAlarm cloudwatch:TagResource",
    ),
    (
        "AWS::CodeBuild::Project",
        "codebuild:CreateProject codebuild:DeleteProject iam:PassRole",
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:CreateTable dynamodb:DescribeTable dynamodb:TagResource dynamodb:UpdateContinuousBackups \
         dynamodb:UpdateTimeToLive kms:CreateGrant kms:Decrypt kms:Encrypt",
    ),
    (
        "AWS::EC2::CarrierGateway",
        "ec2:CreateCarrierGateway ec2:CreateTags ec2:DeleteCarrierGateway",
    ),
    (
        "AWS::EC2::EIP",
        "ec2:AllocateAddress ec2:AssociateAddress ec2:CreateTags ec2:DisassociateAddress ec2:ReleaseAddress",
    ),
    (
        "AWS::EC2::FlowLog",
        "ec2:CreateFlowLogs ec2:CreateTags ec2:DeleteFlowLogs iam:PassRole",
    ),
    (
        "AWS::EC2::Instance",
        "ec2:CreateTags ec2:ModifyInstanceAttribute ec2:RunInstances ec2:TerminateInstances iam:PassRole",
    ),
    (
        "AWS::EC2::InternetGateway",
        "ec2:CreateInternetGateway ec2:CreateTags ec2:DeleteInternetGateway",
    ),
    (
        "AWS::EC2::LaunchTemplate",
        "ec2:CreateLaunchTemplate ec2:CreateTags ec2:DeleteLaunchTemplate",
    ),
    (
        "AWS::EC2::LocalGatewayRouteTableVPCAssociation",
        "ec2:CreateLocalGatewayRouteTableVpcAssociation ec2:CreateTags \
         ec2:DeleteLocalGatewayRouteTableVpcAssociation",
    ),
    (
        "AWS::EC2::NatGateway",
        "ec2:CreateNatGateway ec2:CreateTags ec2:DeleteNatGateway",
    ),
    ("AWS::EC2::Route", "ec2:CreateRoute ec2:DeleteRoute"),
    (
        "AWS::EC2::RouteTable",
        "ec2:CreateRouteTable ec2:CreateTags ec2:DeleteRouteTable",
    ),
    (
        "AWS::EC2::SecurityGroup",
        "ec2:AuthorizeSecurityGroupEgress ec2:AuthorizeSecurityGroupIngress ec2:CreateSecurityGroup ec2:CreateTags \
         ec2:DeleteSecurityGroup ec2:RevokeSecurityGroupEgress",
    ),
    (
        "AWS::EC2::SecurityGroupEgress",
        "ec2:AuthorizeSecurityGroupEgress ec2:RevokeSecurityGroupEgress",
    ),
    (
        "AWS::EC2::Subnet",
        "ec2:CreateSubnet ec2:CreateTags ec2:DeleteSubnet ec2:ModifySubnetAttribute",
    ),
    (
        "AWS::EC2::SubnetRouteTableAssociation",
        "ec2:AssociateRouteTable ec2:DisassociateRouteTable",
    ),
    (
        "AWS::EC2::VPC",
        "ec2:CreateTags ec2:CreateVpc ec2:DeleteVpc ec2:ModifyVpcAttribute",
    ),
    (
        "AWS::EC2::VPCEndpoint",
        "ec2:CreateTags ec2:CreateVpcEndpoint ec2:DeleteVpcEndpoints",
    ),
    (
        "AWS::EC2::VPCGatewayAttachment",
        "ec2:AttachInternetGateway ec2:DetachInternetGateway",
    ),
    (
        "AWS::ECR::Repository",
        "ecr:CreateRepository ecr:PutLifecyclePolicy ecr:SetRepositoryPolicy ecr:TagResource kms:CreateGrant \
         kms:RetireGrant",
    ),
    (
        "AWS::ElasticLoadBalancingV2::Listener",
        "elasticloadbalancing:AddTags elasticloadbalancing:CreateListener elasticloadbalancing:DeleteListener",
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "elasticloadbalancing:AddTags elasticloadbalancing:CreateLoadBalancer \
         elasticloadbalancing:DeleteLoadBalancer elasticloadbalancing:ModifyLoadBalancerAttributes",
    ),
    (
        "AWS::Events::Rule",
        "events:DeleteRule events:PutRule events:PutTargets events:RemoveTargets events:TagResource iam:PassRole",
    ),
    (
        "AWS::IAM::InstanceProfile",
        "iam:AddRoleToInstanceProfile iam:CreateInstanceProfile iam:DeleteInstanceProfile iam:PassRole \
         iam:RemoveRoleFromInstanceProfile",
    ),
    ("AWS::IAM::ManagedPolicy", "iam:CreatePolicy iam:DeletePolicy"),
    (
        "AWS::IAM::Role",
        "iam:AttachRolePolicy iam:CreateRole iam:DeleteRole iam:DeleteRolePolicy iam:DetachRolePolicy iam:PassRole \
         iam:PutRolePermissionsBoundary iam:PutRolePolicy iam:TagRole",
    ),
    ("AWS::KMS::Alias", "kms:CreateAlias kms:DeleteAlias"),
    (
        "AWS::KMS::Key",
        "kms:CreateKey kms:Decrypt kms:EnableKeyRotation kms:GenerateDataKey kms:PutKeyPolicy kms:TagResource",
    ),
    (
        "AWS::Lambda::Function",
        "iam:PassRole kms:CreateGrant kms:Decrypt kms:Encrypt kms:GenerateDataKey lambda:CreateFunction \
         lambda:DeleteFunction lambda:TagResource",
    ),
    (
        "AWS::Lambda::Permission",
        "lambda:AddPermission lambda:RemovePermission",
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:AssociateKmsKey logs:CreateLogGroup logs:DeleteLogGroup logs:PutRetentionPolicy logs:TagResource",
    ),
    (
        "AWS::Route53::HostedZone",
        "route53:ChangeTagsForResource route53:CreateHostedZone route53:GetChange",
    ),
    (
        "AWS::S3::Bucket",
        "s3:CreateBucket s3:PutBucketLogging s3:PutBucketOwnershipControls s3:PutBucketPublicAccessBlock \
         s3:PutBucketTagging s3:PutBucketVersioning s3:PutEncryptionConfiguration s3:PutLifecycleConfiguration",
    ),
    (
        "AWS::S3::BucketPolicy",
        "s3:DeleteBucketPolicy s3:PutBucketPolicy",
    ),
    ("AWS::SNS::Subscription", "sns:Subscribe sns:Unsubscribe"),
    (
        "AWS::SNS::Topic",
        "sns:CreateTopic sns:DeleteTopic sns:TagResource",
    ),
    ("AWS::SNS::TopicPolicy", "sns:SetTopicAttributes"),
    (
        "AWS::SecretsManager::Secret",
        "kms:Decrypt kms:GenerateDataKey secretsmanager:CreateSecret secretsmanager:DeleteSecret \
         secretsmanager:GetRandomPassword secretsmanager:TagResource",
    ),
    (
        "AWS::StepFunctions::StateMachine",
        "iam:PassRole kms:GenerateDataKey states:CreateStateMachine states:DeleteStateMachine states:TagResource",
    ),
    (
        "AWS::WAFv2::LoggingConfiguration",
        "logs:CreateLogDelivery logs:DeleteLogDelivery logs:PutResourcePolicy wafv2:DeleteLoggingConfiguration \
         wafv2:PutLoggingConfiguration",
    ),
    (
        "AWS::WAFv2::WebACL",
        "wafv2:CreateWebACL wafv2:DeleteWebACL wafv2:TagResource",
    ),
    (
        "AWS::WAFv2::WebACLAssociation",
        "elasticloadbalancing:SetWebACL wafv2:AssociateWebACL wafv2:DisassociateWebACL",
    ),
];

/// These are about no resource of their own, or are asked for all there are: who is not allowed them everywhere is not at all.
const EVERYWHERE: [&str; 14] = [
    "autoscaling:Describe*",
    "cloudformation:DescribeStacks",
    "cloudformation:ListStacks",
    "ec2:Describe*",
    "elasticloadbalancing:Describe*",
    "kms:CreateKey",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:PutResourcePolicy",
    "rds:Describe*",
    "route53:CreateHostedZone",
    "secretsmanager:GetRandomPassword",
    "secretsmanager:ListSecrets",
    "servicequotas:GetServiceQuota",
];

/// Can a policy allow the action for some resources only?
pub fn is_scoped(action: &str) -> bool {
    let is = |own: &str| match own.strip_suffix('*') {
        Some(start) => action.starts_with(start),
        None => action == own,
    };
    !EVERYWHERE.into_iter().any(is)
}

/// The actions that a caller needs for these templates, sorted. Not those of environments: a role that CloudFormation takes makes
/// what is in them.
pub fn actions<'t>(templates: impl IntoIterator<Item = &'t Template>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = call::ALL.iter().filter_map(call::Call::action).collect();
    // Stacks are made and changed with their tags, and environments with their role.
    all.extend(["cloudformation:TagResource", "iam:PassRole"].map(str::to_owned));
    for template in templates {
        for (kind, needs) in MAKES {
            if template.of(kind).next().is_some() {
                all.extend(needs.split(' ').map(str::to_owned));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth;

    #[test]
    fn what_a_template_holds_must_be_allowed() {
        let config: synth::Config =
            toml::from_str("[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\n")
                .unwrap();
        let stack = synth::foundation(&config, &"production".parse().unwrap()).unwrap();
        let all = actions([&stack.template]);
        for action in [
            "ec2:CreateVpc",
            "cloudformation:CreateChangeSet",
            "s3:ListBucketVersions",
        ] {
            assert!(all.contains(action), "{action}");
        }
        assert!(!all.contains("lambda:CreateFunction") && !all.contains("sts:GetCallerIdentity"));
    }

    #[test]
    fn what_is_asked_for_all_there_are_has_no_resource() {
        for (action, expected) in [
            ("ec2:DescribeVpcs", false),
            ("ec2:CreateVpc", true),
            ("iam:CreateRole", true),
            ("cloudformation:ListStacks", false),
            ("cloudformation:ListStackResources", true),
        ] {
            assert_eq!(is_scoped(action), expected, "{action}");
        }
    }
}
