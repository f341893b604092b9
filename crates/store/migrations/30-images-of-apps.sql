-- Whose an image is is asked for each of its statements, here and later.
CREATE INDEX bakes_of_image ON bakes (image, app_id);

-- An image is what it holds, and so may be several apps': each knows it by its own names, and has its own statements
-- about it.
CREATE TABLE signed (
    id        INTEGER PRIMARY KEY,
    image     BLOB NOT NULL,
    -- NULL: signed before this was kept, of an image that several apps have.
    app_id    INTEGER REFERENCES apps ON DELETE CASCADE,
    predicate TEXT NOT NULL,
    statement TEXT NOT NULL,
    envelope  TEXT NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

INSERT INTO signed (id, image, app_id, predicate, statement, envelope, at)
SELECT s.id, s.image,
       (SELECT CASE WHEN count(DISTINCT b.app_id) = 1 THEN min(b.app_id) END FROM bakes b WHERE b.image = s.image),
       s.predicate, s.statement, s.envelope, s.at
FROM attestations s;

DROP TABLE attestations;
ALTER TABLE signed RENAME TO attestations;

CREATE INDEX attestations_of_image ON attestations (image, id);
CREATE UNIQUE INDEX attestations_once ON attestations (image, app_id, predicate, statement);
CREATE INDEX releases_of_image ON releases (image);
