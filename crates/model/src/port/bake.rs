use camino::Utf8PathBuf;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Fault, LogRef};
use crate::{Digest, Place, Secret, Ticket};

/// What a commit says about itself. Travels with every push, revision, image and release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Commit {
    /// 40 or 64 hex digits.
    pub id: String,
    pub author: String,
    pub message: String,
    pub branch: String,
    pub repository: String,
    #[schema(value_type = String)]
    pub committed_at: Timestamp,
}

/// Makes images.
pub trait Bakery {
    /// Bakes the image, or finds it: an image whose base, scripts and inputs are the same is not baked again.
    fn bake(&self, ticket: &Ticket, order: &BakeOrder) -> impl Future<Output = Result<Baked, Fault>> + Send;

    /// The image that `bake` would make, without making it; `None` when it would have to be baked.
    fn find(&self, order: &BakeOrder) -> impl Future<Output = Result<Option<Baked>, Fault>> + Send;
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct BakeOrder {
    pub place: Place,
    /// A tar of the source tree: where scripts and inputs come from.
    pub source: Digest,
    /// A [`crate::spec::Base`] as text, such as `debian-12`.
    pub base: String,
    /// What the base's registry is asked with: `USER:PASSWORD`, or a token alone.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::secret::maybe_in_the_clear"
    )]
    pub login: Option<Secret>,
    /// Run as root in the image, in this order; paths in the source tree.
    pub scripts: Vec<Utf8PathBuf>,
    /// Globs: the files of the source tree that the scripts see. The scripts themselves always count.
    pub inputs: Vec<String>,
    pub commit: Commit,
    /// The branch of the app's production, which others come from: with whose layers and downloads a new branch begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    pub timeout: SignedDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baked {
    /// The digest of the image: of the list of its layers' digests.
    pub image: Digest,
    pub layers: Vec<Layer>,
    /// Every layer was there before.
    pub reused: bool,
    pub duration_ms: u64,
    /// `None` when nothing ran.
    pub log: Option<LogRef>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Layer {
    /// Of what made the layer: parent, script, inputs.
    #[schema(value_type = String)]
    pub key: Digest,
    /// What made it, for people: `base debian-12`, `infra/install.sh`.
    pub made_by: String,
    pub size_bytes: u64,
    /// Of the bytes of the script that made it, or of what a base was made from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<Digest>,
}
