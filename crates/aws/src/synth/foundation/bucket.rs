//! Buckets: encrypted, versioned, over TLS only, never public, and emptied of what is old.

use serde_json::{Value, json};

use super::{Scope, key::accounts};
use crate::synth::{
    policy::document,
    template::{Resource, Template, att, re, sub},
};

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) {
    logs(template, scope);
    artifacts(template, scope);
    templates(template, scope);
}

/// `vend-production-artifacts-ACCOUNT-REGION`: names of buckets are the world's.
fn name(scope: &Scope<'_>, purpose: &str) -> Value {
    sub(format!(
        "{}-{purpose}-${{AWS::AccountId}}-${{AWS::Region}}",
        scope.name()
    ))
}

fn bucket(scope: &Scope<'_>, id: &str, purpose: &str, encryption: Value, rules: Value) -> Value {
    let mut properties = json!({
        "BucketName": name(scope, purpose),
        "BucketEncryption": { "ServerSideEncryptionConfiguration": [encryption] },
        "VersioningConfiguration": { "Status": "Enabled" },
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true,
        },
        "OwnershipControls": { "Rules": [{ "ObjectOwnership": "BucketOwnerEnforced" }] },
        "LifecycleConfiguration": { "Rules": rules },
    });
    if id != "LogsBucket" {
        properties["LoggingConfiguration"] = json!({ "DestinationBucketName": re("LogsBucket"), "LogFilePrefix": format!("buckets/{purpose}/") });
    }
    properties
}

fn with_key() -> Value {
    json!({
        "ServerSideEncryptionByDefault": { "SSEAlgorithm": "aws:kms", "KMSMasterKeyID": att("Key.Arn") },
        "BucketKeyEnabled": true,
    })
}

