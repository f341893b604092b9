//! What doctor asks IAM for, held against what the registry's schemas say that CloudFormation calls to make a resource: as who applies,
//! it makes foundations, pipelines and flows.
//!
//! Source: as of `schemas`. What only reads is not asked for; what else is not stands here with the reason why no template needs it.

use std::collections::BTreeSet;

use aws::{permit::MAKES, synth::Kind};

use crate::{
    matrix::matrix,
    schemas::{is_left_out, read, schemas},
};

/// A type, what is not needed to make it, perhaps with a star at the end, and why.
const LEFT_OUT: [(&str, &str, &str); 46] = [
    (
        "AWS::ApiGatewayV2::Api",
        "s3:getObject",
        "no API is read from a file",
    ),
    (
        "AWS::ApiGatewayV2::Integration",
        "iam:PassRole",
        "the function's own permission lets the API call it",
    ),
    (
        "AWS::CertificateManager::Certificate",
        "acm-pca:*",
        "no private authority",
    ),
    (
        "AWS::Chatbot::SlackChannelConfiguration",
        "chatbot:AssociateToConfiguration",
        "no actions of one's own",
    ),
    (
        "AWS::CloudTrail::Trail",
        "cloudtrail:Put*",
        "events are those of the default",
    ),
    (
        "AWS::CloudTrail::Trail",
        "iam:CreateServiceLinkedRole",
        "no trail of an organization",
    ),
    (
        "AWS::DynamoDB::Table",
        "dynamodb:*",
        "no replicas, streams, imports, policies or insights",
    ),
    (
        "AWS::DynamoDB::Table",
        "iam:CreateServiceLinkedRole",
        "no replicas",
    ),
    ("AWS::DynamoDB::Table", "kinesis:*", "no streams"),
    (
        "AWS::DynamoDB::Table",
        "kms:RevokeGrant",
        "the key stays as long as the table",
    ),
    ("AWS::DynamoDB::Table", "logs:*", "no imports"),
    (
        "AWS::EC2::EIP",
        "ec2:AcceptAddressTransfer",
        "no address is another account's",
    ),
    (
        "AWS::EC2::FlowLog",
        "iam:CreateServiceLinkedRole",
        "the role of its logs is a resource",
    ),
    (
        "AWS::EC2::FlowLog",
        "logs:CreateLogDelivery",
        "logs go to a group, by a role",
    ),
    ("AWS::EC2::FlowLog", "s3:PutBucketPolicy", "logs go to a group"),
    (
        "AWS::EC2::Instance",
        "ec2:*",
        "its launch template has what it starts with",
    ),
    ("AWS::EC2::Instance", "ssm:CreateAssociation", "no associations"),
    (
        "AWS::EC2::SubnetRouteTableAssociation",
        "ec2:ReplaceRouteTableAssociation",
        "a new subnet has none to replace",
    ),
    (
        "AWS::EC2::VPC",
        "ec2:CreateVpcEncryptionControl",
        "traffic is encrypted by those who speak",
    ),
    ("AWS::EC2::VPCEndpoint", "ec2:DeleteTags", "a new one has none"),
    ("AWS::EC2::VPCEndpoint", "vpc-lattice:*", "no service network"),
    (
        "AWS::EC2::VPCEndpoint",
        "vpce:AllowMultiRegion",
        "services of the same region",
    ),
    (
        "AWS::EC2::VPCGatewayAttachment",
        "ec2:AttachVpnGateway",
        "no virtual private network",
    ),
    (
        "AWS::ElasticLoadBalancingV2::Listener",
        "elasticloadbalancing:ModifyListenerAttributes",
        "listeners have the default's",
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "elasticloadbalancing:ModifyCapacityReservation",
        "no capacity is reserved",
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "elasticloadbalancing:SetSecurityGroups",
        "it is made with its groups",
    ),
    (
        "AWS::IAM::ManagedPolicy",
        "iam:Attach*",
        "who has a policy names it",
    ),
    ("AWS::IAM::Role", "iam:UntagRole", "a new one has no tags"),
    ("AWS::KMS::Key", "kms:DisableKey", "no key is made switched off"),
    (
        "AWS::Lambda::Function",
        "lambda:*",
        "nothing but its code, variables and log is set",
    ),
    ("AWS::Logs::LogGroup", "firehose:TagDeliveryStream", "no delivery"),
    (
        "AWS::Logs::LogGroup",
        "logs:*",
        "no delivery, policies or indexes",
    ),
    ("AWS::Logs::LogGroup", "s3:REST.PUT.OBJECT", "no delivery"),
    (
        "AWS::Route53::HostedZone",
        "route53:*",
        "zones are public, and log no queries",
    ),
    ("AWS::S3::Bucket", "iam:PassRole", "no replication"),
    (
        "AWS::S3::Bucket",
        "s3:*",
        "buckets have only what the table names",
    ),
    ("AWS::S3::Bucket", "s3tables:*", "no tables of metadata"),
    (
        "AWS::SNS::Subscription",
        "iam:PassRole",
        "nobody is told by a stream",
    ),
    ("AWS::SNS::Topic", "iam:PassRole", "deliveries are not logged"),
    ("AWS::SNS::Topic", "sns:PutDataProtectionPolicy", "no such policy"),
    (
        "AWS::SNS::Topic",
        "sns:Subscribe",
        "subscriptions are resources of their own",
    ),
    (
        "AWS::SecretsManager::Secret",
        "secretsmanager:ReplicateSecretToRegions",
        "no replicas",
    ),
    (
        "AWS::WAFv2::LoggingConfiguration",
        "iam:CreateServiceLinkedRole",
        "logs go to a group",
    ),
    (
        "AWS::WAFv2::LoggingConfiguration",
        "s3:PutBucketPolicy",
        "logs go to a group",
    ),
    ("AWS::WAFv2::WebACL", "wafv2:UntagResource", "a new one has none"),
    ("AWS::WAFv2::WebACLAssociation", "*", "it is a load balancer's"),
];

