-- The live release and five more: the last five that were live before it can be gone back to.
DROP VIEW kept_releases;
CREATE VIEW kept_releases AS
SELECT r.* FROM releases r
WHERE r.state IN ('live', 'pending')
   OR EXISTS (SELECT 1 FROM hosts h
              WHERE h.environment_id = r.environment_id AND h.release = r.number AND h.state <> 'retired')
   OR r.id IN (SELECT l.id FROM releases l
               WHERE l.environment_id = r.environment_id AND l.live_at IS NOT NULL AND l.state NOT IN ('failed', 'live')
               ORDER BY l.number DESC LIMIT 5);
