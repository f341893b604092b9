use std::net::Ipv4Addr;

use jiff::{SignedDuration, Timestamp};
use model::{
    AppName, HostId, Place, TenantName,
    port::{HostRole, Network},
    spec,
};
use rusqlite::{Row, params};
use serde_json::{Value, json};

use super::branches::{Preview, preview};
use crate::{
    By, Db, Error, HostState, Tx,
    sql::{Address, At, Columns as _, Json, Word},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    pub place: Place,
    /// Unique on the platform while the environment exists, from 1. Its bridge is called after it.
    pub number: u32,
    /// A /24 of its own.
    pub subnet: Ipv4Addr,
    /// The first of 65,536 user ids of its own.
    pub uid_base: u32,
    pub branch: String,
    /// From the newest `vend.yaml` that was pushed; `None` before the first.
    pub spec: Option<spec::Environment>,
    /// Cannot be destroyed.
    pub protected: bool,
    /// So many hosts were asked for, whatever `vend.yaml` says.
    pub desired: Option<u32>,
    /// The release that gets the traffic.
    pub live: Option<u64>,
    /// The one that got it before.
    pub previous: Option<u64>,
    /// The release that gets a part of the traffic beside the live one.
    pub arriving: Option<Arriving>,
    pub database_host: Option<HostId>,
    pub database_ready: bool,
    /// Since when it has no hosts because nobody asks for it; it is awake again when its hosts serve.
    pub asleep_at: Option<Timestamp>,
    /// How it comes and goes with its branch; `None`: `vend.yaml` names it.
    pub preview: Option<Preview>,
    pub created_at: Timestamp,
    pub created_by: String,
}

/// A release that gets a part of the traffic beside the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arriving {
    pub release: u64,
    /// Percent; `None`: what its hosts are of all that serve.
    pub share: Option<u32>,
}

impl Environment {
    pub fn network(&self) -> Network {
        Network {
            number: self.number,
            subnet: self.subnet,
            prefix: 24,
        }
    }

    /// Why all of it is to go with its branch; `None`: it stays.
    pub fn ending(&self) -> Option<&str> {
        self.preview.as_ref()?.ending.as_deref()
    }
}

/// Where the environments' networks are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnets {
    pub base: Ipv4Addr,
    /// 8 to 22.
    pub prefix: u8,
}

impl Default for Subnets {
    /// `10.64.0.0/10`: 16,383 environments, away from what home routers, Docker and AWS use by default.
    fn default() -> Self {
        Self {
            base: Ipv4Addr::new(10, 64, 0, 0),
            prefix: 10,
        }
    }
}

impl Subnets {
    /// How many networks of 256 addresses there are. The first one is never used, so that numbers start at 1.
    fn count(self) -> u32 {
        1 << (24 - self.prefix)
    }

    fn subnet(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + (number << 8))
    }

    fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        Self {
            base: base.parse().ok()?,
            prefix: prefix.parse().ok()?,
        }
        .checked()
    }

    fn checked(self) -> Option<Self> {
        let whole = (8..=22).contains(&self.prefix) && u32::from(self.base) << self.prefix == 0;
        whole.then_some(self)
    }
}

const SETTING: &str = "network.subnets";

/// systemd keeps these user ids for containers (`systemd.io/UIDS-GIDS`): 524288 to 1879048191.
const BLOCK: u32 = 65_536;
const FIRST_BLOCK: u32 = 524_288 / BLOCK;
const LAST_BLOCK: u32 = 1_879_048_191 / BLOCK;

/// `used_at`: what only a newer base has brought is no use.
const SELECT: &str = "SELECT e.*, t.name AS tenant, a.name AS app, u.block,
    CASE WHEN e.preview IS NULL THEN NULL ELSE max(e.created_at,
        coalesce((SELECT max(p.at) FROM pushes p WHERE p.app_id = e.app_id AND p.environment = e.name
                  AND p.origin NOT IN ('refresh', 'refresh-automatic')), 0),
        coalesce((SELECT max(x.started_at) FROM executions x WHERE x.tenant = t.name AND x.app = a.name
                  AND x.environment = e.name AND x.kind IN ('rollback', 'scale')), 0)) END AS used_at
    FROM environments e
    JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id
    JOIN uid_blocks u ON u.environment_id = e.id";

