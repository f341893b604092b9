# What a database holds: how many tables and rows, and the digest of how many rows each table has. Said alike by whoever
# counts: `ask` is the client with its login and the database, `$dir` a directory of its own.
ask --batch --raw --skip-column-names > "$dir"/questions <<'END'
SELECT CONCAT('SELECT ', QUOTE(TABLE_NAME), ', COUNT(*) FROM `', REPLACE(TABLE_NAME, '`', '``'), '`;')
FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED');
END
ask --batch --skip-column-names < "$dir"/questions | LC_ALL=C sort > "$dir"/counts
awk -F '\t' '{ tables += 1; rows += $NF } END { printf "counted: %d tables, %d rows, ", tables, rows }' "$dir"/counts
sha256sum < "$dir"/counts | cut -c 1-16
