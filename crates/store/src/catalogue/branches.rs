//! Environments that come and go with their branches: made within limits, marked when they are to go, and gone only
//! when all that stands of them is.

use jiff::{SignedDuration, Timestamp};
use model::{AppName, EnvironmentName, Place, TenantName, spec};
use rusqlite::{Row, params};
use serde_json::json;

use super::environments::Environment;
use crate::{By, Db, Error, Push, PushState, Tx, sql::Columns as _};

/// How an environment comes and goes with its branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// What it was made from: a name in `vend.yaml`, whose secrets it has too.
    pub of: EnvironmentName,
    pub expires_after: SignedDuration,
    /// When somebody last pushed to it, or set it in motion by hand.
    pub used_at: Timestamp,
    /// It is being taken down, and why.
    pub ending: Option<String>,
}

impl Preview {
    pub fn expires_at(&self) -> Timestamp {
        self.used_at
            .saturating_add(self.expires_after)
            .unwrap_or(Timestamp::MAX)
    }
}

/// What the end of a branch means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// Environments that go with it.
    pub ending: Vec<Place>,
    /// Those that would, and are protected.
    pub kept: Vec<Place>,
    /// Pushes that had no environment yet.
    pub pushes: usize,
}

/// Why a push to a branch that went before anybody looked at it is ignored.
const GONE: &str = "the branch is gone";

impl Db<'_> {
    /// Is what a push has brought still there, or on its way? Not when its branch or its environment went meanwhile: the
    /// same commit then comes anew.
    pub fn still_counts(&self, push: &Push) -> Result<bool, Error> {
        let Some(place) = push.place() else {
            return Ok(push.reason.as_deref() != Some(GONE));
        };
        let environment = self.find_environment(&place)?;
        Ok(environment.is_some_and(|own| own.ending().is_none()))
    }

    /// Environments that are to go, why, and who says so.
    pub fn ending(&self) -> Result<Vec<(Place, String, String)>, Error> {
        self.all(
            "SELECT t.name AS tenant, a.name AS app, e.name AS environment, e.ending, e.ending_by FROM environments e
             JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE e.ending IS NOT NULL ORDER BY e.id",
            [],
            |row| {
                let place = super::environments::place(row, "environment")?;
                Ok((place, row.get("ending")?, row.get("ending_by")?))
            },
        )
    }

    /// Environments of branches to which nothing was pushed for as long as they say, and in which nothing moves.
    pub fn expired(&self, now: Timestamp) -> Result<Vec<Environment>, Error> {
        let mut expired = Vec::new();
        for environment in self.environments_of_branches()? {
            let over = |preview: &Preview| preview.ending.is_none() && preview.expires_at() <= now;
            if environment.preview.as_ref().is_some_and(over)
                && !environment.protected
                && !self.is_busy(&environment.place)?
            {
                expired.push(environment);
            }
        }
        Ok(expired)
    }

    fn of_branches(
        &self,
        tenant: &TenantName,
        of: Option<(&AppName, &EnvironmentName)>,
    ) -> Result<u32, Error> {
        let (app, of) = of.unzip();
        self.value(
            "SELECT count(*) FROM environments e JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE e.preview IS NOT NULL AND t.name = ?1 AND (?2 IS NULL OR a.name = ?2) AND (?3 IS NULL OR e.preview = ?3)",
            params![tenant.as_str(), app.map(AppName::as_str), of.map(EnvironmentName::as_str)],
        )
    }
}

