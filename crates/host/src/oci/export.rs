//! An image of ours as an OCI image, which other tools run unchanged; and back.
//!
//! The manifest depends on nothing but the image and the names of whose it is: exporting it twice, or on two machines, gives
//! the same digest.

use std::io::{self, Write};

use camino::Utf8Path;
use jiff::Timestamp;
use model::Digest;
use serde_json::Value;

use super::{
    Config, Descriptor, Error, attached,
    layout::Writer,
    manifest::{self, History, Packing, Platform, Rootfs, Run},
};
use crate::layer::{Layers, Record, archive};

/// Where to look for the digest of an image of ours in one of theirs.
pub const IMAGE: &str = "dev.vend.image";

/// What an image is called in its layout that nobody gave a name: umoci and others find it only by one.
const TAG: &str = "latest";

/// Writes an image into an empty directory as an OCI layout, with its bill of materials and what was signed about it, or
/// alone. Gives the digest of its manifest.
pub(crate) fn write(
    layers: &Layers,
    image: &Digest,
    records: &[Record],
    into: &Utf8Path,
    packing: Packing,
    tag: Option<&str>,
    told: Option<(&Value, &[Value])>,
) -> Result<Digest, Error> {
    let writer = Writer::create(into)?;
    let mut blobs = Vec::new();
    let mut diffs = Vec::new();
    for record in records {
        let files = layers.files(&record.key);
        let mut diff = super::layout::Counted {
            to: io::sink(),
            hash: Default::default(),
            bytes: 0,
        };
        let blob = writer.stream(packing.media_type(), |to| pack(packing, to, &files, &mut diff))?;
        use sha2::Digest as _;
        diffs.push(Digest::from_bytes(diff.hash.finalize().into()));
        blobs.push(blob);
    }
    if let Some((record, _)) = records
        .iter()
        .zip(&diffs)
        .find(|(record, diff)| record.content.is_some_and(|content| content != **diff))
    {
        let expected = record.identity();
        return Err(Error::Damaged {
            what: format!("layer {} on this disk", record.key.short()),
            expected,
        });
    }
    let config = config(image, records, diffs);
    let config = serde_json::to_vec(&config).expect("a configuration is plain data");
    let config = writer.blob(manifest::CONFIG, &config)?;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest::MANIFEST, "config": config, "layers": blobs,
    });
    let mut described = writer.blob(manifest::MANIFEST, manifest.to_string().as_bytes())?;
    described.platform = Some(Platform {
        architecture: manifest::architecture().to_owned(),
        os: "linux".to_owned(),
        variant: None,
    });
    let digest = described.digest;
    let beside = match told {
        Some((bill, envelopes)) => attached::write(&writer, &described, bill, envelopes)?,
        None => Vec::new(),
    };
    writer.finish(described, Some(tag.unwrap_or(TAG)), beside)?;
    Ok(digest)
}

/// A layer's tar, packed, while its digest is taken.
fn pack(packing: Packing, to: &mut dyn Write, files: &Utf8Path, diff: &mut dyn Write) -> io::Result<()> {
    let mut write = |to: &mut dyn Write| {
        let both = Both(to, &mut *diff);
        archive::write(files, both).map_err(io::Error::other)
    };
    match packing {
        Packing::Plain => write(to),
        Packing::Gzip => {
            let mut gzip = flate2::GzBuilder::new()
                .mtime(0)
                .write(to, flate2::Compression::fast());
            write(&mut gzip)?;
            gzip.finish().map(drop)
        }
        Packing::Zstd => {
            let mut zstd = zstd::Encoder::new(to, 3)?;
            write(&mut zstd)?;
            zstd.finish().map(drop)
        }
    }
}

struct Both<'a>(&'a mut dyn Write, &'a mut dyn Write);

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.write_all(&bytes[..written])?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn config(image: &Digest, records: &[Record], diff_ids: Vec<Digest>) -> Config {
    let time = |record: &Record| {
        Timestamp::from_second(record.epoch)
            .unwrap_or_default()
            .to_string()
    };
    let history = records.iter().map(|record| History {
        created: Some(time(record)),
        created_by: Some(record.made_by.clone()),
        author: record.commit.as_ref().map(|commit| commit.author.clone()),
        comment: record.commit.as_ref().map(|commit| commit.id.clone()),
        empty_layer: None,
    });
    let top = records.last();
    let commit = top.and_then(|record| record.commit.as_ref());
    let mut labels: std::collections::BTreeMap<String, String> =
        [(IMAGE.to_owned(), image.to_string())].into();
    if let Some(commit) = commit {
        for (name, value) in [
            ("authors", &commit.author),
            ("description", &commit.message),
            ("revision", &commit.id),
            ("source", &commit.repository),
        ] {
            labels.insert(format!("org.opencontainers.image.{name}"), value.clone());
        }
    }
    Config {
        created: top.map(time),
        author: commit.map(|commit| commit.author.clone()),
        architecture: manifest::architecture().to_owned(),
        os: "linux".to_owned(),
        config: Run {
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            cmd: vec!["/bin/sh".to_owned()],
            labels,
        },
        rootfs: Rootfs {
            kind: "layers".to_owned(),
            diff_ids,
        },
        history: history.collect(),
    }
}

