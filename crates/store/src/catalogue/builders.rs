use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{Digest, HostId, Secret, TenantName, Ticket};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx, WorkState,
    sql::{At, Columns as _, Hash, Json, Word},
};

/// A machine that builds, beside the platform's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    pub id: HostId,
    /// What it calls itself.
    pub name: String,
    /// From its invitation, and its `arch` and `os`, which it says itself.
    pub labels: BTreeMap<String, String>,
    /// Whose builds it gets; of all tenants when empty.
    pub tenants: BTreeSet<TenantName>,
    /// It is being removed: it gets no new build.
    pub leaving: bool,
    /// Where it was last seen, and when.
    pub address: Option<String>,
    pub joined_at: Timestamp,
    pub seen_at: Option<Timestamp>,
}

impl Builder {
    /// Does it build for this tenant?
    pub fn serves(&self, tenant: &TenantName) -> bool {
        self.tenants.is_empty() || self.tenants.contains(tenant)
    }
}

/// What lets one builder in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBuilder {
    pub labels: BTreeMap<String, String>,
    /// Whose builds it will get; of all tenants when empty.
    pub tenants: BTreeSet<TenantName>,
    pub expires_at: Timestamp,
}

/// Builders, and invitations that wait.
const MOST: usize = 200;

impl Db<'_> {
    /// All, in the order of their joining.
    pub fn builders(&self) -> Result<Vec<Builder>, Error> {
        self.all("SELECT * FROM builders ORDER BY joined_at, id", [], builder)
    }

    pub fn builder(&self, id: &HostId) -> Result<Builder, Error> {
        self.one("SELECT * FROM builders WHERE id = ?1", [id.as_str()], builder)?
            .ok_or_else(|| Error::missing("builder", id))
    }
}