impl Db<'_> {
    /// By name: all of the platform, of a tenant, or of an app.
    pub fn environments(
        &self,
        of: Option<(&TenantName, Option<&AppName>)>,
    ) -> Result<Vec<Environment>, Error> {
        let (tenant, app) = of.unzip();
        let (tenant, app) = (tenant.map(TenantName::as_str), app.flatten().map(AppName::as_str));
        let sql = format!(
            "{SELECT} WHERE (?1 IS NULL OR t.name = ?1) AND (?2 IS NULL OR a.name = ?2)
             ORDER BY t.name, a.name, e.name"
        );
        self.all(&sql, [tenant, app], environment)
    }

    pub fn environment(&self, place: &Place) -> Result<Environment, Error> {
        self.find_environment(place)?
            .ok_or_else(|| Error::missing("environment", place))
    }

    pub fn find_environment(&self, place: &Place) -> Result<Option<Environment>, Error> {
        let sql = format!("{SELECT} WHERE t.name = ?1 AND a.name = ?2 AND e.name = ?3");
        let names = [
            place.tenant.as_str(),
            place.app.as_str(),
            place.environment.as_str(),
        ];
        self.one(&sql, names, environment)
    }

    pub(super) fn environments_of_branches(&self) -> Result<Vec<Environment>, Error> {
        let sql = format!("{SELECT} WHERE e.preview IS NOT NULL ORDER BY e.id");
        self.all(&sql, [], environment)
    }

    pub(crate) fn environment_key(&self, place: &Place) -> Result<i64, Error> {
        let key = self.one(
            "SELECT e.id FROM environments e JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE t.name = ?1 AND a.name = ?2 AND e.name = ?3",
            [place.tenant.as_str(), place.app.as_str(), place.environment.as_str()],
            |row| row.get(0),
        )?;
        key.ok_or_else(|| Error::missing("environment", place))
    }

    /// Environments that are awake, and whose live release says after how long without use they are not to be.
    pub fn sleepy(&self) -> Result<Vec<(Place, SignedDuration)>, Error> {
        self.all(
            "SELECT t.name AS tenant, a.name AS app, e.name AS environment,
                 json_extract(r.spec, '$.sleep_after') AS after
             FROM environments e JOIN releases r ON r.environment_id = e.id AND r.number = e.live
             JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id
             WHERE e.asleep_at IS NULL AND after IS NOT NULL",
            [],
            |row| Ok((place(row, "environment")?, row.parsed("after")?)),
        )
    }

    pub fn subnets(&self) -> Result<Subnets, Error> {
        Ok(self
            .setting(SETTING)?
            .and_then(|text| Subnets::parse(&text))
            .unwrap_or_default())
    }
}

