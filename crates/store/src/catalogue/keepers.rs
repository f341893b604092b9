use std::collections::BTreeSet;

use model::{Digest, Place, port::LogRef};
use rusqlite::Row;

use crate::{Db, Error, sql::Columns as _};

/// What must not be cleaned up: whatever the live release, a rollback or a host may need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keepers {
    pub images: BTreeSet<Digest>,
    pub revisions: BTreeSet<Digest>,
    pub sources: BTreeSet<Digest>,
    /// Whatever executions under way speak of: images and objects.
    pub mentioned: BTreeSet<Digest>,
    /// Logs that executions under way have written.
    pub logs: BTreeSet<LogRef>,
}

/// Releases that may come back: live ones, pending ones, those of hosts that are there, and of each environment the five
/// that were live last. By the time of their end: one that was gone back to has an old number, and was live last.
pub(crate) const KEPT: &str = "WITH kept AS (
    SELECT r.* FROM releases r
    WHERE r.state IN ('live', 'pending')
       OR EXISTS (SELECT 1 FROM hosts h
                  WHERE h.environment_id = r.environment_id AND h.release = r.number AND h.state <> 'retired')
       OR r.id IN (SELECT l.id FROM releases l
                   WHERE l.environment_id = r.environment_id AND l.live_at IS NOT NULL AND l.state = 'retired'
                   ORDER BY l.changed_at DESC, l.number DESC LIMIT 5))";

/// Releases that executions under way bring or go back to.
const WANTED: &str = "SELECT r.image, r.revision, r.source FROM releases r
    JOIN environments e ON e.id = r.environment_id JOIN apps a ON a.id = e.app_id JOIN tenants t ON t.id = a.tenant_id
    JOIN executions x ON x.tenant = t.name AND x.app = a.name AND x.environment = e.name
    JOIN state_executions s ON s.key = x.run
    WHERE x.ended_at IS NULL AND r.number IN (s.input ->> '$.to', s.input ->> '$.plan.release')";

/// All that an execution's state can be made of: what it began with, what it was when it was folded, and what was said
/// to it since.
const SAID: &str = "SELECT s.input AS text FROM executions x JOIN state_executions s ON s.key = x.run
    WHERE x.ended_at IS NULL
    UNION ALL SELECT s.state FROM executions x JOIN snapshots s ON s.execution = x.run WHERE x.ended_at IS NULL
    UNION ALL SELECT e.event FROM events e
        WHERE e.execution IN (SELECT x.run FROM executions x WHERE x.ended_at IS NULL)";

impl Db<'_> {
    /// Of every environment: the live release, pending ones, five more that were live, those of hosts that are
    /// not retired; and what executions under way have built and baked, go back to or speak of.
    pub fn keepers(&self) -> Result<Keepers, Error> {
        let mut kept = Keepers::default();
        let reach = format!("{KEPT} SELECT image, revision, source FROM kept");
        for sql in [&*reach, WANTED] {
            for (image, revision, source) in self.all(sql, [], content)? {
                kept.images.insert(image);
                kept.revisions.insert(revision);
                kept.sources.insert(source);
            }
        }
        kept.images.extend(self.all(
            "SELECT DISTINCT image FROM hosts WHERE image IS NOT NULL AND state <> 'retired'",
            [],
            |row| row.digest("image"),
        )?);
        kept.images.extend(self.all(
            "SELECT image FROM bakes b WHERE image IS NOT NULL AND EXISTS (
                 SELECT 1 FROM executions x WHERE x.id = b.execution AND x.ended_at IS NULL)",
            [],
            |row| row.digest("image"),
        )?);
        let builds = self.all(
            "SELECT source, artifact FROM builds b WHERE EXISTS (
                 SELECT 1 FROM executions x WHERE x.id = b.execution AND x.ended_at IS NULL)",
            [],
            |row| Ok((row.digest("source")?, row.maybe_digest("artifact")?)),
        )?;
        for (source, artifact) in builds {
            kept.sources.insert(source);
            kept.revisions.extend(artifact);
        }
        self.keep_beside(&mut kept)?;
        self.keep_mentioned(&mut kept)?;
        Ok(kept)
    }

    /// What all builds of a batch left of which a release is kept, and the secondary artifacts of builds whose artifact is.
    fn keep_beside(&self, kept: &mut Keepers) -> Result<(), Error> {
        let of_batch = format!(
            "{KEPT} SELECT b.artifact FROM builds b JOIN kept k ON k.execution = b.execution
             WHERE b.artifact IS NOT NULL"
        );
        kept.revisions
            .extend(self.all(&of_batch, [], |row| row.digest("artifact"))?);
        let beside = self.all(
            "SELECT b.artifact, s.value AS beside FROM builds b, json_each(b.built, '$.secondary') s
             WHERE b.artifact IS NOT NULL",
            [],
            |row| Ok((row.digest("artifact")?, row.parsed::<Digest>("beside")?)),
        )?;
        let with_kept = beside
            .into_iter()
            .filter(|(artifact, _)| kept.revisions.contains(artifact));
        let beside: Vec<Digest> = with_kept.map(|(_, beside)| beside).collect();
        kept.revisions.extend(beside);
        Ok(())
    }

    /// The releases of an environment whose image and revision are kept: those that can be gone back to.
    pub fn kept_releases(&self, place: &Place) -> Result<BTreeSet<u64>, Error> {
        let numbers = self.all(
            &format!("{KEPT} SELECT number FROM kept WHERE environment_id = ?1"),
            [self.environment_key(place)?],
            |row| row.get("number"),
        )?;
        Ok(numbers.into_iter().collect())
    }

    fn keep_mentioned(&self, kept: &mut Keepers) -> Result<(), Error> {
        let texts: Vec<String> = self.all(SAID, [], |row| row.get("text"))?;
        for text in &texts {
            kept.mentioned.extend(digests(text));
            kept.logs.extend(logs(text));
        }
        let written = self.all(
            "SELECT log FROM (SELECT log, execution FROM builds UNION ALL SELECT log, execution FROM bakes) w
             WHERE log IS NOT NULL AND EXISTS (
                 SELECT 1 FROM executions x WHERE x.id = w.execution AND x.ended_at IS NULL)",
            [],
            |row| row.parsed("log"),
        )?;
        kept.logs.extend(written);
        Ok(())
    }
}

fn content(row: &Row<'_>) -> rusqlite::Result<(Digest, Digest, Digest)> {
    Ok((
        row.digest("image")?,
        row.digest("revision")?,
        row.digest("source")?,
    ))
}

/// Every digest in a text, whatever the text is.
fn digests(text: &str) -> impl Iterator<Item = Digest> {
    const LENGTH: usize = "sha256:".len() + 64;
    text.match_indices("sha256:")
        .filter_map(|(at, _)| text.get(at..at + LENGTH)?.parse().ok())
}

/// Every name of a log of a ticket in a text.
fn logs(text: &str) -> impl Iterator<Item = LogRef> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c)));
    let kinds = ["build/t-", "bake/t-", "deploy/t-"];
    words
        .filter(move |word| kinds.iter().any(|kind| word.starts_with(kind)))
        .filter_map(|word| word.trim_end_matches('.').parse().ok())
}
