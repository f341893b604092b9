dir=$(mktemp -d /var/tmp/vend-move.XXXXXX)
trap 'rm -rf "$dir"' EXIT
if ! { command -v mariadb && command -v mariadb-dump; } > /dev/null; then
  if command -v dnf > /dev/null; then
    dnf --quiet --assumeyes install mariadb1011-client-utils >&2 || dnf --quiet --assumeyes install mariadb105 >&2
  else
    apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends mariadb-client >&2
  fi
fi
quoted() { printf '"%s"' "$(sed 's/[\\"]/\\&/g' <<< "$1")"; }
printf '[client]\nhost=%s\nport=%s\nuser=%s\npassword=%s\n' "$(quoted "$DATABASE_HOST")" "$DATABASE_PORT" \
  "$(quoted "$DATABASE_USER")" "$(quoted "$DATABASE_PASSWORD")" > "$dir"/login
ask() { mariadb --defaults-file="$dir"/login "${tls[@]}" --default-character-set=utf8mb4 "$@" "$DATABASE_NAME"; }
