//! The engine on a real store, in virtual time and killed for real.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
#![allow(clippy::disallowed_methods, reason = "a test's clock is the machine's")]

mod behaviour;
mod calls;
mod crash;
#[path = "../faults/mod.rs"]
mod faults;
mod laws;
mod maps;
mod own;
mod redrives;
mod results;
mod tenants;
mod upgrade;
#[path = "../world/mod.rs"]
mod world;
