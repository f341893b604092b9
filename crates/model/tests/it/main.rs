//! The files that customers write, read from text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod app;
mod appspec;
mod buildspec;
mod checks;
#[path = "../common/mod.rs"]
mod common;
mod meaning;
mod samples;
mod total;
mod webhook;
