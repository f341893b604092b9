//! What executions left open that are over.

use model::{ExecutionId, Place};

use crate::{Db, Error, catalogue::place, sql::Columns as _};

impl Db<'_> {
    /// Executions that are over, or of which nothing is known any more, and for which a push, a deployment, a migration or an
    /// approval is still open, with its place.
    pub fn left_open(&self) -> Result<Vec<(Place, ExecutionId)>, Error> {
        self.all(
            "SELECT DISTINCT t.name AS tenant, a.name AS app, l.environment, l.execution FROM (
                 SELECT app_id, environment, execution FROM pushes WHERE state = 'running'
                 UNION ALL SELECT app_id, environment, execution FROM approvals WHERE state = 'open'
                 UNION ALL SELECT e.app_id, e.name, d.execution FROM deployments d
                     JOIN environments e ON e.id = d.environment_id WHERE d.ended_at IS NULL
                 UNION ALL SELECT e.app_id, e.name, m.execution FROM migrations m
                     JOIN environments e ON e.id = m.environment_id WHERE m.state = 'running'
             ) l JOIN apps a ON a.id = l.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE l.execution IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM executions x WHERE x.id = l.execution AND x.ended_at IS NULL)",
            [],
            |row| Ok((place(row, "environment")?, row.parsed("execution")?)),
        )
    }

    /// Environments of which a release gets a part of the traffic beside the one that is live.
    pub fn places_shared(&self) -> Result<Vec<Place>, Error> {
        self.all(
            "SELECT t.name AS tenant, a.name AS app, e.name AS environment FROM environments e
             JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id WHERE e.arriving IS NOT NULL",
            [],
            |row| place(row, "environment"),
        )
    }
}
