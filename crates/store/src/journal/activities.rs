use jiff::Timestamp;
use model::{Digest, TenantName};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash},
};

/// A kind of work that workers ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    pub key: u64,
    pub name: String,
    pub created_at: Timestamp,
}

/// An activity was made or deleted, and the executions that use it have not all heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Number of the tenant.
    pub owner: u64,
    pub name: String,
    /// Grows with each piece of news.
    pub number: u64,
    /// It was made.
    pub there: bool,
}

impl Db<'_> {
    /// What executions are still to hear about activities.
    pub fn activity_news(&self) -> Result<Vec<News>, Error> {
        self.all("SELECT * FROM activity_news ORDER BY number", [], |row| {
            Ok(News {
                owner: row.get("tenant_id")?,
                name: row.get("name")?,
                number: row.get("number")?,
                there: row.get("there")?,
            })
        })
    }

    /// Definitions of a tenant's open executions in which `name` may be written.
    pub fn open_definitions(&self, owner: u64, name: &str) -> Result<Vec<(Digest, String)>, Error> {
        self.all(
            "SELECT m.digest, m.definition FROM machines m
             WHERE (instr(m.definition, ?2) > 0 OR instr(m.definition, char(92) || 'u') > 0)
             AND EXISTS (SELECT 1 FROM state_executions x
                 WHERE x.definition = m.digest AND x.tenant_id = ?1 AND x.ended_at IS NULL)",
            params![owner, name],
            |row| Ok((row.digest("digest")?, row.get("definition")?)),
        )
    }

    /// Keys, above `after`, of a tenant's open executions of a definition.
    pub fn open_of_definition(
        &self,
        owner: u64,
        definition: &Digest,
        after: u64,
        limit: u32,
    ) -> Result<Vec<u64>, Error> {
        self.all(
            "SELECT key FROM state_executions
             WHERE definition = ?2 AND tenant_id = ?1 AND ended_at IS NULL AND key > ?3 ORDER BY key LIMIT ?4",
            params![owner, Hash(*definition), after, limit],
            |row| row.get(0),
        )
    }

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
            self.tell(owner, name, true)?;
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
            _ => {
                self.tell(self.tenant_key(tenant)?, name, false)?;
                self.note(by, "activity.delete", Some(tenant), name, json!({}))
            }
        }
    }

    fn tell(&self, owner: i64, name: &str, there: bool) -> Result<(), Error> {
        self.run(
            "INSERT OR REPLACE INTO activity_news VALUES
                 (?1, ?2, 1 + (SELECT ifnull(max(number), 0) FROM activity_news), ?3)",
            params![owner, name, there],
        )
        .map(drop)
    }

    /// All have heard of it; newer news of the same activity stay.
    pub fn activity_told(&self, news: &News) -> Result<(), Error> {
        self.run(
            "DELETE FROM activity_news WHERE tenant_id = ?1 AND name = ?2 AND number = ?3 AND there = ?4",
            params![news.owner, news.name, news.number, news.there],
        )
        .map(drop)
    }
}

fn activity(row: &Row<'_>) -> rusqlite::Result<Activity> {
    Ok(Activity {
        key: row.get("key")?,
        name: row.get("name")?,
        created_at: row.at("created_at")?,
    })
}
