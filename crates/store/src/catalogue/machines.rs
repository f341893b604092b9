use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{DeploymentId, Digest, HostId, Place, Secret, TenantName};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash, Json},
    vault::{self, PLATFORM},
};

/// A machine of a customer's own, on which releases are deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub id: HostId,
    pub tenant: TenantName,
    /// What it calls itself.
    pub name: String,
    /// From its invitation: what it is for is not for a machine to say.
    pub labels: BTreeMap<String, String>,
    /// The environment that has it, and what it has there.
    pub place: Option<Place>,
    pub release: Option<u64>,
    pub deployment: Option<DeploymentId>,
    /// So many times in a row the platform began by itself to bring it the live release, and when the last time.
    pub tries: u32,
    pub tried_at: Option<Timestamp>,
    /// Why its last deployment failed on it.
    pub failure: Option<String>,
    /// It is being removed: nothing new is deployed there.
    pub leaving: bool,
    /// Where it was last seen, and when.
    pub address: Option<String>,
    pub joined_at: Timestamp,
    pub seen_at: Option<Timestamp>,
}

impl Machine {
    /// Has it all of these labels?
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut labels = labels.iter();
        labels.all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

/// What lets one machine in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInvitation {
    pub tenant: TenantName,
    pub labels: BTreeMap<String, String>,
    pub expires_at: Timestamp,
}

/// Machines of one tenant, and invitations that wait.
const MOST: usize = 1000;

const SELECT: &str =
    "SELECT m.*, t.name AS tenant, a.name AS app, e.name AS environment FROM registered_machines m
    JOIN tenants t ON t.id = m.tenant_id LEFT JOIN environments e ON e.id = m.environment_id
    LEFT JOIN apps a ON a.id = e.app_id";

impl Db<'_> {
    /// The certificate of the authority that signs for machines, and its key. `None` until it was made.
    pub fn authority(&self) -> Result<Option<(String, Secret)>, Error> {
        let kept: Option<(String, Vec<u8>)> =
            self.one("SELECT certificate, sealed FROM authority", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let Some((certificate, sealed)) = kept else {
            return Ok(None);
        };
        let key = vault::open(
            &self.data_key(PLATFORM)?,
            &["vend/authority", &certificate],
            &sealed,
        );
        let key = key.and_then(vault::text);
        Ok(Some((
            certificate,
            key.ok_or(Error::Sealed { what: "authority" })?,
        )))
    }

    /// Of a tenant, or all, in the order of their joining.
    pub fn machines(&self, tenant: Option<&TenantName>) -> Result<Vec<Machine>, Error> {
        let sql = format!("{SELECT} WHERE ?1 IS NULL OR t.name = ?1 ORDER BY t.name, m.joined_at, m.id");
        self.all(&sql, [tenant.map(TenantName::as_str)], machine)
    }

    pub fn machine(&self, id: &HostId) -> Result<Machine, Error> {
        self.one(&format!("{SELECT} WHERE m.id = ?1"), [id.as_str()], machine)?
            .ok_or_else(|| Error::missing("machine", id))
    }

    /// Those that an environment has.
    pub fn machines_of(&self, place: &Place) -> Result<Vec<Machine>, Error> {
        let mut machines = self.machines(Some(&place.tenant))?;
        machines.retain(|machine| machine.place.as_ref() == Some(place));
        Ok(machines)
    }
}

