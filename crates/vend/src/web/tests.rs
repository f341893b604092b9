//! The room as its callers see it: a real store, real git, real sockets; only the engine behind [`super::Commands`]
//! is one that writes down what it was asked.

mod alarms;
mod artifacts;
mod authorization;
mod client;
mod console;
mod flow;
mod git;
mod hooks;
mod images;
mod logs;
mod moto;
mod names;
mod objects;
mod problems;
mod services;
mod states;
mod truths;
mod upgrade;
mod vault;
mod world;
