-- Whose each domain and each port of an app is. Who has one keeps it for as long as it asks for it. The first pass over the
-- environments fills this.
CREATE TABLE names (
    -- A domain in lower case, or a port as `udp-5514`.
    name           TEXT NOT NULL PRIMARY KEY,
    environment_id INTEGER NOT NULL REFERENCES environments ON DELETE CASCADE,
    -- When it was given.
    since          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX names_of_environment ON names (environment_id);
