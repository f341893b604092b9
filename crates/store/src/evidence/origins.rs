use model::{
    AppName, Digest, TenantName,
    port::{Baked, ImageOrigin},
    spec,
};
use rusqlite::{Row, params};

use super::{Of, WorkState};
use crate::{
    Db, Error,
    sql::{Columns as _, Hash, Word},
};

/// An app that an image is of, and what it came from there.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub tenant: TenantName,
    pub app: AppName,
    pub content: ImageOrigin,
}

impl Db<'_> {
    /// What an image came from in each app that has baked it or has a release on it, as the first of these says; the oldest app
    /// first. The same files may be of several apps, and of several tenants, who know nothing of each other.
    pub fn image_origins(&self, image: &Digest, of: Of<'_>) -> Result<Vec<Origin>, Error> {
        let (tenant, app) = (of.map(|(tenant, _)| tenant), of.and_then(|(_, app)| app));
        self.all(
            "WITH had AS (
                 SELECT e.app_id, r.commit_json, r.spec, NULL AS base, r.created_at AS at
                 FROM releases r JOIN environments e ON e.id = r.environment_id WHERE r.image = ?1
                 UNION ALL
                 SELECT b.app_id, b.commit_json, NULL, b.base, b.started_at
                 FROM bakes b WHERE b.image = ?1 AND b.state = ?4 AND b.commit_json IS NOT NULL)
             SELECT t.name AS tenant, a.name AS app, h.commit_json, h.spec, h.base, min(h.at) AS created_at,
                 (SELECT b.baked FROM bakes b WHERE b.app_id = a.id AND b.image = ?1 AND b.baked IS NOT NULL
                  ORDER BY b.started_at DESC LIMIT 1) AS baked
             FROM had h JOIN apps a ON a.id = h.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE (?2 IS NULL OR t.name = ?2) AND (?3 IS NULL OR a.name = ?3)
             GROUP BY a.id ORDER BY created_at, a.id",
            params![
                Hash(*image),
                tenant.map(TenantName::as_str),
                app.map(AppName::as_str),
                Word(WorkState::Succeeded)
            ],
            origin,
        )
    }
}

fn origin(row: &Row<'_>) -> rusqlite::Result<Origin> {
    let spec: Option<spec::Environment> = row.maybe_json("spec")?;
    let base = match spec {
        Some(spec) => spec.image.base,
        None => row.get("base")?,
    };
    let baked: Option<Baked> = row.maybe_json("baked")?;
    Ok(Origin {
        tenant: row.parsed("tenant")?,
        app: row.parsed("app")?,
        content: ImageOrigin {
            base,
            layers: baked.map(|baked| baked.layers).unwrap_or_default(),
            commit: row.json("commit_json")?,
            made_at: row.at("created_at")?,
        },
    })
}
