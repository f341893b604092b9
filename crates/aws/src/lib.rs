//! AWS, as far as the platform calls it: Step Functions, over its own protocol.
//!
//! The room must not know containers or SQL. It brings no SDK: one protocol, signed with Signature v4, is little code, and
//! an SDK is minutes of every build. Requests go over plain HTTP: to an endpoint of this machine, or to whatever ends TLS
//! on it (decision 8).

mod sign;
mod steps;

pub use sign::{Credentials, sign};
pub use steps::Steps;
