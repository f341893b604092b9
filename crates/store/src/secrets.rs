//! Customers' secrets, and credentials that the platform generates: sealed, versioned, in the scope of an app or of
//! one environment, whose own go before its app's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{AppName, EnvironmentName, Place, Secret, TenantName};
use rusqlite::params;
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    catalogue::KEPT,
    keys,
    sql::{At, Columns as _},
    vault,
};

/// Where a secret applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretScope {
    pub tenant: TenantName,
    pub app: AppName,
    /// `None`: in all of the app's environments.
    pub environment: Option<EnvironmentName>,
}

impl SecretScope {
    fn environment(&self) -> &str {
        self.environment.as_ref().map_or("", EnvironmentName::as_str)
    }

    fn object(&self) -> String {
        let environment = self
            .environment
            .as_ref()
            .map(|name| format!("/{name}"))
            .unwrap_or_default();
        format!("{}/{}{environment}", self.tenant, self.app)
    }
}

impl From<&Place> for SecretScope {
    fn from(place: &Place) -> Self {
        Self {
            tenant: place.tenant.clone(),
            app: place.app.clone(),
            environment: Some(place.environment.clone()),
        }
    }
}

/// What may be known of a secret without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    pub scope: SecretScope,
    pub name: String,
    /// `None`: it was unset, and is kept only for releases that may come back.
    pub current: Option<u64>,
    /// The platform made it up.
    pub generated: bool,
    /// Oldest first.
    pub versions: Vec<SecretVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVersion {
    pub version: u64,
    pub set_at: Timestamp,
    pub set_by: String,
}

/// The secrets of an environment, by app `?1` and name `?2`: its app's, its own, and where it comes and goes with a
/// branch those of what it was made from, unless an environment has that name. What the platform made up for that is nobody else's.
const OF_ENVIRONMENT: &str =
    "s.app_id = ?1 AND (s.environment IN ('', ?2) OR (s.generated = 0 AND s.environment =
    (SELECT e.preview FROM environments e WHERE e.app_id = ?1 AND e.name = ?2)
    AND NOT EXISTS (SELECT 1 FROM environments real WHERE real.app_id = ?1 AND real.name = s.environment)))";

/// AWS Secrets Manager's limit.
const LONGEST: usize = 65_536;

