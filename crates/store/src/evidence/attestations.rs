use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use jiff::Timestamp;
use model::{AppName, Digest, Place, TenantName};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Of, WorkState};
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
    /// What the platform has signed about an image for apps that are of it, oldest first: they say what it came from there.
    /// What is not signed by its key, or about another image, is left out: whoever can write the database, and has not the
    /// key, cannot make one.
    pub fn attestations(&self, image: &Digest, of: Of<'_>) -> Result<Vec<Attestation>, Error> {
        let (tenant, app) = (of.map(|(tenant, _)| tenant), of.and_then(|(_, app)| app));
        let mut all = self.all(
            "SELECT s.* FROM attestations s LEFT JOIN apps a ON a.id = s.app_id LEFT JOIN tenants t ON t.id = a.tenant_id
             WHERE s.image = ?1 AND (?2 IS NULL OR t.name = ?2) AND (?3 IS NULL OR a.name = ?3) ORDER BY s.id",
            params![
                Hash(*image),
                tenant.map(TenantName::as_str),
                app.map(AppName::as_str)
            ],
            attestation,
        )?;
        self.genuine(image, &mut all);
        Ok(all)
    }

    /// What a place takes an image by, oldest first: the statements of its app. Where nothing was signed for the app since
    /// each has its own, those that are nobody's count, if the app has baked the image: several had it then. For deciding
    /// alone: they may name others.
    pub fn evidence(&self, image: &Digest, place: &Place) -> Result<Vec<Attestation>, Error> {
        let mut all = self.all(
            "SELECT s.* FROM attestations s WHERE s.image = ?1 AND (s.app_id = ?2 OR s.app_id IS NULL
                 AND EXISTS (SELECT 1 FROM bakes b WHERE b.image = ?1 AND b.app_id = ?2 AND b.state = ?3)
                 AND NOT EXISTS (SELECT 1 FROM attestations o WHERE o.image = ?1 AND o.app_id = ?2 AND o.predicate = ?4))
             ORDER BY s.id",
            params![
                Hash(*image),
                self.app_key(&place.tenant, &place.app)?,
                Word(WorkState::Succeeded),
                Word(Predicate::Provenance)
            ],
            attestation,
        )?;
        self.genuine(image, &mut all);
        Ok(all)
    }

    /// Whether the platform has signed this envelope, about this image.
    pub fn has_signed(&self, image: &Digest, envelope: &Value) -> bool {
        let payload = envelope["payload"].as_str().map(|text| STANDARD.decode(text));
        let statement = payload.and_then(|bytes| serde_json::from_slice(&bytes.ok()?).ok());
        let one = statement.map(|statement| Attestation {
            predicate: Predicate::Provenance,
            statement,
            envelope: envelope.clone(),
            at: Timestamp::UNIX_EPOCH,
        });
        one.is_some_and(|one| is_genuine(&one, image, &self.keys.signing.verifying_key()))
    }

    fn genuine(&self, image: &Digest, all: &mut Vec<Attestation>) {
        let key = self.keys.signing.verifying_key();
        all.retain(|one| is_genuine(one, image, &key));
    }
}

impl Tx<'_> {
    /// Signs a statement about an image with the platform's key, for the app of a place. Signing the same one again changes
    /// nothing but that it is the newest.
    pub fn attest(
        &self,
        place: &Place,
        image: &Digest,
        predicate: Predicate,
        statement: &Value,
        by: &By,
    ) -> Result<(), Error> {
        let payload = statement.to_string();
        let envelope = sealed(&payload, &self.keys.signing);
        let app = self.app_key(&place.tenant, &place.app)?;
        let known = self.run(
            "DELETE FROM attestations WHERE image = ?1 AND app_id = ?2 AND predicate = ?3 AND statement = ?4",
            params![Hash(*image), app, Word(predicate), payload],
        )?;
        self.run(
            "INSERT INTO attestations (image, app_id, predicate, statement, envelope, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                Hash(*image),
                app,
                Word(predicate),
                payload,
                Json(&envelope),
                At(by.at)
            ],
        )?;
        match known {
            0 => self.note(by, "image.attest", None, image, json!({ "predicate": predicate })),
            _ => Ok(()),
        }
    }
}

/// A DSSE envelope.
fn sealed(payload: &str, key: &SigningKey) -> Value {
    let signature = key.sign(&encoded(payload));
    let id = Digest::of(key.verifying_key().as_bytes());
    json!({
        "payloadType": PAYLOAD_TYPE,
        "payload": STANDARD.encode(payload),
        "signatures": [{ "keyid": id, "sig": STANDARD.encode(signature.to_bytes()) }],
    })
}

fn is_genuine(one: &Attestation, image: &Digest, key: &VerifyingKey) -> bool {
    let decoded = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    let payload = decoded(&one.envelope["payload"]).and_then(|bytes| String::from_utf8(bytes).ok());
    let stated = one.statement.to_string();
    let signature = decoded(&one.envelope["signatures"][0]["sig"]);
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    let (Some(payload), Some(signature)) = (payload, signature) else {
        return false;
    };
    one.statement["subject"][0]["digest"]["sha256"] == image.hex()
        && payload == stated
        && key.verify_strict(&encoded(&payload), &signature).is_ok()
}

fn attestation(row: &Row<'_>) -> rusqlite::Result<Attestation> {
    Ok(Attestation {
        predicate: row.word("predicate")?,
        statement: row.json("statement")?,
        envelope: row.json("envelope")?,
        at: row.at("at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_key_signed_or_another_image_got_is_not_genuine() {
        let (own, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let image = Digest::of("image");
        let about = |image: &Digest| json!({ "subject": [{ "digest": { "sha256": image.hex() } }], "result": "PASSED" });
        let check = |statement: Value, envelope: Value, expected: bool| {
            let one = Attestation {
                predicate: Predicate::Checks,
                statement,
                envelope,
                at: Timestamp::UNIX_EPOCH,
            };
            assert_eq!(
                is_genuine(&one, &image, &own.verifying_key()),
                expected,
                "{one:?}"
            );
        };
        let statement = about(&image);
        let seal = |statement: &Value, key: &SigningKey| sealed(&statement.to_string(), key);
        check(statement.clone(), seal(&statement, &own), true);
        check(statement.clone(), seal(&statement, &other), false);
        check(statement.clone(), Value::Null, false);
        let foreign = about(&Digest::of("another"));
        check(foreign.clone(), seal(&foreign, &own), false);
        let mut changed = statement.clone();
        changed["result"] = "FAILED".into();
        check(changed, seal(&statement, &own), false);
    }
}
