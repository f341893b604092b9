//! The buildspecs of images, which are ours and not the app's, and what who bakes may do.

use serde_json::json;

use super::{Scope, projects::others};
use crate::synth::{
    packer,
    policy::{Grant, arn, global_arn, grant},
    size::Architecture,
    template::sub,
};

/// Images and snapshots belong to no account by their ARN.
const IMAGE: &str = "arn:${AWS::Partition}:ec2:${AWS::Region}::image/*";
const SNAPSHOT: &str = "arn:${AWS::Partition}:ec2:${AWS::Region}::snapshot/*";

/// Bakes with Packer. The image of the same inputs, if there is one, is taken instead.
///
/// What Packer reads lies in the bucket of templates; the files that the scripts see come from the source. The digest of
/// both is a tag of the image, and with them the key and the accounts: no host starts from an image under a key that is gone,
/// and an account that came later may start none of an image that was never shared with it.
pub(super) fn hosts(scope: &Scope<'_>, architecture: Architecture) -> String {
    let platform = scope.platform();
    let app = &scope.app.app;
    let plugin = plugin(architecture);
    format!(
        r#"version: 0.2
env:
  shell: bash
  exported-variables: [IMAGE]
phases:
  install:
    commands:
      - dnf install -y dnf-plugins-core
      - dnf config-manager --add-repo https://rpm.releases.hashicorp.com/AmazonLinux/hashicorp.repo
      - dnf install -y packer {plugin}
  build:
    commands:
      - |
        set -euo pipefail
        shopt -s globstar nullglob dotglob
        aws s3 cp --recursive --quiet "s3://$VEND_TEMPLATES/packer/{app}/$VEND_ENVIRONMENT/" vend/
        files=()
        IFS=$'\n'
        for pattern in $(cat vend/inputs.txt); do
          for file in $pattern; do
            if [ -f "$file" ]; then files+=("$file"); fi
          done
        done
        tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf vend/inputs.tar --files-from=<(printf '%s\n' "${{files[@]}}")
        inputs=$({{ printf '%s\n' "$VEND_KEY" "$VEND_ACCOUNTS"; cat vend/image.pkr.hcl vend/host.sh vend/agents.sh vend/inputs.tar; }} | sha256sum | cut -d ' ' -f 1)
        IMAGE=$(aws ec2 describe-images --owners self --query 'sort_by(Images,&CreationDate)[-1].ImageId' --output text \
          --filters "Name=tag:vend:platform,Values={platform}" "Name=tag:vend:app,Values={app}" \
                    "Name=tag:vend:inputs,Values=$inputs" "Name=state,Values=available")
        if [ "$IMAGE" = None ]; then
          cp vend/*.pkr.hcl .
          # Not the one of cracklib, which is found first.
          /usr/bin/packer init .
          /usr/bin/packer build -color=false -var "region=$AWS_REGION" -var "subnet=$VEND_SUBNET" -var "profile=$VEND_PROFILE" \
            -var "key=$VEND_KEY" -var "accounts=$VEND_ACCOUNTS" -var "commit=$VEND_COMMIT" -var "inputs=$inputs" \
            -var "author=$VEND_AUTHOR" -var "message=$VEND_MESSAGE" -var "branch=$VEND_BRANCH" .
          IMAGE=$(jq -r '.builds[-1].artifact_id | split(":")[1]' manifest.json)
        fi
        export IMAGE
"#
    )
}

/// By which Packer reaches its host. No repository of Amazon Linux 2023 has it.
/// Source: "Install the Session Manager plugin on Amazon Linux 2, Amazon Linux 2023, and Red Hat Enterprise Linux".
fn plugin(architecture: Architecture) -> String {
    let machine = match architecture {
        Architecture::Arm64 => "linux_arm64",
        Architecture::X86_64 => "linux_64bit",
    };
    format!(
        "https://s3.amazonaws.com/session-manager-downloads/plugin/latest/{machine}/session-manager-plugin.rpm"
    )
}

/// Builds the app's Dockerfile and pushes the image under the commit's name, once.
pub(super) fn containers(scope: &Scope<'_>) -> String {
    let repository = scope.repository();
    format!(
        r#"version: 0.2
env:
  shell: bash
  exported-variables: [IMAGE]
phases:
  build:
    commands:
      - |
        set -euo pipefail
        registry="$(aws sts get-caller-identity --query Account --output text).dkr.ecr.$AWS_REGION.amazonaws.com"
        aws ecr get-login-password | docker login --username AWS --password-stdin "$registry"
        image="$registry/{repository}"
        if ! docker buildx imagetools inspect "$image:$VEND_COMMIT" > /dev/null 2>&1; then
          docker build --tag "$image:$VEND_COMMIT" .
          docker push "$image:$VEND_COMMIT"
        fi
        digest=$(aws ecr describe-images --repository-name '{repository}' --image-ids "imageTag=$VEND_COMMIT" \
          --query 'imageDetails[0].imageDigest' --output text)
        export IMAGE="$image@$digest"
"#
    )
}

/// What Packer does: a host, a disk, an image, and away with the host.
///
/// What it makes has the tag of this app's bakes ([`packer::BAKE`]) from its first moment, and nothing else can be given it: so
/// neither the hosts of environments, which have the platform's tags, nor anybody else's are within reach.
pub(super) fn grants(scope: &Scope<'_>) -> Vec<Grant> {
    let app = scope.app.app.as_str();
    let mark = format!("{}/{app}", scope.platform());
    let own = |whose: &str| json!({ "StringEquals": { format!("{whose}/{}", packer::BAKE): mark } });
    let bucket = format!(
        "arn:${{AWS::Partition}}:s3:::{}-{}-templates-${{AWS::AccountId}}-${{AWS::Region}}",
        scope.platform(),
        scope.label
    );
    let mut grants = vec![
        grant("ReadTemplate", "Packer's template and the scripts of hosts", "s3:GetObject", [
            sub(format!("{bucket}/packer/{app}/*")),
        ]),
        grant("ListTemplate", "Which files it has", "s3:ListBucket", [sub(bucket)])
            .when(json!({ "StringLike": { "s3:prefix": format!("packer/{app}/*") } })),
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
            "A host on which the scripts run, and the encrypted copy of its image",
            "ec2:CopyImage ec2:CreateKeyPair ec2:CreateSecurityGroup ec2:RegisterImage ec2:RunInstances",
            [json!("*")],
        ),
        grant("MakeImage", "The image of a host", "ec2:CreateImage ec2:CreateSnapshot", [sub(IMAGE), sub(SNAPSHOT)]),
        grant(
            "UseHost",
            "Only what a bake of this app has made is copied, changed or taken away",
            "ec2:AuthorizeSecurityGroupIngress ec2:CreateImage ec2:CreateSnapshot ec2:DeleteKeyPair ec2:DeleteSecurityGroup \
             ec2:DeleteSnapshot ec2:DeregisterImage ec2:ModifyImageAttribute ec2:ModifyInstanceAttribute ec2:StopInstances \
             ec2:TerminateInstances",
            [json!("*")],
        )
        .when(own("aws:ResourceTag")),
        grant("Connect", "The scripts reach the host by Session Manager: no port is open", "ssm:StartSession", [
            arn("ec2", "instance/*"),
        ])
        .when(own("ssm:resourceTag")),
        grant("Forward", "A session is the way to the host's SSH, and no shell", "ssm:StartSession", [
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
    grants.extend(tagging());
    grants.extend(sharing(scope));
    grants
}

/// Packer tags as it makes, and afterwards the finished image and its disk only. The name of a condition's tag knows no case,
/// and tags do. EC2 does not say under which name it asks for the tags that a copy of an image takes over, so images can be
/// given any.
/// Source: `step_create_tags.go` of Packer's Amazon plugin; "Grant permission to tag Amazon EC2 resources during creation".
fn tagging() -> [Grant; 3] {
    let made = "CopyImage CreateImage CreateKeyPair CreateSecurityGroup CreateSnapshot RunInstances";
    let made: Vec<&str> = made.split(' ').collect();
    [
        grant(
            "TagNew",
            "What is made has its tags from the beginning; what is there gets none",
            "ec2:CreateTags",
            [json!("*")],
        )
        .when(json!({ "StringEquals": { "ec2:CreateAction": made } })),
        grant(
            "TagImage",
            "The finished image says what it was made of",
            "ec2:CreateTags",
            [sub(IMAGE)],
        ),
        grant(
            "TagDisk",
            "So does its disk, but not that a bake may take it away",
            "ec2:CreateTags",
            [sub(SNAPSHOT)],
        )
        .when(json!({ "ForAllValues:StringNotEqualsIgnoreCase": { "aws:TagKeys": [packer::BAKE] } })),
    ]
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
        [sub(SNAPSHOT)],
    );
    let only = json!({
        "ForAllValues:StringEquals": { "ec2:Add/userId": accounts },
        "Null": { "ec2:Add/group": "true", "ec2:Remove/group": "true", "ec2:Remove/userId": "true" },
    });
    (!accounts.is_empty()).then(|| share.when(only))
}
