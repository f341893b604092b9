-- Deployments of the live release to machines that joined late or were away: why there was one. NULL: somebody wanted it.
ALTER TABLE deployments ADD COLUMN cause TEXT;

-- So many times in a row such a deployment was begun for the machine, the last time then; 0 once it is well.
ALTER TABLE registered_machines ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE registered_machines ADD COLUMN tried_at INTEGER;
-- Why the last deployment failed on it. NULL: it did not.
ALTER TABLE registered_machines ADD COLUMN failure TEXT;
