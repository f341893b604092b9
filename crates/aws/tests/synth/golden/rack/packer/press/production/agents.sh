#!/bin/bash
# Runs once, when the host that becomes an image starts.
set -eu
architecture=$(dpkg --print-architecture)
curl -fsSL --retry 5 -o /tmp/ssm.deb "https://s3.amazonaws.com/ec2-downloads-linux/SSMAgent/latest/debian_$architecture/amazon-ssm-agent.deb"
dpkg -i /tmp/ssm.deb
rm /tmp/ssm.deb
systemctl enable --now amazon-ssm-agent
