//! AWS: a light client of its services, what is done with them (stacks are planned, applied, destroyed), and the templates of
//! what runs there ([`synth`], which calls nothing).
//!
//! The room must not know containers or SQL. It brings no SDK: three protocols, signed with Signature v4, are little code,
//! and an SDK is minutes of every build (decision 29).

pub mod apply;
pub mod bucket;
pub mod call;
pub mod change;
pub mod client;
pub mod credentials;
pub mod destroy;
pub mod doctor;
pub mod download;
#[cfg(test)]
mod fixtures;
mod guard;
pub mod kept;
pub mod lambda;
pub mod live;
pub mod mark;
pub mod permit;
pub mod plan;
pub mod price;
pub mod protect;
pub mod remains;
mod sign;
pub mod site;
pub mod stack;
mod steps;
pub mod synth;
pub mod upload;
pub mod watch;

pub use client::Client;
pub use credentials::{Machine, Source};
pub use sign::{Credentials, Signed, sign};

pub use steps::Steps;
