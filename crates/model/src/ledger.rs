//! The append-only, hash-chained record of what was done, and by whom.
//!
//! Each line holds the digest of the one before. Whoever has an export can recompute the chain with nothing but
//! SHA-256: the digest of a line is that of its fields, each preceded by its length (see [`Line::digest`]).

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Digest;

/// What is to be recorded; the store adds number, time and chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// Who: `person:ops@acme.example`, `token:ci`, `platform`.
    pub actor: String,
    /// What: `tenant.create`, `release.approve`, `execution.task.succeeded`. Lower case, dotted, object first.
    pub action: String,
    /// Whose: the tenant's name, or none for the platform's own.
    pub tenant: Option<String>,
    /// On what: `acme/shop/production`, `x-…`.
    pub object: String,
    /// What else there is to say. Never a secret.
    pub detail: serde_json::Value,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// From 1, without gaps.
    pub number: u64,
    #[schema(value_type = String)]
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub tenant: Option<String>,
    pub object: String,
    /// JSON text, exactly as it was digested.
    pub detail: String,
    /// Digest of the line before; of nothing for the first.
    #[schema(value_type = String)]
    pub previous: Digest,
    #[schema(value_type = String)]
    pub digest: Digest,
}

impl Line {
    /// The line that follows `previous` (number and digest; `None` for the first).
    pub fn follow(previous: Option<(u64, Digest)>, at: Timestamp, deed: Deed) -> Self {
        let (number, previous) = previous.unwrap_or((0, Digest::of("")));
        let mut line = Self {
            number: number + 1,
            at,
            actor: deed.actor,
            action: deed.action,
            tenant: deed.tenant,
            object: deed.object,
            detail: deed.detail.to_string(),
            previous,
            digest: previous,
        };
        line.digest = line.compute();
        line
    }

    fn compute(&self) -> Digest {
        let number = self.number.to_string();
        let at = self.at.to_string();
        let tenant = self
            .tenant
            .as_deref()
            .map(|name| format!("={name}"))
            .unwrap_or_default();
        let fields = [
            &number,
            &at,
            &self.actor,
            &self.action,
            &tenant,
            &self.object,
            &self.detail,
        ];
        let bytes = fields.iter().map(|field| field.as_bytes());
        Digest::of_parts(bytes.chain([self.previous.as_bytes().as_slice()]))
    }
}

/// A signed statement that the chain ended with this line at that time. Whoever knows one, and the public key, finds
/// out when lines up to it are replaced or removed later, even by somebody who recomputes every digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// Of the last line.
    pub number: u64,
    #[schema(value_type = String)]
    pub digest: Digest,
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Ed25519 (RFC 8032), 128 hex digits.
    pub signature: String,
}

impl Checkpoint {
    /// `sign` is given the bytes to sign.
    pub fn new((number, digest): (u64, Digest), at: Timestamp, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Self {
        let mut checkpoint = Self {
            number,
            digest,
            at,
            signature: String::new(),
        };
        checkpoint.signature = hex::encode(sign(&checkpoint.message()));
        checkpoint
    }

    /// What is signed.
    pub fn message(&self) -> Vec<u8> {
        format!(
            "vend ledger checkpoint\n{}\n{}\n{}\n",
            self.number, self.digest, self.at
        )
        .into_bytes()
    }

    /// Did the owner of `key` sign this?
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let mut bytes = [0; 64];
        hex::decode_to_slice(&self.signature, &mut bytes).is_ok()
            // One signature is one text: capitals would be bytes that somebody changed and nobody found.
            && hex::encode(bytes) == self.signature
            && key
                .0
                .verify_strict(&self.message(), &Signature::from_bytes(&bytes))
                .is_ok()
    }
}

/// What checkpoints are verified with. Displays as `ed25519:` and 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A text that is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a public key: expected `ed25519:` and 64 hex digits")]
pub struct NotAKey;