impl Tx<'_> {
    /// Keeps an authority. One that is there already stays.
    pub fn keep_authority(&self, certificate: &str, key: &Secret, by: &By) -> Result<(), Error> {
        let key = vault::seal(
            &self.data_key(PLATFORM)?,
            &["vend/authority", certificate],
            key.expose().as_bytes(),
        )?;
        let made = self.run(
            "INSERT OR IGNORE INTO authority VALUES (1, ?1, ?2, ?3)",
            params![certificate, key, At(by.at)],
        )?;
        match made {
            0 => Ok(()),
            _ => self.note(by, "authority.create", None, "machines", json!({})),
        }
    }

    /// Keeps the digest of an invitation's secret.
    pub fn invite_machine(&self, secret: &Secret, new: &NewInvitation, by: &By) -> Result<(), Error> {
        let tenant = self.tenant_key(&new.tenant)?;
        self.run("DELETE FROM invitations WHERE expires_at <= ?1", [At(by.at)])?;
        let waiting: usize = self.value("SELECT count(*) FROM invitations WHERE tenant_id = ?1", [tenant])?;
        if waiting + self.machines(Some(&new.tenant))?.len() >= MOST {
            return Err(Error::refused(format!(
                "{} has {MOST} machines and invitations: there can be no more",
                new.tenant
            )));
        }
        self.run(
            "INSERT INTO invitations VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                Hash(Digest::of(secret.expose())),
                tenant,
                Json(&new.labels),
                At(by.at),
                by.actor,
                At(new.expires_at)
            ],
        )?;
        let detail = json!({ "labels": new.labels, "expires_at": new.expires_at });
        self.note(by, "machine.invite", Some(&new.tenant), &new.tenant, detail)
    }

    /// Takes in the machine that shows an invitation, and forgets the invitation.
    pub fn join_machine(
        &self,
        id: &HostId,
        secret: &Secret,
        name: &str,
        key: Digest,
        now: Timestamp,
    ) -> Result<Machine, Error> {
        let digest = Hash(Digest::of(secret.expose()));
        let found = self.one(
            "SELECT i.*, t.name AS tenant FROM invitations i JOIN tenants t ON t.id = i.tenant_id
             WHERE i.digest = ?1 AND i.expires_at > ?2",
            params![digest, At(now)],
            |row| {
                let labels: BTreeMap<String, String> = row.json("labels")?;
                Ok((
                    row.get::<_, i64>("tenant_id")?,
                    row.get::<_, String>("created_by")?,
                    labels,
                ))
            },
        )?;
        let (tenant, inviter, labels) = found.ok_or_else(|| {
            Error::refused_with(
                "the invitation is nobody's, was used, or has expired",
                "ask for another one: vend hosts invite TENANT",
            )
        })?;
        self.run("DELETE FROM invitations WHERE digest = ?1", [digest])?;
        self.insert(
            "INSERT INTO registered_machines (id, tenant_id, name, labels, key, joined_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![id.as_str(), tenant, name, Json(&labels), Hash(key), At(now)],
            || Error::exists("machine", name),
        )?;
        let machine = self.machine(id)?;
        let detail = json!({ "machine": id, "name": name, "labels": labels });
        let by = By::new(inviter, now);
        self.note(&by, "machine.join", Some(&machine.tenant), id, detail)?;
        Ok(machine)
    }

    /// Whose key it is. The key that was to come has come: the one before is nobody's from now on.
    pub fn machine_of_key(&self, key: Digest, now: Timestamp) -> Result<Option<HostId>, Error> {
        self.run(
            "UPDATE registered_machines SET key = next_key, next_key = NULL WHERE next_key = ?1",
            [Hash(key)],
        )?;
        self.run(
            "UPDATE registered_machines SET seen_at = ?2 WHERE key = ?1",
            params![Hash(key), At(now)],
        )?;
        self.one(
            "SELECT id FROM registered_machines WHERE key = ?1",
            [Hash(key)],
            |row| row.parsed("id"),
        )
    }

    /// A machine is about to come with another key.
    pub fn expect_key(&self, id: &HostId, key: Digest, by: &By) -> Result<(), Error> {
        let machine = self.machine(id)?;
        self.run(
            "UPDATE registered_machines SET next_key = ?2 WHERE id = ?1",
            params![id.as_str(), Hash(key)],
        )?;
        self.note(
            by,
            "machine.renew",
            Some(&machine.tenant),
            id,
            json!({ "key": key }),
        )
    }

    /// It was seen there.
    pub fn see_machine(&self, id: &HostId, address: Option<&str>, now: Timestamp) -> Result<(), Error> {
        self.run(
            "UPDATE registered_machines SET seen_at = ?2, address = coalesce(?3, address) WHERE id = ?1",
            params![id.as_str(), At(now), address],
        )
        .map(drop)
    }

    /// Gives an environment the machines of its tenant that have all of these labels and that nobody else has. Gives all
    /// with the labels that it has then. One that it had under other labels it keeps, until what runs there was stopped.
    pub fn claim_machines(
        &self,
        place: &Place,
        labels: &BTreeMap<String, String>,
        by: &By,
    ) -> Result<Vec<Machine>, Error> {
        let environment = self.environment_key(place)?;
        for machine in self.machines(Some(&place.tenant))? {
            if machine.place.is_none() && !machine.leaving && machine.fits(labels) {
                self.give_machine(&machine.id, Some(environment))?;
                let detail = json!({ "machine": machine.id });
                self.note(by, "machine.claim", Some(&place.tenant), place, detail)?;
            }
        }
        // Whoever deploys to all of them begins anew with each.
        self.run(
            "UPDATE registered_machines SET tries = 0, tried_at = NULL WHERE environment_id = ?1",
            [environment],
        )?;
        let mut own = self.machines_of(place)?;
        own.retain(|machine| !machine.leaving && machine.fits(labels));
        Ok(own)
    }

    /// Gives an environment one machine, or keeps it there. Refuses one that leaves or that another one has.
    pub fn claim_machine(&self, place: &Place, id: &HostId, by: &By) -> Result<(), Error> {
        let machine = self.machine(id)?;
        match &machine.place {
            _ if machine.leaving => Err(Error::refused(format!("the machine {id} leaves"))),
            Some(own) if own == place => Ok(()),
            Some(own) => Err(Error::refused(format!("{own} has the machine {id}"))),
            None => {
                self.give_machine(id, Some(self.environment_key(place)?))?;
                let detail = json!({ "machine": id });
                self.note(by, "machine.claim", Some(&place.tenant), place, detail)
            }
        }
    }

    /// No environment has it any more.
    pub fn free_machine(&self, id: &HostId, by: &By) -> Result<(), Error> {
        let machine = self.machine(id)?;
        let Some(place) = machine.place else {
            return Ok(());
        };
        self.give_machine(id, None)?;
        let detail = json!({ "machine": id });
        self.note(by, "machine.free", Some(&machine.tenant), &place, detail)
    }

    fn give_machine(&self, id: &HostId, environment: Option<i64>) -> Result<(), Error> {
        self.run(
            "UPDATE registered_machines SET environment_id = ?2, release = NULL, deployment = NULL,
                 tries = 0, tried_at = NULL, failure = NULL WHERE id = ?1",
            params![id.as_str(), environment],
        )
        .map(drop)
    }

    /// What is on a machine now.
    pub fn set_machine_release(
        &self,
        id: &HostId,
        release: u64,
        deployment: &DeploymentId,
    ) -> Result<(), Error> {
        self.run(
            "UPDATE registered_machines SET release = ?2, deployment = ?3 WHERE id = ?1",
            params![id.as_str(), release, deployment.as_str()],
        )
        .map(drop)
    }

    /// How often in a row it was tried to bring it the live release, and when the last time.
    pub fn set_machine_tries(&self, id: &HostId, tries: u32, last: Timestamp) -> Result<(), Error> {
        self.run(
            "UPDATE registered_machines SET tries = ?2, tried_at = ?3 WHERE id = ?1",
            params![id.as_str(), tries, At(last)],
        )
        .map(drop)
    }

    /// The last of these counts no more.
    pub fn forget_machine_try(&self, id: &HostId) -> Result<(), Error> {
        self.run(
            "UPDATE registered_machines SET tries = max(tries, 1) - 1 WHERE id = ?1",
            params![id.as_str()],
        )
        .map(drop)
    }

    /// How its deployment ended there. A machine that is well was not tried in vain.
    pub fn settle_machine(&self, id: &HostId, failure: Option<&str>) -> Result<(), Error> {
        self.run(
            "UPDATE registered_machines SET failure = ?2, tries = iif(?2 IS NULL, 0, tries),
                 tried_at = iif(?2 IS NULL, NULL, tried_at) WHERE id = ?1",
            params![id.as_str(), failure],
        )
        .map(drop)
    }

    /// From now on nothing is deployed there; it is removed once it has nothing to do any more.
    pub fn drain_machine(&self, id: &HostId, by: &By) -> Result<(), Error> {
        let machine = self.machine(id)?;
        if machine.leaving {
            return Ok(());
        }
        self.run(
            "UPDATE registered_machines SET leaving = 1 WHERE id = ?1",
            [id.as_str()],
        )?;
        self.note(
            by,
            "machine.drain",
            Some(&machine.tenant),
            id,
            json!({ "name": machine.name }),
        )
    }

    /// Nobody knows its key any more.
    pub fn remove_machine(&self, id: &HostId, by: &By) -> Result<(), Error> {
        let machine = self.machine(id)?;
        self.run("DELETE FROM registered_machines WHERE id = ?1", [id.as_str()])?;
        self.note(
            by,
            "machine.remove",
            Some(&machine.tenant),
            id,
            json!({ "name": machine.name }),
        )
    }
}

fn machine(row: &Row<'_>) -> rusqlite::Result<Machine> {
    let app: Option<String> = row.get("app")?;
    let place = match app {
        Some(_) => Some(super::environments::place(row, "environment")?),
        None => None,
    };
    Ok(Machine {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        name: row.get("name")?,
        labels: row.json("labels")?,
        place,
        release: row.get("release")?,
        deployment: row.maybe_parsed("deployment")?,
        tries: row.get("tries")?,
        tried_at: row.maybe_at("tried_at")?,
        failure: row.get("failure")?,
        leaving: row.get("leaving")?,
        address: row.get("address")?,
        joined_at: row.at("joined_at")?,
        seen_at: row.maybe_at("seen_at")?,
    })
}
