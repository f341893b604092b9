-- Which build of its batch it is, as the buildspec calls it; NULL: of no batch.
ALTER TABLE builds ADD COLUMN identifier TEXT;
-- It is the platform's own machine that has it. With neither this nor a builder it has no place yet.
ALTER TABLE builds ADD COLUMN here INTEGER NOT NULL DEFAULT 0;
-- Why it does not go on yet, for people.
ALTER TABLE builds ADD COLUMN waits TEXT;

-- What it said is asked in one query.
DROP VIEW kept_releases;
