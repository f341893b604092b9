use std::collections::BTreeSet;

use model::Digest;
use rusqlite::Row;

use crate::{Db, Error, sql::Columns as _};

/// What must not be cleaned up: whatever the live release, a rollback or a host may need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keepers {
    pub images: BTreeSet<Digest>,
    pub revisions: BTreeSet<Digest>,
    pub sources: BTreeSet<Digest>,
}

impl Db<'_> {
    /// Of every environment: the live release, pending ones, the last five that were live, those of hosts that are
    /// not retired; and what executions under way have built and baked.
    pub fn keepers(&self) -> Result<Keepers, Error> {
        let mut kept = Keepers::default();
        let releases = self.all(
            "SELECT image, revision, source FROM kept_releases",
            [],
            |row: &Row<'_>| {
                Ok((
                    row.digest("image")?,
                    row.digest("revision")?,
                    row.digest("source")?,
                ))
            },
        )?;
        for (image, revision, source) in releases {
            kept.images.insert(image);
            kept.revisions.insert(revision);
            kept.sources.insert(source);
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
        Ok(kept)
    }
}
