-- Which step of an environment's priorities each of its rules has, beside that of its own names: a rule keeps its own for
-- as long as it is there.
CREATE TABLE priorities (
    environment_id INTEGER NOT NULL REFERENCES environments ON DELETE CASCADE,
    -- A domain, or a port as `udp-5514`.
    name           TEXT NOT NULL,
    step           INTEGER NOT NULL CHECK (step BETWEEN 1 AND 255),
    PRIMARY KEY (environment_id, name),
    UNIQUE (environment_id, step)
) STRICT, WITHOUT ROWID;

-- What is closed: visitors get a page in its place.
CREATE TABLE closures (
    id             INTEGER PRIMARY KEY,
    tenant_id      INTEGER NOT NULL REFERENCES tenants ON DELETE CASCADE,
    -- NULL: all that the tenant has.
    environment_id INTEGER UNIQUE REFERENCES environments ON DELETE CASCADE,
    -- HTML; NULL: the platform's own words.
    page           TEXT,
    at             INTEGER NOT NULL,
    by             TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX closures_of_tenants ON closures (tenant_id) WHERE environment_id IS NULL;

-- Who may ask for anything of a tenant, as JSON; NULL: everybody.
ALTER TABLE tenants ADD COLUMN access TEXT;