fn abandoned() -> Value {
    json!({ "Id": "abandoned-uploads", "Status": "Enabled", "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 7 } })
}

fn policy(bucket: &str, more: Vec<Value>) -> Resource {
    let mut statements = vec![json!({
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [att(format!("{bucket}.Arn")), sub(format!("${{{bucket}.Arn}}/*"))],
        "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    })];
    statements.extend(more);
    let properties = json!({ "Bucket": re(bucket), "PolicyDocument": document(statements) });
    Resource::new(
        format!("{bucket}Policy"),
        "AWS::S3::BucketPolicy",
        "Who else may use it, and how.",
        properties,
    )
}

fn logs(template: &mut Template, scope: &Scope<'_>) {
    let days = scope.options.retention.trail.max(1);
    let rules = json!([
        { "Id": "old", "Status": "Enabled", "ExpirationInDays": days, "NoncurrentVersionExpiration": { "NoncurrentDays": 30 } },
        abandoned(),
    ]);
    let s3 = json!({ "ServerSideEncryptionByDefault": { "SSEAlgorithm": "AES256" } });
    let about = "Access logs and the audit trail. The services that write access logs cannot use a key of one's own: S3 encrypts here;\n\
                 the trail encrypts its files with the foundation's key itself.";
    let bucket = Resource::new(
        "LogsBucket",
        "AWS::S3::Bucket",
        about,
        bucket(scope, "LogsBucket", "logs", s3, rules),
    )
    .skip(
        "CKV_AWS_18",
        "It is the bucket into which the others log; a log of its own would grow by being written.",
    )
    .retained();
    template.add(bucket);
    let own = json!({ "StringEquals": { "aws:SourceAccount": re("AWS::AccountId") } });
    let mut statements = vec![
        json!({
            "Sid": "LoadBalancers",
            "Effect": "Allow",
            "Principal": { "Service": "logdelivery.elasticloadbalancing.amazonaws.com" },
            "Action": "s3:PutObject",
            "Resource": sub("${LogsBucket.Arn}/balancer/*/AWSLogs/${AWS::AccountId}/*"),
            "Condition": own,
        }),
        json!({
            "Sid": "Buckets",
            "Effect": "Allow",
            "Principal": { "Service": "logging.s3.amazonaws.com" },
            "Action": "s3:PutObject",
            "Resource": sub("${LogsBucket.Arn}/buckets/*"),
            "Condition": own,
        }),
    ];
    if scope.options.trail {
        let trail = sub(format!(
            "arn:${{AWS::Partition}}:cloudtrail:${{AWS::Region}}:${{AWS::AccountId}}:trail/{}",
            scope.name()
        ));
        let principal = json!({ "Service": "cloudtrail.amazonaws.com" });
        statements.push(json!({
            "Sid": "TrailLooks", "Effect": "Allow", "Principal": principal, "Action": "s3:GetBucketAcl",
            "Resource": att("LogsBucket.Arn"), "Condition": { "StringEquals": { "aws:SourceArn": trail } },
        }));
        statements.push(json!({
            "Sid": "TrailWrites", "Effect": "Allow", "Principal": principal, "Action": "s3:PutObject",
            "Resource": sub("${LogsBucket.Arn}/trail/AWSLogs/${AWS::AccountId}/*"),
            "Condition": { "StringEquals": { "aws:SourceArn": trail } },
        }));
    }
    template.add(policy("LogsBucket", statements));
    template.export("LogsBucket", "Access logs and the audit trail", re("LogsBucket"));
}

fn artifacts(template: &mut Template, scope: &Scope<'_>) {
    let days = scope.options.retention.artifacts.max(1);
    // Releases that are kept are copied by their version; what only builds refer to goes.
    let rules = json!([
        { "Id": "old-versions", "Status": "Enabled", "NoncurrentVersionExpiration": { "NoncurrentDays": days } },
        { "Id": "caches", "Status": "Enabled", "Prefix": "cache/", "ExpirationInDays": 30 },
        { "Id": "sources", "Status": "Enabled", "Prefix": "source/", "ExpirationInDays": days },
        // Of no use an hour later. A killed command leaves it.
        {
            "Id": "data-that-moves", "Status": "Enabled", "Prefix": "move/", "ExpirationInDays": 1,
            "NoncurrentVersionExpiration": { "NoncurrentDays": 1 },
            "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 1 },
        },
        abandoned(),
    ]);
    let properties = bucket(scope, "ArtifactsBucket", "artifacts", with_key(), rules);
    let about = "Sources, revisions, build outputs and caches.";
    template.add(Resource::new("ArtifactsBucket", "AWS::S3::Bucket", about, properties).retained());
    let mut statements = Vec::new();
    if !scope.targets.is_empty() {
        statements.push(json!({
            "Sid": "AccountsThatDeployWhatIsBuiltHere",
            "Effect": "Allow",
            "Principal": { "AWS": accounts(scope) },
            "Action": ["s3:GetObject", "s3:GetObjectVersion"],
            "Resource": sub("${ArtifactsBucket.Arn}/revision/*"),
            "Condition": { "ArnLike": { "aws:PrincipalArn": sub(format!("arn:${{AWS::Partition}}:iam::*:role/{}/*", scope.platform)) } },
        }));
        statements.push(json!({
            "Sid": "HostsThatDataMovesTo",
            "Effect": "Allow",
            "Principal": { "AWS": accounts(scope) },
            "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"],
            "Resource": sub("${ArtifactsBucket.Arn}/move/*"),
            "Condition": { "ArnLike": { "aws:PrincipalArn": sub(format!("arn:${{AWS::Partition}}:iam::*:role/{}/host/*", scope.platform)) } },
        }));
    }
    template.add(policy("ArtifactsBucket", statements));
    template.export(
        "ArtifactsBucket",
        "Revisions and build outputs",
        re("ArtifactsBucket"),
    );
}

fn templates(template: &mut Template, scope: &Scope<'_>) {
    let rules = json!([
        { "Id": "old-versions", "Status": "Enabled", "NoncurrentVersionExpiration": { "NoncurrentDays": 365 } },
        abandoned(),
    ]);
    let properties = bucket(scope, "TemplatesBucket", "templates", with_key(), rules);
    template.add(
        Resource::new(
            "TemplatesBucket",
            "AWS::S3::Bucket",
            "Templates, each version of them.",
            properties,
        )
        .retained(),
    );
    template.add(policy("TemplatesBucket", Vec::new()));
    template.export("TemplatesBucket", "Templates", re("TemplatesBucket"));
}
