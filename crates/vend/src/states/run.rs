//! One execution from start to end in this process, with its children.
//!
//! The same `asl::step` decides as under a platform; here nothing is kept. Time is virtual, so that waits and back-offs
//! take none, or real.

mod objects;
mod report;
mod world;

pub use objects::Objects;
pub use report::Report;
pub use world::{Error, Setup, run};
