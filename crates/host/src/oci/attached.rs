//! What is told of an image beside it: its bill of materials, and what was signed about it.
//!
//! Each is a manifest of its own that names the image as its `subject` (OCI image specification 1.1, "Guidelines for Artifact
//! Usage"). Tools find it by the image's digest: in the list of referrers that a registry keeps, by a tag where a registry keeps
//! none (OCI distribution specification 1.1, "Referrers Tag Schema"), and in a layout by its index. Whoever wrote a
//! layout or may write to a registry can tell anything of an image: this room reads it and believes none of it.

use std::{collections::BTreeMap, io::Read as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use camino::Utf8Path;
use model::Digest;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    DOCUMENT_BYTES, Descriptor, Document, Error, Source, check, io_error,
    layout::{Layout, Writer},
    manifest, refused,
    registry::Repository,
};

/// A bill of materials (SPDX 2.3, "Media type").
pub const SPDX: &str = "application/spdx+json";
/// Statements in the form of in-toto.
pub const STATEMENT: &str = "application/vnd.in-toto+json";
/// A statement with its signature.
pub const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The configuration of what has none (OCI image specification 1.1, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
const PREDICATE: &str = "in-toto.io/predicate-type";
/// So many are read of one image, and so much of all of them together.
pub const MOST: usize = 64;
const BYTES: u64 = 64 << 20;
/// Of a statement with its signature, which has some kilobytes. All of them fit into one answer.
const STATEMENT_BYTES: u64 = 256 << 10;
/// Of what a statement says that it is about: anybody may have written it.
const PREDICATE_CHARS: usize = 200;

/// A manifest that is about another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    schema_version: u64,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    subject: Descriptor,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Something that somebody tells of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it says that it is, such as [`SPDX`].
    pub kind: String,
    /// Its bytes, checked against its own digest and against nothing else.
    pub bytes: Vec<u8>,
}

/// What was found beside an image, and why the rest of it was not. Nothing there is needed: an image is good without it.
#[derive(Debug)]
pub struct Found<T> {
    pub all: Vec<T>,
    pub failed: Vec<Error>,
}

impl<T> Found<T> {
    /// What is missing, for whoever asked; `None` when nothing is.
    pub fn warning(&self) -> Option<String> {
        warning(&self.failed)
    }
}

/// Why something of what is told of an image is missing: the first reason, and how many there are.
pub fn warning(failed: &[Error]) -> Option<String> {
    let first = crate::logs::chain(failed.first()?);
    Some(match failed.len() {
        1 => first,
        several => format!("{first}; and {} more", several - 1),
    })
}

/// A manifest about an image, all of it read and checked.
struct Part {
    entry: Descriptor,
    document: Vec<u8>,
    artifact: Artifact,
    /// Of its configuration.
    config: Vec<u8>,
    told: Vec<Told>,
}

/// Writes what goes with an image into its layout. Gives the entries of the layout's index.
pub(super) fn write(
    writer: &Writer,
    image: &Descriptor,
    bill: &Value,
    envelopes: &[Value],
) -> Result<Vec<Descriptor>, Error> {
    let title = |name: &str| (TITLE.to_owned(), name.to_owned());
    let bill = written(
        writer,
        image,
        SPDX,
        SPDX,
        &bill.to_string(),
        [title("bill.spdx.json")].into(),
    )?;
    let mut entries = vec![bill];
    // What is read of one image: its bill is one of them.
    for (number, envelope) in envelopes.iter().take(MOST - 1).enumerate() {
        let mut about = BTreeMap::from([title(&format!("statement-{}.dsse.json", number + 1))]);
        if let Some(predicate) = predicate(envelope) {
            about.insert(PREDICATE.to_owned(), predicate);
        }
        let text = envelope.to_string();
        entries.push(written(writer, image, STATEMENT, ENVELOPE, &text, about)?);
    }
    Ok(entries)
}

