bytes=$(ask --batch --skip-column-names --execute "SELECT CAST(COALESCE(SUM(DATA_LENGTH), 0) + 1048576 AS UNSIGNED)
    FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()")
mariadb-dump --defaults-file="$dir"/login "${tls[@]}" --single-transaction --quick --routines --triggers --events --hex-blob \
    --skip-lock-tables --default-character-set=utf8mb4 "$DATABASE_NAME" | gzip -1 | send