impl Tx<'_> {
    /// Keeps the digest of an invitation's secret.
    pub fn invite_builder(&self, secret: &Secret, new: &NewBuilder, by: &By) -> Result<(), Error> {
        for tenant in &new.tenants {
            self.tenant_key(tenant)?;
        }
        self.run(
            "DELETE FROM builder_invitations WHERE expires_at <= ?1",
            [At(by.at)],
        )?;
        let waiting: usize = self.value("SELECT count(*) FROM builder_invitations", [])?;
        if waiting + self.builders()?.len() >= MOST {
            return Err(Error::refused(format!(
                "there are {MOST} builders and invitations: there can be no more"
            )));
        }
        self.run(
            "INSERT INTO builder_invitations VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                Hash(Digest::of(secret.expose())),
                Json(&new.labels),
                Json(&new.tenants),
                At(by.at),
                by.actor,
                At(new.expires_at)
            ],
        )?;
        let detail = json!({ "labels": new.labels, "tenants": new.tenants, "expires_at": new.expires_at });
        self.note(by, "builder.invite", None, "builders", detail)
    }

    /// Takes in the builder that shows an invitation, and forgets the invitation. `own`: what the machine is, which no
    /// invitation can change.
    pub fn join_builder(
        &self,
        id: &HostId,
        secret: &Secret,
        name: &str,
        key: Digest,
        own: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<Builder, Error> {
        let digest = Hash(Digest::of(secret.expose()));
        let found = self.one(
            "SELECT * FROM builder_invitations WHERE digest = ?1 AND expires_at > ?2",
            params![digest, At(now)],
            |row| {
                let labels: BTreeMap<String, String> = row.json("labels")?;
                let tenants: BTreeSet<TenantName> = row.json("tenants")?;
                Ok((row.get::<_, String>("created_by")?, labels, tenants))
            },
        )?;
        let (inviter, mut labels, tenants) = found.ok_or_else(|| {
            Error::refused_with(
                "the invitation is no builder's, was used, or has expired",
                "ask for another one: vend builders invite",
            )
        })?;
        labels.extend(own.clone());
        self.run("DELETE FROM builder_invitations WHERE digest = ?1", [digest])?;
        self.insert(
            "INSERT INTO builders (id, name, labels, tenants, key, joined_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![id.as_str(), name, Json(&labels), Json(&tenants), Hash(key), At(now)],
            || Error::exists("builder", name),
        )?;
        let detail = json!({ "name": name, "labels": labels, "tenants": tenants });
        self.note(&By::new(inviter, now), "builder.join", None, id, detail)?;
        self.builder(id)
    }

    /// Whose key it is. The key that was to come has come: the one before is nobody's from now on.
    pub fn builder_of_key(&self, key: Digest, now: Timestamp) -> Result<Option<HostId>, Error> {
        self.run(
            "UPDATE builders SET key = next_key, next_key = NULL WHERE next_key = ?1",
            [Hash(key)],
        )?;
        self.run(
            "UPDATE builders SET seen_at = ?2 WHERE key = ?1",
            params![Hash(key), At(now)],
        )?;
        self.one("SELECT id FROM builders WHERE key = ?1", [Hash(key)], |row| {
            row.parsed("id")
        })
    }

    /// A builder is about to come with another key.
    pub fn expect_builder_key(&self, id: &HostId, key: Digest, by: &By) -> Result<(), Error> {
        self.builder(id)?;
        self.run(
            "UPDATE builders SET next_key = ?2 WHERE id = ?1",
            params![id.as_str(), Hash(key)],
        )?;
        self.note(by, "builder.renew", None, id, json!({ "key": key }))
    }

    /// It was seen there.
    pub fn see_builder(&self, id: &HostId, address: Option<&str>, now: Timestamp) -> Result<(), Error> {
        self.run(
            "UPDATE builders SET seen_at = ?2, address = coalesce(?3, address) WHERE id = ?1",
            params![id.as_str(), At(now), address],
        )
        .map(drop)
    }

    /// From now on it gets no build; it is removed once it has none any more.
    pub fn drain_builder(&self, id: &HostId, by: &By) -> Result<(), Error> {
        let found = self.builder(id)?;
        if found.leaving {
            return Ok(());
        }
        self.run("UPDATE builders SET leaving = 1 WHERE id = ?1", [id.as_str()])?;
        self.note(by, "builder.drain", None, id, json!({ "name": found.name }))
    }

    /// A tenant is deleted, and its name may be another customer's next: no builder is meant for it any more. One that was
    /// for it alone leaves and keeps its list, because an empty one would mean all tenants.
    pub(super) fn withdraw_builders(&self, tenant: &TenantName, by: &By) -> Result<(), Error> {
        for mut found in self.builders()? {
            if !found.tenants.remove(tenant) {
                continue;
            }
            if found.tenants.is_empty() {
                self.drain_builder(&found.id, by)?;
                continue;
            }
            self.run(
                "UPDATE builders SET tenants = ?2 WHERE id = ?1",
                params![found.id.as_str(), Json(&found.tenants)],
            )?;
        }
        let invitations = self.all("SELECT digest, tenants FROM builder_invitations", [], |row| {
            Ok((
                row.get::<_, Vec<u8>>("digest")?,
                row.json::<BTreeSet<TenantName>>("tenants")?,
            ))
        })?;
        for (digest, mut tenants) in invitations {
            if !tenants.remove(tenant) {
                continue;
            }
            match tenants.is_empty() {
                true => self.run("DELETE FROM builder_invitations WHERE digest = ?1", [digest])?,
                false => self.run(
                    "UPDATE builder_invitations SET tenants = ?2 WHERE digest = ?1",
                    params![digest, Json(&tenants)],
                )?,
            };
        }
        Ok(())
    }

    /// Takes all of a builder's builds from it, and removes it: nobody knows its key any more.
    pub fn expel_builder(&self, id: &HostId, by: &By) -> Result<(), Error> {
        for build in self.running_builds_of(id)? {
            self.take_build(&build.ticket)?;
        }
        self.remove_builder(id, by)
    }

    /// Nobody knows its key any more.
    pub fn remove_builder(&self, id: &HostId, by: &By) -> Result<(), Error> {
        let found = self.builder(id)?;
        self.run("DELETE FROM builders WHERE id = ?1", [id.as_str()])?;
        self.note(by, "builder.remove", None, id, json!({ "name": found.name }))
    }

    /// Gives a build that goes on to a builder. One that leaves gets none.
    pub fn give_build(&self, ticket: &Ticket, id: &HostId, by: &By) -> Result<(), Error> {
        let found = self.builder(id)?;
        if found.leaving {
            return Err(Error::refused(format!("the builder {} leaves", found.name)));
        }
        let given = self.run(
            "UPDATE builds SET builder = ?2, here = 0, waits = NULL, log_from = NULL, given = given + 1
             WHERE ticket = ?1 AND state = ?3",
            params![ticket.as_str(), id.as_str(), Word(WorkState::Running)],
        )?;
        if given == 0 {
            return Err(Error::refused(format!("the build {ticket} does not go on")));
        }
        let build = self.build_of_ticket(ticket)?;
        let place = build.ok_or_else(|| Error::missing("build", ticket))?.place;
        let detail = json!({ "ticket": ticket, "builder": id, "name": found.name });
        self.note(by, "build.give", Some(&place.tenant), &place, detail)
    }

    /// A build is the platform's own machine's: once that has begun it, it goes on there, whatever labels it has later.
    pub fn keep_build(&self, ticket: &Ticket) -> Result<(), Error> {
        let kept = self.run(
            "UPDATE builds SET builder = NULL, here = 1, waits = NULL WHERE ticket = ?1 AND state = ?2",
            params![ticket.as_str(), Word(WorkState::Running)],
        )?;
        match kept {
            0 => Err(Error::refused(format!("the build {ticket} does not go on"))),
            _ => Ok(()),
        }
    }

    /// What a build's builder says is in its log from there on.
    pub fn set_log_from(&self, ticket: &Ticket, log_from: u64) -> Result<(), Error> {
        self.run(
            "UPDATE builds SET log_from = ?2 WHERE ticket = ?1",
            params![ticket.as_str(), log_from],
        )
        .map(drop)
    }

    /// A build has no place any more.
    pub fn take_build(&self, ticket: &Ticket) -> Result<(), Error> {
        self.run(
            "UPDATE builds SET builder = NULL, here = 0, waits = NULL WHERE ticket = ?1",
            [ticket.as_str()],
        )
        .map(drop)
    }
}

fn builder(row: &Row<'_>) -> rusqlite::Result<Builder> {
    Ok(Builder {
        id: row.parsed("id")?,
        name: row.get("name")?,
        labels: row.json("labels")?,
        tenants: row.json("tenants")?,
        leaving: row.get("leaving")?,
        address: row.get("address")?,
        joined_at: row.at("joined_at")?,
        seen_at: row.maybe_at("seen_at")?,
    })
}
