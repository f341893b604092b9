#!/bin/sh
# PHP with the extensions that most packages ask for, as Debian has them.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends \
    php-cli php-curl php-gd php-intl php-mbstring php-mysql php-pgsql php-sqlite3 php-xml php-zip composer
