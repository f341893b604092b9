-- What the platform has signed about images: DSSE envelopes of in-toto statements.
CREATE TABLE attestations (
    id        INTEGER PRIMARY KEY,
    image     BLOB NOT NULL,
    predicate TEXT NOT NULL,
    statement TEXT NOT NULL,
    envelope  TEXT NOT NULL,
    at        INTEGER NOT NULL,
    UNIQUE (image, predicate, statement)
) STRICT;

CREATE INDEX attestations_of_image ON attestations (image, id);
