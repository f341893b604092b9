use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Commit, Fault, Layer};
use crate::{Digest, Secret, TenantName};

/// What is kept of images, and what can be told about them.
pub trait Shelf {
    /// All that is known of one image. Its bill of materials is made with it.
    fn describe(&self, image: &Digest) -> impl Future<Output = Result<ImageAbout, Fault>> + Send;

    /// What one image has and another has not.
    fn compare(
        &self,
        before: &Digest,
        after: &Digest,
    ) -> impl Future<Output = Result<ImageDiff, Fault>> + Send;

    /// The bases that are known, and what each image stands on.
    fn bases(&self) -> impl Future<Output = Result<BasesSeen, Fault>> + Send;

    /// Looks whether a base of the platform or a registry has become another one, and makes that. Whether it has.
    fn refresh(&self, order: &BaseOrder) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// What images take of the disk.
    fn usage(&self) -> impl Future<Output = Result<ImageUsage, Fault>> + Send;
}

/// Which base is looked at, and as whom.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseOrder {
    pub base: String,
    /// Whose it is, when it is a registry's.
    pub tenant: Option<TenantName>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::secret::maybe_in_the_clear"
    )]
    pub login: Option<Secret>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageAbout {
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What it stands on, such as `debian-12`.
    pub base: String,
    /// The base has become another one since.
    pub stale: bool,
    /// The base first.
    pub layers: Vec<Layer>,
    /// The scripts that made it, with the digests of their bytes.
    pub scripts: Vec<ScriptAbout>,
    /// The first commit that it was made for, as far as who asks may know.
    pub commit: Option<Commit>,
    /// The digest of its bill of materials, which is SPDX 2.3.
    #[schema(value_type = String)]
    pub bill: Digest,
    pub packages: u64,
    pub size_bytes: u64,
    /// What was looked at in its files.
    pub checks: Vec<ImageCheck>,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

/// What an image came from in one app. The image is what it holds: the same files may have been made by another app before,
/// of another tenant even, whose names are nobody else's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageOrigin {
    /// As the app's `vend.yaml` names it.
    pub base: String,
    /// As the app's own bake made them, the base first; empty when nobody knows any more.
    pub layers: Vec<Layer>,
    pub commit: Commit,
    pub made_at: Timestamp,
}

/// How an image is written for other tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageExport {
    /// `gzip`, `zstd` or `none`.
    pub compression: String,
    pub tag: Option<String>,
    /// Whose names it has; without, those of whoever made it first.
    pub origin: Option<ImageOrigin>,
    /// What was signed about it, as DSSE envelopes: it goes with the image, as its bill of materials does. `None`: the image
    /// goes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Vec<serde_json::Value>>,
}

/// An image that was taken in, and what came with it. Nobody vouches for that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageTaken {
    pub image: Digest,
    /// Whether a bill of materials came with it, and says what is found in the image here.
    #[serde(default)]
    pub bill: Option<bool>,
    /// DSSE envelopes.
    #[serde(default)]
    pub told: Vec<serde_json::Value>,
    /// Why something of what came with it could not be read.
    #[serde(default)]
    pub warning: Option<String>,
}

impl ImageOrigin {
    /// Who made each of an image's layers, where this tells.
    pub fn made_by(&self, count: usize) -> Vec<String> {
        match self.known(count) {
            Some(layers) => layers.iter().map(|layer| layer.made_by.clone()).collect(),
            None => (0..count)
                .map(|number| match number {
                    0 => format!("base {}", self.base),
                    _ => String::new(),
                })
                .collect(),
        }
    }

    /// Its layers, if they are the image's. Before scripts' digests were kept with them, they may have been another's.
    fn known(&self, count: usize) -> Option<&[Layer]> {
        let own = |layer: &Layer| layer.source.is_some();
        let whole = self.layers.len() == count && self.layers.iter().skip(1).all(own);
        whole.then_some(&self.layers)
    }
}

