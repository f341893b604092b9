use model::{
    AppName, Digest, TenantName,
    port::{Baked, Commit, ImageOrigin},
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
    /// What an image came from in each app that has a release on it, as the first of them says; the oldest app first.
    /// The same files may be of several apps, and of several tenants, who know nothing of each other.
    pub fn image_origins(&self, image: &Digest, of: Of<'_>) -> Result<Vec<Origin>, Error> {
        let (tenant, app) = (of.map(|(tenant, _)| tenant), of.and_then(|(_, app)| app));
        self.all(
            "SELECT t.name AS tenant, a.name AS app, r.commit_json, r.spec, min(r.created_at) AS created_at,
                 (SELECT b.baked FROM bakes b WHERE b.app_id = a.id AND b.image = r.image AND b.baked IS NOT NULL
                  ORDER BY b.started_at DESC LIMIT 1) AS baked
             FROM releases r JOIN environments e ON e.id = r.environment_id JOIN apps a ON a.id = e.app_id
             JOIN tenants t ON t.id = a.tenant_id
             WHERE r.image = ?1 AND (?2 IS NULL OR t.name = ?2) AND (?3 IS NULL OR a.name = ?3)
             GROUP BY a.id ORDER BY created_at, a.id",
            params![
                Hash(*image),
                tenant.map(TenantName::as_str),
                app.map(AppName::as_str)
            ],
            origin,
        )
    }

    /// The app that has made an image which no release stands on yet: the first whose bake came to it.
    pub fn image_maker(&self, image: &Digest, of: Of<'_>) -> Result<Option<(TenantName, AppName)>, Error> {
        let (tenant, app) = (of.map(|(tenant, _)| tenant), of.and_then(|(_, app)| app));
        self.one(
            "SELECT t.name AS tenant, a.name AS app FROM bakes b JOIN apps a ON a.id = b.app_id
             JOIN tenants t ON t.id = a.tenant_id
             WHERE b.image = ?1 AND b.state = ?4 AND (?2 IS NULL OR t.name = ?2) AND (?3 IS NULL OR a.name = ?3)
             ORDER BY b.started_at, b.ticket LIMIT 1",
            params![
                Hash(*image),
                tenant.map(TenantName::as_str),
                app.map(AppName::as_str),
                Word(WorkState::Succeeded)
            ],
            |row| Ok((row.parsed("tenant")?, row.parsed("app")?)),
        )
    }
}

fn origin(row: &Row<'_>) -> rusqlite::Result<Origin> {
    let (spec, commit): (spec::Environment, Commit) = (row.json("spec")?, row.json("commit_json")?);
    let baked: Option<Baked> = row.maybe_json("baked")?;
    Ok(Origin {
        tenant: row.parsed("tenant")?,
        app: row.parsed("app")?,
        content: ImageOrigin {
            base: spec.image.base,
            layers: baked.map(|baked| baked.layers).unwrap_or_default(),
            commit,
            made_at: row.at("created_at")?,
        },
    })
}
