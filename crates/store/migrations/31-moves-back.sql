-- Nobody is served since then, and until then at most: whoever carries the data says so again while it works.
ALTER TABLE moves ADD COLUMN closed_at INTEGER;
ALTER TABLE moves ADD COLUMN closed_until INTEGER;
-- A load was begun here of data that is on AWS, and has not arrived.
ALTER TABLE moves ADD COLUMN torn INTEGER NOT NULL DEFAULT 0;
-- Whoever carried data before this has ended: they were served by what was stopped to get here.
UPDATE moves SET closed_at = began_at, closed_until = began_at WHERE closed;
