use jiff::Timestamp;
use model::{
    AppName, Digest, ExecutionId, Place, TenantName, Ticket,
    port::{Baked, Commit, Fault, LogRef},
};
use rusqlite::{Row, params};
use serde_json::json;

use super::{WorkState, is_tried_again};
use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash, Json, Word},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Bake {
    pub ticket: Ticket,
    pub place: Place,
    pub execution: Option<ExecutionId>,
    pub state: WorkState,
    pub baked: Option<Baked>,
    pub fault: Option<Fault>,
    pub log: Option<LogRef>,
    /// Why it cannot begin yet.
    pub waits: Option<String>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct NewBake {
    pub ticket: Ticket,
    pub place: Place,
    pub execution: Option<ExecutionId>,
    pub commit: Commit,
    /// As the app's `vend.yaml` names it.
    pub base: String,
    /// Where its log will be.
    pub log: Option<LogRef>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub digest: Digest,
    pub baked: Baked,
    pub baked_at: Timestamp,
    /// When a bake last gave it.
    pub used_at: Timestamp,
}

const SELECT: &str = "SELECT b.*, t.name AS tenant, a.name AS app FROM bakes b
    JOIN apps a ON a.id = b.app_id JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    /// Of an app, newest first.
    pub fn bakes(&self, tenant: &TenantName, app: &AppName, limit: u32) -> Result<Vec<Bake>, Error> {
        let sql = format!("{SELECT} WHERE b.app_id = ?1 ORDER BY b.started_at DESC LIMIT ?2");
        self.all(&sql, params![self.app_key(tenant, app)?, limit], bake)
    }

    pub fn bakes_of_execution(&self, execution: &ExecutionId) -> Result<Vec<Bake>, Error> {
        self.all(
            &format!("{SELECT} WHERE b.execution = ?1 ORDER BY b.started_at"),
            [execution.as_str()],
            bake,
        )
    }

    fn bake_of_ticket(&self, ticket: &Ticket) -> Result<Option<Bake>, Error> {
        self.one(&format!("{SELECT} WHERE b.ticket = ?1"), [ticket.as_str()], bake)
    }

    pub fn image(&self, digest: &Digest) -> Result<Image, Error> {
        self.one("SELECT * FROM images WHERE digest = ?1", [Hash(*digest)], image)?
            .ok_or_else(|| Error::missing("image", digest))
    }

    /// Longest unused first.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        self.all("SELECT * FROM images ORDER BY used_at, digest", [], image)
    }
}

