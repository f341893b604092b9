#!/bin/sh
# The image that builds run in.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends \
    ca-certificates curl wget git openssh-client gnupg \
    gcc g++ make libc6-dev pkg-config patch file \
    python3 python3-dev python3-pip python3-venv python-is-python3 \
    nodejs npm \
    zip unzip xz-utils bzip2 jq rsync procps sudo
# A build's container is thrown away: pip may install into the system, as on other build services.
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
git config --system --add safe.directory '*'
