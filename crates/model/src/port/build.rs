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

/// The variable that holds `USER:PASSWORD` for the host of the app's repository.
pub const GIT_CREDENTIALS: &str = "VEND_GIT_CREDENTIALS";

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
    /// Values of the buildspec's `secrets-manager` and `parameter-store` variables; masked in the log. Also
    /// [`GIT_CREDENTIALS`], where the buildspec asks for git's helper.
    #[serde(serialize_with = "secret::all_in_the_clear")]
    pub secrets: BTreeMap<String, Secret>,
    /// What the builder must be, such as `arch: arm64`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the build stands on: absent and `standard` are the platform's own image, another name is a base.
    #[serde(default)]
    pub image: Option<String>,
    /// What the registry of `image` is asked with, and no other.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "secret::maybe_in_the_clear"
    )]
    pub login: Option<Secret>,
    /// The build of a batch that this is.
    #[serde(default)]
    pub task: Option<spec::build::Task>,
    /// The push that it is of; absent from a build that no push began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushEvent>,
    /// The branch of the app's production, which others come from: whose caches a new branch begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    pub limits: BuildLimits,
}

/// What was told of a push when it came, beside its commit. What nobody said is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushEvent {
    /// What the branch stood at before: zeros for a new one, as git writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The account of who pushed, as the git host numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
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
    /// Somebody asks for that share: a report that tells of nothing fails the build, too.
    #[serde(default)]
    pub tests_asked: bool,
    /// The share of lines that tests must reach, 0 to 100. Reports below it, and a build without any, fail.
    #[serde(default)]
    pub coverage_percent: Option<f64>,
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
    /// What the buildspec calls the artifact, expanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tars of the secondary artifacts, by identifier.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secondary: BTreeMap<String, Digest>,
}

/// One phase of a build's record, as CodeBuild's BuildPhase: from `SUBMITTED`, when the build was taken, to `COMPLETED`,
/// which only says when it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhaseReport {
    /// CodeBuild's name of the phase: `SUBMITTED`, `QUEUED`, …, `INSTALL`, `BUILD`, …, `FINALIZING`, `COMPLETED`.
    pub name: String,
    /// Absent from `COMPLETED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PhaseStatus>,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Absent from `COMPLETED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl PhaseReport {
    /// It ended, and not well.
    pub fn broke(&self) -> bool {
        self.status.is_some_and(|status| status != PhaseStatus::Succeeded)
    }
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
    /// Of a group that tells which lines tests reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// Against the branch's run before; absent from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<TestChanges>,
}

/// What tests reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Coverage {
    pub lines: Share,
    pub branches: Share,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    pub covered: u64,
    pub total: u64,
}

impl Coverage {
    pub fn add(&mut self, other: &Self) {
        self.lines.add(&other.lines);
        self.branches.add(&other.branches);
    }

    /// 0 to 100; `None` where there are no lines.
    pub fn lines_percent(&self) -> Option<f64> {
        (self.lines.total > 0).then(|| 100.0 * self.lines.covered as f64 / self.lines.total as f64)
    }
}

impl Share {
    pub fn count(&mut self, covered: bool) {
        self.total = self.total.saturating_add(1);
        self.covered = self.covered.saturating_add(covered.into());
    }

    pub fn add(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        self.covered = self.covered.saturating_add(other.covered);
    }
}

/// What a run of tests says against the runs before, on the same branch. Names, the first 50 of each kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TestChanges {
    /// Failed, and did not before: it passed, or never ran.
    pub new_failures: Vec<String>,
    /// Those of them that passed before.
    #[serde(default)]
    pub broke: Vec<String>,
    /// Passed, and did not before.
    pub fixed: Vec<String>,
    /// Passed and failed in turns in the last ten runs.
    pub flaky: Vec<String>,
    pub slower: Vec<Slower>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_before_percent: Option<f64>,
}

impl TestChanges {
    /// Nothing is to be told.
    pub fn is_empty(&self) -> bool {
        self.new_failures.is_empty()
            && self.fixed.is_empty()
            && self.flaky.is_empty()
            && self.slower.is_empty()
    }

    /// For a line of a log or a plan: `2 new failures, 1 fixed, 1 flaky, 1 slower`.
    pub fn summary(&self) -> String {
        let counts = [
            (self.new_failures.len(), "new failures"),
            (self.fixed.len(), "fixed"),
            (self.flaky.len(), "flaky"),
            (self.slower.len(), "slower"),
        ];
        let told: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| match (count, *what) {
                (1, "new failures") => "1 new failure".to_owned(),
                (count, what) => format!("{count} {what}"),
            })
            .collect();
        match told.is_empty() {
            true => "as the run before".to_owned(),
            false => told.join(", "),
        }
    }
}

/// A test that took at least twice its usual time, and half a second more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Slower {
    pub name: String,
    pub before_ms: u64,
    pub after_ms: u64,
}
