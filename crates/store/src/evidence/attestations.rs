use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::Signer as _;
use jiff::Timestamp;
use model::Digest;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    By, Db, Error, Tx,
    sql::{At, Columns as _, Hash, Json, Word},
};

/// What a statement about an image says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Predicate {
    /// What it is made from.
    Provenance,
    /// What was looked at in it.
    Checks,
    /// That a release with it passed its checks on hosts.
    Verdict,
}

/// A statement that the platform has signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    pub predicate: Predicate,
    /// An in-toto statement.
    pub statement: Value,
    /// The statement with its signature (DSSE, "Envelope").
    pub envelope: Value,
    pub at: Timestamp,
}

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What is signed: the pre-authentication encoding of DSSE, which nothing else that the key signs can look like.
fn encoded(payload: &str) -> Vec<u8> {
    let parts = (PAYLOAD_TYPE.len(), PAYLOAD_TYPE, payload.len(), payload);
    format!("DSSEv1 {} {} {} {}", parts.0, parts.1, parts.2, parts.3).into_bytes()
}

impl Db<'_> {
    /// Of an image, oldest first.
    pub fn attestations(&self, image: &Digest) -> Result<Vec<Attestation>, Error> {
        let sql = "SELECT * FROM attestations WHERE image = ?1 ORDER BY id";
        self.all(sql, [Hash(*image)], attestation)
    }
}

impl Tx<'_> {
    /// Signs a statement about an image with the platform's key. Signing the same one again changes nothing but that it is
    /// the newest.
    pub fn attest(
        &self,
        image: &Digest,
        predicate: Predicate,
        statement: &Value,
        by: &By,
    ) -> Result<(), Error> {
        let payload = statement.to_string();
        let signature = self.keys.signing.sign(&encoded(&payload));
        let key = Digest::of(self.keys.signing.verifying_key().as_bytes());
        let envelope = json!({
            "payloadType": PAYLOAD_TYPE,
            "payload": STANDARD.encode(&payload),
            "signatures": [{ "keyid": key, "sig": STANDARD.encode(signature.to_bytes()) }],
        });
        let known = self.run(
            "DELETE FROM attestations WHERE image = ?1 AND predicate = ?2 AND statement = ?3",
            params![Hash(*image), Word(predicate), payload],
        )?;
        self.run(
            "INSERT INTO attestations (image, predicate, statement, envelope, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![Hash(*image), Word(predicate), payload, Json(&envelope), At(by.at)],
        )?;
        match known {
            0 => self.note(by, "image.attest", None, image, json!({ "predicate": predicate })),
            _ => Ok(()),
        }
    }
}

fn attestation(row: &Row<'_>) -> rusqlite::Result<Attestation> {
    Ok(Attestation {
        predicate: row.word("predicate")?,
        statement: row.json("statement")?,
        envelope: row.json("envelope")?,
        at: row.at("at")?,
    })
}