impl Tx<'_> {
    /// A repeated ticket gets the same one.
    pub fn begin_bake(&self, new: &NewBake, by: &By) -> Result<Bake, Error> {
        if let Some(found) = self.bake_of_ticket(&new.ticket)? {
            if !is_tried_again(found.state, found.fault.as_ref()) {
                return Ok(found);
            }
            self.run_again("bakes", &new.ticket)?;
            let detail = json!({ "ticket": new.ticket, "again": true });
            self.note(by, "bake.start", Some(&new.place.tenant), &new.place, detail)?;
            let again = self.bake_of_ticket(&new.ticket)?;
            return again.ok_or_else(|| Error::missing("bake", &new.ticket));
        }
        self.run(
            "INSERT INTO bakes (ticket, app_id, environment, execution, state, log, started_at, commit_json, base)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                new.ticket.as_str(),
                self.app_key(&new.place.tenant, &new.place.app)?,
                new.place.environment.as_str(),
                new.execution.as_ref().map(ExecutionId::as_str),
                Word(WorkState::Running),
                new.log.as_ref().map(LogRef::as_str),
                At(by.at),
                Json(&new.commit),
                new.base
            ],
        )?;
        self.note(
            by,
            "bake.start",
            Some(&new.place.tenant),
            &new.place,
            json!({ "ticket": new.ticket }),
        )?;
        self.bake_of_ticket(&new.ticket)?
            .ok_or_else(|| Error::missing("bake", &new.ticket))
    }

    /// Notes why a bake cannot begin yet; `None` when it goes on.
    pub fn bake_waits(&self, ticket: &Ticket, why: Option<&str>) -> Result<(), Error> {
        let sql = "UPDATE bakes SET waits = ?2 WHERE ticket = ?1";
        match self.run(sql, params![ticket.as_str(), why])? {
            0 => Err(Error::missing("bake", ticket)),
            _ => Ok(()),
        }
    }

    /// Keeps what came of it, the image included. The first answer stays.
    pub fn finish_bake(
        &self,
        ticket: &Ticket,
        outcome: Result<&Baked, &Fault>,
        by: &By,
    ) -> Result<(), Error> {
        let found = self
            .bake_of_ticket(ticket)?
            .ok_or_else(|| Error::missing("bake", ticket))?;
        if found.state != WorkState::Running {
            return Ok(());
        }
        let (baked, fault) = (outcome.ok(), outcome.err());
        let state = if fault.is_none() {
            WorkState::Succeeded
        } else {
            WorkState::Failed
        };
        let log = baked
            .and_then(|baked| baked.log.as_ref())
            .or(fault.and_then(|fault| fault.evidence.as_ref()));
        self.run(
            "UPDATE bakes SET state = ?2, baked = ?3, image = ?4, fault = ?5, log = coalesce(?6, log), ended_at = ?7,
             waits = NULL
             WHERE ticket = ?1",
            params![
                ticket.as_str(),
                Word(state),
                baked.map(Json),
                baked.map(|baked| Hash(baked.image)),
                fault.map(Json),
                log.map(LogRef::as_str),
                At(by.at)
            ],
        )?;
        if let Some(baked) = baked {
            self.run(
                "INSERT INTO images VALUES (?1, ?2, ?3, ?3) ON CONFLICT (digest) DO UPDATE SET used_at = ?3",
                params![Hash(baked.image), Json(baked), At(by.at)],
            )?;
        }
        let action = if fault.is_none() {
            "bake.succeed"
        } else {
            "bake.fail"
        };
        let detail = json!({
            "image": baked.map(|baked| baked.image), "reused": baked.map(|baked| baked.reused),
            "reason": fault.map(|fault| &fault.message),
        });
        self.note(by, action, Some(&found.place.tenant), &found.place, detail)
    }

    /// Forgets an image that nothing needs. Refused when something does.
    pub fn delete_image(&self, digest: &Digest, by: &By) -> Result<(), Error> {
        if self.keepers()?.images.contains(digest) {
            return Err(Error::refused(format!(
                "image {} may still be needed",
                digest.short()
            )));
        }
        self.run("DELETE FROM attestations WHERE image = ?1", [Hash(*digest)])?;
        match self.run("DELETE FROM images WHERE digest = ?1", [Hash(*digest)])? {
            0 => Err(Error::missing("image", digest)),
            _ => self.note(by, "image.delete", None, digest, json!({})),
        }
    }
}

fn bake(row: &Row<'_>) -> rusqlite::Result<Bake> {
    Ok(Bake {
        ticket: row.parsed("ticket")?,
        place: crate::catalogue::place(row, "environment")?,
        execution: row.maybe_parsed("execution")?,
        state: row.word("state")?,
        baked: row.maybe_json("baked")?,
        fault: row.maybe_json("fault")?,
        log: row.maybe_parsed("log")?,
        waits: row.get("waits")?,
        started_at: row.at("started_at")?,
        ended_at: row.maybe_at("ended_at")?,
    })
}

fn image(row: &Row<'_>) -> rusqlite::Result<Image> {
    Ok(Image {
        digest: row.digest("digest")?,
        baked: row.json("baked")?,
        baked_at: row.at("baked_at")?,
        used_at: row.at("used_at")?,
    })
}
