-- A release that gets a part of the traffic beside the live one: `share` percent of it, or, without a share, what its
-- hosts are of all that serve.
ALTER TABLE environments ADD COLUMN arriving INTEGER;
ALTER TABLE environments ADD COLUMN share INTEGER;

-- States have CodeDeploy's names, and failures its codes.
ALTER TABLE deployments ADD COLUMN strategy TEXT NOT NULL DEFAULT 'blue-green';
ALTER TABLE deployments ADD COLUMN code TEXT;
ALTER TABLE deployments ADD COLUMN paused_by TEXT;
ALTER TABLE deployments ADD COLUMN paused_at INTEGER;
UPDATE deployments SET state = CASE state
    WHEN 'running' THEN 'InProgress'
    WHEN 'succeeded' THEN 'Succeeded'
    WHEN 'stopped' THEN 'Stopped'
    ELSE 'Failed' END;

-- What the load balancer's numbers said of a step.
CREATE TABLE analyses (
    id         INTEGER PRIMARY KEY,
    deployment TEXT NOT NULL REFERENCES deployments ON DELETE CASCADE,
    analysis   TEXT NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

CREATE INDEX analyses_of_deployment ON analyses (deployment, id);
