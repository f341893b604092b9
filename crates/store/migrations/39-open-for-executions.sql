-- What is open for an execution is asked for again and again; there is little of it among all that was.
CREATE INDEX deployments_open ON deployments (execution) WHERE ended_at IS NULL;
CREATE INDEX pushes_running ON pushes (app_id, environment, id) WHERE state = 'running';
