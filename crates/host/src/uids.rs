//! Ranges of user ids for containers that live shortly: builds and bakes.
//!
//! Hosts get theirs from the control plane, below [`FIRST`]. A range is used again only after its container is gone, so
//! that no two containers ever share one at a time.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// The ids from here to 2³¹ are for builds and bakes only.
pub(crate) const FIRST: u32 = 0x7000_0000;
const SIZE: u32 = 65_536;
const RANGES: u32 = 4096;

#[derive(Debug, Clone, Default)]
pub(crate) struct Uids(Arc<Mutex<BTreeSet<u32>>>);

/// A range of 65,536 ids until it is dropped.
#[derive(Debug)]
pub(crate) struct Range {
    pub base: u32,
    all: Uids,
}

impl Uids {
    /// `None` when all 4,096 are in use.
    pub fn take(&self) -> Option<Range> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (0..RANGES).find(|number| !used.contains(number))?;
        used.insert(number);
        Some(Range {
            base: FIRST + number * SIZE,
            all: self.clone(),
        })
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        let mut used = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.remove(&((self.base - FIRST) / SIZE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_containers_share_a_range() {
        let uids = Uids::default();
        let first = uids.take().unwrap();
        let second = uids.take().unwrap();
        assert_eq!((first.base, second.base), (FIRST, FIRST + SIZE));
        drop(first);
        assert_eq!(uids.take().unwrap().base, FIRST);
    }
}
