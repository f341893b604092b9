use jiff::Timestamp;
use model::{TenantName, route::Access};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub name: TenantName,
    /// Who may ask for anything that it has.
    pub access: Access,
    pub created_at: Timestamp,
    pub created_by: String,
}

impl Db<'_> {
    /// By name.
    pub fn tenants(&self) -> Result<Vec<Tenant>, Error> {
        self.all("SELECT * FROM tenants ORDER BY name", [], tenant)
    }

    pub fn tenant(&self, name: &TenantName) -> Result<Tenant, Error> {
        self.one("SELECT * FROM tenants WHERE name = ?1", [name.as_str()], tenant)?
            .ok_or_else(|| Error::missing("tenant", name))
    }

    /// Keys above `after` of open executions of the tenant's state machines, `limit` at most, in their order. Children
    /// of Map runs end with those that they belong to.
    pub fn open_runs_of(&self, name: &TenantName, after: u64, limit: u32) -> Result<Vec<u64>, Error> {
        self.all(
            "SELECT key FROM state_executions WHERE tenant_id = (SELECT id FROM tenants WHERE name = ?1)
             AND key > ?2 AND ended_at IS NULL AND run IS NULL ORDER BY key LIMIT ?3",
            params![name.as_str(), after, limit],
            |row| row.get(0),
        )
    }

    pub(crate) fn tenant_key(&self, name: &TenantName) -> Result<i64, Error> {
        self.one("SELECT id FROM tenants WHERE name = ?1", [name.as_str()], |row| {
            row.get(0)
        })?
        .ok_or_else(|| Error::missing("tenant", name))
    }
}

impl Tx<'_> {
    /// Makes the tenant, with a data key of its own in the vault.
    pub fn create_tenant(&self, name: &TenantName, by: &By) -> Result<Tenant, Error> {
        let key = self.insert(
            "INSERT INTO tenants (name, created_at, created_by) VALUES (?1, ?2, ?3)",
            params![name.as_str(), At(by.at), by.actor],
            || Error::exists("tenant", name),
        )?;
        self.make_data_key(key)?;
        self.note(by, "tenant.create", Some(name), name, json!({}))?;
        self.tenant(name)
    }

    /// Deletes a tenant that has neither apps nor open executions any more, with its tokens, and destroys its data
    /// key: nothing that was sealed for it can be opened again.
    pub fn delete_tenant(&self, name: &TenantName, by: &By) -> Result<(), Error> {
        let key = self.tenant_key(name)?;
        let apps: u32 = self.value("SELECT count(*) FROM apps WHERE tenant_id = ?1", [key])?;
        if apps > 0 {
            return Err(Error::refused_with(
                format!("tenant `{name}` still has {apps} apps"),
                "delete its apps first",
            ));
        }
        // What moves them would write to rows that are gone.
        let open: u32 = self.value(
            "SELECT count(*) FROM state_executions WHERE tenant_id = ?1 AND ended_at IS NULL",
            [key],
        )?;
        if open > 0 {
            return Err(Error::refused_with(
                format!("tenant `{name}` still has {open} executions of state machines under way"),
                "stop them first",
            ));
        }
        self.run(
            "UPDATE uid_blocks SET tenant_id = NULL, released_at = ?2 WHERE tenant_id = ?1",
            params![key, At(by.at)],
        )?;
        self.destroy_data_key(key)?;
        self.withdraw_builders(name, by)?;
        self.forget_commands(name)?;
        self.run("DELETE FROM tenants WHERE id = ?1", [key])?;
        self.note(by, "tenant.delete", Some(name), name, json!({}))
    }
}

fn tenant(row: &Row<'_>) -> rusqlite::Result<Tenant> {
    Ok(Tenant {
        name: row.parsed("name")?,
        access: row.maybe_json("access")?.unwrap_or_default(),
        created_at: row.at("created_at")?,
        created_by: row.get("created_by")?,
    })
}
