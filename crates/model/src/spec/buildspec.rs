//! `buildspec.yml`, versions 0.1 and 0.2.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html>

mod batch;
mod env;
mod outputs;
mod parse;
mod phases;

pub use batch::{Batch, Task};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Buildspec {
    pub version: Version,
    pub env: Env,
    /// In CodeBuild's order; phases that the file does not have are absent. None at all: see
    /// [`Buildspec::is_batch_only`].
    pub phases: Vec<Phase>,
    pub artifacts: Option<Artifacts>,
    pub reports: Vec<Report>,
    pub cache: Cache,
    /// The builds that this one is divided into, when it is run as a batch.
    pub batch: Option<Batch>,
}

impl Buildspec {
    /// What CodeBuild begins with where one is missing or not valid.
    pub const FILE_ERROR: &str = "YAML_FILE_ERROR: ";
    /// The same where one is missing, before what we say of it.
    pub const FILE_MISSING: &str = "YAML_FILE_ERROR: YAML file does not exist: ";
    /// Why one that [has only a batch](Self::is_batch_only) is not run as one build.
    pub const BATCH_ONLY: &str = "it has a `batch` and no `phases`: as one build it has nothing to run";
    /// What to do about it in an app.
    pub const RUN_BATCH: &str = "write `build: { batch: true }` in vend.yaml, or `phases` in the buildspec";
    /// What to do about one that a build of a batch names.
    pub const NOT_AGAIN: &str =
        "a build of a batch is not divided again: write `phases`, or name another buildspec for it";

    /// It has builds of a batch, each with a buildspec of its own, and runs nothing itself.
    pub fn is_batch_only(&self) -> bool {
        self.batch.is_some() && self.phases.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Every command in a shell of its own.
    #[serde(rename = "0.1")]
    V0_1,
    /// One shell for the whole build.
    #[serde(rename = "0.2")]
    V0_2,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Env {
    pub shell: Shell,
    /// Literal: nothing is expanded.
    pub variables: BTreeMap<String, String>,
    /// Variable → name in the vault.
    pub parameter_store: BTreeMap<String, String>,
    /// Variable → where its value is in the vault.
    pub secrets_manager: BTreeMap<String, SecretRef>,
    pub exported_variables: Vec<String>,
    /// Git gets the app's `git-credentials` for the host that its repository is on.
    pub git_credential_helper: bool,
}

/// `id[:json-key[:version-stage[:version-id]]]`. An id that is an ARN has colons of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// As the file writes it.
    pub id: String,
    /// The field to take of a secret that is a JSON object; the whole text when absent.
    pub json_key: Option<String>,
    /// `AWSCURRENT` when absent.
    pub stage: Option<String>,
    pub version: Option<String>,
}

impl SecretRef {
    /// The name in the vault: the id, or the name in an ARN, without the six characters that AWS adds to it.
    pub fn name(&self) -> &str {
        let Some(arn) = self.id.strip_prefix("arn:") else {
            return self.id.trim_start_matches('/');
        };
        let name = arn.rsplit(':').next().unwrap_or_default();
        match name.rsplit_once('-') {
            Some((name, added)) if added.len() == 6 && added.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                name
            }
            _ => name,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shell {
    #[default]
    Sh,
    Bash,
    PowerShell,
    Cmd,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: PhaseName,
    pub run_as: Option<String>,
    pub on_failure: OnFailure,
    pub commands: Vec<String>,
    pub finally: Vec<String>,
    /// `install` only: runtime → version, as text.
    pub runtime_versions: BTreeMap<String, String>,
}

impl Phase {
    /// One that the file does not have: builds go through it all the same.
    pub fn empty(name: PhaseName) -> Self {
        Self {
            name,
            run_as: None,
            on_failure: OnFailure::default(),
            commands: Vec::new(),
            finally: Vec::new(),
            runtime_versions: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    Install,
    PreBuild,
    Build,
    PostBuild,
}

impl PhaseName {
    pub const ALL: [Self; 4] = [Self::Install, Self::PreBuild, Self::Build, Self::PostBuild];

    /// As the file writes it: `pre_build`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::PreBuild => "pre_build",
            Self::Build => "build",
            Self::PostBuild => "post_build",
        }
    }

    /// As CodeBuild reports it: `PRE_BUILD`.
    pub fn report(self) -> &'static str {
        match self {
            Self::Install => "INSTALL",
            Self::PreBuild => "PRE_BUILD",
            Self::Build => "BUILD",
            Self::PostBuild => "POST_BUILD",
        }
    }
}

/// What follows a phase that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Nothing is written: `install` and `pre_build` end the build, `post_build` follows `build`.
    #[default]
    Transition,
    /// No other phase follows.
    Abort,
    /// The next phase follows.
    Continue,
    /// The build is made again from its beginning, while what the phase said matches. At last as with
    /// [`OnFailure::Transition`].
    Retry {
        /// 0 to 100.
        times: u32,
        /// A regular expression; `None` matches everything.
        pattern: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifacts {
    /// Globs and paths, relative to `base_directory`.
    pub files: Vec<String>,
    pub base_directory: Option<String>,
    pub exclude_paths: Vec<String>,
    pub discard_paths: bool,
    pub enable_symlinks: bool,
    /// Expanded by the shell.
    pub name: Option<String>,
    /// A prefix of the name where artifacts of many builds lie side by side.
    pub s3_prefix: Option<String>,
    /// By identifier. Theirs is empty.
    pub secondary: BTreeMap<String, Artifacts>,
}

/// Directories kept between builds of an app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    pub paths: Vec<String>,
    /// Expanded by the shell. What is kept under a key never changes; without one, each build leaves its own state.
    pub key: Option<String>,
    /// Beginnings of keys, tried in this order when there is nothing under the key. At most 5.
    pub fallback_keys: Vec<String>,
    pub restore: bool,
    pub save: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub group: String,
    pub files: Vec<String>,
    pub base_directory: Option<String>,
    pub discard_paths: bool,
    pub format: ReportFormat,
}

/// The ten formats that CodeBuild reads: six of tests, four of coverage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    #[default]
    JunitXml,
    NunitXml,
    Nunit3Xml,
    CucumberJson,
    TestNgXml,
    VisualStudioTrx,
    CloverXml,
    CoberturaXml,
    JacocoXml,
    SimpleCov,
}

impl ReportFormat {
    pub const ALL: [(&'static str, Self); 10] = [
        ("JUNITXML", Self::JunitXml),
        ("NUNITXML", Self::NunitXml),
        ("NUNIT3XML", Self::Nunit3Xml),
        ("CUCUMBERJSON", Self::CucumberJson),
        ("TESTNGXML", Self::TestNgXml),
        ("VISUALSTUDIOTRX", Self::VisualStudioTrx),
        ("CLOVERXML", Self::CloverXml),
        ("COBERTURAXML", Self::CoberturaXml),
        ("JACOCOXML", Self::JacocoXml),
        ("SIMPLECOV", Self::SimpleCov),
    ];

    /// In any case of letters.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, format)| *format)
    }

    /// Does it tell which lines tests reach, rather than how tests ended?
    pub fn is_coverage(self) -> bool {
        matches!(
            self,
            Self::CloverXml | Self::CoberturaXml | Self::JacocoXml | Self::SimpleCov
        )
    }
}
