#!/bin/sh
# Java with its usual build tools, as Debian has them.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends default-jdk-headless maven ant
# Where build tools look for it, whatever the architecture.
ln -sfn "$(dirname "$(dirname "$(readlink -f /usr/bin/javac)")")" /usr/lib/jvm/default-java
