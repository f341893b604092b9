//! The platform over HTTP: `/v1`, the git server, the doors for webhooks.
//!
//! The room exists so that there is one way in. Every handler does the same five things in the same order: who is it,
//! may they, do it, a line in the ledger in the same transaction, answer. It decides nothing about releases and
//! starts nothing itself: motions go through [`Commands`], and what is outside the database is seen through
//! [`Sight`].

mod apps;
mod approvals;
mod auth;
mod audit;
mod commands;
mod deployments;
mod environments;
mod executions;
mod git;
mod hooks;
mod hosts;
mod idempotency;
mod input;
mod listen;
mod logs;
mod platform;
mod refusal;
mod releases;
mod router;
mod scope;
mod secrets;
mod state;
mod tenants;
#[cfg(test)]
mod tests;
mod tokens;
mod webhooks;
mod why;

pub use commands::{Commands, Pushed, Sight};
pub use git::{Repositories, announce_all};
pub use listen::{tcp, unix};
pub use router::{openapi, router};
pub use state::{Setup, State};
