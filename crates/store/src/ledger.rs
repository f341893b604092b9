//! The ledger's rows: appended in the transaction of what they record, never changed.

use jiff::Timestamp;
use model::{
    Digest, TenantName,
    ledger::{Deed, Line},
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

impl Tx<'_> {
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
