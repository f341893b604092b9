-- An environment that is being moved to AWS, or was: by how much it is served there. Without a row it is served here.
CREATE TABLE moves (
    environment_id INTEGER PRIMARY KEY REFERENCES environments ON DELETE CASCADE,
    -- The name of its load balancer there.
    host           TEXT NOT NULL,
    -- The release that was live when it began: what is live there is of the same commit.
    release        INTEGER NOT NULL,
    share          INTEGER NOT NULL DEFAULT 0 CHECK (share BETWEEN 0 AND 100),
    -- Nobody is served, because its data is on the way.
    closed         INTEGER NOT NULL DEFAULT 0,
    -- Where its data is true: 'here' or 'away'; NULL: it has no database.
    data           TEXT CHECK (data IN ('here', 'away')),
    -- What was counted of the data when it was dumped last.
    counted        TEXT,
    -- Since when nothing of it runs here.
    finished_at    INTEGER,
    began_at       INTEGER NOT NULL,
    began_by       TEXT NOT NULL
) STRICT;
