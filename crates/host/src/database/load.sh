# Nobody but the platform writes from here on: the app may when it is served here.
trap 'rm -rf "$dir" "$file"' EXIT
server() { mariadb --no-defaults --socket="$socket" "$@"; }
server --execute 'SET GLOBAL read_only = 1'
# Whoever made a view, trigger or routine elsewhere is the app here; rows are on lines of their own, which stay as they are.
maker=$(server --batch --raw --skip-column-names --execute "SELECT CONCAT('DEFINER=\`', User, '\`@\`', Host, '\`')
    FROM mysql.user WHERE User = '$database' ORDER BY Host DESC LIMIT 1")
test -n "$maker"
portable='1{/sandbox mode/d}; /^(\/\*!|CREATE )/s|DEFINER=`[^`]*`@`[^`]*`|'"$maker"'|'
# Whoever reads what is here would be waited for.
kills=$(server --batch --skip-column-names --execute "SELECT CONCAT('KILL ', ID, ';') FROM information_schema.PROCESSLIST
    WHERE USER = '$database'")
server --force --execute "$kills" || true
# What is of no release any more goes too.
server --execute "SET SESSION lock_wait_timeout = 60; DROP DATABASE IF EXISTS \`$database\`; CREATE DATABASE \`$database\`"
# In this mode the client does nothing but SQL, whatever is in a name or a row.
gunzip < "$file" | LC_ALL=C sed -E "$portable" | ask --binary-mode --max-allowed-packet=64M --default-character-set=utf8mb4
