//! Runs a buildspec in a container. Knows nothing of releases.

mod artifact;
pub mod junit;
pub mod protocol;
pub mod runner;
mod runtime;
pub mod shell;
