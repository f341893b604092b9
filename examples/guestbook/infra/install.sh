#!/bin/sh
# Makes a bare Debian fit for the guestbook. Runs once, as root, when the image is baked.
set -eu
export DEBIAN_FRONTEND=noninteractive

apt-get update -qq
apt-get install -y -qq --no-install-recommends python3
apt-get clean
rm -rf /var/lib/apt/lists/*

if ! id guestbook >/dev/null 2>&1; then
    useradd --system --user-group --home-dir /srv/guestbook --shell /usr/sbin/nologin guestbook
fi
install -d -o root -g guestbook -m 0750 /srv/guestbook
