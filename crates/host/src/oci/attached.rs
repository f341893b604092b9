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
use serde::{Deserialize, Serialize};
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
const MOST: usize = 64;
const BYTES: u64 = 64 << 20;

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

/// Writes what goes with an image into its layout. Gives the entries of the layout's index.
pub(super) fn write(
    writer: &Writer,
    image: &Descriptor,
    bill: &Value,
    envelopes: &[Value],
) -> Result<Vec<Descriptor>, Error> {
    let title = |name: &str| (TITLE.to_owned(), name.to_owned());
    let bill = part(
        writer,
        image,
        SPDX,
        SPDX,
        &bill.to_string(),
        [title("bill.spdx.json")].into(),
    )?;
    let mut entries = vec![bill];
    for (number, envelope) in envelopes.iter().enumerate() {
        let mut about = BTreeMap::from([title(&format!("statement-{}.dsse.json", number + 1))]);
        if let Some(predicate) = predicate(envelope) {
            about.insert(PREDICATE.to_owned(), predicate);
        }
        let text = envelope.to_string();
        entries.push(part(writer, image, STATEMENT, ENVELOPE, &text, about)?);
    }
    Ok(entries)
}

fn part(
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

/// What a statement says that it is about, by its envelope.
pub fn predicate(envelope: &Value) -> Option<String> {
    let payload = STANDARD.decode(envelope["payload"].as_str()?).ok()?;
    let statement: Value = serde_json::from_slice(&payload).ok()?;
    Some(statement["predicateType"].as_str()?.to_owned())
}

/// Is this a manifest about this image?
pub(super) fn is_about(document: &[u8], image: &Digest) -> bool {
    serde_json::from_slice::<Artifact>(document).is_ok_and(|artifact| artifact.subject.digest == *image)
}

/// Is this a manifest about anything?
pub(super) fn has_subject(document: &[u8]) -> bool {
    let document: Option<Value> = serde_json::from_slice(document).ok();
    document.is_some_and(|document| document["subject"].is_object())
}

/// What a source tells of an image, as far as it is a bill or a statement.
pub fn read(source: &dyn Source, image: &Digest) -> Result<Vec<Told>, Error> {
    let mut told = Vec::new();
    for (_, _, artifact) in artifacts(source, image)? {
        for blob in &artifact.layers {
            told.push(Told {
                kind: blob.media_type.clone(),
                bytes: bytes(source, blob)?,
            });
        }
    }
    Ok(told)
}

/// The manifests about an image that have bills and statements and nothing else, each with its bytes. Others may be anything,
/// of any size.
fn artifacts(source: &dyn Source, image: &Digest) -> Result<Vec<(Descriptor, Vec<u8>, Artifact)>, Error> {
    let (mut found, mut left) = (Vec::new(), BYTES);
    for entry in source.referrers(image)?.into_iter().take(MOST) {
        let (document, _) = source.document(&entry.digest.to_string())?;
        check(&entry.digest.to_string(), &document)?;
        // An index may be about an image, too, and a list may be wrong.
        let artifact: Option<Artifact> = serde_json::from_slice(&document).ok();
        let known = |artifact: &Artifact| {
            let mut kinds = artifact.layers.iter().map(|blob| blob.media_type.as_str());
            artifact.subject.digest == *image && kinds.all(|kind| [SPDX, ENVELOPE].contains(&kind))
        };
        let Some(artifact) = artifact.filter(known) else {
            continue;
        };
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            let rest = left.checked_sub(blob.size);
            left = rest.ok_or_else(|| Error::TooLarge("what is told of the image".to_owned()))?;
        }
        found.push((entry, document, artifact));
    }
    Ok(found)
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
pub(super) fn copy(source: &dyn Source, image: &Digest, writer: &Writer) -> Result<Vec<Descriptor>, Error> {
    let mut entries = Vec::new();
    for (mut entry, document, artifact) in artifacts(source, image)? {
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            writer.blob(&blob.media_type, &bytes(source, blob)?)?;
        }
        writer.blob(manifest::MANIFEST, &document)?;
        entry.artifact_type = Some(artifact.artifact_type);
        entries.push(entry);
    }
    Ok(entries)
}

/// Sends what a layout tells of an image to where the image is.
pub(super) fn push(
    layout: &Layout,
    root: &Utf8Path,
    image: &Digest,
    repository: &Repository,
) -> Result<usize, Error> {
    let (mut sent, mut unlisted) = (0, Vec::new());
    for (entry, document, artifact) in artifacts(layout, image)? {
        for blob in artifact.layers.iter().chain([&artifact.config]) {
            let path = root.join(super::layout::path_of(&blob.digest));
            let file = std::fs::File::open(&path).map_err(io_error("open", path.as_std_path()))?;
            sent += usize::from(repository.send(blob, &file)?);
        }
        let lists = repository.tag(&entry.digest.to_string(), manifest::MANIFEST, &document)?;
        if !lists {
            unlisted.push(entry);
        }
    }
    if !unlisted.is_empty() {
        list(repository, image, unlisted)?;
    }
    Ok(sent)
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
