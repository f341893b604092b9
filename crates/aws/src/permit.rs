//! What who applies must be allowed: the calls of this crate, and what CloudFormation does for them with each type of resource.

use std::collections::BTreeSet;

use crate::{call, synth::Template};

/// What CloudFormation calls, as the caller, to make and to delete a resource of a type. The main calls only: they are what
/// a policy forgets. Source: the service authorization reference.
const MAKES: [(&str, &str); 36] = [
    ("AWS::ApiGatewayV2::Api", "apigateway:POST apigateway:DELETE"),
    ("AWS::Budgets::Budget", "budgets:ModifyBudget"),
    (
        "AWS::CertificateManager::Certificate",
        "acm:RequestCertificate acm:DeleteCertificate",
    ),
    (
        "AWS::Chatbot::SlackChannelConfiguration",
        "chatbot:CreateSlackChannelConfiguration",
    ),
    (
        "AWS::CloudTrail::Trail",
        "cloudtrail:CreateTrail cloudtrail:StartLogging cloudtrail:DeleteTrail",
    ),
    (
        "AWS::CloudWatch::Alarm",
        "cloudwatch:PutMetricAlarm cloudwatch:DeleteAlarms",
    ),
    (
        "AWS::CodeBuild::Project",
        "codebuild:CreateProject codebuild:DeleteProject",
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:CreateTable dynamodb:DescribeTable",
    ),
    (
        "AWS::EC2::CarrierGateway",
        "ec2:CreateCarrierGateway ec2:DeleteCarrierGateway",
    ),
    ("AWS::EC2::EIP", "ec2:AllocateAddress ec2:ReleaseAddress"),
    ("AWS::EC2::FlowLog", "ec2:CreateFlowLogs ec2:DeleteFlowLogs"),
    ("AWS::EC2::Instance", "ec2:RunInstances ec2:TerminateInstances"),
    (
        "AWS::EC2::InternetGateway",
        "ec2:CreateInternetGateway ec2:DeleteInternetGateway",
    ),
    (
        "AWS::EC2::LocalGatewayRouteTableVPCAssociation",
        "ec2:CreateLocalGatewayRouteTableVpcAssociation ec2:DeleteLocalGatewayRouteTableVpcAssociation",
    ),
    (
        "AWS::EC2::NatGateway",
        "ec2:CreateNatGateway ec2:DeleteNatGateway",
    ),
    (
        "AWS::EC2::RouteTable",
        "ec2:CreateRouteTable ec2:DeleteRouteTable",
    ),
    (
        "AWS::EC2::SecurityGroup",
        "ec2:CreateSecurityGroup ec2:DeleteSecurityGroup",
    ),
    ("AWS::EC2::Subnet", "ec2:CreateSubnet ec2:DeleteSubnet"),
    ("AWS::EC2::VPC", "ec2:CreateVpc ec2:DeleteVpc"),
    (
        "AWS::EC2::VPCEndpoint",
        "ec2:CreateVpcEndpoint ec2:DeleteVpcEndpoints",
    ),
    ("AWS::ECR::Repository", "ecr:CreateRepository"),
    (
        "AWS::ElasticLoadBalancingV2::Listener",
        "elasticloadbalancing:CreateListener",
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "elasticloadbalancing:CreateLoadBalancer elasticloadbalancing:DeleteLoadBalancer",
    ),
    (
        "AWS::Events::Rule",
        "events:PutRule events:PutTargets events:DeleteRule",
    ),
    (
        "AWS::IAM::InstanceProfile",
        "iam:CreateInstanceProfile iam:AddRoleToInstanceProfile",
    ),
    ("AWS::IAM::ManagedPolicy", "iam:CreatePolicy iam:DeletePolicy"),
    (
        "AWS::IAM::Role",
        "iam:CreateRole iam:PutRolePolicy iam:PassRole iam:DeleteRole",
    ),
    ("AWS::KMS::Alias", "kms:CreateAlias kms:DeleteAlias"),
    (
        "AWS::KMS::Key",
        "kms:CreateKey kms:PutKeyPolicy kms:EnableKeyRotation kms:GenerateDataKey kms:Decrypt",
    ),
    (
        "AWS::Lambda::Function",
        "lambda:CreateFunction lambda:DeleteFunction",
    ),
    (
        "AWS::Logs::LogGroup",
        "logs:CreateLogGroup logs:PutRetentionPolicy logs:DeleteLogGroup",
    ),
    (
        "AWS::Route53::HostedZone",
        "route53:CreateHostedZone route53:GetChange",
    ),
    (
        "AWS::S3::Bucket",
        "s3:CreateBucket s3:PutEncryptionConfiguration s3:PutBucketVersioning",
    ),
    ("AWS::SNS::Topic", "sns:CreateTopic sns:Subscribe sns:DeleteTopic"),
    (
        "AWS::StepFunctions::StateMachine",
        "states:CreateStateMachine states:DeleteStateMachine",
    ),
    ("AWS::WAFv2::WebACL", "wafv2:CreateWebACL wafv2:DeleteWebACL"),
];

/// The actions that a caller needs for these templates, sorted.
pub fn actions<'t>(templates: impl IntoIterator<Item = &'t Template>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = call::ALL.iter().filter_map(call::Call::action).collect();
    // Stacks are made and changed with their tags.
    all.insert("cloudformation:TagResource".to_owned());
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

    /// Types beside those whose making needs nothing that another of the same template does not.
    #[test]
    fn every_type_of_a_foundation_is_known_or_a_part_of_another() {
        const PARTS: [&str; 14] = [
            "AWS::EC2::Route",
            "AWS::EC2::SecurityGroupEgress",
            "AWS::EC2::SubnetRouteTableAssociation",
            "AWS::EC2::VPCGatewayAttachment",
            "AWS::EC2::NetworkInterface",
            "AWS::EC2::EIPAssociation",
            "AWS::EC2::LaunchTemplate",
            "AWS::S3::BucketPolicy",
            "AWS::SNS::Subscription",
            "AWS::SNS::TopicPolicy",
            "AWS::Route53::RecordSet",
            "AWS::WAFv2::WebACLAssociation",
            "AWS::WAFv2::LoggingConfiguration",
            "AWS::ElasticLoadBalancingV2::ListenerCertificate",
        ];
        let config: synth::Config = toml::from_str(
            "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'a.example.com'\nfirewall = true\n\
             slack = { workspace = 'T01', channel = 'C01' }\n\
             [foundations.production.network]\nwavelength_zones = ['eu-central-1-wl1-ber-wlz-1']\n\
             local_zones = ['eu-central-1-ham-1a']\n[[foundations.production.network.outposts]]\n\
             arn = 'arn:aws:outposts:eu-central-1:123456789012:outpost/op-0123456789abcdef0'\nzone = 'eu-central-1b'\n\
             gateway = 'lgw-0123456789abcdef0'\nroutes = 'lgw-rtb-0123456789abcdef0'\nlocal = ['192.168.0.0/16']\n\
             sizes = ['c5.large']\n",
        )
        .unwrap();
        let stack = synth::foundation(&config, &"production".parse().unwrap()).unwrap();
        for resource in &stack.template.resources {
            let known =
                MAKES.iter().any(|(kind, _)| *kind == resource.kind) || PARTS.contains(&resource.kind);
            assert!(known, "{}", resource.kind);
        }
    }
}
