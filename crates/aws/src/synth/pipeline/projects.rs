//! CodeBuild: the app's own build, the bake of its images, its tests.

use std::collections::BTreeMap;

use model::spec::{Build, Variable};
use serde_json::{Value, json};

use super::{Scope, bake, log_group};
use crate::synth::{
    Error,
    config::Forge,
    policy::{Grant, Role, arn, document, global_arn, grant, log_in},
    size::{self, Architecture},
    template::{Resource, Template, att, re, sub},
    word::Account,
};

/// One project and what it is for.
struct Project {
    id: &'static str,
    word: &'static str,
    about: &'static str,
    /// Runs a daemon of its own, for images of containers.
    privileged: bool,
    minutes: i64,
    buildspec: Option<String>,
}

pub(super) fn add(template: &mut Template, scope: &Scope<'_>) -> Result<(), Error> {
    let architecture = architecture(scope)?;
    let longest = scope
        .app
        .environments
        .iter()
        .map(|environment| environment.build.timeout.as_mins())
        .max();
    let mut all = vec![
        Project {
            id: "Build",
            word: "build",
            about: "The app's own buildspec.",
            privileged: false,
            minutes: longest.unwrap_or(60),
            buildspec: None,
        },
        Project {
            id: "Bake",
            word: "bake",
            about: "The image that hosts start from, by Packer; none is baked where one with the same inputs is there.",
            privileged: false,
            minutes: 60,
            buildspec: Some(bake::hosts(scope, architecture)),
        },
    ];
    if scope.has_containers() {
        repository(template, scope);
        all.push(Project {
            id: "Pack",
            word: "pack",
            about: "The image that containers start from, by the app's Dockerfile.",
            privileged: true,
            minutes: 60,
            buildspec: Some(bake::containers(scope)),
        });
    }
    if !scope.options.tests.is_empty() {
        all.push(Project {
            id: "Tests",
            word: "tests",
            about: "Buildspecs that test an environment which runs.",
            privileged: false,
            minutes: 60,
            buildspec: None,
        });
    }
    builder(template, scope);
    for project in &all {
        log(template, scope, project);
        role(template, scope, project);
        template.add(resource(scope, project, architecture));
    }
    Ok(())
}

/// Builds run on what their hosts run on. All environments of an app must agree: one revision goes to all.
fn architecture(scope: &Scope<'_>) -> Result<Architecture, Error> {
    let mut found = Vec::new();
    for environment in &scope.app.environments {
        found.push((
            environment,
            size::types(&environment.host.size, &scope.config.sizes)?.1,
        ));
    }
    let Some((first, architecture)) = found.first() else {
        return Ok(Architecture::Arm64);
    };
    match found.iter().find(|(_, other)| other != architecture) {
        None => Ok(*architecture),
        Some((other, _)) => {
            let why = format!(
                "`{}` and `{}` have sizes of different architectures, and one build serves both",
                first.name, other.name
            );
            Err(Error::config(format!("apps.{}", scope.app.app), why))
        }
    }
}

fn log(template: &mut Template, scope: &Scope<'_>, project: &Project) {
    let path = format!(
        "/{}/{}/{}/{}",
        scope.platform(),
        scope.label,
        scope.app.app,
        project.word
    );
    let about = format!("What the project `{}` says.", project.word);
    template.add(Resource::new(
        format!("{}LogGroup", project.id),
        "AWS::Logs::LogGroup",
        about,
        log_group(scope, &path),
    ));
}

