-- What people decide and hold: approvals, secrets, tokens, commands, deliveries.

CREATE TABLE approvals (
    id                 TEXT NOT NULL PRIMARY KEY,
    app_id             INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    environment        TEXT NOT NULL,
    execution          TEXT NOT NULL,
    task               INTEGER NOT NULL,
    plan               TEXT NOT NULL,
    digest             BLOB NOT NULL,
    required           INTEGER NOT NULL,
    approvers          TEXT NOT NULL,
    authors            TEXT NOT NULL,
    author_may_approve INTEGER NOT NULL,
    state              TEXT NOT NULL,
    reason             TEXT,
    opened_at          INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    changed_at         INTEGER NOT NULL
) STRICT;

CREATE INDEX approvals_open ON approvals (expires_at) WHERE state = 'open';
CREATE INDEX approvals_of_execution ON approvals (execution);
CREATE INDEX approvals_of_app ON approvals (app_id, opened_at);

CREATE TABLE decisions (
    approval TEXT NOT NULL REFERENCES approvals ON DELETE CASCADE,
    person   TEXT NOT NULL,
    actor    TEXT NOT NULL,
    yes      INTEGER NOT NULL,
    why      TEXT,
    at       INTEGER NOT NULL,
    PRIMARY KEY (approval, person)
) STRICT, WITHOUT ROWID;

-- A version number belongs to one value of a name in an app, whichever environment it was set for, for ever.
CREATE TABLE secret_counters (
    app_id INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    name   TEXT NOT NULL,
    last   INTEGER NOT NULL,
    PRIMARY KEY (app_id, name)
) STRICT, WITHOUT ROWID;

-- No environment ('') : for all of the app. No current version: unset, and kept only for releases that pin it.
CREATE TABLE secrets (
    id          INTEGER PRIMARY KEY,
    app_id      INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    environment TEXT NOT NULL,
    name        TEXT NOT NULL,
    current     INTEGER,
    generated   INTEGER NOT NULL,
    UNIQUE (app_id, environment, name)
) STRICT;

CREATE TABLE secret_versions (
    secret_id INTEGER NOT NULL REFERENCES secrets ON DELETE CASCADE,
    version   INTEGER NOT NULL,
    sealed    BLOB NOT NULL,
    set_at    INTEGER NOT NULL,
    set_by    TEXT NOT NULL,
    PRIMARY KEY (secret_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    digest     BLOB NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    actor      TEXT NOT NULL,
    role       TEXT NOT NULL,
    tenant_id  INTEGER REFERENCES tenants ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    used_at    INTEGER
) STRICT;

CREATE UNIQUE INDEX tokens_by_name ON tokens (ifnull(tenant_id, 0), name);

CREATE TABLE commands (
    principal  TEXT NOT NULL,
    key        TEXT NOT NULL,
    digest     BLOB NOT NULL,
    status     INTEGER,
    sealed     BLOB,
    at         INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (principal, key)
) STRICT;

CREATE INDEX commands_expiry ON commands (expires_at);

CREATE TABLE deliveries (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    app_id      INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    provider    TEXT NOT NULL,
    delivery    TEXT,
    headers     TEXT NOT NULL,
    body        BLOB NOT NULL,
    body_bytes  INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    verdict     TEXT NOT NULL,
    reason      TEXT,
    event       TEXT,
    push_id     INTEGER,
    replays     INTEGER NOT NULL DEFAULT 0,
    replayed_at INTEGER
) STRICT;

-- Only verified deliveries can make others duplicates: nobody can occupy an id without the secret.
CREATE UNIQUE INDEX deliveries_once ON deliveries (app_id, provider, delivery)
    WHERE delivery IS NOT NULL AND verdict <> 'refused';
CREATE INDEX deliveries_of_app ON deliveries (app_id, seq);
