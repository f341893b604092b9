use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{
    AlarmName, Digest, TenantName,
    alarm::{Alarm, AlarmState},
};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash, Word},
};

/// Of a tenant.
const MOST: u64 = 1000;
/// Of a tenant: tellers that say that an alarm rings. Of one more it is not known who it was.
const MOST_RINGS: u64 = 10_000;

/// What one teller says of alarms.
#[derive(Debug, Clone)]
pub struct Told {
    /// What of all that this one tells of it is about, such as the key of a group of Alertmanager's.
    pub teller: String,
    /// Of alarms that are not named it says that they do not ring.
    pub is_all: bool,
    /// How each is, and why.
    pub alarms: BTreeMap<AlarmName, (AlarmState, Option<String>)>,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Heard {
    /// Those of which something was told, as they are now.
    pub alarms: Vec<Alarm>,
    /// Those that there is no room for.
    pub passed_over: Vec<AlarmName>,
    /// Those that ring until somebody says by hand that they are well: too many say that alarms ring.
    pub uncounted: Vec<AlarmName>,
}

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

    fn count_of(&self, table: &str, tenant: &TenantName) -> Result<u64, Error> {
        let query = format!("SELECT count(*) FROM {table} WHERE tenant_id = ?1");
        let count = self.one(&query, [self.tenant_key(tenant)?], |row| row.get(0))?;
        Ok(count.unwrap_or_default())
    }

    /// Why an alarm rings, as one of those says who say so; the outer `None`: nobody does.
    fn ring_of(&self, tenant: &TenantName, name: &AlarmName) -> Result<Option<Option<String>>, Error> {
        self.one(
            "SELECT reason FROM alarm_rings WHERE tenant_id = ?1 AND name = ?2 LIMIT 1",
            params![self.tenant_key(tenant)?, name.as_str()],
            |row| row.get(0),
        )
    }

    /// The alarms of which one teller says that they ring.
    fn rung_by(&self, tenant: &TenantName, teller: Digest) -> Result<BTreeSet<AlarmName>, Error> {
        let names = self.all(
            "SELECT name FROM alarm_rings WHERE tenant_id = ?1 AND teller = ?2",
            params![self.tenant_key(tenant)?, Hash(teller)],
            |row| row.parsed("name"),
        )?;
        Ok(names.into_iter().collect())
    }
}

/// Who tells by hand, as a teller: no text has this digest.
fn by_hand() -> Digest {
    Digest::from_bytes([0; 32])
}

impl Tx<'_> {
    /// Keeps how an alarm is, as somebody says by hand: that it is well holds for all who said otherwise.
    pub fn set_alarm(
        &self,
        tenant: &TenantName,
        name: &AlarmName,
        state: AlarmState,
        reason: Option<&str>,
        by: &By,
    ) -> Result<Alarm, Error> {
        let before = self.find_alarm(tenant, name)?;
        if before.is_none() && self.count_of("alarms", tenant)? >= MOST {
            return Err(Error::refused_with(
                format!("{tenant} has {MOST} alarms: there can be no more"),
                format!("vend alarms remove {tenant}/NAME"),
            ));
        }
        let written = self.write_alarm(tenant, name, before.as_ref(), (state, reason), by)?;
        match state {
            AlarmState::Alarm => self.ring(tenant, name, by_hand(), reason)?,
            AlarmState::Ok => {
                self.run(
                    "DELETE FROM alarm_rings WHERE tenant_id = ?1 AND name = ?2",
                    params![self.tenant_key(tenant)?, name.as_str()],
                )?;
            }
        }
        Ok(written)
    }

    /// Keeps what one teller says of several. An alarm rings while anybody says so, and is well when the last of them says
    /// that it is.
    pub fn hear_alarms(&self, tenant: &TenantName, told: &Told, by: &By) -> Result<Heard, Error> {
        // Two that measure may call their groups the same.
        let teller = Digest::of_parts([by.actor.as_str(), told.teller.as_str()]);
        let rung = self.rung_by(tenant, teller)?;
        let mut alarms = told.alarms.clone();
        if told.is_all {
            for name in &rung {
                alarms.entry(name.clone()).or_insert((AlarmState::Ok, None));
            }
        }
        let known = self.alarms(tenant)?;
        let mut room = MOST.saturating_sub(known.len() as u64);
        let mut ringers = MOST_RINGS.saturating_sub(self.count_of("alarm_rings", tenant)?);
        let mut heard = Heard::default();
        for (name, (state, reason)) in alarms {
            let before = known.get(&name);
            if before.is_none() {
                if room == 0 {
                    heard.passed_over.push(name);
                    continue;
                }
                room -= 1;
            }
            let reason = reason.as_deref();
            heard.alarms.push(match state {
                AlarmState::Ok => {
                    self.unring(tenant, &name, teller)?;
                    let now = match self.ring_of(tenant, &name)? {
                        Some(other) => (AlarmState::Alarm, other),
                        None => (state, reason.map(str::to_owned)),
                    };
                    self.write_alarm(tenant, &name, before, (now.0, now.1.as_deref()), by)?
                }
                AlarmState::Alarm => {
                    let rings = self.write_alarm(tenant, &name, before, (state, reason), by)?;
                    let is_new = !rung.contains(&name);
                    let counted = if is_new && ringers == 0 { by_hand() } else { teller };
                    ringers = ringers.saturating_sub(u64::from(is_new));
                    self.ring(tenant, &name, counted, reason)?;
                    if counted != teller {
                        heard.uncounted.push(name);
                    }
                    rings
                }
            });
        }
        Ok(heard)
    }

    /// A teller says that an alarm rings.
    fn ring(
        &self,
        tenant: &TenantName,
        name: &AlarmName,
        teller: Digest,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.run(
            "INSERT INTO alarm_rings (tenant_id, name, teller, reason) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (tenant_id, name, teller) DO UPDATE SET reason = excluded.reason",
            params![self.tenant_key(tenant)?, name.as_str(), Hash(teller), reason],
        )
        .map(drop)
    }

    /// A teller says that it does not.
    fn unring(&self, tenant: &TenantName, name: &AlarmName, teller: Digest) -> Result<(), Error> {
        self.run(
            "DELETE FROM alarm_rings WHERE tenant_id = ?1 AND name = ?2 AND teller = ?3",
            params![self.tenant_key(tenant)?, name.as_str(), Hash(teller)],
        )
        .map(drop)
    }

    /// That it is as it was is not in the ledger: whoever measures says it every minute.
    fn write_alarm(
        &self,
        tenant: &TenantName,
        name: &AlarmName,
        before: Option<&Alarm>,
        (state, reason): (AlarmState, Option<&str>),
        by: &By,
    ) -> Result<Alarm, Error> {
        let changes = before.is_none_or(|before| before.state != state);
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