fn role(template: &mut Template, scope: &Scope<'_>, project: &Project) {
    let log = format!("{}LogGroup", project.id);
    let report = format!("report-group/{}-{}-*", scope.name(), project.word);
    let mut role = Role::of_service(format!("{}Role", project.id), format!("The project `{}`.", project.word), "codebuild.amazonaws.com")
        .grant(grant("Logs", "What it says goes into its log group", "logs:CreateLogStream logs:PutLogEvents", [att(format!("{log}.Arn"))]))
        .grant(grant("ReadSource", "The source at one commit, and caches", "s3:GetObject s3:GetObjectVersion", [
            scope.objects(&format!("source/{}/*", scope.app.app)),
            scope.objects(&format!("cache/{}/*", scope.app.app)),
        ]))
        .grant(grant("WriteResults", "Revisions, and caches of the next build", "s3:PutObject", [
            scope.objects(&format!("revision/{}/*", scope.app.app)),
            scope.objects(&format!("cache/{}/*", scope.app.app)),
        ]))
        .grant(grant("FindBucket", "CodeBuild asks where the bucket is", "s3:GetBucketAcl s3:GetBucketLocation", [
            sub(format!("arn:${{AWS::Partition}}:s3:::{}-{}-artifacts-${{AWS::AccountId}}-${{AWS::Region}}", scope.platform(), scope.label)),
        ]))
        .grant(grant(
            "Encrypt",
            "Source, revisions and caches are encrypted",
            "kms:Decrypt kms:DescribeKey kms:Encrypt kms:GenerateDataKey kms:ReEncryptFrom kms:ReEncryptTo",
            [scope.shared("KeyArn")],
        ))
        .grant(grant(
            "Reports",
            "Reports of tests",
            "codebuild:BatchPutCodeCoverages codebuild:BatchPutTestCases codebuild:CreateReport codebuild:CreateReportGroup \
             codebuild:UpdateReport",
            [arn("codebuild", &report)],
        ));
    if let Some(repository) = &scope.options.repository {
        role = role.grant(grant(
            "FetchSource",
            "CodeBuild fetches the commit from its repository",
            "codeconnections:GetConnection codeconnections:GetConnectionToken codeconnections:UseConnection",
            [json!(repository.connection.as_str())],
        ));
    }
    role = match project.id {
        "Bake" => role.grants(baking(scope)),
        "Pack" => role.grants(packing()),
        "Tests" | "Build" => role.grant(grant(
            "Parameters",
            "Buildspecs name parameters and secrets of this app's builds",
            "secretsmanager:GetSecretValue ssm:GetParameters",
            [
                arn(
                    "secretsmanager",
                    &format!(
                        "secret:{}/{}/{}/build/*",
                        scope.platform(),
                        scope.label,
                        scope.app.app
                    ),
                ),
                arn(
                    "ssm",
                    &format!(
                        "parameter/{}/{}/{}/build/*",
                        scope.platform(),
                        scope.label,
                        scope.app.app
                    ),
                ),
            ],
        )),
        _ => role,
    };
    let mut resource = role.resource(scope.platform(), scope.shared("Boundary"));
    if project.id == "Bake" {
        resource = resource.skip(
            "CKV_AWS_111",
            "Packer's hosts, keys and images have names only when they are there; what exists is changed by the platform's tag only, or shared with accounts that are named.",
        );
    }
    template.add(resource);
}

