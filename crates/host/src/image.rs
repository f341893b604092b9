//! Images: lists of layers, by digest, and what can be told of them. Knows nothing of how layers are made.

pub mod bill;
mod check;
mod diff;
mod view;

use std::{collections::BTreeSet, fs, io::Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use model::{
    Digest,
    port::{ImageAbout, ImageDiff, ImageExport, ImageTaken, ScriptAbout},
};
use serde::{Deserialize, Serialize};

use self::view::View;
use crate::{
    base,
    cache::random,
    layer::{Error, Layers, Record, archive, io_error, touch, used_since},
    oci::{
        self,
        attached::{self, Found, Told},
        export,
        layout::Layout,
        limits::{Left, Limits},
        unpack::Deletions,
    },
};

pub use crate::oci::manifest::Packing;

/// Images under `<node>/images/<64 hex digits>.json`.
#[derive(Debug, Clone)]
pub struct Images {
    root: Utf8PathBuf,
    layers: Layers,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Of what its layers hold: the same files are the same image, whoever made them.
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
    /// The images under `<data>/node`. What an interrupted node was writing is removed.
    pub fn open(node: &Utf8Path, layers: Layers) -> Result<Self, Error> {
        let root = node.join("images");
        fs::create_dir_all(&root).map_err(io_error("create", &root))?;
        let images = Self { root, layers };
        for path in images.entries()? {
            if path.file_name().is_some_and(|name| name.starts_with('.')) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(images)
    }

    /// The digest of the image that these layers are, the base first.
    pub fn digest_of(&self, layers: &[Digest]) -> Result<Digest, Error> {
        let identity = |key: &Digest| {
            let record = self.layers.get(key)?.ok_or(Error::Missing(*key))?;
            Ok(*record.identity().as_bytes())
        };
        let identities: Result<Vec<[u8; 32]>, Error> = layers.iter().map(identity).collect();
        Ok(Digest::of_parts(identities?))
    }

    /// Keeps an image. One that is there stays as it is, and counts as used at `created_at`.
    pub fn keep(&self, layers: &[Digest], created_at: Timestamp) -> Result<Digest, Error> {
        let digest = self.digest_of(layers)?;
        if let Some(image) = self.get(&digest)? {
            let there = image.layers.iter().map(|key| self.layers.get(key));
            // The same files may have been made under other keys, whose layers are gone.
            if there
                .collect::<Result<Vec<_>, Error>>()?
                .iter()
                .all(Option::is_some)
            {
                touch(&self.path(&digest), created_at)?;
                return Ok(digest);
            }
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
        // Several may keep one image at a time, each its own file.
        let new = self.root.join(format!(".{}-{}", digest.hex(), random()));
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

    /// What is known of an image, and its bill of materials. Whether it is stale is not known here.
    pub fn describe(&self, digest: &Digest) -> Result<(ImageAbout, serde_json::Value), Error> {
        let image = self.get(digest)?.ok_or(Error::Missing(*digest))?;
        let records = self.records(digest)?;
        let view = View::new(self.lowers(digest)?);
        let contents = bill::contents(&view)?;
        let (first, top) = (records.first(), records.last());
        let base = first.map(|record| record.made_by.trim_start_matches(base::MADE_BY).to_owned());
        let base = base.unwrap_or_default();
        // A bill says when it was made; one of the same image is the same.
        let created = top.and_then(|record| Timestamp::from_second(record.epoch).ok());
        let distribution = distribution(&view)?;
        let bill = bill::spdx(digest, &distribution, created.unwrap_or_default(), &contents);
        let scripts = records.iter().skip(1).filter_map(|record| {
            let (path, digest) = (record.made_by.clone(), record.source?);
            Some(ScriptAbout { path, digest })
        });
        let about = ImageAbout {
            digest: *digest,
            base,
            stale: false,
            layers: records.iter().map(Record::summary).collect(),
            scripts: scripts.collect(),
            commit: top.and_then(|record| record.commit.clone()),
            bill: Digest::of(bill.to_string()),
            packages: contents.packages.len() as u64,
            size_bytes: records.iter().map(|record| record.size_bytes).sum(),
            checks: check::all(&view)?,
            created_at: image.created_at,
        };
        Ok((about, bill))
    }

    /// What differs between two images. Layers that both have are not looked at.
    pub fn compare(&self, before: &Digest, after: &Digest) -> Result<ImageDiff, Error> {
        let (old, new) = (self.records(before)?, self.records(after)?);
        let common = old.iter().zip(&new).take_while(|(a, b)| a.key == b.key).count();
        let size = |records: &[Record]| records.iter().map(|record| record.size_bytes).sum();
        diff::compare(&diff::Sides {
            before: View::new(self.lowers(before)?),
            after: View::new(self.lowers(after)?),
            own: (old.len() - common, new.len() - common),
            sizes: (size(&old), size(&new)),
        })
    }

    /// Writes an image into an empty directory as an OCI layout. Gives the digest of its manifest.
    pub fn export(
        &self,
        digest: &Digest,
        into: &Utf8Path,
        packing: Packing,
        tag: Option<&str>,
    ) -> Result<Digest, oci::Error> {
        let how = ImageExport {
            compression: String::new(),
            tag: tag.map(str::to_owned),
            origin: None,
            told: None,
        };
        self.export_of(digest, into, packing, &how)
    }

    /// The same by the names of one app (whoever made the same files first is nobody else's business), and with what is told
    /// of it. `packing` is what `how` says of that, read.
    pub fn export_of(
        &self,
        digest: &Digest,
        into: &Utf8Path,
        packing: Packing,
        how: &ImageExport,
    ) -> Result<Digest, oci::Error> {
        let mut records = self.records(digest)?;
        if let Some(origin) = &how.origin {
            let names = origin.made_by(records.len());
            for (record, made_by) in records.iter_mut().zip(names) {
                record.made_by = made_by;
                record.commit = record.commit.is_some().then(|| origin.commit.clone());
            }
        }
        let bill = how.told.as_ref().map(|_| self.describe(digest)).transpose()?;
        let told = bill.as_ref().map(|(_, bill)| bill).zip(how.told.as_deref());
        export::write(
            &self.layers,
            digest,
            &records,
            into,
            packing,
            how.tag.as_deref(),
            told,
        )
    }

    /// What came with an image that was taken in from this layout. The image is there: nothing of this fails it.
    pub fn told(&self, layout: &Layout, tag: Option<&str>, image: &Digest) -> ImageTaken {
        let Found {
            all: told,
            mut failed,
        } = match layout.find(tag) {
            Ok(source) => attached::read(layout, &source.digest),
            Err(error) => Found {
                all: Vec::new(),
                failed: vec![error],
            },
        };
        let json = |told: &Told| serde_json::from_slice::<serde_json::Value>(&told.bytes).ok();
        let of = |kind: &'static str| told.iter().filter(move |told| told.kind == kind);
        let bill = of(attached::SPDX).next();
        let same = bill.map(|bill| Ok::<_, Error>(json(bill).as_ref() == Some(&self.describe(image)?.1)));
        let bill = same.transpose().unwrap_or_else(|error| {
            failed.push(error.into());
            None
        });
        ImageTaken {
            image: *image,
            bill,
            told: of(attached::ENVELOPE).filter_map(json).collect(),
            warning: attached::warning(&failed),
        }
    }

    /// Takes an image in. Layers that are here already, by what they hold, are not unpacked again.
    pub fn import(&self, layout: &Layout, tag: Option<&str>) -> Result<Digest, oci::Error> {
        self.import_within(Limits::IMAGE, layout, tag)
    }

    fn import_within(
        &self,
        limits: Limits,
        layout: &Layout,
        tag: Option<&str>,
    ) -> Result<Digest, oci::Error> {
        let mut left = limits.whole();
        let image = layout.find(tag)?;
        let known = self.layers.list()?;
        let mut keys: Vec<Digest> = Vec::new();
        let history = image
            .config
            .history
            .iter()
            .filter(|step| step.empty_layer != Some(true));
        let mut history = history.cloned();
        for (number, diff) in image.config.rootfs.diff_ids.iter().enumerate() {
            let step = history.next();
            let parent = keys.last().copied();
            let same = known
                .iter()
                .find(|record| record.content == Some(*diff) && record.parent == parent);
            let key = match same {
                Some(record) => {
                    left.take(0, record.size_bytes)?;
                    self.layers.touch(&record.key, crate::now())?;
                    record.key
                }
                None => self.take(layout, &image, number, parent, step, &mut left)?,
            };
            keys.push(key);
        }
        Ok(self.keep(&keys, crate::now())?)
    }

    /// One layer of an image that is taken in.
    fn take(
        &self,
        layout: &Layout,
        image: &oci::Image,
        number: usize,
        parent: Option<Digest>,
        step: Option<oci::manifest::History>,
        left: &mut Left,
    ) -> Result<Digest, oci::Error> {
        let diff = image.config.rootfs.diff_ids[number];
        let key = Digest::of_parts([
            b"vend layer oci 1".to_vec(),
            parent.map(|parent| parent.hex()).unwrap_or_default().into(),
            diff.hex().into(),
        ]);
        if let Some(record) = self.layers.get(&key)? {
            left.take(0, record.size_bytes)?;
            self.layers.touch(&key, crate::now())?;
            return Ok(key);
        }
        let staging = self.layers.stage()?;
        let files = staging.files();
        let begun = crate::now().as_second();
        oci::unpack_layer(layout, image, number, &files, Deletions::Mark, left)?;
        let latest = archive::latest(&files, begun)?;
        archive::settle_times(&files, latest)?;
        let said = step
            .as_ref()
            .and_then(|step| step.created.as_ref()?.parse::<Timestamp>().ok());
        let record = Record {
            key,
            parent,
            made_by: made_by(step.as_ref(), number),
            size_bytes: crate::layer::size(&files)?,
            commit: export::commit(&image.config, step.as_ref()),
            created_at: crate::now(),
            content: Some(archive::seal(&files)?.digest),
            source: Some(diff),
            epoch: said.map_or(latest, Timestamp::as_second),
        };
        self.layers.publish(staging, &record)?;
        Ok(key)
    }

    /// All of them: one that cannot be listed is an error, since a sweep takes who is not there for gone.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        for path in self.entries()? {
            let digest = path
                .file_stem()
                .and_then(|hex| format!("sha256:{hex}").parse().ok());
            if let Some(digest) = digest {
                images.extend(self.get(&digest)?);
            }
        }
        Ok(images)
    }

    fn entries(&self) -> Result<Vec<Utf8PathBuf>, Error> {
        self.root
            .read_dir_utf8()
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.into_path()))
                    .collect()
            })
            .map_err(io_error("read", &self.root))
    }

    /// Removes the images that are neither in `keep` nor used since `unused_since`, and sets aside the layers that nothing needs
    /// any more: no image that stays, and not `layers`. Whatever runs must be in `keep`.
    pub fn sweep(
        &self,
        keep: &BTreeSet<Digest>,
        layers: &BTreeSet<Digest>,
        unused_since: Timestamp,
    ) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for image in self.list()? {
            let path = self.path(&image.digest);
            if !keep.contains(&image.digest) && !used_since(&path, unused_since)? {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                swept.images.push(image.digest);
            }
        }
        for layer in self.sweep_layers(layers, unused_since)? {
            swept.layers += 1;
            swept.bytes += layer.size_bytes;
        }
        Ok(swept)
    }

    /// Sets aside the layers that are neither in `keep` nor an image's. Proof before what cannot be undone: the images are looked
    /// at again, and whatever was chosen to go, no layer of one that is there does.
    fn sweep_layers(&self, keep: &BTreeSet<Digest>, unused_since: Timestamp) -> Result<Vec<Record>, Error> {
        let there = self.list()?.into_iter().flat_map(|image| image.layers);
        let needed = there.chain(keep.iter().copied()).collect();
        self.layers.sweep(&needed, unused_since)
    }

    fn path(&self, digest: &Digest) -> Utf8PathBuf {
        self.root.join(format!("{}.json", digest.hex()))
    }
}

/// What made a layer of somebody's image, as he says.
fn made_by(step: Option<&oci::manifest::History>, number: usize) -> String {
    const CHARS: usize = 200;
    let said = step.and_then(|step| step.created_by.clone()).unwrap_or_default();
    let plain: String = said.chars().filter(|c| !c.is_control()).take(CHARS).collect();
    match (plain.is_empty(), number) {
        (false, _) => plain,
        (true, 0) => format!("{}imported", base::MADE_BY),
        (true, _) => "imported".to_owned(),
    }
}

/// Whose packages an image has: `debian`, `ubuntu`, `alpine`.
fn distribution(view: &View) -> Result<String, Error> {
    const BYTES: u64 = 1 << 16;
    for path in ["usr/lib/os-release", "etc/os-release"] {
        let text = view.read(Utf8Path::new(path), BYTES)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let id = text.lines().find_map(|line| line.strip_prefix("ID="));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if let Some(id) = id
            .map(|id| id.trim_matches('"'))
            .filter(|id| !id.is_empty() && id.chars().all(plain))
        {
            return Ok(id.to_owned());
        }
    }
    Ok("linux".to_owned())
}

#[cfg(test)]
mod tests;
