use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Commit, Fault, LogRef};
use crate::{Digest, Place, Secret, Ticket, secret, spec};

/// Runs a buildspec in a sandbox.
pub trait Builder {
    fn build(&self, ticket: &Ticket, order: &BuildOrder)
    -> impl Future<Output = Result<Built, Fault>> + Send;
}

#[derive(Clone, Serialize, Deserialize)]
pub struct BuildOrder {
    pub place: Place,
    /// A tar of the source tree at the commit.
    pub source: Digest,
    pub buildspec: spec::Buildspec,
    pub commit: Commit,
    /// The number of this build in its app, from 1.
    pub number: u64,
    /// Variables that override the buildspec's own.
    pub variables: BTreeMap<String, String>,
    /// Values of the buildspec's `secrets-manager` and `parameter-store` variables; masked in the log.
    #[serde(serialize_with = "secret::all_in_the_clear")]
    pub secrets: BTreeMap<String, Secret>,
    pub limits: BuildLimits,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildLimits {
    /// Cores.
    pub cpu: f64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub pids: u32,
    pub timeout: SignedDuration,
    /// The share of tests that must pass, 0 to 100. Reports below it fail the build.
    pub pass_rate_percent: f64,
}

/// A build that succeeded. A build that failed is a [`Fault`] that blames the customer, with its log as evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Built {
    /// A tar of the artifacts (of the whole source tree when the buildspec names no artifacts): the revision.
    pub artifact: Digest,
    pub size_bytes: u64,
    pub phases: Vec<PhaseReport>,
    pub reports: Vec<TestReport>,
    pub exported: BTreeMap<String, String>,
    pub log: LogRef,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PhaseReport {
    /// CodeBuild's name of the phase: `INSTALL`, `PRE_BUILD`, `BUILD`, `POST_BUILD`, `UPLOAD_ARTIFACTS`, …
    pub name: String,
    pub status: PhaseStatus,
    #[schema(value_type = String)]
    pub started_at: Timestamp,
    pub duration_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PhaseStatus {
    Succeeded,
    Failed,
    TimedOut,
    /// Nobody wanted the build any more.
    Stopped,
}

/// The sum of one report group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestReport {
    pub group: String,
    pub total: u32,
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
    pub duration_ms: u64,
    /// Names of failed tests with their messages, the first 50.
    pub failures: Vec<(String, String)>,
}
