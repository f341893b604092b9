use jiff::Timestamp;
use model::{AppName, Secret, TenantName, webhook::Provider};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Word},
    vault,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    pub tenant: TenantName,
    pub name: AppName,
    /// Where its source is; `None`: in the platform's own git server.
    pub repository: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
}

const SELECT: &str = "SELECT a.*, t.name AS tenant FROM apps a JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    /// By name; of one tenant or of all.
    pub fn apps(&self, tenant: Option<&TenantName>) -> Result<Vec<App>, Error> {
        match tenant {
            Some(tenant) => {
                self.tenant_key(tenant)?;
                self.all(
                    &format!("{SELECT} WHERE t.name = ?1 ORDER BY a.name"),
                    [tenant.as_str()],
                    app,
                )
            }
            None => self.all(&format!("{SELECT} ORDER BY t.name, a.name"), [], app),
        }
    }

    pub fn app(&self, tenant: &TenantName, name: &AppName) -> Result<App, Error> {
        self.one(
            &format!("{SELECT} WHERE t.name = ?1 AND a.name = ?2"),
            [tenant.as_str(), name.as_str()],
            app,
        )?
        .ok_or_else(|| Error::missing("app", format!("{tenant}/{name}")))
    }

    pub(crate) fn app_key(&self, tenant: &TenantName, name: &AppName) -> Result<i64, Error> {
        let key = self.one(
            "SELECT a.id FROM apps a JOIN tenants t ON t.id = a.tenant_id WHERE t.name = ?1 AND a.name = ?2",
            [tenant.as_str(), name.as_str()],
            |row| row.get(0),
        )?;
        key.ok_or_else(|| Error::missing("app", format!("{tenant}/{name}")))
    }

    /// What deliveries of this provider for this app are verified with.
    pub fn webhook_secret(
        &self,
        tenant: &TenantName,
        app: &AppName,
        provider: Provider,
    ) -> Result<Option<Secret>, Error> {
        let sealed: Option<Vec<u8>> = self.one(
            "SELECT sealed FROM webhook_secrets WHERE app_id = ?1 AND provider = ?2",
            params![self.app_key(tenant, app)?, Word(provider)],
            |row| row.get(0),
        )?;
        let Some(sealed) = sealed else { return Ok(None) };
        let key = self.data_key(self.tenant_key(tenant)?)?;
        let [a, b, c, d] = webhook_context(tenant, app, provider);
        let clear = vault::open(&key, &[&a, &b, &c, &d], &sealed);
        clear.and_then(vault::text).map(Some).ok_or(Error::Sealed {
            what: "webhook secret",
        })
    }
}

impl Tx<'_> {
    pub fn create_app(
        &self,
        tenant: &TenantName,
        name: &AppName,
        repository: Option<&str>,
        by: &By,
    ) -> Result<App, Error> {
        let owner = self.tenant_key(tenant)?;
        let object = format!("{tenant}/{name}");
        self.insert(
            "INSERT INTO apps (tenant_id, name, repository, created_at, created_by) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![owner, name.as_str(), repository, At(by.at), by.actor],
            || Error::exists("app", &object),
        )?;
        self.note(
            by,
            "app.create",
            Some(tenant),
            object,
            json!({ "repository": repository }),
        )?;
        self.app(tenant, name)
    }

    /// Says where the app's source is; `None`: in the platform's own git server.
    pub fn set_repository(
        &self,
        tenant: &TenantName,
        name: &AppName,
        repository: Option<&str>,
        by: &By,
    ) -> Result<(), Error> {
        let key = self.app_key(tenant, name)?;
        self.run(
            "UPDATE apps SET repository = ?2 WHERE id = ?1",
            params![key, repository],
        )?;
        let detail = json!({ "repository": repository });
        self.note(
            by,
            "app.repository",
            Some(tenant),
            format!("{tenant}/{name}"),
            detail,
        )
    }

    /// Deletes an app that has no environments any more, with its pushes, builds, secrets, deliveries and the
    /// journal of its executions.
    pub fn delete_app(&self, tenant: &TenantName, name: &AppName, by: &By) -> Result<(), Error> {
        let key = self.app_key(tenant, name)?;
        let object = format!("{tenant}/{name}");
        let environments: u32 = self.value("SELECT count(*) FROM environments WHERE app_id = ?1", [key])?;
        if environments > 0 {
            return Err(Error::refused_with(
                format!("app `{object}` still has {environments} environments"),
                "destroy its environments first",
            ));
        }
        let open: u32 = self.value(
            "SELECT count(*) FROM executions WHERE tenant = ?1 AND app = ?2 AND ended_at IS NULL",
            [tenant.as_str(), name.as_str()],
        )?;
        if open > 0 {
            return Err(Error::refused_with(
                format!("app `{object}` still has {open} executions under way"),
                "wait for them or cancel them first",
            ));
        }
        self.run(
            "DELETE FROM state_executions WHERE key IN (SELECT run FROM executions WHERE tenant = ?1 AND app = ?2)",
            [tenant.as_str(), name.as_str()],
        )?;
        self.run("DELETE FROM apps WHERE id = ?1", [key])?;
        self.note(by, "app.delete", Some(tenant), object, json!({}))
    }

    /// Sets, or with `None` removes, what deliveries of this provider are verified with.
    pub fn set_webhook_secret(
        &self,
        tenant: &TenantName,
        app: &AppName,
        provider: Provider,
        secret: Option<&Secret>,
        by: &By,
    ) -> Result<(), Error> {
        let key = self.app_key(tenant, app)?;
        self.run(
            "DELETE FROM webhook_secrets WHERE app_id = ?1 AND provider = ?2",
            params![key, Word(provider)],
        )?;
        if let Some(secret) = secret {
            let [a, b, c, d] = webhook_context(tenant, app, provider);
            let data_key = self.data_key(self.tenant_key(tenant)?)?;
            let sealed = vault::seal(&data_key, &[&a, &b, &c, &d], secret.expose().as_bytes())?;
            self.run(
                "INSERT INTO webhook_secrets VALUES (?1, ?2, ?3, ?4, ?5)",
                params![key, Word(provider), sealed, At(by.at), by.actor],
            )?;
        }
        let detail = json!({ "provider": provider, "set": secret.is_some() });
        self.note(
            by,
            "app.webhook-secret",
            Some(tenant),
            format!("{tenant}/{app}"),
            detail,
        )
    }
}

fn webhook_context(tenant: &TenantName, app: &AppName, provider: Provider) -> [String; 4] {
    [
        "vend/webhook-secret".into(),
        tenant.to_string(),
        app.to_string(),
        format!("{provider:?}"),
    ]
}

fn app(row: &Row<'_>) -> rusqlite::Result<App> {
    Ok(App {
        tenant: row.parsed("tenant")?,
        name: row.parsed("name")?,
        repository: row.get("repository")?,
        created_at: row.at("created_at")?,
        created_by: row.get("created_by")?,
    })
}
