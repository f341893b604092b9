//! The ledger's rows: appended in the transaction of what they record, never changed.

use jiff::Timestamp;
use std::io::Write;

use ed25519_dalek::Signer as _;
use model::{
    Digest, TenantName,
    ledger::{Checkpoint, Deed, Entry, Line, PublicKey},
};
use rusqlite::{Row, params};

use crate::{
    Db, Error, Tx,
    sql::{At, Columns as _, Hash, kept},
};

/// Which lines of the ledger to read. `None` does not choose.
#[derive(Debug, Clone, Default)]
pub struct LedgerFilter {
    pub tenant: Option<TenantName>,
    /// Lines about this object, or about what is under it: `acme/shop` also finds `acme/shop/dev`.
    pub object: Option<String>,
    /// Of a tenant only what was since it was made: one before it may have had its name.
    pub own: bool,
    /// Lines with a smaller number.
    pub before: Option<u64>,
    /// So many at most; 0 stands for 100.
    pub limit: u32,
}

impl Db<'_> {
    /// Number and digest of the last line.
    pub fn ledger_head(&self) -> Result<Option<(u64, Digest)>, Error> {
        self.one(
            "SELECT number, digest FROM ledger ORDER BY number DESC LIMIT 1",
            [],
            |row| Ok((row.get("number")?, row.digest("digest")?)),
        )
    }

    /// Lines, newest first.
    pub fn ledger(&self, filter: &LedgerFilter) -> Result<Vec<Line>, Error> {
        let limit = if filter.limit == 0 { 100 } else { filter.limit };
        let before = filter.before.unwrap_or(i64::MAX as u64);
        let mut sql = String::from("SELECT * FROM ledger WHERE number < ?1");
        // Parameters are named even when a text is not there, so that there is one list of them.
        sql.push_str(if filter.tenant.is_some() {
            " AND tenant = ?2"
        } else {
            " AND ?2 IS NULL"
        });
        if filter.own {
            sql.push_str(
                " AND number >= ifnull((SELECT max(number) FROM ledger
                  WHERE object = ?2 AND action = 'tenant.create'), 0)",
            );
        }
        sql.push_str(match filter.object {
            Some(_) => " AND (object = ?3 OR (object > ?3 || '/' AND object < ?3 || '0'))",
            None => " AND ?3 IS NULL",
        });
        sql.push_str(" ORDER BY number DESC LIMIT ?4");
        let tenant = filter.tenant.as_ref().map(TenantName::as_str);
        self.all(&sql, params![before, tenant, filter.object, limit], line)
    }

    /// Lines `from..`, oldest first: for a reader that follows.
    pub fn ledger_from(&self, from: u64, limit: u32) -> Result<Vec<Line>, Error> {
        self.all(
            "SELECT * FROM ledger WHERE number >= ?1 ORDER BY number LIMIT ?2",
            params![from, limit],
            line,
        )
    }
}

impl Db<'_> {
    /// What the checkpoints of this platform are verified with.
    pub fn ledger_key(&self) -> PublicKey {
        let key = self.keys.signing.verifying_key();
        PublicKey::from_bytes(key.as_bytes()).expect("a key that signs has a public key")
    }

    /// Those that were made, newest first.
    pub fn checkpoints(&self, limit: u32) -> Result<Vec<Checkpoint>, Error> {
        self.all(
            "SELECT * FROM checkpoints ORDER BY number DESC LIMIT ?1",
            [limit],
            |row| checkpoint(row, "number", "digest", "at", "signature"),
        )
    }

    /// Writes the whole chain as one JSON value a line ([`Entry`]), each checkpoint after its line, and at the end a
    /// checkpoint of `at`. Gives the number of the last line. The memory that it takes does not grow with the chain.
    pub fn export_ledger(&self, out: &mut dyn Write, at: Timestamp) -> Result<u64, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT l.*, c.number AS signed_number, c.digest AS signed_digest, c.at AS signed_at, c.signature
             FROM ledger l LEFT JOIN checkpoints c ON c.number = l.number ORDER BY l.number",
        )?;
        let mut rows = statement.query([])?;
        let mut last = 0;
        let mut write = |entry: &Entry| {
            let text = serde_json::to_string(entry).expect("an entry is plain data");
            writeln!(out, "{text}").map_err(Error::Export)
        };
        while let Some(row) = rows.next()? {
            let line = line(row)?;
            last = line.number;
            write(&Entry::Line(line))?;
            if row.get::<_, Option<u64>>("signed_number")?.is_some() {
                write(&Entry::Checkpoint(checkpoint(
                    row,
                    "signed_number",
                    "signed_digest",
                    "signed_at",
                    "signature",
                )?))?;
            }
        }
        if let Some(head) = self.ledger_head()? {
            write(&Entry::Checkpoint(self.sign(head, at)))?;
        }
        Ok(last)
    }

    fn sign(&self, head: (u64, Digest), at: Timestamp) -> Checkpoint {
        Checkpoint::new(head, kept(at), |message| {
            self.keys.signing.sign(message).to_bytes()
        })
    }
}

impl Tx<'_> {
    /// Signs the chain as it is now; `None` when there is nothing to sign, or nothing new.
    pub fn checkpoint(&self, at: Timestamp) -> Result<Option<Checkpoint>, Error> {
        let Some(head) = self.ledger_head()? else {
            return Ok(None);
        };
        let checkpoint = self.sign(head, at);
        let new = self.run(
            "INSERT INTO checkpoints VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![
                checkpoint.number,
                At(checkpoint.at),
                Hash(checkpoint.digest),
                checkpoint.signature
            ],
        )?;
        Ok((new == 1).then_some(checkpoint))
    }

    /// Appends a line. It exists if and only if this transaction is committed.
    pub fn record(&self, deed: Deed, at: Timestamp) -> Result<Line, Error> {
        let line = Line::follow(self.ledger_head()?, kept(at), deed);
        self.run(
            "INSERT INTO ledger (number, at, actor, action, tenant, object, detail, previous, digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                line.number,
                At(line.at),
                line.actor,
                line.action,
                line.tenant,
                line.object,
                line.detail,
                Hash(line.previous),
                Hash(line.digest)
            ],
        )?;
        Ok(line)
    }
}

pub(crate) fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line {
        number: row.get("number")?,
        at: row.at("at")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        tenant: row.get("tenant")?,
        object: row.get("object")?,
        detail: row.get("detail")?,
        previous: row.digest("previous")?,
        digest: row.digest("digest")?,
    })
}

fn checkpoint(
    row: &Row<'_>,
    number: &str,
    digest: &str,
    at: &str,
    signature: &str,
) -> rusqlite::Result<Checkpoint> {
    Ok(Checkpoint {
        number: row.get(number)?,
        digest: row.digest(digest)?,
        at: row.at(at)?,
        signature: row.get(signature)?,
    })
}
