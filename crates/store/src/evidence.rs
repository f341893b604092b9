//! What was done for releases, and what came of it: builds, bakes, deployments, verdicts.

mod bakes;
mod builds;
mod deployments;

pub use bakes::{Bake, Image, NewBake};
pub use builds::{Build, NewBuild};
pub use deployments::{Deployment, DeploymentState, JudgedHost, NewDeployment};

use serde::{Deserialize, Serialize};

/// Of a build or a bake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkState {
    Running,
    Succeeded,
    Failed,
}
