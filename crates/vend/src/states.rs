//! State machines on this machine alone: run with mocked tasks, tested state by state, drawn.
//!
//! The room is for people who write Amazon States Language. It needs no platform and knows none: definitions, inputs and
//! mocks come in as text, answers go out as values. What interprets the language is `asl`, the same as under releases.

pub mod draw;
pub mod mocks;
pub mod run;

#[cfg(test)]
mod tests;
