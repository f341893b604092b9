//! Webhooks of git hosts: what a delivery says, and whether it is who it says.
//!
//! Pure: headers and the raw body come in, a verdict goes out, offline as well as behind a listener.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::port::Commit;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Github,
    Gitlab,
}

/// What a delivery asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Push(Push),
    /// A branch or tag is gone.
    Delete {
        reference: String,
        repository: String,
    },
    /// Of no interest here, and why.
    Ignored {
        kind: String,
        reason: String,
    },
    /// The host asks whether we are there.
    Ping,
}

/// Commits arrived on a branch or tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Push {
    /// `refs/heads/main`
    pub reference: String,
    /// The branch's name; `None` for a tag.
    pub branch: Option<String>,
    pub before: String,
    pub commit: Commit,
    /// Where to clone from.
    pub clone_url: String,
    /// Who pushed.
    pub sender: String,
}
