//! Manifests, indexes and configurations, from text that nobody vouches for.

use std::collections::BTreeMap;

use model::Digest;
use serde::{Deserialize, Serialize};

use super::{DOCUMENT_BYTES, Error, refused};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// More than anybody makes.
const LAYERS: usize = 500;
const ENTRIES: usize = 1000;

/// What a tag or digest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    /// The base first.
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What a manifest is that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// What it describes, and nothing about it.
    pub fn bare(&self) -> Self {
        Self {
            media_type: self.media_type.clone(),
            digest: self.digest,
            size: self.size,
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// How a layer's tar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// What an image is meant to run as, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    pub architecture: String,
    pub os: String,
    #[serde(default)]
    pub config: Run,
    pub rootfs: Rootfs,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Run {
    #[serde(skip_serializing_if = "none", deserialize_with = "nullable")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "none", deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    #[serde(rename = "type")]
    pub kind: String,
    pub diff_ids: Vec<Digest>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

fn none(texts: &[String]) -> bool {
    texts.is_empty()
}

/// Docker writes `null` where it means nothing.
fn nullable<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index. `media_type` is what its source calls it; what the text calls itself must agree.
pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document, Error> {
    let wrong = |why: &str| refused("the manifest", why);
    if bytes.len() as u64 > DOCUMENT_BYTES {
        return Err(Error::TooLarge(format!("a manifest of {} bytes", bytes.len())));
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))?;
    if raw.schema_version != 2 {
        return Err(wrong("only schema version 2 is read"));
    }
    let said = media_type.filter(|said| is_index(said) || is_manifest(said));
    if let (Some(said), Some(own)) = (said, &raw.media_type)
        && is_index(said) != is_index(own)
    {
        return Err(wrong("it says that it is something else than the registry says"));
    }
    // A text that is both may be read as one by one tool and as the other by the next.
    match (raw.config, raw.layers, raw.manifests) {
        (None, None, Some(manifests)) if manifests.len() <= ENTRIES => Ok(Document::Index(manifests)),
        (Some(config), Some(layers), None) if layers.len() <= LAYERS => {
            if !matches!(config.media_type.as_str(), CONFIG | DOCKER_CONFIG) {
                return Err(wrong("it is not of an image of a root file system"));
            }
            for layer in &layers {
                packing(&layer.media_type)?;
            }
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        (_, _, Some(_)) | (_, Some(_), _) => Err(wrong("it is both a manifest and an index, or too long")),
        _ => Err(wrong("it is neither a manifest nor an index")),
    }
}

/// An index of these.
pub fn index(entries: &[Descriptor]) -> String {
    serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string()
}

fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// How a layer of this media type is packed.
pub fn packing(media_type: &str) -> Result<Packing, Error> {
    Ok(match media_type {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Packing::Plain
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Packing::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Packing::Zstd,
        // Layers that a registry may not give out, and encrypted ones.
        other => {
            return Err(refused(
                "a layer",
                &format!("`{}` is not read", other.chars().take(100).collect::<String>()),
            ));
        }
    })
}

impl Packing {
    /// The media type of a layer that we write.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// What this machine's architecture is called.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The entry of an index that is for this machine.
pub fn choose<'a>(entries: &'a [Descriptor], what: &str) -> Result<&'a Descriptor, Error> {
    let images = || {
        entries
            .iter()
            .filter(|entry| is_manifest(&entry.media_type) || is_index(&entry.media_type))
    };
    let fits = |entry: &&Descriptor| {
        let platform = entry.platform.as_ref();
        platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture())
    };
    // An index of one image need not say what it is for.
    let only = || {
        images()
            .next()
            .filter(|entry| images().count() == 1 && entry.platform.is_none())
    };
    images().find(fits).or_else(only).ok_or_else(|| {
        let found: Vec<String> = images()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(|platform| {
                format!("{}/{}", platform.os, platform.architecture)
                    .chars()
                    .take(40)
                    .collect()
            })
            .take(20)
            .collect();
        Error::Platform {
            what: what.chars().take(200).collect(),
            wanted: format!("linux/{}", architecture()),
            found: if found.is_empty() {
                "none".to_owned()
            } else {
                found.join(", ")
            },
        }
    })
}

/// Reads a configuration.
pub fn config(bytes: &[u8]) -> Result<Config, Error> {
    let config: Config =
        serde_json::from_slice(bytes).map_err(|error| refused("the configuration", &error.to_string()))?;
    match config.rootfs.kind.as_str() {
        "layers" if config.rootfs.diff_ids.len() <= LAYERS => Ok(config),
        _ => Err(refused("the configuration", "it does not list layers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, platform: Option<(&str, &str)>) -> serde_json::Value {
        let mut value =
            serde_json::json!({ "mediaType": media_type, "digest": Digest::of(media_type), "size": 3 });
        if let Some((os, architecture)) = platform {
            value["platform"] = serde_json::json!({ "os": os, "architecture": architecture });
        }
        value
    }

    fn check(value: serde_json::Value, media_type: Option<&str>) -> Result<Document, Error> {
        parse(value.to_string().as_bytes(), media_type)
    }

    #[test]
    fn both_kinds_of_manifest_are_read() {
        for (config, layer) in [
            (CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd"),
            (DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ] {
            let text = serde_json::json!({ "schemaVersion": 2, "config": descriptor(config, None), "layers": [descriptor(layer, None)] });
            let Document::Manifest(manifest) = check(text, Some(MANIFEST)).unwrap() else {
                panic!("it is a manifest");
            };
            assert_eq!(manifest.layers[0].media_type, layer);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar", None);
        let config = descriptor(CONFIG, None);
        let list = descriptor(MANIFEST, None);
        for text in [
            serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer], "manifests": [list] }),
            serde_json::json!({ "schemaVersion": 1, "config": config, "layers": [layer] }),
            serde_json::json!({ "schemaVersion": 2 }),
            serde_json::json!({ "schemaVersion": 2, "layers": [layer] }),
            serde_json::json!({ "schemaVersion": 2, "config": descriptor("text/html", None), "layers": [layer] }),
            serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [descriptor("text/html", None)] }),
        ] {
            assert!(check(text.clone(), None).is_err(), "{text}");
        }
        let lying = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [list] });
        assert!(check(lying, Some(MANIFEST)).is_err());
        assert!(parse(b"{", None).is_err() && parse(b"[]", None).is_err());
    }

    #[test]
    fn the_machine_s_own_platform_is_chosen() {
        let entry = |platform| serde_json::from_value(descriptor(MANIFEST, platform)).unwrap();
        let all: Vec<Descriptor> = vec![
            entry(Some(("linux", "s390x"))),
            entry(Some(("unknown", "unknown"))),
            entry(Some(("linux", architecture()))),
        ];
        assert_eq!(
            choose(&all, "x").unwrap().platform.as_ref().unwrap().architecture,
            architecture()
        );
        let error = choose(&all[..2], "x").unwrap_err().to_string();
        assert!(error.ends_with("it has linux/s390x"), "{error}");
        assert!(choose(&[entry(None)], "x").is_ok() && choose(&[], "x").is_err());
    }
}
