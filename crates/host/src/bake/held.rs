//! Which images and layers something stands on just now, so that no sweep takes them away.

use std::sync::{Arc, Mutex, PoisonError};

use model::Digest;

#[derive(Debug, Clone, Default)]
pub(super) struct InUse(Arc<Mutex<Vec<Digest>>>);

/// An image or a layer that stays until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub digest: Digest,
    all: InUse,
}

impl InUse {
    pub fn hold(&self, digest: Digest) -> Held {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.push(digest);
        Held {
            digest,
            all: self.clone(),
        }
    }

    pub fn all(&self) -> Vec<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = held.iter().position(|digest| *digest == self.digest) {
            held.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_held_until_the_last_lets_it_go() {
        let images = InUse::default();
        let one = Digest::of("one");
        let (first, second) = (images.hold(one), images.hold(one));
        drop(first);
        assert_eq!(images.all(), [one]);
        drop(second);
        assert_eq!(images.all(), []);
    }
}