impl Tx<'_> {
    /// The environment of a branch, made if it is not there. `spec` says which; a tenant has `most` of them at a time.
    /// `None`: the one of this name is just being taken down, and another comes when it is gone.
    pub fn ensure_preview(
        &self,
        place: &Place,
        spec: &spec::Environment,
        most: u32,
        by: &By,
    ) -> Result<Option<Environment>, Error> {
        let Some(preview) = &spec.preview else {
            return self.ensure_environment(place, &spec.branch, by).map(Some);
        };
        let of = Place {
            environment: preview.of.clone(),
            ..place.clone()
        };
        if self.find_environment(&of)?.is_some() {
            return Err(Error::refused_with(
                format!(
                    "`{}` of vend.yaml is for branches, and there is an environment of that name",
                    preview.of
                ),
                format!("give it another name, or vend environments destroy {of}"),
            ));
        }
        if let Some(found) = self.find_environment(place)? {
            return self.same(found, spec, preview, by);
        }
        self.admit(place, preview, most)?;
        let detail = json!({
            "branch": spec.branch, "preview": preview.of, "expires_after_s": preview.expires.as_secs(),
        });
        let key = self.make_environment(place, &spec.branch, detail, by)?;
        self.run(
            "UPDATE environments SET preview = ?2, expires_after = ?3 WHERE id = ?1",
            params![key, preview.of.as_str(), preview.expires.as_secs()],
        )?;
        self.environment(place).map(Some)
    }

    fn same(
        &self,
        found: Environment,
        spec: &spec::Environment,
        preview: &spec::Preview,
        by: &By,
    ) -> Result<Option<Environment>, Error> {
        let place = &found.place;
        let Some(own) = found.preview.as_ref().filter(|_| found.branch == spec.branch) else {
            return Err(Error::refused_with(
                format!(
                    "branch {} would have the environment `{}`, which is of branch {}",
                    spec.branch, place.environment, found.branch
                ),
                "give the branch another name",
            ));
        };
        if own.ending.is_some() {
            return Ok(None);
        }
        if own.of != preview.of {
            // Whose secrets it has is settled when it is made.
            return Err(Error::refused_with(
                format!(
                    "{place} was made from `{}` of vend.yaml, and would be of `{}`",
                    own.of, preview.of
                ),
                format!("vend environments destroy {place}, and push again"),
            ));
        }
        if own.expires_after != preview.expires {
            self.run(
                "UPDATE environments SET expires_after = ?2 WHERE id = ?1",
                params![self.environment_key(place)?, preview.expires.as_secs()],
            )?;
            let detail = json!({ "preview": preview.of, "expires_after_s": preview.expires.as_secs() });
            self.note(by, "environment.configure", Some(&place.tenant), place, detail)?;
        }
        self.environment(place).map(Some)
    }

    /// Is there room for one more?
    fn admit(&self, place: &Place, preview: &spec::Preview, most: u32) -> Result<(), Error> {
        let list = format!(
            "vend environments list {}/{}, and destroy one that nobody needs",
            place.tenant, place.app
        );
        let (limit, of) = (preview.limit, &preview.of);
        if self.of_branches(&place.tenant, Some((&place.app, of)))? >= limit {
            let message = format!(
                "{}/{} has {limit} environments of `{of}` already: its `limit`",
                place.tenant, place.app
            );
            return Err(Error::refused_with(message, list));
        }
        if self.of_branches(&place.tenant, None)? >= most {
            let message = format!(
                "{} has {most} environments of branches already, and may have no more",
                place.tenant
            );
            return Err(Error::refused_with(message, list));
        }
        Ok(())
    }

    /// A branch is gone: its environments are to go, and what was pushed to it and has no environment is ignored.
    /// `last` is the commit that it stood at. Deliveries overtake each other: when another commit came last, the branch
    /// has come again since, and nothing of it goes.
    pub fn branch_gone(
        &self,
        tenant: &TenantName,
        app: &AppName,
        branch: &str,
        last: Option<&str>,
        by: &By,
    ) -> Result<Gone, Error> {
        let mut gone = Gone::default();
        let key = self.app_key(tenant, app)?;
        if let Some(last) = last {
            let newest: Option<String> = self.one(
                "SELECT commit_json ->> '$.id' FROM pushes WHERE app_id = ?1 AND branch = ?2 ORDER BY id DESC LIMIT 1",
                params![key, branch],
                |row| row.get(0),
            )?;
            if newest.is_some_and(|newest| newest != last) {
                return Ok(gone);
            }
        }
        let waiting: Vec<u64> = self.all(
            "SELECT id FROM pushes WHERE app_id = ?1 AND branch = ?2 AND state = 'waiting' AND environment IS NULL",
            params![key, branch],
            |row| row.get(0),
        )?;
        for id in waiting {
            self.finish_push(id, PushState::Ignored, Some(GONE), by)?;
            gone.pushes += 1;
        }
        let all = self.environments(Some((tenant, Some(app))))?;
        for own in all
            .into_iter()
            .filter(|own| own.branch == branch && own.preview.is_some())
        {
            match own.protected {
                true => gone.kept.push(own.place),
                false => {
                    self.end_preview(&own.place, &format!("its branch {branch} is gone"), by)?;
                    gone.ending.push(own.place);
                }
            }
        }
        Ok(gone)
    }

    /// The environment of a branch is to go. Doing it again changes nothing.
    pub fn end_preview(&self, place: &Place, reason: &str, by: &By) -> Result<(), Error> {
        let changed = self.run(
            "UPDATE environments SET ending = ?2, ending_by = ?3
             WHERE id = ?1 AND preview IS NOT NULL AND ending IS NULL AND protected = 0",
            params![self.environment_key(place)?, reason, by.actor],
        )?;
        match changed {
            0 => Ok(()),
            _ => self.note(
                by,
                "environment.end",
                Some(&place.tenant),
                place,
                json!({ "reason": reason }),
            ),
        }
    }
}

pub(super) fn preview(row: &Row<'_>) -> rusqlite::Result<Option<Preview>> {
    let Some(of) = row.maybe_parsed("preview")? else {
        return Ok(None);
    };
    Ok(Some(Preview {
        of,
        expires_after: SignedDuration::from_secs(row.get("expires_after")?),
        used_at: row.at("used_at")?,
        ending: row.get("ending")?,
    }))
}