fn written(
    writer: &Writer,
    image: &Descriptor,
    kind: &str,
    media_type: &str,
    text: &str,
    annotations: BTreeMap<String, String>,
) -> Result<Descriptor, Error> {
    let mut layer = writer.blob(media_type, text.as_bytes())?;
    layer.annotations.clone_from(&annotations);
    let artifact = Artifact {
        schema_version: 2,
        media_type: manifest::MANIFEST.to_owned(),
        artifact_type: kind.to_owned(),
        config: writer.blob(EMPTY, b"{}")?,
        layers: vec![layer],
        subject: image.bare(),
        annotations: annotations.clone(),
    };
    let artifact = serde_json::to_vec(&artifact).expect("a manifest is plain data");
    let mut entry = writer.blob(manifest::MANIFEST, &artifact)?;
    entry.artifact_type = Some(kind.to_owned());
    entry.annotations = annotations;
    Ok(entry)
}

/// What a statement says that it is about, by its envelope: the beginning of that.
pub fn predicate(envelope: &Value) -> Option<String> {
    let payload = STANDARD.decode(envelope["payload"].as_str()?).ok()?;
    let statement: Value = serde_json::from_slice(&payload).ok()?;
    let said = statement["predicateType"].as_str()?;
    Some(said.chars().take(PREDICATE_CHARS).collect())
}

/// Is this a manifest about this image?
pub(super) fn is_about(document: &[u8], image: &Digest) -> bool {
    serde_json::from_slice::<Artifact>(document).is_ok_and(|artifact| artifact.subject.digest == *image)
}

/// Is this a manifest about anything?
pub(super) fn has_subject(document: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct About {
        // Read and forgotten: a document may be of megabytes.
        subject: Option<BTreeMap<String, IgnoredAny>>,
    }
    serde_json::from_slice::<About>(document).is_ok_and(|about| about.subject.is_some())
}

/// What a source tells of an image, as far as it is a bill or a statement.
pub fn read(source: &dyn Source, image: &Digest) -> Found<Told> {
    let parts = parts(source, image);
    let told = parts.all.into_iter().flat_map(|part| part.told);
    Found {
        all: told.collect(),
        failed: parts.failed,
    }
}

/// The manifests about an image that have bills and statements and nothing else. Others may be anything, of any size.
fn parts(source: &dyn Source, image: &Digest) -> Found<Part> {
    let mut found = Found {
        all: Vec::new(),
        failed: Vec::new(),
    };
    let entries = source.referrers(image).unwrap_or_else(|error| {
        found.failed.push(error);
        Vec::new()
    });
    if entries.len() > MOST {
        let many = format!("{} things are told of it, and {MOST} are read", entries.len());
        found.failed.push(Error::TooLarge(many));
    }
    let mut left = BYTES;
    for entry in entries.into_iter().take(MOST) {
        match part(source, image, entry, &mut left) {
            Ok(part) => found.all.extend(part),
            Err(error) => found.failed.push(error),
        }
    }
    found
}

/// A manifest about an image with what it has, if it has nothing but bills and statements. `left`: so many bytes may be read.
fn part(
    source: &dyn Source,
    image: &Digest,
    entry: Descriptor,
    left: &mut u64,
) -> Result<Option<Part>, Error> {
    let (document, _) = source.document(&entry.digest.to_string())?;
    check(&entry.digest.to_string(), &document)?;
    // An index may be about an image, too, and a list may be wrong.
    let artifact: Option<Artifact> = serde_json::from_slice(&document).ok();
    let known = |artifact: &Artifact| {
        let mut kinds = artifact.layers.iter().map(|blob| blob.media_type.as_str());
        artifact.subject.digest == *image && kinds.all(|kind| [SPDX, ENVELOPE].contains(&kind))
    };
    let Some(artifact) = artifact.filter(known) else {
        return Ok(None);
    };
    let blobs = || artifact.layers.iter().chain([&artifact.config]);
    let large = |blob: &Descriptor| blob.media_type != SPDX && blob.size > STATEMENT_BYTES;
    let size = blobs().try_fold(0_u64, |sum, blob| sum.checked_add(blob.size));
    let rest = size.and_then(|size| left.checked_sub(size));
    let Some(rest) = rest.filter(|_| !blobs().any(large)) else {
        return Err(Error::TooLarge("what is told of it".to_owned()));
    };
    *left = rest;
    let config = bytes(source, &artifact.config)?;
    let told = artifact.layers.iter().map(|blob| {
        Ok(Told {
            kind: blob.media_type.clone(),
            bytes: bytes(source, blob)?,
        })
    });
    Ok(Some(Part {
        told: told.collect::<Result<_, Error>>()?,
        entry,
        document,
        artifact,
        config,
    }))
}

