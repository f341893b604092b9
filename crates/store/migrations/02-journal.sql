-- What changes with every transition (execution_states, tasks, timers) is apart from what is written once, because
-- SQLite rewrites whole rows.

CREATE TABLE machines (
    digest     BLOB NOT NULL PRIMARY KEY,
    definition TEXT NOT NULL
) STRICT;

-- The place is text: an execution outlives the environment that it destroys.
CREATE TABLE executions (
    key         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    tenant      TEXT,
    app         TEXT,
    environment TEXT,
    kind        TEXT NOT NULL,
    machine     BLOB NOT NULL REFERENCES machines,
    input       TEXT NOT NULL,
    status      TEXT NOT NULL,
    output      TEXT,
    error       TEXT,
    cause       TEXT,
    started_at  INTEGER NOT NULL,
    started_by  TEXT NOT NULL,
    ended_at    INTEGER,
    deadline_at INTEGER
) STRICT;

CREATE INDEX executions_of_tenant ON executions (tenant, key);
CREATE INDEX executions_of_place ON executions (tenant, app, environment, key);
CREATE INDEX executions_open ON executions (key) WHERE ended_at IS NULL;
CREATE INDEX executions_open_of_place ON executions (tenant, app, environment) WHERE ended_at IS NULL;
CREATE INDEX executions_deadline ON executions (deadline_at) WHERE ended_at IS NULL AND deadline_at IS NOT NULL;
CREATE INDEX executions_ended ON executions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX executions_machine ON executions (machine);

CREATE TABLE execution_states (
    execution INTEGER NOT NULL PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
    version   INTEGER NOT NULL,
    state     TEXT NOT NULL
) STRICT;

CREATE TABLE history (
    execution INTEGER NOT NULL REFERENCES executions ON DELETE CASCADE,
    id        INTEGER NOT NULL,
    previous  INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    details   TEXT NOT NULL,
    PRIMARY KEY (execution, id)
) STRICT, WITHOUT ROWID;

-- Only what is open: a task that ended is in the history. No lease: scheduled.
CREATE TABLE tasks (
    execution      INTEGER NOT NULL REFERENCES executions ON DELETE CASCADE,
    task           INTEGER NOT NULL,
    resource       TEXT NOT NULL,
    input          TEXT NOT NULL,
    ticket         TEXT NOT NULL,
    attempt        INTEGER NOT NULL,
    scheduled_at   INTEGER NOT NULL,
    not_before     INTEGER NOT NULL,
    heartbeat_ms   INTEGER,
    timeout_at     INTEGER,
    lease_until    INTEGER,
    worker         TEXT,
    last_heartbeat INTEGER,
    PRIMARY KEY (execution, task)
) STRICT, WITHOUT ROWID;

CREATE INDEX tasks_scheduled ON tasks (resource, not_before) WHERE lease_until IS NULL;
CREATE INDEX tasks_later ON tasks (not_before) WHERE lease_until IS NULL;
CREATE INDEX tasks_leased ON tasks (lease_until) WHERE lease_until IS NOT NULL;

CREATE TABLE timers (
    execution INTEGER NOT NULL REFERENCES executions ON DELETE CASCADE,
    timer     INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (execution, timer)
) STRICT, WITHOUT ROWID;

CREATE INDEX timers_due ON timers (at);
