#!/bin/sh
# Rust, as Debian has it.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends rustc cargo
