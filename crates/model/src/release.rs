//! A release: image, revision and configuration, numbered per environment and immutable.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Digest, port::Commit, spec};

/// Everything that decides how an environment behaves, so that going back to it restores all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// v1, v2, … in its environment.
    pub number: u64,
    pub commit: Commit,
    /// Tar of the source tree.
    pub source: Digest,
    pub image: Digest,
    /// Tar of the revision.
    pub revision: Digest,
    /// The environment's resolved `vend.yaml`.
    pub spec: spec::Environment,
    /// Versions of the secrets that it uses, by name.
    pub secrets: std::collections::BTreeMap<String, u64>,
    pub created_at: Timestamp,
}

/// Where a release is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseState {
    /// Being deployed, or waiting for it.
    Pending,
    /// Gets the traffic.
    Live,
    /// Was live. Its image and revision are kept while a rollback may want them.
    Retired,
    /// Never got traffic, or was taken back because it failed.
    Failed,
}