fn bytes(source: &dyn Source, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    // It has as many bytes as were counted, or another digest.
    let read = source.blob(blob)?.take(blob.size).read_to_end(&mut bytes);
    read.map_err(Error::Archive)?;
    match Digest::of(&bytes) == blob.digest {
        true => Ok(bytes),
        false => Err(Error::Damaged {
            what: "what is told of the image".to_owned(),
            expected: blob.digest,
        }),
    }
}

/// Copies what a source tells of an image into a layout. Gives the entries of the layout's index.
pub(super) fn copy(source: &dyn Source, image: &Digest, writer: &Writer) -> Result<Found<Descriptor>, Error> {
    let parts = parts(source, image);
    let mut entries = Vec::new();
    for mut part in parts.all {
        writer.blob(&part.artifact.config.media_type, &part.config)?;
        for told in &part.told {
            writer.blob(&told.kind, &told.bytes)?;
        }
        writer.blob(manifest::MANIFEST, &part.document)?;
        part.entry.artifact_type = Some(part.artifact.artifact_type);
        entries.push(part.entry);
    }
    Ok(Found {
        all: entries,
        failed: parts.failed,
    })
}

/// Sends what a layout tells of an image to where the image is. Gives what was not sent as `failed`: what a registry refuses
/// once is not tried again.
pub(super) fn push(
    layout: &Layout,
    root: &Utf8Path,
    image: &Digest,
    repository: &Repository,
) -> Found<Descriptor> {
    let Found { all, mut failed } = parts(layout, image);
    let (mut sent, mut unlisted) = (Vec::new(), Vec::new());
    for part in all {
        match send(&part, root, repository) {
            Ok(lists) => {
                sent.push(part.entry.clone());
                unlisted.extend((!lists).then_some(part.entry));
            }
            Err(error) => {
                failed.push(error);
                break;
            }
        }
    }
    if !unlisted.is_empty()
        && let Err(error) = list(repository, image, unlisted)
    {
        failed.push(error);
    }
    Found { all: sent, failed }
}

/// Whether the registry lists it then.
fn send(part: &Part, root: &Utf8Path, repository: &Repository) -> Result<bool, Error> {
    for blob in part.artifact.layers.iter().chain([&part.artifact.config]) {
        let path = root.join(super::layout::path_of(&blob.digest));
        let file = std::fs::File::open(&path).map_err(io_error("open", path.as_std_path()))?;
        repository.send(blob, &file)?;
    }
    repository.tag(&part.entry.digest.to_string(), manifest::MANIFEST, &part.document)
}

/// Keeps the list of what is about an image where the registry does not: under a tag. Who else writes it just then may be
/// lost; the specification has nothing against that.
fn list(repository: &Repository, image: &Digest, new: Vec<Descriptor>) -> Result<(), Error> {
    let tag = tag(image);
    let mut entries = listed(repository, image)?;
    let before = entries.len();
    for entry in new {
        if !entries.iter().any(|known| known.digest == entry.digest) {
            entries.push(entry);
        }
    }
    if entries.len() == before {
        return Ok(());
    }
    let index = manifest::index(&entries);
    if index.len() as u64 > DOCUMENT_BYTES {
        return Err(refused(&tag, "its list of what is told of the image is too long"));
    }
    repository.tag(&tag, manifest::INDEX, index.as_bytes()).map(drop)
}

/// What stands under that tag.
pub(super) fn listed(repository: &Repository, image: &Digest) -> Result<Vec<Descriptor>, Error> {
    match repository.document(&tag(image)) {
        Ok((bytes, media_type)) => match manifest::parse(&bytes, media_type.as_deref())? {
            Document::Index(entries) => Ok(entries),
            Document::Manifest(_) => Err(refused(
                &tag(image),
                "it is not a list of what is told of an image",
            )),
        },
        Err(Error::Missing(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn tag(image: &Digest) -> String {
    format!("sha256-{}", image.hex())
}

#[cfg(test)]
mod tests;
