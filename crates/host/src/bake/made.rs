//! Which image a bake made whose layers are gone.
//!
//! An image is what it holds, and it keeps the layers that it was first made of. A branch that makes the same once more,
//! since it trusts no other's layers, has some that no image needs: they take no room for longer than anything unused
//! does. That it made that image stays known for as long as the image is there, so that it is not made again.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use model::{Digest, port::Layer};
use serde::{Deserialize, Serialize};

use crate::{
    cache::random,
    layer::{Error, io_error},
};

/// Files under `<node>/made/<64 hex digits of the key of the topmost layer>.json`.
#[derive(Debug)]
pub(super) struct Made(Utf8PathBuf);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub image: Digest,
    /// As they were, the base first.
    pub layers: Vec<Layer>,
}

impl Made {
    pub fn open(node: &Utf8Path) -> Result<Self, Error> {
        let root = node.join("made");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        Ok(Self(root))
    }

    /// These layers are this image.
    pub fn keep(&self, image: Digest, layers: &[Layer]) -> Result<(), Error> {
        let Some(top) = layers.last() else { return Ok(()) };
        let known = Known {
            image,
            layers: layers.to_vec(),
        };
        let json = serde_json::to_vec(&known).expect("what is known of an image is plain data");
        // Several may write one at a time, each its own file.
        let new = self.0.join(format!(".{}", random()));
        fs::write(&new, json)
            .and_then(|()| fs::rename(&new, self.path(&top.key)))
            .map_err(io_error("write", &new))
    }

    /// What the layers up to this one were. A file that cannot be read says nothing: the image is made again.
    pub fn find(&self, top: &Digest) -> Result<Option<Known>, Error> {
        let path = self.path(top);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Forgets what was known of images that are not there, and what a killed node left half-written.
    pub fn sweep(&self, there: impl Fn(&Digest) -> bool) -> Result<(), Error> {
        let entries = self.0.read_dir_utf8().map_err(io_error("read", &self.0))?;
        for entry in entries.flatten() {
            let known = fs::read(entry.path()).unwrap_or_default();
            let known: Option<Known> = serde_json::from_slice(&known).ok();
            if !known.is_some_and(|known| there(&known.image)) {
                fs::remove_file(entry.path()).map_err(io_error("remove", entry.path()))?;
            }
        }
        Ok(())
    }

    fn path(&self, top: &Digest) -> Utf8PathBuf {
        self.0.join(format!("{}.json", top.hex()))
    }
}
