//! `checks.yml`: what must be true of a host, in goss's format.
//! <https://goss.readthedocs.io/en/stable/gossfile/>

mod parse;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Every field of a check that is `None` is not checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    pub file: BTreeMap<String, FileCheck>,
    pub package: BTreeMap<String, PackageCheck>,
    /// `tcp:8080`, `udp:53`, `tcp6:443`.
    pub port: BTreeMap<String, PortCheck>,
    pub process: BTreeMap<String, ProcessCheck>,
    pub command: BTreeMap<String, CommandCheck>,
    pub http: BTreeMap<String, HttpCheck>,
    pub user: BTreeMap<String, UserCheck>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileCheck {
    pub exists: bool,
    /// Octal text, `0644`.
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub group: Option<String>,
    /// `file`, `directory`, `symlink`.
    pub filetype: Option<String>,
    pub contains: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PackageCheck {
    pub installed: bool,
    pub versions: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PortCheck {
    pub listening: bool,
    pub ip: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessCheck {
    pub running: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandCheck {
    /// The command line; the check's name when absent.
    pub exec: Option<String>,
    pub exit_status: i32,
    /// Texts or `/regexp/`; `!text` must not be there.
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpCheck {
    pub status: u16,
    pub allow_insecure: bool,
    pub no_follow_redirects: bool,
    pub timeout_ms: u64,
    pub headers: Vec<String>,
    pub body: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UserCheck {
    pub exists: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub groups: Vec<String>,
    pub home: Option<String>,
    pub shell: Option<String>,
}