/// What Packer does: a host, a disk, an image, and away with the host.
fn baking(scope: &Scope<'_>) -> Vec<Grant> {
    let tagged = || json!({ "StringEquals": { "aws:ResourceTag/vend:platform": scope.platform() } });
    let bucket = format!(
        "arn:${{AWS::Partition}}:s3:::{}-{}-templates-${{AWS::AccountId}}-${{AWS::Region}}",
        scope.platform(),
        scope.label
    );
    let mut grants = vec![
        grant("ReadTemplate", "Packer's template and the scripts of hosts", "s3:GetObject", [
            sub(format!("{bucket}/packer/{}/*", scope.app.app)),
        ]),
        grant("ListTemplate", "Which files it has", "s3:ListBucket", [sub(bucket)])
            .when(json!({ "StringLike": { "s3:prefix": format!("packer/{}/*", scope.app.app) } })),
        grant(
            "Look",
            "Packer finds the base, the network and what it has made; read calls know no single resources",
            "ec2:DescribeImageAttribute ec2:DescribeImages ec2:DescribeInstanceStatus ec2:DescribeInstances ec2:DescribeRegions \
             ec2:DescribeSecurityGroups ec2:DescribeSnapshots ec2:DescribeSubnets ec2:DescribeTags ec2:DescribeVolumes \
             ec2:DescribeVpcs",
            [json!("*")],
        ),
        grant(
            "MakeHost",
            "A host on which the scripts run, and the image of its disk",
            "ec2:CopyImage ec2:CreateImage ec2:CreateKeyPair ec2:CreateSecurityGroup ec2:CreateSnapshot ec2:CreateTags \
             ec2:RegisterImage ec2:RunInstances",
            [json!("*")],
        ),
        grant(
            "UseHost",
            "Only what carries the platform's tag is changed or taken away",
            "ec2:AuthorizeSecurityGroupIngress ec2:DeleteKeyPair ec2:DeleteSecurityGroup ec2:DeleteSnapshot ec2:DeregisterImage \
             ec2:ModifyImageAttribute ec2:ModifyInstanceAttribute ec2:StopInstances ec2:TerminateInstances",
            [json!("*")],
        )
        .when(tagged()),
        grant("Connect", "The scripts reach the host by Session Manager: no port is open", "ssm:StartSession", [
            arn("ec2", "instance/*"),
            sub("arn:${AWS::Partition}:ssm:${AWS::Region}::document/AWS-StartPortForwardingSession"),
        ]),
        grant("Disconnect", "Its own sessions", "ssm:ResumeSession ssm:TerminateSession", [arn("ssm", "session/*")]),
        grant("LendRole", "The host answers Session Manager with a role that can do nothing else", "iam:PassRole", [
            global_arn("iam", &format!("role/{}/host/{}-builder", scope.platform(), scope.name())),
        ])
        .when(json!({ "StringEquals": { "iam:PassedToService": "ec2.amazonaws.com" } })),
        grant("ReadProfile", "Packer looks whether the profile is there", "iam:GetInstanceProfile", [
            global_arn("iam", &format!("instance-profile/{}/host/{}-builder", scope.platform(), scope.name())),
        ]),
        grant("EncryptDisks", "Images are encrypted, and EC2 uses the key for as long as a grant lets it", "kms:CreateGrant", [
            scope.shared("KeyArn"),
        ])
        .when(json!({ "Bool": { "kms:GrantIsForAWSResource": "true" } })),
        grant(
            "EncryptDisksAlone",
            "A disk is encrypted with a key of its own, which is kept encrypted",
            "kms:GenerateDataKeyWithoutPlaintext",
            [scope.shared("KeyArn")],
        ),
    ];
    grants.extend(sharing(scope));
    grants
}

/// Packer shares a snapshot before it gives it a tag, and EC2 hands on no tag to a copy's snapshot: the accounts are the bound.
/// They are several values of one request, so one without any of them would do, which is why groups and removals are forbidden too.
/// Source: `step_modify_ami_attributes.go` and `step_create_tags.go` of Packer's Amazon plugin; the service authorization
/// reference of EC2, `ec2:Add/userId` and the like.
fn sharing(scope: &Scope<'_>) -> Option<Grant> {
    let accounts: Vec<&str> = others(scope).map(|account| account.as_str()).collect();
    let share = grant(
        "ShareDisk",
        "Accounts that deploy what is built here start hosts from its disk; nobody else does, and it is never public",
        "ec2:ModifySnapshotAttribute",
        [sub("arn:${AWS::Partition}:ec2:${AWS::Region}::snapshot/*")],
    );
    let only = json!({
        "ForAllValues:StringEquals": { "ec2:Add/userId": accounts },
        "Null": { "ec2:Add/group": "true", "ec2:Remove/group": "true", "ec2:Remove/userId": "true" },
    });
    (!accounts.is_empty()).then(|| share.when(only))
}

fn packing() -> Vec<Grant> {
    vec![
        log_in(),
        grant(
            "Push",
            "The app's image",
            "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:CompleteLayerUpload ecr:DescribeImages \
             ecr:GetDownloadUrlForLayer ecr:InitiateLayerUpload ecr:PutImage ecr:UploadLayerPart",
            [att("Repository.Arn")],
        ),
    ]
}

fn source(scope: &Scope<'_>, buildspec: Option<&str>) -> Value {
    let mut source = match &scope.options.repository {
        None => json!({
            "Type": "S3",
            "Location": sub(format!(
                "{}-{}-artifacts-${{AWS::AccountId}}-${{AWS::Region}}/source/{}/source.zip",
                scope.platform(), scope.label, scope.app.app
            )),
        }),
        Some(repository) => json!({
            "Type": match repository.kind {
                Forge::Github => "GITHUB",
                Forge::Gitlab => "GITLAB",
                Forge::Bitbucket => "BITBUCKET",
            },
            "Location": repository.url.as_str(),
            "GitCloneDepth": 0,
            "ReportBuildStatus": false,
            "Auth": { "Type": "CODECONNECTIONS", "Resource": repository.connection.as_str() },
        }),
    };
    if let Some(buildspec) = buildspec {
        source["BuildSpec"] = json!(buildspec);
    }
    source
}

