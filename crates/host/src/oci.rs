//! Images of others, and ours for others: the OCI image layout, manifests, and registries.
//!
//! The room exists so that what comes from elsewhere is read in one place: every byte is checked against the digest that
//! asked for it, everything is bounded, and nothing is written outside of the directory that it is unpacked into. It
//! knows nothing of bases, tenants or scripts. Formats: OCI image specification 1.1, Docker's image manifest version 2
//! schema 2, OCI distribution specification 1.1.

pub mod attached;
pub mod export;
pub mod layout;
pub(crate) mod limits;
pub mod manifest;
pub mod reach;
pub mod registry;
pub(crate) mod unpack;

use std::{io::Read, path::PathBuf};

use model::{Digest, port::Fault};

pub use manifest::{Config, Descriptor, Document, Manifest};
pub use reach::Reach;

/// The largest manifest, index or configuration.
pub const DOCUMENT_BYTES: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} is not an image that can be used: {why}")]
    Refused { what: String, why: String },
    #[error("{what} is damaged: its bytes are not those of {expected}")]
    Damaged { what: String, expected: Digest },
    #[error("there is no {0}")]
    Missing(String),
    #[error("{what} has no image for {wanted}; it has {found}")]
    Platform {
        what: String,
        wanted: String,
        found: String,
    },
    #[error("{registry} does not give {what} to this login")]
    Denied { registry: String, what: String },
    #[error("{registry} is at {address}, which is not a public address")]
    Private { registry: String, address: String },
    #[error("{registry} answers {status} to a request for {what}{said}")]
    Answer {
        registry: String,
        status: u16,
        what: String,
        said: String,
    },
    #[error("{registry} cannot be reached: {why}")]
    Unreachable { registry: String, why: String },
    #[error("the archive cannot be read")]
    Archive(#[source] std::io::Error),
    #[error("the image is too large: {0}")]
    TooLarge(String),
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Layer(#[from] crate::layer::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = crate::logs::chain(&error);
        match error {
            Error::Denied { .. } => Self::customer(text)
                .next("put `USER:PASSWORD` or a token into a secret and name it in vend.yaml: `image.login`, or `build.login` for the image of builds"),
            Error::Private { .. } => {
                Self::customer(text).next("the operator allows it with `registries.allow` in platform.toml")
            }
            Error::Missing(_) | Error::Platform { .. } => {
                Self::customer(text).next("correct `image.base`, or `build.image`, in vend.yaml and push again")
            }
            Error::Refused { .. } | Error::TooLarge(_) | Error::Archive(_) => Self::customer(text),
            Error::Unreachable { .. } | Error::Answer { .. } | Error::Damaged { .. } => {
                Self::platform(text).next("try again; see whether this machine reaches the registry")
            }
            Error::Io { .. } => Self::platform(text).next("see whether the data directory's disk is full"),
            Error::Layer(error) => error.into(),
        }
    }
}

/// Where images are: a registry's repository, or a directory.
pub trait Source {
    /// The document that a tag or a digest names, and its media type where the source tells.
    fn document(&self, wanted: &str) -> Result<(Vec<u8>, Option<String>), Error>;

    /// The bytes of a blob, as they come: whoever reads them checks them.
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, Error>;

    /// What says of itself that it is about an image: manifests, by the digest of the image's.
    fn referrers(&self, image: &Digest) -> Result<Vec<Descriptor>, Error>;
}

/// An image of a source, its layers not read yet.
#[derive(Debug, Clone)]
pub struct Image {
    /// Of the manifest.
    pub digest: Digest,
    /// Of what the tag or digest names: the manifest, or an index that has it.
    pub named: Digest,
    pub manifest: Manifest,
    pub config: Config,
    /// The configuration's own bytes.
    pub config_bytes: Vec<u8>,
}

