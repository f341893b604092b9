//! Runs an appspec's lifecycle events inside a host.
//!
//! The room exists because CodeDeploy's agent has a meaning of its own for each key of an appspec, and customers rely
//! on it. [`plan`] decides without touching anything; [`install`] and [`hooks`] act; [`bundle`] is the revision on the
//! disk. It knows nothing of tickets, sockets and services. Where it is stricter than CodeDeploy's agent on purpose, the
//! module that refuses says so.

use std::{io, path::PathBuf};

use crate::tree;

pub mod bundle;
pub mod hooks;
pub mod install;
pub mod plan;
mod scriptlog;

pub use plan::plan;
pub use scriptlog::ScriptLog;

/// Why a revision is not installed. The texts are CodeDeploy's own where it has one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Refused(String),
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Files {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the revision cannot be unpacked: {0}")]
    Tar(tree::Error),
}

impl Error {
    pub(crate) fn files(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Files { action, path, source }
    }
}

/// The revision directory of one deployment, as CodeDeploy's agent lays it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// `<deployment-root>/<group>/<deployment>`
    pub directory: PathBuf,
}

impl Deployment {
    pub fn archive(&self) -> PathBuf {
        self.directory.join("deployment-archive")
    }

    pub fn scripts_log(&self) -> PathBuf {
        self.directory.join("logs/scripts.log")
    }
}
