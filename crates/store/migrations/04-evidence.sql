-- What was done for releases: builds, bakes, deployments, verdicts.

CREATE TABLE builds (
    ticket      TEXT NOT NULL PRIMARY KEY,
    app_id      INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL,
    execution   TEXT,
    commit_json TEXT NOT NULL,
    source      BLOB NOT NULL,
    state       TEXT NOT NULL,
    built       TEXT,
    artifact    BLOB,
    fault       TEXT,
    log         TEXT,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    UNIQUE (app_id, number)
) STRICT;

CREATE INDEX builds_of_execution ON builds (execution);

CREATE TABLE bakes (
    ticket      TEXT NOT NULL PRIMARY KEY,
    app_id      INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    environment TEXT NOT NULL,
    execution   TEXT,
    state       TEXT NOT NULL,
    baked       TEXT,
    image       BLOB,
    fault       TEXT,
    log         TEXT,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT;

CREATE INDEX bakes_of_app ON bakes (app_id, started_at);
CREATE INDEX bakes_of_execution ON bakes (execution);

-- An image may serve several tenants: it is what it is made of.
CREATE TABLE images (
    digest   BLOB NOT NULL PRIMARY KEY,
    baked    TEXT NOT NULL,
    baked_at INTEGER NOT NULL,
    used_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE deployments (
    id             TEXT NOT NULL PRIMARY KEY,
    environment_id INTEGER NOT NULL REFERENCES environments ON DELETE CASCADE,
    release        INTEGER NOT NULL,
    execution      TEXT,
    state          TEXT NOT NULL,
    reason         TEXT,
    started_at     INTEGER NOT NULL,
    ended_at       INTEGER
) STRICT;

CREATE INDEX deployments_of_environment ON deployments (environment_id, started_at);

CREATE TABLE deployment_events (
    deployment  TEXT NOT NULL REFERENCES deployments ON DELETE CASCADE,
    host        TEXT NOT NULL,
    event       TEXT NOT NULL,
    ordinal     INTEGER NOT NULL,
    report      TEXT NOT NULL,
    PRIMARY KEY (deployment, host, event)
) STRICT;

CREATE TABLE verdicts (
    id             INTEGER PRIMARY KEY,
    environment_id INTEGER NOT NULL REFERENCES environments ON DELETE CASCADE,
    release        INTEGER NOT NULL,
    host           TEXT NOT NULL,
    passed         INTEGER NOT NULL,
    verdict        TEXT NOT NULL,
    at             INTEGER NOT NULL
) STRICT;

CREATE INDEX verdicts_of_release ON verdicts (environment_id, release, id);

-- What the live release, a rollback or a host may need.
CREATE VIEW kept_releases AS
SELECT r.* FROM releases r
WHERE r.state IN ('live', 'pending')
   OR EXISTS (SELECT 1 FROM hosts h
              WHERE h.environment_id = r.environment_id AND h.release = r.number AND h.state <> 'retired')
   OR r.id IN (SELECT l.id FROM releases l
               WHERE l.environment_id = r.environment_id AND l.live_at IS NOT NULL AND l.state <> 'failed'
               ORDER BY l.number DESC LIMIT 5);