/// The image of this machine's architecture that a tag or digest names.
pub fn find(source: &dyn Source, wanted: &str) -> Result<Image, Error> {
    let (bytes, media_type) = source.document(wanted)?;
    let named = check(wanted, &bytes)?;
    let mut digest = named;
    let document = manifest::parse(&bytes, media_type.as_deref())?;
    let manifest = match document {
        Document::Manifest(manifest) => manifest,
        Document::Index(entries) => {
            let chosen = manifest::choose(&entries, wanted)?;
            digest = chosen.digest;
            let (bytes, media_type) = source.document(&chosen.digest.to_string())?;
            check(&chosen.digest.to_string(), &bytes)?;
            match manifest::parse(&bytes, media_type.as_deref())? {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => return Err(refused(wanted, "an index of it names another index")),
            }
        }
    };
    let config_bytes = small_blob(source, &manifest.config)?;
    let config = manifest::config(&config_bytes)?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(refused(
            wanted,
            "its configuration has another number of layers than its manifest",
        ));
    }
    if config.os != "linux" {
        return Err(refused(wanted, "it is not for Linux"));
    }
    Ok(Image {
        digest,
        named,
        manifest,
        config,
        config_bytes,
    })
}

/// Unpacks layer `number` of an image, which has as much left as the layers before it left. Its bytes are checked as they were sent and as they are unpacked; when they are
/// wrong, what was unpacked is the caller's to remove.
pub(crate) fn unpack_layer(
    source: &dyn Source,
    image: &Image,
    number: usize,
    into: &camino::Utf8Path,
    deletions: unpack::Deletions,
    left: &mut limits::Left,
) -> Result<(), Error> {
    let (blob, diff) = (
        &image.manifest.layers[number],
        image.config.rootfs.diff_ids[number],
    );
    let mut sent = Hashed::new(source.blob(blob)?);
    let packing = manifest::packing(&blob.media_type)?;
    // Some tools write another packing than they say.
    let mut start = [0; 4];
    let length = read_start(&mut sent, &mut start)?;
    let packing = match unpack::guess(&start[..length]) {
        manifest::Packing::Plain if packing != manifest::Packing::Plain => {
            return Err(refused("a layer", "it is not packed as its manifest says"));
        }
        guessed => guessed,
    };
    {
        let bytes = std::io::Cursor::new(&start[..length]).chain(&mut sent);
        let mut plain = Hashed::new(unpack::unpacked(packing, bytes).map_err(Error::Archive)?);
        unpack::unpack(&mut plain, into, deletions, left)?;
        // A tar ends before its padding does.
        drain(&mut plain)?;
        if plain.digest() != diff {
            return Err(Error::Damaged {
                what: format!("layer {number}"),
                expected: diff,
            });
        }
    }
    drain(&mut sent)?;
    match sent.bytes == blob.size && sent.digest() == blob.digest {
        true => Ok(()),
        false => Err(Error::Damaged {
            what: format!("layer {number}"),
            expected: blob.digest,
        }),
    }
}

/// Unpacks the tar of a whole root file system, plain or packed.
pub fn unpack_tar(tar: &mut dyn Read, into: &camino::Utf8Path) -> Result<(), Error> {
    let mut start = [0; 4];
    let mut tar = tar;
    let length = read_start(&mut tar, &mut start)?;
    let bytes = std::io::Cursor::new(&start[..length]).chain(tar);
    let plain = unpack::unpacked(unpack::guess(&start[..length]), bytes).map_err(Error::Archive)?;
    let mut left = limits::Limits::IMAGE.whole();
    unpack::unpack(plain, into, unpack::Deletions::Apply, &mut left)?;
    match archive_of(into) {
        Some(why) => Err(refused("the tar", why)),
        None => Ok(()),
    }
}

