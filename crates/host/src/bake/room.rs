//! Room on the disk for what registries are asked for. Who needs it waits, and what nothing needs goes meanwhile: a tag that
//! names another image than yesterday's is known only here, and a machine that builds for a platform elsewhere has nobody else
//! who looks.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use super::Oven;
use crate::base::{self, Room};

/// Who waits looks again soon, then more and more seldom up to this, and gives up after so many looks.
const LOOK: Duration = Duration::from_secs(15);
const LOOKS: u32 = 120;

/// What was used or came in within this time stays, wanted or not. Longer than any step from the making of a thing to
/// the row that says that it is needed.
pub(crate) const GRACE: SignedDuration = SignedDuration::from_hours(6);

/// A cache that no build or bake used for so long goes: its branch may be gone, and one that is not makes it again.
pub(crate) const CACHES: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Somebody who waits for room.
#[derive(Debug, Default)]
pub(crate) struct Looks(u32);

impl Oven {
    /// From now on images of registries are got only while all images and caches take less than this. `alone`: images are
    /// needed by nobody but what goes on here.
    pub fn keep_within(&self, budget_bytes: u64, alone: bool) {
        self.0.bases.keep_within(Room {
            layers: self.0.layers.clone(),
            caches: self.0.caches.clone(),
            budget_bytes,
            alone,
        });
    }

    /// Makes room, and waits a little. `full` says why there was none; it is given back when that went on for too long.
    pub(crate) async fn wait_for_room(
        &self,
        looks: &mut Looks,
        full: base::Error,
        say: impl FnOnce(&str),
    ) -> Result<(), base::Error> {
        if looks.0 == LOOKS {
            return Err(full);
        }
        if looks.0 == 0 {
            say(&format!("Waiting: {full}"));
        }
        if let Some(room) = self.0.bases.room() {
            self.make_room(room, crate::now()).await;
        }
        tokio::time::sleep(LOOK.min(Duration::from_secs(1 << looks.0.min(10)))).await;
        looks.0 += 1;
        Ok(())
    }

    /// What cannot go now may when somebody looks again.
    async fn make_room(&self, room: &Room, now: Timestamp) {
        let (this, budget_bytes) = (self.clone(), room.budget_bytes);
        let caches = tokio::task::spawn_blocking(move || this.sweep_caches(now - CACHES, budget_bytes));
        if let Ok(Err(fault)) = caches.await {
            warn!("caches are in the way: {fault}");
        }
        if room.alone
            && let Err(fault) = self.sweep(&BTreeSet::new(), now - GRACE).await
        {
            warn!("images are in the way: {fault}");
        }
    }
}
