//! How what was fetched, made or unpacked becomes a layer. That is short and nothing sweeps meanwhile; what comes before
//! may take minutes, and holds up nobody.

use std::sync::Arc;

use camino::Utf8Path;
use model::{Digest, spec::Base};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::{Bases, Error, MADE_BY};
use crate::{
    layer::{self, Record, Staging, archive},
    oci,
};

/// Who keeps sweeps away while a base becomes a layer that a name means: a sweep in between would take it for one that
/// nothing needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Quiet<'a> {
    /// The caller, all the time.
    Kept,
    /// Nobody yet: it is asked for when everything is ready.
    Asked(&'a Arc<RwLock<()>>),
}

impl Quiet<'_> {
    pub(super) async fn kept(self) -> Option<OwnedRwLockReadGuard<()>> {
        match self {
            Self::Kept => None,
            Self::Asked(lock) => Some(Arc::clone(lock).read_owned().await),
        }
    }
}

/// A base that is whole.
pub(super) enum Ready {
    /// It was there when it was looked for.
    Here(Digest),
    /// It is to become a layer.
    New(Staging, Box<Record>),
}

impl Bases {
    /// A base whose key says all about it, unpacked by `fill` if it is not there. Blocking; a sweep is kept away.
    pub(crate) fn adopt(
        &self,
        base: &Base,
        key: Digest,
        source: Digest,
        fill: impl FnOnce(&Utf8Path) -> Result<(), oci::Error>,
    ) -> Result<Record, Error> {
        let ready = self.ready(base, key, source, fill)?;
        Ok(self.put(ready)?.ok_or(layer::Error::Missing(key))?)
    }

    /// The same, as far as nobody needs to keep sweeps away.
    pub(super) fn ready(
        &self,
        base: &Base,
        key: Digest,
        source: Digest,
        fill: impl FnOnce(&Utf8Path) -> Result<(), oci::Error>,
    ) -> Result<Ready, Error> {
        if self.layers.get(&key)?.is_some() {
            return Ok(Ready::Here(key));
        }
        let staging = self.layers.stage()?;
        let files = staging.files();
        let begun = crate::now().as_second();
        fill(&files)?;
        // Directories that nobody dated are as old as the newest of what was.
        let epoch = archive::latest(&files, begun)?;
        archive::settle_times(&files, epoch)?;
        Ok(sealed(base, staging, key, source, epoch)?)
    }

    /// Makes it a layer, which counts as used now. `None`: it was there, and a sweep took it meanwhile.
    pub(super) fn put(&self, ready: Ready) -> Result<Option<Record>, Error> {
        match ready {
            Ready::Here(key) => {
                let found = self.layers.get(&key)?;
                if found.is_some() {
                    self.layers.touch(&key, crate::now())?;
                }
                Ok(found)
            }
            Ready::New(staging, record) => {
                self.layers.publish(staging, &record)?;
                Ok(Some(*record))
            }
        }
    }
}

/// All that is to be known of a base, in a place where it can become a layer.
pub(super) fn sealed(
    base: &Base,
    staging: Staging,
    key: Digest,
    source: Digest,
    epoch: i64,
) -> Result<Ready, layer::Error> {
    let files = staging.files();
    let record = Record {
        key,
        parent: None,
        made_by: format!("{MADE_BY}{base}"),
        size_bytes: layer::size(&files)?,
        commit: None,
        created_at: crate::now(),
        content: Some(archive::seal(&files)?.digest),
        source: Some(source),
        epoch,
    };
    Ok(Ready::New(staging, Box::new(record)))
}