/// The commit that an image says it was made for.
pub(crate) fn commit(config: &Config, history: Option<&History>) -> Option<model::port::Commit> {
    let label = |name: &str| {
        config
            .config
            .labels
            .get(&format!("org.opencontainers.image.{name}"))
            .cloned()
    };
    let history = history?;
    let id = history.comment.clone()?;
    let is_top = label("revision").as_ref() == Some(&id);
    Some(model::port::Commit {
        author: history.author.clone().unwrap_or_default(),
        message: label("description").filter(|_| is_top).unwrap_or_default(),
        branch: String::new(),
        repository: label("source").filter(|_| is_top).unwrap_or_default(),
        committed_at: Timestamp::UNIX_EPOCH,
        id,
    })
}

/// Sends all blobs of an image of a layout to a repository and names its manifest, and then what the layout tells of the image.
/// Gives how many blobs of the image were sent, and what is missing beside it: it is there, and named, whatever that is.
pub fn push(
    layout: &super::layout::Layout,
    root: &Utf8Path,
    image: &super::Image,
    repository: &super::registry::Repository,
    tag: &str,
) -> Result<(usize, Option<String>), Error> {
    use super::Source as _;
    let mut sent = 0;
    for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
        let path = root.join(format!("blobs/sha256/{}", blob.digest.hex()));
        let file = std::fs::File::open(&path).map_err(super::io_error("open", path.as_std_path()))?;
        sent += usize::from(repository.send(blob, &file)?);
    }
    let (bytes, _) = layout.document(&image.digest.to_string())?;
    repository.tag(tag, manifest::MANIFEST, &bytes)?;
    let beside = attached::push(layout, root, &image.digest, repository);
    Ok((sent, beside.warning()))
}

/// Copies an image of a source, and what is told of it there, into a layout, every blob checked. For the command line, which has no layers.
/// Gives what of what is told is missing.
pub fn pull(
    source: &dyn super::Source,
    image: &super::Image,
    manifest_bytes: &[u8],
    into: &Utf8Path,
) -> Result<Option<String>, Error> {
    let writer = Writer::create(into)?;
    let described = |blob: &Descriptor| -> Result<(), Error> {
        let mut from = source.blob(blob)?;
        let written = writer.stream(&blob.media_type, |to| io::copy(&mut from, to).map(drop))?;
        match written.digest == blob.digest {
            true => Ok(()),
            false => Err(Error::Damaged {
                what: "a blob".to_owned(),
                expected: blob.digest,
            }),
        }
    };
    for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
        described(blob)?;
    }
    let manifest = writer.blob(manifest::MANIFEST, manifest_bytes)?;
    let told = attached::copy(source, &image.digest, &writer)?;
    let warning = told.warning();
    writer.finish(manifest, None, told.all)?;
    Ok(warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_name_is_the_latest() {
        let work = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(work.path()).unwrap();
        let layers = Layers::open(root).unwrap();
        for (tag, found) in [(None, "latest"), (Some("v1"), "v1")] {
            let to = root.join(found);
            std::fs::create_dir(&to).unwrap();
            let digest = write(&layers, &Digest::of("x"), &[], &to, Packing::Plain, tag, None).unwrap();
            let layout = super::super::layout::Layout::open(&to).unwrap();
            assert_eq!(layout.find(Some(found)).unwrap().digest, digest);
            assert!(layout.find(Some("other")).is_err());
        }
    }

    #[test]
    fn an_image_says_which_commit_it_was_made_for_and_why() {
        let said = model::port::Commit {
            id: "0123".repeat(10),
            author: "Ada <ada@acme.example>".to_owned(),
            message: "Less\n\nIt was too much.".to_owned(),
            branch: "main".to_owned(),
            repository: "http://git.example/acme/shop".to_owned(),
            committed_at: Timestamp::UNIX_EPOCH,
        };
        let record = |made_by: &str, commit: Option<&model::port::Commit>| Record {
            key: Digest::of(made_by),
            parent: None,
            made_by: made_by.to_owned(),
            size_bytes: 0,
            commit: commit.cloned(),
            created_at: Timestamp::UNIX_EPOCH,
            content: None,
            source: None,
            epoch: 0,
        };
        let image = Digest::of("image");
        let records = [record("base debian-12", None), record("infra/a.sh", Some(&said))];
        let config = config(&image, &records, Vec::new());
        let labels: Vec<(&str, &str)> = config
            .config
            .labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let image = image.to_string();
        assert_eq!(
            labels,
            [
                (IMAGE, image.as_str()),
                ("org.opencontainers.image.authors", &said.author),
                ("org.opencontainers.image.description", &said.message),
                ("org.opencontainers.image.revision", &said.id),
                ("org.opencontainers.image.source", &said.repository),
            ]
        );
    }
}
