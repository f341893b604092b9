//! AWS: what the platform calls there (Step Functions, over its own protocol), and the templates of what runs there
//! ([`synth`], which calls nothing).
//!
//! The room must not know containers or SQL. It brings no SDK: one protocol, signed with Signature v4, is little code, and
//! an SDK is minutes of every build. Requests go over plain HTTP: to an endpoint of this machine, or to whatever ends TLS
//! on it (decision 8).

mod sign;
mod steps;
pub mod synth;

pub use sign::{Credentials, sign};
pub use steps::Steps;
