//! Whether the disk has room for an image that is not here.

use model::port::ImageUsage;

use super::{Bases, Error};
use crate::{
    cache::Caches,
    layer::{self, Layers},
};

/// What all images and caches may take.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub layers: Layers,
    pub caches: Caches,
    pub budget_bytes: u64,
    /// Images are needed by nobody but what goes on here.
    pub alone: bool,
}

impl Room {
    fn usage(&self) -> Result<ImageUsage, layer::Error> {
        let layers = self.layers.list()?;
        let layers: u64 = layers.iter().map(|record| record.size_bytes).sum();
        Ok(ImageUsage {
            bytes: layers + self.caches.bytes()?,
            budget_bytes: self.budget_bytes,
        })
    }
}

impl Bases {
    /// The first that is said holds.
    pub(crate) fn keep_within(&self, room: Room) {
        let _ = self.room.set(room);
    }

    pub(crate) fn room(&self) -> Option<&Room> {
        self.room.get()
    }

    /// Refuses what would be got while there is no room for it. Nothing was got then: who wants it may ask again.
    pub(super) fn needs_room(&self) -> Result<(), Error> {
        let usage = self.room().map(Room::usage).transpose()?;
        match usage.filter(ImageUsage::is_full) {
            None => Ok(()),
            Some(ImageUsage { bytes, budget_bytes }) => Err(Error::NoRoom { bytes, budget_bytes }),
        }
    }
}
