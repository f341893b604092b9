use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    AlarmName, TenantName,
    alarm::{Alarm, AlarmState},
};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Word},
};

/// Of a tenant.
const MOST: u64 = 1000;

impl Db<'_> {
    /// All of a tenant.
    pub fn alarms(&self, tenant: &TenantName) -> Result<BTreeMap<AlarmName, Alarm>, Error> {
        let rows = self.all(
            "SELECT * FROM alarms WHERE tenant_id = ?1",
            [self.tenant_key(tenant)?],
            alarm,
        )?;
        Ok(rows.into_iter().map(|own| (own.name.clone(), own)).collect())
    }

    pub fn alarm(&self, tenant: &TenantName, name: &AlarmName) -> Result<Alarm, Error> {
        self.find_alarm(tenant, name)?
            .ok_or_else(|| Error::missing("alarm", format!("{tenant}/{name}")))
    }

    fn find_alarm(&self, tenant: &TenantName, name: &AlarmName) -> Result<Option<Alarm>, Error> {
        self.one(
            "SELECT * FROM alarms WHERE tenant_id = ?1 AND name = ?2",
            params![self.tenant_key(tenant)?, name.as_str()],
            alarm,
        )
    }

    fn count_alarms(&self, tenant: &TenantName) -> Result<u64, Error> {
        let key = self.tenant_key(tenant)?;
        let count = self.one("SELECT count(*) FROM alarms WHERE tenant_id = ?1", [key], |row| {
            row.get(0)
        })?;
        Ok(count.unwrap_or_default())
    }
}

impl Tx<'_> {
    /// Keeps how an alarm is. That it is as it was is not in the ledger: whoever measures says it every minute.
    pub fn set_alarm(
        &self,
        tenant: &TenantName,
        name: &AlarmName,
        state: AlarmState,
        reason: Option<&str>,
        by: &By,
    ) -> Result<Alarm, Error> {
        let before = self.find_alarm(tenant, name)?;
        if before.is_none() && self.count_alarms(tenant)? >= MOST {
            return Err(Error::refused_with(
                format!("{tenant} has {MOST} alarms: there can be no more"),
                format!("vend alarms remove {tenant}/NAME"),
            ));
        }
        let changes = before.as_ref().is_none_or(|before| before.state != state);
        let since = before
            .filter(|before| before.state == state)
            .map_or(by.at, |before| before.since);
        self.run(
            "INSERT INTO alarms (tenant_id, name, state, reason, since, told_at, told_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (tenant_id, name) DO UPDATE SET state = excluded.state, reason = excluded.reason,
                 since = excluded.since, told_at = excluded.told_at, told_by = excluded.told_by",
            params![
                self.tenant_key(tenant)?,
                name.as_str(),
                Word(state),
                reason,
                At(since),
                At(by.at),
                by.actor
            ],
        )?;
        if changes {
            let detail = json!({ "state": state, "reason": reason });
            self.note(by, "alarm.set", Some(tenant), name, detail)?;
        }
        self.alarm(tenant, name)
    }

    /// Deployments do not mind the alarm until then; a time that is over makes them mind it again.
    pub fn ignore_alarm(
        &self,
        tenant: &TenantName,
        name: &AlarmName,
        until: Timestamp,
        reason: &str,
        by: &By,
    ) -> Result<Alarm, Error> {
        self.alarm(tenant, name)?;
        let ends = (until > by.at).then_some(At(until));
        self.run(
            "UPDATE alarms SET ignored_until = ?3, ignored_by = ?4 WHERE tenant_id = ?1 AND name = ?2",
            params![
                self.tenant_key(tenant)?,
                name.as_str(),
                ends,
                (until > by.at).then_some(&by.actor)
            ],
        )?;
        let detail = json!({ "until": until, "reason": reason });
        self.note(by, "alarm.ignore", Some(tenant), name, detail)?;
        self.alarm(tenant, name)
    }

    /// Nobody knows the alarm any more.
    pub fn remove_alarm(&self, tenant: &TenantName, name: &AlarmName, by: &By) -> Result<(), Error> {
        let found = self.alarm(tenant, name)?;
        self.run(
            "DELETE FROM alarms WHERE tenant_id = ?1 AND name = ?2",
            params![self.tenant_key(tenant)?, name.as_str()],
        )?;
        let detail = json!({ "state": found.state });
        self.note(by, "alarm.remove", Some(tenant), name, detail)
    }
}

fn alarm(row: &Row<'_>) -> rusqlite::Result<Alarm> {
    Ok(Alarm {
        name: row.parsed("name")?,
        state: row.word("state")?,
        reason: row.get("reason")?,
        since: row.at("since")?,
        told_at: row.at("told_at")?,
        told_by: row.get("told_by")?,
        ignored: row.maybe_at("ignored_until")?.zip(row.get("ignored_by")?),
    })
}