impl PublicKey {
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, NotAKey> {
        VerifyingKey::from_bytes(bytes).map(Self).map_err(|_| NotAKey)
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let mut bytes = [0; 32];
        let digits = text.trim().strip_prefix("ed25519:").ok_or(NotAKey)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| NotAKey)?;
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", hex::encode(self.0.as_bytes()))
    }
}

/// One line of an export: the chain in its order, each checkpoint right after its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    Line(Line),
    Checkpoint(Checkpoint),
}

/// The first thing that is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("line {number} was changed: its digest is {found}, and it says {says}")]
    Changed {
        number: u64,
        found: Digest,
        says: Digest,
    },
    #[error("line {number} does not follow the one before it: a line was removed, added or moved")]
    Unlinked { number: u64 },
    #[error("line {number} stands where line {expected} belongs")]
    Gap { number: u64, expected: u64 },
    #[error("what follows line {after} is not as it was exported: {problem}")]
    Unreadable { after: u64, problem: String },
    #[error("the checkpoint of line {number} was not signed with this key")]
    Forged { number: u64 },
    #[error("the checkpoint of line {number} does not fit: lines up to it were replaced, removed or moved")]
    Replaced { number: u64 },
}

/// Checks a chain line by line, in constant memory.
#[derive(Debug, Default)]
pub struct Verifier {
    last: Option<(u64, Digest)>,
}

impl Verifier {
    pub fn check(&mut self, line: &Line) -> Result<(), Broken> {
        let (number, previous) = self.last.unwrap_or((0, Digest::of("")));
        if line.number != number + 1 {
            return Err(Broken::Gap {
                number: line.number,
                expected: number + 1,
            });
        }
        let found = line.compute();
        if found != line.digest {
            return Err(Broken::Changed {
                number: line.number,
                found,
                says: line.digest,
            });
        }
        if line.previous != previous {
            return Err(Broken::Unlinked { number: line.number });
        }
        self.last = Some((line.number, line.digest));
        Ok(())
    }

    /// Checks one line of an export, byte by byte: what is written in another way than it was exported is refused
    /// too. Without a key, signatures are not checked.
    pub fn check_text(&mut self, text: &str, key: Option<&PublicKey>) -> Result<Entry, Broken> {
        let after = self.last.map_or(0, |(number, _)| number);
        let unreadable = |problem: String| Broken::Unreadable { after, problem };
        let entry: Entry = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if serde_json::to_string(&entry).ok().as_deref() != Some(text) {
            return Err(unreadable("it says the same in other bytes".into()));
        }
        match &entry {
            Entry::Line(line) => self.check(line)?,
            Entry::Checkpoint(checkpoint) => self.check_checkpoint(checkpoint, key)?,
        }
        Ok(entry)
    }

    /// Checks a checkpoint of the last line that was checked.
    pub fn check_checkpoint(&self, checkpoint: &Checkpoint, key: Option<&PublicKey>) -> Result<(), Broken> {
        let number = checkpoint.number;
        if key.is_some_and(|key| !checkpoint.is_signed_by(key)) {
            return Err(Broken::Forged { number });
        }
        if self.last != Some((number, checkpoint.digest)) {
            return Err(Broken::Replaced { number });
        }
        Ok(())
    }

