//! What goes of images when there is to be room, and what stays whoever asks: what something stands on just now or is about to
//! make, the platform's own, and the bases.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use model::{
    Digest,
    port::{Fault, ImageUsage, Swept},
};

use super::{Error, Held, Oven};
use crate::{base, image, layer::Record};

/// A sweep that waits holds up the bakes that begin or end after it: not for longer than this.
const QUIET: Duration = Duration::from_secs(20);

impl Oven {
    /// Removes the images that are neither in `keep` nor used since `unused_since`, with the layers that only they had. The
    /// platform's own images and the bases stay. Whatever runs or may run again must be in `keep`; what
    /// a bake that goes on stands on needs not. `None`: an image is just being taken in; nothing was removed.
    pub async fn sweep(
        &self,
        keep: &BTreeSet<Digest>,
        unused_since: Timestamp,
    ) -> Result<Option<image::Swept>, Fault> {
        let quiet = Arc::clone(&self.0.quiet).write_owned();
        let Ok(quiet) = tokio::time::timeout(QUIET, quiet).await else {
            return Ok(None);
        };
        let (this, keep) = (self.clone(), keep.clone());
        let swept = tokio::task::spawn_blocking(move || {
            // Held to the end of the choice, also when nobody waits for it any more.
            let swept = this.sweep_quietly(keep, unused_since);
            drop(quiet);
            let removed = this.0.layers.remove_old().map_err(Error::from);
            swept.and_then(|swept| removed.map(|()| swept))
        });
        let swept = swept.await.map_err(|_| Error::Interrupted)?;
        Ok(Some(swept?))
    }

    /// Removes the caches that nobody used since then, and so many of the longest unused that what is left of the images'
    /// part of the disk has room for the others.
    pub(crate) fn sweep_caches(&self, unused_since: Timestamp, budget_bytes: u64) -> Result<Swept, Fault> {
        let usage = ImageUsage {
            bytes: self.layer_bytes().map_err(Error::from)?,
            budget_bytes,
        };
        let most = usage.near_bytes().saturating_sub(usage.bytes);
        let swept = self.0.caches.sweep(unused_since, most).map_err(Error::from)?;
        Ok(Swept {
            caches: swept.caches,
            bytes: swept.bytes,
            ..Swept::default()
        })
    }

    fn sweep_quietly(
        &self,
        mut keep: BTreeSet<Digest>,
        unused_since: Timestamp,
    ) -> Result<image::Swept, Error> {
        let (images, layers) = (&self.0.images, &self.0.layers);
        let known = self.0.bases.all()?;
        for image in images.list()? {
            let top = image.layers.last().map(|key| layers.get(key)).transpose()?;
            // What no commit asked for is the platform's, but for what builds got from registries.
            let own = |top: &Record| top.commit.is_none() && !base::is_of_registry(top);
            // On an old base it was made again, or will be when somebody needs it.
            let old = match image.layers.first() {
                Some(base) => self.0.bases.is_stale(base, &known)?,
                None => false,
            };
            if !old && top.flatten().as_ref().is_some_and(own) {
                keep.insert(image.digest);
            }
        }
        keep.extend(self.0.in_use.all());
        let mut needed: BTreeSet<Digest> = known.iter().map(|known| known.key).collect();
        needed.extend(self.0.ground.all());
        let swept = images.sweep(&keep, &needed, unused_since)?;
        let there: BTreeSet<Digest> = images.list()?.into_iter().map(|image| image.digest).collect();
        self.0.made.sweep(|image| there.contains(image))?;
        Ok(swept)
    }

    /// Keeps images from being swept while somebody reads them.
    pub(crate) async fn read(&self, images: impl IntoIterator<Item = Digest>) -> Vec<Held> {
        // A sweep that goes on has chosen already.
        let _together = self.together().await;
        images.into_iter().map(|image| self.hold(image)).collect()
    }

    /// Keeps an image from being swept for as long as something stands on it.
    pub(crate) fn hold(&self, image: Digest) -> Held {
        self.0.in_use.hold(image)
    }
}
