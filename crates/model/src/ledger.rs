//! The append-only, hash-chained record of what was done, and by whom.
//!
//! Each line holds the digest of the one before. Whoever has an export can recompute the chain with nothing but
//! SHA-256: the digest of a line is that of its fields, each preceded by its length (see [`Line::digest`]).

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

    /// Number and digest of the last good line.
    pub fn head(&self) -> Option<(u64, Digest)> {
        self.last
    }
}

#[cfg(test)]
mod tests {
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

    proptest! {
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