fn kinds() -> BTreeSet<&'static str> {
    let made = matrix().iter().filter(|stack| stack.kind != Kind::Environment);
    made.flat_map(|stack| &stack.template.resources)
        .map(|own| own.kind)
        .collect()
}

#[test]
fn every_type_that_who_applies_makes_is_in_the_table() {
    let known: BTreeSet<&str> = MAKES.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(known, kinds());
}

#[test]
fn what_making_needs_is_asked_for_or_left_out_for_a_reason() {
    let Some(directory) = schemas() else { return };
    let index = read(&directory.join("providers/eu-central-1.json"));
    let (mut missing, mut used, mut silent) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (kind, asked) in MAKES {
        let asked: Vec<String> = asked.split(' ').map(str::to_ascii_lowercase).collect();
        let schema = read(&directory.join(format!("resources/{}.json", index[kind].as_str().unwrap())));
        let create = schema["handlers"]["create"]["permissions"].as_array();
        if create.is_none_or(Vec::is_empty) {
            silent.push(kind);
        }
        for action in create.into_iter().flatten().map(|own| own.as_str().unwrap()) {
            let verb = action.split(':').nth(1).unwrap();
            let reads = ["Describe", "List", "Get"]
                .iter()
                .any(|start| verb.starts_with(start));
            // Its value is made where it is needed: who may not is stopped there.
            if (reads && verb != "GetRandomPassword") || asked.contains(&action.to_ascii_lowercase()) {
                continue;
            }
            // The schema of a trail writes its service in another way than policies do.
            let action = action.replace("CloudTrail:", "cloudtrail:");
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
        "these are asked for, or nobody says that they are needed"
    );
    assert_eq!(
        silent,
        ["AWS::CodeBuild::Project"],
        "only for these it stands in the table alone"
    );
}
