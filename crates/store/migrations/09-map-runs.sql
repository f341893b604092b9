-- Distributed Maps: their runs, and the children of these. A child of a standard run is an execution as any other, with a
-- history; one of an express run leaves only how it ended.

CREATE TABLE map_runs (
    -- From the same series as those of executions.
    key         INTEGER PRIMARY KEY,
    execution   INTEGER NOT NULL REFERENCES state_executions ON DELETE CASCADE,
    -- Its number among the tasks of the execution.
    task        INTEGER NOT NULL,
    arn         TEXT NOT NULL UNIQUE,
    status      TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    -- NULL until the children are made.
    children    INTEGER,
    items       INTEGER NOT NULL DEFAULT 0,
    -- A ResultWriter has written the results.
    written     INTEGER NOT NULL DEFAULT 0,
    -- What it may do: JSON, which the store does not read.
    bounds      TEXT NOT NULL,
    -- How often it was tried again, and when last.
    redrives    INTEGER NOT NULL DEFAULT 0,
    redriven_at INTEGER,
    UNIQUE (execution, task)
) STRICT;

CREATE INDEX map_runs_open ON map_runs (key) WHERE ended_at IS NULL;

CREATE TABLE map_children (
    run        INTEGER NOT NULL REFERENCES map_runs ON DELETE CASCADE,
    -- From 0, in the order of the items.
    child      INTEGER NOT NULL,
    items      INTEGER NOT NULL,
    -- How express children ended.
    status     TEXT,
    started_at INTEGER,
    ended_at   INTEGER,
    error      TEXT,
    cause      TEXT,
    output     TEXT,
    input      TEXT NOT NULL,
    PRIMARY KEY (run, child)
) STRICT, WITHOUT ROWID;

-- Children that a redrive tries again, by their number in it.
CREATE TABLE map_redrives (
    run   INTEGER NOT NULL REFERENCES map_runs ON DELETE CASCADE,
    place INTEGER NOT NULL,
    child INTEGER NOT NULL,
    PRIMARY KEY (run, place)
) STRICT, WITHOUT ROWID;

-- How many children have ended, and in which way.
CREATE TABLE map_counts (
    run      INTEGER NOT NULL REFERENCES map_runs ON DELETE CASCADE,
    status   TEXT NOT NULL,
    children INTEGER NOT NULL,
    items    INTEGER NOT NULL,
    PRIMARY KEY (run, status)
) STRICT, WITHOUT ROWID;

-- Of an execution that is a child: its run, which child it is, and under which number the run counts it now.
ALTER TABLE state_executions ADD COLUMN run INTEGER REFERENCES map_runs ON DELETE CASCADE;
ALTER TABLE state_executions ADD COLUMN child INTEGER;
-- NULL while it waits to be tried again with its run.
ALTER TABLE state_executions ADD COLUMN place INTEGER;

CREATE UNIQUE INDEX state_executions_child ON state_executions (run, child) WHERE run IS NOT NULL;
CREATE INDEX state_executions_open_child ON state_executions (run) WHERE run IS NOT NULL AND ended_at IS NULL;

-- Lists of a machine's executions, and what is forgotten by age and number, do not have the children in them.
DROP INDEX state_executions_open;
DROP INDEX state_executions_ended;
DROP INDEX state_executions_of_machine;
CREATE INDEX state_executions_open ON state_executions (machine, key) WHERE ended_at IS NULL AND run IS NULL;
CREATE INDEX state_executions_ended ON state_executions (ended_at) WHERE ended_at IS NOT NULL AND run IS NULL;
CREATE INDEX state_executions_of_machine ON state_executions (machine, key) WHERE run IS NULL;

-- Activities that were made or deleted, of which the open executions that use them are still to hear.
CREATE TABLE activity_news (
    tenant_id INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name      TEXT NOT NULL,
    -- Grows with each piece of news.
    number    INTEGER NOT NULL,
    there     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
) STRICT, WITHOUT ROWID;
