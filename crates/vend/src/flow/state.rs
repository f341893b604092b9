//! The parts of an execution's state that several stages read.

use model::Digest;
use serde::Deserialize;

/// What `Source` left.
#[derive(Deserialize)]
pub struct Sourced {
    /// A tar of the source tree.
    pub digest: Digest,
}

/// What `Plan` left, or what a resizing began with.
#[derive(Deserialize)]
pub struct Planned {
    /// The release that is to be live.
    pub release: u64,
    /// The one that was live then.
    #[serde(default)]
    pub from: Option<u64>,
}
