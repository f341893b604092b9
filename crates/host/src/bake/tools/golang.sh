#!/bin/sh
# Go, as Debian has it.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends golang-go
