//! The key that encrypts every store of a foundation.

use serde_json::{Value, json};

use super::Scope;
use crate::synth::{
    policy::document,
    template::{Resource, Template, att, re, sub},
};

const USE: [&str; 5] = [
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey*",
    "kms:ReEncrypt*",
];

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    let properties = json!({
        "Description": sub("Encrypts every store of ${AWS::StackName}"),
        "EnableKeyRotation": true,
        "PendingWindowInDays": 30,
        "KeyPolicy": document(statements(scope)),
    });
    let key = Resource::new("Key", "AWS::KMS::Key", "Encrypts every store: buckets, disks, databases, secrets, topics, logs.", properties)
        .skip("CKV_AWS_33", "The one statement for all principals names the service-linked role of Auto Scaling and this account in its \
               condition. Named as principal, the role would have to exist before the stack, and in a new account it does not.")
        .retained();
    template.add(key);
    let alias = json!({ "AliasName": sub("alias/${AWS::StackName}"), "TargetKeyId": re("Key") });
    template.add(Resource::new(
        "KeyAlias",
        "AWS::KMS::Alias",
        "The key's name.",
        alias,
    ));
    template.export("KeyArn", "The key that encrypts every store", att("Key.Arn"));
}

fn statements(scope: &Scope<'_>) -> Vec<Value> {
    let mut statements = vec![
        json!({
            "Sid": "AccountDecides",
            "Effect": "Allow",
            "Principal": { "AWS": sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root") },
            "Action": "kms:*",
            "Resource": "*",
        }),
        json!({
            "Sid": "LogsOfThisAccount",
            "Effect": "Allow",
            "Principal": { "Service": sub("logs.${AWS::Region}.${AWS::URLSuffix}") },
            "Action": USE,
            "Resource": "*",
            "Condition": { "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": sub("arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:*"),
            } },
        }),
        json!({
            // What flows do leaves Step Functions encrypted, because flows are. The end of the ARN is a star, in so many words.
            // Source: "Data at rest encryption in Step Functions", encrypting log delivery.
            "Sid": "LogsOfEncryptedMachines",
            "Effect": "Allow",
            "Principal": { "Service": "delivery.logs.amazonaws.com" },
            "Action": "kms:Decrypt",
            "Resource": "*",
            "Condition": { "StringEquals": {
                "kms:EncryptionContext:SourceArn": sub("arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*"),
            } },
        }),
        json!({
            // Not every service says in the name of which account it calls; the topics' policies ask for it.
            "Sid": "ServicesThatNotify",
            "Effect": "Allow",
            "Principal": { "Service": ["budgets.amazonaws.com", "cloudwatch.amazonaws.com", "events.amazonaws.com"] },
            "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
            "Resource": "*",
        }),
        autoscaling("HostsDisks", json!(USE), json!({})),
        autoscaling(
            "HostsDisksGrants",
            json!("kms:CreateGrant"),
            json!({ "kms:GrantIsForAWSResource": "true" }),
        ),
    ];
    if scope.options.trail {
        statements.push(json!({
            "Sid": "Trail",
            "Effect": "Allow",
            "Principal": { "Service": "cloudtrail.amazonaws.com" },
            "Action": ["kms:DescribeKey", "kms:GenerateDataKey*"],
            "Resource": "*",
            "Condition": { "StringEquals": { "aws:SourceAccount": re("AWS::AccountId") } },
        }));
    }
    if !scope.targets.is_empty() {
        statements.push(json!({
            "Sid": "AccountsThatDeployWhatIsBuiltHere",
            "Effect": "Allow",
            "Principal": { "AWS": accounts(scope) },
            "Action": ["kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:ReEncryptFrom"],
            "Resource": "*",
            "Condition": { "ArnLike": { "aws:PrincipalArn": sub(format!("arn:${{AWS::Partition}}:iam::*:role/{}/*", scope.platform)) } },
        }));
        // Their own policies say which objects: those of their environment's data.
        statements.push(json!({
            "Sid": "HostsThatDataMovesFrom",
            "Effect": "Allow",
            "Principal": { "AWS": accounts(scope) },
            "Action": "kms:GenerateDataKey",
            "Resource": "*",
            "Condition": { "ArnLike": { "aws:PrincipalArn": sub(format!("arn:${{AWS::Partition}}:iam::*:role/{}/host/*", scope.platform)) } },
        }));
    }
    statements
}

/// The service-linked role of Auto Scaling starts hosts with encrypted disks.
fn autoscaling(sid: &str, actions: Value, more: Value) -> Value {
    let role = "role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";
    let mut statement = json!({
        "Sid": sid,
        "Effect": "Allow",
        "Principal": { "AWS": "*" },
        "Action": actions,
        "Resource": "*",
        "Condition": {
            "StringEquals": { "kms:CallerAccount": re("AWS::AccountId") },
            "ArnEquals": { "aws:PrincipalArn": sub(format!("arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:{role}")) },
        },
    });
    if more.as_object().is_some_and(|more| !more.is_empty()) {
        statement["Condition"]["Bool"] = more;
    }
    statement
}

/// The accounts that deploy from here, as principals.
pub(super) fn accounts(scope: &Scope<'_>) -> Value {
    scope
        .targets
        .iter()
        .map(|account| sub(format!("arn:${{AWS::Partition}}:iam::{account}:root")))
        .collect()
}
