use std::net::Ipv4Addr;

use jiff::Timestamp;
use model::{Digest, HostId, Place, port::HostRole};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{Address, At, Columns as _, Hash, Word},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub place: Place,
    /// The release that it runs; `None` for a database.
    pub release: Option<u64>,
    pub role: HostRole,
    /// In the environment's network; free again when the host is retired.
    pub address: Ipv4Addr,
    /// `None` when whoever starts it chooses: a database's.
    pub image: Option<Digest>,
    /// A size class of the platform.
    pub size: String,
    pub state: HostState,
    /// Why it is in that state, where that is not obvious.
    pub reason: Option<String>,
    /// When it is to be stopped.
    pub retire_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// Has a row and an address; may or may not run yet.
    Starting,
    /// Runs its release, and gets no traffic yet.
    Ready,
    /// Gets traffic.
    Serving,
    /// Gets no new traffic while another release is put on it.
    Updating,
    /// Gets no new traffic, and finishes what it has.
    Draining,
    /// Gets no traffic, and waits for a rollback until it is retired.
    Kept,
    /// Is stopped and gone.
    Retired,
    /// Did not get ready, or died. May still exist, as evidence.
    Failed,
}

/// A host to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHost {
    pub id: HostId,
    pub place: Place,
    pub release: Option<u64>,
    pub role: HostRole,
    pub image: Option<Digest>,
    pub size: String,
}

const SELECT: &str = "SELECT h.*, t.name AS tenant, a.name AS app, e.name AS environment FROM hosts h
    JOIN environments e ON e.id = h.environment_id JOIN apps a ON a.id = e.app_id
    JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    pub fn host(&self, id: &HostId) -> Result<Host, Error> {
        self.one(&format!("{SELECT} WHERE h.id = ?1"), [id.as_str()], host)?
            .ok_or_else(|| Error::missing("host", id))
    }

    /// Of an environment, or of the platform; in the order of their making, retired ones included.
    pub fn hosts(&self, place: Option<&Place>) -> Result<Vec<Host>, Error> {
        self.hosts_where(place, "true")
    }

    /// Hosts that are not retired: all that may exist.
    pub fn standing_hosts(&self, place: Option<&Place>) -> Result<Vec<Host>, Error> {
        self.hosts_where(place, "h.state <> 'retired'")
    }

    /// Hosts of apps that are half made or failed, or that serve a release which is not live.
    pub fn unsettled_hosts(&self) -> Result<Vec<Host>, Error> {
        self.hosts_where(
            None,
            "h.role = 'app' AND (h.state IN ('starting', 'ready', 'updating', 'failed')
             OR (h.state = 'serving' AND h.release IS NOT e.live))",
        )
    }

    fn hosts_where(&self, place: Option<&Place>, condition: &str) -> Result<Vec<Host>, Error> {
        match place {
            Some(place) => self.all(
                &format!("{SELECT} WHERE h.environment_id = ?1 AND {condition} ORDER BY h.created_at, h.id"),
                [self.environment_key(place)?],
                host,
            ),
            None => self.all(
                &format!("{SELECT} WHERE {condition} ORDER BY t.name, a.name, e.name, h.created_at, h.id"),
                [],
                host,
            ),
        }
    }

    /// Hosts of one release that are not retired.
    pub fn hosts_of_release(&self, place: &Place, number: u64) -> Result<Vec<Host>, Error> {
        let mut hosts = self.app_hosts(place)?;
        hosts.retain(|host| host.release == Some(number));
        Ok(hosts)
    }

    pub(super) fn app_hosts(&self, place: &Place) -> Result<Vec<Host>, Error> {
        let mut hosts = self.standing_hosts(Some(place))?;
        hosts.retain(|host| host.role == HostRole::App);
        Ok(hosts)
    }

    /// Hosts whose time has come.
    pub fn hosts_to_retire(&self, now: Timestamp) -> Result<Vec<Host>, Error> {
        let sql = format!("{SELECT} WHERE h.retire_at <= ?1 AND h.state <> 'retired' ORDER BY h.retire_at");
        self.all(&sql, [At(now)], host)
    }

    /// When the next host is to be retired.
    pub fn next_retirement(&self) -> Result<Option<Timestamp>, Error> {
        self.one(
            "SELECT min(retire_at) AS at FROM hosts WHERE retire_at IS NOT NULL AND state <> 'retired'",
            [],
            |row| row.maybe_at("at"),
        )
        .map(Option::flatten)
    }
}

