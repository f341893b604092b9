//! The platform over HTTP: `/v1`, the git server, the doors for webhooks.
//!
//! The room exists so that there is one way in. Every handler does the same five things in the same order: who is it,
//! may they, do it, a line in the ledger in the same transaction, answer. It decides nothing about releases and
//! starts nothing itself: motions go through [`Commands`], and what is outside the database is seen through
//! [`Sight`].

mod alarms;
mod approvals;
mod apps;
mod artifacts;
mod audit;
mod auth;
mod builders;
mod commands;
mod console;
mod deployments;
mod doors;
mod drawings;
mod environments;
mod executions;
mod git;
pub mod hooks;
mod hosts;
mod idempotency;
mod images;
mod input;
mod listen;
mod logs;
mod machines;
mod moves;
mod names;
mod platform;
mod refusal;
mod releases;
mod router;
mod scope;
mod secrets;
mod state;
mod states;
mod tenants;
#[cfg(test)]
mod tests;
mod tokens;
mod webhooks;
mod why;

pub use commands::{Commands, Moving, Pushed, Sight};
pub use images::STATEMENTS;
pub use listen::{tcp, unix};
pub use moves::COUNTED;
pub use router::{openapi, router};
pub use state::{Names, Setup, State, Urls};
pub use states::{Buckets, Known, States, services};

/// Does what a platform that was stopped, or killed, has left: frees the keys of commands that nobody finished, and
/// hands over pushes and deliveries that it had stored and not handed over. To be called once before the doors open;
/// [`announce`] again from time to time.
pub async fn resume(state: &State) -> Result<(), store::Error> {
    state.store.write(|tx| tx.abandon_commands()).await?;
    announce(state).await?;
    hooks::resume(state).await
}

/// Looks at every built-in repository for what was pushed and not handed over: a git that outlived its platform may
/// end after [`resume`].
pub async fn announce(state: &State) -> Result<(), store::Error> {
    git::announce_all(state).await
}
