-- What was told of a tenant's alarms.
CREATE TABLE alarms (
    tenant_id     INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name          TEXT NOT NULL,
    state         TEXT NOT NULL,
    reason        TEXT,
    -- It is in this state since then.
    since         INTEGER NOT NULL,
    -- When it was told for the last time, and by whom.
    told_at       INTEGER NOT NULL,
    told_by       TEXT NOT NULL,
    -- Deployments do not mind it until then, because somebody said so; both or none.
    ignored_until INTEGER,
    ignored_by    TEXT,
    PRIMARY KEY (tenant_id, name)
) STRICT, WITHOUT ROWID;