impl Db<'_> {
    /// Of an app and its environments, by name.
    pub fn secrets(&self, tenant: &TenantName, app: &AppName) -> Result<Vec<SecretInfo>, Error> {
        let key = self.app_key(tenant, app)?;
        let found = self.all(
            "SELECT id, nullif(environment, '') AS environment, name, current, generated FROM secrets
             WHERE app_id = ?1 ORDER BY name, secrets.environment",
            [key],
            |row| {
                let info = SecretInfo {
                    scope: SecretScope {
                        tenant: tenant.clone(),
                        app: app.clone(),
                        environment: row.maybe_parsed("environment")?,
                    },
                    name: row.get("name")?,
                    current: row.get("current")?,
                    generated: row.get("generated")?,
                    versions: vec![],
                };
                Ok((row.get::<_, i64>("id")?, info))
            },
        )?;
        found
            .into_iter()
            .map(|(id, mut info)| {
                info.versions = self.secret_versions(id)?;
                Ok(info)
            })
            .collect()
    }

    fn secret_versions(&self, id: i64) -> Result<Vec<SecretVersion>, Error> {
        self.all(
            "SELECT version, set_at, set_by FROM secret_versions WHERE secret_id = ?1 ORDER BY version",
            [id],
            |row| {
                Ok(SecretVersion {
                    version: row.get("version")?,
                    set_at: row.at("set_at")?,
                    set_by: row.get("set_by")?,
                })
            },
        )
    }

    /// The versions that a new release of an environment pins, by name.
    pub fn current_secrets(&self, place: &Place) -> Result<BTreeMap<String, u64>, Error> {
        // The app's come first and the environment's own last, so that they replace what is before them.
        let sql = format!(
            "SELECT s.name, s.current FROM secrets s WHERE {OF_ENVIRONMENT} AND s.current IS NOT NULL
             ORDER BY s.environment = ?2, s.environment <> ''"
        );
        let rows = self.all(
            &sql,
            params![
                self.app_key(&place.tenant, &place.app)?,
                place.environment.as_str()
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(rows.into_iter().collect())
    }

    /// The version of a secret in an environment before the current one: of the same scope, for those of other scopes are other
    /// secrets. `None`: there is none.
    pub fn previous_secret(&self, place: &Place, name: &str) -> Result<Option<u64>, Error> {
        let sql = format!(
            "SELECT (SELECT max(v.version) FROM secret_versions v WHERE v.secret_id = s.id AND v.version < s.current)
             FROM secrets s WHERE {OF_ENVIRONMENT} AND s.name = ?3 AND s.current IS NOT NULL
             ORDER BY s.environment = ?2 DESC, s.environment <> '' DESC LIMIT 1"
        );
        let app = self.app_key(&place.tenant, &place.app)?;
        let version = self.one(&sql, params![app, place.environment.as_str(), name], |row| {
            row.get(0)
        })?;
        Ok(version.flatten())
    }

    /// The value of a secret in an environment: of a version, or the current one.
    pub fn reveal(&self, place: &Place, name: &str, version: Option<u64>) -> Result<Secret, Error> {
        let version = match version {
            Some(version) => version,
            None => *self
                .current_secrets(place)?
                .get(name)
                .ok_or_else(|| Error::missing("secret", format!("{name} of {place}")))?,
        };
        let sql = format!(
            "SELECT s.environment, v.sealed FROM secrets s JOIN secret_versions v ON v.secret_id = s.id
             WHERE {OF_ENVIRONMENT} AND s.name = ?3 AND v.version = ?4"
        );
        let row: Option<(String, Vec<u8>)> = self.one(
            &sql,
            params![
                self.app_key(&place.tenant, &place.app)?,
                place.environment.as_str(),
                name,
                version,
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let (environment, sealed) =
            row.ok_or_else(|| Error::missing("secret", format!("{name} (version {version}) of {place}")))?;
        let key = self.data_key(self.tenant_key(&place.tenant)?)?;
        let version = version.to_string();
        let context = context(&place.tenant, &place.app, &environment, name, &version);
        vault::open(&key, &context, &sealed)
            .and_then(vault::text)
            .ok_or(Error::Sealed { what: "secret" })
    }

    /// The values of these versions: what a release pins.
    pub fn reveal_all(
        &self,
        place: &Place,
        versions: &BTreeMap<String, u64>,
    ) -> Result<BTreeMap<String, Secret>, Error> {
        versions
            .iter()
            .map(|(name, version)| Ok((name.clone(), self.reveal(place, name, Some(*version))?)))
            .collect()
    }
}

impl Tx<'_> {
    /// Sets a secret and gives its new version. Older versions stay for the releases that pin them.
    pub fn set_secret(&self, scope: &SecretScope, name: &str, value: &Secret, by: &By) -> Result<u64, Error> {
        self.store_secret(scope, name, value, false, by)
    }

    /// The current value of a secret of this environment; 256 random bits, in hex, when there is none yet.
    pub fn generate_secret(&self, place: &Place, name: &str, by: &By) -> Result<Secret, Error> {
        let own = self.secret_key(&place.into(), name)?;
        if own.is_some_and(|(_, current)| current.is_some()) {
            return self.reveal(place, name, None);
        }
        let value = Secret::new(hex::encode(keys::random_key()?.as_slice()));
        self.store_secret(&place.into(), name, &value, true, by)?;
        Ok(value)
    }

    /// Takes a secret back. The versions that no release pins that may come back are deleted at once.
    pub fn unset_secret(&self, scope: &SecretScope, name: &str, by: &By) -> Result<(), Error> {
        let missing = || Error::missing("secret", format!("{name} of {}", scope.object()));
        let (key, current) = self.secret_key(scope, name)?.ok_or_else(missing)?;
        let current = current.ok_or_else(missing)?;
        self.run("UPDATE secrets SET current = NULL WHERE id = ?1", [key])?;
        self.prune_secrets()?;
        let detail = json!({ "secret": name, "version": current });
        self.note(by, "secret.unset", Some(&scope.tenant), scope.object(), detail)
    }

    /// Deletes what was unset and is pinned by no release that may come back. Gives how many versions.
    pub fn prune_secrets(&self) -> Result<usize, Error> {
        let unpinned = format!(
            "{KEPT} DELETE FROM secret_versions WHERE secret_id IN (SELECT id FROM secrets WHERE current IS NULL)
             AND NOT EXISTS (
                 SELECT 1 FROM secrets s JOIN environments e ON e.app_id = s.app_id
                 JOIN kept r ON r.environment_id = e.id, json_each(r.secrets) pin
                 WHERE s.id = secret_versions.secret_id AND s.environment IN ('', e.name, e.preview)
                 AND pin.key = s.name AND pin.value = secret_versions.version)"
        );
        let versions = self.run(&unpinned, [])?;
        self.run(
            "DELETE FROM secrets WHERE current IS NULL
             AND NOT EXISTS (SELECT 1 FROM secret_versions v WHERE v.secret_id = secrets.id)",
            [],
        )?;
        Ok(versions)
    }

    pub(crate) fn delete_secrets(&self, place: &Place) -> Result<(), Error> {
        let app = self.app_key(&place.tenant, &place.app)?;
        self.run(
            "DELETE FROM secrets WHERE app_id = ?1 AND environment = ?2",
            params![app, place.environment.as_str()],
        )
        .map(drop)
    }

    fn store_secret(
        &self,
        scope: &SecretScope,
        name: &str,
        value: &Secret,
        generated: bool,
        by: &By,
    ) -> Result<u64, Error> {
        check(name, value)?;
        let app = self.app_key(&scope.tenant, &scope.app)?;
        let version: u64 = self.value(
            "INSERT INTO secret_counters VALUES (?1, ?2, 1)
             ON CONFLICT (app_id, name) DO UPDATE SET last = last + 1 RETURNING last",
            params![app, name],
        )?;
        let secret: i64 = self.value(
            "INSERT INTO secrets (app_id, environment, name, current, generated) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (app_id, environment, name) DO UPDATE SET current = ?4, generated = ?5 RETURNING id",
            params![app, scope.environment(), name, version, generated],
        )?;
        let key = self.data_key(self.tenant_key(&scope.tenant)?)?;
        let text = version.to_string();
        let context = context(&scope.tenant, &scope.app, scope.environment(), name, &text);
        let sealed = vault::seal(&key, &context, value.expose().as_bytes())?;
        self.run(
            "INSERT INTO secret_versions VALUES (?1, ?2, ?3, ?4, ?5)",
            params![secret, version, sealed, At(by.at), by.actor],
        )?;
        let detail = json!({ "secret": name, "version": version, "generated": generated });
        self.note(by, "secret.set", Some(&scope.tenant), scope.object(), detail)?;
        Ok(version)
    }

    /// Row and current version.
    fn secret_key(&self, scope: &SecretScope, name: &str) -> Result<Option<(i64, Option<u64>)>, Error> {
        self.one(
            "SELECT id, current FROM secrets WHERE app_id = ?1 AND environment = ?2 AND name = ?3",
            params![
                self.app_key(&scope.tenant, &scope.app)?,
                scope.environment(),
                name
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }
}

fn context<'a>(
    tenant: &'a TenantName,
    app: &'a AppName,
    environment: &'a str,
    name: &'a str,
    version: &'a str,
) -> [&'a str; 6] {
    [
        "vend/secret",
        tenant.as_str(),
        app.as_str(),
        environment,
        name,
        version,
    ]
}

fn check(name: &str, value: &Secret) -> Result<(), Error> {
    let shape = (1..=200).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'));
    if !shape {
        return Err(Error::refused(
            "that is not the name of a secret: use 1 to 200 letters, digits, `.`, `_`, `-` and `/`",
        ));
    }
    if value.expose().len() > LONGEST {
        return Err(Error::refused(format!("a secret has at most {LONGEST} bytes")));
    }
    Ok(())
}
