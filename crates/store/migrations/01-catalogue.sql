-- Names resolve to integer keys; a name that is used again after a deletion is another row. Times are microseconds
-- since 1970. Words (states, roles) are stored as the model writes them.

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Owner 0 is the platform, any other a tenant. The key is wrapped by the master key.
CREATE TABLE data_keys (
    owner   INTEGER NOT NULL PRIMARY KEY,
    wrapped BLOB NOT NULL
) STRICT;

CREATE TABLE tenants (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT;

CREATE TABLE apps (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id  INTEGER NOT NULL REFERENCES tenants ON DELETE RESTRICT,
    name       TEXT NOT NULL,
    repository TEXT,
    builds     INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE webhook_secrets (
    app_id   INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    provider TEXT NOT NULL,
    sealed   BLOB NOT NULL,
    set_at   INTEGER NOT NULL,
    set_by   TEXT NOT NULL,
    PRIMARY KEY (app_id, provider)
) STRICT, WITHOUT ROWID;

CREATE TABLE environments (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id         INTEGER NOT NULL REFERENCES apps ON DELETE RESTRICT,
    name           TEXT NOT NULL,
    number         INTEGER NOT NULL UNIQUE,
    subnet         INTEGER NOT NULL UNIQUE,
    branch         TEXT NOT NULL,
    spec           TEXT,
    protected      INTEGER NOT NULL DEFAULT 0,
    desired        INTEGER,
    releases       INTEGER NOT NULL DEFAULT 0,
    live           INTEGER,
    previous       INTEGER,
    database_host  TEXT REFERENCES hosts ON DELETE SET NULL,
    database_ready INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    UNIQUE (app_id, name)
) STRICT;

-- A block stays its tenant's after its environment is gone, and comes to another tenant only when none is unused.
CREATE TABLE uid_blocks (
    block          INTEGER NOT NULL PRIMARY KEY,
    tenant_id      INTEGER REFERENCES tenants ON DELETE SET NULL,
    environment_id INTEGER UNIQUE REFERENCES environments ON DELETE SET NULL,
    released_at    INTEGER
) STRICT;

CREATE INDEX uid_blocks_of_tenant ON uid_blocks (tenant_id);

-- The environment is a name: a push may come before its environment exists, and stay after it is gone.
CREATE TABLE pushes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id      INTEGER NOT NULL REFERENCES apps ON DELETE CASCADE,
    environment TEXT,
    branch      TEXT NOT NULL,
    commit_json TEXT NOT NULL,
    origin      TEXT NOT NULL,
    pushed_by   TEXT NOT NULL,
    state       TEXT NOT NULL,
    reason      TEXT,
    execution   TEXT,
    at          INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX pushes_of_app ON pushes (app_id, id);
CREATE INDEX pushes_unassigned ON pushes (id) WHERE state = 'waiting' AND environment IS NULL;
CREATE INDEX pushes_waiting ON pushes (app_id, environment, id) WHERE state = 'waiting';

CREATE TABLE releases (
    id             INTEGER PRIMARY KEY,
    environment_id INTEGER NOT NULL REFERENCES environments ON DELETE CASCADE,
    number         INTEGER NOT NULL,
    state          TEXT NOT NULL,
    reason         TEXT,
    execution      TEXT,
    commit_json    TEXT NOT NULL,
    source         BLOB NOT NULL,
    image          BLOB NOT NULL,
    revision       BLOB NOT NULL,
    spec           TEXT NOT NULL,
    secrets        TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    live_at        INTEGER,
    changed_at     INTEGER NOT NULL,
    UNIQUE (environment_id, number),
    UNIQUE (environment_id, execution)
) STRICT;

CREATE TABLE hosts (
    id             TEXT NOT NULL PRIMARY KEY,
    environment_id INTEGER NOT NULL REFERENCES environments ON DELETE CASCADE,
    release        INTEGER,
    role           TEXT NOT NULL,
    address        INTEGER NOT NULL,
    image          BLOB,
    size           TEXT NOT NULL,
    state          TEXT NOT NULL,
    reason         TEXT,
    retire_at      INTEGER,
    created_at     INTEGER NOT NULL,
    changed_at     INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX hosts_addresses ON hosts (environment_id, address) WHERE state <> 'retired';
CREATE INDEX hosts_of_environment ON hosts (environment_id, created_at);
CREATE INDEX hosts_retired ON hosts (changed_at) WHERE state = 'retired';
CREATE INDEX hosts_due ON hosts (retire_at) WHERE retire_at IS NOT NULL;