impl Tx<'_> {
    /// Where new environments' networks are taken from. Refused while there are environments.
    pub fn set_subnets(&self, subnets: Subnets, by: &By) -> Result<(), Error> {
        let text = format!("{}/{}", subnets.base, subnets.prefix);
        if subnets.checked().is_none() {
            return Err(Error::refused(format!("`{text}` is not a network of /8 to /22")));
        }
        if subnets == self.subnets()? {
            return Ok(());
        }
        let environments: u32 = self.value("SELECT count(*) FROM environments", [])?;
        if environments > 0 {
            return Err(Error::refused_with(
                format!("the platform's network cannot become {text} while it has environments"),
                "destroy the environments first, or keep the network",
            ));
        }
        self.set_setting(SETTING, Some(&text), by)
    }

    /// The environment, made if it is not there, following `branch` from now on.
    pub fn ensure_environment(&self, place: &Place, branch: &str, by: &By) -> Result<Environment, Error> {
        if let Some(found) = self.find_environment(place)? {
            if found.preview.is_some() {
                return Err(Error::refused_with(
                    format!(
                        "the environment `{}` is of branch {}, and comes and goes with it",
                        place.environment, found.branch
                    ),
                    format!("give it another name in vend.yaml, or vend environments destroy {place}"),
                ));
            }
            if found.branch != branch {
                let key = self.environment_key(place)?;
                self.run(
                    "UPDATE environments SET branch = ?2 WHERE id = ?1",
                    params![key, branch],
                )?;
                let detail = json!({ "branch": branch, "before": found.branch });
                self.note(by, "environment.branch", Some(&place.tenant), place, detail)?;
            }
            return self.environment(place);
        }
        self.make_environment(place, branch, json!({ "branch": branch }), by)?;
        self.environment(place)
    }

    /// Gives its key.
    pub(super) fn make_environment(
        &self,
        place: &Place,
        branch: &str,
        detail: Value,
        by: &By,
    ) -> Result<i64, Error> {
        let app = self.app_key(&place.tenant, &place.app)?;
        let (number, subnet) = self.free_number()?;
        let key = self.insert(
            "INSERT INTO environments (app_id, name, number, subnet, branch, created_at, created_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                app,
                place.environment.as_str(),
                number,
                Address(subnet),
                branch,
                At(by.at),
                by.actor
            ],
            || Error::exists("environment", place),
        )?;
        self.take_uid_block(self.tenant_key(&place.tenant)?, key)?;
        self.note(by, "environment.create", Some(&place.tenant), place, detail)?;
        Ok(key)
    }

    /// The smallest free number, with its network.
    fn free_number(&self) -> Result<(u32, Ipv4Addr), Error> {
        let number: u32 = self.value(
            "SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM environments WHERE number = 1) THEN 1 ELSE
                 (SELECT min(number) + 1 FROM environments e
                  WHERE NOT EXISTS (SELECT 1 FROM environments WHERE number = e.number + 1)) END",
            [],
        )?;
        let subnets = self.subnets()?;
        if number >= subnets.count() {
            return Err(Error::Exhausted {
                what: "network for another environment",
            });
        }
        Ok((number, subnets.subnet(number)))
    }

    /// A block that is the tenant's and free; else one that nobody ever had; else the one that was given back
    /// longest ago by a tenant that is gone.
    fn take_uid_block(&self, tenant: i64, environment: i64) -> Result<(), Error> {
        let own = self.one(
            "SELECT block FROM uid_blocks WHERE tenant_id = ?1 AND environment_id IS NULL ORDER BY block LIMIT 1",
            [tenant],
            |row| row.get::<_, u32>(0),
        )?;
        let unused = || {
            let last: Option<u32> = self.value("SELECT max(block) FROM uid_blocks", [])?;
            let next = last.map_or(FIRST_BLOCK, |last| last + 1);
            Ok::<_, Error>((next <= LAST_BLOCK).then_some(next))
        };
        let oldest = || {
            self.one(
                "SELECT block FROM uid_blocks WHERE tenant_id IS NULL AND environment_id IS NULL
                 ORDER BY released_at, block LIMIT 1",
                [],
                |row| row.get::<_, u32>(0),
            )
        };
        let block = match own {
            Some(block) => Some(block),
            None => unused()?.map_or_else(oldest, |block| Ok(Some(block)))?,
        };
        let block = block.ok_or(Error::Exhausted {
            what: "block of user ids for another environment",
        })?;
        self.run(
            "INSERT INTO uid_blocks (block, tenant_id, environment_id) VALUES (?1, ?2, ?3)
             ON CONFLICT (block) DO UPDATE SET tenant_id = ?2, environment_id = ?3, released_at = NULL",
            params![block, tenant, environment],
        )
        .map(drop)
    }

    /// Keeps what the newest `vend.yaml` says about the environment.
    pub fn set_spec(&self, place: &Place, spec: &spec::Environment, by: &By) -> Result<(), Error> {
        let key = self.environment_key(place)?;
        let changed = self.run(
            "UPDATE environments SET spec = ?2, branch = ?3 WHERE id = ?1 AND (spec IS NOT ?2 OR branch <> ?3)",
            params![key, Json(spec), spec.branch],
        )?;
        if changed == 0 {
            return Ok(());
        }
        self.note(
            by,
            "environment.configure",
            Some(&place.tenant),
            place,
            json!({ "branch": spec.branch }),
        )
    }

    /// What is protected stays, also where it was to go with its branch.
    pub fn set_protected(&self, place: &Place, protected: bool, by: &By) -> Result<(), Error> {
        let key = self.environment_key(place)?;
        if protected && let Some(id) = self.destruction(place)? {
            return Err(Error::refused_with(
                format!("{place} is being destroyed already, by {id}"),
                format!("vend executions show {id} --follow"),
            ));
        }
        self.run(
            "UPDATE environments SET protected = ?2,
                 ending = CASE WHEN ?2 THEN NULL ELSE ending END, ending_by = CASE WHEN ?2 THEN NULL ELSE ending_by END
             WHERE id = ?1",
            params![key, protected],
        )?;
        let action = if protected {
            "environment.protect"
        } else {
            "environment.unprotect"
        };
        self.note(by, action, Some(&place.tenant), place, json!({}))
    }

    /// Asks for so many hosts; `None`: as many as `vend.yaml` says.
    pub fn set_desired(&self, place: &Place, desired: Option<u32>, by: &By) -> Result<(), Error> {
        let key = self.environment_key(place)?;
        self.run(
            "UPDATE environments SET desired = ?2 WHERE id = ?1",
            params![key, desired],
        )?;
        self.note(
            by,
            "environment.scale",
            Some(&place.tenant),
            place,
            json!({ "desired": desired }),
        )
    }

    /// Says which host holds the environment's database, and whether it answers.
    pub fn set_database(
        &self,
        place: &Place,
        host: Option<&HostId>,
        ready: bool,
        by: &By,
    ) -> Result<(), Error> {
        let key = self.environment_key(place)?;
        if let Some(host) = host {
            let found: u32 = self.value(
                "SELECT count(*) FROM hosts WHERE id = ?1 AND environment_id = ?2 AND role = ?3",
                params![host.as_str(), key, Word(HostRole::Database)],
            )?;
            if found == 0 {
                return Err(Error::missing("database host", host));
            }
        }
        let ready = ready && host.is_some();
        let changed = self.run(
            "UPDATE environments SET database_host = ?2, database_ready = ?3
             WHERE id = ?1 AND (database_host IS NOT ?2 OR database_ready <> ?3)",
            params![key, host.map(HostId::as_str), ready],
        )?;
        if changed == 0 {
            return Ok(());
        }
        let detail = json!({ "host": host, "ready": ready });
        self.note(by, "environment.database", Some(&place.tenant), place, detail)
    }

    /// Puts the environment to sleep: its hosts leave the routes, and are stopped at `retire_at` if nobody does it
    /// sooner. Doing it again changes nothing.
    pub fn sleep(&self, place: &Place, retire_at: Timestamp, by: &By) -> Result<(), Error> {
        for host in self.app_hosts(place)? {
            if host.state != HostState::Draining {
                self.set_host_state(&host.id, HostState::Draining, Some("nobody asks for it"), by)?;
                self.set_host_retirement(&host.id, Some(retire_at))?;
            }
        }
        let changed = self.run(
            "UPDATE environments SET asleep_at = ?2 WHERE id = ?1 AND asleep_at IS NULL",
            params![self.environment_key(place)?, At(by.at)],
        )?;
        match changed {
            0 => Ok(()),
            _ => self.note(by, "environment.sleep", Some(&place.tenant), place, json!({})),
        }
    }

    /// Its hosts serve again.
    pub(super) fn awake(&self, environment: &Environment, by: &By) -> Result<(), Error> {
        let Some(since) = environment.asleep_at else {
            return Ok(());
        };
        let place = &environment.place;
        self.run(
            "UPDATE environments SET asleep_at = NULL WHERE id = ?1",
            [self.environment_key(place)?],
        )?;
        let detail = json!({ "asleep_since": since });
        self.note(by, "environment.wake", Some(&place.tenant), place, detail)
    }

    /// Deletes the environment, its releases and its own secrets. Its number is free at once; its user ids stay its
    /// tenant's. Refused while it is protected or a host of it may exist.
    pub fn delete_environment(&self, place: &Place, by: &By) -> Result<(), Error> {
        let found = self.environment(place)?;
        let key = self.environment_key(place)?;
        if found.protected {
            return Err(Error::refused_with(
                format!("environment `{place}` is protected"),
                format!("vend environments unprotect {place}"),
            ));
        }
        let hosts: u32 = self.value(
            "SELECT count(*) FROM hosts WHERE environment_id = ?1 AND state <> 'retired'",
            [key],
        )?;
        if hosts > 0 {
            return Err(Error::refused_with(
                format!("environment `{place}` still has {hosts} hosts"),
                "stop its hosts first",
            ));
        }
        self.run(
            "UPDATE uid_blocks SET environment_id = NULL WHERE environment_id = ?1",
            [key],
        )?;
        self.ignore_waiting(place, "the environment was destroyed", by)?;
        self.delete_secrets(place)?;
        self.void_open_approvals(place, "the environment was destroyed", by)?;
        self.run("DELETE FROM environments WHERE id = ?1", [key])?;
        self.note(
            by,
            "environment.delete",
            Some(&place.tenant),
            place,
            json!({ "number": found.number }),
        )
    }
}

pub(crate) fn place(row: &Row<'_>, environment: &str) -> rusqlite::Result<Place> {
    Ok(Place {
        tenant: row.parsed("tenant")?,
        app: row.parsed("app")?,
        environment: row.parsed(environment)?,
    })
}

fn environment(row: &Row<'_>) -> rusqlite::Result<Environment> {
    Ok(Environment {
        place: place(row, "name")?,
        number: row.get("number")?,
        subnet: row.address("subnet")?,
        uid_base: row.get::<_, u32>("block")? * BLOCK,
        branch: row.get("branch")?,
        spec: row.maybe_json("spec")?,
        protected: row.get("protected")?,
        desired: row.get("desired")?,
        live: row.get("live")?,
        previous: row.get("previous")?,
        arriving: row
            .get::<_, Option<u64>>("arriving")?
            .map(|release| {
                let share = row.get("share")?;
                Ok::<_, rusqlite::Error>(Arriving { release, share })
            })
            .transpose()?,
        database_host: row.maybe_parsed("database_host")?,
        database_ready: row.get("database_ready")?,
        asleep_at: row.maybe_at("asleep_at")?,
        preview: preview(row)?,
        created_at: row.at("created_at")?,
        created_by: row.get("created_by")?,
    })
}
