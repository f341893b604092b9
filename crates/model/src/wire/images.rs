use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AppName, Digest, TenantName,
    port::{BaseSeen, Commit, ImageAbout},
};

/// All about one image, with what the platform has signed about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageShown {
    #[serde(flatten)]
    pub about: ImageAbout,
    /// The caller's apps whose releases stand on it, in the order in which they first did; what is said above is of the first.
    #[serde(default)]
    pub apps: Vec<ImageApp>,
    /// DSSE envelopes of in-toto statements, oldest first. The key is that of `GET /v1/audit/public-key`.
    #[schema(value_type = Vec<Object>)]
    pub attestations: Vec<serde_json::Value>,
}

/// An app that an image is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageApp {
    #[schema(value_type = String)]
    pub tenant: TenantName,
    #[schema(value_type = String)]
    pub app: AppName,
    /// Of its first release that stands on it.
    pub commit: Commit,
}

/// An image that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    #[schema(value_type = String)]
    pub image: Digest,
    /// Whether a bill of materials came with it, and says what is found in the image here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bill: Option<bool>,
    /// What came with it that somebody signed. None of it is kept: the platform believes what it has signed itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<ImportedStatement>,
    /// Why something of what came with it could not be read. The image is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Something that came with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedStatement {
    /// Its predicate type, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// It was signed by this platform, and about this image.
    pub own: bool,
}

/// Which bases are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRefresh {
    /// As `vend.yaml` names it; all that live releases stand on when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// The bases that are known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bases {
    pub bases: Vec<BaseSeen>,
    /// Images of the newest releases that stand on one that has become another.
    #[schema(value_type = Vec<String>)]
    pub stale: BTreeSet<Digest>,
}

/// What came of looking at bases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refreshed {
    pub bases: Vec<RefreshedBase>,
    /// Environments whose live release is made again on the new base, as its own `vend.yaml` wants.
    pub queued: Vec<super::Place>,
}

/// What came of looking at one base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefreshedBase {
    pub base: String,
    /// Whose login was used, when it is a registry's.
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantName>,
    pub changed: bool,
    /// Why it could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
