//! Why a build fails, and what a person is told.

use std::{io, time::Duration};

use model::port::{Blame, Fault, PhaseStatus};

use crate::{container, layer, logs, objects, tree, work};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the build needs a value for its variable {variable}: the secret `{secret}` is not set")]
    NoSecret { variable: String, secret: String },
    #[error("no builder has {labels}: builds run on this machine, and it has {have}")]
    NoMachine {
        labels: String,
        have: String,
        /// Where a buildspec can ask for it.
        asked_by: &'static str,
        /// What has such a machine join, where there can be one.
        invite: Option<String>,
    },
    #[error("{phase} failed: {message}{}{tests}", logs::said(last))]
    Failed {
        phase: String,
        message: String,
        last: String,
        /// Those that failed, by name; empty when none did.
        tests: String,
    },
    #[error("the build was stopped after {} seconds, {doing}{before}{}", timeout.as_secs(), logs::said(last))]
    TimedOut {
        timeout: Duration,
        doing: String,
        /// Of its tries before.
        before: String,
        last: String,
    },
    #[error(
        "the build waited {} min for its turn, and is given up: others took all places of this machine",
        .0.as_secs().div_ceil(60)
    )]
    Queued(Duration),
    #[error("the build was stopped: {0}")]
    Stopped(String),
    #[error(
        "the build was stopped: it used more than the {memory_mib} MiB of memory that it may have{}{tests}",
        logs::said(last)
    )]
    Memory {
        memory_mib: u64,
        last: String,
        tests: String,
    },
    #[error(
        "{passed} of {ran} tests passed, which is less than the {wanted} % that `pass_rate` asks for{failures}"
    )]
    Tests {
        passed: u32,
        ran: u32,
        wanted: f64,
        failures: String,
    },
    #[error("the report group {group} tells of no test, and `pass_rate` asks for {wanted} %")]
    NoTests { group: String, wanted: f64 },
    #[error("{}, and this environment asks for {wanted} %", reached(*found))]
    Coverage { found: Option<f64>, wanted: f64 },
    #[error("DOWNLOAD_SOURCE failed: {0}")]
    Runtime(String),
    #[error("no builder has {labels}: the only one is this machine ({have})")]
    NoBuilder {
        labels: String,
        have: String,
        /// What has such a machine join, where there can be one.
        invite: Option<String>,
    },
    #[error("no builder has {labels}: there are {have}")]
    NoneOf {
        labels: String,
        have: String,
        /// What has such a machine join, where there can be one.
        invite: Option<String>,
    },
    /// This machine is not what the build asks for: whoever placed it here is to find another place.
    #[error(transparent)]
    Misplaced(Box<Error>),
    #[error("the build ended without an artifact")]
    NoArtifact,
    #[error("the build's artifact has more than {0} bytes")]
    Artifact(u64),
    #[error("the build disturbed its own runner")]
    Disturbed(#[source] io::Error),
    #[error(
        "the build's container ended without an answer (exit code {code}){}",
        logs::said(last)
    )]
    Silent { code: i32, last: String },
    #[error("all places for short-lived containers are taken")]
    Full,
    #[error("the build was interrupted")]
    Interrupted,
    #[error("the image that builds run in cannot be made")]
    Image(#[source] Fault),
    #[error(transparent)]
    Objects(#[from] objects::Error),
    #[error(transparent)]
    Tree(#[from] tree::Error),
    #[error(transparent)]
    Layer(#[from] layer::Error),
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error(transparent)]
    Container(#[from] container::Error),
}

impl Error {
    /// How the phase ended that it befell.
    pub(super) fn status(&self) -> PhaseStatus {
        match self {
            Self::Stopped(_) => PhaseStatus::Stopped,
            Self::TimedOut { .. } | Self::Queued(_) => PhaseStatus::TimedOut,
            _ => PhaseStatus::Failed,
        }
    }
}

impl From<work::Error> for Error {
    fn from(error: work::Error) -> Self {
        match error {
            work::Error::Container(error) => error.into(),
            work::Error::Layer(error) => error.into(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = logs::chain(&error);
        match error {
            Error::NoSecret { secret, .. } => Self::customer(text).next(format!("vend secrets set {secret}")),
            Error::Failed { .. }
            | Error::Runtime(_)
            | Error::TimedOut { .. }
            | Error::Memory { .. }
            | Error::Tests { .. }
            | Error::NoTests { .. }
            | Error::Coverage { .. }
            | Error::NoArtifact
            | Error::Artifact(_)
            | Error::Disturbed(_) => Self::customer(text).next("correct the build and push again"),
            Error::NoMachine { asked_by, invite, .. } => Self::customer(text).next(format!(
                "take what asks for another machine out of the buildspec: {asked_by}{}",
                joins(invite)
            )),
            Error::NoBuilder { invite, .. } => Self::customer(text).next(format!(
                "take the label out of the buildspec, or give it to this machine (`labels` of `[builds]` in platform.toml){}",
                joins(invite)
            )),
            Error::NoneOf { invite, .. } => {
                Self::customer(text).next(format!("take the label out of the buildspec{}", joins(invite)))
            }
            Error::Misplaced(why) => Self {
                blame: Blame::Platform,
                ..Self::from(*why)
            },
            Error::Queued(_) => Self::order(text)
                .next("push again, or have more builds run at a time: `at_once` of `[builds]` in platform.toml, or \
                       `--at-once` of the builder that its log names"),
            Error::Stopped(_) => Self::order(text),
            Error::Full | Error::Interrupted | Error::Logs(_) | Error::Silent { .. } => Self::platform(text),
            Error::Container(_) => Self::platform(text).next("vend doctor"),
            Error::Image(fault) => Self {
                message: text,
                ..fault
            },
            Error::Objects(error) => error.into(),
            Error::Tree(tree::Error::TooLarge(_)) => {
                Self::customer(text).next("leave large files out of `artifacts`, or pack them in parts")
            }
            Error::Tree(error) => error.into(),
            Error::Layer(error) => error.into(),
        }
    }
}

fn joins(invite: Option<String>) -> String {
    invite.map_or(String::new(), |invite| {
        format!(", or have a machine with it join: {invite}")
    })
}

fn reached(found: Option<f64>) -> String {
    match found {
        Some(found) => format!("tests reach {found:.1} % of lines"),
        None => "no report tells which lines tests reach".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_has_a_next_step() {
        let fault = Fault::from(Error::Tree(tree::Error::TooLarge("`a` has 9 bytes".to_owned())));
        assert_eq!(fault.blame, Blame::Customer);
        assert!(fault.message.contains("`a` has 9 bytes"), "{}", fault.message);
        assert!(fault.next.is_some_and(|next| next.contains("pack them in parts")));
    }
}
