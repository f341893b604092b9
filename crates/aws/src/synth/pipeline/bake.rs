//! The buildspecs of images, which are ours and not the app's.

use super::Scope;
use crate::synth::size::Architecture;

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
