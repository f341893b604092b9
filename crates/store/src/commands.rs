//! Idempotency keys: a command that is sent again is not done again, and gets the answer of the first time.
//!
//! Answers are sealed, because some hold what is shown only once.

use jiff::Timestamp;
use model::{Digest, TenantName};
use rusqlite::params;

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash},
    vault::{self, PLATFORM},
};

/// What is known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// It is new, and now claimed: do it, then [`Tx::answer_command`] or [`Tx::abandon_command`].
    New,
    /// It is being done.
    UnderWay,
    /// It was done.
    Done { status: u16, body: Vec<u8> },
    /// The key was used for another request.
    Different,
}

impl Db<'_> {
    fn command(
        &self,
        principal: &str,
        key: &str,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<Command>, Error> {
        let row = self.one(
            "SELECT digest, status, sealed FROM commands WHERE principal = ?1 AND key = ?2 AND expires_at > ?3",
            params![principal, key, At(now)],
            |row| Ok((row.digest("digest")?, row.get::<_, Option<u16>>("status")?, row.get::<_, Option<Vec<u8>>>("sealed")?)),
        )?;
        let Some((known, status, sealed)) = row else {
            return Ok(None);
        };
        if known != *digest {
            return Ok(Some(Command::Different));
        }
        let Some((status, sealed)) = status.zip(sealed) else {
            return Ok(Some(Command::UnderWay));
        };
        let body = vault::open(
            &self.data_key(PLATFORM)?,
            &["vend/command", principal, key],
            &sealed,
        );
        let body = body.ok_or(Error::Sealed { what: "answer" })?.to_vec();
        Ok(Some(Command::Done { status, body }))
    }
}

/// As whom somebody of a tenant claims keys: tokens of two tenants may have one name. Nobody's of no tenant has a space there.
pub fn of_tenant(tenant: &TenantName, name: &str) -> String {
    format!("{tenant} {name}")
}

impl Tx<'_> {
    /// Claims a key for a request, known by its digest, until `expires_at`; or says what became of the first one.
    pub fn claim_command(
        &self,
        key: &str,
        digest: &Digest,
        expires_at: Timestamp,
        by: &By,
    ) -> Result<Command, Error> {
        if let Some(known) = self.command(&by.actor, key, digest, by.at)? {
            return Ok(known);
        }
        self.run(
            "INSERT INTO commands VALUES (?1, ?2, ?3, NULL, NULL, ?4, ?5) ON CONFLICT (principal, key)
             DO UPDATE SET digest = ?3, status = NULL, sealed = NULL, at = ?4, expires_at = ?5",
            params![by.actor, key, Hash(*digest), At(by.at), At(expires_at)],
        )?;
        Ok(Command::New)
    }

    /// Keeps the answer of a command that was claimed.
    pub fn answer_command(&self, principal: &str, key: &str, status: u16, body: &[u8]) -> Result<(), Error> {
        let sealed = vault::seal(&self.data_key(PLATFORM)?, &["vend/command", principal, key], body)?;
        self.run(
            "UPDATE commands SET status = ?3, sealed = ?4 WHERE principal = ?1 AND key = ?2",
            params![principal, key, status, sealed],
        )
        .map(drop)
    }

    /// Nothing was done: the key is free again.
    pub fn abandon_command(&self, principal: &str, key: &str) -> Result<(), Error> {
        self.run(
            "DELETE FROM commands WHERE principal = ?1 AND key = ?2 AND status IS NULL",
            [principal, key],
        )
        .map(drop)
    }

    /// Removes what was kept for a tenant's own: the next of its name may have tokens of the same names.
    pub(crate) fn forget_commands(&self, tenant: &TenantName) -> Result<(), Error> {
        let sql = "DELETE FROM commands WHERE substr(principal, 1, length(?1)) = ?1";
        self.run(sql, [of_tenant(tenant, "")]).map(drop)
    }

    /// After a restart nothing is being done: frees the keys of what was not answered. Gives how many.
    pub fn abandon_commands(&self) -> Result<usize, Error> {
        self.run("DELETE FROM commands WHERE status IS NULL", [])
    }

    pub fn prune_commands(&self, now: Timestamp) -> Result<usize, Error> {
        self.run("DELETE FROM commands WHERE expires_at <= ?1", [At(now)])
    }
}
