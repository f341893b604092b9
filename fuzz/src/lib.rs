//! What several targets ask of their inputs.

pub mod delivery;
