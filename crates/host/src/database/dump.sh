# Whatever ends this half way lets the app write again.
whole=
trap 'rm -rf "$dir" "$file".part; test "$whole" || ask --execute "SET GLOBAL read_only = 0"' EXIT
# Nobody but the platform writes from here on, so that what is dumped is all there is.
ask --execute 'SET GLOBAL read_only = 1'
# Who made a view, trigger or routine is nobody elsewhere; rows are on lines of their own, which stay as they are. The word to
# newer clients in the first line is an error to older ones.
portable='1{/sandbox mode/d}; /^(\/\*!|CREATE )/s/DEFINER=`[^`]*`@`[^`]*`//'
mariadb-dump --no-defaults --socket="$socket" --single-transaction --quick --routines --triggers --events --hex-blob \
    --skip-lock-tables --default-character-set=utf8mb4 "$database" | LC_ALL=C sed -E "$portable" | gzip -1 > "$file".part
mv "$file".part "$file"
