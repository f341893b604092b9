//! `buildspec.yml`, versions 0.1 and 0.2.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html>

mod outputs;
mod parse;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Buildspec {
    pub version: Version,
    pub env: Env,
    /// In CodeBuild's order; phases that the file does not have are absent.
    pub phases: Vec<Phase>,
    pub artifacts: Option<Artifacts>,
    pub reports: Vec<Report>,
    /// Directories kept between builds of an app.
    pub cache_paths: Vec<String>,
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
    /// Variable → `id[:json-key[:stage[:version]]]` in the vault.
    pub secrets_manager: BTreeMap<String, String>,
    pub exported_variables: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shell {
    #[default]
    Sh,
    Bash,
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    #[default]
    Abort,
    Continue,
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
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub group: String,
    pub files: Vec<String>,
    pub base_directory: Option<String>,
    pub discard_paths: bool,
    pub format: ReportFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    #[default]
    JunitXml,
}
