use jiff::Timestamp;
use model::{
    Digest, ExecutionId, Place,
    port::Commit,
    release::{Release as Content, ReleaseState},
    spec,
};
use rusqlite::{Row, params};
use serde_json::json;
use std::collections::BTreeMap;

use crate::{
    By, Db, Error, Tx,
    catalogue::{Arriving, HostState},
    sql::{At, Columns as _, Hash, Json, Word},
};

/// A release with its place and its life.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    pub place: Place,
    /// What it is, for ever.
    pub content: Content,
    pub state: ReleaseState,
    /// Why, when it failed.
    pub reason: Option<String>,
    /// The execution that made it.
    pub execution: Option<ExecutionId>,
    pub created_by: String,
    /// When it first got traffic.
    pub live_at: Option<Timestamp>,
    pub changed_at: Timestamp,
}

/// A release to be numbered.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRelease {
    pub commit: Commit,
    pub source: Digest,
    pub image: Digest,
    pub revision: Digest,
    pub spec: spec::Environment,
    pub secrets: BTreeMap<String, u64>,
    /// An execution makes one release of an environment at most: asked again, it gets the same one.
    pub execution: Option<ExecutionId>,
}

const SELECT: &str = "SELECT r.*, t.name AS tenant, a.name AS app, e.name AS environment FROM releases r
    JOIN environments e ON e.id = r.environment_id JOIN apps a ON a.id = e.app_id
    JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    pub fn release(&self, place: &Place, number: u64) -> Result<Release, Error> {
        let key = self.environment_key(place)?;
        let sql = format!("{SELECT} WHERE r.environment_id = ?1 AND r.number = ?2");
        self.one(&sql, params![key, number], release)?
            .ok_or_else(|| Error::missing("release", format!("{place} v{number}")))
    }

    /// Newest first, below `before`.
    pub fn releases(&self, place: &Place, before: Option<u64>, limit: u32) -> Result<Vec<Release>, Error> {
        let key = self.environment_key(place)?;
        let sql =
            format!("{SELECT} WHERE r.environment_id = ?1 AND r.number < ?2 ORDER BY r.number DESC LIMIT ?3");
        self.all(
            &sql,
            params![key, before.unwrap_or(i64::MAX as u64), limit],
            release,
        )
    }

    /// The one that gets the traffic.
    pub fn live_release(&self, place: &Place) -> Result<Option<Release>, Error> {
        let live = self.environment(place)?.live;
        live.map(|number| self.release(place, number)).transpose()
    }

    pub fn release_of_execution(
        &self,
        place: &Place,
        execution: &ExecutionId,
    ) -> Result<Option<Release>, Error> {
        let sql = format!("{SELECT} WHERE r.environment_id = ?1 AND r.execution = ?2");
        self.one(
            &sql,
            params![self.environment_key(place)?, execution.as_str()],
            release,
        )
    }

    /// The number that the next release of an environment gets: what a plan shows.
    pub fn next_release_number(&self, place: &Place) -> Result<u64, Error> {
        self.value(
            "SELECT releases + 1 FROM environments WHERE id = ?1",
            [self.environment_key(place)?],
        )
    }
}

