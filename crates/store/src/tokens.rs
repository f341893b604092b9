//! What machines and people show to be let in. Only the digest of a token is kept.

use jiff::Timestamp;
use model::{
    Digest, Secret, TenantName,
    policy::{Principal, Role},
};
use rusqlite::{Row, params};
use serde_json::json;

use crate::{
    By, Db, Error, Tx, keys,
    sql::{At, Columns as _, Hash, Word},
    vault::{self, PLATFORM},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: u64,
    /// Unique in its tenant, or among the platform's own.
    pub name: String,
    pub principal: Principal,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    pub used_at: Option<Timestamp>,
    /// Its bearer can sign requests; one that is older than signatures cannot until it is used.
    pub signs: bool,
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    pub name: String,
    /// Who acts with it, as it will stand in the ledger.
    pub principal: Principal,
    pub expires_at: Option<Timestamp>,
}

const SELECT: &str = "SELECT k.*, t.name AS tenant FROM tokens k LEFT JOIN tenants t ON t.id = k.tenant_id";
/// So that scanners find one that leaked.
const PREFIX: &str = "vend_";

impl Db<'_> {
    /// Who shows this token; `None` when it is nobody's, was revoked or has expired.
    pub fn find_token(&self, shown: &Secret, now: Timestamp) -> Result<Option<Token>, Error> {
        let digest = Digest::of(shown.expose());
        let found = self.one(&format!("{SELECT} WHERE k.digest = ?1"), [Hash(digest)], token)?;
        Ok(found.filter(|token| token.expires_at.is_none_or(|expiry| now < expiry)))
    }

    /// The token with this id and what its bearer signs requests with; `None` when it was revoked, has expired, or is
    /// older than signatures.
    pub fn signing_key(&self, id: u64, now: Timestamp) -> Result<Option<(Token, SigningKey)>, Error> {
        let found = self.one(&format!("{SELECT} WHERE k.id = ?1"), [id], |row| {
            Ok((
                token(row)?,
                row.digest("digest")?,
                row.get::<_, Option<Vec<u8>>>("signing")?,
            ))
        })?;
        let Some((token, digest, Some(sealed))) = found else {
            return Ok(None);
        };
        if token.expires_at.is_some_and(|expiry| now >= expiry) {
            return Ok(None);
        }
        let context = ["vend/signing", &digest.to_string()];
        let key = vault::open(&self.data_key(PLATFORM)?, &context, &sealed);
        Ok(Some((
            token,
            SigningKey(key.ok_or(Error::Sealed { what: "signing key" })?),
        )))
    }

    /// Of a tenant, or all of the platform.
    pub fn tokens(&self, tenant: Option<&TenantName>) -> Result<Vec<Token>, Error> {
        let sql = format!("{SELECT} WHERE ?1 IS NULL OR t.name = ?1 ORDER BY t.name, k.name");
        self.all(&sql, [tenant.map(TenantName::as_str)], token)
    }

    pub fn token(&self, id: u64) -> Result<Token, Error> {
        self.one(&format!("{SELECT} WHERE k.id = ?1"), [id], token)?
            .ok_or_else(|| Error::missing("token", id))
    }
}

/// What Signature v4 has as the secret: the digest of `AWS4` and the token's text. HMAC takes the digest of a key that is
/// longer than a block in its place (RFC 2104, section 3), so that the text itself need not be kept.
pub struct SigningKey(zeroize::Zeroizing<Vec<u8>>);

impl SigningKey {
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Tx<'_> {
    fn signing_of(&self, text: &Secret) -> Result<Vec<u8>, Error> {
        let digest = Digest::of(text.expose()).to_string();
        let key = Secret::new(format!("AWS4{}", text.expose()));
        let key = Digest::of(key.expose());
        vault::seal(
            &self.data_key(PLATFORM)?,
            &["vend/signing", &digest],
            key.as_bytes(),
        )
    }

    /// Makes a token of 256 random bits. The text is given this once and kept nowhere.
    pub fn create_token(&self, new: &NewToken, by: &By) -> Result<(Token, Secret), Error> {
        let tenant = new.principal.tenant.as_ref();
        let owner = tenant.map(|tenant| self.tenant_key(tenant)).transpose()?;
        let text = Secret::new(format!("{PREFIX}{}", hex::encode(keys::random_key()?.as_slice())));
        let id = self.insert(
            "INSERT INTO tokens (digest, name, actor, role, tenant_id, created_at, created_by, expires_at, signing)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                Hash(Digest::of(text.expose())),
                new.name,
                new.principal.actor,
                Word(new.principal.role),
                owner,
                At(by.at),
                by.actor,
                new.expires_at.map(At),
                self.signing_of(&text)?
            ],
            || Error::exists("token", &new.name),
        )?;
        let detail = json!({
            "actor": new.principal.actor, "role": new.principal.role, "expires_at": new.expires_at,
        });
        self.note(by, "token.create", tenant, &new.name, detail)?;
        Ok((self.token(id as u64)?, text))
    }

    pub fn revoke_token(&self, id: u64, by: &By) -> Result<(), Error> {
        let found = self.token(id)?;
        self.run("DELETE FROM tokens WHERE id = ?1", [id])?;
        let detail = json!({ "actor": found.principal.actor });
        self.note(
            by,
            "token.revoke",
            found.principal.tenant.as_ref(),
            &found.name,
            detail,
        )
    }

    /// Notes that the token with this text was used, and keeps what its bearer signs with if that is not kept yet.
    /// One that is gone is not noted.
    pub fn use_token(&self, text: &Secret, at: Timestamp) -> Result<(), Error> {
        self.run(
            "UPDATE tokens SET used_at = ?2, signing = coalesce(signing, ?3) WHERE digest = ?1",
            params![Hash(Digest::of(text.expose())), At(at), self.signing_of(text)?],
        )
        .map(drop)
    }

    /// Deletes tokens that have expired, and gives how many.
    pub fn prune_tokens(&self, now: Timestamp) -> Result<usize, Error> {
        self.run("DELETE FROM tokens WHERE expires_at <= ?1", [At(now)])
    }
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    let role: Role = row.word("role")?;
    Ok(Token {
        id: row.get("id")?,
        name: row.get("name")?,
        principal: Principal {
            actor: row.get("actor")?,
            role,
            tenant: row.maybe_parsed("tenant")?,
        },
        created_at: row.at("created_at")?,
        created_by: row.get("created_by")?,
        expires_at: row.maybe_at("expires_at")?,
        used_at: row.maybe_at("used_at")?,
        signs: row.get::<_, Option<Vec<u8>>>("signing")?.is_some(),
    })
}
