//! What an execution will change, shown before it changes it.
//!
//! An approval binds to the digest of the plan: when anything in it changes, the approval is void.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Digest, port::Commit};

/// The whole of what a release or a rollback will do to one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// `acme/shop/production`.
    pub place: String,
    pub kind: PlanKind,
    /// The release that serves now, if any.
    pub from: Option<u64>,
    /// The release that this makes or goes back to.
    pub to: u64,
    pub changes: Vec<Change>,
    /// Commits between the two releases, newest first; of a rollback, those that are taken back.
    pub commits: Vec<Commit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlanKind {
    Release,
    Rollback,
    Destroy,
}

/// One thing that will be different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    pub subject: Subject,
    /// What exactly: a file's path, a rule's host name, a configuration key.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    Image,
    Revision,
    File,
    Hosts,
    Rule,
    Database,
    Configuration,
    Secret,
    /// What tests said of the release: of each report group.
    Tests,
}

impl Plan {
    /// What an approval is bound to: the digest of the plan's JSON.
    pub fn digest(&self) -> Digest {
        Digest::of(serde_json::to_vec(self).expect("a plan is plain data"))
    }
}

impl Change {
    pub fn new(
        subject: Subject,
        name: impl Into<String>,
        before: Option<String>,
        after: Option<String>,
    ) -> Self {
        Self {
            subject,
            name: name.into(),
            before,
            after,
        }
    }
}