impl Tx<'_> {
    /// Gives the release its number. It is pending.
    pub fn create_release(&self, place: &Place, new: &NewRelease, by: &By) -> Result<Release, Error> {
        if let Some(execution) = &new.execution
            && let Some(found) = self.release_of_execution(place, execution)?
        {
            return Ok(found);
        }
        let key = self.environment_key(place)?;
        let number = self.next_release_number(place)?;
        self.run(
            "UPDATE environments SET releases = ?2 WHERE id = ?1",
            params![key, number],
        )?;
        self.run(
            "INSERT INTO releases (environment_id, number, state, execution, commit_json, source, image, revision,
                 spec, secrets, created_at, created_by, changed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?11)",
            params![
                key,
                number,
                Word(ReleaseState::Pending),
                new.execution.as_ref().map(ExecutionId::as_str),
                Json(&new.commit),
                Hash(new.source),
                Hash(new.image),
                Hash(new.revision),
                Json(&new.spec),
                Json(&new.secrets),
                At(by.at),
                by.actor
            ],
        )?;
        let detail = json!({
            "release": number, "commit": new.commit.id, "image": new.image, "revision": new.revision,
            "execution": new.execution,
        });
        self.note(by, "release.create", Some(&place.tenant), place, detail)?;
        self.release(place, number)
    }

    /// The release will not get traffic, or no more. The live one has to be replaced first.
    pub fn fail_release(&self, place: &Place, number: u64, reason: &str, by: &By) -> Result<(), Error> {
        let found = self.release(place, number)?;
        match found.state {
            ReleaseState::Failed => return Ok(()),
            ReleaseState::Pending | ReleaseState::Retired => {}
            ReleaseState::Live => {
                return Err(Error::refused(format!(
                    "release v{number} of {place} is live: it cannot fail before another is"
                )));
            }
        }
        self.set_release_state(place, number, ReleaseState::Failed, Some(reason), by)?;
        let detail = json!({ "release": number, "reason": reason });
        self.note(by, "release.fail", Some(&place.tenant), place, detail)
    }

    /// Moves the traffic: the release becomes live with its hosts, the one before is retired, and its hosts are kept
    /// until `retire_at`. Doing it again changes nothing.
    pub fn set_live(&self, place: &Place, number: u64, retire_at: Timestamp, by: &By) -> Result<(), Error> {
        let environment = self.environment(place)?;
        let found = self.release(place, number)?;
        if environment.live == Some(number) {
            self.awake(&environment, by)?;
            return self.serve_hosts(place, number, retire_at, by);
        }
        if found.state == ReleaseState::Failed {
            return Err(Error::refused_with(
                format!("release v{number} of {place} has failed: it cannot become live"),
                format!("vend releases list {place}"),
            ));
        }
        if let Some(old) = environment.live {
            self.set_release_state(place, old, ReleaseState::Retired, None, by)?;
        }
        self.set_release_state(place, number, ReleaseState::Live, None, by)?;
        self.run(
            "UPDATE environments SET live = ?2, previous = ?3, arriving = NULL, share = NULL WHERE id = ?1",
            params![self.environment_key(place)?, number, environment.live],
        )?;
        let detail = json!({ "release": number, "before": environment.live });
        self.note(by, "release.live", Some(&place.tenant), place, detail)?;
        self.awake(&environment, by)?;
        self.serve_hosts(place, number, retire_at, by)
    }

    /// Gives a release a part of the traffic, or none: its hosts that are ready serve from now on. Doing it again
    /// changes nothing.
    pub fn share_traffic(&self, place: &Place, arriving: Option<Arriving>, by: &By) -> Result<(), Error> {
        let environment = self.environment(place)?;
        if let Some(arriving) = arriving.filter(|arriving| arriving.share.is_some()) {
            for host in self.hosts_of_release(place, arriving.release)? {
                if matches!(host.state, HostState::Ready | HostState::Kept) {
                    self.set_host_state(&host.id, HostState::Serving, None, by)?;
                }
            }
        }
        if environment.arriving == arriving {
            return Ok(());
        }
        self.run(
            "UPDATE environments SET arriving = ?2, share = ?3 WHERE id = ?1",
            params![
                self.environment_key(place)?,
                arriving.map(|arriving| arriving.release),
                arriving.and_then(|arriving| arriving.share)
            ],
        )?;
        let detail = match arriving {
            Some(Arriving { release, share }) => json!({ "release": release, "percent": share }),
            None => json!({ "before": environment.arriving.map(|before| before.release) }),
        };
        self.note(by, "environment.traffic", Some(&place.tenant), place, detail)
    }

    fn serve_hosts(&self, place: &Place, number: u64, retire_at: Timestamp, by: &By) -> Result<(), Error> {
        for host in self.app_hosts(place)? {
            match host.state {
                HostState::Ready | HostState::Kept if host.release == Some(number) => {
                    self.set_host_state(&host.id, HostState::Serving, None, by)?;
                }
                HostState::Serving if host.release != Some(number) => {
                    self.set_host_state(&host.id, HostState::Kept, None, by)?;
                    self.set_host_retirement(&host.id, Some(retire_at))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn set_release_state(
        &self,
        place: &Place,
        number: u64,
        state: ReleaseState,
        reason: Option<&str>,
        by: &By,
    ) -> Result<(), Error> {
        self.run(
            "UPDATE releases SET state = ?3, reason = ?4, changed_at = ?5,
                 live_at = coalesce(live_at, iif(?3 = 'live', ?5, NULL))
             WHERE environment_id = ?1 AND number = ?2",
            params![
                self.environment_key(place)?,
                number,
                Word(state),
                reason,
                At(by.at)
            ],
        )
        .map(drop)
    }
}

fn release(row: &Row<'_>) -> rusqlite::Result<Release> {
    let place = super::environments::place(row, "environment")?;
    Ok(Release {
        content: Content {
            number: row.get("number")?,
            commit: row.json("commit_json")?,
            source: row.digest("source")?,
            image: row.digest("image")?,
            revision: row.digest("revision")?,
            spec: row.json("spec")?,
            secrets: row.json("secrets")?,
            created_at: row.at("created_at")?,
        },
        place,
        state: row.word("state")?,
        reason: row.get("reason")?,
        execution: row.maybe_parsed("execution")?,
        created_by: row.get("created_by")?,
        live_at: row.maybe_at("live_at")?,
        changed_at: row.at("changed_at")?,
    })
}
