# Connections of the platform's own user, but for this one: the app has another.
kills=$(ask --batch --skip-column-names --execute "SELECT CONCAT('KILL ', ID, ';') FROM information_schema.PROCESSLIST
    WHERE USER = SUBSTRING_INDEX(USER(), '@', 1) AND ID <> CONNECTION_ID()")
# One that has ended meanwhile is no reason to stop.
ask --force --execute "$kills"
