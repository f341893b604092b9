use jiff::Timestamp;
use model::TenantName;
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _},
};

/// A kind of work that workers ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    pub key: u64,
    pub name: String,
    pub created_at: Timestamp,
}

impl Db<'_> {
    pub fn activity(&self, tenant: &TenantName, name: &str) -> Result<Option<Activity>, Error> {
        self.one(
            "SELECT a.* FROM activities a JOIN tenants t ON t.id = a.tenant_id WHERE t.name = ?1 AND a.name = ?2",
            [tenant.as_str(), name],
            activity,
        )
    }

    /// Every activity, with the number of its tenant.
    pub fn all_activities(&self) -> Result<Vec<(u64, String)>, Error> {
        self.all("SELECT tenant_id, name FROM activities", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    /// Activities of a tenant with a name after `after`, by name.
    pub fn activities(&self, tenant: &TenantName, after: &str, limit: u32) -> Result<Vec<Activity>, Error> {
        self.all(
            "SELECT a.* FROM activities a JOIN tenants t ON t.id = a.tenant_id
             WHERE t.name = ?1 AND a.name > ?2 ORDER BY a.name LIMIT ?3",
            params![tenant.as_str(), after, limit],
            activity,
        )
    }
}

impl Tx<'_> {
    /// Makes an activity; one of that name that is there is given back as it is.
    pub fn create_activity(&self, tenant: &TenantName, name: &str, by: &By) -> Result<Activity, Error> {
        let owner = self.tenant_key(tenant)?;
        let made = self.run(
            "INSERT INTO activities (tenant_id, name, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![owner, name, At(by.at)],
        )?;
        if made > 0 {
            self.note(by, "activity.create", Some(tenant), name, json!({}))?;
        }
        self.activity(tenant, name)?
            .ok_or_else(|| Error::missing("activity", name))
    }

    /// Deletes an activity. One that is not there is deleted already.
    pub fn delete_activity(&self, tenant: &TenantName, name: &str, by: &By) -> Result<(), Error> {
        let gone = self.run(
            "DELETE FROM activities WHERE name = ?2 AND tenant_id = (SELECT id FROM tenants WHERE name = ?1)",
            [tenant.as_str(), name],
        )?;
        match gone {
            0 => Ok(()),
            _ => self.note(by, "activity.delete", Some(tenant), name, json!({})),
        }
    }
}

fn activity(row: &Row<'_>) -> rusqlite::Result<Activity> {
    Ok(Activity {
        key: row.get("key")?,
        name: row.get("name")?,
        created_at: row.at("created_at")?,
    })
}
