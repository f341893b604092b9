-- Releases are executions of the one engine: `executions` says what a release is, its run says what it does.
--
-- Foreign keys are not enforced while this runs, so that a table can be made anew under its name, and are checked at
-- its end.

-- A run without a tenant is the platform's own: deleting a tenant takes nothing of it away.
CREATE TABLE runs (
    key        INTEGER PRIMARY KEY,
    tenant_id  INTEGER REFERENCES tenants ON DELETE CASCADE,
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

INSERT INTO runs SELECT * FROM state_executions;
DROP TABLE state_executions;
ALTER TABLE runs RENAME TO state_executions;

CREATE INDEX state_executions_open ON state_executions (machine, key) WHERE ended_at IS NULL;
CREATE INDEX state_executions_ended ON state_executions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX state_executions_of_machine ON state_executions (machine, key);
CREATE INDEX state_executions_definition ON state_executions (definition);
CREATE INDEX state_executions_tenant ON state_executions (tenant_id);

-- What there is gets runs with keys that were never given.
ALTER TABLE executions ADD COLUMN run INTEGER;
UPDATE executions SET run = key + max(
    ifnull((SELECT max(key) FROM state_executions), 0),
    ifnull((SELECT max(execution) FROM events), 0));

INSERT INTO state_executions
SELECT run, NULL, 0, id, 'arn:aws:states:local:000000000000:execution:' || kind || ':' || id,
       json_object('tenant', tenant), machine, input, started_at, status, output, error, cause, ended_at, 0, NULL
FROM executions;

-- Histories, in pieces of 256 events.
INSERT INTO histories
SELECT x.run, min(h.id), json_group_array(json_object(
           'id', h.id, 'previous', h.previous,
           'at', strftime('%Y-%m-%dT%H:%M:%S', h.at / 1000000, 'unixepoch') || printf('.%06dZ', h.at % 1000000),
           'kind', h.kind,
           'details', json(iif(json_valid(h.details), h.details, json_quote(h.details)))) ORDER BY h.id)
FROM history h JOIN executions x ON x.key = h.execution
GROUP BY x.run, (h.id - 1) / 256;

-- What is open goes on: its state is the same record, and its tasks are offered again, each under a new token.
INSERT INTO snapshots
SELECT x.run, 0,
       (SELECT min(t.at) FROM timers t WHERE t.execution = x.key),
       (SELECT json_group_array(json_object(
                   'task', t.task, 'resource', t.resource,
                   'token', substr(lower(hex(randomblob(32))), 1, 43),
                   'heartbeat', NULL, 'attempt', t.attempt, 'started', json('false')) ORDER BY t.task)
        FROM tasks t WHERE t.execution = x.key),
       (SELECT json_group_array(json(t.input) ORDER BY t.task) FROM tasks t WHERE t.execution = x.key),
       s.state
FROM executions x JOIN execution_states s ON s.execution = x.key WHERE x.ended_at IS NULL;

DROP TABLE timers;
DROP TABLE tasks;
DROP TABLE history;
DROP TABLE execution_states;

-- The place is text: an execution outlives the environment that it destroys. How it stands is kept in step with its
-- run, in the same transactions.
CREATE TABLE records (
    key         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    tenant      TEXT,
    app         TEXT,
    environment TEXT,
    kind        TEXT NOT NULL,
    run         INTEGER NOT NULL UNIQUE REFERENCES state_executions ON DELETE CASCADE,
    status      TEXT NOT NULL,
    error       TEXT,
    cause       TEXT,
    started_at  INTEGER NOT NULL,
    started_by  TEXT NOT NULL,
    ended_at    INTEGER,
    deadline_at INTEGER
) STRICT;

INSERT INTO records
SELECT key, id, tenant, app, environment, kind, run, status, error, cause, started_at, started_by, ended_at, deadline_at
FROM executions;
DROP TABLE executions;
ALTER TABLE records RENAME TO executions;

CREATE INDEX executions_of_tenant ON executions (tenant, key);
CREATE INDEX executions_of_place ON executions (tenant, app, environment, key);
CREATE INDEX executions_open ON executions (key) WHERE ended_at IS NULL;
CREATE INDEX executions_open_of_place ON executions (tenant, app, environment) WHERE ended_at IS NULL;
CREATE INDEX executions_deadline ON executions (deadline_at) WHERE ended_at IS NULL AND deadline_at IS NOT NULL;
CREATE INDEX executions_ended ON executions (ended_at) WHERE ended_at IS NOT NULL;
