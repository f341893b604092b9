//! Webhook deliveries as they came, each with what was made of it.

use jiff::Timestamp;
use model::{
    AppName, DeliveryId, TenantName,
    webhook::{Event, Provider},
};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Json, Word},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Grows with time: the cursor of a list.
    pub seq: u64,
    pub id: DeliveryId,
    pub tenant: TenantName,
    pub app: AppName,
    pub provider: Provider,
    /// What the provider calls it.
    pub delivery: Option<String>,
    /// Without those that are secrets.
    pub headers: Vec<(String, String)>,
    /// As long as it came; more than is kept when it was refused.
    pub body_bytes: u64,
    pub received_at: Timestamp,
    pub verdict: DeliveryVerdict,
    /// Why it was refused or ignored.
    pub reason: Option<String>,
    pub event: Option<Event>,
    pub push: Option<u64>,
    pub replays: u32,
    pub replayed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryVerdict {
    /// Verified, and it led to something.
    Accepted,
    /// Verified, and of no interest.
    Ignored,
    /// Not verified, or not readable.
    Refused,
}

/// A delivery to be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub tenant: TenantName,
    pub app: AppName,
    pub provider: Provider,
    pub delivery: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub verdict: DeliveryVerdict,
    pub reason: Option<String>,
    pub event: Option<Event>,
}

/// What came of keeping it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    New,
    /// A verified one with the same provider's id is there already. Nothing was kept.
    Duplicate(DeliveryId),
}

/// GitHub's limit.
const LARGEST: usize = 25 << 20;
/// Anybody can send what is refused, so little of it is kept: so much of a body, so many for each app and provider.
const REFUSED_BODY: usize = 64 << 10;
const REFUSED_KEPT: u32 = 50;
const SECRET_HEADERS: [&str; 5] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-gitlab-token",
    "x-vend-token",
];

const SELECT: &str =
    "SELECT d.seq, d.id, d.provider, d.delivery, d.headers, d.body_bytes, d.received_at, d.verdict,
    d.reason, d.event, d.push_id, d.replays, d.replayed_at, t.name AS tenant, a.name AS app FROM deliveries d
    JOIN apps a ON a.id = d.app_id JOIN tenants t ON t.id = a.tenant_id";

impl Db<'_> {
    pub fn delivery(&self, id: &DeliveryId) -> Result<Delivery, Error> {
        self.one(&format!("{SELECT} WHERE d.id = ?1"), [id.as_str()], delivery)?
            .ok_or_else(|| Error::missing("delivery", id))
    }

    /// The body as it came; the beginning of it when it was refused.
    pub fn delivery_body(&self, id: &DeliveryId) -> Result<Vec<u8>, Error> {
        self.one(
            "SELECT body FROM deliveries WHERE id = ?1",
            [id.as_str()],
            |row| row.get(0),
        )?
        .ok_or_else(|| Error::missing("delivery", id))
    }

    /// Of an app, a tenant or the platform; newest first, below `before`.
    pub fn deliveries(
        &self,
        tenant: Option<&TenantName>,
        app: Option<&AppName>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Delivery>, Error> {
        let sql = format!(
            "{SELECT} WHERE (?1 IS NULL OR t.name = ?1) AND (?2 IS NULL OR a.name = ?2) AND d.seq < ?3
             ORDER BY d.seq DESC LIMIT ?4"
        );
        let (tenant, app) = (tenant.map(TenantName::as_str), app.map(AppName::as_str));
        self.all(
            &sql,
            params![tenant, app, before.unwrap_or(i64::MAX as u64), limit],
            delivery,
        )
    }
}

