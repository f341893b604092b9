//! The store as the platform uses it, opened again and killed for real.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod alarms;
mod attestations;
mod branches;
mod builders;
mod catalogue;
mod crash;
mod doors;
mod evidence;
mod journal;
mod ledger;
mod machines;
mod moves;
mod names;
mod people;
mod states;
mod vault;
#[path = "../world/mod.rs"]
mod world;
mod writer;
