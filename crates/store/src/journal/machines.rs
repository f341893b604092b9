//! The users' state machines: what they are called, their versions and the names of versions.

use jiff::Timestamp;
use model::TenantName;
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash, Json},
};

/// A state machine as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMachine {
    pub key: u64,
    pub tenant: TenantName,
    pub name: String,
    pub express: bool,
    pub definition: String,
    pub role: String,
    /// JSON; kept and given back.
    pub settings: String,
    pub revision: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A state machine to be made, or what it is changed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMachine {
    pub tenant: TenantName,
    pub name: String,
    pub express: bool,
    pub definition: String,
    pub role: String,
    pub settings: String,
    pub revision: String,
}

/// A version: it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineVersion {
    pub version: u64,
    pub definition: String,
    pub role: String,
    pub settings: String,
    pub revision: String,
    pub description: String,
    pub created_at: Timestamp,
}

/// A name for one or two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    pub description: String,
    /// Version and weight; the weights are 100 together.
    pub routes: Vec<(u64, u32)>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Which machines of a tenant to list, by name.
#[derive(Debug, Clone, Default)]
pub struct MachineFilter {
    pub after: String,
    pub limit: u32,
}

/// Pairs of name and value, by name.
pub type Tags = Vec<(String, String)>;

const SELECT: &str = "SELECT s.*, t.name AS tenant, m.definition AS text FROM state_machines s
    JOIN tenants t ON t.id = s.tenant_id JOIN machines m ON m.digest = s.definition";