impl Tx<'_> {
    /// Keeps a delivery, unless a verified one with the same id of its provider is there.
    pub fn receive_delivery(&self, new: &NewDelivery, by: &By) -> Result<Received, Error> {
        if new.body.len() > LARGEST {
            return Err(Error::refused(format!("a delivery has at most {LARGEST} bytes")));
        }
        let app = self.app_key(&new.tenant, &new.app)?;
        let refused = new.verdict == DeliveryVerdict::Refused;
        if !refused && let Some(first) = self.same_delivery(app, new)? {
            return Ok(Received::Duplicate(first));
        }
        let mut headers = new.headers.clone();
        headers.retain(|(name, _)| {
            !SECRET_HEADERS
                .iter()
                .any(|secret| name.eq_ignore_ascii_case(secret))
        });
        let kept = if refused {
            new.body.len().min(REFUSED_BODY)
        } else {
            new.body.len()
        };
        self.insert(
            "INSERT INTO deliveries (id, app_id, provider, delivery, headers, body, body_bytes, received_at, verdict,
                 reason, event)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                new.id.as_str(),
                app,
                Word(new.provider),
                new.delivery,
                Json(&headers),
                &new.body[..kept],
                new.body.len() as u64,
                At(by.at),
                Word(new.verdict),
                new.reason,
                new.event.as_ref().map(Json)
            ],
            || Error::exists("delivery", &new.id),
        )?;
        if refused {
            // Not a line of the ledger: anybody could make it grow.
            self.forget_refused(app, new.provider)?;
            return Ok(Received::New);
        }
        let detail = json!({
            "delivery": new.id, "provider": new.provider, "verdict": new.verdict, "reason": new.reason,
        });
        self.note(
            by,
            "webhook.receive",
            Some(&new.tenant),
            format!("{}/{}", new.tenant, new.app),
            detail,
        )?;
        Ok(Received::New)
    }

    fn same_delivery(&self, app: i64, new: &NewDelivery) -> Result<Option<DeliveryId>, Error> {
        self.one(
            "SELECT id FROM deliveries
             WHERE app_id = ?1 AND provider = ?2 AND delivery = ?3 AND verdict <> 'refused'",
            params![app, Word(new.provider), new.delivery],
            |row| row.parsed("id"),
        )
    }

    fn forget_refused(&self, app: i64, provider: Provider) -> Result<(), Error> {
        self.run(
            "DELETE FROM deliveries WHERE seq IN (
                 SELECT seq FROM deliveries WHERE app_id = ?1 AND provider = ?2 AND verdict = 'refused'
                 ORDER BY seq DESC LIMIT -1 OFFSET ?3)",
            params![app, Word(provider), REFUSED_KEPT],
        )
        .map(drop)
    }

    /// Says which push a delivery became.
    pub fn set_delivery_push(&self, id: &DeliveryId, push: u64) -> Result<(), Error> {
        match self.run(
            "UPDATE deliveries SET push_id = ?2 WHERE id = ?1",
            params![id.as_str(), push],
        )? {
            0 => Err(Error::missing("delivery", id)),
            _ => Ok(()),
        }
    }

    /// Notes that a person had a delivery read again, and what was made of it this time. What was not verified
    /// cannot be replayed: a part of it may be missing, and nobody knows who sent it.
    pub fn replay_delivery(
        &self,
        id: &DeliveryId,
        verdict: DeliveryVerdict,
        reason: Option<&str>,
        event: Option<&Event>,
        by: &By,
    ) -> Result<(), Error> {
        let found = self.delivery(id)?;
        if found.verdict == DeliveryVerdict::Refused || verdict == DeliveryVerdict::Refused {
            return Err(Error::refused_with(
                format!("delivery {id} was refused: it cannot be replayed"),
                "correct the webhook's secret and let the git host send it again",
            ));
        }
        self.run(
            "UPDATE deliveries SET verdict = ?2, reason = ?3, event = ?4, replays = replays + 1, replayed_at = ?5
             WHERE id = ?1",
            params![id.as_str(), Word(verdict), reason, event.map(Json), At(by.at)],
        )?;
        let detail = json!({ "delivery": id, "verdict": verdict });
        let object = format!("{}/{}", found.tenant, found.app);
        self.note(by, "webhook.replay", Some(&found.tenant), object, detail)
    }

    /// Forgets deliveries received before `before`, and gives how many.
    pub fn prune_deliveries(&self, before: Timestamp) -> Result<usize, Error> {
        self.run("DELETE FROM deliveries WHERE received_at < ?1", [At(before)])
    }
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        seq: row.get("seq")?,
        id: row.parsed("id")?,
        tenant: row.parsed("tenant")?,
        app: row.parsed("app")?,
        provider: row.word("provider")?,
        delivery: row.get("delivery")?,
        headers: row.json("headers")?,
        body_bytes: row.get("body_bytes")?,
        received_at: row.at("received_at")?,
        verdict: row.word("verdict")?,
        reason: row.get("reason")?,
        event: row.maybe_json("event")?,
        push: row.get("push_id")?,
        replays: row.get("replays")?,
        replayed_at: row.maybe_at("replayed_at")?,
    })
}
