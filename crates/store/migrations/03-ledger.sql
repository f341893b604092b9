CREATE TABLE ledger (
    number   INTEGER NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    tenant   TEXT,
    object   TEXT NOT NULL,
    detail   TEXT NOT NULL,
    previous BLOB NOT NULL,
    digest   BLOB NOT NULL
) STRICT;

CREATE INDEX ledger_of_tenant ON ledger (tenant, number);
CREATE INDEX ledger_of_object ON ledger (object, number);

CREATE TABLE checkpoints (
    number    INTEGER NOT NULL PRIMARY KEY REFERENCES ledger,
    at        INTEGER NOT NULL,
    digest    BLOB NOT NULL,
    signature TEXT NOT NULL
) STRICT;

-- Our own code is held to the promise too.
CREATE TRIGGER ledger_stays BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_keeps BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER checkpoints_stay BEFORE UPDATE ON checkpoints BEGIN SELECT RAISE(ABORT, 'checkpoints stay'); END;
CREATE TRIGGER checkpoints_keep BEFORE DELETE ON checkpoints BEGIN SELECT RAISE(ABORT, 'checkpoints stay'); END;
