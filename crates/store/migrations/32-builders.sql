-- Machines that build beside the platform's own, known by the digests of their keys. `tenants`: those whose builds they
-- get; empty: all.
CREATE TABLE builders (
    id        TEXT NOT NULL PRIMARY KEY,
    name      TEXT NOT NULL,
    labels    TEXT NOT NULL,
    tenants   TEXT NOT NULL,
    key       BLOB NOT NULL UNIQUE,
    next_key  BLOB UNIQUE,
    leaving   INTEGER NOT NULL DEFAULT 0,
    address   TEXT,
    joined_at INTEGER NOT NULL,
    seen_at   INTEGER
) STRICT;

-- What lets one of them in, once. Only the digest of its secret is kept.
CREATE TABLE builder_invitations (
    digest     BLOB NOT NULL PRIMARY KEY,
    labels     TEXT NOT NULL,
    tenants    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Where a build runs; NULL: on the platform's own machine. What its builder says of it is in its log from `log_from` on;
-- NULL: nothing yet. `given`: so often it was given to one, because one before fell silent or failed.
ALTER TABLE builds ADD COLUMN builder TEXT;
ALTER TABLE builds ADD COLUMN given INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN log_from INTEGER;
CREATE INDEX running_builds ON builds (started_at) WHERE state = 'running';
