-- What brought an environment's data to where a release needs it: at most once for each release. `born_at` tells the
-- host that ran it from one that was made anew under the same name, which knows nothing of it.
CREATE TABLE migrations (
    environment_id INTEGER NOT NULL REFERENCES environments ON DELETE CASCADE,
    release        INTEGER NOT NULL,
    execution      TEXT NOT NULL,
    host           TEXT NOT NULL,
    born_at        INTEGER NOT NULL,
    script         TEXT NOT NULL,
    irreversible   INTEGER NOT NULL,
    state          TEXT NOT NULL,
    reason         TEXT,
    log            TEXT,
    started_at     INTEGER NOT NULL,
    ended_at       INTEGER,
    PRIMARY KEY (environment_id, release)
) STRICT, WITHOUT ROWID;
