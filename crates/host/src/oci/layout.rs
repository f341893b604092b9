//! The OCI image layout: a directory of blobs with an index ("OCI Image Layout Specification").

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
};

use camino::{Utf8Path, Utf8PathBuf};
use model::Digest;

use super::{DOCUMENT_BYTES, Descriptor, Document, Error, Source, attached, io_error, manifest, refused};

/// The annotation of an index's entry that is its tag.
pub const TAG: &str = "org.opencontainers.image.ref.name";

/// A layout that is read. Its files may be hostile: blobs are plain files reached through no link.
#[derive(Debug)]
pub struct Layout {
    root: Utf8PathBuf,
    entries: Vec<Descriptor>,
}

impl Layout {
    pub fn open(root: &Utf8Path) -> Result<Self, Error> {
        let bytes = bounded(root, Utf8Path::new("index.json"))?;
        match manifest::parse(&bytes, Some(manifest::INDEX))? {
            Document::Index(entries) => Ok(Self {
                root: root.to_owned(),
                entries,
            }),
            Document::Manifest(_) => Err(refused("the layout", "its index.json is not an index")),
        }
    }

    /// The image of this tag, or the only one there is.
    pub fn find(&self, tag: Option<&str>) -> Result<super::Image, Error> {
        let found = match tag {
            Some(tag) => {
                let tagged = |entry: &&Descriptor| entry.annotations.get(TAG).is_some_and(|own| own == tag);
                self.entries.iter().filter(tagged).collect()
            }
            None => self.images(),
        };
        match (found.as_slice(), tag) {
            ([one], _) => super::find(self, &one.digest.to_string()),
            ([], Some(tag)) => Err(Error::Missing(format!("image `{tag}` in the layout"))),
            ([], None) => Err(refused("the layout", "it has no image")),
            (several, _) => {
                let entries: Vec<Descriptor> = several.iter().map(|entry| (*entry).clone()).collect();
                let chosen = manifest::choose(&entries, "the layout");
                let chosen =
                    chosen.map_err(|_| refused("the layout", "it has several images: name a tag"))?;
                super::find(self, &chosen.digest.to_string())
            }
        }
    }

    /// The entries that are images: what is told of one is none itself. Whoever wrote the index chose how much there is to
    /// read, so that of too many none is read.
    fn images(&self) -> Vec<&Descriptor> {
        let entries = self.entries.iter();
        let mut found: Vec<&Descriptor> = entries.filter(|entry| entry.artifact_type.is_none()).collect();
        let digests: BTreeSet<Digest> = found.iter().map(|entry| entry.digest).collect();
        if (2..=attached::MOST).contains(&digests.len()) {
            let document = |digest: &Digest| self.document(&digest.to_string());
            let about =
                |digest: &Digest| document(digest).is_ok_and(|(bytes, _)| attached::has_subject(&bytes));
            let about: BTreeSet<Digest> = digests.into_iter().filter(about).collect();
            found.retain(|entry| !about.contains(&entry.digest));
        }
        found
    }
}

impl Source for Layout {
    fn document(&self, wanted: &str) -> Result<(Vec<u8>, Option<String>), Error> {
        let digest: Digest = wanted
            .parse()
            .map_err(|_| Error::Missing(format!("image `{wanted}`")))?;
        Ok((bounded(&self.root, &path_of(&digest))?, None))
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, Error> {
        Ok(Box::new(open(&self.root, &path_of(&blob.digest))?))
    }

    fn referrers(&self, image: &Digest) -> Result<Vec<Descriptor>, Error> {
        let about = |entry: &&Descriptor| {
            let document = self.document(&entry.digest.to_string());
            document.is_ok_and(|(bytes, _)| attached::is_about(&bytes, image))
        };
        Ok(self.entries.iter().filter(about).cloned().collect())
    }
}

pub(super) fn path_of(digest: &Digest) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("blobs/sha256/{}", digest.hex()))
}

fn open(root: &Utf8Path, path: &Utf8Path) -> Result<fs::File, Error> {
    let file = crate::tree::open_beneath(root, path)
        .map_err(|_| Error::Missing(format!("file {path} in the layout")))?;
    let metadata = file.metadata().map_err(io_error("read", path.as_std_path()))?;
    match metadata.is_file() {
        true => Ok(file),
        false => Err(refused("the layout", "a blob is not a plain file")),
    }
}

fn bounded(root: &Utf8Path, path: &Utf8Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = open(root, path)?.take(DOCUMENT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(io_error("read", path.as_std_path()))?;
    match bytes.len() as u64 > DOCUMENT_BYTES {
        true => Err(Error::TooLarge(format!(
            "{path} has more than {DOCUMENT_BYTES} bytes"
        ))),
        false => Ok(bytes),
    }
}

/// A layout that is written: blobs first, the index last.
#[derive(Debug)]
pub struct Writer {
    root: Utf8PathBuf,
}

/// Counts and hashes what goes through.
pub(super) struct Counted<W> {
    pub to: W,
    pub hash: sha2::Sha256,
    pub bytes: u64,
}

impl<W: io::Write> io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        use sha2::Digest as _;
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Writer {
    /// An empty layout in an existing directory.
    pub fn create(root: &Utf8Path) -> Result<Self, Error> {
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(io_error("create", &blobs))?;
        let path = root.join("oci-layout");
        fs::write(&path, r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(io_error("write", &path))?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// A blob from its bytes.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        self.stream(media_type, |to| to.write_all(bytes))
    }

    /// A blob from what is written to it.
    pub(super) fn stream(
        &self,
        media_type: &str,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<Descriptor, Error> {
        use sha2::Digest as _;
        let new = self.root.join(".new");
        let file = fs::File::create(&new).map_err(io_error("create", &new))?;
        let mut counted = Counted {
            to: file,
            hash: sha2::Sha256::new(),
            bytes: 0,
        };
        write(&mut counted).map_err(io_error("write", &new))?;
        let (digest, size) = (Digest::from_bytes(counted.hash.finalize().into()), counted.bytes);
        let path = self.root.join(path_of(&digest));
        fs::rename(&new, &path).map_err(io_error("rename", &new))?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: Default::default(),
            platform: None,
            artifact_type: None,
        })
    }

    /// The index, with one image and what is told of it.
    pub fn finish(self, image: Descriptor, tag: Option<&str>, told: Vec<Descriptor>) -> Result<(), Error> {
        let mut entry = image;
        if let Some(tag) = tag {
            entry.annotations.insert(TAG.to_owned(), tag.to_owned());
        }
        let entries: Vec<Descriptor> = [entry].into_iter().chain(told).collect();
        let path = self.root.join("index.json");
        fs::write(&path, manifest::index(&entries)).map_err(io_error("write", &path))
    }
}