/// The kind of machine that builds run on, and what they find there.
pub(super) fn image(architecture: Architecture) -> (&'static str, &'static str) {
    match architecture {
        Architecture::Arm64 => ("ARM_CONTAINER", "aws/codebuild/amazonlinux-aarch64-standard:3.0"),
        Architecture::X86_64 => ("LINUX_CONTAINER", "aws/codebuild/amazonlinux-x86_64-standard:5.0"),
    }
}

fn resource(scope: &Scope<'_>, project: &Project, architecture: Architecture) -> Resource {
    let (kind, image) = image(architecture);
    let artifacts = match project.id {
        "Build" => json!({
            "Type": "S3", "Location": scope.bucket(), "Path": format!("revision/{}", scope.app.app), "Name": "revision.zip",
            "NamespaceType": "BUILD_ID", "Packaging": "ZIP", "OverrideArtifactName": false,
        }),
        _ => json!({ "Type": "NO_ARTIFACTS" }),
    };
    let mut environment = json!({
        "Type": kind, "ComputeType": "BUILD_GENERAL1_SMALL", "Image": image, "PrivilegedMode": project.privileged,
        "ImagePullCredentialsType": "CODEBUILD",
    });
    if project.id == "Bake" {
        environment["EnvironmentVariables"] = bake_variables(scope);
    }
    let own = build_variables(scope, &common(scope));
    if project.id == "Build" && !own.is_empty() {
        environment["EnvironmentVariables"] = json!(own);
    }
    let properties = json!({
        "Name": format!("{}-{}", scope.name(), project.word),
        "Description": project.about,
        "ServiceRole": att(format!("{}Role.Arn", project.id)),
        "EncryptionKey": scope.shared("KeyArn"),
        "Source": source(scope, project.buildspec.as_deref()),
        "Artifacts": artifacts,
        "Cache": {
            "Type": "S3",
            "Location": sub(format!(
                "{}-{}-artifacts-${{AWS::AccountId}}-${{AWS::Region}}/cache/{}/{}",
                scope.platform(), scope.label, scope.app.app, project.word
            )),
        },
        "Environment": environment,
        "LogsConfig": { "CloudWatchLogs": { "Status": "ENABLED", "GroupName": re(format!("{}LogGroup", project.id)) } },
        "TimeoutInMinutes": project.minutes.clamp(5, 2_160),
        "QueuedTimeoutInMinutes": 480,
        "Visibility": "PRIVATE",
    });
    let resource = Resource::new(project.id, "AWS::CodeBuild::Project", project.about, properties);
    match project.privileged {
        true => resource.skip(
            "CKV_AWS_316",
            "An image of a container is made by a daemon in the build's own machine.",
        ),
        false => resource,
    }
}

/// The variables that all environments give their builds. Those of one are given when its build starts, which is said to
/// the project for who starts one by hand.
fn common(scope: &Scope<'_>) -> BTreeMap<String, Variable> {
    let patterns = scope.app.patterns.iter().map(|pattern| &pattern.environment);
    let mut all = scope
        .app
        .environments
        .iter()
        .chain(patterns)
        .map(|own| &own.build);
    let first = all.next().map(|build| build.env.clone()).unwrap_or_default();
    let is_common = |build: &Build, own: (&String, &Variable)| build.env.get(own.0) == Some(own.1);
    all.fold(first, |mut left, build| {
        left.retain(|name, variable| is_common(build, (name, variable)));
        left
    })
}

/// Variables of builds. Secrets are where buildspecs find theirs, too.
pub(super) fn build_variables(scope: &Scope<'_>, variables: &BTreeMap<String, Variable>) -> Vec<Value> {
    let secret = |own: &str| {
        format!(
            "{}/{}/{}/build/{own}",
            scope.platform(),
            scope.label,
            scope.app.app
        )
    };
    let of = |(name, variable): (&String, &Variable)| match variable {
        Variable::Plain(text) => json!({ "Name": name, "Type": "PLAINTEXT", "Value": text }),
        Variable::Secret(own) => json!({ "Name": name, "Type": "SECRETS_MANAGER", "Value": secret(own) }),
    };
    variables.iter().map(of).collect()
}

