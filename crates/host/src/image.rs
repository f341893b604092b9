//! Images: lists of layers, by digest. Knows nothing of how layers are made.

use std::{collections::BTreeSet, fs, io::Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::Digest;
use serde::{Deserialize, Serialize};

use crate::layer::{Error, Layers, Record, io_error, touch, used_since};

/// Images under `<node>/images/<64 hex digits>.json`.
#[derive(Debug, Clone)]
pub struct Images {
    root: Utf8PathBuf,
    layers: Layers,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Of the keys of its layers.
    pub digest: Digest,
    /// Keys, the base first.
    pub layers: Vec<Digest>,
    pub created_at: Timestamp,
}

/// What [`Images::sweep`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    pub images: Vec<Digest>,
    pub layers: u64,
    /// Of the layers.
    pub bytes: u64,
}

impl Images {
    /// The images under `<data>/node`.
    pub fn open(node: &Utf8Path, layers: Layers) -> Result<Self, Error> {
        let root = node.join("images");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        Ok(Self { root, layers })
    }

    /// The digest of the image that these layers are, the base first.
    pub fn digest_of(layers: &[Digest]) -> Digest {
        Digest::of_parts(layers.iter().map(Digest::as_bytes))
    }

    /// Keeps an image. One that is there stays as it is, and counts as used at `created_at`.
    pub fn keep(&self, layers: &[Digest], created_at: Timestamp) -> Result<Digest, Error> {
        let digest = Self::digest_of(layers);
        if self.get(&digest)?.is_some() {
            touch(&self.path(&digest), created_at)?;
            return Ok(digest);
        }
        let image = Image {
            digest,
            layers: layers.to_vec(),
            created_at,
        };
        let path = self.path(&digest);
        let json = serde_json::to_vec_pretty(&image).map_err(|source| Error::Record {
            path: path.clone(),
            source,
        })?;
        let new = self.root.join(format!(".{}", digest.hex()));
        fs::File::create(&new)
            .and_then(|mut file| {
                file.write_all(&json)?;
                file.set_modified(created_at.into())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| fs::File::open(&self.root)?.sync_all())
            .map_err(io_error("write", &path))?;
        Ok(digest)
    }

    pub fn get(&self, digest: &Digest) -> Result<Option<Image>, Error> {
        let path = self.path(digest);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Record { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// The layers of an image, the base first.
    pub fn records(&self, digest: &Digest) -> Result<Vec<Record>, Error> {
        let image = self.get(digest)?.ok_or(Error::Missing(*digest))?;
        let record = |key: &Digest| self.layers.get(key)?.ok_or(Error::Missing(*key));
        image.layers.iter().map(record).collect()
    }

    /// The directories that an overlay of the image stacks, top first. An image that lacks a layer is an error.
    pub fn lowers(&self, digest: &Digest) -> Result<Vec<Utf8PathBuf>, Error> {
        let records = self.records(digest)?;
        Ok(records
            .iter()
            .rev()
            .map(|record| self.layers.files(&record.key))
            .collect())
    }

    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let entries = self.root.read_dir_utf8().map_err(io_error("read", &self.root))?;
        let mut images = Vec::new();
        for entry in entries.flatten() {
            let digest = entry
                .path()
                .file_stem()
                .and_then(|hex| format!("sha256:{hex}").parse().ok());
            if let Some(digest) = digest {
                images.extend(self.get(&digest)?);
            }
        }
        Ok(images)
    }

    /// Removes the images that are neither in `keep` nor used since `unused_since`, and the layers that nothing needs any
    /// more: no image that stays, and not `layers`. Whatever runs must be in `keep`.
    pub fn sweep(
        &self,
        keep: &BTreeSet<Digest>,
        layers: &BTreeSet<Digest>,
        unused_since: Timestamp,
    ) -> Result<Swept, Error> {
        let mut needed = layers.clone();
        let mut swept = Swept::default();
        for image in self.list()? {
            let path = self.path(&image.digest);
            if keep.contains(&image.digest) || used_since(&path, unused_since)? {
                needed.extend(image.layers);
            } else {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                swept.images.push(image.digest);
            }
        }
        for layer in self.layers.sweep(&needed, unused_since)? {
            swept.layers += 1;
            swept.bytes += layer.size_bytes;
        }
        Ok(swept)
    }

    fn path(&self, digest: &Digest) -> Utf8PathBuf {
        self.root.join(format!("{}.json", digest.hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(layers: &Layers, name: &str, parent: Option<Digest>) -> Digest {
        let key = Digest::of(name);
        let staging = layers.stage().unwrap();
        fs::write(staging.files().join(name), name).unwrap();
        let record = Record {
            key,
            parent,
            made_by: name.to_owned(),
            size_bytes: 1,
            commit: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        layers.publish(staging, &record).unwrap();
        assert_eq!(layers.get(&key).unwrap(), Some(record));
        key
    }

    /// Later than anything that these tests make.
    fn far() -> Timestamp {
        "2200-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn images_stack_layers_and_keep_what_they_need() {
        let temporary = tempfile::tempdir().unwrap();
        let node = Utf8Path::from_path(temporary.path()).unwrap();
        let layers = Layers::open(node).unwrap();
        let images = Images::open(node, layers.clone()).unwrap();
        let base = layer(&layers, "base", None);
        let one = layer(&layers, "one", Some(base));
        let two = layer(&layers, "two", Some(base));
        let first = images.keep(&[base, one], Timestamp::UNIX_EPOCH).unwrap();
        let second = images.keep(&[base, two], Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(images.keep(&[base, one], Timestamp::UNIX_EPOCH).unwrap(), first);
        assert_eq!(
            images.lowers(&first).unwrap(),
            [layers.files(&one), layers.files(&base)]
        );
        assert!(matches!(images.lowers(&base), Err(Error::Missing(_))));
        drop(layers.stage().unwrap());
        let (keep, none) = (BTreeSet::from([first]), BTreeSet::new());
        let lately = images.sweep(&keep, &none, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(lately, Swept::default(), "what was used lately stays");
        let used = images.keep(&[base, two], far()).unwrap();
        assert_eq!(images.sweep(&keep, &none, far()).unwrap(), Swept::default());
        images.keep(&[base, two], Timestamp::UNIX_EPOCH).unwrap();
        let swept = images.sweep(&keep, &none, far()).unwrap();
        assert_eq!(
            (used, swept.images, swept.layers, swept.bytes),
            (second, vec![second], 1, 1)
        );
        assert!(layers.get(&two).unwrap().is_none() && !layers.files(&two).exists());
        assert!(images.lowers(&first).is_ok());
        let left: Vec<_> = fs::read_dir(node.join("layers")).unwrap().collect();
        assert_eq!(left.len(), 2, "a layer that was not finished is gone: {left:?}");
    }
}
