//! Runs an appspec's lifecycle events inside a host.
//!
//! The room exists because CodeDeploy's agent has a meaning of its own for each key of an appspec, and customers rely
//! on it. [`plan()`] decides without touching anything; [`install`] and [`hooks`] act; [`bundle`] is the revision on the
//! disk. It knows nothing of tickets, sockets and services. Where it is stricter than CodeDeploy's agent on purpose, the
//! module that refuses says so.

use std::{fs, io, path::PathBuf};

use camino::{Utf8Path, Utf8PathBuf};
use model::{Problem, spec::Appspec};

use crate::tree;

pub mod bundle;
mod group;
mod holders;
pub mod hooks;
pub mod install;
mod labels;
pub mod local;
pub mod plan;
mod scriptlog;

pub use group::{Group, REVISIONS};
pub use plan::plan;
pub use scriptlog::ScriptLog;

/// Largest appspec that is read, in bytes.
const APPSPEC: u64 = 1 << 20;

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
    #[error("the revision cannot be unpacked: {}", crate::logs::chain(.0))]
    Archive(#[source] tree::Error),
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

    /// Keeps where the revision has its appspec, for whoever runs scripts of it later; `None`: it has none, and its
    /// processes are those of a Procfile.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn keep_appspec(&self, path: Option<&Utf8Path>) -> io::Result<()> {
        fs::write(self.kept_appspec(), path.map_or("", Utf8Path::as_str))
    }

    /// What was kept; `None` of a deployment from before that was done.
    pub fn appspec(&self) -> Option<Option<Utf8PathBuf>> {
        let path = fs::read_to_string(self.kept_appspec()).ok()?;
        Some((!path.is_empty()).then(|| path.into()))
    }

    fn kept_appspec(&self) -> PathBuf {
        self.directory.join("appspec-path")
    }

    pub fn scripts_log(&self) -> PathBuf {
        self.directory.join("logs/scripts.log")
    }
}

/// The appspec of a revision.
///
/// # Errors
/// With CodeDeploy's sentence.
pub fn read(of: &Deployment, path: &Utf8Path) -> Result<Appspec, String> {
    let inside = plan::inside(path.as_str()).ok_or_else(|| plan::leaves("appspec", path.as_str()))?;
    let archive = of.archive();
    let file = archive.join(&inside);
    let not_found = || {
        format!(
            "The CodeDeploy agent did not find an AppSpec file within the unpacked revision directory at \
             revision-relative path \"{inside}\". The revision was unpacked to directory \"{}\", and the AppSpec file \
             was expected but not found at path \"{}\". Consult the AWS CodeDeploy Appspec documentation for more \
             information at http://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file.html",
            archive.display(),
            file.display()
        )
    };
    let real = file.canonicalize().map_err(|_| not_found())?;
    let within = archive
        .canonicalize()
        .is_ok_and(|archive| real.starts_with(archive));
    let small = fs::metadata(&real).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= APPSPEC);
    if !within || !small {
        return Err(not_found());
    }
    let text = fs::read_to_string(&real).map_err(|error| format!("cannot read {inside}: {error}"))?;
    let first = |problems: Vec<Problem>| {
        problems
            .into_iter()
            .next()
            .map_or_else(String::new, |problem| problem.message)
    };
    Appspec::parse(&text, inside.as_str())
        .map(|(spec, _)| spec)
        .map_err(first)
}