impl Db<'_> {
    pub fn state_machine(&self, tenant: &TenantName, name: &str) -> Result<Option<StateMachine>, Error> {
        self.one(
            &format!("{SELECT} WHERE t.name = ?1 AND s.name = ?2"),
            [tenant.as_str(), name],
            machine,
        )
    }

    pub fn state_machines(
        &self,
        tenant: &TenantName,
        filter: &MachineFilter,
    ) -> Result<Vec<StateMachine>, Error> {
        self.all(
            &format!("{SELECT} WHERE t.name = ?1 AND s.name > ?2 ORDER BY s.name LIMIT ?3"),
            params![tenant.as_str(), filter.after, filter.limit],
            machine,
        )
    }

    pub fn machine_version(&self, machine: u64, number: u64) -> Result<Option<MachineVersion>, Error> {
        self.one(
            "SELECT v.*, m.definition AS text FROM state_machine_versions v
             JOIN machines m ON m.digest = v.definition WHERE v.machine = ?1 AND v.version = ?2",
            [machine, number],
            version,
        )
    }

    /// Newest first; those below `before`.
    pub fn machine_versions(
        &self,
        machine: u64,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<MachineVersion>, Error> {
        self.all(
            "SELECT v.*, m.definition AS text FROM state_machine_versions v
             JOIN machines m ON m.digest = v.definition WHERE v.machine = ?1 AND v.version < ?2
             ORDER BY v.version DESC LIMIT ?3",
            params![machine, before.unwrap_or(i64::MAX as u64), limit],
            version,
        )
    }

    pub fn machine_alias(&self, machine: u64, name: &str) -> Result<Option<Alias>, Error> {
        self.one(
            "SELECT * FROM state_machine_aliases WHERE machine = ?1 AND name = ?2",
            params![machine, name],
            alias,
        )
    }

    pub fn machine_aliases(&self, machine: u64, after: &str, limit: u32) -> Result<Vec<Alias>, Error> {
        self.all(
            "SELECT * FROM state_machine_aliases WHERE machine = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
            params![machine, after, limit],
            alias,
        )
    }

    /// Of an object such as `stateMachine:orders`.
    pub fn state_tags(&self, tenant: &TenantName, object: &str) -> Result<Tags, Error> {
        self.all(
            "SELECT g.name, g.value FROM state_tags g JOIN tenants t ON t.id = g.tenant_id
             WHERE t.name = ?1 AND g.object = ?2 ORDER BY g.name",
            [tenant.as_str(), object],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    pub fn tenant_numbered(&self, number: u64) -> Result<Option<TenantName>, Error> {
        self.one("SELECT name FROM tenants WHERE id = ?1", [number], |row| {
            row.parsed("name")
        })
    }

    /// The number that stands for a tenant where the field has an account.
    pub fn tenant_number(&self, tenant: &TenantName) -> Result<u64, Error> {
        Ok(self.tenant_key(tenant)?.unsigned_abs())
    }
}

impl Tx<'_> {
    pub fn create_state_machine(&self, new: &NewMachine, by: &By) -> Result<StateMachine, Error> {
        let definition = self.keep_definition(&new.definition.as_str().into())?;
        self.insert(
            "INSERT INTO state_machines
                 (tenant_id, name, express, definition, role, settings, revision, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
            params![
                self.tenant_key(&new.tenant)?,
                new.name,
                new.express,
                Hash(definition),
                new.role,
                new.settings,
                new.revision,
                At(by.at)
            ],
            || Error::exists("state machine", &new.name),
        )?;
        let detail = json!({ "definition": definition, "express": new.express });
        self.note(by, "state-machine.create", Some(&new.tenant), &new.name, detail)?;
        self.known(&new.tenant, &new.name)
    }

    /// Changes everything but the name and the type.
    pub fn update_state_machine(&self, new: &NewMachine, by: &By) -> Result<StateMachine, Error> {
        let definition = self.keep_definition(&new.definition.as_str().into())?;
        let found = self.known(&new.tenant, &new.name)?;
        self.run(
            "UPDATE state_machines SET definition = ?2, role = ?3, settings = ?4, revision = ?5, updated_at = ?6
             WHERE key = ?1",
            params![
                found.key,
                Hash(definition),
                new.role,
                new.settings,
                new.revision,
                At(by.at)
            ],
        )?;
        let detail = json!({ "definition": definition });
        self.note(by, "state-machine.update", Some(&new.tenant), &new.name, detail)?;
        self.known(&new.tenant, &new.name)
    }

    /// Deletes a machine with its versions, aliases and tags. One that is not there is deleted already. Its executions
    /// stay on record.
    pub fn delete_state_machine(&self, tenant: &TenantName, name: &str, by: &By) -> Result<(), Error> {
        let Some(found) = self.state_machine(tenant, name)? else {
            return Ok(());
        };
        self.run("DELETE FROM state_machines WHERE key = ?1", [found.key])?;
        self.forget_tags(tenant, &format!("stateMachine:{name}"))?;
        self.prune_definitions()?;
        self.note(by, "state-machine.delete", Some(tenant), name, json!({}))
    }

    fn known(&self, tenant: &TenantName, name: &str) -> Result<StateMachine, Error> {
        self.state_machine(tenant, name)?
            .ok_or_else(|| Error::missing("state machine", name))
    }

    /// Makes the next version of what the machine is now. When that is what the newest version is, gives that one.
    pub fn publish_version(
        &self,
        tenant: &TenantName,
        name: &str,
        description: &str,
        by: &By,
    ) -> Result<MachineVersion, Error> {
        let found = self.known(tenant, name)?;
        if let Some(newest) = self.machine_versions(found.key, None, 1)?.pop()
            && newest.revision == found.revision
        {
            return Ok(newest);
        }
        self.run(
            "UPDATE state_machines SET versions = versions + 1 WHERE key = ?1",
            [found.key],
        )?;
        self.run(
            "INSERT INTO state_machine_versions SELECT key, versions, definition, role, settings, revision, ?2, ?3
             FROM state_machines WHERE key = ?1",
            params![found.key, description, At(by.at)],
        )?;
        let made = self.machine_versions(found.key, None, 1)?.pop();
        let made = made.ok_or_else(|| Error::missing("version of", name))?;
        let detail = json!({ "version": made.version });
        self.note(by, "state-machine.publish", Some(tenant), name, detail)?;
        Ok(made)
    }

    /// Refused while an alias names it. One that is not there is deleted already.
    pub fn delete_version(&self, tenant: &TenantName, name: &str, number: u64, by: &By) -> Result<(), Error> {
        let Some(found) = self.state_machine(tenant, name)? else {
            return Ok(());
        };
        for alias in self.machine_aliases(found.key, "", u32::MAX)? {
            if alias.routes.iter().any(|(version, _)| *version == number) {
                return Err(Error::refused(format!("the alias {} names it", alias.name)));
            }
        }
        let gone = self.run(
            "DELETE FROM state_machine_versions WHERE machine = ?1 AND version = ?2",
            [found.key, number],
        )?;
        match gone {
            0 => Ok(()),
            _ => self.note(
                by,
                "state-machine.delete-version",
                Some(tenant),
                name,
                json!({ "version": number }),
            ),
        }
    }

    /// Makes an alias, or changes the one of that name.
    pub fn put_alias(
        &self,
        machine: &StateMachine,
        name: &str,
        description: &str,
        routes: &[(u64, u32)],
        by: &By,
    ) -> Result<Alias, Error> {
        self.run(
            "INSERT INTO state_machine_aliases VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (machine, name)
             DO UPDATE SET description = ?3, routes = ?4, updated_at = ?5",
            params![machine.key, name, description, Json(&routes), At(by.at)],
        )?;
        let detail = json!({ "alias": name, "routes": routes });
        self.note(
            by,
            "state-machine.alias",
            Some(&machine.tenant),
            &machine.name,
            detail,
        )?;
        self.machine_alias(machine.key, name)?
            .ok_or_else(|| Error::missing("alias", name))
    }

    pub fn delete_alias(&self, machine: &StateMachine, name: &str, by: &By) -> Result<bool, Error> {
        let gone = self.run(
            "DELETE FROM state_machine_aliases WHERE machine = ?1 AND name = ?2",
            params![machine.key, name],
        )?;
        if gone > 0 {
            let detail = json!({ "alias": name });
            self.note(
                by,
                "state-machine.delete-alias",
                Some(&machine.tenant),
                &machine.name,
                detail,
            )?;
        }
        Ok(gone > 0)
    }

    pub fn set_state_tags(
        &self,
        tenant: &TenantName,
        object: &str,
        tags: &[(String, String)],
        by: &By,
    ) -> Result<(), Error> {
        let owner = self.tenant_key(tenant)?;
        for (name, value) in tags {
            self.run(
                "INSERT OR REPLACE INTO state_tags VALUES (?1, ?2, ?3, ?4)",
                params![owner, object, name, value],
            )?;
        }
        let names: Vec<&str> = tags.iter().map(|(name, _)| name.as_str()).collect();
        self.note(by, "states.tag", Some(tenant), object, json!({ "tags": names }))
    }

    pub fn unset_state_tags(
        &self,
        tenant: &TenantName,
        object: &str,
        names: &[String],
        by: &By,
    ) -> Result<(), Error> {
        let owner = self.tenant_key(tenant)?;
        for name in names {
            self.run(
                "DELETE FROM state_tags WHERE tenant_id = ?1 AND object = ?2 AND name = ?3",
                params![owner, object, name],
            )?;
        }
        self.note(by, "states.untag", Some(tenant), object, json!({ "tags": names }))
    }

    pub fn forget_tags(&self, tenant: &TenantName, object: &str) -> Result<(), Error> {
        self.run(
            "DELETE FROM state_tags WHERE tenant_id = (SELECT id FROM tenants WHERE name = ?1) AND object = ?2",
            [tenant.as_str(), object],
        )
        .map(drop)
    }
}

fn machine(row: &Row<'_>) -> rusqlite::Result<StateMachine> {
    Ok(StateMachine {
        key: row.get("key")?,
        tenant: row.parsed("tenant")?,
        name: row.get("name")?,
        express: row.get("express")?,
        definition: row.get("text")?,
        role: row.get("role")?,
        settings: row.get("settings")?,
        revision: row.get("revision")?,
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}

fn version(row: &Row<'_>) -> rusqlite::Result<MachineVersion> {
    Ok(MachineVersion {
        version: row.get("version")?,
        definition: row.get("text")?,
        role: row.get("role")?,
        settings: row.get("settings")?,
        revision: row.get("revision")?,
        description: row.get("description")?,
        created_at: row.at("created_at")?,
    })
}

fn alias(row: &Row<'_>) -> rusqlite::Result<Alias> {
    Ok(Alias {
        name: row.get("name")?,
        description: row.get("description")?,
        routes: row.json("routes")?,
        created_at: row.at("created_at")?,
        updated_at: row.at("updated_at")?,
    })
}
