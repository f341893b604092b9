//! What people decide about visitors while nothing is released: what is closed, and who may ask.

use std::fmt;

use jiff::Timestamp;
use model::{Place, TenantName, route::Access};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Move, Tx,
    sql::{At, Columns as _, Json},
};

/// What can be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// All that it has.
    Tenant(TenantName),
    Environment(Place),
}

impl Door {
    pub fn tenant(&self) -> &TenantName {
        match self {
            Self::Tenant(tenant) => tenant,
            Self::Environment(place) => &place.tenant,
        }
    }

    /// As actions of the ledger begin.
    fn word(&self) -> &'static str {
        match self {
            Self::Tenant(_) => "tenant",
            Self::Environment(_) => "environment",
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => tenant.fmt(f),
            Self::Environment(place) => place.fmt(f),
        }
    }
}

/// Somebody closed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// The whole tenant, and not one environment.
    pub whole: bool,
    /// HTML; `None`: the platform's own words.
    pub page: Option<String>,
    pub at: Timestamp,
    pub by: String,
}

impl Db<'_> {
    /// Why visitors of an environment get a page: its own closure, or else its tenant's.
    pub fn closure(&self, place: &Place) -> Result<Option<Closure>, Error> {
        self.one(
            "SELECT c.* FROM closures c JOIN tenants t ON t.id = c.tenant_id
             LEFT JOIN environments e ON e.id = c.environment_id LEFT JOIN apps a ON a.id = e.app_id
             WHERE t.name = ?1 AND (c.environment_id IS NULL OR (a.name = ?2 AND e.name = ?3))
             ORDER BY c.environment_id IS NULL LIMIT 1",
            [
                place.tenant.as_str(),
                place.app.as_str(),
                place.environment.as_str(),
            ],
            row,
        )
    }

    pub fn closure_of_tenant(&self, name: &TenantName) -> Result<Option<Closure>, Error> {
        self.one(
            "SELECT c.* FROM closures c JOIN tenants t ON t.id = c.tenant_id
             WHERE t.name = ?1 AND c.environment_id IS NULL",
            [name.as_str()],
            row,
        )
    }

    /// Refuses what only the load balancer here would do, where AWS serves something behind the door too, or is about to.
    fn refuse_away(&self, door: &Door, what: &str) -> Result<(), Error> {
        let is_behind = |own: &Move| match door {
            Door::Tenant(tenant) => own.place.tenant == *tenant,
            Door::Environment(place) => own.place == *place,
        };
        match self.moves()?.into_iter().find(is_behind) {
            None => Ok(()),
            Some(Move { place, host, .. }) => Err(Error::refused_with(
                format!("{what}: AWS serves {place} too, as {host}, and does not ask the load balancer here"),
                format!("vend move {place} --engine embedded"),
            )),
        }
    }

    fn door_keys(&self, door: &Door) -> Result<(i64, Option<i64>), Error> {
        let tenant = self.tenant_key(door.tenant())?;
        Ok(match door {
            Door::Tenant(_) => (tenant, None),
            Door::Environment(place) => (tenant, Some(self.environment_key(place)?)),
        })
    }
}

impl Tx<'_> {
    /// Visitors get the page from now on; one that is closed already gets the new page.
    /// What AWS serves too is refused: visitors reach it there under another name, and would get no page.
    pub fn close(&self, door: &Door, page: Option<&str>, by: &By) -> Result<(), Error> {
        let (tenant, environment) = self.door_keys(door)?;
        self.refuse_away(door, &format!("{door} cannot be closed"))?;
        self.delete_closure(tenant, environment)?;
        self.run(
            "INSERT INTO closures (tenant_id, environment_id, page, at, by) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![tenant, environment, page, At(by.at), by.actor],
        )?;
        let detail = json!({ "page_bytes": page.map(str::len) });
        let action = format!("{}.close", door.word());
        self.note(by, &action, Some(door.tenant()), door, detail)
    }

    /// Visitors get the app again. One that is open stays so, and nothing is written.
    pub fn open(&self, door: &Door, by: &By) -> Result<(), Error> {
        let (tenant, environment) = self.door_keys(door)?;
        if self.delete_closure(tenant, environment)? == 0 {
            return Ok(());
        }
        let action = format!("{}.open", door.word());
        self.note(by, &action, Some(door.tenant()), door, json!({}))
    }

    fn delete_closure(&self, tenant: i64, environment: Option<i64>) -> Result<usize, Error> {
        self.run(
            "DELETE FROM closures WHERE tenant_id = ?1 AND environment_id IS ?2",
            params![tenant, environment],
        )
    }

    /// Only these may ask for anything of the tenant. Refused where AWS serves some of it too: nobody would look there.
    pub fn set_access(&self, name: &TenantName, access: &Access, by: &By) -> Result<(), Error> {
        let key = self.tenant_key(name)?;
        if !access.is_empty() {
            let what = format!("nobody would look at who asks for all of {name}");
            self.refuse_away(&Door::Tenant(name.clone()), &what)?;
        }
        let written = (!access.is_empty()).then_some(Json(access));
        self.run(
            "UPDATE tenants SET access = ?2 WHERE id = ?1",
            params![key, written],
        )?;
        self.note(by, "tenant.access", Some(name), name, json!(access))
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<Closure> {
    Ok(Closure {
        whole: row.get::<_, Option<i64>>("environment_id")?.is_none(),
        page: row.get("page")?,
        at: row.at("at")?,
        by: row.get("by")?,
    })
}
