-- The users' own state machines, and the log under them.
--
-- What happens to an execution is a row of `events`, appended and nothing else: one page takes a hundred of them, so
-- that a commit of many executions writes few pages. State and history follow from the events; from time to time they
-- are folded into `snapshots` and `histories`, and the events before are dropped.

-- What requests are signed with (Signature v4), sealed: made from the token's text, which is kept nowhere.
ALTER TABLE tokens ADD COLUMN signing BLOB;

CREATE TABLE state_machines (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id  INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name       TEXT NOT NULL,
    express    INTEGER NOT NULL,
    definition BLOB NOT NULL REFERENCES machines,
    role       TEXT NOT NULL,
    -- What is kept and given back, and means nothing here: logging, tracing, encryption.
    settings   TEXT NOT NULL,
    revision   TEXT NOT NULL,
    versions   INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

CREATE INDEX state_machines_definition ON state_machines (definition);

CREATE TABLE state_machine_versions (
    machine     INTEGER NOT NULL REFERENCES state_machines ON DELETE CASCADE,
    version     INTEGER NOT NULL,
    definition  BLOB NOT NULL REFERENCES machines,
    role        TEXT NOT NULL,
    settings    TEXT NOT NULL,
    revision    TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (machine, version)
) STRICT, WITHOUT ROWID;

CREATE INDEX state_machine_versions_definition ON state_machine_versions (definition);

CREATE TABLE state_machine_aliases (
    machine     INTEGER NOT NULL REFERENCES state_machines ON DELETE CASCADE,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    -- JSON: pairs of version and weight.
    routes      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (machine, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE activities (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id  INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE state_tags (
    tenant_id INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    -- `stateMachine:NAME` or `activity:NAME`
    object    TEXT NOT NULL,
    name      TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (tenant_id, object, name)
) STRICT, WITHOUT ROWID;

-- Of state machines. The engine gives the keys, because an execution is named in the log before it is a row.
-- The machine is no reference: executions outlive it.
CREATE TABLE state_executions (
    key        INTEGER PRIMARY KEY,
    tenant_id  INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    machine    INTEGER NOT NULL,
    name       TEXT NOT NULL,
    -- What the execution is called in its own context, and who it was started for.
    arn        TEXT NOT NULL UNIQUE,
    origin     TEXT NOT NULL,
    definition BLOB NOT NULL REFERENCES machines,
    input      TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    status     TEXT NOT NULL,
    output     TEXT,
    error      TEXT,
    cause      TEXT,
    ended_at   INTEGER,
    -- How often it was tried again, and when last.
    redrives   INTEGER NOT NULL DEFAULT 0,
    redriven_at INTEGER
) STRICT;

CREATE INDEX state_executions_open ON state_executions (machine, key) WHERE ended_at IS NULL;
CREATE INDEX state_executions_ended ON state_executions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX state_executions_of_machine ON state_executions (machine, key);
CREATE INDEX state_executions_definition ON state_executions (definition);
CREATE INDEX state_executions_tenant ON state_executions (tenant_id);

CREATE TABLE events (
    seq       INTEGER PRIMARY KEY,
    execution INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    event     TEXT NOT NULL
) STRICT;

-- Of open executions, as they were after the event `seq`; and of those that ended and may be tried again.
CREATE TABLE snapshots (
    execution INTEGER PRIMARY KEY REFERENCES state_executions ON DELETE CASCADE,
    seq       INTEGER NOT NULL,
    -- When its first timer goes off.
    wake      INTEGER,
    -- The open tasks: who may answer. Read for all executions at a start.
    open      TEXT NOT NULL,
    -- The same with their inputs.
    orders    TEXT NOT NULL,
    state     TEXT NOT NULL
) STRICT;

CREATE INDEX snapshots_wake ON snapshots (wake) WHERE wake IS NOT NULL;

-- Pieces of histories: JSON arrays of events, the first of which has the id `first`.
CREATE TABLE histories (
    execution INTEGER NOT NULL REFERENCES state_executions ON DELETE CASCADE,
    first     INTEGER NOT NULL,
    events    TEXT NOT NULL,
    PRIMARY KEY (execution, first)
) STRICT, WITHOUT ROWID;
