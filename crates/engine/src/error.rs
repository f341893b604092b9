use std::sync::Arc;

/// Why the engine did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The text is no token.
    #[error("the token is not one of this engine's")]
    Token,
    /// The task has ended, or never was.
    #[error("the task does not exist anymore")]
    TaskGone,
    #[error("there is no open execution with the key {0}")]
    NotOpen(u64),
    /// It is under way, succeeded, or was never such that it can be tried again.
    #[error("the execution with the key {0} cannot be tried again")]
    NotRedrivable(u64),
    /// So many executions in memory may one owner have.
    #[error("{0} express executions are open, and no more may be")]
    Full(usize),
    /// Another execution has this name.
    #[error("the execution {0} exists already")]
    Exists(String),
    /// What was to be in the same transaction did not want it.
    #[error("it was refused")]
    Refused(#[source] Arc<store::Error>),
    /// Nothing was kept of it; asking again may help.
    #[error("the engine could not keep it")]
    Store(#[source] Arc<store::Error>),
    #[error("what is kept of execution {0} cannot be read")]
    Damaged(u64),
    #[error("the engine has ended")]
    Closed,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}
