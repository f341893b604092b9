use std::collections::BTreeSet;

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

    /// The bases that are known, and the images that stand on one that has become another.
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
    /// The commit that its last layer was made for.
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
    /// `deb`, `rpm`, `apk`, `pypi`, `npm`, `gem`, `cargo` or `golang`.
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
    #[schema(value_type = Vec<String>)]
    pub stale: BTreeSet<Digest>,
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