impl Tx<'_> {
    /// Makes the host's row, starting, and gives it a free address of its environment's network (.2 to .254).
    pub fn create_host(&self, new: &NewHost, by: &By) -> Result<Host, Error> {
        let environment = self.environment(&new.place)?;
        let key = self.environment_key(&new.place)?;
        let taken: Vec<u32> = self.all(
            "SELECT address FROM hosts WHERE environment_id = ?1 AND state <> 'retired'",
            [key],
            |row| row.get(0),
        )?;
        let subnet = u32::from(environment.subnet);
        let address = (2..=254)
            .map(|last| subnet + last)
            .find(|address| !taken.contains(address));
        let address = address.map(Ipv4Addr::from).ok_or(Error::Exhausted {
            what: "address in the environment's network",
        })?;
        self.insert(
            "INSERT INTO hosts (id, environment_id, release, role, address, image, size, state, created_at, changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
            params![
                new.id.as_str(),
                key,
                new.release,
                Word(new.role),
                Address(address),
                new.image.map(Hash),
                new.size,
                Word(HostState::Starting),
                At(by.at)
            ],
            || Error::exists("host", &new.id),
        )?;
        let detail = json!({
            "host": new.id, "release": new.release, "role": new.role, "address": address, "image": new.image,
        });
        self.note(by, "host.create", Some(&new.place.tenant), &new.place, detail)?;
        self.host(&new.id)
    }

    /// A retired host stays retired: its address may be another's. A state that it has already changes nothing.
    /// Serving and retiring forget `retire_at`.
    pub fn set_host_state(
        &self,
        id: &HostId,
        state: HostState,
        reason: Option<&str>,
        by: &By,
    ) -> Result<(), Error> {
        let host = self.host(id)?;
        if host.state == state && host.reason.as_deref() == reason {
            return Ok(());
        }
        if host.state == HostState::Retired {
            return Err(Error::refused(format!(
                "host {id} is retired: it cannot become {state:?}"
            )));
        }
        let forget = matches!(state, HostState::Serving | HostState::Retired);
        self.run(
            "UPDATE hosts SET state = ?2, reason = ?3, changed_at = ?4, retire_at = iif(?5, NULL, retire_at)
             WHERE id = ?1",
            params![id.as_str(), Word(state), reason, At(by.at), forget],
        )?;
        if state == HostState::Retired {
            self.forget_database(id)?;
        }
        let detail = json!({ "host": id, "state": state, "before": host.state, "reason": reason });
        self.note(by, "host.change", Some(&host.place.tenant), &host.place, detail)
    }

    /// Another release is put on the host, which stays what it is otherwise.
    pub fn set_host_release(&self, id: &HostId, release: u64, by: &By) -> Result<(), Error> {
        let host = self.host(id)?;
        if host.release == Some(release) {
            return Ok(());
        }
        self.run(
            "UPDATE hosts SET release = ?2, changed_at = ?3 WHERE id = ?1",
            params![id.as_str(), release, At(by.at)],
        )?;
        let detail = json!({ "host": id, "release": release, "before": host.release });
        self.note(by, "host.release", Some(&host.place.tenant), &host.place, detail)
    }

    /// When the host is to be stopped; `None`: not by itself.
    pub fn set_host_retirement(&self, id: &HostId, retire_at: Option<Timestamp>) -> Result<(), Error> {
        match self.run(
            "UPDATE hosts SET retire_at = ?2 WHERE id = ?1",
            params![id.as_str(), retire_at.map(At)],
        )? {
            0 => Err(Error::missing("host", id)),
            _ => Ok(()),
        }
    }

    /// Forgets a host that is retired or was never started.
    pub fn delete_host(&self, id: &HostId, by: &By) -> Result<(), Error> {
        let host = self.host(id)?;
        if !matches!(
            host.state,
            HostState::Retired | HostState::Starting | HostState::Failed
        ) {
            return Err(Error::refused_with(
                format!("host {id} is {:?}: it cannot be deleted", host.state),
                "stop it first",
            ));
        }
        self.forget_database(id)?;
        self.run("DELETE FROM hosts WHERE id = ?1", [id.as_str()])?;
        self.note(
            by,
            "host.delete",
            Some(&host.place.tenant),
            &host.place,
            json!({ "host": id }),
        )
    }

    /// Forgets hosts that were retired before `before`, and gives how many.
    pub fn prune_hosts(&self, before: Timestamp) -> Result<usize, Error> {
        self.run(
            "DELETE FROM hosts WHERE state = 'retired' AND changed_at < ?1",
            [At(before)],
        )
    }

    fn forget_database(&self, id: &HostId) -> Result<(), Error> {
        self.run(
            "UPDATE environments SET database_host = NULL, database_ready = 0 WHERE database_host = ?1",
            [id.as_str()],
        )
        .map(drop)
    }
}

fn host(row: &Row<'_>) -> rusqlite::Result<Host> {
    Ok(Host {
        id: row.parsed("id")?,
        place: super::environments::place(row, "environment")?,
        release: row.get("release")?,
        role: row.word("role")?,
        address: row.address("address")?,
        image: row.maybe_digest("image")?,
        size: row.get("size")?,
        state: row.word("state")?,
        reason: row.get("reason")?,
        retire_at: row.maybe_at("retire_at")?,
        created_at: row.at("created_at")?,
        changed_at: row.at("changed_at")?,
    })
}
