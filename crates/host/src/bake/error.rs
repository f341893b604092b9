//! Why a bake fails, and what a person is told.

use std::time::Duration;

use camino::Utf8PathBuf;
use model::port::Fault;

use crate::{base, container, layer, logs, objects, tree, work};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the image's script `{0}` is not a file of the source tree")]
    NoScript(Utf8PathBuf),
    #[error("the image's inputs `{0}` match no file of the source tree")]
    NoInput(String),
    #[error("the image's base `{0}` is not in the source tree")]
    NoBase(Utf8PathBuf),
    #[error("{0}")]
    Pattern(String),
    #[error("{script} failed with exit code {code}{}", logs::said(last))]
    Failed { script: String, code: i32, last: String },
    #[error("{script} was stopped: it used more than the {memory_mib} MiB of memory that a bake may have")]
    Memory { script: String, memory_mib: u64 },
    #[error("{script} was stopped: the image was not baked in {} seconds{}", timeout.as_secs(), logs::said(last))]
    TimedOut {
        script: String,
        timeout: Duration,
        last: String,
    },
    #[error("the image was not begun: it waited {} hours for other bakes", .0.as_secs() / 3600)]
    Queued(Duration),
    #[error("the bake was stopped: {0}")]
    Stopped(String),
    #[error("all places for short-lived containers are taken")]
    Full,
    #[error("the bake was interrupted")]
    Interrupted,
    #[error(transparent)]
    Objects(#[from] objects::Error),
    #[error(transparent)]
    Tree(#[from] tree::Error),
    #[error(transparent)]
    Layer(#[from] layer::Error),
    #[error(transparent)]
    Base(#[from] base::Error),
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error(transparent)]
    Container(#[from] container::Error),
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
            Error::NoScript(_) | Error::NoInput(_) | Error::NoBase(_) | Error::Pattern(_) => {
                Self::customer(text).next("correct `image:` in vend.yaml and push again")
            }
            Error::Failed { script, .. } | Error::Memory { script, .. } | Error::TimedOut { script, .. } => {
                Self::customer(text).next(format!("correct {script} and push again"))
            }
            Error::Stopped(_) => Self::order(text),
            Error::Queued(_) => Self::order(text).next("push again when fewer images are baked"),
            Error::Full | Error::Interrupted | Error::Logs(_) => Self::platform(text),
            Error::Container(_) => Self::platform(text).next("vend doctor"),
            Error::Objects(error) => error.into(),
            Error::Tree(error) => error.into(),
            Error::Layer(error) => error.into(),
            Error::Base(error) => error.into(),
        }
    }
}
