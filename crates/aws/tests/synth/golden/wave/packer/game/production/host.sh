#!/bin/bash
# CodeDeploy's agent, CloudWatch's agent, the command line of AWS, jq, unzip.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
cloud-init status --wait || true
apt-get update
apt-get install -y --no-install-recommends awscli ca-certificates curl jq ruby unzip
cd "$(mktemp -d)"
curl -fsSL --retry 5 -o codedeploy "https://aws-codedeploy-$REGION.s3.$REGION.amazonaws.com/latest/install"
ruby codedeploy auto
# A host of the image has no variables yet when it starts: what gives it them starts the agent.
systemctl disable --now codedeploy-agent
curl -fsSL --retry 5 -o cloudwatch.deb "https://amazoncloudwatch-agent.s3.amazonaws.com/debian/$ARCHITECTURE/latest/amazon-cloudwatch-agent.deb"
dpkg -i cloudwatch.deb
rm -rf "$PWD" /var/lib/apt/lists/*
