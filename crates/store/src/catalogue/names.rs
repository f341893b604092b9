//! Whose each name is: domains and ports of apps, each of which one environment of the platform has at a time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Place, spec};
use rusqlite::{Row, params};

use crate::{
    Db, Error, Tx,
    sql::{At, Columns as _},
};

/// Who has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub place: Place,
    /// When it was given.
    pub since: Timestamp,
}

const SELECT: &str =
    "SELECT n.name AS owned, n.since, t.name AS tenant, a.name AS app, e.name AS environment FROM names n
    JOIN environments e ON e.id = n.environment_id JOIN apps a ON a.id = e.app_id
    JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    /// Whose each domain, and each port (`udp-5514`), is.
    pub fn owners(&self) -> Result<BTreeMap<String, Owner>, Error> {
        let rows = self.all(SELECT, [], |row| Ok((row.get("owned")?, owner(row)?)))?;
        Ok(rows.into_iter().collect())
    }

    /// `None`: nobody has it.
    pub fn owner(&self, name: &str) -> Result<Option<Owner>, Error> {
        self.one(&format!("{SELECT} WHERE n.name = ?1"), [name], owner)
    }

    /// Since when each release of the environment that was live has been one that `names` something, without a break until
    /// now, as the ledger says. `None`: the live one does not, or there is none.
    pub fn named_since(
        &self,
        place: &Place,
        names: &dyn Fn(&spec::Environment) -> bool,
    ) -> Result<Option<Timestamp>, Error> {
        let sql = "SELECT at, json_extract(detail, '$.release') AS release, json_extract(detail, '$.before') AS before
            FROM ledger WHERE object = ?1 AND action = 'release.live' ORDER BY number DESC";
        let turns = self.all(sql, [place.to_string()], |row| {
            Ok((
                row.at("at")?,
                row.get::<_, u64>("release")?,
                row.get::<_, Option<u64>>("before")?,
            ))
        })?;
        // The first release of an environment follows none: what another of this name did is not looked at.
        let (mut since, mut next) = (None, self.environment(place)?.live);
        for (at, release, before) in turns {
            if next != Some(release) || !names(&self.release(place, release)?.content.spec) {
                break;
            }
            (since, next) = (Some(at), before);
        }
        Ok(since)
    }
}

impl Tx<'_> {
    /// These have the names from now on, and nobody has another. An environment that is gone gets nothing. Who asks for what
    /// is on record elsewhere, so that no line of the ledger is written.
    pub fn set_owners(&self, owners: &BTreeMap<String, Owner>) -> Result<(), Error> {
        let before = self.owners()?;
        for name in before
            .keys()
            .filter(|name| owners.get(*name) != before.get(*name))
        {
            self.run("DELETE FROM names WHERE name = ?1", [name])?;
        }
        for (name, owner) in owners {
            if before.get(name) != Some(owner) && self.find_environment(&owner.place)?.is_some() {
                self.run(
                    "INSERT INTO names (name, environment_id, since) VALUES (?1, ?2, ?3)",
                    params![name, self.environment_key(&owner.place)?, At(owner.since)],
                )?;
            }
        }
        Ok(())
    }
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    Ok(Owner {
        place: super::environments::place(row, "environment")?,
        since: row.at("since")?,
    })
}