impl ImageAbout {
    /// The same by the names of one app, and nobody else's.
    pub fn of(mut self, origin: &ImageOrigin) -> Self {
        let names = origin.made_by(self.layers.len());
        match origin.known(self.layers.len()) {
            Some(layers) => self.layers = layers.to_vec(),
            None => {
                for (layer, made_by) in self.layers.iter_mut().zip(names) {
                    (layer.made_by, layer.source) = (made_by, None);
                }
            }
        }
        let script = |layer: &Layer| {
            let (path, digest) = (layer.made_by.clone(), layer.source?);
            Some(ScriptAbout { path, digest })
        };
        self.scripts = self.layers.iter().skip(1).filter_map(script).collect();
        self.base.clone_from(&origin.base);
        self.commit = Some(origin.commit.clone());
        self.created_at = origin.made_at;
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScriptAbout {
    pub path: String,
    #[schema(value_type = String)]
    pub digest: Digest,
}

/// A statement about an image's files that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageCheck {
    pub name: String,
    pub passed: bool,
    /// What was found instead; empty when it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub found: String,
}

/// What differs between two images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDiff {
    pub packages: Vec<PackageChange>,
    /// The first of them, in the order of their paths.
    pub files: Vec<FileChange>,
    /// How many files differ in all.
    pub files_changed: u64,
    pub size_before: u64,
    pub size_after: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PackageChange {
    /// `deb`, `rpm`, `apk`, `pypi`, `npm`, `gem`, `cargo`, `golang` or `composer`.
    pub kind: String,
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileChange {
    pub path: String,
    /// `file 644 0:0 1234 bytes`
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BasesSeen {
    pub bases: Vec<BaseSeen>,
    /// What the base of each image holds.
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub images: BTreeMap<Digest, Digest>,
}

impl BasesSeen {
    /// Whether this image stands on what `base` named once, and names no more. One image may be several apps', each with
    /// a base of another name.
    pub fn is_stale(&self, image: &Digest, base: &str) -> bool {
        // Several may have asked for one name: tenants, and builds. Who asked last knows what it is now.
        let named = self.bases.iter().filter(|seen| seen.base == base);
        let now = named.max_by_key(|seen| seen.checked_at);
        now.zip(self.images.get(image))
            .is_some_and(|(now, before)| now.content != *before)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BaseSeen {
    /// `debian-12`, `oci:registry.example/base:1`
    pub base: String,
    /// Whose login got it, when it is a registry's.
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    #[schema(value_type = String)]
    pub key: Digest,
    /// What it holds: an image that came back from elsewhere has the same under another key.
    #[schema(value_type = String)]
    pub content: Digest,
    #[schema(value_type = String)]
    pub checked_at: Timestamp,
}

/// What images, and the caches of builds and bakes, take of the disk, and may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageUsage {
    pub bytes: u64,
    pub budget_bytes: u64,
}

impl ImageUsage {
    /// Near its end: what nothing needs goes now, and not at the next round.
    pub fn is_near(&self) -> bool {
        self.bytes >= self.near_bytes()
    }

    /// Where its end is near.
    pub fn near_bytes(&self) -> u64 {
        self.budget_bytes / 10 * 9
    }

    /// No new image is begun.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.budget_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(made_by: &str, source: Option<&str>) -> Layer {
        Layer {
            key: Digest::of(made_by),
            made_by: made_by.to_owned(),
            size_bytes: 1,
            source: source.map(Digest::of),
        }
    }

    fn commit(author: &str) -> Commit {
        Commit {
            id: "0".repeat(40),
            author: author.to_owned(),
            message: format!("of {author}"),
            branch: "main".to_owned(),
            repository: format!("https://git.example/{author}"),
            committed_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_image_is_stale_by_the_name_of_the_base_that_its_app_gave() {
        let image = Digest::of("image");
        let seen = |base: &str, content: &str, at: i64| BaseSeen {
            base: base.to_owned(),
            tenant: None,
            key: Digest::of(at.to_string()),
            content: Digest::of(content),
            checked_at: Timestamp::from_second(at).unwrap(),
        };
        let mut bases = BasesSeen {
            bases: vec![seen("oci:one/a", "old", 1), seen("oci:two/b", "new", 1)],
            images: BTreeMap::from([(image, Digest::of("old"))]),
        };
        let stale = |bases: &BasesSeen, base| bases.is_stale(&image, base);
        assert!(!stale(&bases, "oci:one/a"), "it is what its name names");
        assert!(
            stale(&bases, "oci:two/b"),
            "for whom it has this name it is an old one"
        );
        assert!(!stale(&bases, "tar:base.tar"), "it cannot move");
        assert!(
            !bases.is_stale(&Digest::of("other"), "oci:two/b"),
            "it is not here"
        );
        bases.bases.push(seen("oci:one/a", "new", 2));
        assert!(stale(&bases, "oci:one/a"), "who asked last knows");
    }

    #[test]
    fn an_app_sees_an_image_by_its_own_names() {
        let foreign = ImageAbout {
            digest: Digest::of("image"),
            base: "oci:rival.example/base:1".to_owned(),
            stale: false,
            layers: vec![
                layer("base oci:rival.example/base:1", Some("rival")),
                layer("rival/secret.sh", Some("rival")),
            ],
            scripts: vec![ScriptAbout {
                path: "rival/secret.sh".to_owned(),
                digest: Digest::of("rival"),
            }],
            commit: Some(commit("rival")),
            bill: Digest::of("bill"),
            packages: 1,
            size_bytes: 2,
            checks: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
        };
        let origin = |layers| ImageOrigin {
            base: "tar:base.tar".to_owned(),
            layers,
            commit: commit("ada"),
            made_at: Timestamp::UNIX_EPOCH,
        };
        let own = vec![
            layer("base tar:base.tar", Some("base")),
            layer("infra/a.sh", Some("a")),
        ];
        let (old, none) = (vec![own[0].clone(), layer("rival/secret.sh", None)], Vec::new());
        for (layers, made_by, scripts) in [(own, "infra/a.sh", 1), (old, "", 0), (none, "", 0)] {
            let seen = foreign.clone().of(&origin(layers));
            let text = serde_json::to_string(&seen).unwrap();
            assert!(!text.contains("rival"), "{text}");
            assert_eq!(
                (seen.layers[1].made_by.as_str(), seen.scripts.len()),
                (made_by, scripts)
            );
            assert_eq!(seen.commit.unwrap().author, "ada");
        }
    }
}