    /// Number and digest of the last good line.
    pub fn head(&self) -> Option<(u64, Digest)> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn chain(length: u64) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for i in 0..length {
            let deed = Deed {
                actor: "platform".into(),
                action: "test.deed".into(),
                tenant: (i % 2 == 0).then(|| "acme".into()),
                object: format!("object {i}"),
                detail: serde_json::json!({ "i": i }),
            };
            let at = Timestamp::from_second(1_700_000_000 + i as i64).unwrap();
            lines.push(Line::follow(
                lines.last().map(|line| (line.number, line.digest)),
                at,
                deed,
            ));
        }
        lines
    }

    fn verify(lines: &[Line]) -> Result<(), Broken> {
        let mut verifier = Verifier::default();
        lines.iter().try_for_each(|line| verifier.check(line))
    }

    #[test]
    fn a_whole_chain_verifies() {
        assert_eq!(verify(&chain(20)), Ok(()));
    }

    #[test]
    fn a_removed_or_swapped_line_is_found() {
        let mut lines = chain(5);
        lines.remove(2);
        assert!(verify(&lines).is_err());
        let mut lines = chain(5);
        lines.swap(1, 2);
        assert!(verify(&lines).is_err());
    }

    fn key() -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&[7; 32])
    }

    fn signed(head: (u64, Digest)) -> Checkpoint {
        use ed25519_dalek::Signer as _;
        Checkpoint::new(head, Timestamp::UNIX_EPOCH, |message| {
            key().sign(message).to_bytes()
        })
    }

    static EXPORT: LazyLock<String> = LazyLock::new(|| {
        let mut text = String::new();
        for line in chain(6) {
            let head = (line.number, line.digest);
            text += &(serde_json::to_string(&Entry::Line(line)).unwrap() + "\n");
            if head.0 % 3 == 0 {
                text += &(serde_json::to_string(&Entry::Checkpoint(signed(head))).unwrap() + "\n");
            }
        }
        text
    });

    fn verify_export(text: &str) -> Result<Option<(u64, Digest)>, Broken> {
        let public: PublicKey = PublicKey(key().verifying_key())
            .to_string()
            .parse()
            .expect("a key reads back");
        let mut verifier = Verifier::default();
        for line in text.lines() {
            verifier.check_text(line, Some(&public))?;
        }
        Ok(verifier.head())
    }

    #[test]
    fn an_export_verifies_and_a_recomputed_chain_does_not() {
        assert_eq!(verify_export(&EXPORT).unwrap().unwrap().0, 6);
        let mut lines = chain(6);
        lines[1].actor = "nobody".into();
        for n in 1..6 {
            lines[n].previous = lines[n - 1].digest;
            lines[n].digest = lines[n].compute();
        }
        assert_eq!(verify(&lines), Ok(()), "the chain alone cannot tell");
        let mut verifier = Verifier::default();
        lines.iter().try_for_each(|line| verifier.check(line)).unwrap();
        let known = signed((6, chain(6)[5].digest));
        assert_eq!(
            verifier.check_checkpoint(&known, None),
            Err(Broken::Replaced { number: 6 })
        );
        let other = PublicKey(ed25519_dalek::SigningKey::from_bytes(&[8; 32]).verifying_key());
        assert_eq!(
            verifier.check_checkpoint(&known, Some(&other)),
            Err(Broken::Forged { number: 6 })
        );
    }

    #[test]
    fn a_signature_in_capitals_is_another_one() {
        let text = EXPORT.lines().nth(3).unwrap();
        let Entry::Checkpoint(mut checkpoint) = serde_json::from_str(text).unwrap() else {
            panic!("{text}");
        };
        let public = PublicKey(key().verifying_key());
        assert!(checkpoint.is_signed_by(&public));
        checkpoint.signature = checkpoint.signature.to_uppercase();
        assert!(!checkpoint.is_signed_by(&public));
    }

    proptest! {
        #[test]
        fn any_changed_byte_of_an_export_is_found(position in 0usize..10_000, byte in 0u8..128) {
            let mut changed = EXPORT.clone().into_bytes();
            let position = position % (changed.len() - 1);
            prop_assume!(changed[position] != byte);
            changed[position] = byte;
            prop_assert!(verify_export(&String::from_utf8(changed).unwrap()).is_err());
        }

        #[test]
        fn a_single_changed_byte_of_an_export_is_found(position in 0usize..4000, bit in 0u8..8) {
            let lines = chain(12);
            let mut export: Vec<u8> =
                lines.iter().flat_map(|line| serde_json::to_vec(line).unwrap().into_iter().chain(*b"\n")).collect();
            let position = position % export.len();
            export[position] ^= 1 << bit;
            let read: Result<Vec<Line>, _> =
                export.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(serde_json::from_slice).collect();
            // Either the export is not readable any more, or the chain breaks, or the bytes mean the same lines
            // (a letter of a digest's hex in the other case): then nothing was changed.
            prop_assert!(read.map_or(true, |read| read == lines || verify(&read).is_err()));
        }
    }
}
