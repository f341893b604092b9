#!/bin/bash
# Runs once, when the host that becomes an image starts.
# It goes by itself if nobody takes it away. No image has this: it is known to the running system only.
systemd-run --on-active=75min systemctl poweroff
set -eu
architecture=$(dpkg --print-architecture)
curl -fsSL --retry 5 -o /tmp/ssm.deb "https://s3.amazonaws.com/ec2-downloads-linux/SSMAgent/latest/debian_$architecture/amazon-ssm-agent.deb"
dpkg -i /tmp/ssm.deb
rm /tmp/ssm.deb
systemctl enable --now amazon-ssm-agent
