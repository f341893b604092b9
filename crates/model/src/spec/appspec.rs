//! `appspec.yml` for EC2 and on-premises machines.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file.html>

mod acl;
mod agent;
mod config;
mod parse;
mod psych;
mod range;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use config::AgentConfiguration;
pub use parse::idle_hook;

use crate::port::LifecycleEvent;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Appspec {
    pub files: Vec<FileMapping>,
    pub file_exists_behavior: Option<FileExists>,
    pub permissions: Vec<Permission>,
    pub hooks: BTreeMap<LifecycleEvent, Vec<Script>>,
    /// Hooks that are no lifecycle event, or one for traffic itself, by name and in the file's order. Only
    /// `codedeploy-local --events` ever runs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom: Vec<(String, Vec<Script>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMapping {
    pub source: String,
    pub destination: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FileExists {
    Disallow,
    Overwrite,
    Retain,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    pub object: String,
    /// Default `**`.
    pub pattern: String,
    pub except: Vec<String>,
    /// To files, to directories; both by default.
    pub files: bool,
    pub directories: bool,
    /// As YAML has it: only a text can name anybody, and a number is refused when it comes to that.
    pub owner: Option<serde_json::Value>,
    pub group: Option<serde_json::Value>,
    pub mode: Option<Mode>,
    /// `[default:]user|group|mask|other[:name]:rwx`; of none, what the mode says is all.
    pub acls: Option<Vec<String>>,
    pub context: Option<Context>,
}

/// A mode as the agent keeps it: three or four octal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mode(String);

impl Mode {
    pub fn digits(&self) -> &str {
        &self.0
    }

    pub fn bits(&self) -> u32 {
        u32::from_str_radix(&self.0, 8).unwrap_or(0) & 0o7777
    }
}

/// An SELinux context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub name: Option<String>,
    pub r#type: String,
    pub range: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Path in the bundle.
    pub location: String,
    pub runas: Option<String>,
    pub sudo: bool,
    /// Seconds, default 3,600: one deadline for the process and its outputs.
    pub timeout: u32,
}
