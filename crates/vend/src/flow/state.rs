//! The parts of an execution's state that several stages read.

use model::{Digest, release::Release, spec::Strategy};
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
    /// The hosts that are there get the release.
    #[serde(default)]
    pub rolls: bool,
    /// New hosts get the traffic by and by.
    #[serde(default)]
    pub steps: bool,
}

impl Planned {
    /// The release that was live then, if this brings another.
    pub fn old(&self) -> Option<u64> {
        self.from.filter(|from| *from != self.release)
    }

    /// How its deployment goes on record.
    pub fn strategy(&self, release: &Release) -> Strategy {
        match (self.rolls, self.steps) {
            (true, _) => Strategy::InPlace,
            (_, true) => release.spec.deploy.strategy,
            _ if release.spec.placement.is_some() => Strategy::InPlace,
            _ => Strategy::BlueGreen,
        }
    }
}
