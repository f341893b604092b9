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

-- The authority that signs for machines: its key is sealed with the platform's data key.
CREATE TABLE authority (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    certificate TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    made_at     INTEGER NOT NULL
) STRICT;

-- What lets one machine in, once. Only the digest of its secret is kept.
CREATE TABLE invitations (
    digest     BLOB NOT NULL PRIMARY KEY,
    tenant_id  INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    labels     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- Machines of customers, known by the digests of their keys. One environment at a time has a machine.
CREATE TABLE registered_machines (
    id             TEXT NOT NULL PRIMARY KEY,
    tenant_id      INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name           TEXT NOT NULL,
    labels         TEXT NOT NULL,
    key            BLOB NOT NULL UNIQUE,
    next_key       BLOB UNIQUE,
    environment_id INTEGER REFERENCES environments ON DELETE SET NULL,
    release        INTEGER,
    deployment     TEXT,
    leaving        INTEGER NOT NULL DEFAULT 0,
    address        TEXT,
    joined_at      INTEGER NOT NULL,
    seen_at        INTEGER
) STRICT;

CREATE INDEX registered_of_tenant ON registered_machines (tenant_id, id);
CREATE INDEX registered_of_environment ON registered_machines (environment_id);