/// Why what was unpacked is no root file system, when it is an image as tools save one.
fn archive_of(files: &camino::Utf8Path) -> Option<&'static str> {
    let has = |name: &str| files.join(name).symlink_metadata().is_ok();
    let saved = match (has("oci-layout") && has("index.json"), has("manifest.json")) {
        (true, _) => {
            "it is an archive of an OCI image, not of a root file system: unpack it into a directory of the source tree, \
             and name that as `layout:DIRECTORY`"
        }
        (false, true) => {
            "it is an archive of a Docker image, not of a root file system: write it as a layout \
             (`skopeo copy docker-archive:FILE oci:DIRECTORY:latest`) and name that as `layout:DIRECTORY`"
        }
        (false, false) => return None,
    };
    // A root file system may have files of these names.
    let is_root = ["bin", "etc", "usr"].into_iter().any(has);
    (!is_root).then_some(saved)
}

fn read_start(from: &mut impl Read, start: &mut [u8]) -> Result<usize, Error> {
    let mut length = 0;
    while length < start.len() {
        match from.read(&mut start[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Archive(error)),
        }
    }
    Ok(length)
}

/// Reads what is left, which is padding.
fn drain(from: &mut impl Read) -> Result<(), Error> {
    const MOST: u64 = 1 << 20;
    match std::io::copy(&mut from.take(MOST), &mut std::io::sink()) {
        Ok(read) if read < MOST => Ok(()),
        Ok(_) => Err(refused("a layer", "much follows its end")),
        Err(error) => Err(Error::Archive(error)),
    }
}

/// Hashes what is read.
struct Hashed<R> {
    from: R,
    hash: sha2::Sha256,
    bytes: u64,
}

impl<R> Hashed<R> {
    fn new(from: R) -> Self {
        use sha2::Digest as _;
        Self {
            from,
            hash: sha2::Sha256::new(),
            bytes: 0,
        }
    }

    fn digest(&self) -> Digest {
        use sha2::Digest as _;
        Digest::from_bytes(self.hash.clone().finalize().into())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use sha2::Digest as _;
        let read = self.from.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// The digest of a document, which must be the one that was asked for when a digest was.
fn check(wanted: &str, bytes: &[u8]) -> Result<Digest, Error> {
    let digest = Digest::of(bytes);
    match wanted.parse::<Digest>() {
        Ok(expected) if expected != digest => Err(Error::Damaged {
            what: "the manifest".to_owned(),
            expected,
        }),
        _ => Ok(digest),
    }
}

/// A blob that is read into memory.
fn small_blob(source: &dyn Source, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    if blob.size > DOCUMENT_BYTES {
        return Err(Error::TooLarge(format!("a configuration of {} bytes", blob.size)));
    }
    let mut bytes = Vec::new();
    let read = source
        .blob(blob)?
        .take(DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes);
    read.map_err(Error::Archive)?;
    match Digest::of(&bytes) == blob.digest {
        true => Ok(bytes),
        false => Err(Error::Damaged {
            what: "the configuration".to_owned(),
            expected: blob.digest,
        }),
    }
}

fn refused(what: &str, why: &str) -> Error {
    Error::Refused {
        what: what.chars().take(200).collect(),
        why: why.to_owned(),
    }
}

fn io_error(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_was_saved_is_no_root_file_system() {
        let unpacked = |names: &[&str]| {
            let mut tar = tar::Builder::new(Vec::new());
            for name in names {
                let mut header = tar::Header::new_gnu();
                header.set_size(0);
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(1);
                tar.append_data(&mut header, name, std::io::empty()).unwrap();
            }
            let work = tempfile::tempdir().unwrap();
            let into = camino::Utf8Path::from_path(work.path()).unwrap();
            unpack_tar(&mut &tar.into_inner().unwrap()[..], into).map_err(|error| error.to_string())
        };
        for (names, why) in [
            (
                &["oci-layout", "index.json", "blobs/sha256/a"][..],
                "layout:DIRECTORY",
            ),
            (&["oci-layout", "index.json", "manifest.json"], "OCI image"),
            (&["manifest.json", "repositories", "a/layer.tar"], "Docker image"),
        ] {
            let text = unpacked(names).unwrap_err();
            assert!(text.contains(why), "{text}");
        }
        for root in [&["bin/sh"][..], &["usr/bin/x", "manifest.json"], &["index.json"]] {
            assert_eq!(unpacked(root), Ok(()));
        }
    }
}
