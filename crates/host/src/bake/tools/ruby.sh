#!/bin/sh
# Ruby with what its native extensions are compiled with, as Debian has them.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends ruby ruby-dev bundler rake zlib1g-dev libyaml-dev libffi-dev
