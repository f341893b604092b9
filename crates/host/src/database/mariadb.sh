#!/bin/sh
# The image that MariaDB runs in, with a data directory that new databases begin as a copy of.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends mariadb-server
rm -rf /var/lib/mysql /usr/share/vend
install -d -m 0755 /usr/share/vend
install -d -m 0700 -o mysql -g mysql /var/lib/mysql /usr/share/vend/mysql
mariadb-install-db --no-defaults --user=mysql --datadir=/usr/share/vend/mysql --skip-test-db \
    --auth-root-authentication-method=socket --auth-root-socket-user=root \
    --innodb-log-file-size=16M --innodb-use-native-aio=0 >/dev/null
# The agent starts the server, with what it is told; nothing starts by itself.
rm -rf /etc/systemd/system/*.wants
