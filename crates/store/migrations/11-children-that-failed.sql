-- Children of Map runs that ended without success, so that nobody looks through those that succeeded for them.
CREATE INDEX state_executions_fallen_child ON state_executions (run)
    WHERE run IS NOT NULL AND ended_at IS NOT NULL AND status <> 'SUCCEEDED';