/// Where Packer's host stands, and who may start hosts from its image.
fn bake_variables(scope: &Scope<'_>) -> Value {
    let accounts: Vec<String> = others(scope).map(|account| format!("\"{account}\"")).collect();
    let variable = |name: &str, value: Value| json!({ "Name": name, "Type": "PLAINTEXT", "Value": value });
    json!([
        variable("VEND_SUBNET", scope.shared("PrivateSubnetA")),
        variable("VEND_PROFILE", re("BuilderProfile")),
        variable("VEND_KEY", scope.shared("KeyArn")),
        variable("VEND_TEMPLATES", scope.shared("TemplatesBucket")),
        variable("VEND_ACCOUNTS", json!(format!("[{}]", accounts.join(",")))),
    ])
}

/// Accounts that deploy what is built here.
fn others<'s>(scope: &'s Scope<'_>) -> impl Iterator<Item = &'s Account> {
    let mut accounts: Vec<&Account> = scope
        .config
        .foundations
        .values()
        .filter(|other| {
            other.deploys_from.as_ref() == Some(scope.label) && other.account != scope.foundation.account
        })
        .filter_map(|other| other.account.as_ref())
        .collect();
    accounts.sort();
    accounts.dedup();
    accounts.into_iter()
}

/// What the host that becomes an image may do: answer Session Manager.
fn builder(template: &mut Template, scope: &Scope<'_>) {
    let name = format!("{}-builder", scope.name());
    let role = Role::of_silent_service(
        "BuilderRole",
        "The host that becomes an image: answers Session Manager.",
        "ec2.amazonaws.com",
    )
    .path("host/")
    .named(json!(name))
    .grant(grant(
        "Sessions",
        "Packer reaches it by Session Manager; its channels know no single resources",
        "ssm:UpdateInstanceInformation ssmmessages:CreateControlChannel ssmmessages:CreateDataChannel \
             ssmmessages:OpenControlChannel ssmmessages:OpenDataChannel",
        [json!("*")],
    ))
    .resource(scope.platform(), scope.shared("Boundary"))
    .skip("CKV_AWS_111", "Session Manager's calls know no single resources.");
    template.add(role);
    let properties = json!({
        "InstanceProfileName": name, "Path": format!("/{}/host/", scope.platform()), "Roles": [re("BuilderRole")],
    });
    template.add(Resource::new(
        "BuilderProfile",
        "AWS::IAM::InstanceProfile",
        "Gives it its role.",
        properties,
    ));
}

/// Images of containers: tags never move, and what has one stays. Which of them run nobody here knows: ECS starts a container
/// anew at any time, and a release goes back to an earlier one. What has no tag is what a push that was broken off has left.
fn repository(template: &mut Template, scope: &Scope<'_>) {
    let lifecycle = json!({ "rules": [{
        "rulePriority": 1,
        "description": "What no commit names goes",
        "selection": { "tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 14 },
        "action": { "type": "expire" },
    }] });
    let mut properties = json!({
        "RepositoryName": scope.repository(),
        "ImageTagMutability": "IMMUTABLE",
        "ImageScanningConfiguration": { "ScanOnPush": true },
        "EncryptionConfiguration": { "EncryptionType": "KMS", "KmsKey": scope.shared("KeyArn") },
        "LifecyclePolicy": { "LifecyclePolicyText": lifecycle.to_string() },
    });
    let others: Vec<Value> = others(scope)
        .map(|account| sub(format!("arn:${{AWS::Partition}}:iam::{account}:root")))
        .collect();
    if !others.is_empty() {
        properties["RepositoryPolicyText"] = document(vec![json!({
            "Sid": "AccountsThatDeployWhatIsBuiltHere",
            "Effect": "Allow",
            "Principal": { "AWS": others },
            "Action": ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        })]);
    }
    let about = "The app's images.";
    template.add(Resource::new("Repository", "AWS::ECR::Repository", about, properties).retained());
}
