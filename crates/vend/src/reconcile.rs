//! What runs every day and after every restart: idempotent, without input, periodically and when poked.

pub mod alarms;
pub mod bases;
pub mod branches;
pub mod builders;
pub mod fleet;
pub mod left;
pub mod machines;
pub mod moves;
pub mod patience;
pub mod requests;
pub mod rest;
pub mod retention;
pub mod routes;

mod turns;
